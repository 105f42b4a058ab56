"""The config: its text with an included file, any YAML, and the answer of the process that reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args
from unittest import mock

import yaml

from bearerd.config import load as loading
from bearerd.config import reader
from bearerd.config.document import Document
from bearerd.config.files import matches
from bearerd.config.locate import locate
from bearerd.config.places import may_show, vocabulary
from bearerd.config.plain import decode, encode
from bearerd.config.realign import realign
from bearerd.config.source import BROKEN
from bearerd.errors import ConfigError, ConfigUnavailable, Kind, Problem
from bearerd.model import Config
from fuzz.target import Target, scratch

MARK = "hunter2-Zq9xW7vK3m"
_SEPARATOR = b"\n%%%\n"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_KINDS = frozenset(get_args(Kind))
# Keys that take a secret, and that a text of one belongs to even if it is at a wrong place.
_SECRET = frozenset(
    {"client_secret", "private_key", "password", "assertion", "subject_token", "tls_private_key", "key"}
)
_URLS = frozenset({"token_url", "issuer", "proxy", "url"})
# Below these the keys are names of the operator's, or free text.
_NAMES = frozenset({"clients", "providers", "tokens", "parameters", "headers", "vars", "assertion_claims"})
_ENVIRON = {"RUNTIME_DIRECTORY": "/run/bearerd"}


def check_config(data: bytes) -> None:
    """A config, or errors with their places and without any secret. `%%%` begins the included file."""
    main, _, included = data.replace(b"@mark@", MARK.encode()).partition(_SEPARATOR)
    texts: dict[str, bytes] = {}
    for name, content in (("config.yaml", main), ("more.yaml", included)):
        path = str(scratch() / name)
        with open(path, "wb") as file:
            file.write(content)
        texts[path] = content
    path = str(scratch() / "config.yaml")
    with mock.patch.object(loading, "matches", _nearby):
        try:
            config = loading.load(path, _ENVIRON)
        except ConfigError as error:
            _check_problems(error, texts)
            return
    content = encode(config)
    assert decode(content, None) == config, "a config changes on its way from the process that reads it"
    assert decode(content, config) == config
    _check_location(config, path)


def _nearby(main: str, pattern: str) -> list[str]:
    """Only files of this test: the fuzzer would include all of the disk."""
    return [] if "/" in pattern else matches(main, pattern)


def _check_location(config: Config, path: str) -> None:
    """A probe finds the daemon's socket without a parser."""
    found = locate(path, _ENVIRON)
    assert found.fault is None
    assert found.directory == config.directory, "a probe would look in another directory"
    if config.control is not None:
        assert found.socket == config.control.socket, "a probe would look for another socket"


def _check_problems(error: ConfigError, texts: dict[str, bytes]) -> None:
    assert error.problems, "an error without a problem"
    assert MARK not in str(error), "the brief text shows the config"
    for problem in error.problems:
        assert problem.kind in _KINDS or problem.kind.startswith(("cannot be read", "not UTF-8", "with this file")), (
            problem.kind
        )
        text = texts.get(problem.file)
        assert text is not None, f"a problem of {problem.file}"
        _check_place(problem, text.decode("utf-8-sig", "replace"))
        assert problem.full.count("\n") == (0 if problem.source is None else 2), "a message of several lines"
    full = error.full
    assert _CONTROL.search(full) is None, "an error has control characters of a terminal"
    if MARK in full:
        shown = {line for line in full.splitlines() if MARK in line}
        secrets = [_is_secret(text) for text in texts.values() if MARK.encode() in text]
        assert not all(secrets), f"an error shows a secret: {shown}"


def _check_place(problem: Problem, text: str) -> None:
    """A place inside of the text."""
    if problem.line == 0:
        return
    lines = text.splitlines() or [""]
    assert 1 <= problem.line <= len(lines), f"line {problem.line} of {len(lines)}"
    line = lines[problem.line - 1]
    assert 1 <= problem.column <= len(line) + 1, f"column {problem.column} of a line of {len(line)} characters"
    if problem.source is not None:
        assert "\n" not in problem.source
        assert 0 <= problem.caret <= len(problem.source)


# -- which texts are secrets ---------------------------------------------------------------------------


def _is_secret(content: bytes) -> bool:
    """Whether each place with the mark is one that holds a secret: then no error may show it."""
    text = content.decode("utf-8-sig", "replace")
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, RecursionError):
        # Of a text that is no YAML, parts may be read all the same.
        lines = [line for line in text.splitlines() if MARK in line]
        return not re.search(r"[|>?&*!]", text) and all(
            re.fullmatch(rf"\s*({'|'.join(_SECRET)}):\s+['\"]?{MARK}['\"]?", line) for line in lines
        )
    except ValueError:
        return False
    places = list(_places(node, ()))
    shown = [text for _, text in places if MARK in text]
    return sum(text.count(MARK) for text in shown) == text.count(MARK) and all(
        _holds_secret(path, value) for path, value in places if MARK in value
    )


def _places(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each scalar with the keys above it. A key counts as a text that may be shown."""
    if isinstance(node, yaml.ScalarNode):
        yield path, node.value
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _places(child, path)
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            yield (), name if isinstance(name, str) else ""
            yield from _places(child, (*path, str(name)))


def _holds_secret(path: tuple[str, ...], value: str) -> bool:
    if not path:
        return False
    if path[-1] in _SECRET:
        return True
    if path[-1] in _URLS:
        return re.match(rf"[a-z0-9+]+://[^/?#]*{MARK}[^/?#]*@", value) is not None
    # Any other key could be `client_secret`, mistyped.
    return path[-1] not in vocabulary() and _NAMES.isdisjoint(path[-2:-1])


# -- any YAML ------------------------------------------------------------------------------------------


def check_yaml(data: bytes) -> None:
    """Any text is read, or has mistakes with their places; also as its lines were probably meant."""
    text = data.decode("utf-8", "replace")
    document = Document(text, "f", may_be_empty=True, shows=may_show, vocabulary=vocabulary())
    _check_document(document, text)
    if not document.problems and document.complete:
        assert document.value == (
            yaml.load(text, Loader=yaml.CSafeLoader) or {} if _is_empty(document) else _loaded(text)
        )
    realigned = realign(text)
    if realigned is not None:
        again = Document(text, "f", shows=may_show, vocabulary=vocabulary(), realigned=realigned)
        _check_document(again, text)


def _is_empty(document: Document) -> bool:
    return bool(document.value == {})


def _loaded(text: str) -> Any:
    return yaml.load(text, Loader=yaml.CSafeLoader)


def _check_document(document: Document, text: str) -> None:
    _check_value(document.value)
    for problem in document.problems:
        assert problem.kind in _KINDS
        _check_place(problem, text)
        assert len(problem.full) < 2000, "a message without a bound"


def _check_value(value: Any) -> None:
    if isinstance(value, dict):
        for key, each in value.items():
            assert isinstance(key, str)
            _check_value(each)
    elif isinstance(value, list):
        for each in value:
            _check_value(each)
    else:
        assert value is None or value is BROKEN or type(value) in {str, int, float, bool}


# -- the answer of the reader --------------------------------------------------------------------------


def check_answer(data: bytes) -> None:
    """The answer of the process that reads the config: of this version, or of another one after an upgrade."""
    try:
        config = reader._config(data, None)
    except (ConfigError, ConfigUnavailable, ValueError, TypeError):
        return
    assert reader._config(b"g" + encode(config), config) == config


@cache
def _small() -> bytes:
    path = str(scratch() / "small.yaml")
    with open(path, "wb") as file:
        file.write(_CONFIGS[0])
    return b"g" + encode(loading.load(path, _ENVIRON))


_CONFIGS = (
    b"""clients:
  dnb:
    token_url: https://login.example.com/token
    client_id: 7e0c5a
    client_secret: {file: /etc/bearerd/dnb.secret}
    tokens:
      bci: {scope: bci}
""",
    b"""include: [more.yaml]
output: {directory: /run/tokens, mode: "0640"}
providers:
  p: {issuer: https://sso.example.com, proxy: "http://u:@mark@@proxy:3128", rate_limit: 10/s}
control: {socket: /run/x.sock}
%%%
clients:
  a:
    provider: p
    client_id: {env: ID}
    client_secret: @mark@
    tokens: {t: {scope: [a, b], files: [{format: env, name: TOKEN}]}}
""",
    b"""clients:
  dnb:
    token_url: https://login.example.com/token
     client_id: a
    client_secrt: @mark@
    auth: private_key_jwt
    private_key: "@mark@"
    tokens:
    - bci: {scope: bci}
  # @mark@
""",
    b"""share: {redis: {url: "redis://u:@mark@@cache"}, key: {file: /k}}
listen: {address: "127.0.0.1:9810", page: true}
refresh_before: 20%
max_age: 24h
on_change: [{run: [/bin/true], timeout: 5s}, {signal: HUP, pid_file: /run/x.pid}]
clients: {c: {token_url: https://p/t, client_id: a, client_secret: {env: S}, tokens: {a: {}, b: {scope: x}}}}
""",
    b"clients:\n\tdnb: {token_url: 'https://x\n  client_id: a\n",
    b"{clients: {dnb: {client_id: a, private_key: @mark@, tokens: [}}}",
    b"<<: *x\nclients: &a !!map {? a : b}\nyes: 0640\n",
)


@cache
def _words() -> tuple[bytes, ...]:
    """The keys and values that the schema names."""
    found: set[str] = set()

    def look(part: Any) -> None:
        if isinstance(part, dict):
            found.update(str(each) for each in part.get("enum", ()) if len(str(each)) < 40)
            for name, each in part.get("properties", {}).items():
                found.add(f"{name}: ")
                look(each)
            for name, each in part.items():
                if name != "properties":
                    look(each)
        elif isinstance(part, list):
            for each in part:
                look(each)

    look(loading.schema())
    return tuple(sorted(word.encode() for word in found))


_YAML_WORDS = (
    *(
        b"clients:\n",
        b"  tokens:\n",
        b"{file: /x}",
        b"{env: X}",
        b"{credential: x}",
        b"{command: [/bin/x]}",
        b"@mark@",
        b" # @mark@",
    ),
    *(
        b"client_secret: @mark@\n",
        b"http://u:@mark@@h",
        b"- ",
        b"? ",
        b": ",
        b"<<: ",
        b"&a ",
        b"*a ",
        b"!!str ",
        b"|\n",
        b">-\n",
        b"---\n",
    ),
    *(
        b"...\n",
        b"%YAML 1.2\n",
        b"\t",
        b"\r",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"\xef\xbb\xbf",
        b"\xc2\xa0",
        b"\xe2\x80\x9c",
        b"\xef\xbc\x9a",
    ),
    *(
        b"```yaml\n",
        b"<<<<<<< HEAD\n",
        b">>>>>>> x\n",
        b"'",
        b'"',
        b"\\x",
        b"\\u",
        b"{{ x }}",
        b"[",
        b"]",
        b"{",
        b"}",
        b"%%%\n",
        b"0640",
    ),
    *(
        b"12:30:45",
        b"2026-11-29",
        b"yes",
        b"~",
        b"null",
        b"https://p/t",
        b"10/8h",
        b"1.5h",
        b"20%",
        b"\x00",
        b"\x7f",
        b"\xff\xfe",
    ),
)

TARGETS = (
    Target("config", "config files and what they include", check_config, _CONFIGS, (*_YAML_WORDS, *_words())),
    Target("yaml", "YAML, valid and invalid", check_yaml, _CONFIGS, (*_YAML_WORDS, *_words()), longest=2048),
    Target(
        "reader",
        "the answer of the process that reads the config",
        check_answer,
        (_small(), b'w[["f", 1, 2, "not YAML"], ["f", 1, 2, "k", "m", null, 0]]'),
        (b"null", b"[]", b"0", b"1", b"-1", b"true", b'""', b"\n"),
    ),
)
