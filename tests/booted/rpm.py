"""The RPM: built, installed, upgraded and removed by Debian's rpm, under a real systemd.

Debian's rpm knows nothing of the packages that apt installed, so the dependencies of the RPM are not checked.
"""

from __future__ import annotations

from pathlib import Path

from booted.machine import Machine
from booted.package import Row, documents, next_steps
from booted.scenes import CONFIG, DAEMON, SECRET, Site, client, commands_below
from support.provider import Provider
from support.server import serving

# Within the booted machine: where rpmbuild puts what root builds, by default.
_BUILT = "/root/rpmbuild"
# Else the compression takes longer than all the rest; the content is the same.
_FAST = ["--define", "_binary_payload w1.gzdio"]


def rpm(here: Machine, out: Path) -> Row:
    """On a machine that has no bearerd. The package is copied to `out`."""
    with serving(provider := Provider()) as server:
        site = Site(here, server, provider)
        before = here.known()
        [text] = commands_below("As an RPM", "rpmbuild")
        [command] = [line for line in text.splitlines() if line.startswith("rpmbuild ")]
        first, second = (_build(site, [*command.split(), "--define", f"revision {number}"]) for number in (1, 2))
        (out / Path(first).name).write_bytes(here.path(first).read_bytes())
        size = int(here.run("stat", "--format=%s", first)) / 1e6
        here.say(f"RPM          {Path(first).name}: {size:.0f} MB with little compression")
        install(site, first)
        upgrade(site, second)
        removal(site)
        here.sh(f"rm -r {_BUILT} /etc/bearerd /run/bearerd /var/lib/bearerd; userdel bearerd; groupdel bearerd-readers")
        assert here.known() == before, set(here.known()) - set(before)
        here.say("RPM          removed: config, secret and tokens stay")
    python = here.run("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    return Row(
        f"`{Path(first).name}`", f"on {here.system.name}, Python {python}", "",
        "by Debian's rpm without dependencies; starts nothing", "revision 1 to 2: no gap, no grant, one restart",
        "config, secret and tokens stay",
    )  # fmt: skip


def install(site: Site, package: str) -> None:
    """Nothing starts until it is enabled."""
    here = site.here
    here.sh("mkdir -p /opt/bearerd/bin && touch /opt/bearerd/bin/bearerd")
    said = here.run("rpm", "--install", "--nodeps", package, code=1)
    assert "installed by hand: remove it" in said, said
    here.sh("rm -r /opt/bearerd")
    next_steps(here.run("rpm", "--install", "--nodeps", package))
    assert here.run("rpm", "--verify", "--nodeps", "bearerd") == ""
    documents(site, "/usr/share/zsh/site-functions")
    assert here.show(DAEMON, "ActiveState") == "inactive"
    site.page("The config and the secret", "first\n")
    site.page("Start")
    assert site.active()
    here.say(f"RPM          without a config nothing starts; then by the page: {site.status()}")


def upgrade(site: Site, package: str) -> None:
    """Of one that runs, with a good config and then with a wrong one."""
    here, grants, starts = site.here, site.provider.grants, _starts(site)
    with site.reader.reading():
        said = here.run("rpm", "--upgrade", "--nodeps", package)
        assert f"ok       config {CONFIG}: 1 token" in said, said
        assert _starts(site) == starts + 1
        assert site.restarts() == 0
        assert site.states() == {"dnb/bci": "valid"}
        assert here.run("systemctl", "is-enabled", DAEMON) == "enabled"
        good = here.path(CONFIG).read_text()
        here.write(CONFIG, client(site.server.url, "{bci: {scop: bci}}"))
        said = here.run("rpm", "--reinstall", "--nodeps", package)
        assert "the running daemon was not restarted" in said, said
        assert _starts(site) == starts + 1
        here.write(CONFIG, good)
    assert site.provider.grants == grants
    here.say("RPM          upgraded: checked and restarted once, no gap, no grant; not restarted with a wrong config")


def removal(site: Site) -> None:
    """What an administrator wrote stays, and the tokens."""
    here = site.here
    with site.reader.reading():
        here.run("rpm", "--erase", "bearerd")
    assert here.code("systemctl", "is-active", "bearerd") != 0
    assert here.path(SECRET).exists()
    assert not here.path("/opt/bearerd").exists()
    assert here.sh("find /etc/systemd /usr -xdev -name '*bearerd*'") == ""


def _build(site: Site, command: list[str]) -> str:
    """Run rpmbuild; the package."""
    here = site.here
    here.run(*command, *_FAST)
    packages = here.sh(f"ls -1 -t {_BUILT}/RPMS/*/*.rpm").splitlines()
    return packages[0]


def _starts(site: Site) -> int:
    """How often systemd started the daemon."""
    return site.here.journal(DAEMON).count(f"Started {DAEMON}")
