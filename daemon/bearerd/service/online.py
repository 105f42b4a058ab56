"""`bearerd check --online`: one grant for each client, and what was sent, came back and was understood.

Names are shown, and never the value of a secret, a token or a parameter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from bearerd.clock import Clock, SystemClock
from bearerd.grant.certificate import expiry_of, subject_of
from bearerd.grant.exchange import Exchange, described, without_query
from bearerd.grant.explain import addressee
from bearerd.grant.metadata import well_known_urls
from bearerd.grant.outcome import ARRIVED_EXPIRED, Issued, Outcome, Performed, Reading, Refused, Unsent
from bearerd.grant.perform import Grants
from bearerd.model import Client, Target
from bearerd.service.finding import Finding
from bearerd.terms import Token
from bearerd.timeformat import duration
from bearerd.trouble import usual_advice

Details = tuple[tuple[str, str], ...]
_NONE_NAMED: Final = "none named"
_DAY: Final = 86400.0


def try_online(
    able: Sequence[Target],
    environ: Mapping[str, str],
    unmade: Callable[[Target, Token], Mapping[str, str]] = lambda _target, _token: {},
) -> Iterator[Finding]:
    """One grant for each client, for the first of its targets that passed the checks.

    `unmade` returns why files could not be made from the token, by path.
    """
    exchanges: list[Exchange] = []
    clock = SystemClock()
    grants = Grants(clock, environ, observe=lambda request, reply: exchanges.append(described(request, reply)))
    seen: set[str] = set()
    for target in able:
        if target.client.name in seen:
            continue
        seen.add(target.client.name)
        again = True
        while again:
            exchanges.clear()
            performed = grants.perform(target)
            yield from _findings(target, performed, exchanges[0] if exchanges else None, clock)
            if isinstance(performed.outcome, Issued):
                for path, fault in unmade(target, performed.outcome.token).items():
                    yield Finding(f"file {path}", fault, "failed")
            again = isinstance(performed.outcome, Refused) and performed.outcome.another_secret


def _findings(target: Target, performed: Performed, exchange: Exchange | None, clock: Clock) -> Iterator[Finding]:
    subject, outcome = f"grant {target.full_name}", performed.outcome
    details = (
        *_sent(target, outcome, exchange, clock),
        *_received(performed, exchange),
        *_understood(performed, exchange),
    )
    if isinstance(outcome, Issued) and outcome.expired(clock.now().boot):
        hint = ("hint", outcome.why_expired(performed.skew))
        yield Finding(subject, ARRIVED_EXPIRED, "failed", (*details, hint))
    elif isinstance(outcome, Issued):
        yield Finding(subject, f"a token, good for {duration(outcome.token.lifetime)}", details=details)
        for note in outcome.notes:
            yield Finding(subject, note, "warning")
    else:
        another = isinstance(outcome, Refused) and outcome.another_secret
        yield Finding(subject, outcome.reason, "warning" if another else "failed", details)


def _sent(target: Target, outcome: Outcome, exchange: Exchange | None, clock: Clock) -> Details:
    client = target.client
    auth = ("auth", _auth(client))
    scope = ("scope requested", target.scope or "none")
    if exchange is None:
        return (("request", f"no token request was sent; {_reached(client, outcome)}"), auth, scope)
    proxy = client.provider.proxy
    through = f", through the proxy {addressee(proxy)}" if proxy else ""
    found = [("request", f"{exchange.method} {exchange.url}{through}"), auth]
    found.append(("parameters", ", ".join(exchange.parameters) + (" (as JSON)" if exchange.as_json else "")))
    found.append(("headers", ", ".join(exchange.headers)))
    if exchange.certificate:
        found.append(("certificate", _certificate(exchange.certificate, clock.now().wall)))
    return (*found, scope)


def _reached(client: Client, outcome: Outcome) -> str:
    """What was requested before the token."""
    provider = client.provider
    if provider.token_url is not None or isinstance(outcome, Issued | Unsent):
        # Something that the request needs could not be read.
        return f"the {'token_url' if provider.token_url else 'issuer'} is {without_query(provider.url)}"
    first, second = well_known_urls(provider.issuer or "")
    # The second one has the same host: without a reply from the first one it is not requested.
    return f"metadata requested from {f'{first} and {second}' if outcome.phase == 'discovery' else first}"


def _auth(client: Client) -> str:
    if client.auth == "client_secret_basic":
        return f"{client.auth} (basic_encoding: {client.basic_encoding})"
    return client.auth


def _certificate(certificate: str, now: float) -> str:
    """Its subject, and how long it is still valid."""
    subject, expires = subject_of(certificate) or "no subject", expiry_of(certificate)
    if expires is None:
        return subject
    left = expires - now
    valid = f"valid for {left / _DAY:.0f} more days" if left > 2 * _DAY else f"valid for {duration(left)} more"
    return f"{subject} ({valid if left > 0 else 'expired'})"


def _received(performed: Performed, exchange: Exchange | None) -> Details:
    if exchange is None or performed.took is None:
        return ()
    after = f"after {duration(performed.took)}"
    if exchange.status is None:
        return (("reply", f"none, {after}"),)
    found = [("reply", f"HTTP {exchange.status}, {exchange.content_type}, {after}"), ("fields", exchange.fields)]
    clock = _clock(performed.skew, performed.took)
    return (*found, *([("clock", clock)] if clock else []))


def _clock(skew: float | None, took: float) -> str | None:
    """The difference between the clocks; None if it may be less than a second.

    `Date` has whole seconds, so the provider's clock was up to a second later; and the reply was made at some moment
    between the request and its arrival.
    """
    if skew is None or (skew - took / 2 < 1 and skew + 1 + took / 2 > -1):
        return None
    way = "ahead of" if skew > 0 else "behind"
    return f"the provider's is {duration(abs(skew + 0.5))} {way} this machine's"


def _understood(performed: Performed, exchange: Exchange | None) -> Details:
    outcome = performed.outcome
    if not isinstance(outcome, Issued):
        code = exchange.code if exchange else ""
        hint = outcome.hint or usual_advice(outcome)
        return (*([("code", code)] if code else []), *([("hint", hint)] if hint else []))
    token, reading = outcome.token, outcome.reading
    kind = _shown(token.token_type, token, exchange)
    return (
        ("token", f"from {reading.token}"),
        ("token type", kind if reading.token_type else f"{_NONE_NAMED}, used as {kind}"),
        ("lifetime", _lifetime(token, reading)),
        ("scope granted", _shown(token.scope or "none", token, exchange) if reading.scope else _NONE_NAMED),
    )


def _lifetime(token: Token, reading: Reading) -> str:
    seconds = f"{token.lifetime:.0f} s"
    return (
        f"{seconds}, from {reading.lifetime}" if reading.lifetime else f"{_NONE_NAMED}, {seconds} from default_lifetime"
    )


def _shown(text: str, token: Token, exchange: Exchange | None) -> str:
    """A text of the provider, if it is safe for a terminal (RFC 6749 section 3.3) and quotes no secret or token."""
    if re.fullmatch(r"[\x20-\x7e]{1,1000}", text) is None:
        return "(not shown: unusual characters)"
    return (
        "(not shown: it quotes a secret or the token)"
        if exchange is None or exchange.quoted_in(text, token.access_token)
        else text
    )
