from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bearerd.errors import SecretUnavailable
from bearerd.grant.credentials import read_client_id, read_credentials, read_parameters
from bearerd.grant.request import Credentials
from bearerd.model import Client
from bearerd.terms import Reference
from support.targets import CLIENT, target

SECRET = "hunter2"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


# -- a client ----------------------------------------------------------------------------------------


def variable(name: str) -> Reference:
    return Reference("env", name)


def test_a_client_id_is_a_text_or_a_reference() -> None:
    environ = {"DNB_SECRET": SECRET, "DNB_ID": "id-1"}
    assert read_credentials(CLIENT, environ) == (Credentials("7e0c5a", SECRET),)
    elsewhere = replace(CLIENT, client_id=variable("DNB_ID"))
    assert read_credentials(elsewhere, environ) == (Credentials("id-1", SECRET),)
    assert read_client_id(elsewhere, environ) == "id-1"


def test_a_client_id_that_cannot_be_read_is_an_error() -> None:
    elsewhere = replace(CLIENT, client_id=variable("DNB_ID"))
    with pytest.raises(SecretUnavailable, match="env DNB_ID: the variable is not set"):
        read_credentials(elsewhere, {"DNB_SECRET": SECRET})


BARE = replace(CLIENT, client_secret=())
ALL = {"SECRET": SECRET, "KEY": "a private key", "CERTIFICATE": "a certificate", "JWT": "ey.J.x"}


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        pytest.param(BARE, Credentials("7e0c5a"), id="nothing"),
        pytest.param(replace(BARE, private_key=variable("KEY")), Credentials("7e0c5a", "", "a private key"), id="key"),
        pytest.param(
            replace(BARE, private_key=variable("KEY"), certificate=variable("CERTIFICATE")),
            Credentials("7e0c5a", "", "a private key", "a certificate"),
            id="certificate",
        ),
        pytest.param(replace(BARE, assertion=variable("JWT")), Credentials("7e0c5a", "ey.J.x"), id="assertion"),
        pytest.param(replace(BARE, client_id="", assertion=variable("JWT")), Credentials("", "ey.J.x"), id="no-id"),
        pytest.param(
            replace(BARE, client_secret=(variable("SECRET"),), private_key=variable("KEY")),
            Credentials("7e0c5a", SECRET, "a private key"),
            id="secret-and-key",
        ),
    ],
)
def test_all_kinds_of_credentials_are_read(client: Client, expected: Credentials) -> None:
    assert read_credentials(client, ALL) == (expected,)


@pytest.mark.parametrize("missing", ["KEY", "CERTIFICATE", "JWT"])
def test_any_credential_that_cannot_be_read_is_an_error(missing: str) -> None:
    client = replace(BARE, private_key=variable("KEY"), certificate=variable("CERTIFICATE"), assertion=variable("JWT"))
    environ = {name: value for name, value in ALL.items() if name != missing}
    with pytest.raises(SecretUnavailable, match=f"^env {missing}: the variable is not set$"):
        read_credentials(client, environ)


def test_a_key_of_many_lines_is_read_whole(secret: Path) -> None:
    pem = "-----BEGIN PRIVATE KEY-----\nAAAA\nBBBB\n-----END PRIVATE KEY-----\n"
    secret.write_text(pem)
    [read_in] = read_credentials(replace(BARE, private_key=Reference("file", str(secret))), {})
    assert read_in.private_key == pem.removesuffix("\n")


THREE = replace(BARE, client_secret=(variable("NEW"), variable("OLD"), variable("OLDEST")))


@pytest.mark.parametrize(
    ("environ", "secrets"),
    [
        pytest.param({"NEW": "c", "OLD": "b", "OLDEST": "a"}, "cba", id="all"),
        pytest.param({"OLD": "b", "OLDEST": "a"}, "ba", id="the-newest-is-not-there-yet"),
        pytest.param({"NEW": "c", "OLD": "", "OLDEST": "a"}, "ca", id="one-is-empty"),
        pytest.param({"NEW": "c"}, "c", id="the-others-are-gone"),
    ],
)
def test_of_several_secrets_the_readable_ones_are_returned_newest_first(environ: dict[str, str], secrets: str) -> None:
    assert read_credentials(THREE, environ) == tuple(Credentials("7e0c5a", secret) for secret in secrets)


def test_if_no_secret_of_a_list_can_be_read_the_error_names_the_first() -> None:
    with pytest.raises(SecretUnavailable, match=r"^env NEW: the variable is not set$"):
        read_credentials(THREE, {"OLD": ""})


def test_secrets_of_a_list_that_cannot_be_read_are_named() -> None:
    [found] = read_credentials(THREE, {"OLD": "b", "OLDEST": ""})
    assert found.unread == ("env NEW: the variable is not set", "env OLDEST: empty")


def test_each_secret_has_its_source() -> None:
    found = read_credentials(THREE, {"NEW": "c", "OLDEST": "a"})
    assert [one.source for one in found] == ["env NEW", "env OLDEST"]


def test_several_secrets_share_the_other_credentials() -> None:
    client = replace(THREE, private_key=variable("KEY"))
    assert read_credentials(client, {"NEW": "c", "OLD": "b", "KEY": "k"}) == (
        Credentials("7e0c5a", "c", "k"),
        Credentials("7e0c5a", "b", "k"),
    )


def test_the_repr_of_credentials_shows_no_secret() -> None:
    client = replace(CLIENT, private_key=variable("DNB_KEY"))
    shown = repr(read_credentials(client, {"DNB_SECRET": SECRET, "DNB_KEY": "pr1vate"}))
    assert shown == "(Credentials(client_id='7e0c5a', source='env DNB_SECRET'),)"


# -- headers -----------------------------------------------------------------------------------------


def test_headers_are_texts_or_references_and_no_repr_shows_them() -> None:
    client = replace(BARE, headers=(("X-Tenant", "acme"), ("X-Api-Key", variable("SECRET"))))
    (found,) = read_credentials(client, ALL)
    assert found.access.headers == (("X-Tenant", "acme"), ("X-Api-Key", SECRET))
    assert SECRET not in repr(found) + repr(found.access)
    assert "acme" not in repr(found) + repr(found.access)


@pytest.mark.parametrize("text", ["a\nX-Evil: b", "a\r", " a", "a ", "a\x01b", "hünter2", "a\x7f"])
def test_a_secret_that_cannot_be_a_header_is_an_error_that_does_not_show_it(text: str) -> None:
    client = replace(BARE, headers=(("X-Api-Key", variable("SECRET")),))
    with pytest.raises(SecretUnavailable) as raised:
        read_credentials(client, {"SECRET": text})
    assert str(raised.value) == (
        "env SECRET: not usable as header X-Api-Key: expected printable ASCII characters on one line, without spaces "
        "at its ends"
    )


# -- a target's parameters ---------------------------------------------------------------------------


def test_parameters_are_texts_or_references_and_keep_their_order(secret: Path) -> None:
    wanted = target(
        parameters=(
            ("resource", "b"),
            ("actor_token", Reference("file", str(secret))),
            ("resource", "a"),
            ("tenant", variable("TENANT")),
        )
    )
    assert read_parameters(wanted, {"TENANT": "acme"}) == (
        ("resource", "b"),
        ("actor_token", SECRET),
        ("resource", "a"),
        ("tenant", "acme"),
    )


def test_a_parameter_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    wanted = target(parameters=(("audience", "x"), ("subject_token", Reference("file", f"{tmp_path}/none"))))
    with pytest.raises(SecretUnavailable, match=f"^file {tmp_path}/none: no such file or directory$"):
        read_parameters(wanted, {})
