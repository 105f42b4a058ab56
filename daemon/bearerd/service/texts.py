"""Reads secrets for a check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from bearerd.errors import SecretUnavailable
from bearerd.secrets.advice import advised
from bearerd.secrets.kinds import source_of
from bearerd.secrets.source import SecretSource
from bearerd.terms import Reference

_Read = Callable[[SecretSource], str]
Known = dict[tuple[Reference, _Read], str | SecretUnavailable]
"""What a check has read, or why it could not. Each reference is read once: a command that hangs takes 10 s."""


class Texts:
    """Reads references for one finding of a check, and collects what is wrong with them."""

    def __init__(self, environ: Mapping[str, str], known: Known) -> None:
        """`known` is shared by all findings."""
        self._environ = environ
        self._known = known
        self.faults: list[str] = []
        self.hidden: dict[str, str] = {}
        """By reference: why this process cannot see a secret that the daemon can."""
        self.weak: list[str] = []
        """What is wrong with secrets that can be used at the provider, but not to share tokens."""

    def verbatim(self, reference: Reference | None) -> str:
        """A text that is used as it is; empty if there is a fault."""
        return self._text(reference, SecretSource.check)

    def parsed(self, reference: Reference | None) -> str:
        """A key or certificate: its format allows blanks around it; empty if there is a fault."""
        return self._text(reference, SecretSource.read)

    def not_seen(self) -> str:
        """Which secrets the check cannot see, by reason."""
        by_reason: dict[str, list[str]] = {}
        for reference, reason in self.hidden.items():
            by_reason.setdefault(reason, []).append(reference)
        return "; ".join(f"{', '.join(references)}: {reason}" for reason, references in by_reason.items())

    def _text(self, reference: Reference | None, read: _Read) -> str:
        if reference is None:
            return ""
        source = source_of(reference, self._environ)
        if reason := source.hidden():
            self.hidden[str(reference)] = reason
            return ""
        if (reference, read) not in self._known:
            try:
                self._known[reference, read] = read(source)
            except SecretUnavailable as error:
                self._known[reference, read] = error
        found = self._known[reference, read]
        if isinstance(found, SecretUnavailable):
            self.faults.append(advised(str(found)))
            return ""
        return found


def rotation(references: Iterable[Reference], environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Which of these need a restart after a rotation; bearerd reads all others again."""
    names = [str(reference) for reference in references if source_of(reference, environ).set_at_start]
    if not names:
        return ()
    several = len(names) > 1
    text = f"{', '.join(names)} {'are' if several else 'is'} set when the unit starts"
    return (("rotation", f"{text}; run systemctl restart to use {'new ones' if several else 'a new one'}"),)
