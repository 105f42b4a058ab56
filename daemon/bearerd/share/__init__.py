"""Shares tokens within a fleet: the daemons on many machines that use the same client. Redis or Valkey is in between.

One daemon of the fleet makes a grant, and the others take its token. A grant needs a lock with a lease, and each lock
has a fencing number that only grows: what was obtained under an older lock never replaces what is newer.

    types         claims, their answers, and what the store does (pure)
    names         under which names the store keeps what belongs to a target (pure)
    seal          encryption of entries (pure)
    entry         their content: a token or a failure (pure)
    policy        leases, fences, and when a daemon goes alone (pure)
    answers       what a target's turn learns from its fleet (pure)
    keyring       the keys of each client; keys says which secrets can be one
    vault         seals and opens entries
    parts         the interfaces between a fleet and its links
    server        one server: what each target knows of it, and which targets a change concerns
    entries       one target's entries: reads, claims and stores them
    fleet         all servers, and the steps of a target's turn
    link          the connection to a server; redis_store and the other redis modules send its commands
"""
