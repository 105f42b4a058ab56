"""The token that a target holds, and the one in its files, which may be an older one for a while. Pure.

Some providers issue tokens that their APIs accept only after a while: they replicate them first (`publish_delay`), or
say so in the token itself (a JWT's `nbf`). Such a token waits, and the present one stays in the files until then.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, replace
from math import inf
from typing import Final

from bearerd.lifecycle import policy
from bearerd.lifecycle.token_state import Accepted, TokenState, resumed
from bearerd.model import Target
from bearerd.publish.record import Record
from bearerd.terms import Instant, Token

LONGEST_NBF: Final = 60.0
"""Seconds for which a token waits for its `nbf`. A later one means that a clock is wrong."""
# Hex digits of a token's SHA-256: enough to distinguish tokens, and useless for recovering one.
_DIGEST: Final = 16


@dataclass(frozen=True, slots=True)
class Waiting:
    """A new token that is not in the files yet. Times are those of the boot clock."""

    present: TokenState
    """The token that stays in the files; empty if there is none."""
    not_before: float
    """When the new token becomes valid, by its `nbf`. It is never published earlier."""
    delayed: float
    """The end of `publish_delay`; in the past if a consumer asked for the new token."""
    own: bool = True
    """Whether the current token is for the same request. A token for a different config delays nothing."""

    @property
    def at(self) -> float:
        """When the new token is published."""
        expires = self.present.ends if self.present.current is not None and self.own else -inf
        return max(self.not_before, min(self.delayed, expires))


def wait(
    token: Token, present: TokenState, delay: float, valid_at: float, now: float, *, own: bool = True
) -> Waiting | None:
    """The wait of a new token; None if it is published at once. `valid_at`: when (boot clock) it becomes valid.

    It waits for half its lifetime at most, so that it is published before its own refresh is due.
    """
    if present.current is not None and present.current.access_token == token.access_token:
        present = TokenState()
    requested = token.obtained.boot
    latest = requested + token.lifetime / 2
    waiting = Waiting(present, min(valid_at, now + LONGEST_NBF, latest), min(requested + delay, latest), own)
    return waiting if waiting.at > now else None


class HeldToken:
    """The token that a target holds, the request that it was issued for, and its wait for publication."""

    __slots__ = ("_client_id", "_doubted", "fence", "identity", "state", "waiting")

    def __init__(self) -> None:
        self.state = TokenState()
        """The newest token."""
        self.identity = ""
        """The identity under which it was requested. It differs from the target's after a config change."""
        self.fence = 0
        """Its fencing number in its fleet; 0 if it has none."""
        self.waiting: Waiting | None = None
        self._client_id = self._doubted = ""
        # The digest of the token that a consumer named last, because it fails.

    @property
    def in_files(self) -> TokenState:
        """The token for the files."""
        return self.state if self.waiting is None else self.waiting.present

    def is_for(self, target: Target) -> bool:
        """Whether the token is the one that the config wants."""
        return self.identity == target.identity()

    def is_newer(self, instead_of: str | None, now: float) -> bool:
        """Whether the token for the files is valid and differs from the one with this digest."""
        state = self.in_files
        if instead_of is None or state.current is None or state.ends <= now:
            return False
        return not _is(state.current, instead_of)

    def replaces(self, instead_of: str | None) -> bool:
        """Whether a token is waiting that differs from the one with this digest."""
        token = self.state.current
        return self.waiting is not None and instead_of is not None and token is not None and not _is(token, instead_of)

    # -- changes ---------------------------------------------------------------------------------

    def take(self, accepted: Accepted, target: Target, client_id: str, nbf: float, now: float, fence: int = 0) -> None:
        """Store the state after a reply. A new token may wait."""
        if accepted.kind == "expired":  # the held token stays, also one that another config wanted
            self.state = replace(self.state, arrived_expired=accepted.state.arrived_expired)
            return
        present, own = self._present(target)
        self.state, self.identity, self._client_id = accepted.state, target.identity(), client_id
        self.fence = fence
        if accepted.kind == "new":
            # Counted from the reply, whose `Date` it was compared with: so it is never published too early.
            self._wait(target, present, now + nbf if nbf else -inf, now, own=own)

    def adopt(self, record: Record, target: Target, now: Instant) -> policy.Dated | None:
        """Take a token that another daemon of the fleet obtained. Returns None if it has expired, by either clock."""
        dated = policy.redate(record.token, now)
        token = dated.token
        if token.expires.boot <= now.boot:
            return None
        present, own = self._present(target)
        again = self.state.token is not None and self.state.token.access_token == token.access_token
        # Another daemon that saw no lifetime has checked what that means.
        self.state = replace(
            resumed(token, now.boot, named=record.named, sliding=record.sliding),
            never_named=not record.named,
            confirmed=self.state.confirmed if again else -inf,
        )
        self.identity, self._client_id, self.fence = record.identity, record.client_id, record.fence
        if not again:
            valid_at = token.obtained.boot + record.not_before if record.not_before else -inf
            self._wait(target, present, valid_at, now.boot, own=own)
        return dated

    def _present(self, target: Target) -> tuple[TokenState, bool]:
        """The token in the files, and whether it is for the request of this target."""
        return self.in_files, self.is_for(target) and (self.waiting is None or self.waiting.own)

    def _wait(self, target: Target, present: TokenState, valid_at: float, now: float, *, own: bool) -> None:
        """Let the newest token wait if it has to; the present one stays in the files until then."""
        if self.state.token is not None:
            doubted = present.current is not None and _is(present.current, self._doubted)
            delay = 0.0 if doubted else target.publish_delay
            self.waiting = wait(self.state.token, present, delay, valid_at, now, own=own)

    def expected(self, now: float) -> None:
        """Note that another daemon is requesting the next token, as if the provider had just returned this one."""
        self.state = replace(self.state, confirmed=now)

    def publish_if_due(self, now: float) -> bool:
        """End the wait if it is over. Returns whether it ended."""
        if self.waiting is None or now < self.waiting.at:
            return False
        self.waiting = None
        return True

    def doubt(self, digest: str) -> None:
        """Note that a consumer names this token as one that fails. Its replacement only waits for its `nbf`."""
        self._doubted = digest
        if self.waiting is None or self.waiting.delayed == -inf:
            return  # a consumer may name it again and again, and each change is a write
        present = self.waiting.present.current
        if present is not None and _is(present, digest):
            self.waiting = replace(self.waiting, delayed=-inf)

    def shorten(self, delay: float) -> None:
        """Apply a changed `publish_delay`. A longer one applies to the next token."""
        token = self.state.token
        if self.waiting is not None and token is not None:
            self.waiting = replace(self.waiting, delayed=min(self.waiting.delayed, token.obtained.boot + delay))

    def redate(self, now: Instant) -> policy.Dated | None:
        """Correct the times after a step of the wall clock. Returns the token with its new times if there was one."""
        token = self.state.current
        dated = None if token is None else policy.redate(token, now)
        if dated is None or not dated.stepped:
            return None
        self.state = self.state.dated(dated.token)
        if self.waiting is not None and self.waiting.present.current is not None:
            present = policy.redate(self.waiting.present.current, now)
            self.waiting = replace(self.waiting, present=self.waiting.present.dated(present.token))
        return dated

    # -- the record --------------------------------------------------------------------------------

    def record(self, target: Target) -> Record | None:
        """The record of the held token; None without one that the current config wants."""
        state, waiting = self.state, self.waiting
        token = state.current
        if token is None or not self.is_for(target):
            return None
        record = Record(
            token,
            self.identity,
            self._client_id,
            named=state.named,
            sliding=state.sliding,
            unsure=state.unsure,
            fence=self.fence,
        )
        if waiting is None:
            return record
        requested = token.obtained.boot
        return replace(
            record,
            present=waiting.present.current if waiting.own else None,
            not_before=max(0.0, waiting.not_before - requested),
            publish_after=max(0.0, waiting.delayed - requested),
        )

    def resume(self, record: Record, target: Target, now: Instant) -> policy.Dated:
        """Take the token from a record of this target. An expired one only serves to recognise it in a later reply."""
        dated = policy.redate(record.token, now)
        self.state = resumed(dated.token, now.boot, named=record.named, sliding=record.sliding, unsure=record.unsure)
        self._client_id, self.identity, self.fence = record.client_id, record.identity, record.fence
        if record.waits:
            present = TokenState()
            if record.present is not None:
                present = resumed(policy.redate(record.present, now).token, now.boot, named=True, sliding=False)
            delay = min(record.publish_after, target.publish_delay)
            valid_at = dated.token.obtained.boot + record.not_before
            self.waiting = wait(dated.token, present, delay, valid_at, now.boot)
        return dated


def _is(token: Token, digest: str) -> bool:
    """Whether a token has this digest."""
    known = hashlib.sha256(token.access_token.encode()).hexdigest()[:_DIGEST]
    return hmac.compare_digest(known, digest.lower())
