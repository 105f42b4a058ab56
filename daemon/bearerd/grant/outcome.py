"""What one grant can come to. The kind of a failure decides how long is waited (lifecycle/policy.py). Pure.

Messages are one line and safe to show anywhere: no token, no secret, nothing of a response's body but
error codes that look like one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from bearerd.model import Token

Named = Literal["named", "zero", "unnamed"]
"""What a reply says of a lifetime: `named`, also in the past; `zero`: 0 where a lifetime should be, and no JWT that
knows better; `unnamed`: nothing. With the last two the lifetime is `default_lifetime`."""
Phase = Literal["secret", "set-up", "discovery", "name look-up", "connect", "TLS", "send", "wait", "read", "reply"]


@dataclass(frozen=True, slots=True)
class NoReply:
    """A request ended without a reply that can be used: in which phase, and why.

    In the phase `set-up` nothing was sent; in the phase `reply` one came that breaks the bounds (heads.py).
    """

    phase: Phase
    reason: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A token as the reply has it; `notes` are what is odd about it.

    Its lifetime may be over: only who knows the token that was held until now can tell what that means
    (lifecycle/token_state.py).
    """

    # Not in repr: its scope and token_type are the provider's text, which could quote anything.
    token: Token = field(repr=False)
    notes: tuple[str, ...] = ()
    named: Named = "named"


@dataclass(frozen=True, slots=True)
class _Failure:
    """No token: in which phase, why, and what to try where that is known."""

    message: str
    phase: Phase = "reply"
    hint: str | None = None

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    @property
    def reached_the_endpoint(self) -> bool:
        """Whether the token endpoint may have seen a request."""
        return self.phase in {"send", "wait", "read", "reply"}


@dataclass(frozen=True, slots=True)
class Unsent(_Failure):
    """Nothing was sent: the secret or the client id could not be read."""


@dataclass(frozen=True, slots=True)
class Transient(_Failure):
    """The network, a provider that is not well (408, 5xx), a token that arrived expired: it passes by itself."""

    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class RateLimited(_Failure):
    """The provider says it was asked too often."""

    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Refused(_Failure):
    """The provider understood and said no: to the client (and so to all its tokens), or to this token."""

    whole_client: bool = True
    another_secret: bool = False
    """Whether the client has another secret that was not refused: it is tried next."""
    request: str = field(default="", repr=False, compare=False)
    """`Target.fingerprint` of the request that was refused; empty if unknown."""


@dataclass(frozen=True, slots=True)
class Malformed(_Failure):
    """A reply that is no good token and no refusal: HTML, an array, a token that would break a header."""


Failure = Unsent | Transient | RateLimited | Refused | Malformed
Outcome = Issued | Failure
KINDS: Final = {
    Issued: "issued",
    Unsent: "unsent",
    Transient: "transient",
    RateLimited: "rate_limited",
    Refused: "refused",
    Malformed: "malformed",
}
"""Each kind, as status and metrics name it."""


@dataclass(frozen=True, slots=True)
class Performed:
    """What a grant came to, and what was seen on the way; None where it did not come so far."""

    outcome: Outcome
    client_id: str = ""
    """For which the token is."""
    token_url: str | None = None
    status: int | None = None
    skew: float | None = None
    """Seconds by which the provider's clock is ahead."""
    took: float | None = None
    """Seconds from the request to its reply."""
