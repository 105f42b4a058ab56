"""All errors of a config at once, each of them once."""

from __future__ import annotations

import os

import pytest

from support.config_text import SMALLEST, Folder, config


def test_an_error_in_one_client_hides_none_in_another(folder: Folder) -> None:
    text = """\
refresh_before: 60%
providers:
  p: {token_url: http://h/}
clients:
  a:
    provider: nowhere
    auth: nobody
    client_id: 1
    client_secret: {file: /s}
    tokens:
      t: {scope: 1, files: [{format: raw, mode: 0640}, {format: yaml}]}
  b:
    client_id: x
    client_secret: hunter2
    tokens: {t: {}}
  c:
    token_url: https://h/
    client_id: x
    client_secret: {file: /s}
    tokens: {t: {files: [{format: raw, path: ../x}]}}
"""
    assert [line.split(": ")[0].removeprefix("config.yaml:") for line in folder.headlines(text)] == [
        "1:17",  # 60%
        "3:18",  # http
        "6:15",  # no such provider
        "7:11",  # auth
        "8:16",  # client_id
        "11:18",  # scope
        "11:49",  # a bare mode
        "11:65",  # format
        "12:3",  # no endpoint
        "14:20",  # a secret
        "20:46",  # ..
    ]


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("scope: [no, fi]", "7:21"),
        ("parameters: {a: [x, 0123]}", "7:33"),
        ("files: [{format: raw, mode: 0640}]", "7:41"),
        ("refresh_before: !x 5m", "7:29"),
    ],
)
def test_one_mistake_is_one_error(folder: Folder, key: str, place: str) -> None:
    assert [said.split(": ")[0] for said in folder.headlines(config(token=key))] == [f"config.yaml:{place}"]


def test_errors_of_several_files_are_reported_at_once(folder: Folder) -> None:
    (folder.path / "latin.yaml").write_bytes(b"# a\n# \xe4\n")
    headlines = folder.headlines(
        config(top="include: [a.yaml, b.yaml, latin.yaml, missing.yaml]", token="scope: 1"),
        a="providers: {p: {token_url: 5}}\n",
        b="a: [\n",
    )
    assert [line.split(": ")[0] for line in headlines] == [
        "a.yaml:1:28",
        "b.yaml:1:4",
        "config.yaml:1:39",
        "config.yaml:8:20",
        "latin.yaml:2:1",
    ]


def test_a_config_without_clients_is_an_error(folder: Folder) -> None:
    assert "no clients are configured" in folder.error("log: {level: info}")
    assert "no clients are configured" in folder.error("clients: {}")


@pytest.mark.parametrize("text", ["", "# clients:\n"], ids=["empty", "comments"])
def test_an_empty_config_is_one_error(folder: Folder, text: str) -> None:
    assert folder.headlines(text) == ["config.yaml:1:1: the file is empty; bearerd init writes a first config"]


@pytest.mark.parametrize(
    ("text", "found"), [("[a]", "a list"), ("a", "text"), ("--- ~\n", "nothing"), ("1", "a number")]
)
def test_a_config_that_is_not_a_mapping_is_an_error(folder: Folder, text: str, found: str) -> None:
    (said,) = folder.headlines(text)
    assert said.endswith(f": expected a mapping with the key clients, found {found}")


def test_tokens_that_are_indented_like_a_client_are_one_error(folder: Folder) -> None:
    shallow = SMALLEST.replace("    tokens:\n      bci:", "  tokens:\n    bci:")
    assert folder.headlines(shallow) == [
        "config.yaml:6:3: 'tokens' is indented too little: begin it in column 5, as a key of client 'dnb'"
    ]


def test_tokens_that_are_indented_like_a_client_are_checked_too(folder: Folder) -> None:
    shallow = SMALLEST.replace("    tokens:\n      bci: {scope: bci}", "  tokens:\n    bci: {skope: bci}")
    assert any("unknown key 'skope'" in line for line in folder.headlines(shallow))


def test_a_client_may_be_named_tokens(folder: Folder) -> None:
    client = "{token_url: 'https://x/t', client_id: a, client_secret: {env: A}, tokens: {bci: {}}}"
    config = folder.load(f"{SMALLEST}  tokens: {client}\n")
    assert [target.full_name for target in config.targets] == ["dnb/bci", "tokens/bci"]


def test_an_included_file_may_have_only_comments(folder: Folder) -> None:
    assert folder.load("include: [more.yaml]\n" + config(), None, more="# dnb: …\n").targets


def test_unprintable_characters_in_file_names_are_replaced(folder: Folder) -> None:
    name = b"\xff\x1b[2J\n2026 ERROR.yaml"
    (folder.path / os.fsdecode(name)).write_text("clients: {x: 1}")
    said = folder.error("include: ['*ERROR*']\n")
    assert said.splitlines()[0].startswith("??[2J?2026 ERROR.yaml:1:14: ")
    assert "\x1b" not in said
    said.encode()


def test_a_long_list_of_names_is_cut(folder: Folder) -> None:
    providers = "".join(f"  p{number}: {{token_url: https://x/}}\n" for number in range(100))
    said = folder.error(f"providers:\n{providers}clients: {{d: {{provider: zzz}}}}\n")
    assert "'p0', 'p1', " in said
    assert "'p49', and 50 more\n" in said
