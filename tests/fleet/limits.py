"""Scenes about the limits that a fleet keeps together: refused attempts, and a rate limit."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator, Sequence

from fleet.daemons import CLIENT
from fleet.provider import SECRET
from fleet.scenes import LONG
from fleet.site import STARTS_WITHIN, Rig, Row, pause, site
from support.process import eventually
from support.redis_server import redis_server

_COUNT, _WINDOW = 4, 20.0
"""`refused_limit` of the scene: the default is 4 in 2 minutes."""
_RATE, _RATE_WINDOW = 3, 15.0


def most(times: Sequence[float], window: float) -> int:
    """The most moments in any window."""
    return max((sum(start <= at < start + window for at in times) for start in times), default=0)


def refused(rig: Rig) -> Iterator[Row]:
    """A secret that is wrong: the fleet's attempts stay within `refused_limit`, over restarts and new wrong secrets."""
    limit = {"refused_limit": f"{_COUNT}/{_WINDOW:.0f}s"}
    with redis_server(binary=rig.binary) as redis, site(rig, redis, client=limit, key=True) as here:
        secret = here.fleet.directory / "secret"
        secret.write_text("refused-secret-0-0123456789")
        here.fleet.start()
        here.provider.wait_for(lambda: bool(here.provider.attempts), "an attempt")
        end = time.monotonic() + 2.5 * _WINDOW
        number = 0
        while time.monotonic() < end:
            number += 1
            here.fleet.end(by=signal.SIGKILL)
            secret.write_text(f"refused-secret-{number}-0123456789")
            here.fleet.start()
            here.link_up()
            pause(_WINDOW / 8)
        attempts = [at for at, _, status in here.provider.attempts if status == 401]
        worst = most(attempts, _WINDOW - 2.0)  # the limit counts from the claim, and this from the answer
        assert worst <= _COUNT, f"{worst} refused attempts within {_WINDOW:.0f} s"
        secret.write_text(SECRET)  # they notice it, and the fleet tries it at once
        here.readers.wait_for_one(0, within=STARTS_WITHIN)
        yield here.row(
            "wrong secret, then the right one", 1, here.provider.grants, 1,
            f"{len(attempts)} refused attempts, at most {worst} in {_WINDOW:.0f} s (limit {_COUNT})",
        )  # fmt: skip


def corrected(rig: Rig) -> Iterator[Row]:
    """A secret that is corrected by new machines: the refusal of the wrong one does not hold them back."""
    with redis_server(binary=rig.binary) as redis, site(rig, redis, lifetime=LONG) as here:
        secret = here.fleet.directory / "secret"
        secret.write_text("refused-secret-of-all-0123456789")
        here.fleet.start()
        here.link_up()
        here.provider.wait_for(lambda: bool(here.provider.attempts), "an attempt")
        here.fleet.end()
        for member in here.fleet.members.values():
            shutil.rmtree(member.tokens, ignore_errors=True)
            shutil.rmtree(member.directory / "state")
        secret.write_text(SECRET)
        here.fleet.start()
        here.readers.wait_for_one(0, within=STARTS_WITHIN)
        attempts = len(here.provider.attempts) - here.provider.grants
        assert attempts == 1, f"{attempts} refused attempts"
        yield here.row("right secret on new machines", 1, here.provider.grants, 1, f"{attempts} refused attempt")


def rate(rig: Rig) -> Iterator[Row]:
    """More tokens than the rate limit allows at once: the fleet asks for them one window after the other."""
    tokens = {"bci": {"scope": "bci"}, **{f"more{n}": {"scope": f"more{n}"} for n in range(1, 2 * _RATE)}}
    client = {"rate_limit": f"{_RATE}/{_RATE_WINDOW:.0f}s", "tokens": tokens}
    with redis_server(binary=rig.binary) as redis, site(rig, redis, lifetime=LONG, client=client) as here:
        here.fleet.start()
        files = [member.tokens / CLIENT / name for member in here.fleet.members.values() for name in tokens]
        eventually(lambda: all(file.exists() for file in files), STARTS_WITHIN)
        here.readers.wait_for_number(1)
        worst = most(here.provider.requests, _RATE_WINDOW)
        assert worst <= _RATE, f"{worst} requests within {_RATE_WINDOW:.0f} s"
        yield here.row(
            f"rate_limit, {len(tokens)} tokens", len(tokens), here.provider.grants, len(tokens),
            f"at most {worst} requests in {_RATE_WINDOW:.0f} s (limit {_RATE})",
        )  # fmt: skip
