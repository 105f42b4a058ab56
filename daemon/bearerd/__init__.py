"""bearerd keeps OAuth2 access tokens fresh in files that any program can read.

The rooms, and what each decides: `config` (what was asked for), `lifecycle` (when),
`grant` (one request and what its reply means), `publish` (what stands in which file),
`service` (the running whole), `cli` (its face), `demo`.
"""

__version__ = "0.1.0"
