from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from bearerd import threads
from bearerd.threads import Pool, Started
from support.process import WITHIN, eventually


class Starts:
    """A `_thread.start_new_thread` whose threads begin when the test says so, or cannot be started."""

    def __init__(self) -> None:
        self.bodies: list[Callable[[], None]] = []
        self.fault: Exception | None = None

    def __call__(self, body: Callable[..., None], arguments: tuple[object, ...]) -> None:
        if self.fault is not None:
            raise self.fault
        self.bodies.append(lambda: body(*arguments))

    def begin(self) -> None:
        """Begin each thread that was started."""
        while self.bodies:
            threading.Thread(target=self.bodies.pop(0), daemon=True).start()


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    """The threads of pools begin when the test says so."""
    fake = Starts()
    monkeypatch.setattr(threads, "_thread", SimpleNamespace(start_new_thread=fake))
    return fake


@pytest.fixture
def pool() -> Iterator[Pool]:
    """At most three threads."""
    pool = Pool("pool", 3)
    yield pool
    pool.close()


class Job:
    """A job that runs until the test lets it end."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.may_end.wait(WITHIN)


def test_a_function_is_called_in_another_thread() -> None:
    called = threading.Event()
    found: list[tuple[int, object]] = []

    def note(argument: object) -> None:
        found.append((threading.get_ident(), argument))
        called.set()

    threads.start("a name", note, "argument")

    assert called.wait(WITHIN)
    [(thread, argument)] = found
    assert thread != threading.get_ident()
    assert argument == "argument"


def test_a_thread_that_does_not_begin_is_an_error_and_its_function_is_never_called(
    starts: Starts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As where the new thread has no memory for its first steps. Thread.start() would never return.
    monkeypatch.setattr(threads, "_BEGINS_WITHIN", 0.01)
    called: list[int] = []

    with pytest.raises(RuntimeError, match="memory"):
        threads.start("a name", called.append, 1)
    [late] = starts.bodies
    late()

    assert called == []


def test_a_thread_is_alive_until_it_ends_and_lost_if_it_does_not_begin(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job()
    started = threads.begin("a name", job)
    assert started.alive()
    assert not started.begun()
    starts.begin()
    assert job.begun.wait(WITHIN)
    assert started.alive()
    job.may_end.set()
    eventually(lambda: not started.alive())
    assert not started.lost()

    late = threads.begin("a name", job)
    assert not late.lost()
    monkeypatch.setattr(threads, "_BEGINS_WITHIN", -1.0)
    assert late.lost()
    assert not late.alive()


@pytest.mark.parametrize(
    ("fault", "said"),
    [(RuntimeError("can't start new thread"), "raise TasksMax"), (MemoryError(), "no memory for another thread")],
)
def test_a_thread_that_cannot_be_started_is_an_error(starts: Starts, fault: Exception, said: str) -> None:
    starts.fault = fault
    with pytest.raises(RuntimeError, match=said):
        threads.begin("a name", print)


@pytest.mark.parametrize("error", [MemoryError(), ValueError(), SystemExit(1)])
def test_an_exception_is_reported_with_the_name_of_its_thread(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    reported: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda failed: reported.append((failed.thread.name, failed.exc_value)))

    def fails() -> None:
        raise error

    started = threads.start("a name", fails)
    eventually(lambda: not started.alive())
    assert reported == [("a name", error)]


def test_a_pool_runs_jobs_at_once_up_to_its_number_of_threads_and_then_in_order(pool: Pool) -> None:
    jobs = [Job() for _ in range(5)]
    for job in jobs:
        pool.submit(job)
    for job in jobs[:3]:
        assert job.begun.wait(WITHIN)
    assert not any(job.begun.is_set() for job in jobs[3:])
    jobs[1].may_end.set()
    assert jobs[3].begun.wait(WITHIN)
    assert not jobs[4].begun.is_set()
    for job in jobs:
        job.may_end.set()
    assert jobs[4].begun.wait(WITHIN)


def test_a_free_thread_of_a_pool_takes_the_next_job(starts: Starts, pool: Pool) -> None:
    for _ in range(3):
        done = threading.Event()
        pool.submit(done.set)
        starts.begin()
        assert done.wait(WITHIN)
        eventually(lambda: pool._free == 1)
    assert pool._begun == 1


@pytest.mark.parametrize("fault", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_job_for_which_no_thread_can_be_started_runs_after_a_tick(
    starts: Starts, pool: Pool, fault: Exception
) -> None:
    done = threading.Event()
    starts.fault = fault
    pool.submit(done.set)
    assert not pool.tick()
    starts.fault = None
    assert pool.tick()
    starts.begin()
    assert done.wait(WITHIN)


def test_threads_that_a_pool_has_serve_jobs_for_which_no_other_can_be_started(starts: Starts, pool: Pool) -> None:
    first, second = Job(), Job()
    pool.submit(first)
    starts.begin()
    starts.fault = RuntimeError("can't start new thread")
    pool.submit(second)
    assert first.begun.wait(WITHIN)
    assert pool.tick()  # the job waits for the first thread, and that is no fault
    first.may_end.set()
    assert second.begun.wait(WITHIN)
    second.may_end.set()


def test_a_thread_that_does_not_begin_is_replaced(starts: Starts, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    # It had no memory for its first steps, and tells nobody.
    done = threading.Event()
    pool.submit(done.set)
    lost = starts.bodies.pop()
    assert pool.tick()
    assert not starts.bodies  # it may still begin
    with monkeypatch.context() as patch:
        patch.setattr(threads, "_BEGINS_WITHIN", -1.0)
        pool.tick()
    starts.begin()
    assert done.wait(WITHIN)
    eventually(lambda: pool._free == 1)
    lost()  # it was only late, and ends at once
    assert (pool._begun, pool._free) == (1, 1)


@pytest.mark.parametrize("another", [False, True])
def test_a_thread_that_ends_before_it_is_counted_is_replaced(
    starts: Starts, pool: Pool, monkeypatch: pytest.MonkeyPatch, *, another: bool
) -> None:
    def fails(_: Started) -> bool:
        raise MemoryError

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    jobs = [threading.Event() for _ in range(1 + another)]
    pool.submit(jobs[0].set)
    (started,) = pool._beginning
    with monkeypatch.context() as patch:
        patch.setattr(Started, "begun", fails)
        starts.begin()
        eventually(lambda: not started.alive())
    for job in jobs[1:]:
        pool.submit(job.set)
        starts.begin()
        assert job.wait(WITHIN)
    assert pool.tick()
    starts.begin()
    assert jobs[0].wait(WITHIN)
    eventually(lambda: (pool._begun, pool._free) == (1, 1))


def test_of_two_threads_the_one_that_does_not_begin_is_replaced(
    starts: Starts, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Job(), Job()
    pool.submit(first)
    pool.submit(second)
    starts.bodies.pop(0)
    starts.begin()
    assert first.begun.wait(WITHIN)
    monkeypatch.setattr(threads, "_BEGINS_WITHIN", -1.0)
    pool.tick()
    starts.begin()
    assert second.begun.wait(WITHIN)
    assert (pool._begun, pool._free) == (2, 0)
    first.may_end.set()
    second.may_end.set()


@pytest.mark.parametrize("error", [MemoryError(), ValueError(), SystemExit(1)])
def test_an_exception_in_a_job_is_reported_and_costs_no_thread(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    reported: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda failed: reported.append(failed.exc_value))

    def fails() -> None:
        raise error

    done = threading.Event()
    pool.submit(fails)
    eventually(lambda: pool._free == 1)
    pool.submit(done.set)
    assert done.wait(WITHIN)
    assert reported == [error]
    assert pool._begun == 1


def test_a_closed_pool_starts_no_job_and_its_threads_end(pool: Pool) -> None:
    jobs = [Job() for _ in range(5)]
    before = _thread._count()  # of all threads, also those without a Thread
    for job in jobs:
        pool.submit(job)
    for job in jobs[:3]:
        assert job.begun.wait(WITHIN)
    assert pool.close() == 2
    pool.submit(jobs[4])
    for job in jobs:
        job.may_end.set()
    eventually(lambda: _thread._count() <= before)
    assert not any(job.begun.is_set() for job in jobs[3:])


def test_a_thread_that_begins_after_the_pool_was_closed_ends(starts: Starts, pool: Pool) -> None:
    pool.submit(Job())
    assert pool.close() == 1
    starts.bodies.pop()()
    assert pool._begun == 0
