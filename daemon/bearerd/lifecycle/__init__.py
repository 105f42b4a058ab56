"""The lifecycle of targets: when each one requests a token, writes its files and fails.

policy         due times, waits after failures, the two clocks (pure)
plan           the difference between two configs (pure)
wishes         the requests to a target between two turns (pure)
token_state    the held token, compared with each reply (pure)
target_status  a snapshot of a target for status, metrics and logs (pure)
failure_log    log lines and `on_failure`, from outcomes (pure)
file_state     one target's record and files
attempts       one target's attempts and their outcomes
controller     one target: a turn compares its actual with its desired state and acts
reconcile      the wanted targets, their controllers and inboxes
schedule       runs the turns; the one user of APScheduler
"""
