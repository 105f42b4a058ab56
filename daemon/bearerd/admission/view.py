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
            held[client.name] += len(client_queue.targets)
            reasons[client.provider.name][waiting.earliest(client_queue, now)[1]] += len(client_queue.targets)
    for timed in waiting.timed.values():
        if timed.client in clients:
            held[timed.client] += 1
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


def _client(client: Client, held: int, now: float) -> ClientView:
    breaker = client.breaker
    refusal = None
    if breaker.refusal is not None:
        refusal = Refusal(breaker.refusal, breaker.refusals, breaker.probe_at, own=False)
    return ClientView(breaker.state(now), refusal, client.in_flight, held)
