"""bearerd keeps OAuth2 access tokens fresh in files that any program can read.

docs/architecture.md describes the packages. In short: `config` reads the config, `lifecycle` decides when a token is
refreshed, `admission` whether it may be requested now, `grant` requests it, `publish` writes the files, `api` serves
status and metrics, `service` runs all of it, and `cli` is the command line.
"""

__version__ = "0.1.0"
