"""The answers to the questions of `bearerd init`: from the command line, or else from the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Final

from bearerd.cli import questions
from bearerd.config.suggest import near
from bearerd.providers.preset import Preset, Question, Secret, fault, secret_fault
from bearerd.reason import reason_of

# Bytes, as for every secret that bearerd reads.
_LARGEST_SECRET: Final = 64 * 1024
# Answers that are secrets: on a command line, every user of the machine can read them.
_SECRETS: Final = frozenset({"secret", "client_secret", "password", "private_key"})


class UsageError(Exception):
    """The command line or the answers are wrong; exit 2."""


def given_answers(chosen: Preset, given: list[str]) -> dict[str, str]:
    """The answers of the command line. Raises UsageError."""
    keys = [question.key for question in chosen.questions]
    answers: dict[str, str] = {}
    for text in given:
        key, equals, answer = text.partition("=")
        if key in _SECRETS:
            raise UsageError(f"--set {key}: other users can read command lines; use --secret-file for the secret")
        if not equals:
            raise UsageError("--set: expected KEY=VALUE")
        if key not in keys:
            raise UsageError(
                f"--set: {chosen.name} has no question '{key}'{near(key, keys) or '.'} It has {', '.join(keys)}"
            )
        if key in answers:
            raise UsageError(f"--set {key} was given twice")
        answers[key] = answer
    return answers


def all_answers(chosen: Preset, given: Mapping[str, str], *, has_secret: bool, terminal: bool) -> dict[str, str]:
    """An answer to each question. On a terminal it asks for those that are missing or wrong.

    Without a terminal, raises one UsageError that names them all, and the questions that need no answer.
    """
    answers: dict[str, str] = {}
    wrong: list[str] = []
    others: list[str] = []
    for question in chosen.questions:
        key = question.key
        answers[key], why = _prepared(question, given.get(key, question.default))
        if terminal and (why is not None or key not in given):
            if key in given:
                print(f"--set {key}={given[key]}: {why}")
            answers[key] = questions.answer_to(question, _prepared)
            continue
        if why is None:
            if key not in given:
                others.append(f"--set {key}=…" + (f" ({question.default})" if question.default else ""))
            continue
        such = f", such as {question.example}" if question.example else ""
        wrong.append(f"--set {key}={given[key]}: {why}" if key in given else f"--set {key}=…: {question.prompt}{such}")
    if chosen.secret and not has_secret and not terminal:
        wrong.append(f"--secret-file FILE: {chosen.secret.prompt}; - reads it from standard input")
    if wrong:
        wrong += [f"optional: {', '.join(others)}"] if others else []
        raise UsageError("\n  ".join([f"init {chosen.name} needs these answers; nothing was written:", *wrong]))
    return answers


def _prepared(question: Question, answer: str) -> tuple[str, str | None]:
    """An answer as it is used, and what is wrong with it."""
    if question.kind != "path" or not answer:
        return answer, fault(question, answer)
    path = os.path.abspath(os.path.expanduser(answer))
    if not os.path.isfile(path):
        return path, "there is no such file"
    if question.private and (mode := os.stat(path).st_mode & 0o777) & 0o077:
        return path, f"mode {mode:04o} lets others access it; run chmod 600 on it"
    return path, fault(question, path)


def asked_secret(secret: Secret) -> bytes:
    """The content of the secret file, from the terminal. Raises UsageError."""
    if secret.kind == "text":
        return questions.secret(secret.prompt, secret_fault).encode() + b"\n"
    return _content(
        questions.answer_to(Question("secret", f"{secret.prompt}, the path of its file", "path"), _prepared)
    )


def secret_from(chosen: Preset, path: str) -> bytes:
    """The content of the secret file, from --secret-file. Raises UsageError."""
    if chosen.secret is None:
        raise UsageError(f"{chosen.name} has no secret: leave out --secret-file")
    content = _content(path)
    if chosen.secret.kind == "key":
        return content
    try:
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UsageError(f"{_named(path)}: it is not UTF-8 text") from None
    if why := secret_fault(text):
        raise UsageError(f"{_named(path)}: {why}")
    return text.encode() + b"\n"


def _named(path: str) -> str:
    return "the secret on standard input" if path == "-" else f"secret file {path}"


def _content(path: str) -> bytes:
    try:
        if path == "-":
            content = sys.stdin.buffer.read(_LARGEST_SECRET + 1)
        else:
            with open(path, "rb") as file:
                content = file.read(_LARGEST_SECRET + 1)
    except OSError as error:
        raise UsageError(f"{_named(path)}: {reason_of(error)}") from None
    if len(content) > _LARGEST_SECRET:
        raise UsageError(f"{_named(path)}: larger than 64 KiB, so not a secret")
    if not content.strip():
        raise UsageError(f"{_named(path)}: it is empty")
    return content
