from __future__ import annotations

import re
from typing import Any

import pytest

from bearerd.config.document import Document
from bearerd.config.redaction import takes_secret
from bearerd.config.source import BROKEN
from bearerd.config.suggest import near
from bearerd.errors import ConfigError, Problem


def problems(text: str) -> list[Problem]:
    """The problems of a text, in the order in which they are shown."""
    return ConfigError(Document(text, "f.yaml").problems).problems


def shown(text: str) -> str:
    """The problems of a text, as printed by `check`."""
    return ConfigError(Document(text, "f.yaml").problems).full


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("a: b", {"a": "b"}, id="plain text"),
        pytest.param("a: 0", {"a": 0}, id="zero"),
        pytest.param("a: -10", {"a": -10}, id="a whole number"),
        pytest.param("a: 1.5", {"a": 1.5}, id="a fraction"),
        pytest.param("a: 1.5e+300", {"a": 1.5e300}, id="a large fraction"),
        pytest.param("a: -" + "9" * 18, {"a": -(10**18) + 1}, id="a whole number of 18 digits"),
        pytest.param("a: true\nb: false", {"a": True, "b": False}, id="true and false"),
        pytest.param("a:", {"a": None}, id="nothing"),
        pytest.param("a: [b, {c: d}]", {"a": ["b", {"c": "d"}]}, id="flow"),
        pytest.param("a:\n- b\n- c", {"a": ["b", "c"]}, id="a list without indentation"),
        pytest.param("a: 'no'\nb: \"0640\"\n'no': '12:30:45'", {"a": "no", "b": "0640", "no": "12:30:45"}, id="quoted"),
        # The octal of YAML 1.2 is plain text in YAML 1.1. As a mode it is refused (test_wrong_values).
        pytest.param("a: 0o640", {"a": "0o640"}, id="0o640 is text"),
        pytest.param("a: y", {"a": "y"}, id="y is text"),
        pytest.param("a: 1e3", {"a": "1e3"}, id="1e3 is text"),
        pytest.param("a: &x {b: c}", {"a": {"b": "c"}}, id="an anchor that nothing refers to"),
        pytest.param("---\na: b\n...\n", {"a": "b"}, id="one document with its marks"),
        pytest.param("a: b # it is a list: [", {"a": "b"}, id="a comment"),
        pytest.param("a: b\t# tab before a comment", {"a": "b"}, id="a tab that does not indent"),
        pytest.param('a: "\\x41"', {"a": "A"}, id="an escape"),
        pytest.param("a: " + "[" * 40 + "]" * 40, None, id="nested 41 deep"),
    ],
)
def test_unambiguous_values_are_read(text: str, value: Any) -> None:
    document = Document(text, "f.yaml")
    assert document.problems == []
    if value is not None:
        assert document.value == value


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        # Numbers whose author meant something else.
        pytest.param("a:\n  m: 0640", 2, 6, "YAML reads '0640' as the number 416 (octal): put it in quotes", id="0640"),
        pytest.param("a: 0123", 1, 4, "the number 83 (octal)", id="0123"),
        pytest.param("a: 00", 1, 4, "the number 0 (octal)", id="00"),
        pytest.param("a: 12:30:45", 1, 4, "YAML reads '12:30:45' as a base-60 number", id="base 60"),
        pytest.param("a: 12:30:45.5", 1, 4, "a base-60 number", id="base 60 with a fraction"),
        pytest.param("a: [x, 22:22]", 1, 8, "YAML reads '22:22' as a base-60 number", id="two ports in a flow list"),
        pytest.param("a: 1_000", 1, 4, "YAML reads '1_000' as a number: put it in quotes", id="underscore"),
        pytest.param("a: 0x1F", 1, 4, "YAML reads '0x1F' as a number", id="hexadecimal"),
        pytest.param("a: 0b11", 1, 4, "YAML reads '0b11' as a number", id="binary"),
        pytest.param("a: .inf", 1, 4, "YAML reads '.inf' as a number", id="infinity"),
        pytest.param("a: .nan", 1, 4, "YAML reads '.nan' as a number", id="not a number"),
        pytest.param("a: .5", 1, 4, "YAML reads '.5' as a number", id="fraction without zero"),
        pytest.param("a: 1.", 1, 4, "YAML reads '1.' as a number", id="point without fraction"),
        pytest.param("a: 1.5e+309", 1, 4, "YAML reads '1.5e+309' as a number", id="more than a number holds"),
        pytest.param("a: " + "9" * 19, 1, 4, "YAML reads '9999999999999999999' as a number", id="19 digits"),
        # More digits than Python converts.
        pytest.param("a: " + "9" * 5000, 1, 4, "9' as a number: put it in quotes", id="5000 digits"),
        pytest.param("a: 0" + "7" * 5000, 1, 4, "7' as a number: put it in quotes", id="5000 octal digits"),
        # Booleans whose author meant text.
        pytest.param("a:\n- x\n- no", 3, 3, "YAML reads 'no' as a boolean: write true or false", id="no"),
        pytest.param("a: yes", 1, 4, "YAML reads 'yes' as a boolean", id="yes"),
        pytest.param("a: on", 1, 4, "YAML reads 'on' as a boolean", id="on"),
        pytest.param("a: Off", 1, 4, "YAML reads 'Off' as a boolean", id="Off"),
        pytest.param("a: TRUE", 1, 4, "YAML reads 'TRUE' as a boolean", id="TRUE"),
        # Dates.
        pytest.param("a: 2026-11-23", 1, 4, "YAML reads '2026-11-23' as a date: put it in quotes", id="date"),
        pytest.param("a: 2026-11-23 10:00:00", 1, 4, "as a date: put it in quotes", id="date and time"),
        # The same for keys.
        pytest.param("a: 1\nno: x", 2, 1, "YAML reads 'no' as a boolean", id="no as a key"),
        pytest.param("true: x", 1, 1, "YAML reads this key as a boolean: put it in quotes", id="true as a key"),
        pytest.param("a:\n  1: x", 2, 3, "YAML reads this key as a number: put it in quotes", id="numeric key"),
        pytest.param("0640: x", 1, 1, "the number 416 (octal)", id="octal key"),
        pytest.param("12:30: x", 1, 1, "a base-60 number", id="base 60 as a key"),
        pytest.param("2026-11-23: x", 1, 1, "a date", id="date as a key"),
        pytest.param("~: x", 1, 1, "YAML reads this key as nothing", id="nothing as a key"),
        pytest.param("? [a]\n: x", 1, 3, "a key must be text", id="a list as a key"),
        pytest.param("a: {{b: c}: d}", 1, 5, "a key must be text", id="a mapping as a key"),
        # Ways to write a value twice.
        pytest.param("a: 1\nb: 2\na: 3", 3, 1, "duplicate key 'a'; first set on line 1", id="duplicate key"),
        pytest.param("a: {b: 1, b: 1}", 1, 11, "duplicate key 'b'; first set on line 1", id="duplicate key in flow"),
        pytest.param("a: &x [b]\nc: *x", 2, 4, "aliases (*name) are not supported", id="alias"),
        pytest.param("a: &x b\nc: [*x]", 2, 5, "aliases (*name) are not supported", id="alias of a text"),
        pytest.param("a: &x [*x]", 1, 8, "aliases (*name) are not supported", id="alias of the list that contains it"),
        pytest.param("a: *x", 1, 4, "aliases (*name) are not supported", id="alias of nothing"),
        pytest.param("a:\n  <<: {b: c}", 2, 3, "merge keys (<<) are not supported", id="merge key"),
        # Values with a tag.
        pytest.param("a: !!python/object:os.system {}", 1, 4, "tags (!…) are not supported", id="python tag"),
        pytest.param("a: !foo b", 1, 4, "tags (!…) are not supported", id="own tag"),
        pytest.param("a: [!foo [b]]", 1, 5, "tags (!…) are not supported", id="own tag on a list"),
        pytest.param("!foo a: b", 1, 1, "tags (!…) are not supported", id="tagged key"),
        pytest.param("a: !!binary aGVsbG8=", 1, 4, "tags (!…) are not supported", id="binary"),
        pytest.param("a: !!set {b}", 1, 4, "tags (!…) are not supported", id="set"),
        pytest.param("a: !!int x", 1, 4, "tags (!…) are not supported", id="number by its tag"),
        pytest.param("a: =", 1, 4, "YAML reads '=' as special syntax", id="YAML 1.1's default value"),
        # Texts that are not YAML, or more than one document.
        pytest.param("", 1, 1, "the file is empty", id="empty"),
        pytest.param(" \n\n", 1, 1, "the file is empty", id="white space"),
        pytest.param("# a: b\n\n# c\n", 1, 1, "the file is empty", id="only comments"),
        pytest.param("# a: b\n---\n# c\n", 1, 1, "the file is empty", id="a document of comments"),
        pytest.param(
            "a: 1\n---\nb: 2\n",
            2,
            1,
            "a second document begins here (---): a config file is one document",
            id="two documents",
        ),
        pytest.param("a:\n\tb: 1", 2, 1, "a tab in the indentation: YAML indents with spaces only", id="tab"),
        pytest.param(
            "a:\n  b: 1\n\tc: 2", 3, 1, "a tab in the indentation: YAML indents with spaces only", id="tab after spaces"
        ),
        pytest.param("a: b: c", 1, 5, "a second ': ' in this line: put the value in quotes", id="two colons"),
        pytest.param("a: {b: c\nd: e\n", 1, 4, "the { that opens here is never closed by }", id="open brace"),
        pytest.param('a: "b\nc: d\n', 1, 4, "the quote that opens here is never closed", id="open quote"),
        pytest.param("a: @b", 1, 4, "a value that begins with @ must be in quotes", id="at sign"),
        pytest.param('a: "\\q"', 1, 5, "an unknown escape sequence", id="unknown escape"),
        pytest.param("a: b\n\nc: \0d\n", 3, 4, "a character that YAML does not allow (U+0000)", id="NUL"),
        pytest.param("a: b\rc: d\u2028e: \0", 3, 4, "a character that YAML does not allow (U+0000)", id="line ends"),
        pytest.param("a: b\x07", 1, 5, "a character that YAML does not allow (U+0007)", id="control character"),
        # Here libyaml counts bytes, and everywhere else characters.
        pytest.param("# ööööö\na: ö\n\nb: ö\x1b", 4, 5, "(U+001B)", id="control character after others of two bytes"),
        pytest.param("a: " + "[" * 60 + "]" * 60, 1, 53, "nested too deeply", id="60 lists"),
        # Too deep for the C stack.
        pytest.param("a: " + "{b: " * 200_000, 1, 200, "nested too deeply", id="200,000 mappings"),
        pytest.param("- " * 200_000 + "x", 1, 101, "nested too deeply", id="200,000 list items"),
        pytest.param("".join(" " * n + "a:\n" for n in range(60)), 51, 51, "nested too deeply", id="60 levels"),
    ],
)
def test_an_ambiguous_or_unsupported_value_is_an_error_at_its_place(
    text: str, line: int, column: int, message: str
) -> None:
    found = problems(text)
    assert [(problem.line, problem.column) for problem in found] == [(line, column)]
    assert message in found[0].message
    assert found[0].file == "f.yaml"


def test_very_deep_brackets_are_one_error() -> None:
    [problem] = problems("a: " + "[" * 200_000)
    assert problem.message.endswith("nested too deeply")
    # The place depends on libyaml: since 0.2.6 it counts the levels itself, and gives up earlier.
    assert (problem.line, problem.column) in {(1, 53), (1, 1003)}


def test_all_errors_of_a_file_are_reported_ordered_by_place() -> None:
    text = "a: &x 0640\nb: no\na: 1\nc: [*x, !foo y]\n1: {<<: *x}\n"
    assert [(problem.line, problem.column, problem.message.split(":")[0]) for problem in problems(text)] == [
        (1, 4, "YAML reads '0640' as the number 416 (octal)"),
        (2, 4, "YAML reads 'no' as a boolean"),
        (3, 1, "duplicate key 'a'; first set on line 1"),
        (4, 5, "aliases (*name) are not supported"),
        (4, 9, "tags (!…) are not supported"),
        (5, 1, "YAML reads this key as a number"),
        (5, 5, "merge keys (<<) are not supported"),
    ]


def test_the_mark_is_below_the_column() -> None:
    assert shown("x: 1\nab:   no") == (
        "f.yaml:2:7: YAML reads 'no' as a boolean: write true or false, or put it in quotes\n"
        "    2 | ab:   no\n"
        "      |       ^"
    )


def test_the_mark_keeps_its_column_after_a_tab() -> None:
    assert shown("x: {a:\tno}").splitlines()[1:] == ["    1 | x: {a:\tno}", "      |       \t^"]


def test_columns_count_characters_not_bytes() -> None:
    assert [(problem.line, problem.column) for problem in problems('{"öö": no}')] == [(1, 8)]
    assert shown("a: {b: ö, c: no}").splitlines()[1:] == ["    1 | a: {b: ö, c: no}", "      |              ^"]


def test_lines_are_counted_as_yaml_counts_them() -> None:
    # YAML 1.1 ends a line at CR, at NEL and at the Unicode separators too.
    assert [(problem.line, problem.source) for problem in problems("a: b\r\nc: d\u2028e: f\rg: no")] == [(4, "g: no")]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("client_secret: HUSH", id="the key itself"),
        pytest.param("client_secret:\n  x:\n    - HUSH", id="levels below it"),
        pytest.param("client_secret:\n- HUSH", id="an item that is not indented"),
        pytest.param("password: HUSH", id="password"),
        pytest.param("pw: HUSH", id="pw"),
        pytest.param("api_key: HUSH", id="api_key"),
        pytest.param("client_secrt: HUSH", id="mistyped"),
        pytest.param("client_sercet: {a: HUSH}", id="mistyped, as a mapping"),
        pytest.param("private_key: [x, HUSH]", id="private_key"),
        pytest.param("private_kye: HUSH", id="private_key, mistyped"),
        pytest.param("subject_token: HUSH", id="subject_token"),
        pytest.param("subject_tokn: HUSH", id="subject_token, mistyped"),
        pytest.param("assertion: HUSH", id="assertion"),
        pytest.param("assertoin: HUSH", id="assertion, mistyped"),
        pytest.param("actor_token: HUSH", id="actor_token"),
        pytest.param("refresh_token: HUSH", id="refresh_token"),
        pytest.param("code: HUSH", id="code"),
        pytest.param("device_code: HUSH", id="device_code"),
        pytest.param("ClientSecret: HUSH", id="in another case"),
        pytest.param("a: HUSH # my secret", id="a line that looks as if it held one"),
    ],
)
# Three kinds of error, each with the secret in its line: two scalars, and a text that is not YAML.
@pytest.mark.parametrize("value", ["0123456", "!foo 0123456", "@0123456"])
def test_neither_line_nor_value_of_a_secret_is_shown(text: str, value: str) -> None:
    said = shown(text.replace("HUSH", value))
    assert said.startswith("f.yaml:")
    assert "123456" not in said
    assert str(int("0123456", 8)) not in said  # as YAML reads it, it is the same secret


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('client_secret: "hunter2', id="open quote in the last line"),
        pytest.param('client_secret:\n  - "hunter2', id="open quote in an item"),
        pytest.param('client_secret:\n- "hunter2', id="open quote in an item that is not indented"),
        pytest.param("client_secret: 'hunter\n  hunter2", id="open quote, the line after"),
        pytest.param("client_secret: {file: hunter2\na: hunter2", id="open brace"),
        pytest.param("client_secret: a\n  b\n  hunter2: c", id="a key in the text's third line"),
        pytest.param("client_secret: *hunter2", id="an alias of nothing"),
        pytest.param("client_secret: !hunter2!x y", id="a tag's handle"),
        pytest.param("a: &x b\nclient_secret:\n  [*x, hunter2]", id="an alias beside it"),
    ],
)
def test_errors_about_invalid_yaml_show_no_line_that_may_contain_a_secret(text: str) -> None:
    said = shown(text)
    assert said.startswith("f.yaml:")
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("c: {password:\nhunter2, a: no}", id="the value"),
        pytest.param("c: {password: [x,\nhunter2], a: no}", id="an item"),
        pytest.param("c: {password: {x:\nhunter2}, a: no}", id="a value below it"),
        pytest.param("c: {password: {x: y,\nhunter2: z}, a: no}", id="a key below it"),
        pytest.param('c: {password: "x\nhunter2", a: no}', id="a text's second line"),
    ],
)
def test_a_line_with_a_secret_is_not_shown_for_another_error_in_it(text: str) -> None:
    # Flow style needs no indentation, so the line of the key may be any line before.
    said = shown(text)
    assert re.fullmatch(r"f\.yaml:2:\d+: YAML reads this as a boolean: .*", said)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{proxy: 'http://bob:hunter2@proxy:3128', a: no}", id="a login in a URL"),
        pytest.param("{token_url: 'https://h/?sig=hunter2', a: no}", id="a query of a URL"),
        pytest.param("{name: 'FOO=hunter2', a: no}", id="an assignment"),
        pytest.param("{run: [/usr/bin/curl, -u, 'bob:hunter2'], a: no}", id="an argument of a hook"),
        pytest.param("{client_id: {command: [/usr/bin/vault, hunter2]}, a: no}", id="an argument of a command"),
        pytest.param("{scope: !hunter2 b, a: no}", id="a tag"),
        pytest.param("{scope: &hunter2 b, a: no}", id="an anchor"),
        pytest.param("{&hunter2 scope: b, a: no}", id="an anchor of a key"),
    ],
)
def test_values_beside_the_wrong_one_are_not_shown_if_they_may_be_secret(text: str) -> None:
    found = [problem for problem in problems(text) if "as a boolean" in problem.message]
    assert [problem.source and "a: no" in problem.source for problem in found] == [True]
    assert "hunter2" not in shown(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("client_secret: {file: /x}\na: no", id="the line after it"),
        pytest.param("c:\n  client_secret: {file: /x}\n  a: no", id="its sibling"),
        pytest.param("client_secrets_are_elsewhere: 1\n\nc:\n  - a: no", id="the block after it"),
    ],
)
def test_a_line_beside_a_secret_is_shown(text: str) -> None:
    assert [problem.source for problem in problems(text)] == [text.splitlines()[-1]]


@pytest.mark.parametrize(
    ("text", "line", "mark"),
    [
        pytest.param("a:\n  pin: hunter2  # four digits", "  pin: …", "  ^", id="block"),
        pytest.param("\na: {pin: hunter2}", "a: {pin: …}", "    ^", id="flow"),
        pytest.param(
            "\na: {x: 1, pin: hunter2, y: 2}", "a: {x: 1, pin: …, y: 2}", "          ^", id="flow, in the middle"
        ),
        pytest.param('\n{"a":{"pin":"hunter2"}}', '{"a":{"pin":…}}', "      ^", id="JSON"),
        pytest.param("\n{'a':{'pin':[hunter2]}}", "{'a':{'pin':[…]}}", "      ^", id="JSON in other quotes"),
    ],
)
def test_a_wrong_key_is_shown_without_its_value(text: str, line: str, mark: str) -> None:
    document = Document(text, "f.yaml", shows=lambda path: "pin" not in path)
    document.add(("a", "pin"), "unknown key", "unknown key", at_key=True)
    assert document.problems[0].full == f"f.yaml:2:{len(mark)}: unknown key\n    2 | {line}\n      | {mark}"


def test_a_reported_value_is_not_reported_again() -> None:
    document = Document("a: {b: no}", "f.yaml")
    assert document.value == {"a": {"b": BROKEN}}
    document.add(("a", "b"), "expected a number")
    document.add(("a", "b", "c"), "expected a number")
    assert len(document.problems) == 1


def test_a_wrong_key_is_reported_beside_its_wrong_value() -> None:
    document = Document("modee: 0640", "f.yaml")
    document.add(("modee",), "unknown key 'modee'", at_key=True)
    assert [(problem.column, problem.message[:11]) for problem in ConfigError(document.problems).problems] == [
        (1, "unknown key"),
        (8, "YAML reads "),
    ]


@pytest.mark.parametrize(
    ("path", "at_key", "place"),
    [
        (("a", "b", 1, "c"), False, (4, 10)),
        (("a", "b", 1, "c"), True, (4, 7)),
        (("a", "b", 1), False, (4, 7)),
        (("a", "b"), True, (2, 3)),
        (("a", "missing", "x"), True, (1, 1)),
        ((), False, (1, 1)),
    ],
)
def test_a_problem_is_at_the_deepest_existing_part_of_its_path(
    path: tuple[str | int, ...], at_key: bool, place: tuple[int, int]
) -> None:
    document = Document("a:\n  b:\n    - x\n    - c: d\n", "f.yaml")
    document.add(path, "wrong", at_key=at_key)
    assert [(problem.line, problem.column) for problem in document.problems] == [place]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("outptu", "; did you mean 'output'?"),
        ("secret", "; did you mean 'client_secret'?"),
        ("listen", ""),
        # Keys of other programs: their names alone would suggest nothing, or another key.
        ("password", "; did you mean 'client_secret'?"),
        ("secretFile", "; did you mean 'client_secret'?"),
        ("token_endpoint", ""),
        ("", ""),
    ],
)
def test_only_a_similar_name_is_suggested(name: str, suggestion: str) -> None:
    assert near(name, ["clients", "output", "client_secret"]) == suggestion


@pytest.mark.parametrize(
    "name",
    ["client_id", "clients", "refresh_before", "strict_scope", "token_url", "scope", "issuer", "key_id", "certificate",
     "algorithm", "grant_type", "basic_encoding", "parameters", "resource", "decode", "codes", 1],
)  # fmt: skip
def test_other_keys_take_no_secret(name: object) -> None:
    assert not takes_secret(name)
