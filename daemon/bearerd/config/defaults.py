"""Where the config, the tokens and the state are if nothing names another place. Pure.

Root and services have the directories of the system. A user who is not root has their own, by the XDG Base Directory
Specification: values that are empty or relative are ignored, and so is a directory of another user. `sudo -u`, `su` and
`runuser` often keep the variables of the user who called them, and a config of that user could run any command.

`typing` is not imported, because each probe imports this module.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in bearerd.cli
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLES = ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "HOME")
"""The variables that the directories of tokens and state depend on."""
SYSTEM_CONFIG = "/etc/bearerd/config.yaml"
SYSTEM_DIRECTORY = "/run/bearerd"
SOCKET_BELOW = ".bearerd/control.sock"
"""The control socket, relative to the output directory. `terms.OWN_DIRECTORY` is its first part."""


class Defaults:
    """The defaults of a process with this environment and user id.

    `owner` returns the user id of a directory's owner, or None if there is no such directory.
    """

    def __init__(self, environ: Mapping[str, str], uid: int, owner: Callable[[str], int | None]) -> None:
        self._state = _first(environ, "STATE_DIRECTORY")
        runtime, home = (_directory(environ, name) if uid != 0 else "" for name in ("XDG_RUNTIME_DIR", "HOME"))
        # The specification wants it to belong to the user.
        own = f"{runtime}/bearerd" if runtime and owner(runtime) == uid else None
        home = home if home and owner(home) == uid else ""

        def base(name: str, below: str) -> str | None:
            given = _directory(environ, name)
            # It may not exist yet, and an administrator may provide it.
            if given and owner(given) in {uid, 0, None}:
                return given
            return f"{home}/{below}" if home else None

        config_home = base("XDG_CONFIG_HOME", ".config") if uid != 0 else None
        state_home = base("XDG_STATE_HOME", ".local/state") if uid != 0 else None
        self.config_directory = f"{config_home}/bearerd" if config_home else None if uid else "/etc/bearerd"
        """Where this user's config belongs; None if that is unknown (no HOME)."""
        self.own_config = f"{config_home}/bearerd/config.yaml" if config_home else None
        """The config of a user who is not root, whether it exists or not."""
        self.own_directory = own
        """The output directory of a user who is not root; None without an XDG_RUNTIME_DIR of theirs."""
        self.own_state = f"{state_home}/bearerd" if state_home else None
        """The state directory of a user who is not root."""
        service = _first(environ, "RUNTIME_DIRECTORY")
        self.directory = service or own or SYSTEM_DIRECTORY
        """The output directory."""
        # A service asks for itself. A user may be a reader of the tokens of the system's service.
        self.directories = (self.directory,) if service else tuple(dict.fromkeys((self.directory, SYSTEM_DIRECTORY)))
        """The output directories in which a daemon is looked for, in this order."""

    @property
    def configs(self) -> tuple[str, ...]:
        """The paths at which a config is looked for, in this order."""
        return (self.own_config, SYSTEM_CONFIG) if self.own_config else (SYSTEM_CONFIG,)

    def state_directory(self, directory: str) -> str | None:
        """The state directory for an output directory; None: inside that one.

        A user's state must outlive XDG_RUNTIME_DIR, which is emptied at the last logout. Other output directories keep
        their state inside, so that two daemons never share one.
        """
        return self._state or (self.own_state if directory == self.own_directory else None)


def _first(environ: Mapping[str, str], name: str) -> str:
    """Systemd lists several directories with colons between them; the first is the service's own, and absolute."""
    first = environ.get(name, "").split(":")[0]
    return first if first.startswith("/") else ""


def _directory(environ: Mapping[str, str], name: str) -> str:
    given = environ.get(name, "")
    return given.rstrip("/") if given.startswith("/") else ""
