"""docs/consumers.md, taken apart: what people copy out of it is what is run."""

from __future__ import annotations

from pathlib import Path

from support.pages import Block, blocks

PAGE = Path(__file__).parents[2] / "docs" / "consumers.md"
NOT_RUN = "Not run by our tests"
"""The heading above the programs that the page only describes."""


def ours(block: Block) -> bool:
    """Whether it is a piece of bearerd's config: its first line says whose each block is."""
    return block.language == "yaml" and block.text.startswith("# bearerd")


def config(fragment: str = "") -> str:
    """The whole config that the page begins with, and a piece of one that adds files and hooks to it."""
    return next(block.text for block in blocks(PAGE) if ours(block)) + fragment


def fragment(heading: str) -> str:
    """What bearerd is told for the program of a section."""
    (text,) = (block.text for block in blocks(PAGE) if block.heading == heading and ours(block))
    return text


def theirs(heading: str, language: str) -> str:
    """What the program of a section is told, in the one block of this language."""
    (text,) = (
        block.text
        for block in blocks(PAGE)
        if block.heading == heading and block.language == language and not ours(block)
    )
    return text
