"""What people see of a share that goes down: a real daemon with a real server."""

from __future__ import annotations

import re
from pathlib import Path

from bearerd.cli.ask import ask
from support.api import Site
from support.process import eventually, running
from support.redis_server import NEEDS_REDIS, redis_server
from support.server import issues, serving

pytestmark = NEEDS_REDIS


def metrics(site: Site) -> dict[str, float]:
    """The value of each metric of the share, by its name without prefix."""
    _, body = ask(str(site.socket), "/metrics")
    found = re.findall(r'^bearerd_share_(\w+)\{share="[^"]+"\} (\S+)$', body.decode(), re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_a_share_that_is_down_is_shown_everywhere_and_the_daemon_stays_ready(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 32)
    (tmp_path / "key").chmod(0o600)
    with serving(issues(3600)) as provider, redis_server() as server:
        share = f"share: {{redis: {{url: '{server.url}'}}, key: {{file: {tmp_path}/key}}, when_unavailable: wait}}"
        site = Site(tmp_path, provider.url, top=share)
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            eventually(lambda: metrics(site).get("tokens_stored_total") == 1)
            [up] = site.status()["shares"]
            assert (up["name"], up["clients"], up["state"], up["error"]) == (f"{server.url}/0", ["dnb"], "up", None)
            assert site.status()["troubles"] == []
            server.stop()
            eventually(lambda: metrics(site)["up"] == 0)
            assert metrics(site)["errors_total"] > 0
            status = site.status()
            [down], [trouble] = status["shares"], status["troubles"]
            assert down["state"] == "down"
            assert trouble["failed"].startswith(f"share {server.url}/0 has been unavailable since ")
            assert (
                trouble["holds"] == "valid tokens stay in use, and they are refreshed only shortly before they expire"
            )
            assert trouble["do"].endswith("bearerd reconnects by itself")
            assert ask(str(site.socket), "/readyz")[0] == 200
            assert ask(str(site.socket), "/livez")[0] == 200
            server.start()
            eventually(lambda: metrics(site)["up"] == 1)
            assert site.status()["troubles"] == []
            # The server is empty, and gets the token again without a request.
            eventually(lambda: metrics(site)["tokens_stored_total"] == 2)
            assert len(provider.seen) == 1
