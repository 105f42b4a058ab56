"""A daemon that is changed while it runs: real files, real events, real signals."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.process import WITHIN, Daemon, eventually, patched, running
from support.server import Answer, Seen, Server, issues, serving


class Site:
    """A config, a secret and the tokens of a running daemon."""

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url = path, url
        self.etc = path / "etc"
        self.config, self.secret = self.etc / "config.yaml", self.etc / "secret"
        self.tokens = path / "tokens"
        self.etc.mkdir()
        self.secret.write_text("good")
        self.secret.chmod(0o600)
        self.config.write_text(self.text())

    def text(self, tokens: str = "{bci: {scope: bci}}", top: str = "", directory: str = "tokens") -> str:
        """A config whose client has these tokens."""
        return (
            f"{top}\noutput: {{directory: {self.path}/{directory}}}\nclients:\n  dnb:\n    token_url: {self.url}\n"
            f"    allow_http: true\n    client_id: a\n    client_secret: {{file: {self.secret}}}\n"
            f"    tokens: {tokens}\n"
        )

    def read(self, name: str) -> str:
        """A token's file; empty where there is none."""
        try:
            return (self.tokens / "dnb" / name).read_text()
        except FileNotFoundError:
            return ""


BOTH = "{bci: {scope: bci}, risk: {scope: risk}}"
# What a look every 8 s finds would be 8 s of a test; that these are short enough is a test of their own.
OFTEN = {"bearerd.lifecycle.schedule.CHECK_CLOCKS_EVERY": 0.2}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(issues()) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: Server) -> Site:
    return Site(tmp_path, server.url)


def scopes(server: Server) -> list[str]:
    return [seen.body.decode().partition("scope=")[2] for seen in server.seen]


def ready(daemon: Daemon, site: Site) -> None:
    daemon.wait_for("token obtained")
    eventually(lambda: site.read("bci"))


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def by_rename(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def deleted_and_made_again(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def in_pieces(path: Path, text: str) -> None:
    with path.open("w") as file:
        for line in text.splitlines(keepends=True):
            file.write(line)
            file.flush()


def with_its_directory(path: Path, text: str) -> None:
    aside = path.parent.with_name("aside")
    path.parent.rename(aside)
    shutil.copytree(aside, path.parent)
    path.write_text(text)


EDITS = [in_place, by_rename, deleted_and_made_again, in_pieces, with_its_directory]


@pytest.mark.parametrize("edit", EDITS, ids=[edit.__name__ for edit in EDITS])
def test_an_edited_config_is_applied_without_a_gap_for_readers(
    site: Site, server: Server, edit: Callable[[Path, str], None]
) -> None:
    with running("run", "-c", site.config) as daemon:
        ready(daemon, site)
        token, gaps, done = site.read("bci"), [], threading.Event()

        def reader() -> None:
            while not done.is_set():
                if site.read("bci") != token:
                    gaps.append(site.read("bci"))

        reading = threading.Thread(target=reader)
        reading.start()
        edit(site.config, site.text(BOTH))
        eventually(lambda: site.read("risk"))
        done.set()
        reading.join()

        assert gaps == []
        assert scopes(server) == ["bci", "risk"]
        assert daemon.stop() == 0


def test_a_swapped_mount_is_noticed(site: Site, server: Server) -> None:
    # As Kubernetes does it: config.yaml -> ..data/config.yaml, and ..data is replaced by a rename.
    for number, text in enumerate([site.text(), site.text(BOTH)]):
        (site.etc / f"..{number}").mkdir()
        (site.etc / f"..{number}" / "config.yaml").write_text(text)
    (site.etc / "..data").symlink_to("..0")
    site.config.unlink()
    site.config.symlink_to("..data/config.yaml")
    with running("run", "-c", site.config) as daemon:
        ready(daemon, site)
        (site.etc / "..new").symlink_to("..1")
        (site.etc / "..new").rename(site.etc / "..data")
        eventually(lambda: site.read("risk"))
        assert scopes(server) == ["bci", "risk"]


@pytest.mark.parametrize("middle", ["a directory", "a file"])
def test_a_switched_link_in_the_middle_of_the_config_path_is_noticed(site: Site, server: Server, middle: str) -> None:
    # As NixOS does it: /etc/bearerd/config.yaml -> /etc/static/config.yaml, and static -> a directory of the store.
    static = site.path / "links/static"
    static.parent.mkdir()
    generations = [site.path / "1", site.path / "2"]
    for directory, text in zip(generations, [site.text(), site.text(BOTH)], strict=True):
        directory.mkdir()
        (directory / "config.yaml").write_text(text)
    targets = generations if middle == "a directory" else [directory / "config.yaml" for directory in generations]
    static.symlink_to(targets[0])
    site.config.unlink()
    site.config.symlink_to(static / "config.yaml" if middle == "a directory" else static)
    with running("run", "-c", site.config) as daemon:
        ready(daemon, site)
        looked(daemon, site)
        switch(static, targets[1])
        eventually(lambda: site.read("risk"))
        assert scopes(server) == ["bci", "risk"]
        # The new generation is watched like the first.
        (generations[1] / "config.yaml").write_text(site.text("{third: {scope: third}}"))
        eventually(lambda: site.read("third"))


def looked(daemon: Daemon, site: Site) -> None:
    """Wait until the first check of all files is over. Later changes are noticed only by watches."""
    site.secret.write_text("another")
    daemon.wait_for("credentials for client dnb changed")


def switch(link: Path, target: Path) -> None:
    new = link.with_suffix(".new")
    new.symlink_to(target)
    new.rename(link)


@pytest.mark.parametrize("include", ["conf.d/*.yaml", "link/../conf.d/*.yaml"])
def test_a_new_included_file_is_picked_up(site: Site, server: Server, include: str) -> None:
    for name in ("conf.d", "more/conf.d", "more/sub"):
        (site.etc / name).mkdir(parents=True)
    (site.etc / "link").symlink_to("more/sub")
    site.config.write_text(site.text(top=f"include: ['{include}']"))
    with running("run", "-c", site.config) as daemon:
        ready(daemon, site)
        more = site.text("{api: {scope: api}}").partition("\nclients:\n")[2].replace("dnb:", "more:")
        (site.etc / include.replace("*", "more")).write_text(f"clients:\n{more}")
        eventually((site.tokens / "more/api").exists)
        assert scopes(server) == ["bci", "api"]


def other_client(site: Site, tokens: str) -> str:
    return "clients:\n" + site.text(tokens).partition("\nclients:\n")[2].replace("dnb:", "more:")


def test_a_new_included_file_that_is_saved_again_after_it_was_read_is_read_again(site: Site) -> None:
    new, later = site.etc / "conf.d/more.yaml", site.etc / "later.yaml"
    new.parent.mkdir()
    later.write_text(other_client(site, "{api: {scope: api}, risk: {scope: risk}}"))
    site.config.write_text(site.text(top="include: [conf.d/*.yaml]"))
    lines = [
        "import pathlib, threading; from bearerd.config.reader import ConfigReader",
        "once, saved = ConfigReader.answer, []",
        "def answer(self, *present):",
        "    loaded = once(self, *present)",
        "    if threading.current_thread() is not threading.main_thread() and not saved:",
        f"        saved.append(pathlib.Path({str(new)!r}).write_bytes(pathlib.Path({str(later)!r}).read_bytes()))",
        "    return loaded",
        "ConfigReader.answer = answer",
    ]
    with running("run", "-c", site.config, env=patched(site.path, {}, *lines)) as daemon:
        ready(daemon, site)
        by_rename(new, other_client(site, "{api: {scope: api}}"))
        eventually((site.tokens / "more/risk").exists)
        eventually((site.tokens / "more/api").exists)


@pytest.mark.parametrize("include", ["conf.d/*.yaml", "c*.d/*.yaml"])
def test_an_error_in_a_new_included_file_can_be_corrected_there(site: Site, include: str) -> None:
    new = site.etc / "conf.d/more.yaml"
    new.parent.mkdir()
    new.write_text(other_client(site, "{api: {scop: api}}"))
    with running("run", "-c", site.config) as daemon:
        ready(daemon, site)
        site.config.write_text(site.text(top=f"include: [{include}]"))
        daemon.wait_for("stays in use")
        new.write_text(other_client(site, "{api: {scope: api}}"))
        eventually((site.tokens / "more/api").exists)


def test_a_new_secret_that_changes_when_the_new_config_is_applied_counts_as_changed(site: Site) -> None:
    new = site.etc / "new"
    new.write_text("good")
    new.chmod(0o600)
    lines = [
        "import pathlib; from bearerd.service.engine import Engine",
        "once = Engine.apply",
        f"Engine.apply = lambda *all: (once(*all), pathlib.Path({str(new)!r}).write_text('better'))[0]",
    ]
    with running("run", "-c", site.config, env=patched(site.path, {}, *lines)) as daemon:
        ready(daemon, site)
        site.config.write_text(site.text().replace(str(site.secret), str(new)))
        daemon.wait_for("credentials for client dnb changed")


def test_a_config_with_errors_changes_nothing_until_it_is_corrected(site: Site, server: Server) -> None:
    with running("run", "-c", site.config) as daemon:
        ready(daemon, site)
        site.config.write_text(site.text(BOTH).replace("scope: risk", "scop: risk"))
        said = daemon.wait_for("stays in use")
        # Its place and kind, on one line; what it quotes of the config is for `check` alone.
        assert re.search(
            rf"ERROR +the new config has 1 error: {site.config}:\d+:\d+: unknown key; the current config "
            rf"stays in use; bearerd check -c {site.config} shows more$",
            said,
        )
        assert (site.read("bci"), site.read("risk"), len(server.seen)) == ("t-1", "", 1)

        site.config.write_text(site.text(BOTH))
        daemon.wait_for("config reloaded: 1 token added")
        eventually(lambda: site.read("risk"))
        assert scopes(server) == ["bci", "risk"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        pytest.param(
            "def start(*arguments):\n    if not failed: failed.append(0); raise RuntimeError('no thread, as it says')\n"
            "    once(*arguments)\nonce, run.start = run.start, start",
            "the config was not read: no thread, as it says",
            id="no-thread",
        ),
        pytest.param(
            "def answer(self, *present):\n"
            "    if threading.current_thread() is not threading.main_thread() and not failed: failed.append(0); 1 / 0\n"
            "    return once(self, *present)\nonce, ConfigReader.answer = ConfigReader.answer, answer",
            "the config was not read: ZeroDivisionError",
            id="a-bug",
        ),
        pytest.param(
            "def reloading(self):\n    SystemdNotifier.reloading = once\n    raise MemoryError\n"
            "once, SystemdNotifier.reloading = SystemdNotifier.reloading, reloading",
            "the config was not read: out of memory",
            id="no-memory",
        ),
    ],
)
def test_a_reload_that_failed_temporarily_is_retried(tmp_path: Path, site: Site, fault: str, said: str) -> None:
    lines = ["import threading", "from bearerd.config.reader import ConfigReader", "from bearerd.service import run"]
    lines += ["from bearerd.service.notify import SystemdNotifier", "failed = []", fault]
    env = patched(tmp_path, {"bearerd.lifecycle.schedule.CHECK_CLOCKS_EVERY": 0.2}, *lines)
    with running("run", "-c", site.config, env=env) as daemon:
        ready(daemon, site)
        site.config.write_text(site.text(BOTH))
        assert "the current config stays in use" in daemon.wait_for(said)
        daemon.wait_for("config reloaded: 1 token added")
        assert daemon.stop() == 0


def test_a_removed_token_loses_file_and_record_and_others_keep_theirs(site: Site, server: Server) -> None:
    site.config.write_text(site.text(BOTH))
    with running("run", "-c", site.config) as daemon:
        eventually(lambda: site.read("bci") and site.read("risk"))
        kept = site.read("bci")
        site.config.write_text(site.text())
        daemon.wait_for("no longer in the config, removed")
        eventually(lambda: not site.read("risk"))
        assert not (site.tokens / ".bearerd/records/dnb/risk.json").exists()
        assert (site.read("bci"), len(server.seen)) == (kept, 2)

        # What comes back is a token like any other.
        site.config.write_text(site.text(BOTH))
        eventually(lambda: site.read("risk"))
        assert len(server.seen) == 3


def test_changed_files_are_written_without_a_request(site: Site, server: Server) -> None:
    with running("run", "-c", site.config) as daemon:
        ready(daemon, site)
        site.config.write_text(site.text("{bci: {scope: bci, files: [{format: header, mode: '0600'}]}}"))
        eventually((site.tokens / "dnb/bci.header").exists)
        eventually(lambda: not site.read("bci"))
        assert (site.tokens / "dnb/bci.header").read_text() == "Authorization: Bearer t-1\n"
        assert (site.tokens / "dnb/bci.header").stat().st_mode & 0o777 == 0o600
        assert len(server.seen) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to give a file to another group")
def test_a_changed_group_applies_to_files_and_to_the_control_socket(site: Site) -> None:
    socket = site.tokens / ".bearerd/control.sock"
    with running("run", "-c", site.config) as daemon:
        ready(daemon, site)
        eventually(socket.exists)
        site.config.write_text(site.text().replace("/tokens}", '/tokens, group: "65534"}'))
        eventually(lambda: (site.tokens / "dnb/bci").stat().st_gid == 65534)

        def is_theirs() -> bool:
            with suppress(FileNotFoundError):  # it is bound anew
                return socket.stat().st_gid == 65534
            return False

        eventually(is_theirs)


def test_a_changed_scope_needs_a_new_grant_and_keeps_the_old_token_until_then(tmp_path: Path) -> None:
    asked, again, may_answer = threading.Event(), threading.Event(), threading.Event()

    def script(seen: Seen) -> Answer:
        scope = seen.body.decode().partition("scope=")[2]
        if scope == "risk" and not asked.is_set():
            asked.set()
            return Answer(503)
        if scope == "risk":
            again.set()
            assert may_answer.wait(WITHIN)
        return Answer(200, {"access_token": scope, "expires_in": 3600})

    with serving(script) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config) as daemon:
            ready(daemon, site)
            site.config.write_text(site.text("{bci: {scope: risk, files: [{format: raw}, {format: header}]}}"))
            assert again.wait(WITHIN)
            # A turn has come and gone: the file that is new with the new scope holds no token of the old one.
            assert (site.read("bci"), site.read("bci.header")) == ("bci", "")
            may_answer.set()
            eventually(lambda: site.read("bci.header") == "Authorization: Bearer risk\n")
            assert site.read("bci") == "risk"


def test_another_way_to_the_same_provider_keeps_the_token(site: Site, server: Server) -> None:
    with running("run", "-c", site.config, env=patched(site.path, OFTEN)) as daemon:
        ready(daemon, site)
        site.config.write_text(site.text().replace("client_id: a", "client_id: a\n    timeout: 3s"))
        daemon.wait_for("config reloaded: 1 token changed")
        # The turn on its new workers has come and gone when one that came after it was followed.
        site.config.write_text(site.text(BOTH).replace("client_id: a", "client_id: a\n    timeout: 3s"))
        eventually(lambda: site.read("risk"))
        assert (site.read("bci"), scopes(server)) == ("t-1", ["bci", "risk"])
        (site.tokens / "dnb/bci").unlink()
        daemon.wait_for("restored")


def test_another_directory_needs_a_restart_and_is_refused(site: Site, server: Server) -> None:
    with running("run", "-c", site.config) as daemon:
        ready(daemon, site)
        site.config.write_text(site.text(BOTH, directory="elsewhere"))
        daemon.wait_for("a changed output.directory needs a restart")
        assert (site.read("bci"), len(server.seen)) == ("t-1", 1)


def test_a_storm_of_hups_costs_no_request_and_few_readings(site: Site, server: Server) -> None:
    with running("run", "-c", site.config) as daemon:
        ready(daemon, site)
        site.config.write_text(site.text(BOTH))
        for _ in range(100):
            os.kill(daemon.process.pid, signal.SIGHUP)
        eventually(lambda: site.read("risk"))
        assert daemon.stop() == 0
        followed = [line for line in daemon.lines if "config reloaded" in line]
        assert 1 <= len(followed) <= 20
        assert scopes(server) == ["bci", "risk"]


def test_by_signal_only_a_changed_config_waits_for_hup(site: Site, server: Server) -> None:
    site.config.write_text(site.text(top="reload: signal"))
    with running("run", "-c", site.config) as daemon:
        ready(daemon, site)
        site.config.write_text(site.text(BOTH, top="reload: signal"))
        # Secrets are watched all the same; what is said of this one comes after the config was looked at.
        site.secret.write_text("another")
        daemon.wait_for("credentials for client dnb changed")
        assert (site.read("risk"), len(server.seen)) == ("", 1)
        os.kill(daemon.process.pid, signal.SIGHUP)
        eventually(lambda: site.read("risk"))


# -- secrets -------------------------------------------------------------------------------------------


def only(secret: str) -> Callable[[Seen], Answer]:
    """A provider that takes one secret."""
    script = issues()

    def answer(seen: Seen) -> Answer:
        good = f"client_secret={secret}".encode() in seen.body
        return script(seen) if good else Answer(401, {"error": "invalid_client"})

    return answer


@pytest.mark.parametrize("write", [in_place, by_rename, deleted_and_made_again], ids=lambda write: write.__name__)
def test_a_client_that_was_refused_uses_a_changed_secret_at_once(
    tmp_path: Path, write: Callable[[Path, str], None]
) -> None:
    with serving(only("new")) as server:
        site = Site(tmp_path, server.url)
        site.config.write_text(site.text().replace("client_id: a", "client_id: a\n    auth: client_secret_post"))
        with running("run", "-c", site.config) as daemon:
            daemon.wait_for("HTTP 401 invalid_client")
            old = os.umask(0o077)
            try:
                write(site.secret, "")  # not whole yet
                write(site.secret, "new")
            finally:
                os.umask(old)
            eventually(lambda: site.read("bci"))
            assert len(server.seen) == 2


def test_switching_the_middle_one_of_three_links_to_a_secret_is_noticed(site: Site) -> None:
    for name in ("old", "new"):
        (site.path / name).mkdir()
        (site.path / name / "real").write_text(name)
        (site.path / name / "real").chmod(0o600)
        (site.path / name / "third").symlink_to("real")
    middle = site.path / "links/middle"
    middle.parent.mkdir()
    middle.symlink_to("../old/third")
    site.secret.unlink()
    site.secret.symlink_to(middle)
    with running("run", "-c", site.config) as daemon:
        ready(daemon, site)
        looked(daemon, site)
        switch(middle, Path("../new/third"))
        daemon.wait_for("credentials for client dnb changed")


def test_a_healthy_client_uses_a_changed_secret_at_its_next_refresh(site: Site, server: Server) -> None:
    with running("run", "-c", site.config) as daemon:
        ready(daemon, site)
        by_rename_private(site.secret, "new")
        daemon.wait_for("credentials for client dnb changed")
        assert daemon.stop() == 0
        assert len(server.seen) == 1


def by_rename_private(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    new.rename(path)


@pytest.mark.parametrize(
    "place", ["bearerd.service.sources.Sources.clients_changed", "bearerd.service.engine.Engine.secrets_changed"]
)
def test_a_change_that_was_handled_without_memory_is_handled_again(site: Site, place: str) -> None:
    module, owner, function = place.rsplit(".", 2)
    fails_once = (
        f"from {module} import {owner}",
        f"def fails(*arguments):\n    if open({str(site.secret)!r}).read() == 'good':\n        return once(*arguments)",
        f"    {owner}.{function} = once\n    raise MemoryError",
        f"once, {owner}.{function} = {owner}.{function}, fails",
    )
    with running("run", "-c", site.config, env=patched(site.path, {}, *fails_once)) as daemon:
        ready(daemon, site)
        by_rename_private(site.secret, "new")
        daemon.wait_for("out of memory; raise the memory limit of bearerd, or of the machine")
        daemon.wait_for("credentials for client dnb changed")
        assert daemon.stop() == 0


# By itself it looks for a secret that is missing after an hour in place of 10 s: what is used sooner was noticed.
PATIENT = {"bearerd.lifecycle.policy._UNSENT_FIRST": 3600.0, "bearerd.lifecycle.policy._UNSENT_CEILING": 3600.0}


def test_a_missing_secret_is_used_when_it_appears(site: Site, server: Server) -> None:
    site.secret.unlink()
    with running("run", "-c", site.config, env=patched(site.path, PATIENT)) as daemon:
        daemon.wait_for("no such file or directory")
        by_rename_private(site.secret, "good")
        eventually(lambda: site.read("bci"))
        assert len(server.seen) == 1


def test_a_secret_that_others_could_read_is_used_after_a_chmod(site: Site, server: Server) -> None:
    site.secret.chmod(0o644)
    with running("run", "-c", site.config, env=patched(site.path, PATIENT)) as daemon:
        daemon.wait_for("mode 0644 lets others access it")
        site.secret.chmod(0o600)
        eventually(lambda: site.read("bci"))
        assert len(server.seen) == 1


def test_a_config_that_names_another_secret_is_used_at_once(site: Site, server: Server) -> None:
    site.config.write_text(site.text().replace(str(site.secret), f"{site.secret}.missing"))
    with running("run", "-c", site.config, env=patched(site.path, PATIENT)) as daemon:
        daemon.wait_for("no such file or directory")
        site.config.write_text(site.text())
        eventually(lambda: site.read("bci"))
        assert len(server.seen) == 1


# -- the files -----------------------------------------------------------------------------------------


def test_altered_files_are_restored(site: Site, server: Server) -> None:
    site.config.write_text(site.text("{deleted: {}, altered: {}, opened: {}}"))
    paths = [site.tokens / "dnb" / name for name in ("deleted", "altered", "opened")]
    with running("run", "-c", site.config, env=patched(site.path, OFTEN)) as daemon:
        server.wait_for(3)
        eventually(lambda: all(path.exists() for path in paths))
        before = [path.read_text() for path in paths]
        paths[0].unlink()
        paths[1].write_text("garbage")
        paths[2].chmod(0o666)
        for _ in paths:
            daemon.wait_for("restored")
        assert [path.read_text() for path in paths] == before
        assert [path.stat().st_mode & 0o777 for path in paths] == [0o640] * 3
        assert len(server.seen) == 3


def test_a_file_is_restored_while_the_config_changes_all_the_time(site: Site, server: Server) -> None:
    done = threading.Event()

    def noise() -> None:
        while not done.wait(0.05):
            os.utime(site.config)

    # The settling of what is written takes longer than a look is due.
    often = OFTEN | {"bearerd.service.run._SETTLED_AT_LATEST": 0.5}
    with running("run", "-c", site.config, env=patched(site.path, often)) as daemon:
        ready(daemon, site)
        writing = threading.Thread(target=noise)
        writing.start()
        try:
            (site.tokens / "dnb/bci").unlink()
            daemon.wait_for("restored")
        finally:
            done.set()
            writing.join()
        assert len(server.seen) == 1
