"""The Debian package: built, installed without and with a config, upgraded, downgraded, removed, purged."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from booted.machine import CHECKOUT, ROOT, Machine
from booted.scenes import CONFIG, DAEMON, SECRET, TOKEN, Site, client
from support.provider import Provider
from support.server import serving

_FIRST = "6b98a1b04e7516f02d9880b8ef273b959876d3f9"
"""The first commit with a package: nobody can have installed an older one."""
_OLD = "/srv/bearerd-old"
_NEXT_SUITE = {"bookworm": "trixie"}
"""The release to which a Debian is upgraded. The archive of Ubuntu's next one is not looked at."""


class Row(NamedTuple):
    """A line of the table."""

    package: str
    built: str
    lint: str
    installed: str
    upgraded: str
    removed: str


def package(here: Machine, out: Path) -> Row:
    """On a machine that has no bearerd. The package is copied to `out`."""
    with serving(provider := Provider()) as server:
        site = Site(here, server, provider)
        before = here.known()
        deb, built = install(site)
        (out / Path(deb).name).write_bytes(here.path(deb).read_bytes())
        removal(site, deb)
        here.run("apt-get", "purge", "--yes", "bearerd")
        assert here.known() == before, set(here.known()) - set(before)
        by_hand_first(site, deb)
        old, name = _build_old(site)
        configured(site, old)
        upgrade(site, deb)
        downgrade(site, old, deb)
        wrong_config(site, deb)
        release_upgrade(site)
        here.run("apt-get", "purge", "--yes", "bearerd")
        assert here.known() == before, set(here.known()) - set(before)
        here.sh("userdel bearerd && groupdel bearerd-readers")
        here.say("purge        nothing is left")
    return Row(
        f"`{Path(deb).name}`", built, "", "without a config nothing starts; with one it starts at once",
        f"{name}: no gap, no grant, one restart; and back", "config, secret and tokens stay; purged, nothing is left",
    )  # fmt: skip


def install(site: Site) -> tuple[str, str]:
    """By the page's commands, where there is no config; the package, and how it was built."""
    here = site.here
    said = site.page("As a Debian package", only="systemd/deb/build")
    next_steps(said)
    [deb] = here.sh("ls -1 $PWD/bearerd_*.deb").splitlines()
    printed = here.run("dpkg-deb", "--info", deb)
    depends = re.search(r"Depends: (.*)", printed)
    assert depends, printed
    python = here.run("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    major, minor = python.split(".")
    assert f"python3 (<< {major}.{int(minor) + 1})" in depends[1], printed
    size = int(here.run("stat", "--format=%s", deb)) / 1e6
    here.say(f"package      {Path(deb).name}: {size:.0f} MB; {depends[1]}")
    assert here.run("dpkg-query", "--show", "--showformat=${Conffiles}", "bearerd") == "", "dpkg would ask about them"
    assert here.run("dpkg", "--verify", "bearerd") == ""
    documents(site, "/usr/share/zsh/vendor-completions")
    assert here.show(DAEMON, "ActiveState") == "inactive"
    site.page("The config and the secret", "first\n")
    site.page("Start")
    assert site.active()
    here.say(f"install      without a config nothing starts; then by the page: {site.status()}")
    return deb, f"on {here.system.name}, Python {python}"


def by_hand_first(site: Site, deb: str) -> None:
    """An environment that was made by hand is not replaced."""
    here = site.here
    here.sh("mkdir -p /opt/bearerd/bin && touch /opt/bearerd/bin/bearerd")
    said = here.run("apt-get", "install", "--yes", deb, code=100)
    assert "installed by hand: remove it" in said, said
    here.sh("rm -r /opt/bearerd")
    here.say("by hand      an installation by hand is not replaced")


def next_steps(said: str) -> None:
    """A first installation says what to do."""
    for step in ("config: bearerd init", "secret: bearerd init", "check:  runuser", "start:  systemctl enable --now"):
        assert f"bearerd: {step}" in said, said


def documents(site: Site, completions: str) -> None:
    """What people read, and what shells and editors use."""
    here = site.here
    for page in ("man1/bearerd.1", "man5/bearerd.yaml.5"):
        assert here.run("zcat", f"/usr/share/man/{page}.gz").startswith(".TH BEARERD"), page
    here.run("bash", "-c", "source /usr/share/bash-completion/completions/bearerd && complete -p bearerd")
    here.run("test", "-s", f"{completions}/_bearerd")
    here.run("python3", "-m", "json.tool", "/usr/share/bearerd/config.schema.json", "/dev/null")
    here.run("python3", "-m", "json.tool", "/usr/share/bearerd/sbom.cdx.json", "/dev/null")
    here.run("test", "-s", "/usr/share/doc/bearerd/docs/index.md")


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
    here.say("removal      stopped; config, secret and tokens stay, and are gone on with when it is installed again")


def configured(site: Site, deb: str) -> None:
    """Where config and secret were there first; the user was left by the last one."""
    here = site.here
    here.write(CONFIG, client(site.server.url))
    here.write(SECRET, "first\n")
    here.run("chmod", "600", SECRET)
    here.run("chown", "bearerd", SECRET)
    said = here.run("apt-get", "install", "--yes", deb)
    assert re.search("^ok +client dnb: file", said, re.MULTILINE), said
    assert site.active()
    assert site.states() == {"dnb/bci": "valid"}
    here.say("configured   with a config that is there first it is started at once")


def upgrade(site: Site, deb: str) -> None:
    """Of the old version, while it runs."""
    here, seen = site.here, _kept(site)
    starts = _starts(site)
    with site.reader.reading():
        said = here.run("apt-get", "install", "--yes", deb)
    assert f"ok       config {CONFIG}: 1 token" in said, said
    assert "bearerd: config: bearerd init" not in said, said
    assert _starts(site) == starts + 1
    assert site.restarts() == 0
    assert site.active()
    assert site.states() == {"dnb/bci": "valid"}
    assert _kept(site) == seen
    here.say(
        "upgrade      of the old version: checked and restarted once; no gap, no grant; config and secret are the same"
    )


def downgrade(site: Site, old: str, deb: str) -> None:
    """And the new one again."""
    here, seen = site.here, _kept(site)
    with site.reader.reading():
        here.run("apt-get", "install", "--yes", "--allow-downgrades", old)
        assert site.active()
        here.run("apt-get", "install", "--yes", deb)
    assert site.states() == {"dnb/bci": "valid"}
    assert _kept(site) == seen
    assert not here.sh("find /run/bearerd/.bearerd /var/lib/bearerd -name '*.version-*' -o -name '*.untrusted-*'")
    here.say("downgrade    and back: no gap, no grant, nothing is set aside")


def wrong_config(site: Site, deb: str) -> None:
    """The daemon that runs keeps running."""
    here, grants = site.here, site.provider.grants
    good, was = here.path(CONFIG).read_text(), here.show(DAEMON, "MainPID")
    with site.reader.reading():
        here.write(CONFIG, client(site.server.url, "{bci: {scop: bci}}"))
        said = here.run("apt-get", "install", "--yes", "--reinstall", deb)
        assert "did you mean 'scope'?" in said, said
        assert "the config is wrong, so nothing was started" in said, said
        assert here.show(DAEMON, "MainPID") == was
        here.write(CONFIG, good)
    assert site.provider.grants == grants
    here.say("wrong config after an upgrade the old daemon keeps running")


def release_upgrade(site: Site) -> None:
    """An upgrade of the system, as far as apt plans it: the package is for the old Python, so apt removes it."""
    here = site.here
    if here.system.suite not in _NEXT_SUITE:
        return
    after = _NEXT_SUITE[here.system.suite]
    extra = "/etc/apt/sources.list.d/next.list"
    here.sh(f"sed -n 's/ {here.system.suite} / {after} /p' /etc/apt/sources.list | grep -v security > {extra}")
    here.run("apt-get", "update")
    plan = here.run("apt-get", "--simulate", "full-upgrade")
    here.run("rm", extra)
    assert re.search(r"^Remv bearerd ", plan, re.MULTILINE), plan[-2000:]
    here.say(f"full-upgrade to {after}: apt removes the package, and does not purge it")


def _kept(site: Site) -> tuple[int, str, str, str]:
    """What an upgrade leaves alone: the number of grants, the config, the secret and the token."""
    texts = [site.here.path(path).read_text() for path in (CONFIG, SECRET, TOKEN)]
    return site.provider.grants, texts[0], texts[1], texts[2]


def _starts(site: Site) -> int:
    """How often systemd started the daemon."""
    return site.here.journal(DAEMON).count(f"Started {DAEMON}")


def _build_old(site: Site) -> tuple[str, str]:
    """A package of the first version, or of this one under a lower revision where the history is not there."""
    here = site.here
    here.path(_OLD).mkdir()
    archive = subprocess.run(["git", "-C", ROOT, "archive", _FIRST], capture_output=True, check=False)
    if archive.returncode == 0:
        subprocess.run(["tar", "-x", "-C", here.path(_OLD)], input=archive.stdout, check=True)
        name = f"0.1.0 of commit {_FIRST[:7]}"
    else:
        here.run("cp", "-a", f"{CHECKOUT}/.", _OLD)
        here.sh(f"rm {_OLD}/*.deb")
        name = "this version with a lower revision (the history is not here)"
    here.run("bash", f"{_OLD}/systemd/deb/build", _OLD, "0")
    [deb] = here.sh(f"ls -1 {_OLD}/*.deb").splitlines()
    here.say(f"old package  {Path(deb).name}: {name}")
    return deb, name
