"""One thread serves the run queue, and hands it off while it waits."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from bearerd import handoff
from bearerd.handoff import PATIENCE, RunQueue, holding, waiting
from support.process import WITHIN, eventually


class Threads:
    """Starts a thread for each name that is to enter, at once or when the test says so."""

    def __init__(self, turn: Callable[[str], None]) -> None:
        self.turn = turn
        self.looks: list[float] = []
        self.threads: list[threading.Thread] = []
        self.queue = RunQueue(self.start, self.looks.append)

    def start(self, name: str) -> bool:
        self._start(lambda: name if self.queue.enter(name) else None)
        return True

    def relieve(self) -> None:
        self._start(self.queue.relieve)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(WITHIN)
            assert not thread.is_alive()

    def _start(self, first: Callable[[], str | None]) -> None:
        thread = threading.Thread(target=self._run, args=(first,), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _run(self, first: Callable[[], str | None]) -> None:
        following = first()
        while following is not None:
            self.turn(following)
            following = self.queue.next()


def test_one_thread_serves_all_names_in_their_order_and_those_that_were_woken_first() -> None:
    began, go_on = threading.Event(), threading.Event()
    served: list[tuple[str, int]] = []

    def turn(name: str) -> None:
        served.append((name, threading.get_ident()))
        if name == "first":
            began.set()
            assert go_on.wait(WITHIN)

    threads = Threads(turn)
    assert not threads.queue.offer("nobody computes")
    threads.start("first")
    assert began.wait(WITHIN)
    for name in ("a", "b", "b", "c"):
        assert not threads.queue.enter(name)
    assert threads.queue.offer("c")
    go_on.set()
    threads.join()
    assert [name for name, _ in served] == ["first", "c", "a", "b"]
    assert len({thread for _, thread in served}) == 1


def test_another_thread_takes_over_while_the_first_waits() -> None:
    began, go_on, answered = threading.Event(), threading.Event(), threading.Event()
    served: list[str] = []

    def turn(name: str) -> None:
        if name == "first":
            began.set()
            assert go_on.wait(WITHIN)
            with waiting():
                assert answered.wait(WITHIN)
        served.append(name)
        if name == "last":
            answered.set()

    threads = Threads(turn)
    threads.start("first")
    assert began.wait(WITHIN)
    for name in ("a", "last"):
        assert not threads.queue.enter(name)
    go_on.set()
    eventually(lambda: "first" in served)
    threads.join()
    assert served == ["a", "last", "first"]


def test_threads_that_come_back_compute_one_at_a_time() -> None:
    computing, most, waits = 0, 0, threading.Barrier(9)
    lock = threading.Lock()

    def turn(_: str) -> None:
        nonlocal computing, most
        with waiting():
            waits.wait(WITHIN)
        with lock:
            computing += 1
            most = max(most, computing)
        sum(range(20_000))  # long enough for Python to pass its lock on
        with lock:
            computing -= 1

    threads = Threads(turn)
    for number in range(8):
        threads.start(str(number))
    waits.wait(WITHIN)
    threads.join()
    assert most == 1


def test_a_thread_that_waited_begins_the_next_name_before_another_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoff, "PATIENCE", WITHIN)  # nobody is stuck, however slow the machine is
    answered = {"a": threading.Event(), "b": threading.Event()}
    back, go_on = threading.Event(), threading.Event()
    served: list[tuple[str, int]] = []

    def turn(name: str) -> None:
        if name in answered:
            with waiting():
                assert answered[name].wait(WITHIN)
        if name == "a":
            back.set()
            assert go_on.wait(WITHIN)
        served.append((name, threading.get_ident()))

    threads = Threads(turn)
    threads.start("a")
    threads.start("b")
    answered["a"].set()
    assert back.wait(WITHIN)
    answered["b"].set()
    eventually(lambda: threads.queue._returning)
    for name in ("next", "last"):
        assert not threads.queue.enter(name)
    go_on.set()
    threads.join()

    # Whether `last` comes before `b` goes on is decided by the same rule: a turn without a wait frees nothing.
    assert [name for name, _ in served] == ["a", "next", "b", "last"]
    assert served[0][1] == served[1][1] != served[2][1] == served[3][1]


def test_a_thread_that_is_stuck_is_left_behind() -> None:
    stuck, free = threading.Event(), threading.Event()
    served: list[str] = []

    def turn(name: str) -> None:
        if name == "stuck":
            stuck.set()
            assert free.wait(WITHIN)  # without a word, as on a file system that hangs
        served.append(name)

    threads = Threads(turn)
    threads.start("stuck")
    assert stuck.wait(WITHIN)
    assert not threads.queue.enter("a")
    assert not threads.queue.enter("b")
    assert threads.looks == [PATIENCE]
    threads.relieve()
    eventually(lambda: served == ["a", "b"])
    free.set()
    threads.join()
    assert served == ["a", "b", "stuck"]
    assert threads.queue.stuck == 0


def test_a_thread_that_was_left_behind_and_then_waits_is_not_stuck() -> None:
    queue = RunQueue(lambda _: True, lambda _: None)
    assert queue.enter("slow")
    assert not queue.enter("a")
    other = threading.Thread(target=lambda: (queue.relieve(), queue.next()))
    other.start()
    other.join(WITHIN)
    assert queue.stuck == 1
    with waiting():
        assert queue.stuck == 0
    assert queue.next() is None


@pytest.mark.parametrize("stuck", [False, True])
def test_a_thread_that_gives_up_its_place_is_not_stuck_and_holds_up_nobody(*, stuck: bool) -> None:
    started: list[str] = []

    def start(name: str) -> bool:
        started.append(name)
        return True

    queue = RunQueue(start, lambda _: None)
    assert queue.enter("fails")
    for name in ("a", "b"):
        assert not queue.enter(name)
    if stuck:
        other = threading.Thread(target=queue.relieve)
        other.start()
        other.join(WITHIN)
    assert queue.stuck == stuck
    queue.abandon()
    assert queue.stuck == 0
    assert started == ([] if stuck else ["a"])  # the other thread goes on with them
    assert queue.next() is None
    queue.abandon()
    assert queue.offer("c") is stuck


def test_a_name_that_was_removed_does_not_hold_up_the_next_one() -> None:
    started: list[str] = []

    def start(name: str) -> bool:
        started.append(name)
        return name != "removed"

    queue = RunQueue(start, lambda _: None)
    assert queue.enter("first")
    assert not queue.enter("removed")
    assert not queue.enter("a")
    with waiting():
        assert started == ["removed", "a"]
    assert queue.next() is None


def test_a_thread_that_is_not_stuck_is_looked_at_again_while_others_are_in_the_queue() -> None:
    began, second, go_on, free = (threading.Event() for _ in range(4))
    served: list[str] = []

    def turn(name: str) -> None:
        if name == "first":
            began.set()
            assert go_on.wait(WITHIN)
        if name == "second":
            second.set()
            assert free.wait(WITHIN)
        served.append(name)

    threads = Threads(turn)
    threads.start("first")
    assert began.wait(WITHIN)
    assert not threads.queue.enter("second")
    assert not threads.queue.enter("third")
    go_on.set()
    assert second.wait(WITHIN)
    assert threads.queue.relieve() is None  # it is in its second turn by now
    assert threads.looks == [PATIENCE] * 2
    threads.relieve()
    eventually(lambda: served == ["first", "third"])
    free.set()
    threads.join()


def test_one_that_comes_back_leaves_a_stuck_one_behind_as_well() -> None:
    waits, answered, stuck, free = (threading.Event() for _ in range(4))
    served: list[str] = []

    def turn(name: str) -> None:
        if name == "waits":
            with waiting():
                waits.set()
                assert answered.wait(WITHIN)
        else:
            stuck.set()
            assert free.wait(WITHIN)
        served.append(name)

    threads = Threads(turn)
    threads.start("waits")
    assert waits.wait(WITHIN)
    threads.start("stuck")
    assert stuck.wait(WITHIN)
    answered.set()
    eventually(lambda: served == ["waits"])
    free.set()
    threads.join()


def test_a_wait_within_a_wait_hands_off_once_and_comes_back_once() -> None:
    served: list[str] = []

    def turn(name: str) -> None:
        if name == "first":
            with waiting():
                with waiting():
                    pass
                assert not threads.queue.offer("nobody computes")
            assert threads.queue.offer("last")
        served.append(name)

    threads = Threads(turn)
    threads.start("first")
    threads.join()
    assert served == ["first", "last"]


def test_another_thread_takes_over_while_one_waits_for_a_lock() -> None:
    lock, held, second, go_on = threading.Lock(), threading.Event(), threading.Event(), threading.Event()
    served: list[str] = []

    def turn(name: str) -> None:
        if name == "third":
            go_on.set()
        else:
            if name == "second":
                second.set()
            with holding(lock), waiting():
                held.set()
                assert go_on.wait(WITHIN)
        served.append(name)

    threads = Threads(turn)
    threads.start("first")
    assert held.wait(WITHIN)
    threads.start("second")
    assert second.wait(WITHIN)
    threads.start("third")
    assert go_on.wait(WITHIN)
    threads.join()
    assert sorted(served) == ["first", "second", "third"]


def test_waiting_means_nothing_in_a_thread_that_serves_no_queue() -> None:
    with waiting():
        pass
