"""The local API: HTTP on the control socket and, where `listen` is configured, over TCP.

`message` and `host` read requests, `routes` decides the reply; these are pure. `server` owns the listening sockets
that `sockets` opens, `connections` reads requests from one of them, and `replies` answers those that may take time, in
the threads of `workers`. `limits` bounds all of it.
"""
