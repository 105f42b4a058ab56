"""Admission: decides whether a target may request a token now, and in which order targets go.

    types      requests, answers and limits (pure)
    queue      a priority queue ordered by urgency (pure)
    breaker    the circuit breaker of one client, and the backoff of targets that are refused on their own (pure)
    ledger     attempts of one client that were, or may have been, refused (pure)
    retry      the retry budget of a provider (pure)
    rate       one rate limit, kept over any window (pure)
    parts      the state of providers, clients and queues (pure)
    attempt    attempts in flight, and the limits that they count against (pure)
    waiting    the queues of held targets, and the choice of the next one (pure)
    registry   the clients, providers and rate limits of the current config (pure)
    core       the decisions, made from all of these (pure)
    view       the data for status and metrics (pure)
    journal    the file that outlives a restart
    admission  `Admission`: the core behind one lock, with its journal

Import `Admission` from `bearerd.admission.admission` and the types from `bearerd.admission.types`.
"""
