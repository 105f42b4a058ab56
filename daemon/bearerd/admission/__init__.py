"""Admission: whether a target may ask its provider for a token now, and in which order targets go.

    types      what is asked and answered; the limits of a config (pure)
    queue      keys in the order of their urgency (pure)
    breaker    the circuit breaker of one client, and the pace of targets refused on their own (pure)
    ledger     attempts of one client that were refused or may have been (pure)
    retry      the retry budget of a provider (pure)
    rate       one rate limit, over any window (pure)
    parts      providers, clients, and the groups in which targets wait (pure)
    flights    attempts in flight, and what they count against (pure)
    waiting    who waits for what, and who goes next (pure)
    registry   the clients, providers and rate limits of the present config (pure)
    core       the decisions, from all of these (pure)
    view       what status and metrics show (pure)
    journal    the file that outlives a restart
    admission  `Admission`: the core behind one lock, with its journal

Import `Admission` from `bearerd.admission.admission` and the nouns from `bearerd.admission.types`.
"""
