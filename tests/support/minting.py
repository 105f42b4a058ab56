"""A provider in a process of its own, whose tokens prove themselves (`support.minted`). Its weather can change."""

from __future__ import annotations

import base64
import itertools
import multiprocessing
import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final
from urllib.parse import parse_qs

from support.counted import prioritise
from support.minted import LONGEST, SHORTEST, Minted, boot_ms, mint
from support.process import WITHIN
from support.server import Answer, Seen, serving

PRIORITY: Final = -10
"""The nice value of the daemon and its providers: the rigs test them, not what else runs on the machine."""
_PAGE: Final = 4096
_LENGTHS: Final = ((SHORTEST, 300), (SHORTEST, 300), (1000, _PAGE - 1), (_PAGE + 1, LONGEST))
"""Ranges of the lengths of tokens; half are short, a quarter longer than a page."""


@dataclass(frozen=True)
class Weather:
    """How the provider answers: after `latency` seconds, and this share of requests with `status` instead."""

    latency: float = 0.0
    share: float = 0.0
    status: int = 503
    retry_after: float | None = None


@dataclass(frozen=True)
class Totals:
    """What it counted so far."""

    grants: int
    most_at_once: int
    refused: dict[str, int]
    """Requests with a wrong secret, by client id."""
    times: dict[str, list[float]]
    """When requests came (monotonic clock), by client id."""


@dataclass
class _Issuer:
    """Answers the requests. `lifetimes` is a range in seconds."""

    lifetimes: tuple[float, float]
    seed: int
    weather: Weather = field(default_factory=Weather)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._numbers = itertools.count(1)
        self._secrets: dict[str, set[str]] = {}
        self._refused: Counter[str] = Counter()
        self._times: defaultdict[str, list[float]] = defaultdict(list)
        self._grants = self._at_once = self._most = 0
        self._lock = threading.Lock()

    def __call__(self, seen: Seen) -> Answer:
        given = base64.b64decode(seen.headers["authorization"].split()[1]).decode()
        client, _, secret = given.partition(":")
        [scope] = parse_qs(seen.body.decode())["scope"]
        with self._lock:
            self._times[client].append(time.monotonic())
            self._at_once += 1
            self._most = max(self._most, self._at_once)
            weather = self.weather
            answer = self._answer(weather, client, secret, scope)
        if weather.latency:
            time.sleep(weather.latency)
        with self._lock:
            self._at_once -= 1
        return answer

    def _answer(self, weather: Weather, client: str, secret: str, scope: str) -> Answer:
        if self._random.random() < weather.share:
            wait = {} if weather.retry_after is None else {"Retry-After": f"{weather.retry_after:.0f}"}
            return Answer(weather.status, {"error": "temporarily_unavailable"}, wait)
        if secret not in self._secrets.get(client, {"first"}):
            self._refused[client] += 1
            return Answer(401, {"error": "invalid_client"})
        lifetime = round(self._random.uniform(*self.lifetimes), 3)
        length = self._random.randint(*self._random.choice(_LENGTHS))
        number = next(self._numbers)
        # The lifetime begins before a slow answer does.
        token = Minted(number, boot_ms() + round(lifetime * 1000), length)
        self._grants += 1
        # JSON files end with the scope, which says once more to which token they belong.
        body = {
            "access_token": mint(token),
            "token_type": "Bearer",
            "expires_in": lifetime,
            "scope": f"{scope} n{number}",
        }
        return Answer(200, body)

    # -- what the rig asks for ----------------------------------------------------------------

    def change(self, name: str, value: Any) -> None:
        """Set the weather or the lifetimes."""
        with self._lock:
            setattr(self, name, value)

    def accept(self, client: str, secrets: set[str]) -> None:
        """Accept these secrets of a client from now on; at first it is `first`."""
        with self._lock:
            self._secrets[client] = secrets

    def totals(self) -> Totals:
        """What it counted so far."""
        with self._lock:
            times = {client: list(times) for client, times in self._times.items()}
            return Totals(self._grants, self._most, dict(self._refused), times)


def _serve(line: Connection, lifetimes: tuple[float, float], seed: int) -> None:
    """The process: answer the rig until it closes the line."""
    os.setsid()
    prioritise(os.getpid(), PRIORITY)
    issuer = _Issuer(lifetimes, seed)
    with serving(issuer) as server:
        line.send(server.port)
        while True:
            try:
                name, arguments = line.recv()
            except EOFError:
                return
            line.send(getattr(issuer, name)(*arguments))


class Minting:
    """The rig's side of a running provider."""

    def __init__(self, line: Connection, port: int) -> None:
        self._line = line
        self.port = port
        self.url = f"http://127.0.0.1:{port}/token"
        self._lock = threading.Lock()

    def set_weather(self, weather: Weather) -> None:
        """Answer like this from now on."""
        self._ask("change", "weather", weather)

    def set_lifetimes(self, shortest: float, longest: float) -> None:
        """Issue tokens of these lifetimes from now on."""
        self._ask("change", "lifetimes", (shortest, longest))

    def accept(self, client: str, *secrets: str) -> None:
        """Accept these secrets of a client from now on; at first it is `first`."""
        self._ask("accept", client, set(secrets))

    def totals(self) -> Totals:
        """What it counted so far."""
        totals = self._ask("totals")
        assert isinstance(totals, Totals)
        return totals

    def _ask(self, name: str, *arguments: object) -> Any:
        with self._lock:
            self._line.send((name, arguments))
            assert self._line.poll(WITHIN), "the provider does not answer its rig"
            return self._line.recv()


@contextmanager
def minting(shortest: float, longest: float, seed: int = 1) -> Iterator[Minting]:
    """Run a provider during the block."""
    # A fork would copy the threads' locks, but not the threads.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, (shortest, longest), seed), daemon=True)
    process.start()
    theirs.close()
    try:
        assert ours.poll(WITHIN), "the provider does not start"
        yield Minting(ours, ours.recv())
    finally:
        ours.close()
        process.join(WITHIN)
        process.kill()
        process.join()
