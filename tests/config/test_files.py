"""The files of a config: unreadable, too large, included."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from bearerd.config.document import MOST_PROBLEMS
from bearerd.config.files import MOST_BYTES, matches
from bearerd.config.load import load
from bearerd.config.realign import Realigned, realign
from bearerd.config.source import MOST_NODES
from bearerd.errors import ConfigError, ConfigUnavailable
from bearerd.model import RefreshBefore
from support.config_text import OTHER, SMALLEST, Folder, config


def test_a_config_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: no such file or directory"):
        load(str(tmp_path / "none.yaml"), {})


def test_a_directory_is_not_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: it is a directory, not a regular file"):
        load(str(tmp_path), {})


def test_a_byte_order_mark_is_ignored(folder: Folder) -> None:
    (folder.path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + SMALLEST.encode())
    assert load(str(folder.path / "bom.yaml"), {}).targets == folder.load(SMALLEST).targets
    # It does not count as a column.
    (folder.path / "bom.yaml").write_bytes(b"\xef\xbb\xbflog: no")
    with pytest.raises(ConfigError) as raised:
        load(str(folder.path / "bom.yaml"), {})
    assert re.search(r"bom\.yaml:1:6: YAML reads 'no' .*\n +1 \| log: no\n", raised.value.full)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"# one\n# two\nclients: \xff", id="a stray byte"),
        pytest.param("# one\n# two\nclients: ä".encode("latin-1"), id="Latin-1"),
    ],
)
def test_a_file_that_is_not_utf_8_is_an_error_in_the_line_of_the_first_wrong_byte(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"c\.yaml:3:1: not UTF-8 text"):
        load(str(file), {})


def test_files_over_16_mib_together_are_an_error(folder: Folder) -> None:
    with (folder.path / "large.yaml").open("wb") as stream:
        stream.truncate(MOST_BYTES - 100)
    assert folder.headlines("include: [large.yaml, small.yaml]\n" + SMALLEST, small="# no clients here") == [
        "large.yaml:1:1: with this file the config is larger than 16 MiB",
        "small.yaml:1:1: with this file the config is larger than 16 MiB",
    ]


def test_too_many_keys_and_values_are_an_error(folder: Folder) -> None:
    [headline] = folder.headlines("clients: [" + "a," * MOST_NODES + "]")
    assert headline.endswith("more than 1,000,000 keys and values")


def test_errors_beyond_the_limit_are_counted(folder: Folder) -> None:
    headlines = folder.headlines("clients:\n" + "".join(f"  c{number}: {{x: 1}}\n" for number in range(MOST_PROBLEMS)))
    assert len(headlines) == MOST_PROBLEMS + 1
    assert any(re.search(r"and \d+ more errors; is this the right file\?", line) for line in headlines)


def test_a_mistake_after_more_errors_than_the_limit_is_the_only_error(folder: Folder) -> None:
    assert folder.headlines("yes: 06\n" * MOST_PROBLEMS + "clients\n") == [
        f"config.yaml:{MOST_PROBLEMS + 1}:1: a colon is missing after this key"
    ]


def test_an_included_file_may_consist_of_comments_but_not_be_empty(folder: Folder) -> None:
    """One that a program has just begun to write is empty: its tokens are not removed."""
    main = "include: [part.yaml]\n" + SMALLEST
    (folder.path / "part.yaml").write_text("# no clients here\n")
    assert folder.load(main).targets
    for empty in ("", " \n"):
        [headline] = folder.headlines(main, part=empty)
        assert headline == "part.yaml:1:1: the file is empty; remove it, or leave a comment in it"


@pytest.mark.parametrize("included", [False, True], ids=["as the config", "included"])
def test_a_fifo_is_an_error_and_does_not_block(folder: Folder, included: bool) -> None:
    os.mkfifo(folder.path / "fifo")
    (folder.path / "main.yaml").write_text("include: [fif*]\n" + SMALLEST)
    with pytest.raises(ConfigError, match=r"fifo: cannot be read: it is a FIFO, not a regular file"):
        load(str(folder.path / ("main.yaml" if included else "fifo")), {})


def test_included_files_add_providers_and_clients(folder: Folder) -> None:
    (folder.path / "conf.d").mkdir()
    (folder.path / "conf.d" / "10.yaml").write_text(OTHER)
    (folder.path / "conf.d" / "20.yaml").write_text("providers: {p: {token_url: https://h/t}}\n")
    (folder.path / "conf.d" / "30.yml").write_text("not looked at: [")
    found = folder.load(config(top="include: [conf.d/*.yaml]\nrefresh_before: 5m", url=None, client="provider: p"))
    assert {target.full_name: target.client.provider.token_url for target in found.targets} == {
        "dnb/bci": "https://h/t",
        "other/bci": "https://login.bisnode.com/sandbox/v1/token.oauth2",
    }
    # Clients in included files inherit from the top of the main file too.
    assert {target.refresh_before for target in found.targets} == {RefreshBefore(seconds=300)}
    assert found.sources == tuple(
        str(folder.path / name) for name in ("config.yaml", "conf.d/10.yaml", "conf.d/20.yaml")
    )


def test_included_files_are_relative_to_the_config_and_not_to_the_working_directory(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.path)
    (folder.path / "sub").mkdir()
    (folder.path / "sub" / "other.yaml").write_text(OTHER)
    (folder.path / "sub" / "c.yaml").write_text(config(top="include: [other.yaml]"))
    assert len(load("sub/c.yaml", {}).targets) == 2


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("../conf.d/*.yaml", "etc/../conf.d/x.yaml"),
        ("sub/../../conf.d/*.yaml", "etc/../conf.d/x.yaml"),
        ("../../conf.d/*.yaml", "etc/../../conf.d/y.yaml"),
        ("../conf.d/../conf.d/./*.yaml", "etc/../conf.d/x.yaml"),
    ],
)
def test_dots_after_a_linked_directory_lead_up_from_where_the_link_leads(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, pattern: str, found: str
) -> None:
    for name in ("real/etc/sub", "real/conf.d", "conf.d"):
        (folder.path / name).mkdir(parents=True)
    (folder.path / "real/conf.d/x.yaml").write_text(OTHER)
    (folder.path / "conf.d/y.yaml").write_text(OTHER)
    (folder.path / "etc").symlink_to("real/etc")
    (folder.path / "etc/c.yaml").write_text(config(top=f"include: ['{pattern}']"))
    monkeypatch.chdir(folder.path)
    for main in ("etc/c.yaml", str(folder.path / "etc/c.yaml")):
        loaded = load(main, {})
        assert loaded.sources == (main, f"{folder.path}/{found}")
        assert loaded.source_directories == (str((folder.path / found).parent),)
        assert len(loaded.targets) == 2


def test_a_pattern_may_match_nothing(folder: Folder) -> None:
    assert folder.load(config(top="include: [conf.d/*.yaml]")).targets


def test_a_pattern_matches_as_in_a_shell(folder: Folder) -> None:
    for name in ("b.d/x.yaml", "a.d/y.yaml", "a.d/.hidden.yaml", "a.d/z.yml", "c.d/more/x.yaml", "d.d"):
        path = folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    for pattern in ("*.d/*.yaml", "?.d/[xy].yaml", "*.d/*.yaml/", "./*.d/../*.d/*.yaml"):
        found = matches(str(folder.path / "config.yaml"), pattern)
        assert [path.removeprefix(f"{folder.path}/") for path in found] == ["a.d/y.yaml", "b.d/x.yaml"]
    assert matches(str(folder.path / "config.yaml"), "a.d/.*") == [str(folder.path / "a.d" / ".hidden.yaml")]
    assert matches(str(folder.path / "config.yaml"), "*.d/more/*") == [str(folder.path / "c.d" / "more" / "x.yaml")]


@pytest.mark.parametrize(
    ("points_to", "why"), [("conf.d", "too many levels of symbolic links"), ("gone", "no such file or directory")]
)
def test_a_directory_that_cannot_be_read_is_an_error_and_not_empty(folder: Folder, points_to: str, why: str) -> None:
    (folder.path / "conf.d").symlink_to(points_to)
    assert folder.headlines(config(top="include: [conf.d/*.yaml]")) == [
        f"config.yaml:1:11: directory conf.d cannot be read: {why}"
    ]


@pytest.mark.parametrize("name", ["a\\0.yaml", "*\\0", "a\\0/*.yaml"])
def test_a_name_that_no_file_can_have_is_an_error(folder: Folder, name: str) -> None:
    assert folder.headlines(config(top=f'include: ["b*", "{name}"]')) == [
        "config.yaml:1:17: expected text without NUL characters"
    ]


def test_a_file_that_appears_while_the_config_is_read_leaves_an_error(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its lines were read without it, and an error that names nothing would be worse than one that is outdated.
    def appears(text: str) -> Realigned | None:
        (folder.path / "more.yaml").write_text("clients: {}")
        return realign(text)

    monkeypatch.setattr("bearerd.config.load.realign", appears)
    assert folder.headlines(config(top="include: [more.yaml]")) == ["config.yaml:1:11: file more.yaml does not exist"]


def test_an_included_file_that_cannot_be_reached_is_an_error(folder: Folder) -> None:
    (folder.path / "conf.d").symlink_to("conf.d")
    error = folder.error(config(top="include: [conf.d/dnb.yaml]"))
    assert error == "conf.d/dnb.yaml: cannot be read: too many levels of symbolic links"


def test_a_directory_that_the_machine_cannot_read_now_is_unavailable(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: str) -> list[str]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)

    monkeypatch.setattr(os, "listdir", fails)
    with pytest.raises(ConfigUnavailable, match=r"conf\.d cannot be read: too many open files"):
        folder.load(config(top="include: [conf.d/*.yaml]"))


def test_a_file_that_two_patterns_match_is_read_once(folder: Folder) -> None:
    assert len(folder.load(config(top="include: [other.yaml, o*.yaml]"), other=OTHER).targets) == 2


def test_a_missing_included_file_is_an_error_at_its_name(folder: Folder) -> None:
    assert folder.headlines(config(top="include: [conf.d/*.yaml, dnb.yaml]")) == [
        "config.yaml:1:26: file dnb.yaml does not exist"
    ]


@pytest.mark.parametrize("pattern", ["config.yaml", "*.yaml", "./config.yaml"])
def test_a_file_that_includes_itself_is_an_error(folder: Folder, pattern: str) -> None:
    (headline,) = folder.headlines(config(top=f'include: ["{pattern}"]'))
    assert headline == "config.yaml:1:10: the file includes itself"


def test_a_name_that_is_defined_in_two_files_is_an_error_that_names_both(folder: Folder) -> None:
    provider = "providers:\n  p: {token_url: https://h/t}\n"
    headlines = folder.headlines(
        config(top=f"include: [a.yaml, b.yaml]\n{provider}"), a=provider, b="# twice\n" + SMALLEST
    )
    assert headlines == [
        "a.yaml:2:3: 'p' is defined twice in providers; first at config.yaml:3",
        "b.yaml:3:3: 'dnb' is defined twice in clients; first at config.yaml:6",
    ]


@pytest.mark.parametrize("key", ["output: {mode: '0600'}", "refresh_before: 5m", "include: [c.yaml]", "log: {}"])
def test_an_included_file_may_only_have_providers_and_clients(folder: Folder, key: str) -> None:
    said = f"'{key.partition(':')[0]}' is a key of the main file: an included file may only have providers and clients"
    assert folder.headlines(config(top="include: [a.yaml]"), a=f"{key}\n") == [f"a.yaml:1:1: {said}"]
