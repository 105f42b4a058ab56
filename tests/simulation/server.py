"""A provider with a truth of its own: which token is accepted until when, and which request came when."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from math import inf
from random import Random
from typing import Any
from urllib.parse import unquote, unquote_plus

from bearerd.grant.outcome import NoReply
from bearerd.grant.reply import Reply
from bearerd.grant.request import Request
from simulation.describe import Fault, Kept, Server
from simulation.kernel import WALL


@dataclass
class Known:
    """A token as its provider knows it."""

    text: str
    target: str
    issued: float
    ends: float
    replicated: float
    """From when on it is accepted."""
    valid: float
    """Its `nbf`."""


@dataclass(frozen=True)
class Arrival:
    """A request as its provider saw it."""

    time: float
    sent: float
    client: str
    target: str
    refused: bool
    """With a code that means the client."""
    sender: int = 0
    """The number of the host that sent it."""


class AuthorizationServer:
    """Answers token requests. Times are the kernel's; its clock is right."""

    def __init__(self, server: Server, dice: Random, arrived: Callable[[Arrival], None]) -> None:
        self.server = server
        self._dice = dice
        self._arrived = arrived
        self._number = 0
        self.secrets: dict[str, str] = {}
        """By client id, which is the client's name."""
        self.scopes: dict[str, Kept] = {}
        """By the scope that is asked for."""
        self.faults: list[Fault] = []
        self.tokens: dict[str, Known] = {}
        self.current: dict[str, Known] = {}
        """By scope: the token that was issued last."""
        self._cached: dict[str, tuple[float, dict[str, Any]]] = {}
        self._parsed: dict[tuple[str, bytes], tuple[str, str, str]] = {}
        self.issued: Callable[[Known, Known | None], None] = lambda _new, _previous: None
        """Told of each new token, and of the one before it if that ends because of it."""

    def good(self, text: str, now: float) -> bool:
        """Whether an API accepts the token."""
        known = self.tokens.get(text)
        return known is not None and max(known.replicated, known.valid) <= now < known.ends

    def latency(self) -> float:
        """Seconds for one way."""
        return self.server.latency * (0.25 + 0.5 * self._dice.random())

    def answer(self, request: Request, sent: float, now: float, sender: int = 0) -> tuple[float, Reply | NoReply]:
        """What comes of a request that arrives now, and how many seconds later it does."""
        client, secret, scope = self._parse(request)
        kept = self.scopes[scope]
        fault = self._fault(kept, now)
        kind = fault.kind if fault else None
        timeout = self.server.timeout - (now - sent)
        latency = self.latency()
        if kind == "silence":
            return timeout, NoReply("wait", "no reply within the timeout")
        refused = secret != self.secrets[client] or kind in {"401", "slow_401", "scope_401"}
        self._arrived(Arrival(now, sent, client, kept.full_name, refused, sender))
        if kind == "slow_401":
            return timeout, NoReply("wait", "no reply within the timeout")
        if kind == "reset":
            return latency, NoReply("read", "the connection was reset")
        if fault is not None and (kind != "401" or not refused):
            failed = self._failed(fault)
            if failed is not None:
                return latency, failed
        if refused:
            return latency, _reply(401, {"error": "invalid_client", "error_description": "Bad credentials"})
        body, headers = self._token(kept, scope, now, expired=kind == "expired")
        return latency, _reply(200, body, headers)

    def refuses_connection(self, request: Request, now: float) -> bool:
        """Whether nothing listens."""
        fault = self._fault(self.scopes[self._parse(request)[2]], now)
        return fault is not None and fault.kind == "refuse"

    # -- inside ----------------------------------------------------------------------------------

    def _fault(self, kept: Kept, now: float) -> Fault | None:
        for fault in self.faults:
            if fault.start <= now < fault.end and fault.of in {self.server.name, kept.account, kept.full_name}:
                if fault.kind == "flaky" and self._dice.random() >= fault.value:
                    continue
                return fault
        return None

    def _failed(self, fault: Fault) -> Reply | None:
        after = {"retry-after": f"{fault.value:.0f}"}
        match fault.kind:
            case "500":
                return _reply(500, {"error": "server_error"})
            case "503" | "flaky":
                return _reply(503, None)
            case "503_after":
                return _reply(503, None, after)
            case "429":
                return _reply(429, None)
            case "429_after":
                return _reply(429, None, after)
            case "html":
                return Reply(200, {"content-type": "text/html"}, b"<html>Sign in</html>")
            case "404":
                return _reply(404, None)
            case "scope_400":
                return _reply(400, {"error": "invalid_scope"})
            case _:
                return None

    def _token(self, kept: Kept, scope: str, now: float, *, expired: bool) -> tuple[dict[str, Any], dict[str, str]]:
        headers = {"date": formatdate(WALL + now, usegmt=True)}
        if expired:
            body = {"access_token": self._new(kept, now, now - 5.0).text, "token_type": "Bearer"}
            return body | {"expires_at": int(WALL + now - 5.0)}, headers
        last = self.current.get(scope)
        match kept.habit:
            case "same":
                if last is None or last.ends <= now:
                    last = self._issue(kept, scope, now, now + kept.lifetime)
                return _body(last.text, expires_in=int(last.ends - now)), headers
            case "sliding" | "zero":
                last = last or self._issue(kept, scope, now, now)
                last.ends = now + kept.lifetime  # good for as long as it is used
                return _body(last.text, expires_in=0 if kept.habit == "zero" else int(kept.lifetime)), headers
            case "unnamed":
                return _body(self._issue(kept, scope, now, now + kept.lifetime).text), headers
            case "cache" | "cache_age":
                return self._from_cache(kept, scope, now, headers)
            case _:
                issued = self._issue(kept, scope, now, now + kept.lifetime, jwt=kept.habit == "jwt")
                return _body(issued.text) | _lifetime(kept, now), headers

    def _from_cache(
        self, kept: Kept, scope: str, now: float, headers: dict[str, str]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        filled, body = self._cached.get(scope, (-inf, {}))
        if now - filled >= kept.lifetime * 0.7:
            issued = self._issue(kept, scope, now, now + kept.lifetime, jwt=kept.habit == "cache")
            filled, body = now, _body(issued.text, expires_in=int(kept.lifetime))
            self._cached[scope] = filled, body
        if kept.habit == "cache_age":
            # Rounded up: a cache that rounds down makes a token look a second younger than it is.
            headers["age"] = f"{-int(-(now - filled) // 1)}"
            headers["date"] = formatdate(WALL + filled, usegmt=True)
        return body, headers

    def _issue(self, kept: Kept, scope: str, now: float, ends: float, *, jwt: bool = False) -> Known:
        last = self.current.get(scope)
        known = self.current[scope] = self._new(kept, now, ends, jwt=jwt)
        ended = last if last is not None and self.server.ends_old is not None else None
        if ended is not None and self.server.ends_old is not None:
            ended.ends = min(ended.ends, now + self.server.ends_old)
        self.issued(known, ended)
        return known

    def _new(self, kept: Kept, now: float, ends: float, *, jwt: bool = False) -> Known:
        self._number += 1
        text = f"{self.server.name}-{self._number}"
        valid = now
        if jwt:
            ends = float(int(WALL + ends)) - WALL
            valid = float(int(WALL + now + kept.nbf)) - WALL
            text = _jwt(text, WALL + now, WALL + ends, WALL + valid)
        known = self.tokens[text] = Known(text, kept.full_name, now, ends, now + kept.delay / 2, valid)
        if len(self.tokens) > 2000:  # those that ended are not asked about for long
            self.tokens = {text: each for text, each in self.tokens.items() if each.ends > now - 86400.0}
        return known

    def _parse(self, request: Request) -> tuple[str, str, str]:
        """Client id, secret and scope."""
        key = request.headers["Authorization"], request.body or b""
        if key not in self._parsed:
            name, _, secret = base64.b64decode(key[0].removeprefix("Basic ")).decode().partition(":")
            scope = unquote_plus(key[1].decode().partition("scope=")[2].partition("&")[0])
            self._parsed[key] = unquote(name), unquote(secret), scope
        return self._parsed[key]


def _body(text: str, **more: Any) -> dict[str, Any]:
    return {"access_token": text, "token_type": "Bearer", **more}


def _lifetime(kept: Kept, now: float) -> dict[str, Any]:
    seconds, ends = int(kept.lifetime), WALL + now + kept.lifetime
    match kept.form:
        case "seconds":
            return {"expires_in": seconds}
        case "text":
            return {"expires_in": str(seconds)}
        case "date":
            return {"expires_at": datetime.fromtimestamp(int(ends), UTC).isoformat()}
        case "unix":
            return {"expires_on": str(int(ends))}


def _jwt(number: str, issued: float, expires: float, valid: float) -> str:
    claims = json.dumps({"jti": number, "iat": int(issued), "exp": int(expires), "nbf": int(valid)}).encode()
    return f"e30.{base64.urlsafe_b64encode(claims).rstrip(b'=').decode()}.c2ln"


def _reply(status: int, body: Mapping[str, Any] | None, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, {"content-type": "application/json"} | dict(headers or {}), json.dumps(body or {}).encode())
