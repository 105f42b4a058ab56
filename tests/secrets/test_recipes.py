"""The commands in docs/secrets.md print a secret in the environment that bearerd gives them: with real programs."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, pkcs12
from cryptography.x509 import load_pem_x509_certificate

from bearerd.config.load import load
from bearerd.grant.assertion import Signer, sign
from bearerd.model import Client
from bearerd.secrets.kinds import source_of
from bearerd.terms import Reference
from support.oidc import pem, self_signed
from support.pages import Block, blocks
from support.server import Answer, serving

PAGE = Path(__file__).parents[2] / "docs" / "secrets.md"
BLOCKS = list(blocks(PAGE))
ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/"}
"""Of the daemon. No recipe needs a home directory."""
SECRET = "q+7/Zz0= a'b"
PASSPHRASE = "correct horse"


class Site:
    """The directories of the page, below a temporary one."""

    def __init__(self, path: Path) -> None:
        self.path, self.etc, self.lib = path, path / "etc", path / "lib"
        for directory in (self.etc, self.lib):
            directory.mkdir(0o700)

    def here(self, text: str) -> str:
        """A text of the page, with these directories."""
        return text.replace("/etc/bearerd", str(self.etc)).replace("/var/lib/bearerd", str(self.lib))

    def client(self, heading: str, moved: Mapping[str, str] | None = None) -> Client:
        """The client of the config below a heading; `moved` replaces further parts of the config."""
        (text,) = (block.text for block in BLOCKS if (block.heading, block.language) == (heading, "yaml"))
        text = self.here(text)
        for old, new in (moved or {}).items():
            assert old in text
            text = text.replace(old, new)
        config = self.path / "config.yaml"
        config.write_text(text, encoding="utf-8")
        (target,) = load(str(config), {}).targets
        return target.client

    def secret(self, heading: str, moved: Mapping[str, str] | None = None, **environ: str) -> str:
        """The client secret that its reference reads."""
        (reference,) = self.client(heading, moved).client_secret
        return read(reference, environ)

    def run(self, *argv: str | Path, given: str = "", **environ: str) -> str:
        """Run a program as the person who sets this up."""
        return subprocess.run(
            argv, env=ENVIRON | environ, input=given, capture_output=True, text=True, check=True
        ).stdout

    def shell(self, heading: str, **environ: str) -> str:
        """Run the shell commands below a heading."""
        (text,) = (block.text for block in BLOCKS if (block.heading, block.language) == (heading, "sh"))
        return self.run("/bin/sh", "-euc", self.here(text), given=SECRET, **environ)


def read(reference: Reference | None, environ: Mapping[str, str] | None = None) -> str:
    assert reference is not None
    return source_of(reference, ENVIRON | dict(environ or {})).read()


@pytest.fixture
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as name:  # short: gpg-agent makes a socket below it
        yield Site(Path(name))


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the key of the machine is root's")


# -- programs of Debian --------------------------------------------------------------------------------


@needs("openssl")
def test_openssl_decrypts_a_private_key(site: Site) -> None:
    key = generate_private_key(SECP256R1())
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE.encode()))
    (site.etc / "acme.key").write_bytes(encrypted)
    (site.etc / "acme.pass").write_text(PASSPHRASE)
    text = read(site.client("OpenSSL: an encrypted private key").private_key)
    assert text + "\n" == pem(key)


@needs("openssl")
def test_openssl_takes_key_and_certificate_out_of_pkcs12(site: Site) -> None:
    key = generate_private_key(SECP256R1())
    certificate = self_signed(key)
    whole = pkcs12.serialize_key_and_certificates(
        b"acme",
        key,
        load_pem_x509_certificate(certificate.encode()),
        None,
        BestAvailableEncryption(PASSPHRASE.encode()),
    )
    (site.etc / "acme.p12").write_bytes(whole)
    (site.etc / "acme.pass").write_text(PASSPHRASE)
    client = site.client("OpenSSL: PKCS#12")
    texts = {"key": read(client.tls_private_key), "certificate": read(client.tls_certificate)}
    # Both have lines about the bag before the PEM: they are used as they are.
    assert all("Bag Attributes" in text for text in texts.values())
    sign({"iss": "acme"}, Signer(private_key=texts["key"], certificate=texts["certificate"]))
    for name, text in texts.items():
        (site.path / name).write_text(text)
    ssl.create_default_context().load_cert_chain(site.path / "certificate", site.path / "key")


@needs("openssl")
def test_openssl_decrypts_a_file(site: Site) -> None:
    (site.etc / "acme.pass").write_text(PASSPHRASE)
    site.shell("OpenSSL: an encrypted file", SECRET=SECRET)
    assert SECRET.encode() not in (site.etc / "acme.enc").read_bytes()
    assert site.secret("OpenSSL: an encrypted file") == SECRET


@needs("age", "age-keygen")
def test_age_decrypts_a_file(site: Site) -> None:
    site.run("age-keygen", "-o", site.etc / "age.key")
    recipient = site.run("age-keygen", "-y", site.etc / "age.key").strip()
    site.run("age", "-r", recipient, "-o", site.etc / "acme.age", given=SECRET)
    assert site.secret("age") == SECRET


@needs("pass", "gpg", "gpgconf")
def test_pass_shows_the_first_line_of_an_entry(site: Site) -> None:
    there = {"GNUPGHOME": str(site.lib / "gnupg"), "PASSWORD_STORE_DIR": str(site.lib / "store")}
    (site.lib / "gnupg").mkdir(0o700)
    try:
        site.run(*("gpg", "--batch", "--passphrase", "", "--quick-generate-key", "bearerd", "future-default"), **there)
        site.run("pass", "init", "bearerd", **there)
        site.run("pass", "insert", "--multiline", "acme/reports", given=f"{SECRET}\nuser: reports\n", **there)
        # As after a boot: no agent runs yet.
        site.run("gpgconf", "--kill", "all", **there)
        assert site.secret("pass") == SECRET
        assert site.secret("pass") == SECRET
    finally:
        site.run("gpgconf", "--kill", "all", **there)


@ROOT
@needs("systemd-creds")
def test_systemd_creds_encrypts_a_credential(site: Site) -> None:
    site.shell("systemd-creds")
    assert SECRET.encode() not in (site.etc / "acme.cred").read_bytes()
    # As systemd does for LoadCredentialEncrypted=.
    credentials = site.path / "credentials"
    credentials.mkdir(0o700)
    site.run("systemd-creds", "decrypt", "--name=acme", site.etc / "acme.cred", credentials / "acme")
    assert site.secret("systemd-creds", CREDENTIALS_DIRECTORY=str(credentials)) == SECRET


@needs("keyctl")
def test_keyctl_reads_the_kernels_keyring(site: Site) -> None:
    try:
        site.run("keyctl", "padd", "user", "bearerd:acme", "@u", given=SECRET)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no keyring is to be had here: {error.stderr.strip()}")
    try:
        assert site.secret("keyctl") == SECRET
    finally:
        site.run("keyctl", "purge", "user", "bearerd:acme")


@needs("aws")
@pytest.mark.parametrize(
    ("heading", "operation", "answer"),
    [
        ("AWS Secrets Manager", "secretsmanager.GetSecretValue", {"SecretString": SECRET}),
        ("AWS Parameter Store", "AmazonSSM.GetParameter", {"Parameter": {"Value": SECRET}}),
    ],
)
def test_aws_prints_a_secret(site: Site, heading: str, operation: str, answer: dict[str, Any]) -> None:
    (site.etc / "aws").mkdir()
    (site.etc / "aws/config").write_text("[default]\nregion = eu-north-1\n")
    (site.etc / "aws/credentials").write_text("[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = x\n")
    with serving(lambda _: Answer(200, answer)) as server:
        endpoint = {"- /usr/bin/aws\n": f"- /usr/bin/aws\n        - --endpoint-url={server.url}\n"}
        assert site.secret(heading, endpoint) == SECRET
        assert [seen.headers["x-amz-target"] for seen in server.seen] == [operation]
        assert b"bearerd/acme" in server.seen[0].body


# -- programs that are not in Debian -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "program", "words", "variables"),
    [
        (
            "HashiCorp Vault and OpenBao, with a command",
            "vault",
            ["kv", "get", "-mount=secret", "-field=client_secret", "acme"],
            {"HOME": "{lib}", "VAULT_ADDR": "https://vault.example.com:8200"},
        ),
        (
            "Google Secret Manager",
            "gcloud",
            ["secrets", "versions", "access", "latest", "--secret=acme-client-secret", "--project=acme-prod"],
            {"CLOUDSDK_CONFIG": "{lib}/gcloud"},
        ),
        (
            "Azure Key Vault",
            "az",
            [
                "keyvault",
                "secret",
                "show",
                "--vault-name=acme-prod",
                "--name=client-secret",
                "--query=value",
                "--output=tsv",
            ],
            {"AZURE_CONFIG_DIR": "{lib}/azure"},
        ),
        (
            "1Password",
            "op",
            ["read", "--no-newline", "op://Servers/acme/client_secret"],
            {"HOME": "{lib}", "OP_SERVICE_ACCOUNT_TOKEN": "ops_example"},
        ),
        (
            "SOPS",
            "sops",
            ["--decrypt", "--extract", '["acme"]["client_secret"]', "{etc}/secrets.yaml"],
            {"SOPS_AGE_KEY_FILE": "{etc}/age.key"},
        ),
    ],
)
def test_a_program_gets_the_words_and_variables_of_the_page(
    site: Site, heading: str, program: str, words: Sequence[str], variables: Mapping[str, str]
) -> None:
    (site.etc / "op.token").write_text("ops_example\n")
    stub = site.path / program
    stub.write_text(
        f"#!/bin/sh\ntr '\\0' '\\n' < /proc/$$/environ > {site.path}/environ\n"
        f'for word in "$@"; do printf "%s\\n" "$word"; done > {site.path}/words\nprintf "%s" "{SECRET}"\n'
    )
    stub.chmod(0o755)
    assert site.secret(heading, {f"/usr/bin/{program}": str(stub)}) == SECRET

    def here(text: str) -> str:
        return text.format(etc=site.etc, lib=site.lib)

    assert (site.path / "words").read_text().splitlines() == [here(word) for word in words]
    seen = dict(line.partition("=")[::2] for line in (site.path / "environ").read_text().splitlines())
    seen.pop("PWD", None)  # the shell's own
    assert seen == ENVIRON | {name: here(value) for name, value in variables.items()}


@pytest.mark.parametrize("text", [block.text for block in BLOCKS if block.language == "sh"])
def test_the_shell_can_parse_the_commands_of_the_page(text: str) -> None:
    subprocess.run(["/bin/sh", "-n", "-c", text], check=True)


def test_each_recipe_of_the_page_is_tested() -> None:
    def commands(block: Block) -> bool:
        return block.language == "yaml" and "command:" in block.text

    source = Path(__file__).read_text(encoding="utf-8")
    assert [block.heading for block in BLOCKS if commands(block) and f'"{block.heading}"' not in source] == []
