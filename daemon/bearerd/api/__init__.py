"""The local API: HTTP on the control socket and, where `listen` is configured, over TCP.

`message` and `host` read requests, `routes` decides the reply; these are pure. `server` owns the listening sockets
that `sockets` opens, `connections` reads requests from one of them, and `workers` runs what may take time.
"""
