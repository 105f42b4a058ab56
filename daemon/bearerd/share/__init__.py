"""Shares tokens within a fleet: the daemons on many machines that use the same client. Redis or Valkey is in between.

One daemon of the fleet makes a grant, and the others take its token. A grant needs a lock with a lease, and each lock
has a fencing number that only grows: what was obtained under an older lock never replaces what is newer.
"""
