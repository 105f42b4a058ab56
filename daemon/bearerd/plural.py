"""Numbers with their nouns, and several errors in one message. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """`1 token`, `2 tokens`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def together(faults: Iterable[str]) -> str:
    """Several faults in one text. Those with the same cause are one, and each advice comes once, after the last cause.

    `/a, /b: no space left; free some space`.
    """
    paths: dict[str, list[str]] = {}
    for fault in faults:
        path, _, what = fault.partition(": ")
        paths.setdefault(what, []).append(path)
    advised: dict[str, list[str]] = {}
    for what, those in paths.items():
        cause, _, do = what.partition("; ")
        place = ", ".join(dict.fromkeys(those))
        advised.setdefault(do, []).append(f"{place}: {cause}" if cause else place)
    return "; ".join("; ".join([*causes, do] if do else causes) for do, causes in advised.items())
