"""Shares tokens within a fleet, the daemons on many machines that use the same client, through Redis or Valkey.

One daemon of the fleet makes a grant, and the others take its token. A grant needs a lock with a lease, and each lock
has a fencing number that only grows: a token that was obtained under an older lock never replaces a newer one.

    types         claims, their answers, and what the store does (pure)
    names         the names of a target's entries in the store (pure)
    seal          encryption of entries (pure)
    entry         their content: a token or a failure (pure)
    policy        leases, fences, and when a daemon goes alone (pure)
    answers       what a target's turn learns from its fleet (pure)
    key_cache     the keys of each client; keys says which secrets are long enough
    sealer        encrypts and decrypts entries
    parts         the interfaces between a fleet and its links
    server        one server: what each target knows of its entries there, and which targets a change wakes
    entries       one target's entries: reads, claims and stores them
    fleet         all servers, and the steps of a target's turn
    link          keeps the connection to a server; redis_store sends commands through redis_client (login, sentinels)
                  and redis_connection (one socket); replies and redis_errors read the answers
"""
