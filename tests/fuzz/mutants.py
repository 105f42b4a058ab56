"""Faults that the fuzzer has to find within seconds: a bound is removed, a check is skipped, an error is not caught."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from unittest import mock


@dataclass(frozen=True)
class Mutant:
    """A function in place of the one that a module has."""

    target: str
    """The target that finds it."""
    module: str
    name: str
    instead: Callable[..., Any]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the fault into this process, for the block."""
        with mock.patch.object(import_module(self.module), self.name, self.instead):
            yield


def _all_claims(access_token: str) -> dict[str, Any]:
    """Without the check that the claims are an object, and without the bound on their nesting."""
    import base64  # noqa: PLC0415 - a copy of the function's own
    import json  # noqa: PLC0415

    parts = access_token.split(".")
    if len(parts) != 3:
        return {}
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    return found


MUTANTS = {
    "tokens with line ends": Mutant("reply", "bearerd.grant.reply", "_unusable", lambda _: None),
    "claims that are no object": Mutant("reply", "bearerd.grant.lifetime", "jwt_claims", _all_claims),
    "any text as an error code": Mutant("reply", "bearerd.grant.codes", "_shown", lambda value, *_: value or None),
    "records with line ends": Mutant("record", "bearerd.publish.record", "_one_word", lambda text: text),
    "passwords of URLs in errors": Mutant("config", "bearerd.config.document", "is_plain_value", lambda _: True),
    "any fence": Mutant("resp", "bearerd.share.replies", "_number", lambda text, *_: int(text)),
    "control characters in requests": Mutant(
        "request", "bearerd.api.message", "_request_line", lambda line: (*line.split(" ")[:2], (1, 1))
    ),
}
"""By what is accepted with it, or shown."""
