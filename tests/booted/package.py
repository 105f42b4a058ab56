"""The Debian package: built, installed without and with a config, upgraded, removed, purged."""

from __future__ import annotations

import re

from booted.machine import Machine
from booted.scenes import CONFIG, DAEMON, SECRET, Site, client
from support.provider import Provider
from support.rig import say
from support.server import serving


def package(here: Machine) -> None:
    """On a machine that has no bearerd."""
    with serving(provider := Provider()) as server:
        site = Site(here, server, provider)
        first, second = _build(site)
        before = here.known()

        said = here.run("apt-get", "install", "--yes", first)
        assert f"bearerd: write {CONFIG}" in said, said
        assert here.show(DAEMON, "ActiveState") == "inactive"
        site.page("The config and the secret", "first\n")
        site.page("Start")
        assert site.active()
        say(f"install      without a config nothing starts; then by the page: {site.status()}")

        grants, was = provider.grants, here.show(DAEMON, "MainPID")
        with site.reader.reading():
            said = here.run("apt-get", "install", "--yes", second)
            assert f"ok       config {CONFIG}: 1 token(s)" in said, said
            assert here.show(DAEMON, "MainPID") != was
            assert site.active()
            assert site.states() == {"dnb/bci": "valid"}
            good = here.path(CONFIG).read_text()
            here.write(CONFIG, client(server.url, "{bci: {scop: bci}}"))
            was = here.show(DAEMON, "MainPID")
            said = here.run("apt-get", "install", "--yes", "--reinstall", second)
            assert "did you mean 'scope'?" in said, said
            assert "the config is wrong, so nothing was started" in said, said
            assert here.show(DAEMON, "MainPID") == was
            here.write(CONFIG, good)
        assert provider.grants == grants
        say("upgrade      checked and restarted, no gap, no grant; with a wrong config what runs goes on")

        with site.reader.reading():
            here.run("apt-get", "remove", "--yes", "bearerd")
        assert here.code("systemctl", "is-active", "bearerd") != 0
        assert here.path(SECRET).exists()
        here.run("apt-get", "install", "--yes", second)
        assert site.active()
        assert provider.grants == grants
        say("removal      stopped; config, secret and tokens stay, and are gone on with when it is installed again")

        here.run("apt-get", "purge", "--yes", "bearerd")
        assert here.known() == before, set(here.known()) - set(before)
        here.sh("mkdir /etc/bearerd")
        here.write(CONFIG, client(server.url))
        here.write(SECRET, "first\n")
        here.run("chmod", "600", SECRET)
        said = here.run("apt-get", "install", "--yes", first)
        assert "mode" not in said, said
        assert site.active()
        here.run("apt-get", "purge", "--yes", "bearerd")
        assert here.known() == before
        say("purge        nothing is left; with a config that is there first it is started at once")


def _build(site: Site) -> tuple[str, str]:
    """Two revisions of it; their paths."""
    here = site.here
    site.page("As a Debian package", only="systemd/deb/build")
    here.run("apt-get", "purge", "--yes", "bearerd")
    here.run("bash", "systemd/deb/build", ".", "2")
    found = sorted(here.sh("ls -1 $PWD/bearerd_*.deb").splitlines())
    first, second = found
    told = here.run("dpkg-deb", "--info", first)
    depends = re.search(r"Depends: (.*)", told)
    assert depends, told
    minor = here.run("python3", "-c", "import sys; print(sys.version_info.minor)")
    assert f"python3 (<< 3.{int(minor) + 1})" in depends[1], told
    size = int(here.run("stat", "--format=%s", first)) / 1e6
    say(f"package      {first.rpartition('/')[2]}: {size:.0f} MB; {depends[1]}")
    return first, second
