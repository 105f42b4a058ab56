"""`share` and `startup_spread`: what they become, and the errors of a share that could not work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bearerd.config.load import load
from bearerd.config.plain import decode, encode
from bearerd.errors import ConfigError
from bearerd.lifecycle.plan import needs_restart, plan
from bearerd.model import Config
from bearerd.terms import Redis, Reference, Share

SECRET = "client_secret: {file: /s}"
SERVER = "{url: rediss://redis.example}"


def config(share: str = "", client: str = SECRET, own: str = "", top: str = "") -> str:
    """A config with a client, with a share at the top level, or one of its own."""
    lines = [f"{top}\n" if top else "", f"share: {share}\n" if share else ""]
    lines += ["clients:\n  dnb:\n    token_url: https://login.example/t\n    client_id: a\n"]
    lines += [f"    {line}\n" for line in (client, f"share: {own}" if own else "") if line]
    return "".join([*lines, "    tokens: {bci: {}}\n"])


class Folder:
    """The config files of a test."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, text: str, **more: str) -> Config:
        for name, content in {"config": text, **more}.items():
            (self.path / f"{name}.yaml").write_text(content)
        return load(str(self.path / "config.yaml"), {})

    def share(self, text: str) -> Share | None:
        """The share of the only client."""
        (target,) = self.load(text).targets
        return target.client.share

    def error(self, text: str, **more: str) -> ConfigError:
        with pytest.raises(ConfigError) as raised:
            self.load(text, **more)
        return raised.value

    def messages(self, text: str, **more: str) -> list[str]:
        """The place of each error in its file, and its message."""
        return [f"{each.line}:{each.column}: {each.message}" for each in self.error(text, **more).problems]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_without_a_share_a_daemon_keeps_its_tokens_by_itself(folder: Folder) -> None:
    loaded = folder.load(config())
    assert (loaded.targets[0].client.share, loaded.startup_spread) == (None, 0.0)


def test_a_share_has_defaults_for_everything_but_its_url(folder: Folder) -> None:
    assert folder.share(config(f"{{redis: {SERVER}}}")) == Share(
        redis=Redis(
            "rediss://redis.example", ca_file=None, username=None, password=None, prefix="bearerd", timeout=2.0
        ),
        when_unavailable="alone",
        key=None,
    )


def test_every_key_of_a_share_is_taken(folder: Folder) -> None:
    share = """
  redis:
    url: {file: /etc/bearerd/redis.url, permissions: group}
    ca_file: /etc/ssl/redis.pem
    username: bearerd
    password: {credential: redis}
    prefix: eu:billing
    timeout: 500ms
  when_unavailable: wait
  key: {env: SHARE_KEY}"""
    loaded = folder.load(config(share))
    assert loaded.targets[0].client.share == Share(
        redis=Redis(
            url=Reference("file", "/etc/bearerd/redis.url", permissions="group"),
            ca_file="/etc/ssl/redis.pem",
            username="bearerd",
            password=Reference("credential", "redis"),
            prefix="eu:billing",
            timeout=0.5,
        ),
        when_unavailable="wait",
        key=Reference("env", "SHARE_KEY"),
    )
    assert decode(encode(loaded)) == loaded


def test_the_share_of_a_client_replaces_all_of_the_one_at_the_top_level(folder: Folder) -> None:
    top = f"{{redis: {SERVER}, when_unavailable: wait, key: {{file: /k}}}}"
    share = folder.share(config(top, own="{redis: {url: unix:///run/redis.sock}}"))
    assert share == Share(Redis("unix:///run/redis.sock"))


def test_clients_of_included_files_have_the_share_of_the_main_file(folder: Folder) -> None:
    main = f"include: [more.yaml]\nshare: {{redis: {SERVER}}}\n"
    (target,) = folder.load(main, more=config()).targets
    assert target.client.share == Share(Redis("rediss://redis.example"))
    assert folder.messages("include: [more.yaml]\n", more=config(f"{{redis: {SERVER}}}")) == [
        "1:1: 'share' is a key of the main file: an included file may only have providers and clients"
    ]


@pytest.mark.parametrize("more", ["", "prefix: other"])
def test_clients_with_equal_servers_have_equal_redis_values(folder: Folder, more: str) -> None:
    other = f"  eon: {{client_id: b, {SECRET}, token_url: https://x.example/t, tokens: {{t: {{}}}}, share: {{redis: "
    other += f"{{url: rediss://redis.example, {more}}}, when_unavailable: wait}}}}\n"
    dnb, eon = (target.client.share for target in folder.load(config(f"{{redis: {SERVER}}}") + other).targets)
    assert dnb
    assert eon
    assert (dnb.redis == eon.redis) == (not more)


# -- a changed share -----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", ["", "{redis: {url: unix:///run/redis.sock}, when_unavailable: wait}"])
def test_a_changed_share_needs_neither_a_restart_nor_a_token(folder: Folder, share: str) -> None:
    old, new = folder.load(config(f"{{redis: {SERVER}}}")), folder.load(config(share))
    changes = plan(old, new)
    assert (str(changes), needs_restart(old, new)) == ("1 token changed", [])
    (was,), (now,) = old.targets, new.targets
    assert (was.identity(), was.fingerprint()) == (now.identity(), now.fingerprint())


def test_a_changed_startup_spread_changes_no_token(folder: Folder) -> None:
    old, new = folder.load(config()), folder.load(config(top="startup_spread: 30s"))
    assert new.startup_spread == 30.0
    assert (str(plan(old, new)), needs_restart(old, new)) == ("no token changed", [])


# -- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("5", "expected a mapping, found a number"),
        ("redis://h", "expected a mapping, found text; for example {url: rediss://redis.example.com:6379/0}"),
        ("{}", "key 'url' is missing"),
        ("{url: 5}", "expected a URL, or a reference such as {file: /etc/bearerd/redis.url}, found a number"),
        ("{url: [redis://h]}", "expected a URL, or a reference such as {file: /etc/bearerd/redis.url}, found a list"),
        ("{url: {vault: x}}", "unknown key; expected one of 'file', 'env', 'credential', 'command'"),
        ("{url: https://h}", "expected a URL that begins with redis://, rediss://, unix://, redis+sentinel://"),
        ("{url: redis+sentinel://a}", "expected the name of the service after the sentinels, such as redis+sentinel:"),
        ("{url: rediss://h, ca_file: ca.pem}", "expected an absolute path (/…)"),
        ("{url: redis://h, ca_file: /ca.pem}", "ca_file only applies to TLS: a url that begins with rediss:// or"),
        ("{url: unix:///s, ca_file: /ca.pem}", "ca_file only applies to TLS: a url that begins with rediss:// or"),
        ("{url: redis://h, username: u}", "key 'password' is missing: a username is for a login with a password"),
        ("{url: redis://h, username: a b, password: {file: /p}}", "expected a user name without spaces"),
        ("{url: redis://h, password: hunter2}", "expected a reference such as {file: /etc/bearerd/client.secret}"),
        ("{url: redis://h, prefix: ''}", "expected text of 1 to 64 letters, digits, '.', '_', ':' and '-', beginning"),
        ("{url: redis://h, prefix: a*}", "expected text of 1 to 64 letters, digits, '.', '_', ':' and '-', beginning"),
        (f"{{url: redis://h, prefix: {'a' * 65}}}", "expected text of 1 to 64 letters, digits, '.', '_', ':' and '-'"),
        ("{url: redis://h, timeout: 2}", "a duration needs a unit: write 2s if these are seconds"),
        ("{url: redis://h, timeout: 99ms}", "expected a timeout of 100ms to 30s: a due token waits that long if the"),
        ("{url: redis://h, timeout: 31s}", "expected a timeout of 100ms to 30s: a due token waits that long if the"),
        ("{url: redis://h, pool: 1}", "unknown key 'pool'; expected one of 'url', 'ca_file', 'username', 'password'"),
    ],
)
def test_a_wrong_server_is_an_error(folder: Folder, server: str, message: str) -> None:
    (said,) = folder.messages(config(f"{{redis: {server}}}"))
    assert said.partition(": ")[2].startswith(message)
    # The same on a client.
    (said,) = folder.messages(config(own=f"{{redis: {server}}}"))
    assert said.partition(": ")[2].startswith(message)


@pytest.mark.parametrize("timeout", ["100ms", "30s"])
def test_the_shortest_and_the_longest_timeout_are_allowed(folder: Folder, timeout: str) -> None:
    assert folder.share(config(f"{{redis: {{url: redis://h, timeout: {timeout}}}}}"))


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ("redis://h", "expected a mapping, found text; for example {redis: {url: rediss://redis.example.com:6379/0}}"),
        ("{}", "key 'redis' is missing"),
        (f"{{redis: {SERVER}, when_unavailable: never}}", "expected 'alone' or 'wait'"),
        (f"{{redis: {SERVER}, when_unavailable: wiat}}", "unknown value; did you mean 'wait'?"),
        (f"{{redis: {SERVER}, key: hunter2}}", "expected a reference such as {file: /etc/bearerd/client.secret}"),
        (f"{{redis: {SERVER}, key: [{{file: /a}}, {{file: /b}}]}}", "expected a reference such as {file: /etc/bearer"),
    ],
)
def test_a_wrong_share_is_an_error(folder: Folder, share: str, message: str) -> None:
    (said,) = folder.messages(config(share))
    assert said.partition(": ")[2].startswith(message)


@pytest.mark.parametrize(("spread", "seconds"), [("0s", 0.0), ("30s", 30.0), ("1h", 3600.0)])
def test_a_startup_spread_may_be_zero(folder: Folder, spread: str, seconds: float) -> None:
    assert folder.load(config(top=f"startup_spread: {spread}")).startup_spread == seconds


@pytest.mark.parametrize(
    ("spread", "message"),
    [
        ("61m", "1:17: expected a duration of at most 1h: the last tokens arrive that long after the start"),
        ("30", "1:17: a duration needs a unit: write 30s if these are seconds"),
        ("on", "1:17: expected a duration such as 30s, or 0s to start without delay"),
    ],
)
def test_a_wrong_startup_spread_is_an_error(folder: Folder, spread: str, message: str) -> None:
    assert folder.messages(
        config(top=f"startup_spread: '{spread}'" if spread == "on" else f"startup_spread: {spread}")
    ) == [message]


# -- the key ---------------------------------------------------------------------------------------

WITHOUT_SECRET = [
    pytest.param("auth: private_key_jwt, private_key: {file: /k}", id="private_key_jwt"),
    pytest.param("auth: tls_client_auth, private_key: {file: /k}, certificate: {file: /c}", id="tls_client_auth"),
    pytest.param("auth: assertion, assertion: {file: /a}", id="assertion"),
    pytest.param("auth: none", id="none"),
]


def flow(keys: str) -> str:
    """Keys of a client, one a line."""
    return re.sub(r", (?=\w+: )", "\n    ", keys)


@pytest.mark.parametrize("client", WITHOUT_SECRET)
def test_a_client_without_a_secret_needs_the_key_of_a_share(folder: Folder, client: str) -> None:
    client = flow(client)
    for text in (config(f"{{redis: {SERVER}}}", client), config(client=client, own=f"{{redis: {SERVER}}}")):
        (problem,) = folder.error(text).problems
        assert "key 'key' of share is missing" in problem.message
        assert "openssl rand -hex 32" in problem.message
        assert problem.kind == "missing key"
        # At the share of the client, or else at the client.
        line = text.splitlines()[problem.line - 1]
        assert line.strip() == ("dnb:" if text.startswith("share") else f"share: {{redis: {SERVER}}}")
    assert folder.share(config(f"{{redis: {SERVER}, key: {{file: /k}}}}", client))


def test_a_client_with_a_secret_needs_no_key(folder: Folder) -> None:
    for auth in ("client_secret_post", "client_secret_jwt"):
        assert folder.share(config(f"{{redis: {SERVER}}}", f"{SECRET}\n    auth: {auth}"))


def test_a_mistyped_key_is_one_error(folder: Folder) -> None:
    (said,) = folder.messages(config(f"{{redis: {SERVER}, kye: {{file: /k}}}}", "auth: none"))
    assert said.endswith("unknown key 'kye'; did you mean 'key'?")


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ("{valkey: {url: redis://h}}", "unknown key 'valkey'; did you mean 'redis'?"),
        ("{url: redis://h}", "unknown key 'url'; did you mean 'redis'?"),
        (f"{{redis: {SERVER}, key_file: {{file: /k}}}}", "unknown key 'key_file'; did you mean 'key'?"),
        ("{redis: {host: h}}", "unknown key 'host'; did you mean 'url'?"),
        (f"{{redis: {{url: {SERVER[6:-1]}, user: u}}}}", "unknown key 'user'; did you mean 'username'?"),
    ],
)
def test_a_key_of_another_client_of_redis_suggests_the_one_that_means_it(
    folder: Folder, share: str, message: str
) -> None:
    (said,) = folder.messages(config(share))
    assert said.partition(": ")[2] == message


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("redis", "'redis' is a key of share, not of a client: write share: {redis: …}"),
        ("when_unavailable", "'when_unavailable' is a key of share, not of a client: write share: {redis: …, when"),
    ],
)
def test_a_key_of_a_share_on_a_client_is_named(folder: Folder, key: str, message: str) -> None:
    (said,) = folder.messages(config(client=f"{SECRET}\n    {key}: {{}}"))
    assert said.partition(": ")[2].startswith(message)


def test_the_lines_of_a_share_are_shown_but_for_its_secrets(folder: Folder) -> None:
    server = "\n  redis:\n    url: redis://h:hunter2\n    prefix: a b\n    timeout: 5\n"
    share = f"{server}  when_unavailable: never\n  key: hunter2"
    shown = [line.strip() for line in folder.error(config(share)).full.splitlines() if re.match(r" +\d+ \|", line)]
    assert shown == ["4 |     prefix: a b", "5 |     timeout: 5", "6 |   when_unavailable: never"]


# -- secrets ------------------------------------------------------------------------------------------

LOGINS = ["redis://u:hunter2@h/0", "redis://:hunter2@h", "redis://hunter2@h", "rediss://u:hunter2@[::1]:1/0"]
LOGINS += ["unix://:hunter2@/run/redis.sock", "redis+sentinel://u:hunter2@a,b/tokens/0"]


@pytest.mark.parametrize("url", LOGINS)
def test_a_url_with_a_login_is_a_secret_in_the_config(folder: Folder, url: str) -> None:
    (problem,) = (error := folder.error(config(f"{{redis: {{url: '{url}'}}}}"))).problems
    assert problem.kind == "secret in the config"
    assert problem.message.startswith("a URL with a login is a secret: write url: {file: /etc/bearerd/redis.url}, or")
    assert "hunter2" not in error.full


MISTAKES = [
    *LOGINS,
    *(
        "redis://h:hunter2",
        "rediss//u:hunter2.h",
        "redis://h/hunter2",
        "unix://hunter2/x",
        "redis+sentinel://h/hun ter2",
    ),
    *("hunter2", "redis://h?password=hunter2", "redis://u:hunter2#@h", "redis://u:hunter2/@h/0", "redis:\\hunter2"),
]
SHAPES = [
    "share: '{}'",
    "share: ['{}']",
    "share: {{redis: '{}'}}",
    "share: {{redis: ['{}']}}",
    "share: {{redis: {{url: ['{}']}}}}",
    "share: {{redis: {{url: {{file: '{}'}}}}}}",
    "share: {{redis: {{url: {{'{}'}}}}, prefix: 5}}",
    "share: {{redis: {{url: '{}', timeout: 5, prefix: 5}}, when: 5}}",
    "share: {{redis: {{url: redis://h, password: '{}', timeout: 5}}}}",
    "share: {{redis: {{url: redis://h, pasword: '{}', timeout: 5}}}}",
    "share: {{redis: {{url: redis://h, auth: '{}', timeout: 5}}}}",
    "share: {{redis: {{uri: '{}', timeout: 5}}}}",
    "share: {{redis: {{url: redis://h}}, key: '{}', when: 5}}",
    "share: {{redis: {{url: redis://h}}, kye: '{}', when: 5}}",
    "share:\n  redis:\n    url: '{}'\n    timeout: 5\n  key: {{file: x}}",
    "share:\n  redis:\n    url: '{}\n    timeout: 5",
    "share:\n  redis:\n  url: '{}'\n  timeout: 5",
    "share:\n  redis: {{url: '{}', timeout: 5",
    "redis: '{}'",
    "redis: {{url: '{}', timeout: 5}}",
]


@pytest.mark.parametrize("shape", SHAPES)
def test_no_error_of_a_share_shows_a_password(folder: Folder, shape: str) -> None:
    for secret in MISTAKES:
        for text in (
            f"{shape.format(secret)}\n{config(client='timeout: 5')}",
            config(client="    ".join(shape.format(secret).splitlines(keepends=True)) + "\n    timeout: 5"),
        ):
            error = folder.error(text)
            assert not re.search("hun ?ter2", error.full), text
            assert not re.search("hun ?ter2", str(error)), text
