"""One grant: composes the request, authenticates the client, and understands the reply.

`request`, `reply`, `lifetime` and `outcome` are pure, `credentials` reads the secrets, `endpoint` sends requests, and
`perform` puts them together.
"""
