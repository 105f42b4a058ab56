"""The outcomes of a grant. The kind of a failure decides how long the next attempt waits (lifecycle/policy.py). Pure.

Messages are one line and safe to show anywhere: they hold no token, no secret, and nothing of a reply's body except
its error code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from bearerd.grant.times import SKEWED
from bearerd.secrets.advice import advice_on
from bearerd.terms import Token
from bearerd.timeformat import duration

Named = Literal["named", "zero", "unnamed"]
"""How a reply names the lifetime: `named`, even if in the past; `zero`: a lifetime of 0, and no JWT with an `exp`;
`unnamed`: not at all. With the last two the lifetime is `default_lifetime`."""
Phase = Literal[
    "secret", "set-up", "discovery", "name look-up", "connect", "proxy login", "TLS", "send", "wait", "read", "reply"
]

ARRIVED_EXPIRED: Final = "the new token had expired when it arrived"
HTTP2_HINT: Final = (
    "this port speaks only HTTP/2, and bearerd HTTP/1.1: ask the provider for an endpoint that accepts it"
)


@dataclass(frozen=True, slots=True)
class NoReply:
    """A request that ended without a usable reply: the phase, and the reason.

    In the phase `set-up` nothing was sent; in the phase `reply` there was one beyond the bounds (heads.py). In the
    phase `proxy login` the proxy refused the configured login.
    """

    phase: Phase
    reason: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The fields of a reply that a token was read from."""

    token: str = "access_token"  # noqa: S105 - the field's name
    lifetime: str = ""
    """Or `exp of the JWT`; `default_lifetime` if none can be used, empty if none is there."""
    token_type: bool = False
    """Whether the reply named it."""
    scope: bool = False
    """Whether the reply named it."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A token from a reply; `notes` say what is unusual about it.

    It may have expired already: lifecycle/token_state.py compares it with the token that is held.
    """

    # Not in repr: scope and token_type are the provider's text, which could quote anything.
    token: Token = field(repr=False)
    notes: tuple[str, ...] = ()
    named: Named = "named"
    nbf: float = 0.0
    """Seconds from the reply until the token is valid, as a JWT says in `nbf`; 0 if it is valid at once."""
    reading: Reading = field(default=Reading(), compare=False)

    def expired(self, now: float) -> bool:
        """Whether the token has expired at this time (boot clock) by a lifetime that the reply named."""
        return self.named == "named" and self.token.expires.boot <= now

    def why_expired(self, skew: float | None) -> str:
        """What to do about a token that had expired when it arrived.

        `skew`: seconds by which the provider's clock is ahead; None if that is not known.
        """
        if skew is None or abs(skew) > SKEWED:
            return "compare this machine's clock with the provider's; if they agree, ask the provider"
        if self.token.lifetime <= 0:
            seconds = round(self.token.lifetime)
            return f"the clocks agree, and the reply names a lifetime of {seconds} s: ask the provider"
        valid = duration(self.token.lifetime)
        return f"the clocks agree, and the reply took longer than its token is valid ({valid}): ask the provider"


@dataclass(frozen=True, slots=True)
class _Failure:
    """No token: the reason, the phase, and what to try if that is known."""

    message: str
    phase: Phase = "reply"
    hint: str | None = None

    def __str__(self) -> str:
        return f"{self.reason}; {self.advice}" if self.advice else self.reason

    @property
    def advice(self) -> str:
        """What to try; empty if that is not known."""
        return self.hint or ""

    @property
    def reason(self) -> str:
        """All that is known, without what to try."""
        return self.message

    @property
    def reached_the_endpoint(self) -> bool:
        """Whether the token endpoint may have seen a request."""
        return self.phase in {"send", "wait", "read", "reply"}


@dataclass(frozen=True, slots=True)
class Unsent(_Failure):
    """Nothing was sent, for example because the secret could not be read."""

    @property
    def advice(self) -> str:
        """What to try; empty if that is not known, or if the message says it."""
        return self.hint or (advice_on(self.message) if self.phase == "secret" else "")


@dataclass(frozen=True, slots=True)
class _Passing(_Failure):
    """A failure after which a provider may name the wait until the next attempt."""

    retry_after: float | None = None
    """Seconds; None if the provider named no wait."""

    @property
    def reason(self) -> str:
        """The message, and the wait that the provider named."""
        return (
            f"{self.message}; the provider asks to wait {duration(self.retry_after)}"
            if self.retry_after
            else self.message
        )


@dataclass(frozen=True, slots=True)
class Transient(_Passing):
    """A temporary failure: of the network or the provider (408, 5xx), or a token that arrived expired."""


@dataclass(frozen=True, slots=True)
class RateLimited(_Passing):
    """The provider received too many requests."""


@dataclass(frozen=True, slots=True)
class Refused(_Failure):
    """The provider refused the client, and so all of its tokens, or this token alone."""

    whole_client: bool = True
    another_secret: bool = False
    """Whether the client has another secret that was not refused: it is tried next."""
    request: str = field(default="", repr=False, compare=False)
    """`Target.fingerprint` of the request that was refused; empty if unknown."""
    before: int = field(default=0, compare=False)
    """Refusals in a row before this one by the whole fleet, of the client or of this token alone."""


@dataclass(frozen=True, slots=True)
class Malformed(_Failure):
    """A reply that is neither a usable token nor a refusal: HTML, an array, a token that would break a header.

    Also a login that the proxy refused: tried every few seconds, it would lock the account at the proxy.
    """


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
"""The name of each kind in status and metrics."""


@dataclass(frozen=True, slots=True)
class Performed:
    """The outcome of a grant with its details; None for those that it did not reach."""

    outcome: Outcome
    client_id: str = ""
    """The client id that the token was requested for."""
    token_url: str | None = None
    status: int | None = None
    skew: float | None = None
    """Seconds by which the provider's clock is ahead."""
    took: float | None = None
    """Seconds from the request to its reply."""
