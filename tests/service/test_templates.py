"""Templates of a running daemon: the files they come from are edited, broken and mended while it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bearerd.cli.ask import ask
from support.api import Site
from support.process import bearerd, eventually, running
from support.server import Answer, Server, issues, serving

SECRET = "s3cr3t-T0k3n"


class Templated(Site):
    """A site whose token bci is kept raw and by a template, and with a hook that counts; risk is kept raw."""

    def __init__(self, path: Path, url: str) -> None:
        self.template, self.made, self.runs = path / "etc/own.j2", path / "t/own", path / "runs"
        self.template.parent.mkdir()
        self.template.write_text("one {{ access_token }} {{ vars.a }}\n")
        super().__init__(path, url, self.files())

    def files(self, a: str = "b", template: str | None = None) -> str:
        """The tokens, in which the template is told so."""
        hook = f"on_change: [{{run: [/bin/sh, -c, 'echo x >> {self.runs}']}}]"
        own = f"{{format: template, template: {template or self.template}, path: {self.made}, vars: {{a: {a}}}}}"
        return f"{{bci: {{files: [{own}, {{format: raw}}], {hook}}}, risk: {{}}}}"

    def read(self, path: Path) -> str:
        """A file; empty where there is none."""
        return path.read_text() if path.exists() else ""

    def raw(self) -> str:
        """The raw file."""
        return self.read(self.tokens / "dnb/bci")

    def hooks(self) -> int:
        """How often the hook was run."""
        return len(self.read(self.runs).split())

    def bci(self) -> dict[str, Any]:
        """What status says of it."""
        found: dict[str, Any] = next(token for token in self.status()["tokens"] if token["token"] == "bci")
        return found


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(issues()) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: Server) -> Templated:
    return Templated(tmp_path, server.url)


def ready(site: Templated) -> str:
    """Until all is written and told; the token of bci."""
    site.wait_for(bci="valid", risk="valid")
    eventually(lambda: site.hooks() == 1)
    return site.raw()


def look(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


def by_rename(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def mounted(path: Path, text: str) -> None:
    # As Kubernetes does it: own.j2 -> ..data/own.j2, and ..data is replaced by a rename.
    etc, revision = path.parent, f"..{text[:3]}"
    (etc / revision).mkdir()
    (etc / revision / path.name).write_text(text)
    (etc / "..new").symlink_to(revision)
    (etc / "..new").rename(etc / "..data")
    if not path.is_symlink():
        path.unlink()
        path.symlink_to(f"..data/{path.name}")


EDITS = [by_rename, mounted]


@pytest.mark.parametrize("edit", EDITS, ids=[edit.__name__ for edit in EDITS])
def test_an_edited_template_rewrites_files_and_runs_hooks_without_a_request(
    site: Templated, server: Server, edit: Callable[[Path, str], None]
) -> None:
    edit(site.template, "one {{ access_token }} {{ vars.a }}")
    with running("run", "-c", site.config) as daemon:
        token = ready(site)
        assert site.made.read_text() == f"one {token} b"
        others = [look(site.tokens / "dnb" / name) for name in ("bci", "risk")]
        edit(site.template, "two {{ access_token }}")
        eventually(lambda: site.made.read_text() == f"two {token}")
        eventually(lambda: site.hooks() == 2)
        assert [look(site.tokens / "dnb" / name) for name in ("bci", "risk")] == others
        assert len(server.seen) == 2
        assert daemon.stop() == 0
        (said,) = [line for line in daemon.lines if "a template of" in line]
        assert "a template of 1 token changed" in said
        assert [line for line in daemon.lines if "restored" in line] == []


def test_all_tokens_of_a_changed_template_are_rewritten(site: Templated, server: Server) -> None:
    own = f"{{format: template, template: {site.template}, path: %s, vars: {{a: b}}}}"
    site.write(f"{{bci: {{files: [{own % 'one'}]}}, risk: {{files: [{own % 'two'}]}}}}")
    with running("run", "-c", site.config) as daemon:
        site.wait_for(bci="valid", risk="valid")
        site.template.write_text("{{ token }}")
        daemon.wait_for("a template of 2 tokens changed")
        eventually(lambda: [(site.tokens / name).read_text() for name in ("one", "two")] == ["bci", "risk"])
        assert len(server.seen) == 2


def test_changed_template_settings_are_applied_without_a_request(site: Templated, server: Server) -> None:
    with running("run", "-c", site.config):
        token = ready(site)
        site.write(site.files(a="c"))
        eventually(lambda: site.made.read_text() == f"one {token} c\n")
        site.write(site.files(template="curlrc"))
        eventually(lambda: site.made.read_text().endswith(f'header = "Authorization: Bearer {token}"\n'))
        assert len(server.seen) == 2


def test_a_broken_template_keeps_its_file_until_it_is_corrected(site: Templated, server: Server) -> None:
    with running("run", "-c", site.config) as daemon:
        token = ready(site)
        before = look(site.made)
        site.template.write_text("one\n{{ nope }}\n")
        said = daemon.wait_for("any previous content is unchanged")
        fault = f"template {site.template}: line 2: 'nope' is not defined"
        assert fault in said
        assert (site.bci()["state"], site.bci()["file_errors"]) == ("unwritten", [fault])
        assert (look(site.made), site.made.read_text()) == (before, f"one {token} b\n")
        assert site.states()["risk"] == "valid"

        site.template.write_text("two {{ access_token }}\n")
        daemon.wait_for("files are written again")
        site.wait_for(bci="valid", risk="valid")
        assert (site.bci()["file_errors"], site.made.read_text()) == ([], f"two {token}\n")
        eventually(lambda: site.hooks() == 2)
        assert len(server.seen) == 2


def test_a_broken_template_does_not_affect_other_files(site: Templated, server: Server) -> None:
    with running("run", "-c", site.config) as daemon:
        old = ready(site)
        site.template.write_text("{% if %}")
        daemon.wait_for("any previous content is unchanged")
        assert ask(str(site.socket), "/refresh/dnb/bci", "POST")[0] == 202
        eventually(lambda: site.raw() not in {"", old})
        assert site.made.read_text() == f"one {old} b\n"
        site.template.write_text("{{ access_token }}")
        eventually(lambda: site.made.read_text() == site.raw())
        assert len(server.seen) == 3


def test_a_template_that_appears_later_is_used_at_once(site: Templated, server: Server) -> None:
    site.template.unlink()
    with running("run", "-c", site.config) as daemon:
        daemon.wait_for(f"template {site.template}: no such file or directory")
        site.wait_for(bci="unwritten", risk="valid")
        assert (bool(site.raw()), site.made.exists()) == (True, False)
        by_rename(site.template, "{{ client }}")
        site.wait_for(bci="valid", risk="valid")
        assert (site.made.read_text(), len(server.seen)) == ("dnb", 2)


def test_no_error_shows_the_token(tmp_path: Path) -> None:
    with serving(lambda _: Answer(200, {"access_token": SECRET, "expires_in": 3600})) as server:
        site = Templated(tmp_path, server.url)
        site.template.write_text("{{ vars[access_token] }}")
        with running("run", "-c", site.config) as daemon:
            daemon.wait_for("any previous content is unchanged")
            site.wait_for(bci="unwritten", risk="valid")
            shown = str(site.status()) + ask(str(site.socket), "/metrics")[1].decode()
            assert daemon.stop() == 0
        assert f"template {site.template}: line 1: an entry that it looks up is not defined" in shown
        assert SECRET not in shown + "".join(daemon.lines)


def without_jinja2(path: Path) -> dict[str, str]:
    """An environment in which it is not installed."""
    (path / "hidden").mkdir()
    (path / "hidden/jinja2.py").write_text("raise ImportError\n")
    return {"PYTHONPATH": os.pathsep.join([str(path / "hidden"), *os.environ.get("PYTHONPATH", "").split(":")])}


NEEDS = (
    "format template needs a part that is not installed: "
    f"run {sys.prefix}/bin/pip install '.[templates]' in the checkout"
)


def test_without_the_extra_only_those_files_fail_and_it_is_named(site: Templated) -> None:
    with running("run", "-c", site.config, env=without_jinja2(site.path)) as daemon:
        assert NEEDS in daemon.wait_for("any previous content is unchanged")
        site.wait_for(bci="unwritten", risk="valid")
        assert site.bci()["file_errors"] == [NEEDS]
        assert site.raw()
        assert not site.made.exists()


def test_check_and_once_say_that_the_extra_is_missing(site: Templated) -> None:
    env = without_jinja2(site.path)
    checked = bearerd("check", "-c", site.config, env=env)
    assert (checked.returncode, NEEDS in checked.stdout + checked.stderr) == (1, True)
    once = bearerd("once", "-c", site.config, "--timeout", "1s", env=env)
    assert (once.returncode, NEEDS in once.stderr, bool(site.raw())) == (1, True, True)


def test_check_finds_errors_in_templates_without_a_token(site: Templated, server: Server) -> None:
    site.template.write_text("{{ access_token | quotd }}")
    names = [site.template, "/nowhere/own.j2", "gcp-external-account", "nginx"]
    files = [f"{{format: template, template: {name}, path: {name}.made}}" for name in names]
    site.write(f"{{bci: {{files: [{', '.join(files)}]}}}}")
    done = bearerd("check", "-c", site.config)
    assert (done.returncode, len(server.seen)) == (1, 0)
    for said in (
        f"template {site.template}: line 1: No filter named 'quotd'",
        "template /nowhere/own.j2: no such file or directory",
        "template gcp-external-account: line 4: 'audience' is not defined",
    ):
        assert said in (done.stdout + done.stderr).replace("\n", " ")
    assert "template nginx" not in done.stdout + done.stderr


def test_check_finds_nothing_wrong_with_a_good_one(site: Templated) -> None:
    site.template.write_text("{{ a_field_of_the_providers }}")
    done = bearerd("check", "-c", site.config)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"template: {site.template}: only its syntax was checked; --online fills in" in done.stdout


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{{ a_field_of_the_providers }}", ""),
        ("{{ access_token }}\n{{ tokne }}", "template TEMPLATE: line 2: 'tokne' is not defined"),
        ("{{ vars.a }}{{ access_token.nope }}", "template TEMPLATE: line 1: "),
        ("{{ '' }}", "template TEMPLATE: its output is empty, and bearerd writes no empty files"),
    ],
)
def test_check_online_fills_in_the_templates_of_the_token(tmp_path: Path, text: str, fault: str) -> None:
    with serving(issues(access_token=SECRET, a_field_of_the_providers="x")) as server:
        site = Templated(tmp_path, server.url)
        site.template.write_text(text)
        done = bearerd("check", "--online", "-c", site.config)
    failed = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    said = f"failed   file {site.made}: {fault}".replace("TEMPLATE", str(site.template))
    assert [line[: len(said)] for line in failed] == ([said] if fault else [])
    assert (done.returncode, len(server.seen)) == (1 if fault else 0, 1)
    assert SECRET not in done.stdout + done.stderr
    assert "only its syntax" not in done.stdout
