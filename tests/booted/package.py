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
        install(site, first)
        upgrade(site, second)
        removal(site, second)
        here.run("apt-get", "purge", "--yes", "bearerd")
        assert here.known() == before, set(here.known()) - set(before)
        configured(site, first)
        here.run("apt-get", "purge", "--yes", "bearerd")
        assert here.known() == before
        say("purge        nothing is left; with a config that is there first it is started at once")


def install(site: Site, deb: str) -> None:
    """Where there is no config; and not where there is one that was installed by hand."""
    here = site.here
    here.sh("mkdir -p /opt/bearerd/bin && touch /opt/bearerd/bin/bearerd")
    said = here.run("apt-get", "install", "--yes", deb, code=100)
    assert "installed by hand: remove it" in said, said
    here.sh("rm -r /opt/bearerd")
    said = here.run("apt-get", "install", "--yes", deb)
    for step in ("config: bearerd init", "secret: bearerd init", "check:  runuser", "start:  systemctl enable --now"):
        assert f"bearerd: {step}" in said, said
    documents(site)
    assert here.show(DAEMON, "ActiveState") == "inactive"
    site.page("The config and the secret", "first\n")
    site.page("Start")
    assert site.active()
    say(f"install      not over one by hand; without a config nothing starts; then by the page: {site.status()}")


def documents(site: Site) -> None:
    """What people read, and what shells and editors use."""
    here = site.here
    for page in ("man1/bearerd.1", "man5/bearerd.yaml.5"):
        assert here.run("zcat", f"/usr/share/man/{page}.gz").startswith(".TH BEARERD"), page
    here.run("bash", "-c", "source /usr/share/bash-completion/completions/bearerd && complete -p bearerd")
    here.run("test", "-s", "/usr/share/zsh/vendor-completions/_bearerd")
    here.run("python3", "-m", "json.tool", "/usr/share/bearerd/config.schema.json", "/dev/null")
    here.run("test", "-s", "/usr/share/doc/bearerd/docs/index.md")


def upgrade(site: Site, deb: str) -> None:
    """Of one that runs, with a good config and then with a wrong one."""
    here, grants, was = site.here, site.provider.grants, site.here.show(DAEMON, "MainPID")
    with site.reader.reading():
        said = here.run("apt-get", "install", "--yes", deb)
        assert f"ok       config {CONFIG}: 1 token" in said, said
        assert "bearerd: config: bearerd init" not in said, said
        assert here.show(DAEMON, "MainPID") != was
        assert site.active()
        assert site.states() == {"dnb/bci": "valid"}
        good, was = here.path(CONFIG).read_text(), here.show(DAEMON, "MainPID")
        here.write(CONFIG, client(site.server.url, "{bci: {scop: bci}}"))
        said = here.run("apt-get", "install", "--yes", "--reinstall", deb)
        assert "did you mean 'scope'?" in said, said
        assert "the config is wrong, so nothing was started" in said, said
        assert here.show(DAEMON, "MainPID") == was
        here.write(CONFIG, good)
    assert site.provider.grants == grants
    say("upgrade      checked and restarted, no gap, no grant; with a wrong config the old daemon keeps running")


def removal(site: Site, deb: str) -> None:
    """And installed again."""
    here, grants = site.here, site.provider.grants
    with site.reader.reading():
        here.run("apt-get", "remove", "--yes", "bearerd")
    assert here.code("systemctl", "is-active", "bearerd") != 0
    assert here.path(SECRET).exists()
    here.run("apt-get", "install", "--yes", deb)
    assert site.active()
    assert site.provider.grants == grants
    say("removal      stopped; config, secret and tokens stay, and are gone on with when it is installed again")


def configured(site: Site, deb: str) -> None:
    """Where config and secret were there first; the user was left by the last one."""
    here = site.here
    here.write(CONFIG, client(site.server.url))
    here.write(SECRET, "first\n")
    here.run("chmod", "600", SECRET)
    here.run("chown", "bearerd", SECRET)
    said = here.run("apt-get", "install", "--yes", deb)
    assert "ok       client dnb: file" in said, said
    assert site.active()
    assert site.states() == {"dnb/bci": "valid"}


def _build(site: Site) -> tuple[str, str]:
    """Two revisions of it; their paths."""
    here = site.here
    site.page("As a Debian package", only="systemd/deb/build")
    here.run("apt-get", "purge", "--yes", "bearerd")
    here.run("bash", "systemd/deb/build", ".", "2")
    found = sorted(here.sh("ls -1 $PWD/bearerd_*.deb").splitlines())
    first, second = found
    printed = here.run("dpkg-deb", "--info", first)
    depends = re.search(r"Depends: (.*)", printed)
    assert depends, printed
    minor = here.run("python3", "-c", "import sys; print(sys.version_info.minor)")
    assert f"python3 (<< 3.{int(minor) + 1})" in depends[1], printed
    size = int(here.run("stat", "--format=%s", first)) / 1e6
    say(f"package      {first.rpartition('/')[2]}: {size:.0f} MB; {depends[1]}")
    return first, second
