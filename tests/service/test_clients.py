"""When a client id is read, and when it is read again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bearerd.grant.perform import Grants
from bearerd.service.clients import Clients
from bearerd.terms import Reference
from support.clock import FakeClock
from support.targets import CLIENT, target


class Admission:
    """No client was refused."""

    def refusal(self, _name: str, _client: str) -> None:
        return None


def test_a_client_id_that_could_not_be_read_is_read_again_after_a_while(tmp_path: Path) -> None:
    ready, runs = tmp_path / "ready", tmp_path / "runs"
    script = f"echo >> {runs}; [ -e {ready} ] && echo my-id"
    reference = Reference("command", "/bin/sh", argv=("/bin/sh", "-c", script))
    asked, clock = target("t", client=replace(CLIENT, client_id=reference)), FakeClock()
    admission: Any = Admission()
    clients = Clients({}, Grants(clock, {}), admission, clock)

    assert clients.client_id(asked) is None
    ready.touch()
    clock.advance(9.9)
    assert clients.client_id(asked) is None
    assert runs.read_text().count("\n") == 1
    clock.advance(0.1)
    assert clients.client_id(asked) == "my-id"
    ready.unlink()
    clock.advance(3600)
    assert clients.client_id(asked) == "my-id"
    assert runs.read_text().count("\n") == 2
    # A changed secret does not wait.
    clients.reread(CLIENT.name)
    assert clients.client_id(asked) is None
    ready.touch()
    clients.reread(CLIENT.name)
    assert clients.client_id(asked) == "my-id"


def test_a_client_id_is_that_of_the_config_that_asks() -> None:
    environ, clock = {"OLD": "old-id", "NEW": "new-id"}, FakeClock()
    admission: Any = Admission()
    clients = Clients(environ, Grants(clock, {}), admission, clock)
    old, new = (target("t", client=replace(CLIENT, client_id=Reference("env", name))) for name in ("OLD", "NEW"))

    # A turn that began before a reload asks again after it.
    for asked, client_id in ((old, "old-id"), (new, "new-id"), (old, "old-id"), (new, "new-id")):
        assert clients.client_id(asked) == client_id
    del environ["OLD"]
    assert clients.client_id(old) is None
    assert clients.client_id(new) == "new-id"
