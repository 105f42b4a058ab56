"""The sections and keys of the reference, from the config's schema. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bearerd.config.load import schema

# Where the mapping of a definition is described. It is also the heading of its section.
SECTIONS: Final = {
    "ReferenceModel": "Keys of a secret reference",
    "FileModel": "Keys of a file",
    "ProviderModel": "Keys of a provider",
    "ProxyModel": "Keys of a proxy with a login",
    "ClientModel": "Keys of a client",
    "TokenModel": "Keys of a token",
    "ChangeHookModel": "Keys of a hook",
    "FailureHookModel": "Keys of a hook",
    "ShareModel": "Keys of share",
    "RedisModel": "Keys of redis",
    "OutputModel": "Keys of output",
    "ControlModel": "Keys of control",
    "ListenModel": "Keys of listen",
    "LogModel": "Keys of log",
}
INHERITED: Final = "Keys of the top level, a client or a token"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value may be: words, and the sections that describe mappings in it."""

    words: str
    sections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """A key in the reference."""

    name: str
    heading: str
    """Unique in the whole reference."""
    text: str
    kind: Kind
    required: bool
    examples: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """The keys of one mapping."""

    heading: str
    intro: str
    entries: tuple[Entry, ...]


def sections() -> tuple[Section, ...]:
    """The whole reference in the order in which it is read."""
    whole = schema()
    models = {"ConfigFile": whole} | whole["$defs"]
    keys = {name: dict.fromkeys(model["properties"]) for name, model in models.items()}
    of_both = dict.fromkeys(key for key in keys["ConfigFile"] if key in keys["ClientModel"])
    inherited = dict.fromkeys(key for key in of_both if key in keys["TokenModel"])
    provider = keys["ProviderModel"]

    def section(
        heading: str, model: str, intro: str, prefix: str = "", without: Mapping[str, Any] | None = None
    ) -> Section:
        properties = {key: value for key, value in models[model]["properties"].items() if key not in (without or {})}
        required = models[model].get("required", [])
        return Section(
            heading, intro, tuple(_entry(key, value, prefix, key in required) for key, value in properties.items())
        )

    return (
        section(
            "Keys of the top level",
            "ConfigFile",
            "The main config file may have all of these keys; an included file may have only `providers` and "
            "`clients`.",
            "",
            inherited,
        ),
        section(SECTIONS["OutputModel"], "OutputModel", "The keys of `output`.", "output."),
        section(
            SECTIONS["ProviderModel"],
            "ProviderModel",
            "The keys of an entry in `providers`. A client may have them too: instead of `provider`, if it has a "
            "token endpoint of its own, or next to `provider`, to replace single keys of that entry.",
        ),
        section(SECTIONS["ProxyModel"], "ProxyModel", "The keys of `proxy`, if it is a mapping.", "proxy."),
        section(
            SECTIONS["ClientModel"],
            "ClientModel",
            "The keys of an entry in `clients`. It may also have keys of a provider, keys of the top level, a client "
            "or a token, and a `share` as the top level has it.",
            "",
            of_both | provider,
        ),
        section(
            SECTIONS["TokenModel"],
            "TokenModel",
            "The keys of an entry in `tokens`. It may also have keys of the top level, a client or a token. None is "
            "required: `api: {}` is a token with the provider's default scope.",
            "token.",
            inherited,
        ),
        section(
            INHERITED,
            "TokenModel",
            "These keys may be at the top level, on a client, or on a token. The nearest one wins: that of the token, "
            "else that of the client, else that of the top level.",
            "",
            {key: None for key in keys["TokenModel"] if key not in inherited},
        ),
        section(SECTIONS["FileModel"], "FileModel", "The keys of an item in `files`.", "file."),
        section(
            SECTIONS["ChangeHookModel"],
            "ChangeHookModel",
            "The keys of an item in `on_change` or `on_failure`. Each hook has either `run` or `signal`. `skip_first` "
            "is only for `on_change`.",
            "hook.",
        ),
        section(
            SECTIONS["ShareModel"], "ShareModel", "The keys of `share`, at the top level or on a client.", "share."
        ),
        section(SECTIONS["RedisModel"], "RedisModel", "The keys of `redis` in `share`.", "redis."),
        section(SECTIONS["ControlModel"], "ControlModel", "The keys of `control`.", "control."),
        section(SECTIONS["ListenModel"], "ListenModel", "The keys of `listen`.", "listen."),
        section(SECTIONS["LogModel"], "LogModel", "The keys of `log`.", "log."),
        section(
            SECTIONS["ReferenceModel"],
            "ReferenceModel",
            "The config never contains a secret, only a reference to it, with exactly one of `file`, `env`, "
            "`credential` and `command`. docs/secrets.md has an example for each place where people keep secrets.",
            "reference.",
        ),
    )


def _entry(name: str, value: Mapping[str, Any], prefix: str, required: bool) -> Entry:
    return Entry(
        name, f"{prefix}{name}", value["description"], kind_of(value), required, tuple(value.get("examples", ()))
    )


def kind_of(value: Mapping[str, Any]) -> Kind:
    """What a value may be, by its schema."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        words = "secret reference" if name == "ReferenceModel" else "mapping"
        return Kind(words, (SECTIONS[name],))
    if "title" in value:
        return Kind(value["title"])
    if "enum" in value:
        choices = [f"`{choice}`" for choice in value["enum"]]
        return Kind(f"{', '.join(choices[:-1])} or {choices[-1]}")
    if alternatives := value.get("anyOf") or value.get("oneOf"):
        kinds = [kind_of(inner) for inner in alternatives]
        each = [kind.words for kind in kinds]
        if each[1] == f"list of {_several(each[0])}":
            each = [f"{each[0]}, or a list of these"]
        return Kind(" or ".join(each), tuple(dict.fromkeys(name for kind in kinds for name in kind.sections)))
    if value.get("type") in {"array", "object"}:
        of_each = [value.get("items"), *value.get("patternProperties", {}).values(), value.get("additionalProperties")]
        items = kind_of(next((inner for inner in of_each if isinstance(inner, dict)), {}))
        what = "list of" if value["type"] == "array" else "mapping of names to"
        return Kind(f"{what} {_several(items.words)}", items.sections)
    plain = {"boolean": "`true` or `false`", "string": "text", None: "any value"}
    if value.get("type") == "integer":
        return Kind(f"number from {value['minimum']} to {value['maximum']}")
    return Kind(plain[value.get("type")])


def _several(words: str) -> str:
    """The plural of simple words."""
    return f"{words}s" if words in {"mapping", "secret reference", "host name", "URL"} else words
