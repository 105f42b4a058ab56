"""Every promise and every line of the threat model names a test that exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
RELIABILITY = ROOT / "docs" / "reliability.md"
SECURITY = ROOT / "SECURITY.md"
_PROOF = re.compile(r"`([\w/]+\.py)::(test_\w+)`|`python -m ([\w.]+)[^`]*`")


def section(page: Path, heading: str) -> str:
    """The text below a heading, up to the next one of the same level."""
    level = heading.split(maxsplit=1)[0]
    text = page.read_text(encoding="utf-8")
    return re.split(rf"^{level} ", text.partition(f"{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def items(text: str) -> list[str]:
    """The items of all lists in a text, each as one line."""
    without_headings = re.sub(r"^#+ .*$", "", text, flags=re.MULTILINE)
    return [" ".join(item.split()) for item in re.split(r"^- ", without_headings, flags=re.MULTILINE)[1:]]


def rows(text: str) -> list[str]:
    """The rows of all tables in a text, without their heads."""
    without_heads = re.sub(r"^\|.*\n\|(-+\|)+\n", "", text, flags=re.MULTILINE)
    return [line for line in without_heads.splitlines() if line.startswith("|")]


PROMISES = items(section(RELIABILITY, "## Promises")) + items(section(RELIABILITY, "## Not promised"))
THREATS = rows(section(SECURITY, "## Threat model"))


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def missing(line: str) -> list[str]:
    """What a line names that does not exist; the line itself if it names nothing."""
    proofs = list(_PROOF.finditer(line))
    return [
        proof[0]
        for proof in proofs
        if not ((TESTS / proof[1]).exists() and proof[2] in names_in(proof[1]) if proof[1] else program(proof[3]))
    ] or ([] if proofs else [line])


def program(name: str) -> bool:
    path = TESTS.joinpath(*name.split("."))
    return (path / "__main__.py").exists() or path.with_suffix(".py").exists()


@pytest.mark.parametrize("line", [pytest.param(line, id=line[:60]) for line in (*PROMISES, *THREATS)])
def test_a_promise_names_the_tests_that_show_it(line: str) -> None:
    assert missing(line) == []


def test_a_line_without_a_proof_or_with_a_wrong_one_is_found() -> None:
    assert missing("- **Everything works.**") == ["- **Everything works.**"]
    assert missing("- `api/test_none.py::test_a` and `python -m nothing`") == [
        "`api/test_none.py::test_a`",
        "`python -m nothing`",
    ]
    assert missing("- `test_reliability.py::test_no_such_test`") == ["`test_reliability.py::test_no_such_test`"]


def test_the_page_and_the_readme_promise_much() -> None:
    # Otherwise a page in another form would have nothing to check.
    assert len(PROMISES) > 30
    assert len(THREATS) > 30
