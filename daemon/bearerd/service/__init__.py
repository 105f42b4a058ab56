"""The running service: `engine` wires the packages together, `run` is the daemon, `once` the init job, `check` proves a
config against this machine, `notify` talks to systemd, `logs` writes the log.
"""
