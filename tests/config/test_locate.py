from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bearerd.config.load import load
from bearerd.config.locate import find, locate

BOTH = {"directory": "/d", "socket": "/s"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("output:\n  directory: /d\ncontrol:\n  socket: /s\n", BOTH, id="block"),
        pytest.param("output: {directory: /d}\ncontrol: {mode: '0600', socket: /s}\n", BOTH, id="flow"),
        pytest.param("\"output\":\n  \"directory\": \"/d\"\n'control': {'socket': '/s'}\n", BOTH, id="quoted"),
        pytest.param(
            "output : # here\n  directory :   /d  # there\ncontrol:  {socket : /s} # x\n", BOTH, id="comments"
        ),
        pytest.param(
            "output: {\n  mode: '0640', # x\n  directory: /d\n}\ncontrol:\n  {socket: /s}\n", BOTH, id="lines"
        ),
        pytest.param("output:\n    directory:\n      /d\ncontrol:\n socket: >-\n   /s\n", BOTH, id="on the next line"),
        pytest.param("%YAML 1.1\n---\noutput: {directory: &a /d}\ncontrol:\n  socket: !!str /s\n", BOTH, id="rare"),
        pytest.param(
            '{"output": {"directory": "\\/d"}, "log": {"level": "info"}, "control":{"socket":"/s"}}', BOTH, id="JSON"
        ),
        pytest.param("  output:\n    directory: /d\n  control: {socket: /s}\n", BOTH, id="all of it indented"),
        pytest.param(
            "output: {directory: '/it''s'}\ncontrol: {socket: \"/\\x73\\u00e9\"}\n",
            {"directory": "/it's", "socket": "/sé"},
            id="escapes",
        ),
        pytest.param("output:\r\n  directory: /d\r\ncontrol: {socket: /s}\r\n", BOTH, id="CRLF"),
        pytest.param(
            "output: {directory: /a#b:c}\ncontrol:\n  socket: /s#t:u\n",
            {"directory": "/a#b:c", "socket": "/s#t:u"},
            id="# and :",
        ),
        pytest.param("#output: {directory: /d}\nlog: {level: 'output: {directory: /d}'}\n", {}, id="neither"),
        pytest.param("output: {directory: 5}\ncontrol:\n  socket: [/s]\n", {}, id="of a wrong type"),
        pytest.param('output: {directory: tokens}\ncontrol: {socket: ""}\n', {}, id="no absolute path"),
        pytest.param("output:\ncontrol: /s\n", {}, id="empty sections"),
        pytest.param(
            "clients:\n  output:\n    ca_file: /x\n    private_key: {file: /y}\n  control: {socket: /z}\n",
            {},
            id="names of clients",
        ),
        pytest.param("output:\n  files: [/x]\n  vars:\n    - a: /y\n", {}, id="a list"),
        # Texts that are not YAML, or not a valid config.
        pytest.param("clients: [\noutput:\n  directory: /d\ncontrol: {socket: /s}\n", BOTH, id="open bracket before"),
        pytest.param(
            'clients: {a: "x\noutput:\n  directory: /d\ncontrol: {socket: /s}\n', BOTH, id="open quote before"
        ),
        pytest.param("output: {directory: /d\ncontrol: {socket: /s}\n", BOTH, id="open brace"),
        pytest.param("output: {directory: \"/d\ncontrol: {socket: '/s\n", BOTH, id="open quotes"),
        pytest.param("output:\n\tdirectory: /d\n\ncontrol:\n\tsocket: /s\n", BOTH, id="tabs"),
        pytest.param(
            "output:\n  mode: '0640'\n    directory: /d\ncontrol:\n   mode: x\n  socket: /s\n",
            BOTH,
            id="indented wrongly",
        ),
        pytest.param("output:\ndirectory: /d\ncontrol:\nsocket: /s\n", BOTH, id="not indented"),
        pytest.param("outptu: {directory: /d}\ncontorl:\n  socket: /s\n", BOTH, id="mistyped sections"),
        pytest.param("output:\n  directry: /d\ncontrol: {scoket: /s}\n", BOTH, id="mistyped keys"),
        pytest.param(
            "output {directory: /d}\noutput: {directory: /d}\ncontrol: {socket: /s}\nunknown: 1\n", BOTH, id="no colon"
        ),
        pytest.param(
            "output: {directory: /d}\noutput: {directory: /e}\ncontrol: {x: /t, socket: /s}\n", BOTH, id="twice"
        ),
        pytest.param("\0output: x\n}{][,:\noutput: {directory: /d}\ncontrol: {socket: /s}\n", BOTH, id="garbage"),
        pytest.param('output: {directory: "/d\\', {"directory": "/d"}, id="cut off"),
        pytest.param("", {}, id="nothing"),
    ],
)
def test_both_paths_are_found_in_any_style(text: str, found: dict[str, str]) -> None:
    assert find(text) == found


PATHS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\x85\u2028\u2029\ufeff\uffff\ufffe"), max_size=20
).map(lambda text: f"/{text}")
NOISE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab:#{}[]'\"- /", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc: '", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"output": st.fixed_dictionaries({"mode": NOISE, "directory": PATHS}), "clients": NOISE},
        optional={"control": st.fixed_dictionaries({"socket": PATHS}), "log": NOISE, "listen": NOISE},
    ),
    st.sampled_from([True, False, None]),
    st.sampled_from([None, "'", '"']),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_yaml_is_read_as_a_yaml_parser_reads_it(
    document: dict[str, Any], flow: bool | None, quotes: str | None, in_json: bool, order: random.Random
) -> None:
    keys = list(document)
    order.shuffle(keys)
    document = {key: document[key] for key in keys}
    expected = {"directory": document["output"]["directory"]}
    if "control" in document:
        expected["socket"] = document["control"]["socket"]
    text = json.dumps(document, ensure_ascii=False) if in_json else yaml.dump(
        document, default_flow_style=flow, default_style=quotes, sort_keys=False, allow_unicode=True, width=10**6
    )  # fmt: skip
    found = find(text)
    assert found == expected | {key: found[key] for key in found.keys() - expected.keys()}


@given(st.text("outpcnrldiey:sk/{}[],'\"\\# \t\n&!|>-%", max_size=80))
def test_any_broken_text_is_read_without_an_exception(text: str) -> None:
    find(text)


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("", {}),
        ("", {"RUNTIME_DIRECTORY": "/run/mine:/run/other"}),
        ("output: {directory: //a/../b/}\n", {"RUNTIME_DIRECTORY": "/run/mine"}),
        ("control: {socket: /x/./y}\n", {}),
        ("output: {directory: /a}\ncontrol: {socket: /b}\n", {}),
    ],
)
def test_for_a_valid_config_the_paths_are_those_of_the_daemon(
    text: str, environ: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    clients = "clients: {a: {token_url: https://x.example/, client_id: a, auth: none, tokens: {t: {}}}}\n"
    path.write_text(text + clients)
    config = load(str(path), environ)
    found = locate(str(path), environ)
    assert config.control is not None
    assert (found.socket, found.directory, found.fault) == (config.control.socket, config.directory, None)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("missing", "no such file or directory"),
        ("a directory", "it is a directory, not a regular file"),
        ("a FIFO", "it is a FIFO, not a regular file"),
        ("a loop", "too many levels of symbolic links"),
        ("empty", "empty"),
        ("long", "longer than 8 MiB"),
        ("binary", None),
        ("no path", "not a path"),
    ],
)
def test_an_unreadable_config_is_reported_and_the_defaults_are_used(
    kind: str, fault: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    if kind == "a directory":
        path.mkdir()
    elif kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a loop":
        path.symlink_to(path)
    elif kind != "missing":
        path.write_bytes({"long": b"#" * (8 * 1024 * 1024 + 1), "binary": b"\xff\xfe\0\n"}.get(kind, b""))
    found = locate(f"{path}\0" if kind == "no path" else str(path), {})
    assert (found.socket, found.directory) == ("/run/bearerd/.bearerd/control.sock", "/run/bearerd")
    assert found.fault == fault


@pytest.mark.parametrize("piece", ["{\n", '{"a":', '{"a":{b: 1, c: ', "a: {\n", "[{\n"])
def test_no_text_takes_long_to_search(piece: str) -> None:
    text = piece * (4 * 2**20 // len(piece))
    began = time.process_time()
    assert find(text) == {}
    # 2 s if each character is read once. Minutes if it is read once for each line or level.
    assert time.process_time() - began < 20
