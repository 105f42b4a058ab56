"""What each command does with its parsed options. Each one imports only what it needs."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from bearerd.cli.ask import NoAnswer, Reading, find
from bearerd.cli.no_config import no_config
from bearerd.errors import BearerdError, ConfigError
from bearerd.plural import counted
from bearerd.process import write_stderr

if TYPE_CHECKING:
    from bearerd.config.reader import ConfigReader

EX_CONFIG = 78  # sysexits.h; the systemd unit does not restart on it


def act(arguments: argparse.Namespace, reader: ConfigReader | None = None, warning: str | None = None) -> int:
    """Run the command of a parsed command line. Returns the exit code.

    `reader` reads the config for the commands that need it; `warning` is logged once the log is set up.
    """
    arguments.config_reader, arguments.warning = reader, warning
    try:
        code: int = arguments.verb(arguments)
    except ConfigError as error:
        if missing := no_config(error, arguments.config, os.environ):
            write_stderr(missing)
            return EX_CONFIG
        show = f"; bearerd check -c {arguments.config} shows more"
        write_stderr(f"{error}\nbearerd: {counted(len(error.problems), 'error')} in the config{show}")
        return EX_CONFIG
    except (BearerdError, NoAnswer) as error:
        write_stderr(f"bearerd: {error}")
        return 1
    return code


def run(arguments: argparse.Namespace) -> int:
    """Keep every token fresh, until TERM or INT. Does not return."""
    from bearerd.service.signals import ending

    reader = arguments.config_reader
    with ending(0):
        reader.ask(arguments.config)
        # Imported meanwhile: this takes as long as reading a small config.
        from bearerd.service.logs import quiet_libraries, set_up

        quiet_libraries()  # before they are imported, because some warn then
        from bearerd.service.run import run

        config = reader.answer()
    set_up(config.log, os.environ)
    _warn(arguments.warning)
    leave(run(config, lambda present: reader.read(arguments.config, present=present), os.environ))


def once(arguments: argparse.Namespace) -> int:
    """Make every token valid, then exit. Does not return."""
    from bearerd.service.signals import ending

    reader = arguments.config_reader
    with ending(1):
        reader.ask(arguments.config)
        from bearerd.cli.progress import bar
        from bearerd.service.logs import quiet_libraries, set_up

        quiet_libraries()
        from bearerd.service.once import once

        config = reader.answer()
    reader.close()
    set_up(config.log, os.environ)
    _warn(arguments.warning)
    with bar(len(config.targets)) as progress:
        code = once(
            config,
            os.environ,
            timeout=arguments.timeout,
            min_valid=arguments.min_valid,
            hooks=arguments.hooks,
            progress=progress,
        )
    leave(code)


def _warn(warning: str | None) -> None:
    if warning:
        import logging

        from bearerd.log import say

        say(logging.WARNING, warning)


def leave(code: int) -> NoReturn:
    """End at once: threads that hang in a request or a name look-up must not delay it, nor crash the interpreter."""
    from bearerd.service.logs import flush

    sys.stdout.flush()
    flush()
    os._exit(code)


def check(arguments: argparse.Namespace) -> int:
    """Check config, secrets, permissions and directories."""
    from bearerd.cli.check import check, show_errors

    try:
        config = arguments.config_reader.read(arguments.config, full=True)
    except ConfigError as error:
        if missing := no_config(error, arguments.config, os.environ):
            write_stderr(missing)
        else:
            show_errors(error)
        return EX_CONFIG
    finally:
        arguments.config_reader.close()
    from bearerd.service.check import readable

    reader = arguments.reader
    of_reader = readable(config, reader) if reader else ()
    return check(
        config, arguments.config, online=arguments.online, readable=of_reader, reader=reader.name if reader else ""
    )


def status(arguments: argparse.Namespace) -> int:
    """Show every token."""
    from bearerd.cli.status import status

    socket, directory = find(arguments.socket, arguments.config)
    return status(socket, directory, as_json=arguments.json, watch=arguments.watch)


def refresh(arguments: argparse.Namespace) -> int:
    """Get new tokens from the running daemon, and wait for them."""
    from bearerd.cli.refresh import refresh

    socket, _ = find(arguments.socket, arguments.config)
    with Reading(socket):
        return refresh(socket, arguments.tokens, arguments.timeout)


def health(arguments: argparse.Namespace) -> int:
    """Check the daemon, or wait until it is ready."""
    from bearerd.cli.health import health

    if arguments.live and arguments.tokens:
        arguments.usage_error("argument --live: not allowed with TOKEN, because it is about the daemon")
    return health(
        find(arguments.socket, arguments.config)[0], live=arguments.live, names=arguments.tokens, wait=arguments.wait
    )


def init(arguments: argparse.Namespace) -> int:
    """Write a first config and a secret file."""
    from bearerd.cli.init import init

    return init(arguments.provider, arguments.directory, arguments.answers, arguments.secret_file)


def schema(_arguments: argparse.Namespace) -> int:
    """Print the config's JSON Schema."""
    import json

    from bearerd.config.load import schema

    print(json.dumps(schema(), indent=2))
    return 0


def completion(arguments: argparse.Namespace) -> int:
    """Print a completion script."""
    from importlib.resources import files

    script = files("bearerd.cli").joinpath("completion", f"bearerd.{arguments.shell}")
    print(script.read_text("utf-8"), end="")
    return 0


def demo(arguments: argparse.Namespace) -> int:
    """Run a token server, the daemon and a reader."""
    from bearerd.demo.show import demo

    return demo(ttl=arguments.ttl, seconds=arguments.seconds)
