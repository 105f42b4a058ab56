"""A config file and what it includes -> Config, or a ConfigError with every problem and its place.

Each provider and each client is checked by itself, so that a mistake in one hides none in another; then
what spans several: names, providers that are referred to, paths.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from bearerd.config import types
from bearerd.config.files import MOST_FILES, Budget, absolute, directories, is_pattern, matches
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
from bearerd.config.scalar import kind_of
from bearerd.config.source import BROKEN, Document, Place
from bearerd.config.suggest import near, nearest
from bearerd.errors import ConfigError
from bearerd.model import (
    CLIENT_ASSERTION,
    OWN_DIRECTORY,
    TLS_AUTHS,
    Client,
    Config,
    Control,
    Hook,
    Jwt,
    JwtBearer,
    Listen,
    Logging,
    Output,
    Provider,
    Reference,
    RefreshBefore,
    Target,
)

DEFAULT_DIRECTORY: Final = "/run/bearerd"

_LONGEST_SOCKET: Final = 107  # sun_path of unix(7), and its NUL
_LONGEST_NAME: Final = 255  # NAME_MAX of every file system that people write tokens to

_SUFFIX: Final[Mapping[str, str]] = {"raw": "", "json": ".json", "header": ".header", "env": ".env"}
_Model = TypeVar("_Model", bound=BaseModel)
_T = TypeVar("_T")


def load(path: str, environ: Mapping[str, str]) -> Config:
    """Read and check a config; raises ConfigError with all that is wrong in it."""
    budget = Budget()
    documents = [_read(budget, path)]
    # A file of conf.d in which every line is commented out is not a mistake.
    documents += [_read(budget, included, may_be_empty=True) for included in _included(documents[0])]
    config = _Loader(documents, environ).config()
    problems = [problem for document in documents if document.broken for problem in document.problems]
    if problems:
        raise ConfigError(problems)
    return config


def schema() -> dict[str, Any]:
    """The JSON Schema of the config file, for editors."""
    shape = types.ConfigFile.model_json_schema(schema_generator=types.Schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | shape


# -- files -----------------------------------------------------------------------------------------


def _read(budget: Budget, path: str, *, may_be_empty: bool = False) -> Document:
    text = budget.read(path)
    if isinstance(text, str):
        return Document(text, path, may_be_empty=may_be_empty, shows=may_show, vocabulary=vocabulary())
    # A document with nothing in it but a problem, so that the other files are checked all the same.
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
            continue  # the types report it
        named = matches(main.file, pattern)
        if not named and not is_pattern(pattern):
            main.add(("include", index), f"there is no file {absolute(main.file, pattern)}", "the file cannot be read")
        found |= dict.fromkeys(named)
    if os.path.abspath(main.file) in found:
        main.add(("include",), "the file includes itself", "defined twice")
        del found[os.path.abspath(main.file)]
    if len(found) > MOST_FILES:
        main.add(("include",), f"more than {MOST_FILES:,} files", "the file is too large")
    return list(found)[:MOST_FILES]


# -- from documents to a Config --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """A provider or client as it stands in a file."""

    document: Document
    path: Path
    raw: Any


class _Loader:
    """Checks the parts, then puts them together; complaints go to the documents."""

    def __init__(self, documents: list[Document], environ: Mapping[str, str]) -> None:
        self._documents = documents
        self._environ = environ
        self._taken: dict[str, tuple[Place, str]] = {}
        self._directories: dict[str, str] = {}

    def config(self) -> Config:
        """What the documents say; only worth anything when none of them has a problem."""
        main = self._documents[0]
        for document in self._documents:
            self._check_shape(document, types.ConfigFile if document is main else types.IncludedFile)
        settings = self._settings(main)
        providers = self._entries("providers")
        clients = self._entries("clients")
        shared = {name: self._check(entry, types.ProviderModel) for name, entry in providers.items()}
        for name, entry in providers.items():
            self._check_fit(entry, types.ProviderModel, types.provider_misfits)
            if (model := shared[name]) is not None:
                self._check_http(entry, model, allowed=bool(model.allow_http))
        if not clients and not any(document.broken for document in self._documents):
            main.add((), "there are no clients: see config.example.yaml for the smallest useful config", "no clients")
        targets: list[Target] = []
        for name, entry in clients.items():
            if entry.document.full:
                continue  # nobody reads more errors than that
            known = self._check_provider_name(entry, providers)
            client = self._check(entry, types.ClientModel)
            self._check_fit(entry, types.ClientModel, types.misfits)
            self._check_parameters(entry)
            if known and client is not None:
                targets += self._client(name, entry, client, settings, shared)
        return Config(
            directory=self._directory(settings),
            state_directory=self._state_directory(settings),
            directory_mode=settings.output.directory_mode,
            group=settings.output.group,
            control=self._control(main, settings),
            listen=_listen(settings.listen) if settings.listen else None,
            targets=tuple(targets),
            log=Logging(level=settings.log.level, format=settings.log.format),
            reload=settings.reload,
            startup_timeout=settings.startup_timeout,
            sources=tuple(document.file for document in self._documents),
            source_directories=directories(self._documents[0].file, settings.include),
        )

    def _check_shape(self, document: Document, model: type[BaseModel]) -> None:
        """The outermost keys, and that the collections are mappings of well-formed names."""
        if document.value is BROKEN:
            return
        if not isinstance(document.value, dict):
            document.add((), f"expected a mapping, found {kind_of(document.value)}", "expected a mapping")
            return
        for key in document.value:
            if key not in model.model_fields:
                there = ": an included file holds providers and clients only"
                hint = there if key in types.ConfigFile.model_fields else ""
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

    def _settings(self, main: Document) -> types.ConfigFile:
        """The main file without its collections; the defaults where it is wrong, so that the rest is checked."""
        given = main.value if isinstance(main.value, dict) else {}
        known = {
            key: value
            for key, value in given.items()
            if key in types.ConfigFile.model_fields and key not in {"providers", "clients"}
        }
        return self._check(_Entry(main, (), known), types.ConfigFile) or types.ConfigFile()

    def _entries(self, group: str) -> dict[str, _Entry]:
        """All providers or clients by name; a name that stands in two files is complained of."""
        result: dict[str, _Entry] = {}
        for document in self._documents:
            entries = document.value.get(group) if isinstance(document.value, dict) else None
            for name, raw in (entries if isinstance(entries, dict) else {}).items():
                path = (group, name)
                if name in result:
                    first = result[name].document.place(result[name].path)
                    shown = f"'{name}'" if is_plain_key(name) else "a name"
                    message = (f"{shown} is there twice in {group}; first at ", first)
                    document.add(path, message, "defined twice", at_key=True)
                else:
                    result[name] = _Entry(document, path, raw)
        return result

    def _check(self, entry: _Entry, model: type[_Model]) -> _Model | None:
        if entry.raw is BROKEN:
            return None
        try:
            return model.model_validate(entry.raw)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=True)
            mistyped = {
                (*detail["loc"][:-1], meant)
                for detail in details
                if detail["type"] == "extra_forbidden"
                and (meant := nearest(str(detail["loc"][-1]), keys_at(model, detail["loc"][:-1])))
            }
            for detail in details:
                # What is there under a mistyped name is not missing too.
                if detail["type"] != "missing" or detail["loc"] not in mistyped:
                    self._complain(entry, model, detail)
            return None

    def _check_fit(
        self,
        entry: _Entry,
        model: type[BaseModel],
        misfits: Callable[[Mapping[str, Any]], Iterable[types.Misfit]],
    ) -> None:
        """An entry's keys against each other."""
        if not isinstance(entry.raw, dict):
            return
        known = model.model_fields
        # A mistyped key is complained of as that, and is there all the same.
        meant = {nearest(key, known) or key: value for key, value in entry.raw.items() if key not in known}
        for key, message in misfits(meant | entry.raw):
            if key is None:
                entry.document.add(entry.path, message, "missing key", at_key=True)
            elif key in entry.raw:
                entry.document.add((*entry.path, key), message, "conflicting keys", at_key=True)

    def _check_parameters(self, entry: _Entry) -> None:
        """That no parameter is a secret itself."""
        for path in types.exposed(entry.raw) if isinstance(entry.raw, dict) else ():
            entry.document.add(
                (*entry.path, *path),
                f"expected for '{path[-1]}' a reference such as {{file: …}}: the secret itself never stands in the "
                "config",
                "secret in the config",
            )

    def _complain(self, entry: _Entry, model: type[BaseModel], detail: Any) -> None:
        if detail["type"] == "expected" and _holds_broken(detail["input"]):
            return  # the item was complained of, the list is no worse
        loc: Path = detail["loc"]
        at_key = bool(loc) and loc[-1] == "[key]"
        if at_key:
            loc = loc[:-1]
        path = (*entry.path, *loc)
        message = message_of(detail, model, loc, at_key=at_key)
        kind = kind_of_problem(detail, at_key=at_key)
        if detail["type"] == "extra_forbidden":
            at_key = True
        elif detail["type"] == "missing":
            path, at_key = path[:-1], bool(path[:-1])
        entry.document.add(path, message, kind, at_key=at_key)

    # -- what spans several ----------------------------------------------------------------------

    def _check_provider_name(self, entry: _Entry, providers: Mapping[str, _Entry]) -> bool:
        name = entry.raw.get("provider") if isinstance(entry.raw, dict) else None
        if not isinstance(name, str) or not name or name in providers:
            return True
        hint = near(name, providers) or (
            f": there are {listed(providers)}" if providers else ": there are no providers"
        )
        entry.document.add((*entry.path, "provider"), f"there is no provider '{name}'{hint}", "unknown provider")
        return False

    def _check_http(self, entry: _Entry, model: types.ProviderKeys, *, allowed: bool) -> None:
        url = model.token_url or model.issuer
        if url is None or urlsplit(url).scheme == "https":
            return
        path = (*entry.path, "token_url" if model.token_url else "issuer")
        if not is_loopback(url):
            entry.document.add(path, "expected https://…: over plain http the secret could be read on the way")
        elif not allowed:
            entry.document.add(path, "plain http to loopback needs allow_http: true beside it")

    def _client(
        self,
        name: str,
        entry: _Entry,
        model: types.ClientModel,
        settings: types.ConfigFile,
        shared: Mapping[str, types.ProviderModel | None],
    ) -> list[Target]:
        base: types.ProviderModel | None = None
        if model.provider is not None:
            base = shared[model.provider]
            if base is None:
                return []
        elif model.token_url is None and model.issuer is None:
            return []
        provider = _merge_provider(model, base)
        if model.token_url or model.issuer:
            self._check_http(entry, model, allowed=provider.allow_http)
        elif base is not None and model.allow_http is False:
            self._check_http(entry, base, allowed=False)
        if model.auth in TLS_AUTHS and urlsplit(provider.url).scheme == "http":
            entry.document.add(
                (*entry.path, "auth"), "expected https for this auth: a certificate is shown in TLS only"
            )
        budgets = []
        if base is not None and base.rate_limit is not None:
            budgets.append((f"provider-{model.provider}", base.rate_limit))
        if model.rate_limit is not None:
            budgets.append((f"client-{name}", model.rate_limit))
        jwt_bearer = JwtBearer(
            issuer=model.assertion_issuer,
            subject=model.assertion_subject,
            claims=json.dumps(model.assertion_claims or {}),
            scope_in_form=model.scope_in == "form",
        )
        client = Client(
            name=name,
            provider=provider,
            client_id=_text_or_reference(model.client_id) if model.client_id is not None else "",
            client_secret=tuple(map(_reference, model.client_secret or ())),
            auth=model.auth,
            basic_encoding=model.basic_encoding or "compatible",
            private_key=_reference(model.private_key) if model.private_key else None,
            # Public: whoever can read it may.
            certificate=replace(_reference(model.certificate), permissions="any") if model.certificate else None,
            assertion=_reference(model.assertion) if model.assertion else None,
            assertion_type=model.assertion_type or CLIENT_ASSERTION,
            jwt=Jwt(model.key_id, model.algorithm, model.assertion_audience),
            grant_type=model.grant_type,
            jwt_bearer=jwt_bearer if model.signs_the_grant else None,
            scope_separator=model.scope_separator,
            budgets=tuple(budgets),
        )
        return [self._target(entry, client, model, token, settings) for token in model.tokens]

    def _target(
        self, entry: _Entry, client: Client, model: types.ClientModel, name: str, settings: types.ConfigFile
    ) -> Target:
        token = model.tokens[name]
        levels: list[types.Inherited] = [token, model, settings]
        token_path = (*entry.path, "tokens", name)
        files = next((level.files for level in levels if level.files is not None), None)
        place, document = token_path, entry.document
        if token.files is not None:
            place = (*token_path, "files")
        elif model.files is not None:
            place = (*entry.path, "files")
        outputs = [
            self._output(document, (*place, index) if files is not None else place, client.name, name, file, settings)
            for index, file in enumerate(files if files is not None else [types.FileModel(format="raw")])
        ]
        if files is not None and not files:
            document.add(place, f"token '{client.name}/{name}' is written to no file: leave files out for one raw file")
        parameters = model.parameters | token.parameters
        if model.subject_token is not None:
            parameters = parameters | {"subject_token": [model.subject_token]}
        return Target(
            client=client,
            name=name,
            scope=" ".join(token.scope),
            parameters=tuple(
                (key, _text_or_reference(value)) for key, values in parameters.items() for value in values
            ),
            strict_scope=_first(*(level.strict_scope for level in levels), default=False),
            refresh_before=_first(*(level.refresh_before for level in levels), default=RefreshBefore(share=0.2)),
            default_lifetime=_first(*(level.default_lifetime for level in levels), default=3600.0),
            on_expiry=settings.output.on_expiry,
            outputs=tuple(outputs),
            required=_first(*(level.required for level in levels), default=True),
            on_change=tuple(map(_hook, _first(*(level.on_change for level in levels), default=[]))),
            on_failure=tuple(map(_hook, _first(*(level.on_failure for level in levels), default=[]))),
        )

    def _output(
        self,
        document: Document,
        place: Path,
        client: str,
        name: str,
        file: types.FileModel,
        settings: types.ConfigFile,
    ) -> Output:
        directory = self._directory(settings)
        relative = file.path if file.path is not None else f"{client}/{name}{_SUFFIX[file.format]}"
        at = (*place, "path") if file.path is not None else place
        path = _normal(posixpath.join(directory, relative))
        # Without a path of its own it is made of names, and those are looked at where they stand.
        fault = _path_fault(directory, relative, path) if file.path is not None else None
        if fault is not None:
            document.add(at, fault, "conflicting paths")
        elif path == file.template:
            document.add(at, f"'{client}/{name}' would be written over its own template", "conflicting paths")
        else:
            self._take(document, at, path, f"{client}/{name}")
        return Output(
            path=path,
            format=file.format,
            mode=_first(file.mode, default=settings.output.mode),
            owner=_first(file.owner, settings.output.owner, default=None),
            group=_first(file.group, settings.output.group, default=None),
            newline=bool(file.newline),
            variable=file.name or _variable(client, name),
            max_staleness=file.max_staleness or 0.0,
            template=file.template or "",
            vars=tuple((file.vars or {}).items()),
        )

    def _take(self, document: Document, at: Path, path: str, token: str) -> None:
        """One path, one output; and no output's path is another's directory."""
        if path in self._taken:
            place, other = self._taken[path]
            message = (f"'{token}' would be written to {path}, and so is '{other}' (", place, ")")
            document.add(at, message, "conflicting paths")
            return
        parents = [path[:index] for index, char in enumerate(path) if char == "/" and index]
        clash = next((parent for parent in parents if parent in self._taken), self._directories.get(path))
        if clash is not None:
            other = self._taken[clash][1]
            said = f"'{token}' would be written to {path}, but '{other}' to {clash}: one is a directory"
            document.add(at, said, "conflicting paths")
        self._taken[path] = (document.place(at), token)
        for parent in parents:
            self._directories.setdefault(parent, path)

    def _control(self, main: Document, settings: types.ConfigFile) -> Control:
        given = settings.control.socket
        socket = _normal(given or posixpath.join(self._directory(settings), OWN_DIRECTORY, "control.sock"))
        if len(os.fsencode(socket)) > _LONGEST_SOCKET:
            at: Path = ("control", "socket") if given else ("output", "directory") if settings.output.directory else ()
            message = f"the control socket's path is longer than 107 bytes, which no socket's may be: {socket}"
            main.add(at, message, "conflicting paths")
        elif given and socket in self._taken:
            message = f"'{self._taken[socket][1]}' would be written to {socket} too"
            main.add(("control", "socket"), message, "conflicting paths")
        return Control(socket, settings.control.mode)

    def _directory(self, settings: types.ConfigFile) -> str:
        # systemd names several directories with colons between them; the first is the service's own.
        given = self._environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
        return _normal(settings.output.directory or given or DEFAULT_DIRECTORY)

    def _state_directory(self, settings: types.ConfigFile) -> str:
        given = self._environ.get("STATE_DIRECTORY", "").split(":")[0]
        own = posixpath.join(self._directory(settings), OWN_DIRECTORY)
        return _normal(settings.state_directory or given or own)


def _normal(path: str) -> str:
    """One spelling for one path; POSIX lets normpath keep two slashes at the start."""
    return re.sub("^//", "/", posixpath.normpath(path))


def _variable(client: str, name: str) -> str:
    """What a token is called in `env` and by templates; no shell and no nginx takes a name that begins with a digit."""
    return re.sub(r"[^A-Z0-9]|^(?=[0-9])", "_", f"{client}_{name}_TOKEN".upper())


def _path_fault(directory: str, given: str, path: str) -> str | None:
    """What is wrong with an output's path, as it was given and in full."""
    words = given.split("/")
    if ".." in words:
        return "expected a path without .."
    if words[-1] in {"", "."} or f"{directory}/".startswith(f"{path}/"):
        return "expected a file's path, this is a directory's"
    if OWN_DIRECTORY in path.split("/"):
        return f"expected a path outside {OWN_DIRECTORY}, which bearerd keeps for itself"
    if any(len(os.fsencode(word)) > _LONGEST_NAME for word in words):
        return "a name in this path is longer than 255 bytes"
    return None


def _merge_provider(model: types.ClientModel, base: types.ProviderModel | None) -> Provider:
    """The client's own keys over its provider's.

    A provider is told from another by all that it holds: clients that name the same endpoint in the
    same way share its workers, whether they do so by a shared name or each for itself.
    """
    keys = ("token_url", "issuer", "ca_file", "proxy", "timeout", "max_concurrency", "allow_http")
    own = {key: value for key in keys if (value := getattr(model, key)) is not None}
    inherited = {key: value for key in keys if base and (value := getattr(base, key)) is not None}
    if own.keys() & {"token_url", "issuer"}:
        inherited = {key: value for key, value in inherited.items() if key not in {"token_url", "issuer"}}
    merged = inherited | own
    label = model.provider or urlsplit(merged.get("token_url") or merged["issuer"]).hostname
    return Provider(name=label, **merged)


def _listen(model: types.ListenModel) -> Listen:
    return replace(model.address, page=model.page, hosts=tuple(model.hosts))


def _hook(model: types.FailureHookModel) -> Hook:
    return Hook(
        argv=tuple(model.run or ()),
        signal=model.signal,
        pid_file=model.pid_file,
        process=model.process,
        timeout=model.timeout or 30.0,
        skip_first=isinstance(model, types.ChangeHookModel) and model.skip_first,
    )


def _first(*values: _T | None, default: _T) -> _T:
    return next((value for value in values if value is not None), default)


def _text_or_reference(value: str | types.ReferenceModel) -> str | Reference:
    return value if isinstance(value, str) else _reference(value)


def _reference(model: types.ReferenceModel) -> Reference:
    if model.command is not None:
        return Reference("command", model.command[0], argv=tuple(model.command))
    if model.env is not None:
        return Reference("env", model.env)
    if model.credential is not None:
        return Reference("credential", model.credential)
    return Reference("file", model.file or "", permissions=model.permissions or "owner")


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine, by its name alone."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _holds_broken(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_broken, value.values() if isinstance(value, dict) else value))
    return value is BROKEN
