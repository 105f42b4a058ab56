"""Asks on a terminal."""

from __future__ import annotations

import io
import sys
import termios
from collections.abc import Callable
from shutil import get_terminal_size
from textwrap import fill

from bearerd.config.suggest import nearest
from bearerd.providers.preset import Question

# A terminal passes lines of up to 4095 characters (termios(3)), and cuts longer ones silently.
_LONGEST_LINE = 4094


def is_terminal() -> bool:
    """Whether a person can be asked: input and output are both a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def take_any_bytes() -> None:
    """Let input that is not UTF-8 be a wrong answer, and not an exception."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")


def show(text: str) -> None:
    """Print paragraphs, wrapped at the width of the terminal."""
    width = min(get_terminal_size().columns, 100)
    for paragraph in text.splitlines():
        print(fill(paragraph, width, break_long_words=False, break_on_hyphens=False))


def choose(titles: dict[str, str]) -> str:
    """The name of the chosen provider."""
    width = max(map(len, titles))
    for name, title in titles.items():
        print(f"  {name:<{width}}  {title}")
    while True:
        answer = _line("Provider (its name, or a part of it): ").lower()
        if not answer:
            continue
        found = [name for name, title in titles.items() if answer in name or answer in title.lower()]
        if answer in titles or len(found) == 1:
            return answer if answer in titles else found[0]
        if found:
            print(f"  more than one: {', '.join(found)}")
        else:
            near = nearest(answer, titles)
            print("  there is no provider of this name" + (f"; did you mean {near}?" if near else "; use other"))


def answer_to(question: Question, prepared: Callable[[Question, str], tuple[str, str | None]]) -> str:
    """The answer to a question. `prepared` returns an answer as it is used, and what is wrong with it."""
    if question.choices:
        hint = f" ({' | '.join(question.choices)})"
    else:
        hint = f" (such as {question.example})" if question.example and not question.default else ""
    default = f" [{question.default}]" if question.default else " [none]" if question.optional else ""
    while True:
        given = _line(f"{question.prompt}{hint}{default}: ") or question.default
        answer, why = prepared(question, given)
        if why is None:
            return answer
        print(f"  {why}")


def secret(prompt: str, why_not: Callable[[str], str | None]) -> str:
    """A secret, which is not shown."""
    while True:
        text = _hidden(f"{prompt} (not shown): ")
        why = "too long for one line of a terminal; use --secret-file" if len(text) >= _LONGEST_LINE else why_not(text)
        if why is None:
            return text
        print(f"  {why}")


def agreed(question: str) -> bool:
    """Whether the answer is yes, which is the default."""
    return _line(f"{question} [Y/n] ").lower() in {"", "y", "yes"}


def _line(prompt: str) -> str:
    """A line of input; raises EOFError."""
    print(prompt, end="", flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


def _hidden(prompt: str) -> str:
    """The same without echo, and as it was typed. getpass would ask /dev/tty, which may be another terminal."""
    before = termios.tcgetattr(sys.stdin)
    silent = termios.tcgetattr(sys.stdin)
    silent[3] &= ~termios.ECHO  # the local modes
    try:
        # FLUSH: what was typed ahead, and echoed, is not the secret.
        termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, silent)
        print(prompt, end="", flush=True)
        line = sys.stdin.readline()
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        print()
    if not line:
        raise EOFError
    return line.removesuffix("\n")
