"""One grant: the request composed, the client authenticated, the reply understood.

`request`, `reply`, `lifetime` and `outcome` are pure; `credentials` reads references, `endpoint` is the
one user of requests, `perform` puts them together.
"""
