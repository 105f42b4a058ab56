"""Renders templates: the one module that uses Jinja2.

It renders them in its sandbox, strictly (an unknown name is an error) and without a loader (no template reads another
file). This limits mistakes. It is no protection against a hostile template: templates are the operator's own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from bearerd.errors import ExtraMissing, PublishError
from bearerd.printable import printable
from bearerd.reason import reason_of
from bearerd.regular import NotRegularError, read_regular

_BUILT_IN: Final = os.path.join(os.path.dirname(__file__), "templates")

# Bytes. A config with a token in it takes a few KiB; a larger file is something else.
_MOST_BYTES: Final = 1024 * 1024

# Characters that JSON allows in a string, and that YAML forbids or reads as a line end.
_NOT_IN_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufffe\uffff\ud800-\udfff]")

_UNDEFINED: Final = " is not defined"


class Templates:
    """Templates by name or path, each compiled when its text changes. May be used by several threads at once."""

    def __init__(self) -> None:
        self._environment: Any = None
        self._compiled: dict[str, tuple[str, Any]] = {}

    def render(self, name: str, fields: Mapping[str, Any]) -> bytes:
        """The output of a template with these fields; raises PublishError."""
        text, template = self._template(name)
        try:
            content: bytes = template.render(fields).encode()
        except Exception as error:  # noqa: BLE001 - anything may come of other people's expressions
            raise _fault(name, text, error) from None
        if not content.strip():
            raise PublishError(f"template {name}: its output is empty, and bearerd writes no empty files")
        return content

    def prove(self, name: str, sample: Mapping[str, Any]) -> None:
        """Check a template as far as possible without a token; raises PublishError.

        One of the operator's own is only compiled: it may use fields of the provider that are not known yet.
        """
        if "/" in name:
            self._template(name)
        else:
            self.render(name, sample)

    def _template(self, name: str) -> tuple[str, Any]:
        # Read it each time: the times of a file that was written twice in quick succession may be equal.
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
            raise PublishError(f"template {name}: line {other.lineno}: extends, include and import are not allowed")
        return template


class _UnfitError(Exception):
    """A filter cannot handle its input; the message holds nothing of the input."""


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
        raise PublishError(f"template {name}: larger than 1 MiB, so not a template")
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
            return self._undefined_hint or f"'{self._undefined_name}'{_UNDEFINED}"

    class Sandbox(ImmutableSandboxedEnvironment):
        def getattr(self, obj: Any, attribute: str) -> Any:
            # vars.values is a variable of the config, not the method of dict.
            if isinstance(obj, dict) and attribute in obj:
                return obj[attribute]
            return super().getattr(obj, attribute)

    # No HTML: only filters escape.
    environment = Sandbox(undefined=Missing, autoescape=False, keep_trailing_newline=True)
    environment.filters |= {"quoted": quoted, "tojson": tojson}
    return environment


def quoted(value: object) -> str:
    r"""In double quotes, with \\ \" \n \t escaped as curl, git and nginx expect."""
    text = str(value)  # first, since an undefined value raises here
    if not isinstance(value, str | int | float):
        raise _UnfitError("quoted accepts text or a number")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    if re.search(r"[\x00-\x1f\x7f]", escaped):
        raise _UnfitError("a control character cannot be quoted")
    return f'"{escaped}"'


def tojson(value: object, indent: int | None = None) -> str:
    """As JSON that is also YAML. Jinja2's own filter is made for HTML, and kubectl refuses its surrogates."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=indent, default=_no_json)
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _no_json(value: object) -> Any:
    str(value)  # as above
    raise _UnfitError("tojson accepts text, numbers, truth values, lists and mappings")


def _fault(name: str, text: str, error: Exception) -> PublishError:
    """The fault of a template, with its line."""
    line = getattr(error, "lineno", None)
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    # Names in a template may contain any character, and a message is one line.
    said = printable(_describe(text, error))
    return PublishError(f"template {name}: {f'line {line}: ' if line else ''}{said}")


def _describe(text: str, error: Exception) -> str:
    """The text of an error if it is about the template itself: any other text could hold the token."""
    from jinja2 import TemplateSyntaxError, UndefinedError  # noqa: PLC0415 - as in _environment

    said = str(error).removesuffix(".")  # as Jinja ends some
    if isinstance(error, UndefinedError):
        named = said.endswith(_UNDEFINED)
        return (
            said
            if not named or said.removesuffix(_UNDEFINED).strip("'") in text
            else f"an entry that it looks up{_UNDEFINED}"
        )
    if isinstance(error, TemplateSyntaxError | _UnfitError):
        return said
    return f"{type(error).__name__} (its text is not shown because it could hold the token)"
