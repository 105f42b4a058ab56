"""Valid configs: what the loader makes of the settings of outputs, tokens and clients."""

from __future__ import annotations

from typing import Any

import pytest

from bearerd.model import (
    Client,
    Config,
    Control,
    Jwt,
    Logging,
    Output,
    Provider,
    RefreshBefore,
    Target,
)
from bearerd.terms import RateLimit, Reference
from support.config_text import SMALLEST, Folder, config


def test_the_smallest_config_is_all_that_is_needed(folder: Folder) -> None:
    assert folder.load(SMALLEST) == Config(
        directory="/run/bearerd",
        state_directory="/run/bearerd/.bearerd",
        control=Control("/run/bearerd/.bearerd/control.sock", mode=0o660),
        listen=None,
        directory_mode=0o750,
        group=None,
        targets=(
            Target(
                client=Client(
                    name="dnb",
                    provider=Provider(
                        name="login.bisnode.com",
                        token_url="https://login.bisnode.com/sandbox/v1/token.oauth2",
                        issuer=None,
                        allow_http=False,
                        ca_file=None,
                        proxy=None,
                        timeout=10.0,
                        max_concurrency=8,
                    ),
                    client_id="7e0c5a",
                    client_secret=(Reference("file", "/etc/bearerd/dnb.secret", permissions="owner"),),
                    auth="client_secret_basic",
                    basic_encoding="compatible",
                    private_key=None,
                    certificate=None,
                    assertion=None,
                    assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                    jwt=Jwt(key_id=None, algorithm=None, audience=None),
                    grant_type="client_credentials",
                    jwt_bearer=None,
                    scope_separator=" ",
                    rate_limits=(),
                ),
                name="bci",
                scope="bci",
                parameters=(),
                strict_scope=False,
                refresh_before=RefreshBefore(share=0.2),
                default_lifetime=3600.0,
                on_expiry="keep",
                outputs=(Output("/run/bearerd/dnb/bci", "raw", mode=0o640, variable="DNB_BCI_TOKEN"),),
                required=True,
                on_change=(),
                on_failure=(),
            ),
        ),
        log=Logging(level="info", format="text"),
        sources=(str(folder.path / "config.yaml"),),
    )


def test_output_and_log_settings_are_read(folder: Folder) -> None:
    found = folder.load(
        "output: {directory: /srv/tokens/, directory_mode: '2750', mode: '0600', owner: 0, group: www-data,"
        " on_expiry: remove}\n"
        "log: {level: debug, format: json}\n" + SMALLEST
    )
    assert (found.directory, found.directory_mode, found.group) == ("/srv/tokens", 0o2750, "www-data")
    assert found.log == Logging(level="debug", format="json")
    assert found.targets[0].on_expiry == "remove"
    assert found.targets[0].outputs == (
        Output("/srv/tokens/dnb/bci", mode=0o600, owner="0", group="www-data", variable="DNB_BCI_TOKEN"),
    )


def test_each_format_has_its_default_path_and_its_own_settings(folder: Folder) -> None:
    files = (
        "files: [{format: raw, newline: true}, {format: json, mode: '600', owner: root, group: 7}, {format: header},"
        " {format: env}, {format: env, name: T, path: a/./b}, {format: raw, path: /x/y, max_staleness: 1m}]"
    )
    name = "DNB_BCI_TOKEN"
    assert folder.target(config(token=files)).outputs == (
        Output("/run/bearerd/dnb/bci", "raw", newline=True, variable=name),
        Output("/run/bearerd/dnb/bci.json", "json", mode=0o600, owner="root", group="7", variable=name),
        Output("/run/bearerd/dnb/bci.header", "header", variable=name),
        Output("/run/bearerd/dnb/bci.env", "env", variable=name),
        Output("/run/bearerd/a/b", "env", variable="T"),
        Output("/x/y", "raw", max_staleness=60.0, variable=name),
    )


@pytest.mark.parametrize(
    ("secret", "reference"),
    [
        ("{file: /s, permissions: group}", Reference("file", "/s", permissions="group")),
        ("{file: /s, permissions: any}", Reference("file", "/s", permissions="any")),
        ("{env: DNB_SECRET}", Reference("env", "DNB_SECRET")),
        ("{credential: dnb.secret}", Reference("credential", "dnb.secret")),
        ("{command: [/bin/pass, show, dnb]}", Reference("command", "/bin/pass", argv=("/bin/pass", "show", "dnb"))),
    ],
)
def test_a_secret_is_a_reference_of_one_kind(folder: Folder, secret: str, reference: Reference) -> None:
    client = folder.target(config().replace("{file: /s}", secret)).client
    assert client.client_secret == (reference,)
    # The id may be a reference with the same keys.
    assert folder.target(config().replace("7e0c5a", secret)).client.client_id == reference


@pytest.mark.parametrize(
    ("key", "nearest", "middle", "farthest"),
    [
        pytest.param(
            "files",
            ("[{format: json}]", ["json"]),
            ("[{format: env}]", ["env"]),
            ("[{format: header}, {format: raw}]", ["header", "raw"]),
            id="files",
        ),
        pytest.param(
            "refresh_before",
            ("30s", RefreshBefore(seconds=30)),
            ("10%", RefreshBefore(share=0.1)),
            ("5m", RefreshBefore(seconds=300)),
            id="refresh_before",
        ),
        pytest.param("default_lifetime", ("1m", 60), ("2m", 120), ("3m", 180), id="default_lifetime"),
        pytest.param("strict_scope", ("false", False), ("true", True), ("false", False), id="strict_scope"),
    ],
)
def test_the_nearest_level_of_an_inherited_key_wins(
    folder: Folder, key: str, nearest: tuple[str, Any], middle: tuple[str, Any], farthest: tuple[str, Any]
) -> None:
    def found(**where: str) -> Any:
        target = folder.target(config(**where))
        return [file.format for file in target.outputs] if key == "files" else getattr(target, key)

    levels = {
        "token": f"{key}: {nearest[0]}",
        "client": f"{key}: {middle[0]}",
        "top": f"{key}: {farthest[0]}",
    }
    assert found(**levels) == nearest[1]
    assert found(client=levels["client"], top=levels["top"]) == middle[1]
    assert found(top=levels["top"]) == farthest[1]
    assert found(token=levels["token"], top=levels["top"]) == nearest[1]


def test_parameters_of_client_and_token_are_merged_and_the_token_wins(folder: Folder) -> None:
    target = folder.target(
        config(client="parameters: {audience: a, resource: [r1, r2]}", token="parameters: {audience: b, x: ''}")
    )
    assert target.parameters == (("audience", "b"), ("resource", "r1"), ("resource", "r2"), ("x", ""))


@pytest.mark.parametrize(
    ("scope", "text"),
    [
        ("bci", "bci"),
        ("bci companies", "bci companies"),
        ("[bci, companies]", "bci companies"),
        ("[a b, c]", "a b c"),
        ("https://graph.example.com/.default", "https://graph.example.com/.default"),
        ("[]", ""),
    ],
)
def test_a_scope_is_a_string_or_a_list(folder: Folder, scope: str, text: str) -> None:
    assert folder.target(SMALLEST.replace("{scope: bci}", f"{{scope: {scope}}}")).scope == text


def test_a_token_needs_no_scope(folder: Folder) -> None:
    assert folder.target(config()).scope == ""


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [("1ms", 0.001), ("500ms", 0.5), ("10s", 10), ("15m", 900), ("1h", 3600), ("2d", 172800), ("1.5h", 5400),
     ("3650d", 315360000)],
)  # fmt: skip
def test_a_duration_is_a_number_with_its_unit(folder: Folder, duration: str, seconds: float) -> None:
    assert folder.target(config(token=f"default_lifetime: {duration}")).default_lifetime == seconds


@pytest.mark.parametrize(
    ("given_lead", "lead"),
    [
        ("0.1%", RefreshBefore(share=0.001)),
        ("20%", RefreshBefore(share=0.2)),
        ("50%", RefreshBefore(share=0.5)),
        ("60s", RefreshBefore(seconds=60)),
        ("15m", RefreshBefore(seconds=900)),
    ],
)
def test_a_lead_is_a_share_or_a_duration(folder: Folder, given_lead: str, lead: RefreshBefore) -> None:
    assert folder.target(config(token=f"refresh_before: {given_lead}")).refresh_before == lead


@pytest.mark.parametrize(
    ("rate", "limit"),
    [("10/s", RateLimit(10, 1)), ("10/8h", RateLimit(10, 28800)), ("1/500ms", RateLimit(1, 0.5)),
     ("999999999/d", RateLimit(999999999, 86400))],
)  # fmt: skip
def test_a_rate_limit_is_a_number_of_requests_per_time(folder: Folder, rate: str, limit: RateLimit) -> None:
    assert folder.target(config(client=f"rate_limit: {rate}")).client.rate_limits == (("client-dnb", limit),)


def test_a_client_counts_against_its_providers_limit_and_its_own(folder: Folder) -> None:
    top = "providers: {p: {token_url: https://h/t, rate_limit: 10/s}}"
    both = folder.target(config(top=top, url=None, client="provider: p\n    rate_limit: 5/m"))
    assert both.client.rate_limits == (("provider-p", RateLimit(10, 1)), ("client-dnb", RateLimit(5, 60)))
    assert folder.target(config(top=top, url=None, client="provider: p")).client.rate_limits == (
        ("provider-p", RateLimit(10, 1)),
    )


@pytest.mark.parametrize(
    ("mode", "bits"), [("'0640'", 0o640), ("'640'", 0o640), ("'0000'", 0), ("'0777'", 0o777), ('"0604"', 0o604)]
)
def test_a_mode_is_octal_in_quotes(folder: Folder, mode: str, bits: int) -> None:
    assert folder.target(config(top=f"output: {{mode: {mode}}}")).outputs[0].mode == bits
