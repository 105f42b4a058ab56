"""Admission: whether a target may ask its provider for a token now, and in which order targets go.

    types      what is asked and answered; the limits of a config (pure)
    queue      targets that wait for one thing, in the order of their urgency (pure)
    breaker    the circuit breaker of one client, and the pace of targets refused on their own (pure)
    ledger     attempts that were refused or may have been (pure)
    retry      the retry budget of a provider (pure)
    rate       one rate limit, over any window (pure)
    core       the decisions: all of the above together (pure)
    journal    the file that outlives a restart
    admission  `Admission`: the core behind one lock, with its journal

Import `Admission` from `bearerd.admission.admission` and the nouns from `bearerd.admission.types`.
"""
