"""The content of an output, in its format or from its template."""

from __future__ import annotations

from typing import Any

from bearerd.model import Output, Target
from bearerd.publish.render import fields, render
from bearerd.publish.template import Templates
from bearerd.terms import Token


def content_of(target: Target, token: Token, output: Output, templates: Templates) -> bytes:
    """What a file should contain with this token; raises PublishError for a template that cannot be filled in."""
    if output.template:
        return templates.render(output.template, template_fields(target, token, output))
    return render(target, token, output)


def template_fields(target: Target, token: Token, output: Output) -> dict[str, Any]:
    """What a template may use."""
    return fields(target, token) | {"path": output.path, "variable": output.variable, "vars": dict(output.vars)}
