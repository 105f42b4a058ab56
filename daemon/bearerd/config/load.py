"""A config file and the files that it includes -> Config, or a ConfigError with every problem and its place.

Each provider and each client is checked separately, so that a mistake in one hides none in another. Then comes what
concerns several of them: names that are defined twice, providers that do not exist, paths.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any, Final

from pydantic import BaseModel

from bearerd.config import models, rules, types
from bearerd.config.checked import Checked, check, check_strangers
from bearerd.config.document import Document, Node
from bearerd.config.files import MOST_BYTES, MOST_FILES, Budget, Unreadable, absolute, directories, is_pattern, matches
from bearerd.config.here import defaults
from bearerd.config.messages import bad_name, listed, meant
from bearerd.config.missing import add_missing_lines
from bearerd.config.places import may_show, place_of, vocabulary
from bearerd.config.realign import realign
from bearerd.config.redaction import is_plain_key
from bearerd.config.resolve import Resolver, check_endpoint
from bearerd.config.scalar import kind_of
from bearerd.config.schema import schema_of
from bearerd.config.source import BROKEN
from bearerd.config.suggest import near
from bearerd.errors import ConfigError, ConfigUnavailable, Problem
from bearerd.model import Config, Target
from bearerd.reason import reason_of

_Read = Callable[[str], str | Unreadable]

# Providers. Comparing a name with ten thousand takes 50 ms, and a thousand clients can name one that does not exist.
_MOST_COMPARED: Final = 1000
# Bytes. A program writes a larger config, and indents it as meant; guessing would take its time and memory once more.
_LARGEST_REALIGNED: Final = 2**18
# Stands for tokens with an error when the other keys of their client are checked against each other.
_SOME_TOKENS: Final[Mapping[str, Any]] = {"tokens": {"token": {}}}


def load(path: str, environ: Mapping[str, str]) -> Config:
    """Read and check a config. Raises ConfigError with everything that is wrong in it, or ConfigUnavailable."""
    try:
        os.path.abspath(path)
    except FileNotFoundError:
        raise ConfigUnavailable("the current directory no longer exists; use an absolute path for the config") from None
    budget = Budget()
    read = cache(budget.read)
    config, problems = _attempt(path, environ, read)
    files = (*config.sources, *config.source_directories)
    if problems and MOST_BYTES - budget.left > _LARGEST_REALIGNED:
        raise ConfigError(problems, files)
    if problems:
        _, realigned = _attempt(path, environ, read, realigned=True)
        # None are left if a missing file was written between the two attempts.
        raise ConfigError(min(realigned or problems, problems, key=len), files)
    return config


def schema() -> dict[str, Any]:
    """The JSON Schema of the config file, for editors."""
    return schema_of(models.ConfigFile)


def _attempt(
    path: str, environ: Mapping[str, str], read: _Read, *, realigned: bool = False
) -> tuple[Config, list[Problem]]:
    """The config and its problems; with `realigned`, of the texts as their lines were probably meant."""
    documents = [_read(read, path, realigned=realigned)]
    # In a file of conf.d every line may be commented out.
    documents += [_read(read, included, may_be_empty=True, realigned=realigned) for included in _included(documents[0])]
    config = _config(documents, environ)
    return config, [problem for document in documents if document.broken for problem in document.problems]


# -- files -----------------------------------------------------------------------------------------


def _read(read: _Read, path: str, *, may_be_empty: bool = False, realigned: bool = False) -> Document:
    text = read(path)
    if isinstance(text, str):
        return Document(
            text,
            path,
            may_be_empty=may_be_empty,
            shows=may_show,
            vocabulary=vocabulary(),
            realigned=realign(text) if realigned else None,
        )
    # A document with nothing but a problem, so that the other files are checked too.
    document = Document("{}", path)
    document.fail(text.line, 1, text.why)
    document.value, document.complete = BROKEN, False
    return document


def _included(main: Document) -> list[str]:
    patterns = main.value.get("include") if isinstance(main.value, dict) else None
    if not isinstance(patterns, list):
        return []
    found: dict[str, None] = {}
    for index, pattern in enumerate(patterns):
        if not isinstance(pattern, str) or not pattern or "\0" in pattern:
            continue  # _check reports it
        try:
            named = matches(main.file, pattern)
        except OSError as error:
            message = f"directory {error.filename} cannot be read: {reason_of(error)}"
            main.add(("include", index), message, "an included directory cannot be read")
            continue
        if not named and not is_pattern(pattern):
            main.add(
                ("include", index), f"file {absolute(main.file, pattern)} does not exist", "the file cannot be read"
            )
        found |= dict.fromkeys(named)
    own = absolute(main.file, os.path.basename(main.file))
    if own in found:
        main.add(("include",), "the file includes itself", "defined twice")
        del found[own]
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
    providers = _named(documents, "providers", models.ProviderModel)
    clients = _named(documents, "clients", models.ClientModel)
    shared = {name: check(node, models.ProviderModel) for name, node in providers.items()}
    for name, node in providers.items():
        _check_keys(node, models.ProviderModel, rules.provider_misfits)
        check_endpoint(node, shared[name])
    if not clients and not main.failed and all(map(_has_no_clients, documents)):
        main.add((), "no clients are configured; bearerd init writes a first config", "no clients")
    all_known = all(map(_has_all_providers, documents))
    resolver = Resolver(main, settings, defaults(environ))
    targets: list[Target] = []
    for name, node in clients.items():
        if node.document.full:
            continue
        exists = _check_provider_name(node, providers, all_known=all_known)
        client = check(node, models.ClientModel, _SOME_TOKENS)
        _check_keys(node, models.ClientModel, partial(rules.misfits, provider=_provider_of(node, providers)))
        _check_share(node, main)
        _check_parameters(node)
        _check_token_claims(node)
        model = client.model
        provider = shared.get(model.provider) if model is not None and model.provider is not None else None
        reachable = model is not None and (model.provider is not None or model.token_url or model.issuer)
        if model and reachable and exists and client.complete and (provider is None or provider.complete):
            targets += resolver.targets(name, node, model, provider.model if provider else None)
        else:
            resolver.examine(name, node, client, provider if exists else None)
    files = tuple(document.file for document in documents)
    resolver.keep(map(os.path.abspath, files), targets)
    return resolver.config(targets, files, directories(main.file, settings.model.include if settings.model else []))


def _has_no_clients(document: Document) -> bool:
    """Whether a document has no clients, also not under another key or in a part that could not be read."""
    known = document.complete and isinstance(document.value, dict) and not document.has("unknown key")
    return known and document.value.get("clients", {}) == {}


def _has_all_providers(document: Document) -> bool:
    """Whether no provider can be under another key, or in a part that could not be read."""
    if not document.complete or not isinstance(document.value, dict):
        return False
    known = models.ConfigFile.model_fields
    for key, value in document.value.items():
        if key in known:
            continue
        intended = meant(key, known, ())
        # A mapping under a key that resembles none may be the providers.
        if intended in {"providers", "include"} or (intended is None and isinstance(value, dict)):
            return False
    return isinstance(document.value.get("providers", {}), dict)


def _check_top_level(document: Document, model: type[BaseModel]) -> None:
    """Check the keys at the top level, and that `providers` and `clients` are mappings with well-formed names."""
    if document.value is BROKEN:
        return
    if not isinstance(document.value, dict):
        message = f"expected a mapping with the key clients, found {kind_of(document.value)}"
        document.add((), message, "expected a mapping")
        return
    add_missing_lines(document, model)
    strangers = [key for key in document.value if key not in model.model_fields]
    for key in [key for key in strangers if key in models.ConfigFile.model_fields]:
        message = f"'{key}' is a key of the main file: an included file may only have providers and clients"
        document.add((key,), message, "unknown key", at_key=True)
    unknown = [key for key in strangers if key not in models.ConfigFile.model_fields]
    check_strangers(Node(document, ()), (), unknown, model.model_fields)
    for group in ("providers", "clients"):
        entries = document.value.get(group, {})
        if entries is BROKEN:
            continue
        if not isinstance(entries, dict):
            message = f"expected the names of {group} with their keys, found {kind_of(entries)}"
            document.add((group,), message, "expected a mapping")
            continue
        for name in entries:
            if re.fullmatch(types.NAME, name) is None:
                document.add((group, name), bad_name(name), "malformed name", at_key=True)


def _settings(main: Document) -> Checked[models.ConfigFile]:
    """The main file without `providers` and `clients`, and without the keys that are wrong."""
    given = main.value if isinstance(main.value, dict) else {}
    known = {
        key: value
        for key, value in given.items()
        if key in models.ConfigFile.model_fields and key not in {"providers", "clients"}
    }
    return check(Node(main, (), known), models.ConfigFile)


def _named(documents: list[Document], group: str, model: type[BaseModel]) -> dict[str, Node]:
    """All providers or clients by name; reports names that two files define."""
    result: dict[str, Node] = {}
    for document in documents:
        entries = document.value.get(group) if isinstance(document.value, dict) else None
        for name, raw in entries.items() if isinstance(entries, dict) else ():
            node = Node(document, (group, name), raw)
            first = result.setdefault(name, node)
            if first is not node:
                shown = f"'{name}'" if is_plain_key(name) else "a name"
                position = first.document.position(first.path)
                message = f"{shown} is defined twice in {group}; first at {position}"
                node.add((), message, "defined twice", at_key=True)
                check(node, model)
    return result


def _check_keys(
    node: Node,
    model: type[BaseModel],
    misfits: Callable[[Mapping[str, Any]], Iterable[rules.Misfit]],
) -> None:
    """Check the keys of a provider or client against each other."""
    if not isinstance(node.value, dict) or node.document.full:
        return
    known, here = model.model_fields, place_of(node.path)
    # A mistyped key is reported as such elsewhere; here it counts as the key that was meant.
    mistyped = {meant(key, known, here) or key: value for key, value in node.value.items() if key not in known}
    for key, message in misfits(mistyped | node.value):
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


def _check_share(node: Node, main: Document) -> None:
    """Report a share without a key, at the client or at the share of the client."""
    own = isinstance(node.value, dict) and "share" in node.value
    holder = node.value if own else main.value
    share = holder.get("share") if isinstance(holder, dict) else None
    if not isinstance(node.value, dict) or not isinstance(share, dict):
        return
    known, here = models.ShareModel.model_fields, place_of(("share",))
    mistyped = {meant(key, known, here) or key: None for key in share if key not in known}
    if message := rules.unsealed(node.value, mistyped | share):
        node.add(("share",) if own else (), message, "missing key", at_key=True)


def _check_provider_name(node: Node, providers: Mapping[str, Node], *, all_known: bool) -> bool:
    """Whether the provider that a client names exists; reports it if not and if all providers are known."""
    name = node.value.get("provider") if isinstance(node.value, dict) else None
    if not isinstance(name, str) or not name or name in providers:
        return True
    if not all_known:
        return False
    known = f"; expected one of {listed(providers)}" if providers else "; no providers are configured"
    hint = near(name, providers) if len(providers) <= _MOST_COMPARED else ""
    shown = f" '{name}'" if is_plain_key(name) else ""  # it may be a URL with a password
    message = f"unknown provider{shown}{hint or known}"
    node.add(("provider",), message, "unknown provider")
    return False


def _provider_of(node: Node, providers: Mapping[str, Node]) -> Mapping[str, Any]:
    """The keys of the provider that a client names, as its file has them."""
    name = node.value.get("provider") if isinstance(node.value, dict) else None
    value = providers[name].value if isinstance(name, str) and name in providers else None
    return value if isinstance(value, dict) else {}
