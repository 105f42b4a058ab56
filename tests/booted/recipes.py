"""Secrets that commands print, in the sandbox of the unit: by the commands of docs/secrets.md."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bearerd.config.load import load
from booted.machine import ROOT
from support.pages import blocks

if TYPE_CHECKING:
    from booted.scenes import Site

PAGE = ROOT / "docs" / "secrets.md"
STATE = "/var/lib/bearerd"


def commands(site: Site) -> None:
    """Pass starts GnuPG's agent below the state directory; another command reads a credential of the unit."""
    here = site.here
    as_daemon = f"runuser -u bearerd -- env GNUPGHOME={STATE}/gnupg PASSWORD_STORE_DIR={STATE}/store"
    here.sh(
        f"install -d -m 0700 -o bearerd {STATE}/gnupg\n"
        f"{as_daemon} gpg --batch --quiet --passphrase '' --quick-generate-key bearerd future-default\n"
        f"{as_daemon} pass init bearerd\n"
        f"{as_daemon} pass insert --multiline acme/reports\n"
        f"{as_daemon} gpgconf --kill all\n",
        given=f"{site.provider.secret}\nuser: reports\n",
    )
    _used(site, _argv("pass"))
    here.drop_in("bearerd.service", "credentials", "[Service]\nLoadCredential=dnb:/etc/bearerd/dnb.secret\n")
    _used(site, ["/bin/cat", "/run/credentials/bearerd.service/dnb"])
    here.drop_in("bearerd.service", "credentials", None)
    site.config()
    here.run("systemctl", "restart", "bearerd")
    here.run("rm", "-r", f"{STATE}/gnupg", f"{STATE}/store")
    site.here.say("commands     pass with GnuPG's agent, and a command that reads a credential, work in the sandbox")


def _argv(heading: str) -> list[str]:
    """The command of the page's config below a heading."""
    (text,) = (block.text for block in blocks(PAGE) if (block.heading, block.language) == (heading, "yaml"))
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        (target,) = load(str(Path(file.name)), {}).targets
    (reference,) = target.client.client_secret
    return list(reference.argv)


def _used(site: Site, argv: list[str]) -> None:
    """The daemon gets a token with the secret that a command prints."""
    site.config(secret=json.dumps({"command": argv}))
    site.here.run("systemctl", "restart", "bearerd")
    before = site.provider.grants, site.provider.refused
    site.here.run("bearerd", "refresh")
    assert (site.provider.grants - 1, site.provider.refused) == before
