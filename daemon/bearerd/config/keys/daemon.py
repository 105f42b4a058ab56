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
        "More config files: names or patterns, relative to the directory of this file. Included files may contain "
        "only `providers` and `clients`, and each name may be defined only once across all files. Any user who can "
        "write one of these files controls the daemon, because the daemon runs the hooks in it. An included file "
        "may consist of comments, but an empty one is an error: it is probably being written.",
        default=[],
        examples=(["conf.d/*.yaml"],),
    ),
    "reload": Key(
        "When bearerd applies a changed config. `watch`: automatically, within seconds. `signal`: only when it "
        "receives HUP (`systemctl reload bearerd`), for deployments that change several files and then apply them "
        "together. Changed files of secrets, keys, certificates and templates are picked up automatically in both "
        "cases.",
        default="watch",
        examples=("signal",),
    ),
    "startup_timeout": Key(
        "How long the start of the systemd unit may take. The unit counts as started when each `required` token is in "
        "its files or was refused, or else after this time. Units that are ordered after it start then.",
        default="30s",
        examples=("2m",),
    ),
    "startup_spread": Key(
        "The first requests after a start are spread at random over this time, at most `1h`. A token that is still "
        "valid is refreshed before it expires in any case, and `bearerd once` does not wait. Set it if many "
        "daemons start together, after a power failure for example, and their requests would overload the provider. "
        "Daemons with a `share` send one request for all of them, and need no spread. The first tokens can be delayed "
        "by up to this time, so `startup_timeout` should be longer.",
        default="0s",
        examples=("30s",),
    ),
    "state_directory": Key(
        "Where bearerd keeps state that has to survive a reboot: refused attempts, used rate limits, and which secret "
        "works. It never contains a token. If other users can write the directory, bearerd keeps the state in a "
        "directory `.bearerd` in it.",
        without="`$STATE_DIRECTORY`, which systemd sets; else, for a user who is not root and keeps the default "
        "`output.directory`, `$XDG_STATE_HOME/bearerd` (`~/.local/state/bearerd`); else `.bearerd` in the "
        "output directory",
        examples=("/var/lib/bearerd",),
    ),
    "output": Key(
        "The directory of the token files, and their owner and mode.",
        without="the defaults of its keys",
        examples=({"directory": "/run/bearerd", "group": "telegraf"},),
    ),
    "providers": Key(
        "Token endpoints that several clients share, by name. A client refers to one by its key `provider`. Clients "
        "of one provider share its limits. A client with its own `token_url` or `issuer` needs no entry here.",
        without="none",
        examples=({"acme": {"issuer": "https://sso.example.com/realms/acme", "timeout": "20s"}},),
    ),
    "clients": Key(
        "Client ids with their credentials and tokens, by name. The name of the client and the name of a token "
        "together (`dnb/bci`) are the token's name in commands, logs and metrics, and the default path of its file. "
        "At least one client is required, in this file or an included one.",
        examples=(_SMALLEST,),
    ),
    "control": Key(
        "The control socket, through which `bearerd status`, `refresh` and `health` talk to the daemon. It never "
        "shows a token or a secret.",
        without="the defaults of its keys",
        examples=({"mode": "0600"},),
    ),
    "listen": Key(
        "Metrics, probes and the status page over TCP, for Prometheus, Kubernetes and browsers.",
        without="bearerd does not listen on TCP; the control socket serves the same",
        examples=({"address": "127.0.0.1:9810", "page": True},),
    ),
    "log": Key(
        "The level and format of the log. It goes to standard error, and under systemd to the journal.",
        without="the defaults of its keys",
        examples=({"level": "warning", "format": "json"},),
    ),
    # output
    "directory": Key(
        "The directory of the token files. A token is in the file `CLIENT/TOKEN` in it, unless that file has a "
        "`path`. Choose a directory in memory, such as one below `/run`, so that no token is stored on a disk.",
        without="`$RUNTIME_DIRECTORY`, which systemd sets; else, for a user who is not root, "
        "`$XDG_RUNTIME_DIR/bearerd`; else `/run/bearerd`",
        examples=("/run/bearerd",),
    ),
    "directory_mode": Key(
        "The mode of directories that bearerd creates, octal and in quotes. Existing directories keep their mode. "
        'With `"2750"`, files in a new directory get the group of that directory.',
        default="0750",
        examples=("2750",),
    ),
    "OutputModel.mode": Key(
        "The mode of the token files, octal and in quotes: without quotes, YAML reads 0640 as the number 416. With "
        '`"0640"`, the `group` can read them. A file may have a `mode` of its own.',
        default="0640",
        examples=("0600",),
    ),
    "OutputModel.owner": Key(
        "The user that owns the token files, by name or number. The daemon can set another owner than its own user "
        "only if it runs as root or may change owners. A file may have an `owner` of its own.",
        without="the daemon's user; the owner of an existing file is not checked",
        examples=("bearerd", 1000),
    ),
    "OutputModel.group": Key(
        "The group that may read the tokens, by name or number. It is the group of the token files, of directories "
        "that bearerd creates, and of the control socket. Add the user of each program that reads tokens to this "
        "group. The daemon has to run as root or as a member of the group.",
        without="the daemon's group, or in a setgid directory the group of that directory; the group of an existing "
        "file is not checked",
        examples=("bearerd-readers", 1000),
    ),
    "on_expiry": Key(
        "What happens to the files of a token that expired because no new one could be obtained. `keep`: the files "
        "stay, and the API refuses the token. `remove`: bearerd removes the files, so that readers fail before they "
        "call the API. When you remove a token from the config, bearerd always removes its files. It never removes a "
        "file at the path of a token that it has not obtained yet.",
        default="keep",
        examples=("remove",),
    ),
    # control
    "socket": Key(
        "The absolute path of the control socket, at most 107 bytes long. Set it if the socket should have a fixed "
        "path that does not depend on `output.directory`.",
        without="`.bearerd/control.sock` in the output directory",
        examples=("/run/bearerd/control.sock",),
    ),
    "ControlModel.mode": Key(
        "The mode of the socket, octal and in quotes. Users who can write to the socket can see the status of all "
        "tokens and request refreshes.",
        default="0660",
        examples=("0600",),
    ),
    # listen
    "address": Key(
        "The IP address and port to listen on, in quotes; IPv6 addresses are in brackets. bearerd serves `/metrics`, "
        "`/livez` and `/readyz` there, without TLS and without a password: choose a loopback address, or one that "
        "only Prometheus can reach.",
        examples=("127.0.0.1:9810", "[::1]:9810"),
    ),
    "page": Key(
        "`true`: also serve the status page, at `/`. It shows the name, scope, times and errors of each token, but "
        "never the token itself.",
        default=False,
        examples=(True,),
    ),
    "hosts": Key(
        "Names that the `Host` header of a request may contain, besides IP addresses and `localhost`. Add each name "
        "by which Prometheus or a browser reaches this daemon. Requests with another name get 421, because otherwise "
        "any web page could read the replies (DNS rebinding).",
        default=[],
        examples=(["web1.example.com"],),
    ),
    # log
    "level": Key(
        "The lowest level that is logged. `info` logs each new token. `debug` also logs each failed attempt.",
        default="info",
        examples=("warning",),
    ),
    "format": Key(
        "`text`: one line for each event. `json`: one JSON object for each event, for log collectors.",
        default="text",
        examples=("json",),
    ),
}
