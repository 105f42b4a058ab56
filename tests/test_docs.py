"""The configs in the documentation load, its links lead somewhere, and the output that it shows is real."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bearerd.cli.paper import Paper
from bearerd.cli.picture import picture
from bearerd.config.load import load
from support.pages import Block, blocks, headings
from support.process import bearerd

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PROVIDERS = ROOT / "docs" / "providers.md"
SECRETS = ROOT / "docs" / "secrets.md"
FLEET = ROOT / "docs" / "fleet.md"
REQUIRED = [
    "D&B",
    "Keycloak",
    "Auth0",
    "Okta",
    "Microsoft Entra ID",
    "Amazon Cognito",
    "PingOne",
    "PingFederate",
    "Ory Hydra",
    "Salesforce",
    "Zoom",
    "Google service account",
    "PayPal",
    "Maskinporten",
    "D&B Direct+ (v3)",
    "D&B Direct+ (v2)",
    "PDND",
    "Doorkeeper",
    "LemonLDAP::NG",
    "Keystone",
    "Identity-Aware Proxy",
    "Pix",
    "United Kingdom",
    "Australia",
    "NetSuite",
    "Marketo",
    "Sabre",
    "ServiceNow",
    "Twitch",
    "Camunda",
    "Azure API Management",
]


def configs(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "yaml"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(block.text, id=f"{page.stem}: {block.heading}")
        for page in (README, PROVIDERS, SECRETS, FLEET, ROOT / "docs" / "compare.md")
        for block in configs(page)
    ],
)
def test_a_config_that_people_copy_loads(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    assert load(str(file), {}).targets


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges create them."""
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings(page)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if not path.startswith(("http:", "https:")):
            to = (page.parent / path).resolve() if path else page
            assert to.exists(), link
            assert not anchor or anchor in anchors(to), link


@pytest.mark.parametrize("provider", REQUIRED)
def test_the_page_names_a_provider(provider: str) -> None:
    assert any(provider in heading for heading in headings(PROVIDERS))


def test_each_config_of_the_page_is_complete_and_has_a_heading_of_its_own() -> None:
    found = configs(PROVIDERS)
    assert len(found) >= len(REQUIRED)
    assert all(block.text.startswith(("clients:\n", "providers:\n")) for block in found)
    assert len({block.heading for block in found}) == len(found)


def test_no_config_of_the_pages_contains_a_secret() -> None:
    for block in (*configs(PROVIDERS), *configs(SECRETS), *configs(FLEET)):
        for key in ("client_secret", "private_key", "assertion", "subject_token", "password", "key"):
            assert not re.search(rf"^ *{key}: (?!\{{|\n)", block.text, re.MULTILINE), block.heading


def shown(page: Path, command: str) -> str:
    """The output of a command that a page shows."""
    first = f"$ {command}\n"
    (text,) = (block.text for block in blocks(page) if block.text.startswith(first))
    return text.removeprefix(first)


@pytest.fixture
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_in_utc")
def test_the_readme_shows_the_status_as_the_command_draws_it() -> None:
    """readme_status.json is what `bearerd status --json` printed at that moment, from a daemon with a real provider."""
    document = json.loads(Path(__file__).with_name("readme_status.json").read_text(encoding="utf-8"))
    drawn = "".join(f"{line.plain}\n" for line in picture(document, Paper(80)))
    assert shown(README, "bearerd status") == drawn


MISTAKES = """clients:
  dnb:
    token_url: https://login.bisnode.com/sandbox/v1/token.oauth2
    client_id: 7e0c5a
    client_secrt: {file: /etc/bearerd/dnb.secret}
    tokens:
      bci: {scope: bci, refresh_before: 90s%}
output: {mode: 0640}
"""


def test_a_page_shows_the_errors_as_check_prints_them(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(MISTAKES, encoding="utf-8")
    done = bearerd("check", "-c", file)
    expected = shown(ROOT / "docs" / "commands.md", "bearerd check -c config.yaml")
    assert (done.stderr + done.stdout).replace(f"{file}", "config.yaml") == expected
