"""The schema in yaml-language-server, which VS Code, coc.nvim, ALE and Neovim run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from bearerd.config.keys import KEYS
from support.oidc import modules, node, why_not
from support.process import bearerd

pytestmark = pytest.mark.skipif(bool(why_not("yaml-language-server")), reason=str(why_not("yaml-language-server")))

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"


class Editor:
    """A client of the language server, as an editor is."""

    def __init__(self) -> None:
        server = modules() / "node_modules/yaml-language-server/bin/yaml-language-server"
        self._process = subprocess.Popen(
            [str(node()), server, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        shown = {"hover": {"contentFormat": ["markdown"]}, "publishDiagnostics": {}}
        self.ask("initialize", {"processId": None, "rootUri": None, "capabilities": {"textDocument": shown}})
        self._send({"method": "initialized", "params": {}})
        # Nothing is downloaded.
        settings = {"yaml": {"hover": True, "validate": True, "completion": True, "schemaStore": {"enable": False}}}
        self._send({"method": "workspace/didChangeConfiguration", "params": {"settings": settings}})

    def open(self, file: Path) -> list[str]:
        """The mistakes that are marked in a file."""
        text = {"uri": file.as_uri(), "languageId": "yaml", "version": 1, "text": file.read_text(encoding="utf-8")}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": text}})
        while True:
            found = self._until("method", "textDocument/publishDiagnostics")["params"]
            if unquote(found["uri"]) == unquote(file.as_uri()):  # not those of a file before it, once more
                return [f"{mark['range']['start']['line'] + 1}: {mark['message']}" for mark in found["diagnostics"]]

    def at(self, what: str, file: Path, line: int, column: int) -> Any:
        """The answer to a request about a place in a file; lines and columns begin with 1."""
        place = {"line": line - 1, "character": column - 1}
        return self.ask(f"textDocument/{what}", {"textDocument": {"uri": file.as_uri()}, "position": place})

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        """The answer to a request."""
        self._send({"id": method, "method": method, "params": params})
        return self._until("id", method)["result"]

    def close(self) -> None:
        """End the server."""
        self._process.kill()
        self._process.communicate()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._process.stdin.flush()

    def _until(self, key: str, value: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        while True:
            length = 0
            for line in iter(self._process.stdout.readline, b"\r\n"):
                assert line, "the language server has ended"
                name, _, number = line.partition(b":")
                length = int(number) if name.lower() == b"content-length" else length
            message: dict[str, Any] = json.loads(self._process.stdout.read(length))
            if "method" in message and "id" in message:  # a request of the server
                items = message.get("params", {}).get("items", [])
                self._send({"id": message["id"], "result": [None] * len(items) or None})
            elif message.get(key) == value:
                return message


@pytest.fixture(scope="module")
def editor() -> Iterator[Editor]:
    opened = Editor()
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the schema."""
    (tmp_path / "config.schema.json").write_text(bearerd("schema").stdout)
    return tmp_path


def config(directory: Path, text: str) -> Path:
    """A config that names the schema, as docs/config.md says."""
    file = directory / "config.yaml"
    file.write_text(f"# yaml-language-server: $schema=config.schema.json\n{text}", encoding="utf-8")
    return file


def test_no_mistake_is_marked_in_the_example(editor: Editor, directory: Path) -> None:
    assert editor.open(config(directory, EXAMPLE.read_text(encoding="utf-8"))) == []


def test_an_editor_marks_mistakes_explains_keys_and_completes_them(editor: Editor, directory: Path) -> None:
    file = config(
        directory,
        "clients:\n"
        "  dnb:\n"
        "    token_url: https://a.example/token\n"
        "    client_secret: {file: /a}\n"
        "    client_secrt: {file: /a}\n"
        "    refresh_before: 5min\n"
        "    client_id: 5\n"
        "    \n"
        "    tokens: {bci: {}}\n",
    )
    marks = sorted(editor.open(file))
    assert [mark.partition(":")[0] for mark in marks] == ["6", "7", "8"]
    assert "client_secrt" in marks[0]
    assert "secret reference" in marks[2]
    for line, key in ((4, "token_url"), (5, "client_secret"), (7, "refresh_before"), (10, "tokens")):
        shown = editor.at("hover", file, line, 6)["contents"]["value"]
        assert KEYS[key].text.partition(".")[0].split("`")[0] in shown
    offered = {item["label"] for item in editor.at("completion", file, 9, 5)["items"]}
    assert {"auth", "files"} <= offered
    assert not offered & {"token_url", "listen"}
