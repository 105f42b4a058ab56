"""Hooks in the config."""

from __future__ import annotations

import pytest

from bearerd.terms import Hook
from support.config_text import Folder, config

RELOAD = Hook(argv=("/bin/reload", "app"))


@pytest.mark.parametrize(
    ("where", "key"), [(where, key) for where in ("top", "client", "token") for key in ("on_change", "on_failure")]
)
def test_hooks_are_read_at_each_level(folder: Folder, where: str, key: str) -> None:
    found = folder.target(config(**{where: f"{key}: [{{run: [/bin/reload, app]}}]"}))
    assert (found.on_change, found.on_failure) == (((RELOAD,), ()) if key == "on_change" else ((), (RELOAD,)))


@pytest.mark.parametrize(
    ("top", "client", "token", "programs"),
    [
        pytest.param("[{run: [/a]}]", "[{run: [/b]}]", "[{run: [/c]}]", ["/c"], id="the token's"),
        pytest.param("[{run: [/a]}]", "[{run: [/b]}]", None, ["/b"], id="the client's"),
        pytest.param("[{run: [/a]}, {run: [/d]}]", None, None, ["/a", "/d"], id="the top's"),
        pytest.param("[{run: [/a]}]", None, "[]", [], id="none is nearer than some"),
    ],
)
def test_the_nearest_hooks_win(
    folder: Folder, top: str, client: str | None, token: str | None, programs: list[str]
) -> None:
    levels = {"top": top, "client": client, "token": token}
    text = config(**{where: f"on_change: {hooks}" for where, hooks in levels.items() if hooks is not None})
    assert [hook.argv[0] for hook in folder.target(text).on_change] == programs


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        ("{run: [/a, -x]}", Hook(argv=("/a", "-x"), timeout=30.0)),
        ("{run: [/a], timeout: 500ms, skip_first: true}", Hook(argv=("/a",), timeout=0.5, skip_first=True)),
        ("{signal: HUP, pid_file: /run/app.pid}", Hook(signal="HUP", pid_file="/run/app.pid")),
        ("{signal: USR1, process: nginx}", Hook(signal="USR1", process="nginx")),
    ],
)
def test_a_hook_is_a_command_or_a_signal(folder: Folder, hook: str, expected: Hook) -> None:
    assert folder.target(config(token=f"on_change: [{hook}]")).on_change == (expected,)


A_COMMAND = (
    "expected a list of the program and its arguments, such as [/usr/bin/systemctl, reload, nginx] (there is no shell)"
)


@pytest.mark.parametrize(
    ("hook", "column", "said"),
    [
        pytest.param("{}", 25, "expected exactly one of run, signal", id="nothing"),
        pytest.param("{run: [/a], signal: HUP, process: x}", 25, "expected exactly one of run, signal", id="both"),
        pytest.param(
            "{run: /a}",
            31,
            A_COMMAND,
            id="a line",
        ),
        pytest.param(
            "{run: []}",
            31,
            A_COMMAND,
            id="an empty list",
        ),
        pytest.param("{run: [a]}", 31, "expected the absolute path of a program (/…)", id="no path"),
        pytest.param("{run: [/a, 1]}", 36, "expected text in quotes, found a number", id="a number"),
        pytest.param("{signal: HUP}", 25, "signal requires exactly one of pid_file and process", id="to nobody"),
        pytest.param(
            "{signal: HUP, pid_file: /p, process: x}",
            25,
            "signal requires exactly one of pid_file and process",
            id="to two",
        ),
        pytest.param("{run: [/a], process: x}", 25, "pid_file and process only apply to signal", id="no signal"),
        pytest.param(
            "{signal: HUP, process: x, timeout: 1s}",
            25,
            "timeout only applies to run",
            id="a signal's time",
        ),
        pytest.param(
            "{signal: SIGHUP, process: x}",
            34,
            "unknown value; did you mean 'HUP'?",
            id="another name",
        ),
        pytest.param("{signal: HUP, pid_file: p}", 49, "expected an absolute path (/…)", id="relative"),
    ],
)
def test_a_wrong_hook_is_reported_at_its_place(folder: Folder, hook: str, column: int, said: str) -> None:
    assert folder.headlines(config(token=f"on_change: [{hook}]")) == [f"config.yaml:7:{column}: {said}"]


def test_on_failure_has_no_skip_first(folder: Folder) -> None:
    (said,) = folder.headlines(config(token="on_failure: [{run: [/a], skip_first: true}]"))
    assert "'skip_first' is a key of an entry of on_change, not of an entry of on_failure" in said


def test_a_token_may_be_not_required(folder: Folder) -> None:
    assert folder.target(config(client="required: false")).required is False
    assert folder.target(config(client="required: false", token="required: true")).required is True
