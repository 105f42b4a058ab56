"""Renders templates: the one module that uses Jinja2.

They are rendered in its sandbox, strictly (what is not there is an error) and without any loader (no template
reads another file). That keeps mistakes small; it is no boundary against a hostile template, which could at least
keep a processor busy. Templates are the operator's own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from bearerd.errors import ExtraMissing, PublishError, reason_of
from bearerd.regular import NotRegularError, read_regular

_BUILT_IN: Final = os.path.join(os.path.dirname(__file__), "templates")

# A config with a token in it is a page; what is larger is another file.
_MOST_BYTES: Final = 1024 * 1024

# What JSON lets stand in a string and YAML does not, or reads as a line end.
_NOT_IN_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufffe\uffff\ud800-\udfff]")

_NO: Final = "there is no "


class Templates:
    """Templates by their names or paths, each compiled once until its text changes. For several threads at once."""

    def __init__(self) -> None:
        self._environment: Any = None
        self._compiled: dict[str, tuple[str, Any]] = {}

    def render(self, name: str, fields: Mapping[str, Any]) -> bytes:
        """What a template makes of these fields; raises PublishError."""
        text, template = self._template(name)
        try:
            content: bytes = template.render(fields).encode()
        except Exception as error:  # noqa: BLE001 - anything may come of other people's expressions
            raise _fault(name, text, error) from None
        if not content.strip():
            raise PublishError(f"template {name}: it renders to nothing, and no file is ever empty")
        return content

    def prove(self, name: str, sample: Mapping[str, Any]) -> None:
        """That a template can be used, as far as that is known before there is a token; raises PublishError.

        One of the operator's own may use fields that only his provider gives.
        """
        if "/" in name:
            self._template(name)
        else:
            self.render(name, sample)

    def _template(self, name: str) -> tuple[str, Any]:
        # It is read each time: of a file that was written twice within a moment the times do not tell.
        text = _read(name)
        known = self._compiled.get(name)
        if known is None or known[0] != text:
            known = self._compiled[name] = (text, self._compile(name, text))
        return known

    def _compile(self, name: str, text: str) -> Any:
        if self._environment is None:
            self._environment = _environment()
        from jinja2 import nodes  # noqa: PLC0415 - as in _environment

        try:
            parsed = self._environment.parse(text)
            template = self._environment.from_string(parsed)
        except Exception as error:  # noqa: BLE001 - as above
            raise _fault(name, text, error) from None
        for other in parsed.find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
            raise PublishError(
                f"template {name}: line {other.lineno}: it extends, includes or imports another: none may"
            )
        return template


class _UnfitError(Exception):
    """What a filter cannot do; the message holds nothing of what it was given."""


def _read(name: str) -> str:
    """A template's text; raises PublishError."""
    path = name if "/" in name else os.path.join(_BUILT_IN, f"{name}.j2")
    try:
        content = read_regular(path, _MOST_BYTES + 1)
    except NotRegularError as error:
        raise PublishError(f"template {name}: {error}") from None
    except OSError as error:
        raise PublishError(f"template {name}: {reason_of(error)}") from None
    if len(content) > _MOST_BYTES:
        raise PublishError(f"template {name}: larger than 1 MiB, this is no template")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PublishError(f"template {name}: line {line}: not UTF-8 text") from None


def _environment() -> Any:
    try:
        from jinja2 import StrictUndefined  # noqa: PLC0415 - 8 MB where no template is used
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415
    except ImportError:
        raise PublishError(str(ExtraMissing("format template", "templates"))) from None

    class Missing(StrictUndefined):
        __slots__ = ()

        @property
        def _undefined_message(self) -> str:
            return self._undefined_hint or f"{_NO}'{self._undefined_name}'"

    class Sandbox(ImmutableSandboxedEnvironment):
        def getattr(self, obj: Any, attribute: str) -> Any:
            # vars.values is what the config calls so, no method of Python's.
            if isinstance(obj, dict) and attribute in obj:
                return obj[attribute]
            return super().getattr(obj, attribute)

    # Not HTML: nothing is escaped but by a filter that says how.
    environment = Sandbox(undefined=Missing, autoescape=False, keep_trailing_newline=True)
    environment.filters |= {"quoted": quoted, "tojson": tojson}
    return environment


def quoted(value: object) -> str:
    r"""In double quotes, with \\ \" \n \t as curl, git and nginx read them."""
    text = str(value)  # first: what is missing says so
    if not isinstance(value, str | int | float):
        raise _UnfitError("quoted takes text or a number")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    if re.search(r"[\x00-\x1f\x7f]", escaped):
        raise _UnfitError("a control character cannot be quoted")
    return f'"{escaped}"'


def tojson(value: object, indent: int | None = None) -> str:
    """As JSON that YAML reads as the same: Jinja2's own is made for HTML, and kubectl refuses its surrogates."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=indent, default=_no_json)
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _no_json(value: object) -> Any:
    str(value)  # as above
    raise _UnfitError("tojson takes text, numbers, truth values, lists and mappings")


def _fault(name: str, text: str, error: Exception) -> PublishError:
    """What is wrong with a template, and on which line."""
    line = getattr(error, "lineno", None)
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return PublishError(f"template {name}: {f'line {line}: ' if line else ''}{_words(text, error)}")


def _words(text: str, error: Exception) -> str:
    """What an error says as far as it is of the template's own text: all else could be the token, or a piece of it."""
    from jinja2 import TemplateSyntaxError, UndefinedError  # noqa: PLC0415 - as in _environment

    said = str(error)
    if isinstance(error, UndefinedError):
        missing = said.removeprefix(_NO).strip("'")
        return said if missing in text or not said.startswith(_NO) else f"{_NO}entry of that name"
    if isinstance(error, TemplateSyntaxError | _UnfitError):
        return said
    return f"{type(error).__name__} (what else it says is left out: it could hold the token)"
