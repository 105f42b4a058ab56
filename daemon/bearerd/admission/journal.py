"""The ledger's file: one per state directory, append-only, locked for as long as it is open."""

from __future__ import annotations

from bearerd.clock import Clock


class Journal:
    """`<state_directory>/ledger`: opened and locked when made, without raising: a state that cannot be kept costs a
    warning, no token.
    """

    def __init__(self, directory: str, clock: Clock) -> None:
        raise NotImplementedError
