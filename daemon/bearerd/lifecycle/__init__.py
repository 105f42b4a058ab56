"""When: which target asks its provider at what moment.

`policy` decides from times and dice that it is handed (pure), `doors` who may go when a client or a
provider says no (pure), `keeper` lives one target's turns, `schedule` is the one user of APScheduler.
"""
