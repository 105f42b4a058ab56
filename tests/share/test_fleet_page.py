"""What docs/fleet.md and docs/kubernetes.md say about servers, tried on real ones."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest
import redis

from bearerd.share.redis_store import ACL, SENTINEL_ACL, RedisStore
from bearerd.share.types import ShareUnavailable
from bearerd.terms import Redis, Reference
from support.manifests import only
from support.pages import blocks
from support.ports import free_port
from support.process import WITHIN, Daemon
from support.redis_server import NEEDS_REDIS, ON_EACH, ONLINE, READY, redis_server, sentinel

PAGE = Path(__file__).parents[2] / "docs" / "fleet.md"
FORBIDDEN = "GET other", "SET other 1", "SUBSCRIBE other", "KEYS *", "FLUSHALL", "CONFIG GET *", "ACL LIST"
ENVIRON = {"PASSWORD": "long-and-random"}


def conf(heading: str) -> list[list[str]]:
    """Each block of a server's config below a heading, as lines with our password."""
    found = [block.text for block in blocks(PAGE) if (block.language, block.heading) == ("conf", heading)]
    return [text.replace("PASSWORD", ENVIRON["PASSWORD"]).splitlines() for text in found]


[[DEFAULT, RULE]] = conf("A user for bearerd")
[MEMORY] = conf("Persistence, memory, eviction")
[[SENTINELS_RULE], REPLICAS] = conf("Sentinel")


def share(url: str, prefix: str = "bearerd") -> RedisStore:
    """A store that logs in as the page's user."""
    return RedisStore(Redis(url, None, "bearerd", Reference("env", "PASSWORD"), prefix, timeout=WITHIN / 2), ENVIRON)


def test_the_page_allows_what_the_code_needs() -> None:
    user, rule = RULE.split(" on ")
    password, keys, channels, *commands = rule.split()
    assert (DEFAULT, user, password) == ("user default off", "user bearerd", f">{ENVIRON['PASSWORD']}")
    assert (keys, channels) == ("~bearerd:*", "&bearerd:*")
    assert sorted(commands) == sorted(ACL.split())
    assert f"{user} on {password} {SENTINEL_ACL}" == SENTINELS_RULE


@pytest.mark.parametrize("binary", ON_EACH)
def test_a_server_with_the_settings_of_the_page_is_sufficient_and_refuses_everything_else(binary: str) -> None:
    with redis_server(*MEMORY, acl=[RULE], binary=binary) as server:
        share(server.url).prove()
        with pytest.raises(ShareUnavailable, match="NOPERM"):
            share(server.url, "other").prove()
        with redis.Redis(port=server.port, username="bearerd", password=ENVIRON["PASSWORD"]) as client:
            for command in FORBIDDEN:
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*command.split())


@pytest.mark.parametrize("binary", ON_EACH)
def test_the_steps_that_people_copy_start_a_server_that_can_be_used(binary: str, tmp_path: Path) -> None:
    start, install, *_ = (
        block.text for block in blocks(PAGE) if (block.language, block.heading) == ("sh", "Set it up")
    )
    steps = [line for line in (start + install).splitlines() if not line.startswith(("apt-get ", "systemctl "))]
    (tmp_path / "redis").mkdir()
    (tmp_path / "bearerd").mkdir()
    script = "\n".join(steps).replace("/etc/", f"{tmp_path}/").replace("redis.example.com", "localhost")
    for user in ("redis", "bearerd"):
        script = script.replace(f" -o {user} ", " ")
    subprocess.run(["sh", "-eu"], input=script, text=True, check=True, capture_output=True, cwd=tmp_path)
    written = (tmp_path / "redis" / "redis.conf").read_text()
    assert RULE.partition(f">{ENVIRON['PASSWORD']} ")[2] in written
    port = free_port()
    process = Daemon(
        subprocess.Popen(
            [binary, str(tmp_path / "redis" / "redis.conf"), "--tls-port", str(port), "--bind", "127.0.0.1"],
            cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        )
    )  # fmt: skip
    try:
        process.wait_for(READY)
        password = Reference("file", str(tmp_path / "bearerd" / "redis.password"))
        ca_file = str(tmp_path / "bearerd" / "redis-ca.pem")
        RedisStore(
            Redis(f"rediss://localhost:{port}/0", ca_file, "bearerd", password, "bearerd", WITHIN / 2), {}
        ).prove()
    finally:
        process.process.send_signal(signal.SIGTERM)
        process.wait()
        if process.process.stdout:
            process.process.stdout.close()
    keys = [(tmp_path / "bearerd" / name).read_text().strip() for name in ("share.key", "redis.password")]
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)
    assert keys[0] != keys[1]


@NEEDS_REDIS
def test_sentinels_with_the_settings_of_the_page_lead_to_the_server() -> None:
    with (
        redis_server(*REPLICAS, acl=[RULE]) as primary,
        redis_server(acl=[RULE], replica_of=primary),
        sentinel(primary, DEFAULT, SENTINELS_RULE) as watching,
    ):
        primary.running.wait_for(ONLINE)  # a write is refused before: the replica's first answer comes after its copy
        share(watching.url).prove()


@pytest.mark.parametrize("binary", ON_EACH)
def test_a_server_starts_with_the_arguments_of_the_manifest(binary: str, tmp_path: Path) -> None:
    [container] = only("Deployment", "valkey.yaml")["spec"]["template"]["spec"]["containers"]
    (tmp_path / "users.acl").write_text(f"{DEFAULT}\n{RULE}\n")
    port = free_port()
    arguments = [argument.replace("/etc/valkey", str(tmp_path)) for argument in container["args"]]
    own = ["--port", str(port), "--bind", "127.0.0.1"]
    process = Daemon(subprocess.Popen([binary, *arguments, *own], cwd=tmp_path, stdout=subprocess.PIPE, text=True))
    try:
        process.wait_for(READY)
        share(f"redis://127.0.0.1:{port}").prove()
    finally:
        process.process.send_signal(signal.SIGTERM)
        process.wait()
        if process.process.stdout:
            process.process.stdout.close()
    assert [path.name for path in tmp_path.iterdir()] == ["users.acl"]  # it needs no directory that it can write
