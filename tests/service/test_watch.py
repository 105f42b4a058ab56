from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from watchdog.observers import Observer

from bearerd.model import Config, Output
from bearerd.mounts import Mounts
from bearerd.service import watch as module
from bearerd.service.sources import Sources
from bearerd.service.watch import Watch
from bearerd.terms import Redis, Reference, Share
from support.process import WITHIN, eventually
from support.targets import CLIENT, target


class Look:
    """Records that the watch reported a change."""

    def __init__(self) -> None:
        self.reported = threading.Event()

    def __call__(self) -> None:
        self.reported.set()

    def within(self) -> bool:
        came = self.reported.wait(WITHIN)
        self.reported.clear()
        return came


@pytest.fixture
def look() -> Look:
    return Look()


@pytest.fixture
def watch(look: Look) -> Iterator[Watch]:
    watch = Watch(look)
    yield watch
    watch.stop()


def test_a_change_is_reported_and_reading_is_not(tmp_path: Path, watch: Watch, look: Look) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    watch.follow([str(path)])
    path.read_text()
    assert not look.reported.wait(0.2)  # to show that nothing is reported
    path.write_text("new")
    assert look.within()


def test_the_target_of_a_symlink_is_watched(tmp_path: Path, watch: Watch, look: Look) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b/secret").write_text("old")
    (tmp_path / "a/secret").symlink_to("../b/secret")
    watch.follow([str(tmp_path / "a/secret")])
    (tmp_path / "b/secret").write_text("new")
    assert look.within()


def test_paths_that_are_no_longer_followed_are_not_reported(tmp_path: Path, watch: Watch, look: Look) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    watch.follow([str(tmp_path / "a/x"), str(tmp_path / "b/x")])
    watch.follow([str(tmp_path / "b/x")])
    look.reported.clear()
    (tmp_path / "a/x").write_text("1")
    assert not look.reported.wait(0.2)  # as above
    (tmp_path / "b/x").write_text("1")
    assert look.within()


@pytest.mark.parametrize("why", ["remote", "too-many", "no-inotify"])
def test_without_inotify_it_is_polled_and_logged_once(
    tmp_path: Path,
    watch: Watch,
    look: Look,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Full:
        emitters = ()

        def is_alive(self) -> bool:
            return True

        def schedule(self, *_: object, **__: object) -> None:
            raise OSError(24, "inotify instance limit reached")

        def stop(self) -> None:
            pass

    if why == "remote":
        monkeypatch.setattr(module, "mounts", lambda: Mounts(b"1 1 0:5 / / rw - nfs4 host:/x rw"))
    elif why == "too-many":
        monkeypatch.setattr(module, "_MOST_WATCHED", 0)
    else:
        watch._observer = Full()
    path = tmp_path / "secret"
    path.write_text("old")
    with caplog.at_level("INFO", "bearerd"):
        watch.follow([str(path)])
        watch.follow([str(path)])
    said = {
        "remote": "it is on nfs4",
        "too-many": "0 others are watched",
        "no-inotify": "inotify instance limit reached",
    }
    assert caplog.messages == [f"{tmp_path} cannot be watched ({said[why]}); it is polled every few seconds"]

    watch.poll()
    assert not look.reported.is_set()
    path.write_text("a new one")
    watch.poll()
    assert look.reported.is_set()


@pytest.mark.parametrize(
    "dies",
    ["watchdog.observers.api.BaseObserver.dispatch_events", "watchdog.observers.inotify.InotifyEmitter.queue_events"],
)
def test_a_thread_that_dies_is_replaced_and_no_change_is_missed(
    tmp_path: Path, watch: Watch, look: Look, dies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: ended.set())

    def lacking(*_: object, **__: object) -> None:
        raise MemoryError

    path = tmp_path / "secret"
    watch.follow([str(path)])
    with monkeypatch.context() as patch:
        patch.setattr(dies, lacking)
        path.write_text("old")
        assert ended.wait(WITHIN)
        eventually(lambda: not all(each.is_alive() for each in (watch._observer, *watch._observer.emitters)))
    look.reported.clear()
    watch.poll()
    assert look.reported.is_set()
    look.reported.clear()
    path.write_text("new")
    assert look.within()


def test_a_lost_event_is_made_up_for(tmp_path: Path, watch: Watch, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Handler, "on_any_event", lambda *_: None)
    path = tmp_path / "secret"
    path.write_text("old")
    watch.follow([str(path)])
    assert str(tmp_path) in watch._watched
    path.write_text("a new one")
    watch.poll()
    assert look.reported.is_set()
    look.reported.clear()
    watch.poll()
    assert not look.reported.is_set()


def test_if_no_thread_can_be_started_it_is_watched_as_soon_as_one_can(
    tmp_path: Path, watch: Watch, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(_: object) -> None:
        raise RuntimeError("can't start new thread")

    path = tmp_path / "secret"
    with monkeypatch.context() as patch:
        patch.setattr(Observer, "start", no_more)
        watch.follow([str(path)])
    path.write_text("old")
    watch.poll()
    assert look.within()
    watch.renew()
    path.write_text("new")
    assert look.within()


def test_a_directory_can_appear_later(tmp_path: Path, watch: Watch, look: Look) -> None:
    watch.follow([str(tmp_path / "later/secret")])
    (tmp_path / "later").mkdir()
    assert look.within()
    watch.renew()
    (tmp_path / "later/secret").write_text("x")
    assert look.within()


def test_a_replaced_directory_is_watched_again(tmp_path: Path, watch: Watch, look: Look) -> None:
    (tmp_path / "etc").mkdir()
    watch.follow([str(tmp_path / "etc/secret")])
    (tmp_path / "etc").rename(tmp_path / "aside")
    (tmp_path / "etc").mkdir()
    watch.poll()
    assert look.within()
    (tmp_path / "etc/secret").write_text("x")
    assert look.within()


def test_a_new_directory_with_the_inode_number_of_the_old_is_watched_again(
    tmp_path: Path, watch: Watch, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_identity", lambda _: "as on ext4, where the next directory gets the number")
    (tmp_path / "etc").mkdir()
    watch.follow([str(tmp_path / "etc/secret")])
    (tmp_path / "etc").rmdir()
    assert look.within()
    (tmp_path / "etc").mkdir()
    watch.renew()
    look.reported.clear()
    (tmp_path / "etc/secret").write_text("x")
    assert look.within()


def test_other_files_of_a_directory_are_not_reported(tmp_path: Path, watch: Watch, look: Look) -> None:
    watch.follow([str(tmp_path / "secret")])
    (tmp_path / "other").write_text("1")
    (tmp_path / "other").rename(tmp_path / "another")
    assert not look.reported.wait(1)  # to show that nothing is reported
    (tmp_path / "another").rename(tmp_path / "secret")
    assert look.within()


def test_all_files_of_a_followed_directory_are_reported(tmp_path: Path, watch: Watch, look: Look) -> None:
    watch.follow([f"{tmp_path}/."])
    (tmp_path / "any").write_text("1")
    assert look.within()


def test_changed_permissions_are_reported(tmp_path: Path, watch: Watch, look: Look) -> None:
    (tmp_path / "secret").write_text("s")
    watch.follow([str(tmp_path / "secret")])
    (tmp_path / "secret").chmod(0o600)
    assert look.within()


# -- links on the way --------------------------------------------------------------------------------


def switch(link: Path, target: str) -> None:
    """As `ln -sfn` and Kubernetes do it."""
    new = link.with_name("new link")
    new.symlink_to(target)
    new.rename(link)


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """etc/secret -> stow/secret, stow -> v1, v1/secret -> store/a/secret: links of a file, a directory, a file."""
    for directory in ("etc", "pkg/v1", "pkg/v2", "store/a", "store/b"):
        (tmp_path / directory).mkdir(parents=True)
    for name in "ab":
        (tmp_path / "store" / name / "secret").write_text(name)
    for version in ("v1", "v2"):
        (tmp_path / "pkg" / version / "secret").symlink_to(tmp_path / "store/a/secret")
    (tmp_path / "pkg/current").symlink_to("v1")
    (tmp_path / "etc/secret").symlink_to("../pkg/current/secret")
    return tmp_path


def switch_the_first(chain: Path) -> None:
    switch(chain / "etc/secret", "../pkg/v2/secret")


def switch_a_directory(chain: Path) -> None:
    switch(chain / "pkg/current", "v2")


def switch_the_last(chain: Path) -> None:
    switch(chain / "pkg/v1/secret", "../../store/b/secret")


def write_the_file(chain: Path) -> None:
    (chain / "store/a/secret").write_text("another")


@pytest.mark.parametrize("how", ["watched", "polled"])
@pytest.mark.parametrize("change", [switch_the_first, switch_a_directory, switch_the_last, write_the_file])
def test_a_change_anywhere_on_a_chain_of_symlinks_is_reported(
    chain: Path, watch: Watch, look: Look, change: Callable[[Path], None], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "polled":
        monkeypatch.setattr(module, "_MOST_WATCHED", 0)
    watch.follow([str(chain / "etc/secret")])
    watch.poll()
    assert not look.reported.is_set()
    change(chain)
    if how == "polled":
        watch.poll()
        assert look.reported.is_set()
    else:
        assert look.within()


@pytest.mark.parametrize("how", ["watched", "polled"])
def test_a_chain_that_leads_elsewhere_is_followed(
    chain: Path, watch: Watch, look: Look, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "polled":
        monkeypatch.setattr(module, "_MOST_WATCHED", 0)
    watch.follow([str(chain / "etc/secret")])
    for change in (
        switch_a_directory,
        lambda chain: switch(chain / "pkg/v2/secret", "../../store/b/secret"),
        lambda chain: (chain / "store/b/secret").write_text("another"),
    ):
        change(chain)
        if how == "polled":
            watch.poll()
            assert look.reported.is_set()
            look.reported.clear()
        else:
            assert look.within()
            watch.renew()
    assert set(watch._watched) == (
        {str(chain / place) for place in ("etc", "pkg", "pkg/v2", "store/b")} if how == "watched" else set()
    )


def test_a_symlink_that_is_switched_while_the_chain_is_followed_is_noticed(
    chain: Path, watch: Watch, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    attend = watch._attend
    switched: list[bool] = []

    def late(wanted: dict[str, set[str]]) -> None:
        if not switched:  # after the first walk, before anything is watched
            switch_a_directory(chain)
            switched.append(True)
        attend(wanted)

    monkeypatch.setattr(watch, "_attend", late)
    watch.follow([str(chain / "etc/secret")])
    assert str(chain / "pkg/v2") in watch._watched
    look.reported.clear()
    switch(chain / "pkg/v2/secret", "../../store/b/secret")
    assert look.within()


# -- the files of a config -----------------------------------------------------------------------------


def sources(tmp_path: Path) -> Sources:
    (tmp_path / "config.yaml").write_text("a")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "secret").write_text("s")
    return Sources(config_of(tmp_path), {})


def config_of(tmp_path: Path, *names: str) -> Config:
    clients = [
        CLIENT.__class__(name, CLIENT.provider, "id", (Reference("file", str(tmp_path / "secret")),))
        for name in names or ("dnb",)
    ]
    return Config(
        "/d",
        "/s",
        targets=tuple(target("t", client=client) for client in clients),
        sources=(str(tmp_path / "config.yaml"),),
        source_directories=(str(tmp_path / "conf.d"),),
    )


def test_a_config_changes_with_its_content_and_with_new_files(tmp_path: Path) -> None:
    found = sources(tmp_path)
    os.utime(tmp_path / "config.yaml", (1, 1))
    assert not found.config_changed()
    (tmp_path / "config.yaml").write_text("b")
    assert (found.config_changed(), found.config_changed()) == (True, False)
    (tmp_path / "conf.d/more.yaml").write_text("")
    assert (found.config_changed(), found.clients_changed()) == (True, set())


def test_a_changed_secret_names_its_clients(tmp_path: Path) -> None:
    found = sources(tmp_path)
    found.take(config_of(tmp_path, "dnb", "other"))
    (tmp_path / "secret").write_text("s")
    assert found.clients_changed() == set()
    (tmp_path / "secret").write_text("new")
    assert found.clients_changed() == {"dnb", "other"}
    assert not found.config_changed()


def test_a_changed_ca_file_names_its_clients(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("a")
    provider = replace(CLIENT.provider, ca_file=str(ca_file))
    clients = [replace(CLIENT, name=name, provider=provider) for name in ("dnb", "other")]
    targets = (*(target("t", client=client) for client in clients), target("t", client=replace(CLIENT, name="plain")))
    found = Sources(Config("/d", "/s", targets=targets), {})
    assert str(ca_file) in found.paths()
    assert found.authorities_changed() == set()
    ca_file.write_text("b")
    assert (found.authorities_changed(), found.authorities_changed()) == ({"dnb", "other"}, set())
    assert found.clients_changed() == set()


def test_a_changed_key_of_a_share_names_its_clients(tmp_path: Path) -> None:
    for name in ("key", "password"):
        (tmp_path / name).write_text("a")
    redis = Redis("rediss://redis.example", password=Reference("file", str(tmp_path / "password")))
    share = Share(redis, key=Reference("file", str(tmp_path / "key")))
    clients = [replace(CLIENT, name=name, share=share) for name in ("dnb", "other")]
    targets = (*(target("t", client=client) for client in clients), target("t", client=replace(CLIENT, name="plain")))
    found = Sources(Config("/d", "/s", targets=targets), {})
    assert str(tmp_path / "key") in found.paths()
    assert str(tmp_path / "password") not in found.paths()
    assert found.keys_changed() == set()
    (tmp_path / "key").write_text("b")
    assert (found.keys_changed(), found.keys_changed()) == ({"dnb", "other"}, set())
    assert found.clients_changed() == set()


def test_a_write_before_a_new_config_is_taken_is_still_a_change(tmp_path: Path) -> None:
    found = sources(tmp_path)
    (tmp_path / "secret").write_text("new")
    (tmp_path / "config.yaml").write_text("b")
    found.take(config_of(tmp_path))
    assert (found.config_changed(), found.clients_changed()) == (True, {"dnb"})


def test_what_was_missing_and_appears_before_a_new_config_is_taken_is_a_change(tmp_path: Path) -> None:
    found = sources(tmp_path)
    for name in ("secret", "config.yaml"):
        (tmp_path / name).unlink()
    assert (found.config_changed(), found.clients_changed()) == (True, {"dnb"})
    for name in ("secret", "config.yaml"):
        (tmp_path / name).write_text("new")
    found.take(config_of(tmp_path))
    assert (found.config_changed(), found.clients_changed()) == (True, {"dnb"})


def test_added_files_count_until_a_config_without_them_is_taken(tmp_path: Path) -> None:
    found, new = sources(tmp_path), tmp_path / "conf.d/new.yaml"
    new.write_text("a")
    found.config_changed()
    assert (found.add([str(new)]), found.add([str(new)])) == (True, False)
    assert str(new) in found.paths()
    found.config_changed()
    new.write_text("b")
    assert (found.config_changed(), found.config_changed()) == (True, False)
    found.take(config_of(tmp_path))
    new.write_text("c")
    assert not found.config_changed()


def test_a_secret_that_is_a_fifo_does_not_block(tmp_path: Path) -> None:
    found = sources(tmp_path)
    (tmp_path / "secret").unlink()
    os.mkfifo(tmp_path / "secret")
    assert found.clients_changed() == {"dnb"}


def templated(tmp_path: Path, **templates: str) -> Config:
    """A config with these tokens and their templates, each a name that is built in or a file's."""
    paths = {
        name: template if template == "nginx" else str(tmp_path / template) for name, template in templates.items()
    }
    outputs = {name: Output(f"/d/{name}", "template", template=path) for name, path in paths.items()}
    return Config("/d", "/s", targets=tuple(target(name, outputs=(output,)) for name, output in outputs.items()))


def test_a_changed_template_names_its_tokens(tmp_path: Path) -> None:
    for name in ("one.j2", "two.j2"):
        (tmp_path / name).write_text("a")
    found = Sources(templated(tmp_path, a="one.j2", b="two.j2", c="one.j2", d="nginx"), {})
    os.utime(tmp_path / "one.j2", (1, 1))
    assert found.templates_changed() == set()
    (tmp_path / "one.j2").write_text("b")
    assert (found.templates_changed(), found.templates_changed()) == ({"dnb/a", "dnb/c"}, set())
    (tmp_path / "two.j2").unlink()
    assert found.templates_changed() == {"dnb/b"}
    assert (found.config_changed(), found.clients_changed()) == (False, set())


def test_only_template_files_are_watched(tmp_path: Path) -> None:
    found = Sources(templated(tmp_path, a="one.j2", b="nginx"), {})
    assert set(found.paths()) == {str(tmp_path / "one.j2")}


def test_a_template_written_before_a_new_config_is_taken_is_still_a_change(tmp_path: Path) -> None:
    for name in ("one.j2", "two.j2"):
        (tmp_path / name).write_text("a")
    found = Sources(templated(tmp_path, a="one.j2", b="two.j2"), {})
    for name in ("one.j2", "two.j2"):
        (tmp_path / name).write_text("b")
    found.take(templated(tmp_path, a="one.j2", c="two.j2"))
    assert found.templates_changed() == {"dnb/a", "dnb/c"}
    found.take(templated(tmp_path, a="one.j2"))
    (tmp_path / "two.j2").write_text("c")
    assert found.templates_changed() == set()


def test_a_template_that_is_a_fifo_or_device_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "one.j2").write_text("a")
    found = Sources(templated(tmp_path, a="one.j2"), {})
    (tmp_path / "one.j2").unlink()
    os.mkfifo(tmp_path / "one.j2")
    held = os.open(tmp_path / "one.j2", os.O_RDWR)
    try:
        assert found.templates_changed() == {"dnb/a"}
    finally:
        os.close(held)
    (tmp_path / "one.j2").unlink()
    (tmp_path / "one.j2").symlink_to("/dev/zero")
    assert found.templates_changed() == set()
