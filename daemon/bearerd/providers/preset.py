"""A provider of the menu: questions and answers -> the text of a config. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template
from textwrap import wrap
from typing import Final, Literal, assert_never

Kind = Literal["text", "name", "host", "url", "path"]
"""What an answer has to be. A path is that of an existing file."""

# Longer answers are pasted by mistake; a scope list of a real client has a few hundred characters.
_LONGEST: Final = 4000
# The width of comments in the config.
_WIDTH: Final = 100
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_URL: Final = re.compile(r"(https?)://[^/?#\s@]+([/?][^\s#]*)?")
_LOOPBACK: Final = re.compile(r"http://(localhost|127\.[0-9.]+|\[::1\])([:/]|$)")
# Texts that YAML reads as they are: letters first, and none of YAML's own words. All others are quoted.
_PLAIN: Final = re.compile(r"(https?://)?/?[A-Za-z][A-Za-z0-9._/-]*")
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"})
# A scalar of a template with a placeholder in it, between spaces and brackets.
_SCALAR: Final = re.compile(r"[^\s{}\[\],]*\$[a-z_0-9]+[^\s{}\[\],]*?(?=:?(?:[\s{}\[\],]|$))")
_SCOPE: Final = "{scope: $scope}"
# Characters that JSON leaves in a string, and that YAML forbids or reads as a line end.
_NOT_IN_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, whose key is a placeholder of the config."""

    key: str
    prompt: str
    kind: Kind = "text"
    example: str = ""
    default: str = ""
    optional: bool = False
    """Without an answer, the lines of the config with its placeholder are left out."""
    choices: tuple[str, ...] = ()
    private: bool = False
    """Of a path: bearerd refuses the file if others can read it."""

    @property
    def sample(self) -> str:
        """An answer that shows what is meant."""
        return self.default or self.example


@dataclass(frozen=True, slots=True)
class Secret:
    """The secret, which init puts into a separate file."""

    prompt: str
    kind: Literal["text", "key"]
    """One line that can be typed, or a file that is copied."""
    file: str
    """The name of the file; may contain placeholders."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A provider of the menu."""

    name: str
    title: str
    notes: str
    questions: tuple[Question, ...]
    secret: Secret | None
    config: str
    """The config, with placeholders such as `$client_id`."""
    heading: str = ""
    """Its heading in docs/providers.md, if that is not its title."""

    def secret_file(self, answers: Mapping[str, str]) -> str:
        """The name of the secret file; empty if there is none."""
        return Template(self.secret.file).substitute(answers) if self.secret else ""


def fault(question: Question, answer: str) -> str | None:
    """What is wrong with an answer; None if it is good. Whether a path exists is not looked at."""
    if not answer:
        return None if question.optional else "an answer is required"
    if len(answer) > _LONGEST:
        return f"longer than {_LONGEST} characters"
    if not answer.isprintable():
        return "it contains a line end or another character that cannot be printed"
    if answer != answer.strip():
        return "it begins or ends with a space; remove it"
    if question.choices and answer not in question.choices:
        return f"expected {' or '.join(question.choices)}"
    return _kind_fault(question, answer)


def _kind_fault(question: Question, answer: str) -> str | None:
    match question.kind:
        case "text":
            return None
        case "name":
            good = _NAME.fullmatch(answer) is not None
            return None if good else 'expected letters, digits, ".", "_" and "-", at most 64 of them'
        case "host":
            good = _HOST.fullmatch(answer) is not None
            return None if good else f"expected a host such as {question.sample}, without https:// and without a path"
        case "url":
            return _url_fault(answer, question.sample)
        case "path":
            return None if answer.startswith("/") else "expected an absolute path"
        case _:
            assert_never(question.kind)


def _url_fault(answer: str, sample: str) -> str | None:
    found = _URL.fullmatch(answer)
    if found is None:
        return f"expected a URL such as {sample}"
    if found[1] == "http" and not _LOOPBACK.match(answer):
        return "plain http is allowed to this machine only; expected https://"
    return None


def secret_fault(text: str) -> str | None:
    """Why a text cannot be a secret that is sent as it is; None if it can."""
    if not text.strip():
        return "it is empty"
    if "\n" in text or "\r" in text:
        return "it has more than one line"
    if any("\ud800" <= char <= "\udfff" for char in text):  # what Python makes of other bytes
        return "it is not UTF-8 text"
    if text[0] == "\ufeff":
        return "it begins with a byte order mark"
    if text != text.strip():
        return "it begins or ends with a space, which would be sent as part of it; remove it"
    return None


def rendered(preset: Preset, answers: Mapping[str, str], secret_path: str, top: str = "") -> str:
    """The config with these answers, which have no faults. `top` has more keys of the top level."""
    values = {question.key: answers.get(question.key, "") for question in preset.questions} | {"secret": secret_path}
    lines: list[str] = []
    for line in preset.config.splitlines():
        used = {found[1] for found in re.finditer(r"\$([a-z_0-9]+)", line)}
        if any(not values[key] for key in used):
            if not line.endswith(_SCOPE):
                continue
            line = line.replace(_SCOPE, "{}")  # noqa: PLW2901 - the token stays
        lines.append(_SCALAR.sub(lambda found: quoted(Template(found[0]).substitute(values)), line))
        if {"token_url", "issuer"} & used and any(_LOOPBACK.match(values[key]) for key in used):
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}allow_http: true # plain http, to this machine only")
    files = () if "files:" in preset.config else _FILES
    above = "\n".join(filter(None, [*files, top]))
    return "\n\n".join(filter(None, ["\n".join(_comments(preset)), above, "\n".join(lines)])) + "\n"


# Of a provider whose config does not say it.
_FILES: Final = (
    "# Each token is in two files of the output directory: CLIENT/TOKEN, and CLIENT/TOKEN.header for curl -H @FILE.",
    "files: [{format: raw}, {format: header}]",
)


def _comments(preset: Preset) -> list[str]:
    heading = preset.heading or preset.title
    about = (
        f"The config of bearerd, written by `bearerd init {preset.name}` ({preset.title}). Edit it as you like, and "
        "run `bearerd check` after a change. config.example.yaml shows every key, and docs/providers.md has more on "
        f'this provider, under "{heading}".'
    )
    lines: list[str] = []
    for text in filter(None, [about, *preset.notes.splitlines()]):
        lines += [*(["#"] if lines else []), *(f"# {line}" for line in wrap(text, _WIDTH, break_on_hyphens=False))]
    return lines


def quoted(text: str) -> str:
    """A text as YAML reads it: in quotes, unless it is a plain word, path or URL."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    # A JSON string is a YAML string, apart from a few characters.
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
