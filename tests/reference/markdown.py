"""docs/config.md: what is written by hand, and below it every key of the config. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import wrap
from typing import Any, Final

from bearerd.config.schema import flow
from reference.shape import INHERITED, SECTIONS, Entry, Kind, Section, sections

MARK: Final = "<!-- Everything below is generated: run `python -m reference` in tests/ after a change. -->"
# The width of the documentation's lines.
_WIDTH: Final = 123


def page(current: str) -> str:
    """The whole page; of the current one, what is above the mark stays."""
    above, mark, _ = current.partition(MARK)
    if not mark:
        raise ValueError(f"docs/config.md has no line {MARK}")
    whole = sections()
    contents = "".join(f"- {_link(section.heading)}\n" for section in whole)
    return f"{above}{MARK}\n\n{contents}" + "".join(map(_section, whole))


def _section(section: Section) -> str:
    entries = "".join("\n".join(_entry(entry)) for entry in section.entries)
    intro = section.intro
    for other in {*SECTIONS.values(), INHERITED} - {section.heading}:
        intro = intro.replace(other.lower(), _link(other.lower()))
    return f"\n## {section.heading}\n\n{_filled(intro)}\n{entries}"


def _entry(entry: Entry) -> Iterator[str]:
    yield from ("", f"### {entry.heading}", "", _filled(entry.text), "")
    required = "Required. " if entry.required else ""
    yield _filled(f"- {required}Value: {_linked(entry.kind)}", "  ")
    lines = [example(entry.name, value) for value in entry.examples]
    if all(len(line) == 1 for line in lines):
        shown = ", or ".join(f"`{line[0]}`" for line in lines)
        yield _filled(f"- Example: {shown}", "  ")
    else:
        yield "- Example:"
        for block in lines:
            yield from ("", "  ```yaml", *(f"  {line}" for line in block), "  ```")
    yield ""


def example(name: str, value: Any) -> list[str]:
    """A key with a value, as lines of YAML: one if it is short."""
    line = f"{name}: {flow(value)}"
    if len(line) <= 90 or not isinstance(value, dict | list):
        return [line]
    items = (
        [example(key, inner) for key, inner in value.items()]
        if isinstance(value, dict)
        else [[f"- {flow(inner)}"] for inner in value]
    )
    return [f"{name}:", *(f"  {inner}" for item in items for inner in item)]


def _linked(kind: Kind) -> str:
    words, reference = kind.words, SECTIONS["ReferenceModel"]
    if reference in kind.sections:
        words = words.replace("secret reference", f"[secret reference](#{_anchor(reference)})")
    others = ", ".join(_link(name.lower()) for name in kind.sections if name != reference)
    return f"{words} ({others})" if others else words


def _link(text: str) -> str:
    return f"[{text}](#{_anchor(text)})"


def _filled(text: str, indent: str = "") -> str:
    linked = re.sub(r"\bdocs/([a-z-]+\.md)\b", r"[\1](\1)", text)
    return "\n".join(wrap(linked, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))


def _anchor(heading: str) -> str:
    """The anchor of a heading, as forges make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
