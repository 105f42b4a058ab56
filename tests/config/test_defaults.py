"""Where config, tokens and state are by default: by environment, user id, and the owners of directories."""

from __future__ import annotations

import pytest

from bearerd.config.defaults import SOCKET_BELOW, Defaults
from bearerd.terms import OWN_DIRECTORY

UID = 1000
OWNERS = {"/home/u": UID, "/run/user/1000": UID, "/root": 0, "/run/user/0": 0, "/": 0, "/home/a": 1001, "/srv/c": 0}
SESSION = {"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/1000"}
ETC = "/etc/bearerd/config.yaml"
MINE = "/home/u/.config/bearerd/config.yaml"
RUN = "/run/bearerd"
MY_RUN = "/run/user/1000/bearerd"
MY_STATE = "/home/u/.local/state/bearerd"


def of(environ: dict[str, str], uid: int = UID) -> Defaults:
    return Defaults(environ, uid, OWNERS.get)


@pytest.mark.parametrize(
    ("environ", "uid", "configs", "directory", "state"),
    [
        pytest.param(SESSION, UID, (MINE, ETC), MY_RUN, MY_STATE, id="a user"),
        pytest.param(SESSION, 0, (ETC,), RUN, None, id="root by sudo, with the user's environment"),
        pytest.param({"HOME": "/root", "XDG_RUNTIME_DIR": "/run/user/0"}, 0, (ETC,), RUN, None, id="root"),
        pytest.param(
            {"HOME": "/root", "XDG_RUNTIME_DIR": "/run/user/0"}, UID, (ETC,), RUN, None, id="runuser from root"
        ),
        pytest.param({"HOME": "/home/u"}, UID, (MINE, ETC), RUN, None, id="cron: no XDG_RUNTIME_DIR"),
        pytest.param({}, UID, (ETC,), RUN, None, id="an empty environment"),
        pytest.param({"HOME": "/"}, UID, (ETC,), RUN, None, id="a container with any user id"),
        pytest.param({"HOME": "/gone"}, UID, (ETC,), RUN, None, id="a home that does not exist"),
        pytest.param(
            SESSION | {"XDG_CONFIG_HOME": "/c/", "XDG_STATE_HOME": "/s"},
            UID, ("/c/bearerd/config.yaml", ETC), MY_RUN, "/s/bearerd", id="both named",
        ),
        pytest.param(
            SESSION | {"XDG_CONFIG_HOME": "/home/a", "XDG_STATE_HOME": "/home/a"},
            UID, (MINE, ETC), MY_RUN, MY_STATE, id="those of another user, kept by su",
        ),
        pytest.param(
            SESSION | {"XDG_CONFIG_HOME": "/srv/c"}, UID, ("/srv/c/bearerd/config.yaml", ETC), MY_RUN, MY_STATE,
            id="one that root provides",
        ),
        pytest.param(
            SESSION | {"XDG_CONFIG_HOME": "", "XDG_STATE_HOME": ""}, UID, (MINE, ETC), MY_RUN, MY_STATE, id="empty"
        ),
        pytest.param(
            {"HOME": "u", "XDG_CONFIG_HOME": ".c", "XDG_STATE_HOME": "s", "XDG_RUNTIME_DIR": "run"},
            UID, (ETC,), RUN, None, id="relative",
        ),
        pytest.param({"XDG_RUNTIME_DIR": "/run/user/1000/"}, UID, (ETC,), MY_RUN, None, id="no HOME"),
        pytest.param(
            SESSION | {"RUNTIME_DIRECTORY": "/run/a:/run/b", "STATE_DIRECTORY": "/s/a:/s/b"},
            UID, (MINE, ETC), "/run/a", "/s/a", id="a unit of the system",
        ),
        pytest.param(
            SESSION | {"RUNTIME_DIRECTORY": "run", "STATE_DIRECTORY": "s:/s/b"},
            UID, (MINE, ETC), MY_RUN, MY_STATE, id="relative, by no systemd",
        ),
        pytest.param(SESSION | {"RUNTIME_DIRECTORY": MY_RUN}, UID, (MINE, ETC), MY_RUN, MY_STATE, id="the user unit"),
        pytest.param(
            SESSION | {"RUNTIME_DIRECTORY": "/run/user/1000/other"}, UID, (MINE, ETC), "/run/user/1000/other", None,
            id="another user unit",
        ),
    ],
)  # fmt: skip
def test_the_defaults(
    environ: dict[str, str], uid: int, configs: tuple[str, ...], directory: str, state: str | None
) -> None:
    found = of(environ, uid)
    assert (found.configs, found.directory, found.state_directory(found.directory)) == (configs, directory, state)


def test_a_config_belongs_where_it_is_looked_for_first() -> None:
    assert of(SESSION).config_directory == "/home/u/.config/bearerd"
    assert of(SESSION, 0).config_directory == "/etc/bearerd"
    assert of({}).config_directory is None


def test_another_output_directory_has_its_state_inside() -> None:
    # Two daemons of a user would share it otherwise.
    assert of(SESSION).state_directory("/srv/tokens") is None


def test_a_daemon_is_looked_for_in_the_directory_of_the_user_and_then_of_the_system() -> None:
    assert of(SESSION).directories == (MY_RUN, RUN)
    assert of(SESSION, 0).directories == (RUN,)
    assert of(SESSION | {"RUNTIME_DIRECTORY": "/run/a"}).directories == ("/run/a",)


def test_the_socket_is_in_the_directory_that_bearerd_keeps_for_itself() -> None:
    assert SOCKET_BELOW.split("/")[0] == OWN_DIRECTORY
