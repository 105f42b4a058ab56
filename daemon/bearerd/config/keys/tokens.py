"""The keys of tokens, of which most may also be at the top level and on a client; of files; and of hooks. Pure."""

from __future__ import annotations

from typing import Final

from bearerd.config.keys.key import Key

TOKENS: Final = {
    # the top level, clients and tokens
    "files": Key(
        "The files of each token. Each item is one file in one format. No two files may have the same path. "
        "docs/consumers.md names the format that each program reads.",
        default=[{"format": "raw"}],
        examples=([{"format": "raw"}, {"format": "header"}],),
    ),
    "refresh_before": Key(
        "How long before its expiry a token is refreshed: a share of its lifetime up to 50%, or a duration. A share "
        "leaves at least 1m, and bearerd never refreshes before half the lifetime has passed. Raise it if refreshes "
        "fail often or for long, because this is the time left for retries.",
        default="20%",
        examples=("5m", "50%"),
    ),
    "default_lifetime": Key(
        "The lifetime of tokens whose provider names none, neither in the reply nor in the token. Set it to what the "
        "provider's documentation says.",
        default="1h",
        examples=("12h",),
    ),
    "lifetime_unit": Key(
        "The unit of `expires_in` in replies. `auto`: seconds, unless the number is so large that only milliseconds or "
        "a point in time make sense, or the token itself shows it. Set it if bearerd warns that a number is read in "
        "the wrong unit (Twitch has 60 days in seconds).",
        default="auto",
        examples=("seconds",),
    ),
    "max_age": Key(
        "A token is refreshed at the latest after this time, even if it lives longer: at least 1m, or `never`. A token "
        "that the provider revoked is replaced by then.",
        default="24h",
        examples=("7d", "never"),
    ),
    "publish_delay": Key(
        "How long a new token waits before it is published, at most 1h. Until then, the current token stays in the "
        "files, but never beyond its expiry. For providers whose APIs refuse new tokens for some seconds. A JWT whose "
        "`nbf` is in the future also waits without this key, for up to 60 s.",
        default="0s",
        examples=("10s",),
    ),
    "strict_scope": Key(
        "`true`: a token whose scope differs from the requested one is refused, and so is one whose reply names no "
        "scope. Otherwise such a token is used, and a warning says what differs.",
        default=False,
        examples=(True,),
    ),
    "required": Key(
        "`true`: the daemon is ready only while this token is valid and in its files: for the systemd unit, `/readyz` "
        "and `bearerd health`. Set it to `false` for a token that others should not wait for.",
        default=True,
        examples=(False,),
    ),
    "on_change": Key(
        "Hooks that run after all files of a token were replaced, to reload programs that do not read them again by "
        "themselves. A hook runs once for all tokens that owe it, with up to three retries. A command gets "
        "`BEARERD_TOKEN_NAMES` and `BEARERD_FILES` in its environment (one per line), but never a token. To reload a "
        "program of another user, use a systemd path unit instead.",
        default=[],
        examples=([{"run": ["/usr/local/bin/reload-app"]}], [{"signal": "HUP", "pid_file": "/run/app.pid"}]),
    ),
    "on_failure": Key(
        "Hooks that run once when a token can no longer be refreshed, to alert someone: its provider refuses it, it "
        "expired during an outage, or there is still none ten minutes after a start. They get the same environment as "
        "those of `on_change`.",
        default=[],
        examples=([{"run": ["/usr/local/bin/page-somebody", "a token is not renewed"]}],),
    ),
    # tokens
    "scope": Key(
        "The requested scopes: text with spaces between them, or a list.",
        without="none; the provider then uses its own default",
        examples=("bci", ["bci", "companies"]),
    ),
    # files
    "FileModel.format": Key(
        "What is in the file. `raw`: the token and nothing else. `json`: one document with the token, its expiry and "
        "the provider's other fields. `header`: `Authorization: Bearer …`, for `curl -H @FILE`. `env`: `NAME='…'`, for "
        "shells and `EnvironmentFile=`. `template`: made from `template`.",
        examples=("raw", "json"),
    ),
    "path": Key(
        "Where the file is: relative to `output.directory`, or absolute, without `..`. Required for templates.",
        without="`CLIENT/TOKEN` for raw; with `.json`, `.header` or `.env` at the end for the others",
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
        "`true`: a newline follows the token, for people who print the file. Some programs then fail. Only for `raw`.",
        default=False,
        examples=(True,),
    ),
    "name": Key(
        "The name of the variable, for `env` and templates.",
        without="the names of client and token with `_TOKEN`, in upper case, such as `DNB_BCI_TOKEN`",
        examples=("API_TOKEN",),
    ),
    "max_staleness": Key(
        "How long a reader of this file may keep using what it read. The token is then refreshed at least that long "
        "before its expiry, as far as half the lifetime allows. Set it for programs that read the file at intervals.",
        without="none; readers should then read the file each time they use the token",
        examples=("60s",),
    ),
    "template": Key(
        "With `format: template`: the name of a built-in template (`curlrc`, `envoy-sds`, `gcp-external-account`, "
        "`gitconfig`, `haproxy-map`, `kubeconfig`, `nginx`, `wgetrc`), or the absolute path of your own in Jinja2. "
        "Needs the extra `templates`. A changed template applies at once.",
        examples=("nginx", "/etc/bearerd/app.ini.j2"),
    ),
    "vars": Key(
        "Values for the template, by name: it finds them in `vars`. docs/consumers.md has those of the built-in ones.",
        without="none",
        examples=({"url": "https://git.example.com"},),
    ),
    # hooks
    "run": Key(
        "A program by its absolute path, and its arguments. There is no shell. It runs as the daemon's user, and its "
        "output is dropped. A hook has either `run` or `signal`.",
        examples=(["/usr/local/bin/reload-app"],),
    ),
    "signal": Key(
        "A signal, sent to the process of `pid_file` or `process`. The daemon's user has to be allowed to send it.",
        examples=("HUP",),
    ),
    "pid_file": Key("The absolute path of a file with the process id, for `signal`.", examples=("/run/app.pid",)),
    "process": Key("The name of the process, as `ps -o comm` shows it, for `signal`.", examples=("nginx",)),
    "ChangeHookModel.timeout": Key(
        "The time for the program to end. Then it is killed, and counts as failed.", default="30s", examples=("2m",)
    ),
    "FailureHookModel.timeout": Key(
        "The time for the program to end. Then it is killed, and counts as failed.", default="30s", examples=("2m",)
    ),
    "skip_first": Key(
        "`true`: the hook does not run for the first token, because the programs that read it are not running yet.",
        default=False,
        examples=(True,),
    ),
}
