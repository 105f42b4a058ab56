"""The keys of the daemon itself: the top level, output, control, listen and log. Pure."""

from __future__ import annotations

from typing import Final

from bearerd.config.keys.key import Key

_SMALLEST: Final = {
    "dnb": {
        "token_url": "https://login.bisnode.com/sandbox/v1/token.oauth2",
        "client_id": "7e0c5a",
        "client_secret": {"file": "/etc/bearerd/dnb.secret"},
        "tokens": {"bci": {"scope": "bci"}},
    }
}

DAEMON: Final = {
    # the top level
    "include": Key(
        "More config files: names or patterns, relative to the directory of this file. Included files may only have "
        "`providers` and `clients`, and each name may be defined once in all files together. Any user who can write "
        "one of these files controls the daemon, because it runs their hooks with its rights.",
        default=[],
        examples=(["conf.d/*.yaml"],),
    ),
    "reload": Key(
        "When a changed config applies. `watch`: automatically, within seconds. `signal`: only at HUP (`systemctl "
        "reload bearerd`), for deployments that write several files and then decide. Changed secrets, keys, "
        "certificates and templates are always picked up automatically.",
        default="watch",
        examples=("signal",),
    ),
    "startup_timeout": Key(
        "How long the systemd unit may take until it is ready. It is ready when all `required` tokens are in their "
        "files or were refused, or after this time. Units that are ordered after it start then.",
        default="30s",
        examples=("2m",),
    ),
    "state_directory": Key(
        "Where bearerd keeps state that has to survive a reboot: refused attempts, used rate limits, and which secret "
        "works. It never contains a token. If other users can write the directory, a directory `.bearerd` in it is "
        "used.",
        without="`$STATE_DIRECTORY`, which systemd sets; else, for a user who is not root and keeps the default "
        "`output.directory`, `$XDG_STATE_HOME/bearerd` (`~/.local/state/bearerd`); else `.bearerd` in the "
        "output directory",
        examples=("/var/lib/bearerd",),
    ),
    "output": Key(
        "The directory of the token files, and their owner and mode.",
        examples=({"directory": "/run/bearerd", "group": "telegraf"},),
    ),
    "providers": Key(
        "Token endpoints that several clients share, by name. A client names one in its key `provider`, and shares its "
        "limits with the other clients. A client with its own `token_url` or `issuer` needs no entry here.",
        examples=({"acme": {"issuer": "https://sso.example.com/realms/acme", "timeout": "20s"}},),
    ),
    "clients": Key(
        "Client ids with their credentials and tokens, by name. The names of a client and its token are the token's "
        "name in commands, logs and metrics (`dnb/bci`), and the path of its file. At least one client is required, in "
        "this file or an included one.",
        examples=(_SMALLEST,),
    ),
    "control": Key(
        "The control socket: `bearerd status`, `refresh` and `health` ask the daemon through it. No token and no "
        "secret can be read from it.",
        examples=({"mode": "0600"},),
    ),
    "listen": Key(
        "Metrics, probes and the status page over TCP, for Prometheus, Kubernetes and browsers.",
        without="bearerd does not listen on TCP; the control socket has the same",
        examples=({"address": "127.0.0.1:9810", "page": True},),
    ),
    "log": Key(
        "How the log is written. It goes to standard error, and with systemd to the journal.",
        examples=({"level": "warning", "format": "json"},),
    ),
    # output
    "directory": Key(
        "Where the token files are. A token is in `CLIENT/TOKEN` below it unless its file has a `path`. Choose a "
        "directory in memory, such as one below `/run`, so that no token is on a disk.",
        without="`$RUNTIME_DIRECTORY`, which systemd sets; else, for a user who is not root, "
        "`$XDG_RUNTIME_DIR/bearerd`; else `/run/bearerd`",
        examples=("/run/bearerd",),
    ),
    "directory_mode": Key(
        "The mode of directories that bearerd creates, octal and in quotes. Existing directories keep theirs. With "
        '`"2750"`, files in them get the group of the directory.',
        default="0750",
        examples=("2750",),
    ),
    "OutputModel.mode": Key(
        "The mode of the token files, octal and in quotes: without quotes, YAML reads 0640 as the number 416. With "
        '`"0640"`, the `group` can read them. A file may have its own.',
        default="0640",
        examples=("0600",),
    ),
    "OutputModel.owner": Key(
        "The user that owns the token files, by name or number. Only a daemon with the right to change owners, such as "
        "root, can set another one than its own user. A file may have its own.",
        without="the daemon's user; the owner of an existing file is not checked",
        examples=("bearerd", 1000),
    ),
    "OutputModel.group": Key(
        "The group that may read the tokens, by name or number: of the token files, of directories that bearerd "
        "creates, and of the control socket. Add the user of a program that reads tokens to this group. The daemon has "
        "to be root or a member of it.",
        without="the daemon's group, or that of a setgid directory; the group of an existing file is not checked",
        examples=("bearerd-readers", 1000),
    ),
    "on_expiry": Key(
        "What happens to the files of a token that expired because no new one could be obtained. `keep`: they stay, "
        "and readers get an error from the API. `remove`: they are removed, for readers that should fail early. "
        "Files of tokens that are removed from the config are always removed.",
        default="keep",
        examples=("remove",),
    ),
    # control
    "socket": Key(
        "The absolute path of the control socket, at most 107 bytes long. Set it if commands should find the daemon at "
        "a fixed path even if `output.directory` changes.",
        without="`.bearerd/control.sock` in the output directory",
        examples=("/run/bearerd/control.sock",),
    ),
    "ControlModel.mode": Key(
        "The mode of the socket, octal and in quotes. Users who can write it can see the status of all tokens and "
        "request refreshes.",
        default="0660",
        examples=("0600",),
    ),
    # listen
    "address": Key(
        "An IP address and a port, in quotes; IPv6 in brackets. There is no TLS and no password: choose a loopback "
        "address, or one that only Prometheus can reach. `/metrics`, `/livez` and `/readyz` are served there.",
        examples=("127.0.0.1:9810", "[::1]:9810"),
    ),
    "page": Key(
        "`true`: the status page is at `/`. It shows the names, scopes, times and errors of all tokens, but no token.",
        default=False,
        examples=(True,),
    ),
    "hosts": Key(
        "Host names that requests may use. Requests for an IP address or `localhost` are always answered; others get "
        "421, because otherwise any web page could read the replies (DNS rebinding). Add each name that Prometheus or "
        "a browser uses.",
        default=[],
        examples=(["web1.example.com"],),
    ),
    # log
    "level": Key(
        "The lowest level that is logged. `info` has a line for each new token. `debug` also has each failed attempt.",
        default="info",
        examples=("warning",),
    ),
    "format": Key(
        "`text`: one line for each event. `json`: one JSON object for each event, for log collectors.",
        default="text",
        examples=("json",),
    ),
}
