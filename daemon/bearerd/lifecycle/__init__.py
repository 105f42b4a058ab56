"""When: which target asks its provider at what moment.

policy       due times, waits after failures, two clocks (pure)
plan         what a changed config means (pure)
token_state  the token that is held, and what a further reply says of it (pure)
failure_log  what is told of failures (pure)
file_state   one target's record and files
attempts     when a target asks for a token, and what comes of it
controller   one target: a turn brings it from what is to what should be
reconcile    the wanted targets, their controllers and inboxes
schedule     gives turns; the one user of APScheduler
"""
