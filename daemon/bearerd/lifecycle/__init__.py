"""The lifecycle of targets: when each one requests a token, writes its files and fails.

policy         due times, waits after failures, the two clocks (pure)
plan           the difference between two configs (pure)
wishes         the requests to a target between two turns (pure)
token_state    the newest token, compared with each reply (pure)
held_token     the newest token and the one in the files, while the newest one waits (pure)
next_attempt   when the next attempt is due (pure)
failure_log    log lines and `on_failure`, from outcomes (pure)
lines          log lines about replies with a token (pure)
file_state     one target's record and files
standing       one target's token, failures and next attempt, and the hold on it
shared         one target's steps with its fleet
fleet_attempts the attempts of other daemons of its fleet
attempts       one target's attempts and their outcomes
controller     one target: a turn compares its actual with its desired state and acts
reconcile      the wanted targets, their controllers and inboxes
due_times      the names and times of all turns, the earliest first (pure)
jobs           calls a function at the time of each name; the one user of APScheduler
schedule       runs the turns
"""
