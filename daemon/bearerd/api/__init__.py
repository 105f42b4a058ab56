"""The local API: HTTP on the control socket and, where `listen` is configured, over TCP.

`message` and `host` parse requests, and `routes` decides the reply; these are pure. `server` owns the listening sockets
that `sockets` opens. `connections` reads the requests of one socket. `replies` answers requests that may take time, in
the threads of `workers`. `limits` bounds all of it. `status` is the document behind `metrics`, `page` and
`bearerd status`.
"""
