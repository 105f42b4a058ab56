"""The running whole: `engine` wires the rooms together, `run` is the daemon, `once` the init job,
`check` proves a config against this machine, `logs` writes the log.
"""
