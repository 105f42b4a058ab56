"""The scripts on real servers, compared with the model, and everything with the ACL of the documentation."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

import bearerd.share.redis_store
from bearerd.share.redis_store import ACL, SENTINEL_ACL, RedisStore
from bearerd.share.types import NEVER, Busy, Claim, Failing, Granted, Limited, Names, ShareUnavailable, Store, Stored
from bearerd.terms import RateLimit, Redis, Reference
from support.memory import kept
from support.process import WITHIN, eventually
from support.redis_server import NEEDS_REDIS, ON_EACH, RedisServer, redis_server, sentinel
from support.share_model import ModelStore

LONG = 600.0
"""Seconds: longer than a test."""
REFUSED = RateLimit(4, LONG)
NAMES = Names("target", "client", REFUSED)
OTHER = Names("other", "client", REFUSED)
ENVIRON = {"PASSWORD": "secret"}


@pytest.fixture(scope="module", params=ON_EACH)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with redis_server(binary=request.param, acl=[f"user bearerd on >secret ~bearerd:* &bearerd:* {ACL}"]) as running:
        yield running


def share(server: RedisServer) -> Redis:
    return Redis(server.url, server.ca_file, "bearerd", Reference("env", "PASSWORD"), timeout=WITHIN / 2)


class Clocked(RedisStore):
    """Notes the server's time of the last reply."""

    now = 0.0

    def _evaluated(
        self, script: str, keys: tuple[str, ...], arguments: tuple[str | bytes | int, ...], read: Callable[[Any], Any]
    ) -> Any:
        def noting(reply: Any) -> Any:
            self.now = int(reply[0]) / 1e6
            return read(reply)

        return super()._evaluated(script, keys, arguments, noting)


@pytest.fixture
def store(server: RedisServer) -> Iterator[Clocked]:
    server.ask("FLUSHALL")
    store = Clocked(share(server), ENVIRON)
    store.connect()
    yield store
    store.disconnect()


# -- the same answers as the model ------------------------------------------------------------------

TARGETS = [
    Names("token-a", "client", REFUSED, (("rate", RateLimit(3, LONG)),)),
    Names("token-b", "client", RateLimit(2, LONG), (("rate", RateLimit(3, LONG)),)),
    Names("token-c", "other", RateLimit(3, 0.02), (("fast", RateLimit(2, 0.01)), ("rate", RateLimit(9, LONG)))),
    *(Names(f"token-{name}", "client", REFUSED) for name in "def"),
]
A, B, C, D, E, F = TARGETS
ONCE = Names("token-once", "client", REFUSED, (("once", RateLimit(1, LONG)),))
HALF = 0.5e-6
"""Of a microsecond. The model's durations are shorter by it, so that its floats and the server's integers agree."""


@dataclass(frozen=True)
class Step:
    """One operation with its arguments."""

    what: str
    target: Names
    seconds: float = LONG
    claim: Claim = field(default_factory=Claim)
    fence: str = "own"
    """The last one that the target was granted, the last one of all, or one in the future."""
    have: str = "stored"
    seen: str = "none"
    whole_client: bool = False
    refused: bool = False
    sealed: bytes = b"sealed"


FUTURE = 2**51
SECONDS = st.sampled_from([0.002, 0.01, LONG, LONG])
STEPS = st.lists(
    st.builds(
        Step,
        what=st.sampled_from(
            [
                "claim",
                "claim",
                "claim",
                "claim",
                "store",
                "store",
                "keep",
                "fail",
                "fail",
                "give_back",
                "pause",
                "flush",
            ]
        ),
        target=st.sampled_from(TARGETS),
        seconds=SECONDS,
        claim=st.builds(
            Claim,
            lease=SECONDS,
            last=st.booleans(),
            changed=st.sampled_from([None, None, 0.002, LONG]),
            requested=st.sampled_from([False, False, True]),
        ),
        fence=st.sampled_from(["own", "own", "own", "other", "future"]),
        have=st.sampled_from(["stored", "stored", "stored", "none", "other", "future"]),
        seen=st.sampled_from(["none", "other", "future"]),
        whole_client=st.booleans(),
        refused=st.booleans(),
        sealed=st.binary(min_size=1, max_size=20),
    ),
    min_size=10,
    max_size=40,
)


class Fences:
    """Those that were granted."""

    def __init__(self) -> None:
        self.own: dict[str, int] = {}
        self.other = 1

    def granted(self, target: str, fence: int) -> None:
        self.own[target] = self.other = fence

    def of(self, target: str, which: str, stored: Stored | None = None) -> int:
        match which:
            case "own":
                return self.own.get(target, 1)
            case "other":
                return self.other
            case "future":
                return FUTURE
            case "stored":
                return NEVER if stored is None else stored.fence
            case _:
                return NEVER


def did(step: Step, store: Store, fences: Fences, stored: Stored | None, less: float) -> Any:
    """The answer to one step; durations are shorter by `less`."""
    limits = tuple((name, replace(limit, window=limit.window - less)) for name, limit in step.target.rates)
    refused = replace(step.target.refused_limit, window=step.target.refused_limit.window - less)
    names = replace(step.target, refused_limit=refused, rates=limits)
    fence, seconds = fences.of(names.token, step.fence), step.seconds - less
    match step.what:
        case "claim":
            have, seen = fences.of(names.token, step.have, stored), fences.of(names.token, step.seen)
            changed = None if step.claim.changed is None else step.claim.changed - less
            return store.claim(
                names, replace(step.claim, have=have, seen=seen, lease=step.claim.lease - less, changed=changed)
            )
        case "store":
            return store.store(names, fence, step.sealed, seconds)
        case "keep":
            return store.keep(names, fence, seconds)
        case "fail":
            whole_client, counted = step.whole_client, step.refused
            return store.fail(names, fence, step.sealed, seconds, whole_client=whole_client, refused=counted)
        case _:
            return store.give_back(names, fence)


def same(real: Any, model: Any) -> Any:
    """The answer of the server with the model's times, if they are equal up to microseconds."""
    if isinstance(real, Busy | Limited | Failing) and isinstance(model, Busy | Limited | Failing):
        assert real.wait == pytest.approx(model.wait, abs=3e-6)
        return replace(real, wait=model.wait)
    if isinstance(real, Granted | Stored) and isinstance(model, Granted | Stored):
        assert real.clock == pytest.approx(model.clock, abs=1e-6)
        return replace(real, clock=model.clock)
    return real


@settings(max_examples=100)
@given(steps=STEPS)
def test_the_server_answers_and_announces_as_the_model_does(server: RedisServer, steps: list[Step]) -> None:
    compare(server, steps)


LAST = Claim(last=True)
REQUESTED = Claim(requested=True)


@pytest.mark.parametrize(
    ("steps", "answers"),
    [
        pytest.param(
            [Step("claim", D), Step("claim", E), Step("give_back", D), Step("claim", E)],
            [Granted, Busy, Granted],
            id="a client that never worked has one attempt in flight",
        ),
        pytest.param(
            [Step("claim", D), Step("store", D), *(Step("claim", target) for target in (A, B, C, D, E, F))],
            [Granted, *[Granted] * 6],
            id="a client that just worked has any number",
        ),
        pytest.param(
            [
                Step("claim", D),
                Step("store", D),
                Step("pause", D),
                *(Step("claim", target) for target in (A, B, D, E, F)),
            ],
            [Granted, *[Granted] * 4, Busy],
            id="a client that worked lately has four",
        ),
        pytest.param(
            [
                *(Step("claim", D), Step("fail", D, whole_client=True, refused=True)),
                *(Step("claim", E, claim=LAST), Step("store", E)),
                *(Step("claim", D), Step("fail", D, whole_client=True, refused=True)),
                *(Step("claim", F, claim=LAST), Step("claim", D, claim=LAST)),
            ],
            [Granted, Granted, Granted, Granted, Limited],
            id="an attempt that got a token does not count as refused",
        ),
        pytest.param(
            [
                *(Step("claim", D), Step("fail", D)),
                *(Step("claim", E), Step("fail", E, whole_client=True, sealed=b"client")),
                *(Step("claim", D), Step("claim", D, claim=LAST)),
            ],
            [Granted, Granted, Failing, Granted],
            id="the failure of the client goes before that of the target",
        ),
        pytest.param(
            [
                *(Step("claim", D), Step("fail", D)),
                *(Step("claim", D, claim=LAST), Step("fail", D), Step("claim", D, claim=LAST)),
            ],
            [Granted, Granted, Failing],
            id="there is one last attempt",
        ),
        pytest.param(
            [
                *(Step("claim", D), Step("fail", D)),
                *(Step("claim", D, claim=LAST), Step("give_back", D), Step("claim", D, claim=LAST)),
            ],
            [Granted, Granted, Granted],
            id="a last attempt that was not sent is given back",
        ),
        pytest.param(
            [
                *(Step("claim", D, claim=LAST), Step("store", D)),
                *(Step("claim", D), Step("fail", D), Step("claim", D, claim=LAST)),
            ],
            [Granted, Granted, Granted],
            id="a new token has a last attempt of its own",
        ),
        pytest.param(
            [Step("claim", D), Step("store", D, fence="future"), Step("fail", D), Step("claim", D)],
            [Granted, Granted],
            id="a failure that is older than the token is not noted",
        ),
        pytest.param(
            [*(Step("claim", A), Step("store", A)) * 3, Step("claim", B), Step("claim", C)],
            [Granted, Granted, Granted, Limited, Granted],
            id="a rate limit is that of the fleet",
        ),
        pytest.param(
            [
                *(Step("claim", A, claim=REQUESTED), Step("store", A), Step("claim", A, claim=REQUESTED)),
                *(Step("claim", A), Step("store", A), Step("claim", A)),
            ],
            [Granted, Limited, Granted, Granted],
            id="requested refreshes use at most half of a rate limit",
        ),
        pytest.param(
            [Step("claim", ONCE, claim=REQUESTED), Step("claim", ONCE)],
            [Limited, Granted],
            id="a limit of one has no half for requested refreshes",
        ),
        pytest.param(
            [Step("claim", D, seen="future"), Step("give_back", D), Step("claim", D)],
            [Granted, Granted],
            id="no fence is given twice",
        ),
        pytest.param(
            [*(Step("claim", D), Step("fail", D), Step("claim", D, claim=LAST), Step("store", D)), Step("claim", D)],
            [Granted, Granted, Granted],
            id="a new token ends the failures",
        ),
        pytest.param(
            [
                *(Step("claim", D), Step("fail", D, whole_client=True, refused=True)),
                *(Step("claim", E, claim=LAST), Step("fail", E, whole_client=True, refused=True)),
                *(Step("claim", F, claim=LAST), Step("fail", F, whole_client=True, refused=True)),
                *(Step("claim", D, claim=LAST), Step("claim", D, claim=Claim(last=True, changed=LONG))),
            ],
            [Granted, Granted, Granted, Limited, Granted],
            id="one refused attempt is reserved for changed credentials",
        ),
        pytest.param(
            [Step("claim", D), Step("store", D), Step("claim", D, have="none"), Step("claim", D), Step("keep", D)],
            [Granted, Stored, Granted],
            id="a newer token is returned",
        ),
    ],
)
def test_a_scenario(server: RedisServer, steps: list[Step], answers: list[type]) -> None:
    assert [type(answer) for answer in compare(server, steps)] == answers


def compare(server: RedisServer, steps: list[Step]) -> list[Any]:
    """Take the same steps at the server and with the model; returns the answers to claims."""
    server.ask("FLUSHALL")
    store, announced, fences = Clocked(share(server), ENVIRON), list[tuple[str, str]](), Fences()
    store.connect()
    subscription = store.subscribe()
    model = ModelStore(lambda: store.now, lambda names: announced.append((names.token, names.client)))
    stored: dict[str, Stored | None] = {}
    answers: list[Any] = []
    try:
        for step in steps:
            if step.what == "flush":
                server.ask("FLUSHALL")
                model.flush()
            elif step.what == "pause":
                age(server, model, step.target.client)
            else:
                real = did(step, store, fences, stored.get(step.target.token), 0.0)
                expected = did(step, model, fences, stored.get(step.target.token), HALF)
                assert same(real, expected) == expected, step
                if isinstance(real, Granted):
                    fences.granted(step.target.token, real.fence)
                answers += [real] if step.what == "claim" else []
            for target in TARGETS:
                stored[target.token] = found = store.read(target)
                expected = model.read(target)
                assert same(found, expected) == expected
            tokens = tuple(target.token for target in TARGETS)
            assert store.fences(tokens) == model.fences(tokens)
        for each in announced:
            assert subscription.hear(time.monotonic() + WITHIN) == each
        assert all(int(server.ask("PTTL", key)) != -1 for key in server.ask("KEYS", "*"))
    finally:
        subscription.close()
        store.disconnect()
    return answers


def age(server: RedisServer, model: ModelStore, client: str) -> None:
    """Let the last success of a client be 2 s older."""
    if (worked := server.ask("GET", f"bearerd:worked:{client}")) is not None:
        server.ask("SET", f"bearerd:worked:{client}", int(worked) - 2_000_000, "KEEPTTL")
        model.worked[client] -= 2.0


# -- one by one -------------------------------------------------------------------------------------


def granted(answer: Any) -> int:
    assert isinstance(answer, Granted), answer
    return answer.fence


def test_everything_works_with_the_documented_acl_and_a_check_leaves_nothing(server: RedisServer) -> None:
    server.ask("FLUSHALL")
    server.ask("ACL", "LOG", "RESET")
    RedisStore(share(server), ENVIRON).prove()
    assert server.ask("KEYS", "*") == ["bearerd:alive"]
    assert server.ask("ACL", "LOG") == []


def test_the_acl_is_documented() -> None:
    text = " ".join((bearerd.share.redis_store.__doc__ or "").split())
    assert f"user bearerd on >PASSWORD ~PREFIX:* &PREFIX:* {ACL} " in text
    assert f"user bearerd on >PASSWORD {SENTINEL_ACL}" in text
    page = (Path(__file__).parents[2] / "docs/fleet.md").read_text()
    assert f"user bearerd on >PASSWORD ~bearerd:* &bearerd:* {ACL}\n" in page


@NEEDS_REDIS
@pytest.mark.parametrize("missing", ["+evalsha", "+eval", "+publish", "+subscribe", "+zrange", "+hset", "+ping"])
def test_a_check_names_a_missing_permission(missing: str) -> None:
    less = ACL.replace(f"{missing} ", "")
    with (
        redis_server(acl=[f"user bearerd on >secret ~bearerd:* &bearerd:* {less}"]) as server,
        pytest.raises(ShareUnavailable, match=r"may not do this .* \(NOPERM\); give it the ACL in docs/fleet\.md"),
    ):
        RedisStore(share(server), ENVIRON).prove()


def test_another_prefix_or_channel_than_that_of_the_acl_is_refused(server: RedisServer) -> None:
    with pytest.raises(ShareUnavailable, match="NOPERM"):
        RedisStore(replace(share(server), prefix="other"), ENVIRON).prove()


def test_two_prefixes_share_nothing(store: RedisStore, server: RedisServer) -> None:
    other = RedisStore(replace(share(server), prefix="bearerd:other"), ENVIRON)
    other.connect()
    store.store(NAMES, 5, b"sealed", LONG)
    assert other.read(NAMES).fence == NEVER
    other.disconnect()


def test_scripts_that_the_server_forgot_are_sent_again(store: RedisStore, server: RedisServer) -> None:
    assert store.read(NAMES).fence == NEVER
    server.ask("SCRIPT", "FLUSH")
    assert store.read(NAMES).fence == NEVER


def test_a_token_of_the_greatest_size_is_kept_whole(store: RedisStore) -> None:
    sealed = bytes(range(256)) * 4096
    store.store(NAMES, 5, sealed, LONG)
    assert store.read(NAMES).sealed == sealed


def test_a_token_ends_with_its_time(store: RedisStore, server: RedisServer) -> None:
    store.store(NAMES, 5, b"sealed", 0.05)
    eventually(lambda: store.read(NAMES).fence == NEVER)
    eventually(lambda: server.ask("KEYS", "bearerd:token:*") == [])


def test_a_lock_ends_with_its_lease(store: RedisStore) -> None:
    first = granted(store.claim(NAMES, Claim(lease=0.05)))
    eventually(lambda: isinstance(store.claim(NAMES, Claim(seen=first)), Granted))


def test_fences_of_more_tokens_than_one_script_reads(store: RedisStore) -> None:
    store.store(NAMES, 5, b"sealed", LONG)
    tokens = (*(f"missing-{number}" for number in range(2500)), NAMES.token)
    assert store.fences(tokens) == (*[NEVER] * 2500, 5)


def test_threads_that_ask_at_once_use_a_bounded_number_of_connections(store: RedisStore, server: RedisServer) -> None:
    before = int(server.ask("INFO", "clients")["connected_clients"])
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: store.claim(NAMES, Claim(lease=LONG)), range(500)))
    assert sum(isinstance(answer, Granted) for answer in answers) == 1
    assert int(server.ask("INFO", "clients")["connected_clients"]) - before <= 8


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(store: RedisStore, server: RedisServer) -> None:
    store.read(NAMES)
    assert server.ask("CLIENT", "KILL", "USER", "bearerd") == 1
    assert store.read(NAMES).fence == NEVER


def test_sockets_are_not_inherited_by_programs(store: RedisStore) -> None:
    store.read(NAMES)
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    inherited = [number for number in numbers if number > 2 and _is_socket(number) and os.get_inheritable(number)]
    assert inherited == []


def _is_socket(number: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    except OSError:
        return False


@pytest.mark.parametrize("kind", ["tls", "unix", "sentinel", "sentinel with TLS and ACL"])
@pytest.mark.parametrize("binary", ON_EACH)
def test_each_kind_of_url_works(kind: str, binary: str, tmp_path: Path) -> None:
    authority = trustme.CA() if "TLS" in kind or kind == "tls" else None
    acl = [f"user bearerd on >secret ~bearerd:* &bearerd:* {ACL}"] if "ACL" in kind else []
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    with redis_server(binary=binary, authority=authority, acl=acl) as server:
        redis = Redis(server.url, server.ca_file, timeout=WITHIN / 2)
        if acl:
            redis = replace(redis, username="bearerd", password=Reference("file", str(password)))
        if kind == "unix":
            redis = replace(redis, url=f"unix://{server.socket}?db=3")
        if not kind.startswith("sentinel"):
            RedisStore(redis, {}).prove()
            return
        with sentinel(server) as watcher:
            RedisStore(replace(redis, url=f"{watcher.url}/2"), {}).prove()


def test_sentinels_that_do_not_answer_are_passed_over(server: RedisServer) -> None:
    with sentinel(server) as watcher:
        url = watcher.url.replace("://", "://127.0.0.1:1,")
        RedisStore(replace(share(server), url=url), ENVIRON).prove()


def test_a_sentinel_that_wants_a_password_gets_that_of_the_server(server: RedisServer) -> None:
    acl = ["user default off", f"user bearerd on >secret {SENTINEL_ACL}"]
    with sentinel(server, *acl) as watcher:
        RedisStore(replace(share(server), url=watcher.url), ENVIRON).prove()


def test_a_url_that_is_a_secret_brings_its_own_login(server: RedisServer) -> None:
    url = server.url.replace("://", "://bearerd:secret@")
    RedisStore(Redis(Reference("env", "URL"), timeout=WITHIN / 2), {"URL": url}).prove()


def test_a_password_from_a_command_is_read_by_connect_alone(server: RedisServer, tmp_path: Path) -> None:
    reads = tmp_path / "reads"
    program = f"echo >> {reads}; echo secret"
    password = Reference("command", "/bin/sh", ("/bin/sh", "-c", program))
    store = RedisStore(replace(share(server), password=password), {})
    store.connect()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.read(NAMES), range(100)))
    assert reads.read_text() == "\n"
    store.disconnect()


def test_no_password_stays_in_memory(server: RedisServer) -> None:
    word = secrets.token_hex(20)
    parts = [word[5:-5]]
    server.ask("ACL", "SETUSER", "bearerd", f">{word}")
    variables = {"PASSWORD": word}
    store = RedisStore(share(server), variables)
    store.connect()
    store.read(NAMES)
    variables.clear()
    del word
    left = kept(parts)
    store.disconnect()
    assert left == []
