"""What cleaners and other users do to the output directory while the daemon runs, and between two runs."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import bearerd as bearerd_package
from bearerd.config.load import load
from bearerd.publish import record as records
from bearerd.publish.lock import holder
from bearerd.publish.record import Record
from support.process import Daemon, bearerd, command, eventually, patched, pause, running
from support.readers import ROOT, open_directory
from support.server import Server, issues, serving
from support.targets import token

ALICE, GROUP = 65534, 4242
# The daemon looks at the directory every 8 s. In most tests here it does so every second, but not in those that have to
# act between two looks. Five times 8 s is a bound for a broken build.
WITHIN = 40.0
OFTEN = {"bearerd.lifecycle.schedule.CHECK_CLOCKS_EVERY": 1.0}


@dataclass
class Site:
    """A config with two tokens of one client over an output directory."""

    place: Path
    server: Server

    @property
    def config(self) -> Path:
        return self.place / "config.yaml"

    @property
    def tokens(self) -> Path:
        return self.place / "tokens"

    @property
    def own(self) -> Path:
        return self.tokens / ".bearerd"

    def write(self, more: str = "", files: str = "[{format: raw}]") -> None:
        secret = self.place / "secret"
        secret.write_text("s3cr3t")
        secret.chmod(0o600)
        self.config.write_text(
            f"output: {{directory: {self.tokens}{more}}}\nclients:\n  dnb:\n    token_url: {self.server.url}\n"
            f"    allow_http: true\n    client_id: 7e0c5a\n    client_secret: {{file: {secret}}}\n"
            f"    files: {files}\n    tokens: {{bci: {{}}, risk: {{}}}}\n"
        )

    def whole(self) -> bool:
        """Whether everything is there that the daemon keeps, and the lock is held."""
        paths = [self.tokens / "dnb/bci", self.tokens / "dnb/risk", self.own / "control.sock"]
        paths += [self.own / f"records/dnb/{name}.json" for name in ("bci", "risk")]
        return all(path.exists() for path in paths) and self.locked()

    def locked(self) -> bool:
        # It takes no lock, as the daemon would then end that wants it in this moment.
        return holder(str(self.own / "lock")) is not None


@pytest.fixture
def site() -> Iterator[Site]:
    with open_directory() as place, serving(issues()) as server:
        made = Site(place, server)
        made.write()
        yield made


def as_alice(*argv: str) -> None:
    """A member of the group does something."""
    subprocess.run(argv, user=ALICE, group=GROUP, extra_groups=[], cwd="/", check=True)


# -- a cleaner ---------------------------------------------------------------------------------------


def remove(directory: Path) -> None:
    """Remove a directory in one step, as the daemon may look at it at any moment."""
    aside = directory.parent.parent / f"removed-{directory.name}"
    directory.rename(aside)
    shutil.rmtree(aside)


def mount_over(site: Site) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", site.tokens], check=True)


def exchange_the_lock(site: Site) -> None:
    (site.own / "lock").unlink()
    (site.own / "lock").touch(0o600)


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda site: remove(site.tokens), id="the output directory"),
        pytest.param(lambda site: site.tokens.rename(site.place / "away"), id="renamed away"),
        pytest.param(lambda site: remove(site.own), id="its own directory"),
        pytest.param(lambda site: remove(site.own / "records"), id="the records"),
        pytest.param(lambda site: (site.own / "records/dnb/risk.json").unlink(), id="a record"),
        pytest.param(lambda site: (site.own / "lock").unlink(), id="the lock"),
        pytest.param(exchange_the_lock, id="the lock, another in its place"),
        pytest.param(lambda site: (site.own / "control.sock").unlink(), id="the socket"),
        pytest.param(mount_over, marks=ROOT, id="an empty file system over it"),
    ],
)
def test_what_a_cleaner_took_is_back_and_locked_again_and_costs_no_grant(
    site: Site, harm: Callable[[Site], object]
) -> None:
    with running("run", "-c", site.config, env=patched(site.place, OFTEN)) as daemon:
        eventually(site.whole)
        before = {path: path.read_bytes() for path in site.tokens.glob("dnb/*")}
        harm(site)
        try:
            eventually(site.whole, WITHIN)
            assert {path: path.read_bytes() for path in site.tokens.glob("dnb/*")} == before
            second = bearerd("run", "-c", site.config)
            assert second.returncode == 1
            assert f"in use by another bearerd, pid {daemon.process.pid}" in second.stderr
            status = bearerd("status", "--socket", site.own / "control.sock", "--json")
            assert status.returncode == 0, status.stderr
            assert daemon.stop() == 0
        finally:
            if os.path.ismount(site.tokens):
                subprocess.run(["umount", "-l", site.tokens], check=True)
        assert len(site.server.seen) == 2
    assert not [line for line in daemon.lines if "ERROR" in line]


def test_a_daemon_that_finds_anothers_lock_in_place_of_its_own_ends_with_1_and_writes_nothing(site: Site) -> None:
    with running("run", "-c", site.config, env=patched(site.place, OFTEN)) as first:
        eventually(site.whole)
        # Stopped, so that it does not look again before the second one has the lock that the first one lost.
        pause(first.process)
        shutil.rmtree(site.tokens)
        with running("run", "-c", site.config) as second:
            second.wait_for("keeps 2 tokens")
            first.process.send_signal(signal.SIGCONT)
            eventually((site.tokens / "dnb/bci").exists)
            line = first.wait_for("another bearerd took the lock", WITHIN)
            assert " ERROR " in line
            assert f"while this one ran: {site.tokens} is in use by another bearerd, pid {second.process.pid}" in line
            assert first.wait() == 1
            eventually(site.whole)
            assert (site.own / "lock").read_text() == f"{second.process.pid}\n"
            assert second.stop() == 0


def test_what_cannot_be_put_back_is_told_once_and_tried_until_it_can(site: Site) -> None:
    with running("run", "-c", site.config, env=patched(site.place, OFTEN)) as daemon:
        eventually(site.whole)
        obstacle = site.place / "obstacle"
        obstacle.write_text("in the way")
        site.tokens.rename(site.place / "away")
        obstacle.rename(site.tokens)
        line = daemon.wait_for("the lock file was removed or replaced and cannot be restored", WITHIN)
        assert f"{site.tokens}" in line
        assert "not a directory; move it away, or use another path; trying again" in line
        site.tokens.unlink()
        daemon.wait_for("the lock file was removed or replaced; it is locked again", WITHIN)
        eventually(site.whole, WITHIN)
        assert daemon.stop() == 0
    assert len([line for line in daemon.lines if "cannot be restored" in line]) == 1


# -- another user of the group -------------------------------------------------------------------------


def forge(site: Site) -> None:
    """A member of the group plants a record in place of the daemon's; its form is known, and the config is readable."""
    planted = site.place / "planted"
    (planted / "records/dnb").mkdir(parents=True)
    (planted / "lock").touch()
    for target in load(str(site.config), {}).targets:
        forged = Record(token(f"forged-{target.name}", lifetime=1e9), target.identity(), "7e0c5a")
        (planted / f"records/dnb/{target.name}.json").write_bytes(records.dump(forged))
    for path in [planted, *planted.rglob("*")]:
        os.chown(path, ALICE, GROUP)
    as_alice("mv", str(site.own), str(site.tokens / "was"))
    as_alice("cp", "-a", str(planted), str(site.own))


def shared(site: Site) -> None:
    """An output directory that a group may write, and one more place, which is root's alone."""
    roots = site.place / "roots"
    roots.mkdir(mode=0o700)
    site.write(f", group: '{GROUP}', directory_mode: '2770'")
    files = f"[{{format: raw}}, {{format: raw, path: {roots}/bci}}]"
    site.config.write_text(site.config.read_text().replace("{bci: {},", f"{{bci: {{files: {files}}},"))


@ROOT
def test_a_record_that_another_user_planted_between_two_runs_is_never_published(site: Site) -> None:
    shared(site)
    assert bearerd("once", "-c", site.config).returncode == 0
    assert stat.S_IMODE(site.tokens.stat().st_mode) == 0o2770
    forge(site)
    with running("run", "-c", site.config) as daemon:
        line = daemon.wait_for("is not used")
        assert (
            f"WARNING {site.own} is not used because it belongs to user nobody, and bearerd runs as root; it was moved"
            in line
        )
        eventually(site.whole)
        eventually(lambda: len(site.server.seen) == 4)
        eventually(lambda: (site.place / "roots/bci").read_text() in {"t-3", "t-4"})
        assert daemon.stop() == 0
    assert not [path for path in _written(site) if b"forged" in path.read_bytes()]


@ROOT
def test_a_record_that_another_user_plants_while_the_daemon_runs_is_never_published(site: Site) -> None:
    shared(site)
    with running("run", "-c", site.config, env=patched(site.place, OFTEN)) as daemon:
        eventually(site.whole)
        eventually((site.place / "roots/bci").exists)
        before = {path: path.read_bytes() for path in _written(site)}
        forge(site)
        # Even their lock has no effect.
        with subprocess.Popen(
            ["flock", str(site.own / "lock"), "cat"],
            user=ALICE, group=GROUP, extra_groups=[], cwd="/", stdin=subprocess.PIPE,
        ) as holder:  # fmt: skip
            daemon.wait_for(f"{site.own} is not used because it belongs to user nobody", WITHIN)
            daemon.wait_for("it is locked again", WITHIN)
            eventually(site.whole, WITHIN)
            assert holder.stdin is not None
            holder.stdin.close()
        assert {path: path.read_bytes() for path in _written(site)} == before
        daemon.process.send_signal(signal.SIGKILL)
        daemon.wait()
    with running("run", "-c", site.config) as daemon:
        daemon.wait_for("the token from the record is good")
        eventually(site.whole)
        assert daemon.stop() == 0
    assert {path: path.read_bytes() for path in _written(site)} == before
    assert len(site.server.seen) == 2


def _written(site: Site) -> list[Path]:
    """The token files."""
    return [*site.tokens.glob("dnb/*"), *(site.place / "roots").iterdir()]


# -- what the process makes ------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_nothing_that_it_makes_can_be_written_by_others_its_compiled_modules_included(site: Site, umask: int) -> None:
    # As installed without compiled modules.
    package = site.place / "site"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(bearerd_package.__file__).parent, package / "bearerd", ignore=ignored)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    site.write(", directory_mode: '0755'")
    with subprocess.Popen(
        command("run", "-c", site.config),
        env=environ | {"PYTHONPATH": str(package)},
        umask=umask,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        daemon = Daemon(process)
        eventually(site.whole)
        assert daemon.stop() == 0
    caches = list(package.rglob("__pycache__"))
    assert package / "bearerd/publish/__pycache__" in caches
    made = [site.tokens, *site.tokens.rglob("*"), *package.rglob("__pycache__/*"), *caches]
    assert [(str(path), oct(path.stat().st_mode)) for path in made if path.stat().st_mode & 0o022] == []


# -- check says what is on the way -------------------------------------------------------------------------


@ROOT
def test_check_says_which_links_are_followed_and_which_are_refused(site: Site) -> None:
    (site.place / "run").mkdir()
    (site.place / "var").symlink_to("run")
    (site.place / "home").mkdir()
    os.chown(site.place / "home", ALICE, ALICE)
    (site.place / "home/link").symlink_to(site.place / "run")
    paths = [f"{site.place}/{directory}/X" for directory in ("var", "home", "home/link")]
    files = ", ".join(f"{{format: raw, path: {path}}}" for path in paths)
    site.write()
    text = site.config.read_text().replace("    files: [{format: raw}]\n", "")
    site.config.write_text(text.replace("{bci: {}, risk: {}}", f"{{bci: {{files: [{files}]}}}}"))
    done = bearerd("check", "-c", site.config)
    assert done.returncode == 1
    assert f"ok       path: symlink {site.place}/var leads to run\n" in done.stdout
    assert (
        f"ok       path: {site.place}/home, which belongs to user nobody: no symlink below it is followed"
        in done.stdout
    )
    assert (
        f"failed   token dnb/bci: the symlink {site.place}/home/link is not followed: it is below "
        f"{site.place}/home, which belongs to user nobody; use the real path\n"
    ) in done.stdout


@ROOT
def test_check_says_what_the_daemon_would_move_aside(site: Site) -> None:
    assert bearerd("once", "-c", site.config).returncode == 0
    assert "warning" not in bearerd("check", "-c", site.config).stdout
    (site.own / "records").chmod(0o770)
    done = bearerd("check", "-c", site.config)
    said = f"warning  directory: {site.own}/records: other users can write it (mode 0770); bearerd will move it aside"
    assert done.returncode == 0
    assert said in done.stdout
    assert (site.own / "records/dnb/bci.json").exists()


# -- links on the way to the output directory ------------------------------------------------------------


@ROOT
def test_an_output_directory_behind_a_link_of_roots_works_and_of_another_user_ends_with_1(site: Site) -> None:
    (site.place / "run").mkdir()
    link = site.place / "var"
    link.symlink_to("run")
    site.config.write_text(site.config.read_text().replace(str(site.tokens), f"{link}/tokens"))
    with running("run", "-c", site.config) as daemon:
        eventually((site.place / "run/tokens/dnb/bci").exists)
        eventually((site.place / "run/tokens/.bearerd/control.sock").exists)
        assert daemon.stop() == 0
    os.chown(link, ALICE, ALICE, follow_symlinks=False)
    done = bearerd("run", "-c", site.config)
    assert done.returncode == 1
    assert f"bearerd: the symlink {link} is not followed: it belongs to user nobody" in done.stderr


@ROOT
def test_the_control_socket_is_not_made_where_a_link_of_another_user_leads(site: Site) -> None:
    home, victim = site.place / "home", site.place / "victim"
    home.mkdir()
    os.chown(home, ALICE, GROUP)
    victim.mkdir()
    as_alice("ln", "-s", str(victim), str(home / "d"))
    site.config.write_text(f"control: {{socket: {home}/d/x.sock}}\n{site.config.read_text()}")
    with running("run", "-c", site.config) as daemon:
        assert f"the symlink {home}/d is not followed" in daemon.wait_for("cannot listen at")
        eventually((site.tokens / "dnb/bci").exists)
        assert list(victim.iterdir()) == []
        assert daemon.stop() == 0


def test_a_look_without_memory_is_followed_by_another(tmp_path: Path) -> None:
    fails_once = (
        "from bearerd.service.engine import Engine",
        "def tick(self):\n    Engine.tick = once\n    raise MemoryError",
        "once, Engine.tick = Engine.tick, tick",
    )
    with serving(issues()) as server:
        site = Site(tmp_path, server)
        site.write()
        with running("run", "-c", site.config, env=patched(tmp_path, OFTEN, *fails_once)) as daemon:
            daemon.wait_for("out of memory; raise the memory limit of bearerd, or of the machine")
            eventually(site.whole, WITHIN)
            (site.tokens / "dnb/bci").unlink()
            eventually(site.whole, WITHIN)
