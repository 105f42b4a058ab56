"""The view of admission for status and metrics. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict

from bearerd.admission.core import Core
from bearerd.admission.parts import Client
from bearerd.admission.types import ClientView, ProviderView, Reason, Refusal, View


def view(core: Core, now: float) -> View:
    """Breakers, budgets and held targets."""
    waiting, clients = core.waiting, core.registry.clients
    held: Counter[str] = Counter()
    reasons: defaultdict[str, Counter[Reason]] = defaultdict(Counter)
    longest: defaultdict[str, float] = defaultdict(float)
    for client in clients.values():
        for client_queue in client.queues.values():
            reason, count = waiting.earliest(client_queue, now)[1], len(client_queue.targets)
            held[client.name] += count * _by_breaker(client, reason)
            reasons[client.provider.name][reason] += count
    for timed in waiting.timed.values():
        if timed.client in clients:
            held[timed.client] += _by_breaker(clients[timed.client], timed.reason)
            reasons[clients[timed.client].provider.name][timed.reason] += 1
    for name, since in waiting.since.items():
        known = waiting.client_of(name)
        if known in clients:
            provider = clients[known].provider.name
            longest[provider] = max(longest[provider], now - since)
    return View(
        clients={name: _client(client, held[name], now) for name, client in clients.items()},
        providers={
            name: ProviderView(
                provider.in_flight, provider.max_concurrency, provider.retry.left(now), reasons[name], longest[name]
            )
            for name, provider in core.registry.providers.items()
        },
    )


def _by_breaker(client: Client, reason: Reason) -> bool:
    """Whether a client's breaker holds its targets for this reason: not a rate limit, nor a target's own refusal."""
    return reason == "half_open" or (reason in {"refused", "refused_limit"} and client.breaker.refusal is not None)


def _client(client: Client, held: int, now: float) -> ClientView:
    breaker = client.breaker
    refusal = None
    if breaker.refusal is not None:
        # Not all of them lengthen the pace.
        count = max(breaker.refusals, sum(tried.refusals for tried in breaker.tried.values()))
        refusal = Refusal(breaker.refusal, count, breaker.probe_at, own=False)
    return ClientView(breaker.state(now), refusal, client.in_flight, held)
