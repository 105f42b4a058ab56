from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from bearerd.cli.check import _summary
from bearerd.config.load import load
from bearerd.service.check import readable, reader_of
from support.oidc import self_signed
from support.process import WITHIN, bearerd, command
from support.readers import ROOT, acting_as, can_read, naming, open_directory, set_acl
from support.server import Answer, Script, Seen, Server, issues, serving

BROKEN = Path(__file__).parent / "broken"
SECRET = "hunter2+hunter2"
WRITE_IT = "write the secret to it, with mode 0600 and the daemon's user as its owner"
SET_IT = "set it in the daemon's environment, and restart bearerd"


@pytest.mark.parametrize("file", sorted(BROKEN.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_config_with_errors_exits_78_and_shows_them(file: Path) -> None:
    """The whole output is beside each config, to be read as a user reads it."""
    done = bearerd("check", "-c", file, env={"RUNTIME_DIRECTORY": ""})
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.replace(f"{file.parent}/", "") == file.with_suffix(".txt").read_text()
    assert "hunter2" not in done.stderr
    assert file.read_text().startswith("# "), "the first line says what is wrong"


# -- a valid config against this machine -------------------------------------------------------------

Keys = dict[str, str | None]
"""The keys of a client in YAML; None removes a default."""


@dataclass
class Site:
    """A config with one client and two tokens, and the paths of its files."""

    path: Path
    url: str

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def secret(self) -> Path:
        return self.path / "dnb.secret"

    @property
    def directory(self) -> Path:
        return self.path / "run" / "tokens"

    def keep(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file as an operator puts it there."""
        path = self.path / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def refer(self, name: str, text: str) -> str:
        """A reference to such a file."""
        return f"{{file: '{self.keep(name, text)}'}}"

    def here(self, text: str) -> str:
        """The text with this site's own path in it."""
        return text.replace("SITE", str(self.path))

    def write(self, keys: Keys | None = None, top: str = "", token: str = "scope: bci") -> None:
        """Config and secret; `keys` are the client's, `top` is for the top, `token` for the first of its tokens."""
        usual: Keys = {
            "token_url": self.url,
            "allow_http": "true",
            "client_id": "7e0c5a",
            "client_secret": self.refer("dnb.secret", SECRET),
        }
        held = {key: value for key, value in (usual | (keys or {})).items() if value is not None}
        self.config.write_text(
            f"output: {{directory: '{self.directory}'}}\n{top}\n"
            "clients:\n"
            "  dnb:\n" + "".join(f"    {key}: {value}\n" for key, value in held.items()) + "    tokens:\n"
            f"      bci: {{{token}}}\n"
            "      other: {scope: other}\n"
        )

    def check(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        # What systemd sets would be taken for this site's own.
        environment = {"RUNTIME_DIRECTORY": "", "STATE_DIRECTORY": "", "CREDENTIALS_DIRECTORY": ""} | env
        return bearerd("check", *arguments, "-c", self.config, env=environment)


def findings(done: subprocess.CompletedProcess[str], level: str) -> list[str]:
    """The findings of a level, without the level."""
    lines = done.stdout.splitlines()
    return [line.removeprefix(level).lstrip() for line in lines if line.startswith(f"{level} ")]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    # Nobody listens on port 1: what is not asked to go online must not.
    site = Site(tmp_path, "http://127.0.0.1:1/token")
    site.write()
    return site


def test_a_correct_config_exits_0_and_creates_nothing(site: Site) -> None:
    done = site.check()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"ok       config {site.config}: 2 tokens",
        f"ok       directory {site.directory}: can be written",
        f"ok       state directory {site.directory}/.bearerd: can be written",
        f"ok       client dnb: file {site.secret} can be used",
        "ok       token dnb/bci: 1 file can be written",
        "ok       token dnb/other: 1 file can be written",
        "6 good",
    ]
    assert sorted(os.listdir(site.path)) == ["config.yaml", "dnb.secret"]


def test_check_takes_no_lock_next_to_a_running_daemon(site: Site) -> None:
    own = site.directory / ".bearerd"
    own.mkdir(parents=True)
    with (own / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = site.check()
    assert done.returncode == 0, done.stdout
    assert [path.name for path in sorted(site.directory.rglob("*"))] == [".bearerd", "lock"]


@pytest.mark.parametrize("configured", [True, False], ids=["in-the-config", "by-systemd"])
def test_an_unusable_state_directory_is_reported_separately(site: Site, configured: bool) -> None:
    state = site.keep("state", "a file where a directory should be")
    site.write(top=f"state_directory: '{state}'" if configured else "")
    done = site.check(**({} if configured else {"STATE_DIRECTORY": str(state)}))
    assert done.returncode == 1
    reason = "not a directory; move it away, or use another path"
    assert findings(done, "failed") == [f"state directory {state}: {state}: {reason}"]


def test_check_reports_all_failures_at_once(site: Site) -> None:
    site.write({"ca_file": f"'{site.path}/none.pem'", "files": "[{format: raw, group: no-such-group}]"})
    site.secret.write_text("\n")
    site.directory.parent.write_text("a file where a directory should be")
    done = site.check()
    assert done.returncode == 1
    # Nothing else is said of the directory: the state directory and all files are below it.
    directory, client, *tokens = findings(done, "failed")
    assert directory.startswith(f"directory {site.directory}: ")
    missing = f"ca_file {site.path}/none.pem: no such file or directory"
    assert client == f"client dnb: file {site.secret}: empty; {WRITE_IT}; {missing}"
    assert [token.split(":")[0] for token in tokens] == ["token dnb/bci", "token dnb/other"]
    assert "no-such-group" in tokens[0]
    assert done.stdout.splitlines()[-1].startswith("4 failed, ")


@pytest.mark.parametrize(
    ("staleness", "delay", "warning"),
    [("31m", "0s", "max_staleness 31 min is"), ("25m", "10m", "max_staleness 25 min with publish_delay 10 min is")],
)
def test_a_reader_that_may_use_an_expired_token_causes_a_warning(
    site: Site, staleness: str, delay: str, warning: str
) -> None:
    site.write({"files": f"[{{format: raw, max_staleness: {staleness}}}]", "publish_delay": delay})
    done = site.check()
    assert done.returncode == 0
    assert f"warning  token dnb/bci: {warning} more than half of a lifetime of 1 h" in done.stdout


# -- what clients authenticate with ------------------------------------------------------------------


@dataclass
class Pair:
    """A private key and the certificate that an authority gave it, in PEM."""

    key: str
    certificate: str


@pytest.fixture(scope="module")
def pairs() -> tuple[Pair, Pair]:
    ca = trustme.CA()
    leaves = [ca.issue_cert("bearerd.example.com") for _ in range(2)]
    first, second = (
        Pair(leaf.private_key_pem.bytes().decode(), leaf.cert_chain_pems[0].bytes().decode()) for leaf in leaves
    )
    return first, second


def expired(pair: Pair) -> str:
    """A certificate of 2020 for this key."""
    key = load_pem_private_key(pair.key.encode(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    return self_signed(key, not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=datetime(2020, 2, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def encrypted() -> str:
    locked = BestAvailableEncryption(b"hunter2")
    return generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked).decode()


WITHOUT_SECRET: Keys = {"client_secret": None}
BY_KEY: Keys = WITHOUT_SECRET | {"auth": "private_key_jwt"}
BY_CERTIFICATE: Keys = WITHOUT_SECRET | {"auth": "tls_client_auth", "token_url": "https://127.0.0.1:1/token"}
BY_ASSERTION: Keys = WITHOUT_SECRET | {"auth": "assertion"}


@pytest.mark.parametrize(
    ("keys", "files", "named"),
    [
        pytest.param({"auth": "client_secret_jwt"}, (), "file SITE/dnb.secret can be used", id="secret"),
        pytest.param(
            {"client_secret": "[{file: 'SITE/dnb.secret'}, {env: OLD}, {command: [/bin/echo, older]}]"},
            (),
            "file SITE/dnb.secret, env OLD, command /bin/echo can be used",
            id="list-of-secrets",
        ),
        pytest.param(BY_KEY, ("private_key",), "file SITE/private_key can be used", id="private_key_jwt"),
        pytest.param(
            BY_KEY,
            ("private_key", "certificate"),
            "file SITE/private_key, file SITE/certificate can be used",
            id="private_key_jwt-with-certificate",
        ),
        pytest.param(
            BY_CERTIFICATE,
            ("private_key", "certificate"),
            "file SITE/certificate, file SITE/private_key can be used",
            id="tls_client_auth",
        ),
        pytest.param(BY_ASSERTION, ("assertion",), "file SITE/assertion can be used", id="assertion"),
        pytest.param(WITHOUT_SECRET | {"auth": "none"}, (), "no credentials but its client_id", id="none"),
    ],
)
def test_check_names_the_credentials_of_a_client(
    site: Site, pairs: tuple[Pair, Pair], keys: Keys, files: tuple[str, ...], named: str
) -> None:
    texts = {"private_key": pairs[0].key, "certificate": pairs[0].certificate, "assertion": "e30.e30.c2ln"}
    given = {key: value and site.here(value) for key, value in keys.items()}
    site.write(given | {name: site.refer(name, texts[name]) for name in files})
    if "certificate" in files:
        (site.path / "certificate").chmod(0o644)  # it is public
    done = site.check(OLD="old")
    assert done.returncode == 0, done.stdout
    assert f"client dnb: {site.here(named)}" in findings(done, "ok")


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        pytest.param(None, "no such file or directory", id="missing"),
        pytest.param(0o644, "mode 0644 lets others access it; run chmod 600 on it", id="too-readable"),
    ],
)
def test_an_unusable_secret_exits_1_and_names_the_client(site: Site, mode: int | None, said: str) -> None:
    if mode is None:
        site.secret.unlink()
    else:
        site.secret.chmod(mode)
    # Online too: what cannot be read is not sent.
    done = site.check("--online")
    assert done.returncode == 1
    assert f"failed   client dnb: file {site.secret}: {said}" in done.stdout
    assert "grant" not in done.stdout
    assert done.stdout.splitlines()[-1] == "1 failed, 5 good; the daemon would start and retry"
    assert done.stderr == ""
    assert SECRET not in done.stdout


def test_a_command_of_many_runs_once_and_each_of_them_reports_its_fault(site: Site) -> None:
    secret = f"{{command: [/bin/sh, -c, 'echo >> {site.path}/runs; exit 1']}}"
    share = f"{{redis: {{url: rediss://example.invalid}}, key: {secret}}}"
    site.write({"client_secret": secret, "parameters": f"{{account: {secret}}}", "share": share})
    done = site.check()
    assert done.returncode == 1
    fault = "command /bin/sh: exit 1; run it by hand as the daemon's user to see why"
    subjects = ("client dnb", "token dnb/bci", "token dnb/other", "share rediss://example.invalid:6379/0")
    assert findings(done, "failed") == [f"{subject}: {fault}" for subject in subjects]
    assert (site.path / "runs").read_text() == "\n"


def test_a_systemd_credential_is_the_one_from_the_start_of_the_unit(site: Site, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "dnb").write_text(SECRET)
    site.write({"client_secret": "[{credential: dnb}, {file: SITE/dnb.secret}]".replace("SITE", str(tmp_path))})
    done = site.check(CREDENTIALS_DIRECTORY=str(credentials))
    assert done.returncode == 0
    assert (
        f"ok       client dnb: credential dnb, file {site.secret} can be used\n"
        "           rotation: credential dnb is set when the unit starts; run systemctl restart to use a new one\n"
    ) in done.stdout
    (credentials / "dnb").unlink()
    done = site.check(CREDENTIALS_DIRECTORY=str(credentials))
    assert done.returncode == 1
    assert f"failed   client dnb: file {credentials}/dnb: no such file or directory" in done.stdout


def test_a_credential_that_only_the_unit_sees_is_neither_ok_nor_failed(site: Site) -> None:
    site.write({"client_id": "{credential: id}", "client_secret": "{credential: dnb}"})
    done = site.check("--online")
    assert done.returncode == 0
    [warning] = findings(done, "warning")
    assert warning.startswith("client dnb: credential id, credential dnb: this check cannot see it; only the unit can")
    assert "grant" not in done.stdout


def test_a_hidden_credential_in_a_parameter_is_a_warning_of_its_token(site: Site) -> None:
    site.write({"parameters": "{account: {credential: account}}"})
    done = site.check("--online")
    assert done.returncode == 0
    assert findings(done, "warning") == [
        f"token dnb/{name}: credential account: this check cannot see it; only the unit can, if it has LoadCredential="
        for name in ("bci", "other")
    ]
    assert "grant" not in done.stdout


@pytest.mark.parametrize("text", [f"{SECRET} ", f"\ufeff{SECRET}"])
@pytest.mark.parametrize("where", ["client_secret", "client_id", "parameters"])
def test_blanks_or_a_bom_at_the_ends_of_a_secret_are_exit_1_before_any_request(
    site: Site, where: str, text: str
) -> None:
    bad = "{env: BAD}"
    site.write({where: "{account: {env: BAD}}" if where == "parameters" else bad})
    done = site.check("--online", BAD=text)
    assert done.returncode == 1
    assert "env BAD: " in done.stdout
    assert "grant" not in done.stdout
    assert SECRET not in done.stdout


NO_KEY = "neither a private key in PEM format, nor a private JWK, nor the JSON of a service account"
DECRYPT = "decrypt it into another file: openssl pkey -in FILE -out FILE.decrypted"
CERTIFICATE_AND_KEY = "file SITE/certificate and file SITE/private_key"


@pytest.mark.parametrize(
    ("keys", "files", "said"),
    [
        pytest.param(
            {"client_id": "{env: NO_ID}"}, {}, f"env NO_ID: the variable is not set; {SET_IT}", id="client-id"
        ),
        pytest.param(
            {"headers": "{X-Api-Key: {command: [/usr/bin/printf, 'caf\\303\\251']}}"},
            {},
            "command /usr/bin/printf: not usable as header X-Api-Key: expected printable ASCII characters on one line, "
            "without spaces at its ends",
            id="header",
        ),
        pytest.param(
            {"proxy": "{url: http://127.0.0.1:1, username: u, password: {env: NO_PASSWORD}}"},
            {},
            f"env NO_PASSWORD: the variable is not set; {SET_IT}",
            id="proxy-password",
        ),
        pytest.param(
            {"client_secret": "[{file: 'SITE/dnb.secret'}, {env: NO_OLD}, {env: NO_OLDER}]"},
            {},
            f"env NO_OLD, env NO_OLDER: the variable is not set; {SET_IT}",
            id="each-of-a-list-of-secrets",
        ),
        pytest.param(
            {"auth": "client_secret_jwt", "client_secret": "[{file: 'SITE/dnb.secret'}, {file: 'SITE/old'}]"},
            {"old": "key"},
            "file SITE/old: has more than one line; keep only the one with the secret",
            id="a-key-for-a-secret",
        ),
        pytest.param(BY_KEY, {"private_key": ""}, f"file SITE/private_key: empty; {WRITE_IT}", id="key-empty"),
        pytest.param(
            BY_KEY, {"private_key": "secret"}, f"private_key file SITE/private_key: {NO_KEY}", id="key-is-none"
        ),
        pytest.param(
            BY_KEY,
            {"private_key": "encrypted"},
            f"private_key file SITE/private_key: encrypted with a passphrase; {DECRYPT}",
            id="key-encrypted",
        ),
        pytest.param(
            BY_KEY | {"algorithm": "RS256"},
            {"private_key": "key"},
            "private_key file SITE/private_key: the key cannot sign with RS256, only with ES256",
            id="key-of-another-kind-than-the-algorithm",
        ),
        pytest.param(
            BY_KEY,
            {"private_key": "key", "certificate": "secret"},
            "certificate file SITE/certificate: the certificate is not in PEM format",
            id="certificate-is-none",
        ),
        pytest.param(
            BY_KEY,
            {"private_key": "key", "certificate": "another certificate"},
            "certificate file SITE/certificate: the certificate belongs to another key",
            id="certificate-of-another-key",
        ),
        pytest.param(
            BY_CERTIFICATE,
            {"private_key": "key", "certificate": "another certificate"},
            f"{CERTIFICATE_AND_KEY} do not belong together: the certificate is for another key",
            id="tls-certificate-of-another-key",
        ),
        pytest.param(
            {"token_url": "https://127.0.0.1:1/token"},
            {"tls_private_key": "key", "tls_certificate": "expired certificate"},
            "the client certificate in file SITE/tls_certificate expired on 2020-02-01",
            id="tls-certificate-expired",
        ),
        pytest.param(
            BY_CERTIFICATE,
            {"private_key": "key", "certificate": "secret"},
            "file SITE/certificate or file SITE/private_key is not in PEM format, or not complete",
            id="tls-certificate-is-none",
        ),
        pytest.param(
            BY_CERTIFICATE,
            {"private_key": "encrypted", "certificate": "certificate"},
            f"file SITE/private_key: encrypted with a passphrase; {DECRYPT}",
            id="tls-key-encrypted",
        ),
        pytest.param(
            BY_CERTIFICATE | {"ca_file": "SITE/ca"},
            {"private_key": "key", "certificate": "certificate", "ca": "secret"},
            "ca_file SITE/ca: holds no certificate; it needs the provider's CA certificates in PEM",
            id="tls-ca-file-is-none",
        ),
        pytest.param(
            {
                "token_url": "https://127.0.0.1:1/token",
                "tls_certificate": "{file: SITE/one}",
                "tls_private_key": "{file: SITE/one}",
            },
            {},
            f"file SITE/one: no such file or directory; {WRITE_IT}",
            id="one-file-for-certificate-and-key-is-reported-once",
        ),
        pytest.param(BY_ASSERTION, {"assertion": ""}, f"file SITE/assertion: empty; {WRITE_IT}", id="assertion-empty"),
        pytest.param(
            {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"},
            {"private_key": "secret"},
            f"private_key file SITE/private_key: {NO_KEY}",
            id="key-for-the-grant",
        ),
    ],
)
def test_unusable_credentials_are_named_and_not_sent(
    site: Site, pairs: tuple[Pair, Pair], encrypted: str, keys: Keys, files: dict[str, str], said: str
) -> None:
    first, second = pairs
    texts = {
        "": "",
        "secret": SECRET,
        "key": first.key,
        "encrypted": encrypted,
        "certificate": first.certificate,
        "another certificate": second.certificate,
        "expired certificate": expired(first),
    }
    given = {key: value and site.here(value) for key, value in keys.items()}
    references = {name: site.refer(name, texts[text]) for name, text in files.items()}
    site.write(given | {name: text for name, text in references.items() if name not in {"old", "ca"}})
    done = site.check("--online")
    assert done.returncode == 1, done.stdout
    assert findings(done, "failed") == [f"client dnb: {site.here(said)}"]
    assert "grant" not in done.stdout
    assert SECRET not in done.stdout + done.stderr
    assert "PRIVATE KEY" not in done.stdout + done.stderr


def test_an_unreadable_parameter_affects_its_token_only(site: Site) -> None:
    missing, token = site.path / "missing", site.refer("assertion", "e30.e30.c2ln")
    with serving(issues()) as server:
        site.write(
            {"auth": "none", "client_secret": None, "subject_token": token, "token_url": server.url},
            token=f"parameters: {{actor_token: {{file: '{missing}'}}}}",
        )
        done = site.check("--online")
    assert done.returncode == 1
    assert findings(done, "failed") == [f"token dnb/bci: file {missing}: no such file or directory; {WRITE_IT}"]
    # What has all it needs is what is tried.
    assert [dict(parse_qsl(seen.body.decode()))["scope"] for seen in server.seen] == ["other"]
    assert findings(done, "ok")[-1] == "grant dnb/other: a token, good for 1 h"


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(BY_KEY, id="private_key_jwt"),
        # With two secrets, it is reported once.
        pytest.param(
            {"auth": "client_secret_jwt", "client_secret": "[{env: NEW}, {env: OLD}]"},
            id="client_secret_jwt",
        ),
    ],
)
def test_a_missing_extra_is_named(site: Site, pairs: tuple[Pair, Pair], keys: Keys) -> None:
    own: Keys = {"private_key": site.refer("key", pairs[0].key)} if keys is BY_KEY else {}
    site.write(keys | own)
    without = site.path / "without"
    without.mkdir()
    (without / "jwt.py").write_text("raise ModuleNotFoundError('No module named jwt')\n")
    paths = [str(without), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = site.check("--online", PYTHONPATH=os.pathsep.join(paths), NEW=SECRET, OLD=SECRET)
    assert done.returncode == 1
    missing = (
        "signing assertions needs a part that is not installed: "
        f"run {sys.prefix}/bin/pip install '.[jwt]' in the checkout"
    )
    assert findings(done, "failed") == [f"client dnb: {missing}"]
    assert "grant" not in done.stdout


# -- where the files go ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "what", "said"),
    [
        pytest.param(0o777, "others can write there", "A Kubernetes emptyDir is always 0777", id="open"),
        pytest.param(0o1777, "any user can create files there", "a directory that only bearerd can write", id="sticky"),
    ],
)
def test_a_directory_that_others_can_write_causes_a_warning(site: Site, mode: int, what: str, said: str) -> None:
    site.directory.mkdir(parents=True)
    site.directory.chmod(mode)
    done = site.check()
    assert done.returncode == 0, done.stderr
    (warning,) = findings(done, "warning")
    assert warning.startswith(f"directory {site.directory}: {what} (mode {mode:04o})")
    assert said in warning


@ROOT
def test_check_reports_a_file_that_is_a_mount_point(site: Site) -> None:
    mounted = site.directory / "dnb" / "bci"
    mounted.parent.mkdir(parents=True)
    mounted.touch()
    subprocess.run(["mount", "--bind", site.secret, mounted], check=True)
    try:
        done = site.check()
    finally:
        subprocess.run(["umount", mounted], check=True)
    assert done.returncode == 1
    (failed,) = findings(done, "failed")
    assert failed.startswith(
        f"token dnb/bci: {mounted} is a mount point, which cannot be replaced; mount its directory"
    )
    assert site.check().returncode == 0


@pytest.mark.parametrize("name", ["dnb.secret", "config.yaml"])
def test_check_reports_an_output_that_leads_to_a_file_that_bearerd_reads(site: Site, name: str) -> None:
    (site.path / "link").symlink_to(".")
    site.write(token=f"files: [{{format: raw, path: '{site.path}/link/{name}'}}]")
    done = site.check()
    assert done.returncode == 1
    (failed,) = findings(done, "failed")
    assert failed == (
        f"token dnb/bci: {site.path}/link/{name} leads to {site.path}/{name}, which bearerd reads: it is not written; "
        "use another path"
    )


# -- as a reader -------------------------------------------------------------------------------------


@pytest.fixture
def reachable() -> Iterator[Site]:
    """A site that every user can reach. Its files have the group 4242, and new directories are open to all."""
    with open_directory() as directory:
        site = Site(directory, "http://127.0.0.1:1/token")
        site.write({"files": "[{format: raw, group: '4242'}]"})
        text = site.config.read_text()
        site.config.write_text(text.replace("tokens'}", "tokens', directory_mode: '0755'}"))
        yield site


def asked(site: Site, reader: str) -> tuple[int, list[str]]:
    """The exit code, and the verdict about the first file, without its path."""
    done = site.check("--as", reader)
    path = site.directory / "dnb" / "bci"
    lines = done.stdout.splitlines()
    first = next(index for index, line in enumerate(lines) if f" file {path} as " in line)
    last = next(index for index, line in enumerate(lines) if f" file {site.directory / 'dnb' / 'other'} as " in line)
    return done.returncode, [line.strip().replace(str(site.path), "SITE") for line in lines[first:last]]


FILE = "file SITE/run/tokens/dnb/bci as"


@ROOT
def test_access_to_a_file_that_does_not_exist_yet_is_checked(reachable: Site) -> None:
    assert asked(reachable, "3000:4242") == (0, [f"ok       {FILE} 3000: can be read (root:4242 0640)"])
    assert asked(reachable, "0") == (0, [f"ok       {FILE} root: can be read (root:4242 0640)"])
    assert findings(reachable.check("--as", "0"), "warning") == []
    why = "SITE/run/tokens/dnb/bci (root:4242 0640): user 3000 is neither its owner nor in its group, and others lack r"
    cure = "add user 3000 to the group 4242, or set the file's group to a group of user 3000"
    assert asked(reachable, "3000:3000") == (1, [f"failed   {FILE} 3000: {why}; {cure}"])
    done = reachable.check("--as", "3000")
    assert done.stdout.splitlines()[-1] == "2 failed, 2 warnings, 6 good; user 3000 cannot read 2 of the files"
    assert findings(done, "warning") == [
        "as 3000: the daemon's user is not known; this assumes root, the user of this check",
        "as 3000: not a user of this machine, so without any group; add one with --as 3000:GROUP",
    ]
    assert sorted(os.listdir(reachable.path)) == ["config.yaml", "dnb.secret"]


@ROOT
def test_the_access_check_agrees_with_reality(reachable: Site) -> None:
    with serving(issues()) as server:
        reachable.url = server.url
        reachable.write({"files": "[{format: raw, group: '4242'}]"})
        # Now the directories are for their group alone.
        assert (
            bearerd("once", "-c", reachable.config, env={"RUNTIME_DIRECTORY": "", "STATE_DIRECTORY": ""}).returncode
            == 0
        )
    path = reachable.directory / "dnb" / "bci"
    shuts = (reachable.directory.parent, reachable.directory, path.parent, path)
    for shut, mode in zip(shuts, (0o750, 0o750, 0o750, 0o640), strict=True):
        code, (first, *_) = asked(reachable, "3000:3000")
        assert code == 1
        name = str(shut).replace(str(reachable.path), "SITE")
        assert first.startswith(
            f"failed   {FILE} 3000: {name} (root:{'4242' if shut == path else 'root'} {mode:04o}): "
        )
        assert not can_read(path, 3000, 3000)
        shut.chmod(0o755)
    # A mode that somebody gave by hand is gone with the next token.
    assert can_read(path, 3000, 3000)
    code, lines = asked(reachable, "3000:3000")
    assert (code, lines[1:]) == (1, ["now: root:4242 0755, until the next token"])
    assert asked(reachable, "3000:4242")[0] == 0
    assert can_read(path, 3000, 4242)


@ROOT
def test_everything_that_denies_access_is_reported_with_advice(reachable: Site) -> None:
    reachable.directory.parent.mkdir(mode=0o700)
    left = "(bearerd does not change existing directories)"
    reachable.config.write_text(reachable.config.read_text().replace("'0755'", "'0750'"))
    code, lines = asked(reachable, "3000:3000")
    assert code == 1
    places = [
        ("SITE/run (root:root 0700)", "x", f"chmod o+x SITE/run {left}"),
        ("SITE/run/tokens (as bearerd creates it, root:root 0750)", "x", "set output.group to a group of user 3000"),
        (
            "SITE/run/tokens/dnb/bci (root:4242 0640)",
            "r",
            "add user 3000 to the group 4242, or set the file's group to a group of user 3000",
        ),
    ]
    outside = "user 3000 is neither its owner nor in its group, and others lack"
    said = [f"{place}: {outside} {right}; {cure}" for place, right, cure in places]
    assert lines == [f"failed   {FILE} 3000: {said[0]}", f"then: {said[1]}", f"then: {said[2]}"]


@ROOT
def test_an_acl_decides_and_is_named(reachable: Site) -> None:
    reachable.directory.mkdir(parents=True, mode=0o755)
    set_acl(reachable.directory, *naming(3000, 5))
    set_acl(reachable.directory, *naming(3000, 5), default=True)
    by = "by the ACL of SITE/run/tokens, SITE/run/tokens/dnb, SITE/run/tokens/dnb/bci"
    assert asked(reachable, "3000:3000") == (0, [f"ok       {FILE} 3000: can be read (root:4242 0640+), {by}"])
    code, (first, *_) = asked(reachable, "3001:3001")
    assert code == 1
    assert first.startswith(f"failed   {FILE} 3001: SITE/run/tokens (root:root 0770+): user 3001 is neither its owner")


@ROOT
def test_the_groups_of_a_user_are_those_of_this_machine(reachable: Site) -> None:
    # In a view of its own of the two files that name users and groups.
    (reachable.path / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nreader:x:3000:3000::/nonexistent:/usr/sbin/nologin\n"
    )
    (reachable.path / "group").write_text("root:x:0:\nreader:x:3000:\ntokens:x:4242:reader\nothers:x:4343:\n")

    def check(reader: str) -> subprocess.CompletedProcess[str]:
        script = (
            f"mount --bind {reachable.path}/passwd /etc/passwd && mount --bind {reachable.path}/group /etc/group && "
            'exec "$@"'
        )
        asks = command("check", "-c", reachable.config, "--as", reader)
        environment = {**os.environ, "RUNTIME_DIRECTORY": "", "STATE_DIRECTORY": ""}
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", *asks],
            env=environment,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )

    for reader in ("reader", "3000", "reader:others"):
        done = check(reader)
        assert done.returncode == 0, done.stdout + done.stderr
        assert findings(done, "ok")[-1].endswith("dnb/other as reader: can be read (root:tokens 0640)")
    (reachable.path / "group").write_text("root:x:0:\nreader:x:3000:\ntokens:x:4242:\n")
    done = check("reader")
    assert done.returncode == 1
    assert all("add user reader to the group tokens, or" in finding for finding in findings(done, "failed"))
    assert check("reader:tokens").returncode == 0


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        ("no-such-user", "there is no user 'no-such-user' on this machine; create it, or name another one"),
        ("0:no-such-group", "there is no group 'no-such-group' on this machine; create it, or name another one"),
        ("", "there is no user '' on this machine; create it, or name another one"),
        ("-1", "there is no user '-1' on this machine; create it, or name another one"),
        ("4294967295", "no user or group can have this number"),
        ("0:4294967295", "no user or group can have this number"),
    ],
)
def test_an_unknown_user_is_a_usage_error(site: Site, reader: str, said: str) -> None:
    done = site.check("--as", reader)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_check_promises_nothing_for_an_impossible_path(site: Site) -> None:
    site.directory.parent.touch()
    done = site.check("--as", "0")
    assert done.returncode == 1
    reason = "not a directory; move it away, or use another path"
    subject = f"file {site.directory}/dnb/other as root"
    assert findings(done, "failed")[-1] == f"{subject}: {site.directory.parent}: {reason}"
    assert done.stdout.splitlines()[-1].endswith("; user root cannot read 2 of the files")


@ROOT
def test_a_path_that_the_caller_cannot_see_is_not_reported_as_readable(reachable: Site) -> None:
    reachable.directory.mkdir(parents=True, mode=0o755)
    reachable.directory.parent.chmod(0o700)
    os.chown(reachable.directory.parent, 3000, 3000)
    config = load(str(reachable.config), {})
    # Here, since what runs the tests need not be for every user.
    with acting_as(4000):
        found = list(readable(config, reader_of("3000:4242")))
        stopped = list(readable(config, reader_of("5000:5000")))
    assert {finding.level for finding in (*found, *stopped)} == {"failed"}
    said = f"not known: this user is not allowed to look into {reachable.directory.parent}; run the check as root"
    assert [finding.verdict for finding in found] == [said, said]
    not_known = "for 2 of the files it is not known whether user 3000 can read them"
    assert _summary([], found, "3000", config) == f"2 failed, 0 good; {not_known}"
    # Who is stopped before that is.
    assert all(finding.verdict.startswith(f"{reachable.directory.parent} (3000:3000 0700)") for finding in stopped)


# -- online ------------------------------------------------------------------------------------------

TOKEN = "s3cr3t-t0ken"
REFUSED = "HTTP 401 invalid_client: the client was refused"


def grants(done: subprocess.CompletedProcess[str]) -> list[tuple[str, dict[str, str]]]:
    """Each line about a grant, and the details below it; how long it took is another time each time."""
    found: list[tuple[str, dict[str, str]]] = []
    for line in done.stdout.splitlines():
        if " grant " in line:
            found.append((line, {}))
        elif found and line.startswith("           "):
            name, value = line.strip().split(": ", 1)
            found[-1][1][name] = value
    for _, details in found:
        if "reply" in details:
            details["reply"] = re.sub(r"after [0-9]+ (ms|s)$", "after a while", details["reply"])
    return found


BY_BASIC = {
    "auth": "client_secret_basic (basic_encoding: compatible)",
    "parameters": "grant_type, scope",
    "headers": "Accept, Accept-Encoding, User-Agent, Content-Type, Authorization",
    "scope requested": "bci",
}


def refuses(_: Seen) -> Answer:
    """What D&B says to a wrong secret."""
    return Answer(401, {"error": "invalid_client", "error_description": "Bad credentials"})


def tried(
    path: Path, script: Script, keys: Keys | None = None, token: str = "scope: bci"
) -> tuple[subprocess.CompletedProcess[str], Server]:
    """The check of a site with that provider, online."""
    with serving(script) as server:
        # Some keep a key in the query.
        site = Site(path, f"{server.url}?code=hunter2")
        site.write(keys, token=token)
        done = site.check("--online")
    # Tried, not kept.
    assert not site.directory.exists()
    return done, server


def test_online_requests_one_token_per_client_and_shows_the_result(tmp_path: Path) -> None:
    done, server = tried(tmp_path, issues(scope="bci"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    details = {"request": f"POST {server.url}"} | BY_BASIC
    details |= {
        "reply": "HTTP 200, no Content-Type, after a while",
        "fields": "access_token, token_type, expires_in, scope",
        "token": "from access_token",
        "token type": "Bearer",
        "lifetime": "3600 s, from expires_in",
        "scope granted": "bci",
    }
    assert grants(done) == [("ok       grant dnb/bci: a token, good for 1 h", details)]
    assert [seen.body for seen in server.seen] == [b"grant_type=client_credentials&scope=bci"]


def test_online_a_refusal_exits_1_with_a_hint(tmp_path: Path) -> None:
    done, server = tried(tmp_path, refuses)
    assert done.returncode == 1
    # The secret holds a plus, which providers read in two ways.
    details = {"request": f"POST {server.url}"} | BY_BASIC
    details |= {
        "reply": "HTTP 401, no Content-Type, after a while",
        "fields": "error, error_description",
        "code": "invalid_client",
        "hint": "the id or secret contains a character that providers decode differently (such as :, %, + or a space): "
        "try basic_encoding: raw",
    }
    assert grants(done) == [(f"failed   grant dnb/bci: {REFUSED}", details)]
    assert len(server.seen) == 1


def test_online_without_a_connection_names_the_endpoint(site: Site) -> None:
    done = site.check("--online")
    assert done.returncode == 1
    assert grants(done) == [
        (
            "failed   grant dnb/bci: 127.0.0.1:1: connection refused (while connecting)",
            {"request": f"POST {site.url}"}
            | BY_BASIC
            | {
                "reply": "none, after a while",
                "hint": "no server listens there, or a firewall refuses: check host and port",
            },
        )
    ]


def test_online_without_metadata_the_requested_urls_are_shown(tmp_path: Path) -> None:
    with serving(lambda _: Answer(404)) as server:
        issuer = server.url.removesuffix("/token")
        site = Site(tmp_path, "")
        site.write({"token_url": None, "issuer": issuer})
        done = site.check("--online")
    unreachable = site.check("--online")
    urls = [f"{issuer}/.well-known/{name}" for name in ("oauth-authorization-server", "openid-configuration")]
    assert dict(grants(unreachable)).popitem()[1]["request"].endswith(f"; metadata requested from {urls[0]}")
    assert done.returncode == 1
    assert grants(done) == [
        (
            "failed   grant dnb/bci: metadata: HTTP 404",
            {
                "request": f"no token request was sent; metadata requested from {' and '.join(urls)}",
                "auth": BY_BASIC["auth"],
                "scope requested": "bci",
                "hint": "check issuer, or set token_url instead",
            },
        )
    ]


@pytest.mark.parametrize(
    ("off", "clock"),
    [
        pytest.param(3630, "the provider's is 1 h ahead of this machine's", id="ahead"),
        pytest.param(-3630, "the provider's is 1 h behind this machine's", id="behind"),
    ],
)
def test_online_the_providers_clock_is_compared(tmp_path: Path, off: int, clock: str) -> None:
    ok = issues()

    def script(seen: Seen) -> Answer:
        answer = ok(seen)
        answer.headers["Date"] = formatdate(time.time() + off, usegmt=True)
        return answer

    done, _ = tried(tmp_path, script)
    assert done.returncode == 0
    ((_, details),) = grants(done)
    assert details["clock"] == clock


def test_online_a_token_that_arrives_expired_is_a_failure_as_for_the_daemon(tmp_path: Path) -> None:
    late = issues(-5)

    def script(seen: Seen) -> Answer:
        return replace(late(seen), headers={"Date": formatdate(usegmt=True)})

    done, _ = tried(tmp_path, script)
    assert done.returncode == 1
    ((line, details),) = grants(done)
    assert line == "failed   grant dnb/bci: the new token had expired when it arrived"
    assert details["lifetime"] == "-5 s, from expires_in"
    assert details["hint"] == "the clocks agree, and the reply names a lifetime of -5 s: ask the provider"


@pytest.mark.parametrize(
    ("asked", "given", "shown", "warnings"),
    [
        pytest.param(
            "bci risk",
            "bci",
            ("bci risk", "bci"),
            ["grant dnb/bci: the token's scope lacks risk; ask the provider to grant it to this client"],
            id="narrower",
        ),
        pytest.param("bci", "bci more", ("bci", "bci more"), [], id="wider"),
        pytest.param("", None, ("none", "none named"), [], id="none-asked-none-named"),
        pytest.param("", "all", ("none", "all"), [], id="none-asked"),
        pytest.param("bci", None, ("bci", "none named"), [], id="none-named"),
        # It could move the terminal's cursor.
        pytest.param("bci", "bci \x1b[2J", ("bci", "(not shown: unusual characters)"), [], id="not-for-a-terminal"),
    ],
)
def test_online_shows_the_granted_next_to_the_requested_scope(
    tmp_path: Path, asked: str, given: str | None, shown: tuple[str, str], warnings: list[str]
) -> None:
    script = issues() if given is None else issues(scope=given)
    done, _ = tried(tmp_path, script, token=f"scope: {asked}" if asked else "")
    assert done.returncode == 0
    details = grants(done)[-1][1]  # after a warning, if there is one
    assert (details["scope requested"], details["scope granted"]) == shown
    assert findings(done, "warning") == warnings


@pytest.mark.parametrize(
    ("works", "code", "last"),
    [
        pytest.param("older", 0, "ok       grant dnb/bci: a token, good for 1 h", id="the-older-works"),
        pytest.param(None, 1, f"failed   grant dnb/bci: {REFUSED}", id="none-works"),
    ],
)
def test_online_each_of_a_list_of_secrets_is_tried(tmp_path: Path, works: str | None, code: int, last: str) -> None:
    ok = issues()

    def script(seen: Seen) -> Answer:
        secret = dict(parse_qsl(seen.body.decode()))["client_secret"]
        return ok(seen) if secret == works else refuses(seen)

    site = Site(tmp_path, "")
    secrets = [site.refer(name, name) for name in ("newer", "older")]
    done, server = tried(tmp_path, script, {"auth": "client_secret_post", "client_secret": f"[{', '.join(secrets)}]"})
    assert done.returncode == code
    found = dict(grants(done))
    assert found[f"warning  grant dnb/bci: {REFUSED}"]["hint"] == "the client has another secret, which is tried next"
    assert last in found
    assert len(found) == len(server.seen) == 2


def echoes(seen: Seen) -> Answer:
    """A refusal by a provider that quotes the request."""
    said = f"{seen.body.decode()} {json.dumps(seen.headers)}"
    return Answer(400, {"error": "invalid_grant", "error_description": said, "message": said})


@pytest.mark.parametrize(
    ("keys", "script"),
    [
        pytest.param({}, issues(scope="bci", access_token=TOKEN), id="token"),
        pytest.param({}, echoes, id="client_secret_basic"),
        pytest.param({"auth": "client_secret_post"}, echoes, id="client_secret_post"),
        pytest.param({"auth": "client_secret_jwt"}, echoes, id="client_secret_jwt"),
        pytest.param(BY_KEY, echoes, id="private_key_jwt"),
        pytest.param(BY_ASSERTION, echoes, id="assertion"),
    ],
)
def test_online_nothing_that_is_secret_is_shown(
    tmp_path: Path, pairs: tuple[Pair, Pair], keys: Keys, script: Script
) -> None:
    site = Site(tmp_path, "")
    held: Keys = {"parameters": f"{{password: {site.refer('password', 'hunter2-password')}}}"}
    if keys is BY_KEY:
        held["private_key"] = site.refer("key", pairs[0].key)
    if keys is BY_ASSERTION:
        held["assertion"] = site.refer("assertion", "e30.e30.c2ln")
    done, server = tried(tmp_path, script, keys | held)

    (seen,) = server.seen
    form = dict(parse_qsl(seen.body.decode()))
    assert form["password"] == "hunter2-password"
    sent = [form[name] for name in ("client_secret", "client_assertion") if name in form]
    sent += [base64.b64decode(seen.headers["authorization"].split()[1]).decode()] if not sent else []
    assert urlsplit(seen.path).query == "code=hunter2"
    shown = done.stdout + done.stderr
    assert " grant dnb/bci: " in shown
    for secret in [*sent, *seen.headers.get("authorization", "").split()[1:], TOKEN, SECRET, "hunter2", "e30"]:
        assert secret not in shown


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_name_that_the_terminal_cannot_show_is_escaped(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / os.fsdecode(b"\xc3\xa9\xff.yaml")
    client = "{token_url: https://x/, client_id: a, client_secret: {file: /\u00e9}, tokens: {t: {}}}"
    path.write_text(f"output: {{directory: {tmp_path}/t}}\nclients: {{d: {client}}}\n", encoding="utf-8")
    done = bearerd("check", "-c", path, env={"PYTHONIOENCODING": f"{encoding}:strict"})
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "ok       config " in done.stdout
    assert "failed   client d: file /" in done.stdout
