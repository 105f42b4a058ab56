"""Authorization servers of others, as processes: the scripts in tests/servers that take options and print a port."""

from __future__ import annotations

import json
import selectors
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from bearerd.grant.outcome import Issued, Outcome, Refused
from bearerd.grant.perform import Grants
from bearerd.model import Provider
from bearerd.terms import Auth, BasicEncoding, Instant
from support.clock import FakeClock
from support.process import WITHIN
from support.targets import CLIENT, target

SCRIPTS: Final = Path(__file__).parents[1] / "servers"

SECRETS: Final = {
    "plain": "plain",
    "base64": "q+7/Zz0=",
    "percent": "a+b%2Fc/d=e:f%",
    "space": "two words",
}
"""By client id: secrets that servers read in different ways in HTTP Basic."""
TAKEN_WITHOUT_DECODING: Final = [
    # The first sends %2B for the + of a secret, the second also %2F for its /.
    pytest.param("client_secret_basic", "compatible", {"plain"}, id="compatible"),
    pytest.param("client_secret_basic", "rfc6749", {"plain"}, id="rfc6749"),
    pytest.param("client_secret_basic", "raw", set(SECRETS), id="raw"),
    pytest.param("client_secret_post", "compatible", set(SECRETS), id="post"),
]
"""Auth, basic_encoding, and the clients that a server then accepts which does not decode what is encoded."""


@contextmanager
def port_of(argv: Sequence[str | Path], options: Mapping[str, Any]) -> Iterator[int]:
    """Run a server during the block; its script gets the options, and prints the port when it is ready."""
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
        selectors.DefaultSelector() as selector,
    ):
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(options) + "\n")
            process.stdin.flush()
            selector.register(process.stdout, selectors.EVENT_READ)
            port = process.stdout.readline() if selector.select(WITHIN) else ""
            if not port:
                log.seek(0)
                raise AssertionError(f"the server did not start:\n{log.read()}")
            yield int(port)
        finally:
            process.kill()


def granted(
    provider: Provider,
    client_id: str,
    secret: str,
    auth: Auth = "client_secret_basic",
    encoding: BasicEncoding = "compatible",
    scope: str = "bci",
) -> Outcome:
    """The outcome of one grant."""
    client = replace(CLIENT, provider=provider, client_id=client_id, auth=auth, basic_encoding=encoding)
    # At the server's own time, which does not advance here.
    clock = FakeClock(Instant(wall=time.time(), boot=5_000.0))
    return Grants(clock, {"DNB_SECRET": secret}).perform(target(client=client, scope=scope)).outcome


def check_accepted(outcome: Outcome, *, taken: bool) -> None:
    """The server accepted a secret, or refused it and bearerd blames its encoding."""
    if taken:
        assert isinstance(outcome, Issued), outcome
        assert outcome.notes == ()
    else:
        assert isinstance(outcome, Refused), outcome
        assert outcome.whole_client
        assert "basic_encoding" in str(outcome)
