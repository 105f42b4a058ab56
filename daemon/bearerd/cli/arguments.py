"""A parser of command lines whose help is grouped and whose errors say what was probably meant."""

from __future__ import annotations

import argparse
import shutil
from textwrap import fill
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Columns. Wider lines are hard to read.
_WIDEST = 80
_COMMAND_COLUMN = 14
# Commands of other programs, and those of bearerd that do the same.
_OF_OTHERS = {
    **dict.fromkeys(("start", "serve", "server", "daemon"), "run"),
    **dict.fromkeys(("list", "ls", "show", "get", "token", "tokens"), "status"),
    **dict.fromkeys(("validate", "verify", "test", "lint"), "check"),
    "renew": "refresh",
}
_OF_SYSTEMD = ("stop", "restart", "reload")


class Parser(argparse.ArgumentParser):
    """The parser of the command line, or of one command."""

    def __init__(self, prog: str, examples: Sequence[str] = (), **more: Any) -> None:
        super().__init__(prog, formatter_class=_Formatter, **more)
        self.examples = examples
        self.groups: dict[str, list[tuple[str, str]]] = {}
        """Of the whole command line: its commands with their texts, by the heading above them."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, but an unknown option is reported by the command that does not have it."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].partition("=")[0]
            options = [option for action in self._actions for option in action.option_strings]
            if not word.startswith("-"):
                config = "--config" in options and word.endswith((".yaml", ".yml", ".json"))
                self.error(f"unexpected argument '{word}'" + (f"; a config is named by -c {word}" if config else ""))
            self.error(f"unknown option '{word}'{_near(word, options)}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        """Print an error in two lines, and exit with 2."""
        lists = " " not in self.prog
        self._fail(message, f"{self.prog} --help {'lists the commands' if lists else 'shows its options'}")

    def _fail(self, message: str, more: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n{more}\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.metavar == "COMMAND" and action.choices and value not in action.choices:
            self._fail(
                f"there is no command '{value}'{_near_command(value, action.choices)}",
                "bearerd help lists the commands",
            )
        super()._check_value(action, value)

    def format_help(self) -> str:
        """The help: of the whole command line with its commands in groups."""
        if not self.groups:
            return super().format_help() + self._shown_examples()
        parts = [f"usage: {self.prog} COMMAND [OPTION …]\n", f"{self.description}\n"]
        for heading, commands in self.groups.items():
            parts.append(f"{heading}:\n" + "".join(_row(name, text) for name, text in commands))
        parts.append(fill(f"{self.prog} COMMAND --help shows the options of a command.", _width()) + "\n")
        if self.epilog:
            parts.append(fill(self.epilog, _width()) + "\n")
        return "\n".join(parts) + self._shown_examples()

    def _shown_examples(self) -> str:
        lines = "".join(f"  {example}\n" for example in self.examples)
        return f"\n{'example' if len(self.examples) == 1 else 'examples'}:\n{lines}" if lines else ""


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_width(), max_help_position=24)


def command_first(arguments: list[str]) -> list[str]:
    """A command line with `-c FILE` and `--socket PATH` after the command, where argparse wants them."""
    at = 0
    while at < len(arguments) and arguments[at].startswith("-"):
        if arguments[at] in {"-c", "--config", "--socket"}:
            at += 2
        elif arguments[at].startswith(("-c", "--config=", "--socket=")):
            at += 1
        else:
            break
    return [arguments[at], *arguments[:at], *arguments[at + 1 :]] if at < len(arguments) else []


def _near_command(word: str, known: Iterable[str]) -> str:
    if word in _OF_SYSTEMD:
        return f"; the service manager does that: systemctl {word} bearerd"
    return f"; did you mean '{_OF_OTHERS[word]}'?" if word in _OF_OTHERS else _near(word, known)


def _near(word: str, known: Iterable[str]) -> str:
    from bearerd.config.suggest import near

    return near(word, known)


def _row(name: str, text: str) -> str:
    first = f"  {name:<{_COMMAND_COLUMN - 3}} "
    return fill(text, _width(), initial_indent=first, subsequent_indent=" " * _COMMAND_COLUMN) + "\n"


def _width() -> int:
    return max(40, min(_WIDEST, shutil.get_terminal_size().columns))
