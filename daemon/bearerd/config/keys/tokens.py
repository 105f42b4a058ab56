"""The keys of tokens, of which most may also be at the top level and on a client; of files; and of hooks. Pure."""

from __future__ import annotations

from typing import Final

from bearerd.config.keys.key import Key

TOKENS: Final = {
    # the top level, clients and tokens
    "files": Key(
        "The files of each token: each item is one file in one format. No two files may have the same path. "
        "docs/consumers.md says which format a program needs.",
        default=[{"format": "raw"}],
        examples=([{"format": "raw"}, {"format": "header"}],),
    ),
    "refresh_before": Key(
        "How long before its expiry a token is refreshed: a percentage of its lifetime up to 50%, or a duration. A "
        "percentage counts as at least 1m. A token is never refreshed before half of its lifetime has passed. Raise it "
        "if refreshes fail often or for a long time, because it is the time for retries.",
        default="20%",
        examples=("5m", "50%"),
    ),
    "default_lifetime": Key(
        "The lifetime to assume if neither the provider's reply nor the token itself names one. Set it to the "
        "lifetime in the provider's documentation.",
        default="1h",
        examples=("12h",),
    ),
    "lifetime_unit": Key(
        "The unit of `expires_in` in replies. `auto`: seconds, unless the number is so large that it must be "
        "milliseconds or a point in time, or the expiry in the token itself shows the unit. Set it if bearerd warns "
        "about the unit and its guess is wrong. For example, Twitch sends 60 days in seconds.",
        default="auto",
        examples=("seconds",),
    ),
    "max_age": Key(
        "The age at which a token is refreshed even if it lives longer: at least 1m, or `never`. It limits how long a "
        "token that the provider revoked stays in the files.",
        default="24h",
        examples=("7d", "never"),
    ),
    "publish_delay": Key(
        "How long bearerd waits before it writes a new token to the files, at most 1h. Until then the current token "
        "stays in the files, but never beyond its expiry. Set it if APIs refuse new tokens for some seconds. For a "
        "JWT whose `nbf` is in the future, bearerd also waits without this key, for up to 60 s.",
        default="0s",
        examples=("10s",),
    ),
    "strict_scope": Key(
        "`true`: do not use a token that lacks a requested scope, or whose reply does not name the granted scope. "
        "`false`: use such a token, and log a warning if a scope is missing.",
        default=False,
        examples=(True,),
    ),
    "required": Key(
        "`true`: the daemon counts as ready only while this token is valid and in its files. This concerns the start "
        "of the systemd unit, `/readyz` and `bearerd health`. Set it to `false` for a token that nothing should wait "
        "for.",
        default=True,
        examples=(False,),
    ),
    "on_change": Key(
        "Hooks that run after all files of a token were replaced, to reload programs that do not read them again by "
        "themselves. A hook has one run at a time, and all tokens that change during a run share the next one. The "
        "first token of a client often has a run of its own, because it is requested before the others. A hook that "
        "fails is tried again up to three times. A command gets `BEARERD_TOKEN_NAMES` and `BEARERD_FILES` in its "
        "environment (one per line), but never a token. To reload a program of another user, use a systemd path unit "
        "instead.",
        default=[],
        examples=([{"run": ["/usr/local/bin/reload-app"]}], [{"signal": "HUP", "pid_file": "/run/app.pid"}]),
    ),
    "on_failure": Key(
        "Hooks that run once when a token can no longer be refreshed, to alert somebody: the provider refuses it, it "
        "expired during an outage, or there is still no token ten minutes after the start. They get the same "
        "environment as the hooks in `on_change`.",
        default=[],
        examples=([{"run": ["/usr/local/bin/page-somebody", "a token is not refreshed"]}],),
    ),
    # tokens
    "scope": Key(
        "The scopes to request: text with spaces between the scopes, or a list.",
        without="none; the provider then uses its default scope",
        examples=("bci", ["bci", "companies"]),
    ),
    # files
    "FileModel.format": Key(
        "What is in the file. `raw`: the token and nothing else. `json`: one document with the token, its expiry and "
        "the provider's other fields. `header`: `Authorization: Bearer …`, for `curl -H @FILE`. `env`: `NAME='…'`, "
        "for shells and `EnvironmentFile=`. `template`: the template that the key `template` names, filled in.",
        examples=("raw", "json"),
    ),
    "path": Key(
        "The path of the file, relative to `output.directory` or absolute, without `..`. Required for `template`.",
        without="`CLIENT/TOKEN` for `raw`; for the other formats, the same with `.json`, `.header` or `.env` at the "
        "end",
        examples=("telegraf/dnb.token", "/run/app/token"),
    ),
    "FileModel.mode": Key(
        "The mode of this file, octal and in quotes.", without="`output.mode`", examples=("0600", "0644")
    ),
    "FileModel.owner": Key(
        "The user that owns this file, by name or number.", without="`output.owner`", examples=("nginx", 1000)
    ),
    "FileModel.group": Key(
        "The group that may read this file, by name or number.", without="`output.group`", examples=("nginx", 1000)
    ),
    "newline": Key(
        "`true`: add a line end after the token, for people who print the file. Some programs cannot read such a "
        "file. Only for `raw`.",
        default=False,
        examples=(True,),
    ),
    "name": Key(
        "The name of the variable, for `env` and `template`.",
        without="the names of the client and the token and `_TOKEN`, in upper case, such as `DNB_BCI_TOKEN`",
        examples=("API_TOKEN",),
    ),
    "max_staleness": Key(
        "How long a reader may use a token after it has read the file. bearerd refreshes the token at least that long "
        "before its expiry, but not before half of its lifetime has passed. Set it for programs that read the file "
        "only at intervals.",
        without="none; programs should read the file each time they use the token",
        examples=("60s",),
    ),
    "template": Key(
        "The name of a built-in template (`curlrc`, `envoy-sds`, `gcp-external-account`, "
        "`gitconfig`, `haproxy-map`, `kubeconfig`, `nginx`, `wgetrc`), or the absolute path of your own, in Jinja2. "
        "It needs the extra `templates`. When a template changes, bearerd writes the files again at once. "
        "Required with `format: template`.",
        examples=("nginx", "/etc/bearerd/app.ini.j2"),
    ),
    "vars": Key(
        "Values for the template, which uses them as `vars.NAME`. docs/consumers.md lists the values that the "
        "built-in templates need.",
        without="none",
        examples=({"url": "https://git.example.com"},),
    ),
    # hooks
    "run": Key(
        "The program to run: its absolute path, and its arguments. It runs without a shell, as the daemon's user, and "
        "its output is discarded. A hook has either `run` or `signal`.",
        examples=(["/usr/local/bin/reload-app"],),
    ),
    "signal": Key(
        "The signal to send to the process that `pid_file` or `process` names. The daemon's user must be allowed to "
        "send it.",
        examples=("HUP",),
    ),
    "pid_file": Key("The absolute path of a file with the process id, for `signal`.", examples=("/run/app.pid",)),
    "process": Key("The name of the process, as `ps -o comm` shows it, for `signal`.", examples=("nginx",)),
    "ChangeHookModel.timeout": Key(
        "How long the program may run. After that it is killed, and the hook has failed.",
        default="30s",
        examples=("2m",),
    ),
    "FailureHookModel.timeout": Key(
        "How long the program may run. After that it is killed, and the hook has failed.",
        default="30s",
        examples=("2m",),
    ),
    "skip_first": Key(
        "`true`: do not run the hook for the first token. Set it if the programs that read the token start only after "
        "it exists.",
        default=False,
        examples=(True,),
    ),
}
