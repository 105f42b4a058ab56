"""`bearerd once` as init containers, cron and CI run it."""

from __future__ import annotations

import base64
import json
import re
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.process import bearerd, patched, running
from support.server import Answer, Script, Seen, issues, serving

REFUSAL = Answer(401, {"error": "invalid_client"})
OLD, NEW = ("Basic " + base64.b64encode(f"7e0c5a:{secret}".encode()).decode() for secret in ("old", "new"))


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Path]:
    def write(url: str, tokens: str = "{bci: {}}", *secrets: str, client: str = "") -> Path:
        names = []
        for number, secret in enumerate(secrets or ["s3cr3t"]):
            (tmp_path / f"secret-{number}").write_text(secret)
            (tmp_path / f"secret-{number}").chmod(0o600)
            names.append(f"{{file: {tmp_path}/secret-{number}}}")
        (tmp_path / "config.yaml").write_text(
            f"output: {{directory: {tmp_path}/tokens}}\nclients:\n  dnb:\n    token_url: {url}\n    allow_http: true\n"
            f"    client_id: 7e0c5a\n    client_secret: [{', '.join(names)}]\n    tokens: {tokens}\n"
            + (f"    {client}\n" if client else "")
        )
        return tmp_path / "config.yaml"

    return write


def then(*answers: Answer | Script) -> Script:
    """One answer after the other; the last stays."""
    rest = list(answers)

    def script(seen: Seen) -> Answer:
        answer = rest.pop(0) if len(rest) > 1 else rest[0]
        return answer if isinstance(answer, Answer) else answer(seen)

    return script


def test_once_makes_every_token_valid_and_the_next_run_sends_nothing(
    configure: Callable[..., Path], tmp_path: Path
) -> None:
    with serving(issues()) as server:
        config = configure(server.url, "{" + ", ".join(f"t{number}: {{}}" for number in range(40)) + "}")
        first = bearerd("once", "-c", config)
        assert first.returncode == 0, first.stderr
        assert "40 of 40 tokens are valid" in first.stderr
        assert len({path.read_text() for path in (tmp_path / "tokens/dnb").iterdir()}) == 40
        assert bearerd("once", "-c", config).returncode == 0
        assert len(server.seen) == 40


def test_a_transient_failure_is_retried(configure: Callable[..., Path], tmp_path: Path) -> None:
    with serving(then(Answer(503), Answer(500), issues())) as server:
        done = bearerd("once", "-c", configure(server.url))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tokens/dnb/bci").read_text() == "t-1"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(REFUSAL, "no valid token: HTTP 401 invalid_client: the client was refused", id="refused"),
        pytest.param(Answer(400, {"error": "invalid_scope"}), "the scope was refused", id="scope"),
        pytest.param(Answer(200, b"<html>"), "the reply is HTML", id="malformed"),
    ],
)
def test_once_ends_after_a_refusal_or_malformed_reply(
    configure: Callable[..., Path], tmp_path: Path, answer: Answer, expected: str
) -> None:
    with serving(lambda _: answer) as server:
        done = bearerd("once", "-c", configure(server.url), "--timeout", "10m")
        assert len(server.seen) == 1
    assert done.returncode == 1
    assert expected in done.stderr
    assert "0 of 1 tokens are valid" in done.stderr
    assert not (tmp_path / "tokens/dnb/bci").exists()


def test_a_refused_client_ends_all_its_tokens_with_one_request(configure: Callable[..., Path]) -> None:
    with serving(lambda _: REFUSAL) as server:
        done = bearerd("once", "-c", configure(server.url, "{a: {}, b: {}, c: {}}"), "--timeout", "10m")
        assert len(server.seen) == 1
    assert done.returncode == 1
    for name in "abc":
        assert f"name=dnb/{name} no valid token: " in done.stderr


def test_a_refusal_from_an_earlier_run_does_not_end_the_targets_that_may_try_soon(
    configure: Callable[..., Path], tmp_path: Path
) -> None:
    good = issues()
    # Long enough for the second run to start before it is over.
    env = patched(tmp_path, {"bearerd.admission.breaker._FIRST_INTERVAL": 5.0})
    with serving(lambda seen: REFUSAL if b"scope=wrong" in seen.body else good(seen)) as server:
        config = configure(server.url, "{a: {scope: wrong}, b: {scope: right}, c: {scope: right}}")
        assert "0 of 3 tokens are valid" in bearerd("once", "-c", config, env=env).stderr
        done = bearerd("once", "-c", config, "--timeout", "60s", env=env)
        assert len(server.seen) == 3
    assert done.returncode == 1
    assert "2 of 3 tokens are valid" in done.stderr
    assert [line.split("name=")[1].split()[0] for line in done.stderr.splitlines() if "no valid token: " in line] == [
        "dnb/a"
    ]
    assert {path.name for path in (tmp_path / "tokens/dnb").iterdir()} == {"b", "c"}


def test_a_refused_client_keeps_valid_tokens_on_record(configure: Callable[..., Path]) -> None:
    tokens = "{" + ", ".join(f"t{number}: {{}}" for number in range(60)) + "}"
    good, refusing = issues(lifetime=600), False
    with serving(lambda seen: REFUSAL if refusing else good(seen)) as server:
        config = configure(server.url, tokens)
        assert bearerd("once", "-c", config).returncode == 0
        refusing = True
        # Most have not had their first turn when the first is refused.
        done = bearerd("once", "-c", config, "--min-valid", "1h", "--timeout", "10m")
        assert len(server.seen) == 61
    assert done.returncode == 0, done.stderr
    assert "60 of 60 tokens are valid" in done.stderr
    assert done.stderr.count("not refreshed: ") == 60


def test_a_refused_scope_does_not_affect_other_tokens(configure: Callable[..., Path], tmp_path: Path) -> None:
    good = issues()

    def script(seen: Seen) -> Answer:
        return Answer(400, {"error": "invalid_scope"}) if b"scope=wrong" in seen.body else good(seen)

    with serving(script) as server:
        done = bearerd("once", "-c", configure(server.url, "{a: {scope: wrong}, b: {scope: right}}"))
    assert done.returncode == 1
    assert (tmp_path / "tokens/dnb/b").exists()
    assert "1 of 2 tokens are valid" in done.stderr


def test_once_tries_another_secret_after_a_refusal(configure: Callable[..., Path], tmp_path: Path) -> None:
    with serving(then(REFUSAL, issues())) as server:
        done = bearerd("once", "-c", configure(server.url, "{a: {}, b: {}}", "old", "new"))
        assert done.returncode == 0, done.stderr
        assert [seen.headers["authorization"] for seen in server.seen] == [OLD, NEW, NEW]
    assert "the client has another secret, which is tried next" in done.stderr
    assert (tmp_path / "tokens/dnb/b").exists()


def test_once_tries_three_of_many_wrong_secrets_and_ends(configure: Callable[..., Path]) -> None:
    with serving(lambda _: REFUSAL) as server:
        config = configure(server.url, "{a: {}, b: {}}", *map(str, range(5)))
        done = bearerd("once", "-c", config, "--timeout", "60s")
        assert len(server.seen) == 3  # a fourth attempt in 2 min is kept for changed credentials
    assert done.returncode == 1
    why = (
        r"no valid token: its client has used up refused_limit, in which requests without a known outcome count as "
        r"refused; the next request is allowed in \d+ s"
    )
    assert {name for name in "ab" if re.search(f"name=dnb/{name} {why}", done.stderr)} == {"a", "b"}


def test_once_ends_for_a_rate_limit_that_allows_no_grant_in_time(configure: Callable[..., Path]) -> None:
    with serving(issues()) as server:
        config = configure(server.url, "{a: {}, b: {}}", client="rate_limit: 1/8h")
        done = bearerd("once", "-c", config, "--timeout", "60s")
        assert len(server.seen) == 1
    assert done.returncode == 1
    assert "no valid token: its rate_limit allows the next request in 7 h 5" in done.stderr
    assert "1 of 2 tokens are valid" in done.stderr


def test_once_waits_for_a_rate_limit_that_allows_a_grant_in_time(configure: Callable[..., Path]) -> None:
    with serving(issues()) as server:
        done = bearerd("once", "-c", configure(server.url, "{a: {}, b: {}, c: {}}", client="rate_limit: 1/1s"))
        assert len(server.seen) == 3
    assert done.returncode == 0, done.stderr


def test_it_ends_at_its_timeout(configure: Callable[..., Path]) -> None:
    with serving(lambda _: Answer(503)) as server:
        done = bearerd("once", "-c", configure(server.url), "--timeout", "5s")
    assert done.returncode == 1
    assert "no valid token: timed out after 5 s; last: HTTP 503: a temporary error at the provider" in done.stderr


def test_a_missing_secret_ends_it_at_once(configure: Callable[..., Path]) -> None:
    with serving(issues()) as server:
        done = bearerd("once", "-c", configure(server.url, "{bci: {}}", ""), "--timeout", "10m")
        assert server.seen == []
    assert done.returncode == 1
    assert "secret-0: empty" in done.stderr


def test_a_token_below_min_valid_is_renewed(configure: Callable[..., Path], tmp_path: Path) -> None:
    with serving(issues(lifetime=600)) as server:
        config = configure(server.url)
        bearerd("once", "-c", config)
        assert bearerd("once", "-c", config, "--min-valid", "5m").returncode == 0
        assert len(server.seen) == 1
        assert bearerd("once", "-c", config, "--min-valid", "10m").returncode == 0
        assert len(server.seen) == 2
    assert (tmp_path / "tokens/dnb/bci").read_text() == "t-2"


@pytest.mark.parametrize("answer", [REFUSAL, Answer(503)], ids=["refused", "down"])
def test_a_valid_token_that_cannot_be_renewed_is_a_success_with_a_warning(
    configure: Callable[..., Path], tmp_path: Path, answer: Answer
) -> None:
    with serving(then(issues(lifetime=600), answer)) as server:
        config = configure(server.url)
        bearerd("once", "-c", config)
        done = bearerd("once", "-c", config, "--min-valid", "1h", "--timeout", "5s")
    assert done.returncode == 0
    assert "not refreshed: " in done.stderr
    assert "; the current token is good for " in done.stderr
    assert (tmp_path / "tokens/dnb/bci").read_text() == "t-1"


def test_files_that_cannot_be_written_are_a_failure(configure: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens/dnb").write_text("in the way")
    with serving(issues()) as server:
        done = bearerd("once", "-c", configure(server.url), "--timeout", "5s")
        assert len(server.seen) == 1
    assert done.returncode == 1
    assert "there is a token, but its files could not be written" in done.stderr


def test_term_ends_it(configure: Callable[..., Path]) -> None:
    with (
        serving(lambda _: Answer(503)) as server,
        running("once", "-c", configure(server.url), "--timeout", "60s") as daemon,
    ):
        server.wait_for(1)
        assert daemon.stop(signal.SIGTERM) == 1
    assert any("interrupted" in line for line in daemon.lines)


def not_yet(lifetime: float, ahead: float) -> Answer:
    """A JWT that is valid in so many seconds."""
    claims = {"nbf": time.time() + ahead, "exp": time.time() + ahead + lifetime, "jti": secrets.token_hex(8)}
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return Answer(200, {"access_token": f"e30.{middle}.c2ln", "token_type": "Bearer", "expires_in": lifetime})


def test_once_publishes_a_new_token_without_the_delay_because_nobody_would_do_it_later(
    configure: Callable[..., Path], tmp_path: Path
) -> None:
    with serving(issues()) as server:
        config = configure(server.url, client="publish_delay: 10m")
        assert bearerd("once", "-c", config).returncode == 0
        assert bearerd("once", "-c", config, "--min-valid", "2h").returncode == 0
        assert len(server.seen) == 2
    assert (tmp_path / "tokens/dnb/bci").read_text() == "t-2"


def test_once_waits_until_a_new_token_is_valid(configure: Callable[..., Path], tmp_path: Path) -> None:
    with serving(lambda _: not_yet(3600, 3.0)) as server:
        done = bearerd("once", "-c", configure(server.url))
    assert done.returncode == 0, done.stderr
    claims = (tmp_path / "tokens/dnb/bci").read_text().split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(claims + "=="))["nbf"] <= time.time() + 1.0  # `Date` has whole seconds


@pytest.mark.parametrize("second", [pytest.param("t-2", id="it ended"), pytest.param("t-1", id="never named")])
def test_once_asks_again_about_a_lifetime_of_0(configure: Callable[..., Path], tmp_path: Path, second: str) -> None:
    zero = {"access_token": "t-1", "token_type": "Bearer", "expires_in": 0}
    lasting = {"access_token": "t-2", "token_type": "Bearer", "expires_in": 3600}
    with serving(then(Answer(200, zero), Answer(200, lasting if second == "t-2" else zero))) as server:
        done = bearerd("once", "-c", configure(server.url))
        assert len(server.seen) == 2
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tokens/dnb/bci").read_text() == second


def test_once_says_what_a_token_waits_for_that_is_not_valid_in_time(
    configure: Callable[..., Path], tmp_path: Path
) -> None:
    with serving(lambda _: not_yet(3600, 55.0)) as server:
        done = bearerd("once", "-c", configure(server.url), "--timeout", "5s")
    assert done.returncode == 1
    assert re.search(
        r"no valid token: timed out after 5 s: the new token is valid only in \d+ s \(its nbf\)", done.stderr
    )
    assert not (tmp_path / "tokens/dnb/bci").exists()


def test_once_keeps_a_valid_token_while_its_share_cannot_be_used_and_the_config_says_to_wait(
    configure: Callable[..., Path],
) -> None:
    share = "share: {redis: {url: redis://127.0.0.1:1}, when_unavailable: wait}"  # nothing listens there
    with serving(issues()) as server:
        config = configure(server.url, "{bci: {}}", "a secret of 16 bytes or more", client=share)
        first = bearerd("once", "-c", config)
        assert first.returncode == 0, first.stderr
        assert "each token is kept until shortly before its expiry" in first.stderr
        began = time.monotonic()
        again = bearerd("once", "-c", config, "--min-valid", "2h", "--timeout", "60s")
        assert again.returncode == 0, again.stderr
        assert "not refreshed: its share is unavailable, and when_unavailable is wait" in again.stderr
        assert time.monotonic() - began < 60  # it does not wait for its timeout
        assert len(server.seen) == 1
