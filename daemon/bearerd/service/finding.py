"""What a check finds. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bearerd.plural import together


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: `ok`, `failed`, or a `warning`."""

    subject: str
    verdict: str
    level: str = "ok"
    details: tuple[tuple[str, str], ...] = ()
    """Details, each with a name and a text."""
    known: bool = True
    """False if this process cannot find out, which counts as failed."""


def finding_of(subject: str, faults: list[str], good: str, details: tuple[tuple[str, str], ...] = ()) -> Finding:
    """What is wrong with a subject, or else what is right."""
    # One file may be configured twice, such as a PKCS#12 file as certificate and key.
    return (
        Finding(subject, together(dict.fromkeys(faults)), "failed")
        if faults
        else Finding(subject, good, details=details)
    )
