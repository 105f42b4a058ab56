"""What `bearerd check` says about the server of a share, without and with a connection to it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from bearerd.clock import SystemClock
from bearerd.config.load import load
from bearerd.service.check import check
from bearerd.service.finding import Finding
from bearerd.share.redis_store import ACL
from bearerd.terms import Instant
from support.process import bearerd
from support.redis_server import NEEDS_REDIS, redis_server
from support.server import Server, issues, serving

KEY = "hunter2+" * 8
SECRET = "hunter2+hunter2+"
SERVER = "rediss://redis.example"


@dataclass
class Site:
    """A config with clients that share through a server."""

    path: Path

    def keep(self, name: str, text: str, mode: int = 0o600) -> str:
        """A reference to a file with this text."""
        path = self.path / name
        path.write_text(text)
        path.chmod(mode)
        return f"{{file: {path}}}"

    def write(self, share: str, *, secret: str = SECRET, more: str = "", clients: int = 1) -> Path:
        """The config; `more` are further clients."""
        reference = self.keep("dnb.secret", secret)
        keys = f"token_url: https://127.0.0.1:1/token, client_id: a, client_secret: {reference}, tokens: {{bci: {{}}}}"
        named = [f"  dnb{number or ''}: {{{keys}}}\n" for number in range(clients)]
        config = self.path / "config.yaml"
        config.write_text(f"output: {{directory: {self.path}/run}}\nshare: {share}\nclients:\n{''.join(named)}{more}")
        return config

    def findings(self, config: Path, online: bool = False, /, **env: str) -> list[Finding]:
        """What a check of shares and clients finds, which contains no secret."""
        found = list(check(load(str(config), {}), env, online=online))
        assert "hunter2" not in repr(found)
        return [each for each in found if each.subject.split()[0] in {"share", "client", "server"}]

    def of_share(self, config: Path, **env: str) -> list[tuple[str, str, str]]:
        """Level, subject and text of the findings of shares."""
        found = self.findings(config, False, **env)
        return [(each.level, each.subject, each.verdict) for each in found if each.subject.startswith("share")]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def at(site: Site, text: str) -> str:
    """A text with the path of the site in it."""
    return text.replace("SITE", str(site.path))


@pytest.mark.parametrize(
    ("server", "subject", "verdict"),
    [
        (f"url: {SERVER}", f"share {SERVER}:6379/0", "no login is configured"),
        ("url: {file: SITE/url}", "share file SITE/url", "file SITE/url can be used"),
        (
            f"url: {SERVER}, username: u, password: {{file: SITE/password}}",
            f"share {SERVER}:6379/0",
            "file SITE/password can be used",
        ),
    ],
)
def test_a_share_that_can_be_used_is_named_without_its_login(
    site: Site, server: str, subject: str, verdict: str
) -> None:
    site.keep("url", f"rediss://u:{SECRET}@redis.example/1\n")
    site.keep("password", SECRET)
    assert site.of_share(site.write(at(site, f"{{redis: {{{server}}}}}"))) == [
        ("ok", at(site, subject), at(site, verdict))
    ]


def test_a_server_is_one_finding_that_names_its_clients(site: Site) -> None:
    config = site.write(f"{{redis: {{url: {SERVER}}}, key: {site.keep('key', KEY)}}}", clients=12)
    (finding,) = [each for each in site.findings(config) if each.subject.startswith("share")]
    assert finding.verdict == at(site, "file SITE/key can be used")
    assert dict(finding.details) == {"clients": "dnb, dnb1, dnb2, dnb3, dnb4, dnb5, dnb6, dnb7, dnb8, dnb9 and 2 more"}


def test_each_server_has_a_finding(site: Site) -> None:
    more = "  eon: {token_url: https://127.0.0.1:1/token, client_id: b, client_secret: {file: SITE/dnb.secret},"
    more += " tokens: {t: {}}, share: {redis: {url: unix:///run/redis.sock}}}\n"
    found = site.of_share(site.write(f"{{redis: {{url: {SERVER}}}}}", more=at(site, more)))
    assert [subject for _, subject, _ in found] == [f"share {SERVER}:6379/0", "share unix:///run/redis.sock"]


@pytest.mark.parametrize(
    ("share", "fault"),
    [
        ("{redis: {url: {file: SITE/none}}}", "file SITE/none: no such file or directory"),
        ("{redis: {url: {file: SITE/empty}}}", "file SITE/empty: empty"),
        (
            "{redis: {url: {file: SITE/http}}}",
            "file SITE/http: expected a URL that begins with redis://, rediss://, unix://, redis+sentinel:// or ",
        ),
        ("{redis: {url: {file: SITE/no-port}}}", "file SITE/no-port: expected a URL with a host, and perhaps a port"),
        (
            "{redis: {url: {file: SITE/plain}, ca_file: SITE/ca.pem}}",
            "ca_file only applies to TLS, and the URL in file SITE/plain begins with redis://",
        ),
        (
            "{redis: {url: rediss://h, ca_file: SITE/none.pem}}",
            "ca_file SITE/none.pem: no such file or directory",
        ),
        (
            "{redis: {url: rediss://h, ca_file: SITE/empty}}",
            "ca_file SITE/empty: ",
        ),
        (
            "{redis: {url: rediss://h, password: {file: SITE/open}}}",
            "file SITE/open: mode 0644 lets others access it; run chmod 600 on it",
        ),
        (
            "{redis: {url: {file: SITE/plain}, username: u}}",
            "username is set, but there is no password in file SITE/plain; set password too",
        ),
        ("{redis: {url: rediss://h, password: {env: NONE}}}", "env NONE: the variable is not set"),
        ("{redis: {url: rediss://h}, key: {file: SITE/open}}", "file SITE/open: mode 0644 lets others access it"),
        (
            "{redis: {url: rediss://h}, key: {file: SITE/short}}",
            "file SITE/short: shorter than 32 bytes, too short to encrypt what is shared; make a key with openssl rand",
        ),
        ("{redis: {url: rediss://h}, key: {file: SITE/blank}}", "file SITE/blank: ends with a space, tab or line end"),
    ],
)
def test_what_cannot_be_used_fails_and_names_the_clients(site: Site, share: str, fault: str) -> None:
    site.keep("empty", "")
    site.keep("http", f"https://u:{SECRET}@h")
    site.keep("no-port", f"redis://h:{SECRET}")
    site.keep("plain", "redis://127.0.0.1")
    site.keep("open", KEY, 0o644)
    site.keep("short", KEY[:31])
    site.keep("blank", f"{KEY} ")
    (finding,) = [each for each in site.findings(site.write(at(site, share))) if each.subject.startswith("share")]
    assert finding.level == "failed"
    assert finding.verdict.startswith(at(site, fault))
    assert finding.details == (("clients", "dnb"),)


def test_a_trusted_authority_is_no_fault(site: Site) -> None:
    trustme.CA().cert_pem.write_to_path(str(site.path / "ca.pem"))
    assert [
        level for level, *_ in site.of_share(site.write(at(site, "{redis: {url: rediss://h, ca_file: SITE/ca.pem}}")))
    ] == ["ok"]


def test_a_short_client_secret_cannot_take_the_place_of_a_key(site: Site) -> None:
    config = site.write(f"{{redis: {{url: {SERVER}}}}}", secret=SECRET[:15])
    (failed,) = [each for each in site.findings(config) if each.level == "failed"]
    assert failed.subject == "client dnb"
    assert failed.verdict == (
        f"file {site.path}/dnb.secret: shorter than 16 bytes, too short to encrypt what is shared; set key of share, "
        "and make a key with openssl rand -hex 32"
    )
    config = site.write(f"{{redis: {{url: {SERVER}}}, key: {site.keep('key', KEY[:32])}}}", secret=SECRET[:15])
    assert {each.level for each in site.findings(config)} == {"ok"}


@pytest.mark.parametrize(
    ("url", "password", "warns"),
    [
        ("redis://redis.example", True, "rediss://"),
        ("redis+sentinel://127.0.0.1,redis.example/tokens", True, "rediss+sentinel://"),
        (f"redis://u:{SECRET}@10.0.0.1", False, "rediss://"),
        ("redis://redis.example", False, ""),
        ("redis://127.0.0.1", True, ""),
        ("redis://localhost", True, ""),
        ("unix:///run/redis.sock", True, ""),
        ("rediss://redis.example", True, ""),
    ],
)
def test_a_password_that_crosses_the_network_unencrypted_is_a_warning(
    site: Site, url: str, password: bool, warns: str
) -> None:
    login = f", password: {site.keep('password', SECRET)}" if password else ""
    found = site.of_share(site.write(f"{{redis: {{url: {site.keep('url', url)}{login}}}}}"))
    warning = (
        "warning",
        at(site, "share file SITE/url"),
        f"the password is sent unencrypted over the network: use {warns}",
    )
    assert found[1:] == ([warning] if warns else [])


def test_a_credential_that_only_the_unit_sees_is_neither_ok_nor_failed(site: Site) -> None:
    ((level, _, verdict),) = site.of_share(site.write(f"{{redis: {{url: {SERVER}, password: {{credential: redis}}}}}}"))
    assert level == "warning"
    assert verdict.startswith("credential redis: this check cannot see it; only the unit can")


def test_a_password_in_the_environment_needs_a_restart(site: Site) -> None:
    config = site.write(f"{{redis: {{url: {SERVER}, password: {{env: PASSWORD}}}}}}")
    (finding,) = [each for each in site.findings(config, PASSWORD=SECRET) if each.subject.startswith("share")]
    assert dict(finding.details) == {
        "clients": "dnb",
        "rotation": "env PASSWORD is set when the unit starts; run systemctl restart to use a new one",
    }


@pytest.mark.parametrize("library", ["redis", "cryptography"])
def test_a_missing_extra_is_named_once(site: Site, library: str) -> None:
    config = site.write(f"{{redis: {{url: {SERVER}}}}}", clients=3)
    without = site.path / "without"
    without.mkdir()
    (without / f"{library}.py").write_text(f"raise ModuleNotFoundError('No module named {library}')\n")
    done = bearerd("check", "-c", config, env={"PYTHONPATH": str(without)})
    assert done.returncode == 1
    missing = (
        "failed   share: share needs a part that is not installed: "
        f"run {sys.prefix}/bin/pip install '.[redis]' in the checkout"
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("failed")] == [missing]


def test_without_a_share_the_libraries_are_not_imported(site: Site) -> None:
    config = site.write("{redis: {url: redis://h}}")
    text = "\n".join(line for line in config.read_text().splitlines() if not line.startswith("share"))
    config.write_text(text)
    program = (
        "import sys\n"
        "from bearerd.config.load import load\n"
        "from bearerd.service.check import check\n"
        "assert list(check(load(sys.argv[1], {}), {}, online=False))\n"
        "print(*{'redis', 'cryptography'} & {*sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(config)], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


# -- online: with a real server ----------------------------------------------------------------------

USER = f"user bearerd on >{SECRET} ~bearerd:* &bearerd:* {ACL}"


@pytest.fixture
def provider() -> Iterator[Server]:
    with serving(issues(3600)) as server:
        yield server


def online(site: Site, provider: Server, server: str, *, clients: int = 1) -> subprocess.CompletedProcess[str]:
    """`bearerd check --online` with this server."""
    config = site.write(f"{{redis: {server}}}", clients=clients)
    text = config.read_text().replace("https://127.0.0.1:1/token", f"{provider.url}, allow_http: true")
    config.write_text(text)
    done = bearerd("check", "--online", "-c", config, env={"RUNTIME_DIRECTORY": ""})
    assert "hunter2" not in done.stdout + done.stderr
    return done


@NEEDS_REDIS
def test_online_a_server_is_used_as_a_daemon_would_use_it(site: Site, provider: Server) -> None:
    authority = trustme.CA()
    password = site.keep("password", SECRET)
    with redis_server(authority=authority, acl=[USER]) as server:
        keys = f"{{url: {server.url}, ca_file: {server.ca_file}, username: bearerd, password: {password}}}"
        done = online(site, provider, keys, clients=2)
        assert server.ask("KEYS", "*") == ["bearerd:alive"]  # each poll of a daemon writes it
    assert done.returncode == 0, done.stdout
    assert (
        f"ok       server {server.url}/0: stores and announces tokens with the prefix bearerd\n"
        "           clients: dnb, dnb1\n"
    ) in done.stdout


@NEEDS_REDIS
@pytest.mark.parametrize(
    ("user", "said"),
    [
        pytest.param(USER.replace(SECRET, "another"), "refuses the user or the password", id="password"),
        pytest.param(USER.replace("~bearerd:*", "~other:*"), "the user may not do this", id="keys"),
        pytest.param(USER.replace("&bearerd:*", "&other:*"), "the user may not do this", id="channel"),
        pytest.param(f"{USER} -evalsha", "the user may not do this", id="command"),
    ],
)
def test_online_a_server_that_refuses_exits_1_and_names_the_clients(
    site: Site, provider: Server, user: str, said: str
) -> None:
    password = site.keep("password", SECRET)
    with redis_server(acl=[user]) as server:
        done = online(site, provider, f"{{url: {server.url}, username: bearerd, password: {password}}}")
    assert done.returncode == 1
    (failed,) = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert failed.startswith(f"failed   server {server.url}/0: ")
    assert said in failed
    assert f"{failed}\n           clients: dnb\n" in done.stdout
    # The provider is asked all the same.
    assert "ok       grant dnb/bci: a token, good for 1 h" in done.stdout


@NEEDS_REDIS
def test_online_a_server_that_is_not_there_exits_1_and_does_not_show_its_url(site: Site, provider: Server) -> None:
    with redis_server(password=SECRET) as server:
        url = site.keep("url", f"redis://:{SECRET}@{server.address}")
    done = online(site, provider, f"{{url: {url}, timeout: 100ms}}")
    assert done.returncode == 1
    assert f"failed   server file {site.path}/url: " in done.stdout


@NEEDS_REDIS
@pytest.mark.parametrize(("off", "said"), [(3600.0, "behind"), (-3600.0, "ahead of"), (0.0, "")])
def test_online_the_clock_of_a_server_is_compared(
    site: Site, off: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(SystemClock):
        def now(self) -> Instant:
            now = super().now()
            return Instant(now.wall + off, now.boot)

    monkeypatch.setattr("bearerd.service.shares.SystemClock", Clock)
    monkeypatch.setattr("bearerd.service.check.try_online", lambda *_: iter(()))
    with redis_server() as server:
        found = site.findings(site.write(f"{{redis: {{url: {server.url}}}}}"), True)
    warnings = [each.verdict for each in found if each.level == "warning"]
    assert [re.sub(r"\b(1 h|59 min)( \d+ \w+)?", "…", verdict) for verdict in warnings] == (
        [f"its clock is … {said} this machine's; correct the one that is wrong"] if said else []
    )


def test_online_what_cannot_be_read_is_not_tried(site: Site) -> None:
    config = site.write("{redis: {url: 'redis://127.0.0.1:1', password: {file: /none}}}")
    assert not [each for each in site.findings(config, True) if each.subject.startswith("server")]
