"""The parser of the command line: the commands with their options and help."""

from __future__ import annotations

import argparse
import os

from bearerd import __version__
from bearerd.cli import commands
from bearerd.cli.arguments import Parser
from bearerd.config.here import default_config
from bearerd.errors import BearerdError
from bearerd.process import write_stderr
from bearerd.timeformat import seconds_of

# The groups of commands in the help.
_START, _DAEMON, _MORE = "start and run", "ask the running daemon", "more"


def parser() -> Parser:
    """The parser of the command line."""
    root = Parser(
        prog="bearerd",
        description="Keeps OAuth2 access tokens fresh in files that any program can read.",
        epilog="Exit status: 0 done; 1 a token could not be obtained, or the daemon is not healthy or not running; 2 "
        "the command line is wrong; 78 the config is wrong.",
        examples=("bearerd demo", "bearerd check --online", "bearerd status --watch", "bearerd refresh dnb"),
    )
    root.add_argument("--version", action="version", version=f"bearerd {__version__}", help="print the version")
    verbs = root.add_subparsers(metavar="COMMAND", prog="bearerd", parser_class=Parser)

    def verb(
        name: str, function: object, text: str, *examples: str, config: bool = True, group: str = _MORE
    ) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", examples=examples)
        sub.set_defaults(verb=function)
        root.groups.setdefault(group, []).append((name, text))
        if config:
            sub.add_argument(
                "-c", "--config", metavar="FILE", default=default_config(os.environ),
                help="the config (default: $BEARERD_CONFIG, else, for users other than root, "
                "~/.config/bearerd/config.yaml if it exists, else /etc/bearerd/config.yaml)",
            )  # fmt: skip
        return sub

    root.set_defaults(verb=lambda _: _no_command(root))
    init = verb(
        "init", commands.init, "write a first config and a secret file",
        "bearerd init", "bearerd init keycloak", config=False, group=_START,
    )  # fmt: skip
    init.add_argument(
        "provider", metavar="PROVIDER", nargs="?", help="keycloak, auth0, entra, … (default: show them all)"
    )
    init.add_argument(
        "--directory", metavar="DIR",
        help="where to write the two files (default: /etc/bearerd; for users other than root $XDG_CONFIG_HOME/bearerd, "
        "which is ~/.config/bearerd)",
    )  # fmt: skip
    init.add_argument(
        "--set", metavar="K=V", action="append", default=[], dest="answers",
        help="the answer to one question; may be repeated. On a terminal, init asks the other questions",
    )  # fmt: skip
    init.add_argument("--secret-file", metavar="FILE", help="the file to read the secret from; - for standard input")
    verb("run", commands.run, "keep every token fresh, in the foreground, until TERM or INT", group=_START)
    once = verb(
        "once", commands.once, "make every token valid, then exit", "bearerd once --timeout 1m --min-valid 10m",
        group=_START,
    )  # fmt: skip
    once.add_argument("--timeout", metavar="D", type=_duration, default=30.0, help="how long to try (default: 30s)")
    once.add_argument(
        "--min-valid", metavar="D", type=_duration, default=0.0,
        help="refresh tokens that are valid for less than this (default: those that are due)",
    )  # fmt: skip
    once.add_argument(
        "--hooks", action="store_true", help="also run hooks for changed files (default: leave them to the daemon)"
    )
    check = verb(
        "check", commands.check, "check config, secrets, permissions and directories", "bearerd check -c config.yaml",
        "bearerd check --online", "bearerd check --as www-data", group=_START,
    )  # fmt: skip
    check.add_argument(
        "--online", action="store_true", help="also request one token for each client, and use the server of each share"
    )
    check.add_argument(
        "--as", dest="reader", metavar="USER[:GROUP]", type=_reader,
        help="also check that this user can read each file; GROUP is the group of the process, by default the user's "
        "login group",
    )  # fmt: skip
    status = verb(
        "status", commands.status, "show every token: state, expiry, next refresh, what is wrong and what to do",
        config=False, group=_DAEMON,
    )  # fmt: skip
    form = status.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the daemon's status as JSON")
    form.add_argument("--watch", action="store_true", help="redraw every second, until Ctrl-C")
    refresh = verb(
        "refresh", commands.refresh, "get new tokens now from the running daemon, and wait for them", "bearerd refresh",
        "bearerd refresh dnb", "bearerd refresh dnb/bci billing/api", config=False, group=_DAEMON,
    )  # fmt: skip
    refresh.add_argument(
        "tokens", metavar="TOKEN", nargs="*", help="client/token, or a client for all of its tokens (default: all)"
    )
    refresh.add_argument("--timeout", metavar="D", type=_duration, default=30.0, help="how long to wait (default: 30s)")
    health = verb(
        "health", commands.health, "check the daemon, for probes and for programs that wait for a token",
        "bearerd health", "bearerd health --wait 1m dnb/bci", config=False, group=_DAEMON,
    )  # fmt: skip
    kind = health.add_mutually_exclusive_group()
    kind.add_argument(
        "--ready", action="store_true", help="check that every required token is valid and in its files (the default)"
    )
    kind.add_argument("--live", action="store_true", help="check that the daemon's scheduler works")
    health.add_argument(
        "--wait",
        metavar="D",
        type=_duration,
        default=0.0,
        help="how long to wait until that is so, also for the daemon to start (default: 0)",
    )
    health.add_argument(
        "tokens", metavar="TOKEN", nargs="*", help="client/token; check these tokens instead of the required ones"
    )
    health.set_defaults(usage_error=health.error)
    for asks in (status, refresh, health):
        named = asks.add_mutually_exclusive_group()
        named.add_argument(
            "--socket", metavar="PATH",
            help="the control socket (default: $BEARERD_SOCKET, else from the config, else .bearerd/control.sock in "
            "$XDG_RUNTIME_DIR/bearerd, for users other than root, or in /run/bearerd)",
        )  # fmt: skip
        named.add_argument(
            "-c", "--config", metavar="FILE", default=os.environ.get("BEARERD_CONFIG"),
            help="the config that names the socket (default: $BEARERD_CONFIG, else, for users other than root, "
            "~/.config/bearerd/config.yaml if it exists)",
        )  # fmt: skip
    verb("schema", commands.schema, "print the config's JSON Schema, for editors", config=False)
    completion = verb(
        "completion", commands.completion, "print a script that completes commands in a shell", config=False
    )
    completion.add_argument(
        "shell",
        choices=["bash", "zsh"],
        help='the shell. Put eval "$(bearerd completion bash)" into ~/.bashrc, or the same with zsh into ~/.zshrc, '
        "after compinit",
    )
    demo = verb(
        "demo",
        commands.demo,
        "run a token server, the daemon and a reader on this machine, without setup",
        config=False,
        group=_START,
    )
    demo.add_argument("--ttl", metavar="S", type=_seconds, default=10.0, help="lifetime of tokens (default: 10)")
    demo.add_argument("--seconds", metavar="N", type=_seconds, help="stop this many seconds after the first API call")
    help_ = verb("help", lambda arguments: _help(root, arguments), "show the help of a command", config=False)
    help_.add_argument("about", metavar="COMMAND", nargs="?", choices=[*verbs.choices, "version"])
    verb("version", lambda _: _version(), "print the version", config=False)
    return root


def _no_command(root: Parser) -> int:
    write_stderr(root.format_help().rstrip("\n"))
    return 2


def _help(root: Parser, arguments: argparse.Namespace) -> int:
    root.parse_args([*([arguments.about] if arguments.about else []), "--help"])
    return 0


def _version() -> int:
    print(f"bearerd {__version__}")
    return 0


def _duration(text: str) -> float:
    # A bare 0 needs no unit.
    seconds = 0.0 if text == "0" else seconds_of(text)
    if seconds is None:
        hint = f": write {text}s if these are seconds" if text.isdecimal() else ""
        raise argparse.ArgumentTypeError(f"expected a duration such as 500ms, 10s, 15m, 1h or 2d{hint}")
    return seconds


def _reader(text: str) -> object:
    from bearerd.service.check import reader_of

    try:
        return reader_of(text)
    except BearerdError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        raise argparse.ArgumentTypeError("expected a number of seconds") from None
    if not 1 <= seconds <= 86400:  # noqa: PLR2004 - a second to a day
        raise argparse.ArgumentTypeError("expected 1 to 86400 seconds")
    return seconds
