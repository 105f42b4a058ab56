"""A config file and the files that it includes -> Config, or a ConfigError with every problem and its place.

Each provider and each client is checked by itself, so that a mistake in one hides none in another. Then comes what
concerns several of them: names that are defined twice, providers that do not exist, paths.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bearerd.config import models, rules, types
from bearerd.config.document import Document, Node
from bearerd.config.files import MOST_FILES, Budget, absolute, directories, is_pattern, matches
from bearerd.config.here import defaults
from bearerd.config.messages import (
    bad_name,
    keys_at,
    kind_of_problem,
    listed,
    may_show,
    message_of,
    unknown_key,
    vocabulary,
)
from bearerd.config.redaction import Path, is_plain_key
from bearerd.config.resolve import Resolver, check_http
from bearerd.config.scalar import kind_of
from bearerd.config.schema import schema_of
from bearerd.config.source import BROKEN
from bearerd.config.suggest import near, nearest
from bearerd.errors import ConfigError
from bearerd.model import Config, Target

_Model = TypeVar("_Model", bound=BaseModel)


def load(path: str, environ: Mapping[str, str]) -> Config:
    """Read and check a config; raises ConfigError with everything that is wrong in it."""
    budget = Budget()
    documents = [_read(budget, path)]
    # In a file of conf.d every line may be commented out.
    documents += [_read(budget, included, may_be_empty=True) for included in _included(documents[0])]
    config = _config(documents, environ)
    problems = [problem for document in documents if document.broken for problem in document.problems]
    if problems:
        raise ConfigError(problems)
    return config


def schema() -> dict[str, Any]:
    """The JSON Schema of the config file, for editors."""
    return schema_of(models.ConfigFile)


# -- files -----------------------------------------------------------------------------------------


def _read(budget: Budget, path: str, *, may_be_empty: bool = False) -> Document:
    text = budget.read(path)
    if isinstance(text, str):
        return Document(text, path, may_be_empty=may_be_empty, shows=may_show, vocabulary=vocabulary())
    # A document with nothing but a problem, so that the other files are checked too.
    document = Document("{}", path)
    document.fail(text.line, 1, text.why)
    return document


def _included(main: Document) -> list[str]:
    patterns = main.value.get("include") if isinstance(main.value, dict) else None
    if not isinstance(patterns, list):
        return []
    found: dict[str, None] = {}
    for index, pattern in enumerate(patterns):
        if not isinstance(pattern, str) or not pattern:
            continue  # _check reports it
        named = matches(main.file, pattern)
        if not named and not is_pattern(pattern):
            main.add(
                ("include", index), f"file {absolute(main.file, pattern)} does not exist", "the file cannot be read"
            )
        found |= dict.fromkeys(named)
    if os.path.abspath(main.file) in found:
        main.add(("include",), "the file includes itself", "defined twice")
        del found[os.path.abspath(main.file)]
    if len(found) > MOST_FILES:
        main.add(("include",), f"more than {MOST_FILES:,} files", "the file is too large")
    return list(found)[:MOST_FILES]


# -- the documents together ------------------------------------------------------------------------


def _config(documents: list[Document], environ: Mapping[str, str]) -> Config:
    """The config in these documents. It is of use only if none of them has a problem."""
    main = documents[0]
    for document in documents:
        _check_top_level(document, models.ConfigFile if document is main else models.IncludedFile)
    settings = _settings(main)
    providers = _named(documents, "providers")
    clients = _named(documents, "clients")
    shared = {name: _check(node, models.ProviderModel) for name, node in providers.items()}
    for name, node in providers.items():
        _check_keys(node, models.ProviderModel, rules.provider_misfits)
        if (provider := shared[name]) is not None:
            check_http(node, provider, allowed=bool(provider.allow_http))
    if not clients and not any(document.broken for document in documents):
        main.add((), "no clients are configured; config.example.yaml shows the smallest useful config", "no clients")
    resolver = Resolver(main, settings, defaults(environ))
    targets: list[Target] = []
    for name, node in clients.items():
        if node.document.full:
            continue
        exists = _check_provider_name(node, providers)
        client = _check(node, models.ClientModel)
        _check_keys(node, models.ClientModel, partial(rules.misfits, provider=_provider_of(node, providers)))
        _check_parameters(node)
        _check_token_claims(node)
        if exists and client is not None:
            provider = shared[client.provider] if client.provider is not None else None
            # Otherwise the provider is faulty or missing, which was reported above.
            if provider or (client.provider is None and (client.token_url or client.issuer)):
                targets += resolver.targets(name, node, client, provider)
    files = tuple(document.file for document in documents)
    return resolver.config(targets, files, directories(main.file, settings.include))


def _check_top_level(document: Document, model: type[BaseModel]) -> None:
    """Check the keys at the top level, and that `providers` and `clients` are mappings with well-formed names."""
    if document.value is BROKEN:
        return
    if not isinstance(document.value, dict):
        document.add((), f"expected a mapping, found {kind_of(document.value)}", "expected a mapping")
        return
    for key in document.value:
        if key not in model.model_fields:
            misplaced = key in models.ConfigFile.model_fields
            hint = ": an included file may only have providers and clients" if misplaced else ""
            document.add((key,), unknown_key(key, model.model_fields, hint), "unknown key", at_key=True)
    for group in ("providers", "clients"):
        entries = document.value.get(group, {})
        if entries is BROKEN:
            continue
        if not isinstance(entries, dict):
            document.add((group,), f"expected a mapping of names, found {kind_of(entries)}", "expected a mapping")
            continue
        for name in entries:
            if re.fullmatch(types.NAME, name) is None:
                document.add((group, name), bad_name(name), "malformed name", at_key=True)


def _settings(main: Document) -> models.ConfigFile:
    """The main file without `providers` and `clients`; the defaults if it is wrong, so that the rest is checked."""
    given = main.value if isinstance(main.value, dict) else {}
    known = {
        key: value
        for key, value in given.items()
        if key in models.ConfigFile.model_fields and key not in {"providers", "clients"}
    }
    return _check(Node(main, (), known), models.ConfigFile) or models.ConfigFile()


def _named(documents: list[Document], group: str) -> dict[str, Node]:
    """All providers or clients by name; reports names that two files define."""
    result: dict[str, Node] = {}
    for document in documents:
        entries = document.value.get(group) if isinstance(document.value, dict) else None
        entries = entries if isinstance(entries, dict) else {}
        if group == "clients":
            entries = _with_shallow_tokens(document, entries)
        for name, raw in entries.items():
            node = Node(document, (group, name), raw)
            first = result.setdefault(name, node)
            if first is not node:
                shown = f"'{name}'" if is_plain_key(name) else "a name"
                position = first.document.position(first.path)
                message = f"{shown} is defined twice in {group}; first at {position}"
                node.add((), message, "defined twice", at_key=True)
    return result


def _with_shallow_tokens(document: Document, clients: dict[str, Any]) -> dict[str, Any]:
    """The clients, with a key `tokens` that is indented like a client moved into the one above it, and reported."""
    names = list(clients)
    tokens = clients.get("tokens")
    above = names[names.index("tokens") - 1] if "tokens" in names[1:] else None
    client = clients[above] if above is not None else None
    if (
        above is None
        or not isinstance(client, dict)
        or "tokens" in client
        or not isinstance(tokens, dict)
        or tokens.keys() & {*models.ClientModel.model_fields}
    ):
        return clients
    shown = f"client '{above}'" if is_plain_key(above) else "the client above"
    message = f"'tokens' is indented like a client: indent it further, as a key of {shown}"
    document.add(("clients", "tokens"), message, "unknown key", at_key=True)
    moved = clients | {above: client | {"tokens": tokens}}
    del moved["tokens"]
    return moved


def _check(node: Node, model: type[_Model]) -> _Model | None:
    """The checked model of a node; reports what is wrong and returns None if anything is."""
    if node.value is BROKEN:
        return None
    try:
        return model.model_validate(node.value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        mistyped = {
            (*detail["loc"][:-1], meant)
            for detail in details
            if detail["type"] == "extra_forbidden"
            and (meant := nearest(str(detail["loc"][-1]), keys_at(model, detail["loc"][:-1])))
        }
        for detail in details:
            # A key that is there under a mistyped name is not reported as missing too.
            if detail["type"] != "missing" or detail["loc"] not in mistyped:
                _report(node, model, detail)
        return None


def _check_keys(
    node: Node,
    model: type[BaseModel],
    misfits: Callable[[Mapping[str, Any]], Iterable[rules.Misfit]],
) -> None:
    """Check the keys of a provider or client against each other."""
    if not isinstance(node.value, dict):
        return
    known = model.model_fields
    # A mistyped key is reported as such elsewhere; here it counts as the key that was meant.
    meant = {nearest(key, known) or key: value for key, value in node.value.items() if key not in known}
    for key, message in misfits(meant | node.value):
        if key is None:
            node.add((), message, "missing key", at_key=True)
        elif key in node.value:
            node.add((key,), message, "conflicting keys", at_key=True)


def _check_parameters(node: Node) -> None:
    """Report parameters that hold a secret as text, and those that are sent already."""
    for path in rules.repeated_client_ids(node.value) if isinstance(node.value, dict) else ():
        message = "parameter 'client_id' only applies to auth client_secret_basic: others send the key client_id there"
        node.add(path, message, "conflicting keys", at_key=True)
    for path in rules.exposed_secrets(node.value) if isinstance(node.value, dict) else ():
        node.add(
            path,
            f"'{path[-1]}' is a secret: expected a reference such as {{file: …}}, never the secret itself",
            "secret in the config",
        )


def _check_token_claims(node: Node) -> None:
    """Report claims of tokens that have no assertion."""
    for path in rules.unsigned_claims(node.value) if isinstance(node.value, dict) else ():
        message = (
            "assertion_claims needs an assertion: auth private_key_jwt or client_secret_jwt, or the jwt-bearer grant"
        )
        node.add(path, message, "conflicting keys", at_key=True)


def _report(node: Node, model: type[BaseModel], detail: Any) -> None:
    """Report one of pydantic's errors."""
    if detail["type"] == "fault" and _holds_broken(detail["input"]):
        return  # an item in it was reported already
    loc: Path = detail["loc"]
    at_key = bool(loc) and loc[-1] == "[key]"
    if at_key:
        loc = loc[:-1]
    path = (*node.path, *loc)
    message = message_of(detail, model, loc, at_key=at_key)
    kind = kind_of_problem(detail, at_key=at_key)
    if detail["type"] == "extra_forbidden":
        at_key = True
    elif detail["type"] == "missing":
        path, at_key = path[:-1], bool(path[:-1])
    node.document.add(path, message, kind, at_key=at_key)


def _check_provider_name(node: Node, providers: Mapping[str, Node]) -> bool:
    """Whether the provider that a client names exists; reports it if not."""
    name = node.value.get("provider") if isinstance(node.value, dict) else None
    if not isinstance(name, str) or not name or name in providers:
        return True
    known = f"; expected one of {listed(providers)}" if providers else "; no providers are configured"
    message = f"unknown provider '{name}'{near(name, providers) or known}"
    node.add(("provider",), message, "unknown provider")
    return False


def _provider_of(node: Node, providers: Mapping[str, Node]) -> Mapping[str, Any]:
    """The keys of the provider that a client names, as its file has them."""
    name = node.value.get("provider") if isinstance(node.value, dict) else None
    value = providers[name].value if isinstance(name, str) and name in providers else None
    return value if isinstance(value, dict) else {}


def _holds_broken(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_broken, value.values() if isinstance(value, dict) else value))
    return value is BROKEN
