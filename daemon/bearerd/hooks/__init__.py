"""Hooks: commands and signals after files changed, or when a token stops being renewable.

owed      which runs are owed, and when each is due (pure)
hooks     keeps the notes on disk, and runs what is due on a pool of threads
run       runs one hook: a command, or a signal
signals   finds processes and signals them
"""
