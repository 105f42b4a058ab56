"""What bearerd says about texts that are not YAML: the place of the mistake, and its words."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bearerd.config.document import Document
from bearerd.config.realign import realign

CONFIG = """\
clients:
  dnb:
    token_url: https://login.example.com/t
    client_id: 7e0c5a
    client_secret: {file: /etc/bearerd/dnb.secret}
    tokens:
      bci: {scope: bci}
"""
UNLIKE = "which matches none of the lines above"
UNSEEN = "remove it, or use an ordinary space"


def headlines(text: str) -> list[str]:
    """`LINE:COLUMN: MESSAGE` of each problem."""
    return [problem.full.splitlines()[0].removeprefix("f.yaml:") for problem in Document(text, "f.yaml").problems]


def changed(old: str, new: str) -> str:
    assert old in CONFIG
    return CONFIG.replace(old, new)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # Tabs and other white space.
        (changed("      bci", "\t  bci"), "7:1: a tab in the indentation: YAML indents with spaces only"),
        (changed("      bci", "    \tbci"), "7:5: a tab in the indentation: YAML indents with spaces only"),
        (CONFIG + "files:\n-\tformat: raw\n", "9:2: a tab in the indentation: YAML indents with spaces only"),
        (changed("    client_id", "\u00a0   client_id"), f"4:1: a no-break space (U+00A0): {UNSEEN}"),
        (changed("client_id: ", "client_id:\u00a0"), f"4:15: a no-break space (U+00A0): {UNSEEN}"),
        (changed("    tokens", "\ufeff    tokens"), f"6:1: a byte order mark (U+FEFF): {UNSEEN}"),
        (changed("client_id: ", "client_id\uff1a"), "4:14: a fullwidth colon (U+FF1A): write a colon and a space"),
        # Indentation.
        (changed("    client_", "     client_"), "4:6: indented further than line 3, whose key has a value already"),
        (changed("    client_id", "  client_id"), "5:5: indented further than line 4, whose key has a value already"),
        (changed("    client_", "   client_"), f"4:4: indented by 3 spaces, {UNLIKE}"),
        (CONFIG + "files:\n  - format: raw\n   mode: '0640'\n", f"10:4: indented by 3 spaces, {UNLIKE}"),
        # Colons.
        (changed("client_id: 7", "client_id 7"), "4:5: a colon is missing: expected 'key: value'"),
        (changed("client_id: 7", "client_id = 7"), "4:5: expected 'key: value', found '='"),
        (changed("client_id: 7", "client_id:7"), "4:5: a space is missing after the colon"),
        (changed("tokens:", "tokens"), "6:5: a colon is missing after this key"),
        (changed("clients:", "clients"), "1:1: a colon is missing after this key"),
        (CONFIG + "log\n", "8:1: a colon is missing after this key"),
        ("The config:of us\n" + CONFIG, "1:1: a colon is missing: expected 'key: value'"),
        (changed("7e0c5a", "7e: x"), "4:18: a second ': ' in this line: put the value in quotes"),
        # Quotes and brackets.
        (changed("7e0c5a", '"7e0c5a'), "4:16: the quote that opens here is never closed"),
        (changed("7e0c5a", "'7e0c5a"), "4:16: the quote that opens here is never closed"),
        (
            changed("7e0c5a", '"7e0c5a').replace("/etc", '"/etc'),
            "4:16: the quote that opens here ends in line 5: is a quote missing?",
        ),
        (changed("7e0c5a", "'it's'"), "4:20: text after the closing quote: a ' inside '…' is written twice ('')"),
        (changed("7e0c5a", '"a"b"'), '4:19: text after the closing quote: a " inside "…" is written \\"'),
        (changed("7e0c5a", '"\\d"'), "4:17: an unknown escape sequence: write \\\\ for a backslash, or use '…'"),
        (changed("7e0c5a", '"\\xzz"'), "4:19: an unknown escape sequence: write \\\\ for a backslash, or use '…'"),
        (changed("{scope: bci}", "{scope: bci"), "7:12: the { that opens here is never closed by }"),
        (changed("dnb.secret}", "dnb.secret"), "5:20: the { that opens here is never closed by }"),
        (changed("{scope: bci}", "{scope: [a, b}"), "7:20: the [ that opens here is never closed by ]"),
        (CONFIG + "files: [", "8:8: the [ that opens here is never closed by ]"),
        (CONFIG + "files: [,{}]", "8:9: expected a value before this"),
        (changed("{scope: bci}", "{scope: bci}}"), "7:24: there is no open bracket that this } could close"),
        (changed("{scope: bci}", "{a: b c: d}"), "7:19: expected a comma before this, or the } that closes {"),
        ('{"a": "b"\n "c": "d"}\n', "2:2: expected a comma before this, or the } that closes { (it opens in line 1)"),
        # Characters at the beginning of a value.
        (changed("7e0c5a", "%7e"), "4:16: a value that begins with % must be in quotes"),
        (changed("7e0c5a", "@7e"), "4:16: a value that begins with @ must be in quotes"),
        (changed("7e0c5a", "`7e`"), "4:16: a value that begins with ` must be in quotes"),
        (changed("{scope: bci}", "{scope: *}"), "7:20: a value that begins with * must be in quotes"),
        (changed("7e0c5a", "|7e"), "4:16: a value that begins with | or > must be in quotes"),
        (
            f"```yaml\n{CONFIG}```\n",
            "1:1: ``` is the mark of a code block on the page that this was copied from: remove the line",
        ),
        # Lists.
        (
            changed("    client_id", "    - client_id"),
            "4:5: a list item ('- ') among keys: remove the dash, or indent the list below its key",
        ),
        (
            CONFIG + "files:\n  - format: raw\n  format: json\n",
            ("10:3: a key among the items of the list that begins in line 9: begin it with '- ' if it is an item, or "
            "indent it differently"),
        ),
        (changed("{file: /etc/bearerd/dnb.secret}", "[a] b"), ("5:24: unexpected text after the value: put the whole "
         "value in quotes")),
        # Documents and other languages.
        (CONFIG + "...\nlog: {}\n", "8:1: '...' ends the config here: remove it"),
        ("%FOO\n" + CONFIG, "1:1: a line that begins with % is a directive of YAML: remove it"),
        # Where PyYAML gives up after the last line.
        ("%YAML 1.2", "1:1: a line that begins with % is a directive of YAML: remove it"),
        ("%YAML 1.2\n" + CONFIG, "1:1: a line that begins with % is a directive of YAML: remove it"),
        ("[clients.dnb]\ntoken_url = 1\n", "1:1: this looks like INI or TOML; a config is YAML"),
        ('{"a": 1}\nb: 2\n', "2:1: more text after the end of the config"),
        (changed("    client_id", "<<<<<<< HEAD\n    client_id"), ("4:1: a conflict marker of a merge: keep one of the "
         "two versions")),
        (CONFIG.encode("utf-16-le").decode(), "1:2: this looks like UTF-16: save the file as UTF-8"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_error_at_its_place(text: str, said: str) -> None:
    assert headlines(text) == [said]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (changed("7e0c5a", "“7e0c5a”"), "4:16: typographic quotes are part of the value: use ' or \""),
        (
            changed("7e0c5a", "7e0c5a\u00a0"),
            "4:16: a no-break space (U+00A0) is part of this text: remove it, or put the text in quotes",
        ),
        (
            changed("client_id:", "client\u200b_id:"),
            "4:5: a zero width space (U+200B) is part of this text: remove it, or put the text in quotes",
        ),
        (
            changed("7e0c5a", "{{ id }}"),
            "4:17: a key must be text, found {…}: is this a template that was not filled in?",
        ),
        ("a: &7e", "1:4: no value after an anchor (&name): a text that begins with & must be in quotes"),
    ],
)  # fmt: skip
def test_yaml_that_means_something_else_than_its_author_is_one_error(text: str, said: str) -> None:
    assert headlines(text) == [said]


@pytest.mark.parametrize("text", [CONFIG.replace("\n", "\r\n"), CONFIG.replace("\n", "\r"), "%YAML 1.2\n---\n" + CONFIG,
                                  "---\n" + CONFIG, changed("client_id: ", "client_id:\t")])  # fmt: skip
def test_other_line_ends_and_tabs_after_a_colon_are_fine(text: str) -> None:
    assert headlines(text) == []


def test_a_character_in_a_line_that_was_meant_elsewhere_has_its_own_place() -> None:
    text = "b:\n\0:\n\tb"
    places = [(problem.line, problem.column) for problem in Document(text, "f.yaml", realigned=realign(text)).problems]
    assert places == [(2, 1), (2, 1)]


@given(st.text("a-:{}[]'\"#&*!|>%@`\t\n ?,.\\<\u00a0\u201c", max_size=60))
def test_any_text_that_is_no_yaml_has_an_error_in_a_line_that_it_has(text: str) -> None:
    try:
        list(yaml.parse(text, Loader=yaml.CSafeLoader))
    except yaml.YAMLError:
        document = Document(text, "f.yaml")
        assert document.problems
        assert all(1 <= problem.line <= len(text.splitlines()) for problem in document.problems)
        assert not any("expected <" in problem.message for problem in document.problems)
