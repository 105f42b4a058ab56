"""Looks for a secret in the memory of this process."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence

from support import canary


def kept(parts: Sequence[str]) -> list[str]:
    """Every text of this process that contains a part of the secret, and what holds it.

    `parts` are objects of the test's own, which do not count. Neither does the canary, which knows all secrets.
    """
    gc.collect()
    todo = gc.get_objects()
    # The texts themselves are not left out: what the canary was told is the very object that bearerd has.
    left_out = {id(thing) for watch in canary.watching() for thing in _containers(vars(watch.canary))}
    seen: set[int] = set()
    found: list[str] = []
    while todo:
        holder = todo.pop()
        if id(holder) in left_out:
            continue
        for thing in gc.get_referents(holder):
            if id(thing) in seen:
                continue
            if isinstance(thing, str | bytes | bytearray):
                seen.add(id(thing))
                text = thing if isinstance(thing, str) else bytes(thing).decode("latin-1")
                if any(part in text and thing is not part for part in parts):
                    found.append(f"{text[:80]!r} in {type(holder).__name__}")
            elif not gc.is_tracked(thing):
                # A dict or tuple of texts alone, which the collector does not list.
                seen.add(id(thing))
                todo.append(thing)
    return found


def _containers(thing: object) -> Iterator[object]:
    """The dicts, sets and tuples in a thing, and itself if it is one."""
    if isinstance(thing, dict | set | tuple):
        yield thing
        for each in (*thing.keys(), *thing.values()) if isinstance(thing, dict) else thing:
            yield from _containers(each)
