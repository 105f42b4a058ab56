"""The completion scripts for bash and zsh. shtab makes them from the parser of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Final, Literal

import shtab

from bearerd.cli.verbs import parser
from bearerd.providers.catalog import names

# Both ask the running daemon for the names, with the options that were typed. Another process may answer, and bash's
# compgen would expand a `$(…)` in its words, so only a valid client/token is taken.
_BASH: Final = r"""
# $1: the word so far
_bearerd_tokens() {
  local at names where=()
  for ((at = 1; at < COMP_CWORD; at++)); do
    case ${COMP_WORDS[at]} in
      -c | --config | --socket) where=("${COMP_WORDS[at]}" "${COMP_WORDS[at + 1]/#\~\//$HOME/}") ;;
    esac
  done
  names=$("${COMP_WORDS[0]}" status --json "${where[@]}" 2>/dev/null |
    grep -o '"name": "@NAME@/@NAME@"' | cut -d '"' -f 4)
  if [[ $names && " ${COMP_WORDS[*]} " == *" refresh "* ]]; then names+=" $(sed 's|/.*||' <<<"$names" | sort -u)"; fi
  compgen -W "$names" -- "$1"
}
_bearerd_users() {
  compgen -u -- "$1"
}
"""
_ZSH: Final = r"""
_bearerd_tokens() {
  local option
  local -a names where
  for option in -c --config --socket; do
    [[ -n ${opt_args[$option]} ]] && where=($option ${opt_args[$option]/#\~\//$HOME/})
  done
  names=(${(f)"$(bearerd status --json $where 2>/dev/null | grep -o '"name": "@NAME@/@NAME@"' | cut -d '"' -f 4)"})
  [[ $curcontext == *-refresh:* ]] && names+=(${(u)names%%/*})
  compadd -a names
}
"""
_NAME: Final = "[A-Za-z0-9][A-Za-z0-9._-]*"
# What completes an argument, by the name that the help gives to it.
_COMPLETERS: Final[dict[str, Any]] = {
    "FILE": shtab.FILE,
    "PATH": shtab.FILE,
    "DIR": shtab.DIRECTORY,
    "TOKEN": {"bash": "_bearerd_tokens", "zsh": "_bearerd_tokens"},
    "USER[:GROUP]": {"bash": "_bearerd_users", "zsh": "_users"},
}


def completion(shell: Literal["bash", "zsh"]) -> str:
    """The script for a shell."""
    root = parser()
    for action in _actions(root):
        if action.metavar == "PROVIDER":
            action.choices = names()
        if action.metavar in _COMPLETERS:
            action.complete = _COMPLETERS[action.metavar]  # type: ignore[attr-defined]
            # In the second field of zsh's `_arguments`, a colon would begin the third.
            action.metavar = str(action.metavar).partition("[")[0]
    preamble = (_BASH if shell == "bash" else _ZSH).replace("@NAME@", _NAME)
    script = shtab.complete(root, shell, preamble=preamble)
    # shtab's form for a list of arguments completes the first one only.
    script = script.replace('"(*)::', '"*:')
    return "\n".join(line.rstrip() for line in script.strip().splitlines()) + "\n"


def _actions(root: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of the parser and of its verbs."""
    for action in root._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)
