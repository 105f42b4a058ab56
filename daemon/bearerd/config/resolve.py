"""The checked parts of a config -> the model: what is inherited or defaulted is filled in. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from bearerd.config import models, types
from bearerd.config.checked import Checked
from bearerd.config.defaults import Defaults
from bearerd.config.document import Document, Node
from bearerd.config.messages import meant, misplaced
from bearerd.config.paths import Paths
from bearerd.config.places import place_of
from bearerd.config.rules import http_fault
from bearerd.config.types import ProxyModel, ReferenceModel
from bearerd.inputs import inputs
from bearerd.model import (
    Client,
    Config,
    Jwt,
    JwtBearer,
    Listen,
    Logging,
    Output,
    Provider,
    ProxyLogin,
    RefreshBefore,
    Target,
)
from bearerd.terms import CLIENT_ASSERTION, TLS_AUTHS, Hook, RateLimit, Redis, Reference, Share

_T = TypeVar("_T")


class Resolver:
    """Makes the Config and its targets; reports what is wrong only in combination."""

    def __init__(self, main: Document, settings: Checked[models.ConfigFile], defaults: Defaults) -> None:
        self._main = main
        self._settings = settings.model or models.ConfigFile()
        self._faulty = settings.faulty
        self._paths = Paths(self._settings, defaults)

    def config(self, targets: list[Target], files: tuple[str, ...], directories: tuple[str, ...]) -> Config:
        """The whole: its targets, the files it was read from, and the directories of `include`."""
        settings = self._settings
        return Config(
            directory=self._paths.directory,
            state_directory=self._paths.state_directory(self._main),
            directory_mode=settings.output.directory_mode,
            group=settings.output.group,
            control=self._paths.control(self._main),
            listen=_listen(settings.listen) if settings.listen else None,
            targets=tuple(targets),
            log=Logging(level=settings.log.level, format=settings.log.format),
            reload=settings.reload,
            startup_timeout=settings.startup_timeout,
            startup_spread=settings.startup_spread,
            sources=files,
            source_directories=directories,
        )

    def keep(self, files: Iterable[str], targets: Collection[Target]) -> None:
        """Report outputs that would be written over the files of the config, or over what these targets are made of."""
        self._paths.keep((*files, *inputs(targets)))

    def targets(
        self, name: str, node: Node, model: models.ClientModel, shared: models.ProviderModel | None
    ) -> list[Target]:
        """The targets of a client; `shared` is the provider that it names."""
        provider = _provider(model, shared)
        self._check_provider(node, model, provider, shared)
        rate_limits: list[tuple[str, RateLimit]] = []
        if shared is not None and shared.rate_limit is not None:
            rate_limits.append((f"provider-{model.provider}", shared.rate_limit))
        if model.rate_limit is not None:
            rate_limits.append((f"client-{name}", model.rate_limit))
        signs = model.signs_the_grant or model.auth not in TLS_AUTHS
        certificate, private_key = _tls_pair(model, shared)
        client = Client(
            name=name,
            provider=provider,
            client_id=_text_or_reference(model.client_id) if model.client_id is not None else "",
            client_secret=tuple(map(_reference, model.client_secret or ())),
            auth=model.auth,
            basic_encoding=model.basic_encoding or "compatible",
            private_key=_reference(model.private_key) if model.private_key and signs else None,
            certificate=_certificate(model.certificate) if signs else None,
            tls_certificate=_certificate(certificate),
            tls_private_key=_reference(private_key) if private_key else None,
            headers=_headers(shared, model),
            assertion=_reference(model.assertion) if model.assertion else None,
            assertion_type=model.assertion_type or CLIENT_ASSERTION,
            jwt=_jwt(model),
            grant_type=model.grant_type,
            body=_first(model.body, shared.body if shared else None, default="form"),
            jwt_bearer=JwtBearer(model.assertion_issuer, model.assertion_subject) if model.signs_the_grant else None,
            scope_separator=model.scope_separator,
            rate_limits=tuple(rate_limits),
            share=_share(model.share or self._settings.share),
        )
        return [self._target(node, client, model, token) for token in model.tokens]

    def examine(
        self,
        name: str,
        node: Node,
        client: Checked[models.ClientModel],
        provider: Checked[models.ProviderModel] | None,
    ) -> None:
        """Report what is wrong only in combination with a client that has other errors, or whose provider has."""
        model, shared = client.model, provider.model if provider else None
        keys = set(models.ProviderKeys.model_fields) | {"provider", "auth", "certificate", "private_key"}
        known = not keys & client.faulty and (provider is None or provider.complete)
        if model is not None and known and (shared or model.token_url or model.issuer):
            self._check_provider(node, model, _provider(model, shared), shared)
        tokens = node.value.get("tokens") if isinstance(node.value, dict) else None
        for token, value in tokens.items() if isinstance(tokens, dict) else ():
            if re.fullmatch(types.NAME, token) and isinstance(value, dict):
                self._claim(node, name, token, value)

    def _claim(self, node: Node, client: str, token: str, value: Mapping[str, Any]) -> None:
        """Report outputs of a token that conflict with others, as far as its files are right."""
        at = node.child("tokens", token)
        for keys, level, model in ((value, at, models.TokenModel), (node.value, node, models.ClientModel)):
            if "files" in keys or any(_means_files(key, model, level) for key in keys if key not in model.model_fields):
                files, at = keys.get("files"), level.child("files")
                break
        else:
            files = self._settings.files
            if files is None and "files" not in self._faulty:
                self._paths.output(at, client, token, models.FileModel(format="raw"))
        for index, file in enumerate(files if isinstance(files, list) else ()):
            # The others are reported already.
            with suppress(ValidationError):
                self._paths.output(at.child(index), client, token, models.FileModel.model_validate(file))

    def _check_provider(
        self,
        node: Node,
        model: models.ClientModel,
        provider: Provider,
        shared: models.ProviderModel | None,
    ) -> None:
        """Report plain http where it is not allowed, and client certificates without TLS."""
        if model.token_url or model.issuer:
            check_http(node, model, allowed=provider.allow_http)
        elif shared is not None and model.allow_http is False:
            check_http(node, shared, allowed=False)
        if urlsplit(provider.url).scheme != "http":
            return
        if model.auth in TLS_AUTHS:
            node.add(("auth",), f"expected https for auth {model.auth}: a client certificate works over TLS only")
        elif _tls_pair(model, shared)[0] is not None:
            key = "tls_certificate" if model.tls_certificate else "provider"
            node.add((key,), "expected https with tls_certificate: a client certificate works over TLS only")

    def _target(self, node: Node, client: Client, model: models.ClientModel, name: str) -> Target:
        settings = self._settings
        token = model.tokens[name]
        levels: list[models.Inherited] = [token, model, settings]
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
            assertion_claims=json.dumps(token.assertion_claims or {}),
            strict_scope=_first(*(level.strict_scope for level in levels), default=False),
            refresh_before=_first(*(level.refresh_before for level in levels), default=RefreshBefore(share=0.2)),
            default_lifetime=_first(*(level.default_lifetime for level in levels), default=3600.0),
            lifetime_unit=_first(*(level.lifetime_unit for level in levels), default="auto"),
            publish_delay=_first(*(level.publish_delay for level in levels), default=0.0),
            max_age=_first(*(level.max_age for level in levels), default=86400.0),
            on_expiry=settings.output.on_expiry,
            outputs=self._outputs(node, client.name, model, name),
            required=_first(*(level.required for level in levels), default=True),
            on_change=tuple(map(_hook, _first(*(level.on_change for level in levels), default=[]))),
            on_failure=tuple(map(_hook, _first(*(level.on_failure for level in levels), default=[]))),
        )

    def _outputs(self, node: Node, client: str, model: models.ClientModel, name: str) -> tuple[Output, ...]:
        """The outputs of a token; the nearest `files` wins."""
        files, at = self._settings.files, node.child("tokens", name)
        if (own := model.tokens[name].files) is not None:
            files, at = own, at.child("files")
        elif model.files is not None:
            files, at = model.files, node.child("files")
        if files is None:
            return (self._output(at, client, name, models.FileModel(format="raw")),)
        if not files:
            at.add((), f"token '{client}/{name}' has no files: remove this key to get one raw file")
        return tuple(self._output(at.child(index), client, name, file) for index, file in enumerate(files))

    def _output(self, node: Node, client: str, name: str, file: models.FileModel) -> Output:
        defaults = self._settings.output
        return Output(
            path=self._paths.output(node, client, name, file),
            format=file.format,
            mode=_first(file.mode, default=defaults.mode),
            owner=_first(file.owner, defaults.owner, default=None),
            group=_first(file.group, defaults.group, default=None),
            newline=bool(file.newline),
            variable=file.name or _variable(client, name),
            max_staleness=file.max_staleness or 0.0,
            template=file.template or "",
            vars=tuple((file.vars or {}).items()),
        )


def check_http(node: Node, keys: models.ProviderKeys, *, allowed: bool) -> None:
    """Report a URL of plain http that is not allowed, at the key that has it."""
    url = keys.token_url or keys.issuer
    if url is not None and (fault := http_fault(url, allowed=allowed)):
        node.add(("token_url" if keys.token_url else "issuer",), fault)


def check_endpoint(node: Node, provider: Checked[models.ProviderModel]) -> None:
    """Report a provider's URL of plain http that is not allowed."""
    if provider.model is not None and not provider.faulty & {"token_url", "issuer", "allow_http"}:
        check_http(node, provider.model, allowed=bool(provider.model.allow_http))


def _means_files(key: str, model: type[BaseModel], node: Node) -> bool:
    """Whether an unknown key was probably meant to set the files of a token."""
    here = place_of(node.path)
    return meant(key, model.model_fields, here) == "files" or any(
        place[-2:] == ("files", "[]") for place in misplaced(key, model.model_fields, here)
    )


def _variable(client: str, name: str) -> str:
    """The default of `name`. No shell and no nginx accepts a variable that begins with a digit."""
    return re.sub(r"[^A-Z0-9]|^(?=[0-9])", "_", f"{client}_{name}_TOKEN".upper())


def _provider(model: models.ClientModel, base: models.ProviderModel | None) -> Provider:
    """A client's own keys, and those of the provider that it names.

    Equal providers are one: clients with the same keys share its limits, with and without a common name.
    """
    keys = (
        "token_url",
        "issuer",
        "ca_file",
        "proxy",
        "timeout",
        "max_concurrency",
        "allow_http",
        "refused_limit",
        "token_field",
    )
    own = {key: value for key in keys if (value := getattr(model, key)) is not None}
    inherited = {key: value for key in keys if base and (value := getattr(base, key)) is not None}
    if own.keys() & {"token_url", "issuer"}:
        inherited = {key: value for key, value in inherited.items() if key not in {"token_url", "issuer"}}
    merged = inherited | own
    label = model.provider or urlsplit(merged.get("token_url") or merged["issuer"]).hostname
    proxy = merged.get("proxy")
    if isinstance(proxy, ProxyModel):
        merged["proxy"] = proxy.url
        merged["proxy_login"] = ProxyLogin(proxy.username, _reference(proxy.password))
    # What follows is the provider's alone: a client's own goes to the token endpoint only.
    if base is not None and base.tls_certificate and base.tls_private_key:
        merged["tls_certificate"] = _certificate(base.tls_certificate)
        merged["tls_private_key"] = _reference(base.tls_private_key)
    merged["headers"] = _headers(base)
    return Provider(name=label, **merged)


def _tls_pair(
    model: models.ClientModel, base: models.ProviderModel | None
) -> tuple[ReferenceModel | None, ReferenceModel | None]:
    """The certificate of a client's connections and its key: its own under either name, else its provider's."""
    if model.tls_certificate:
        return model.tls_certificate, model.tls_private_key
    if model.auth in TLS_AUTHS and model.certificate:
        return model.certificate, model.private_key
    return (base.tls_certificate, base.tls_private_key) if base else (None, None)


def _headers(*levels: models.ProviderKeys | None) -> tuple[tuple[str, str | Reference], ...]:
    """The headers of these levels. Of the same name, in upper or lower case, the last one wins."""
    found: dict[str, tuple[str, str | Reference]] = {}
    for level in levels:
        for name, value in ((level.headers if level else None) or {}).items():
            found[name.lower()] = name, _text_or_reference(value)
    return tuple(found.values())


def _certificate(model: ReferenceModel | None) -> Reference | None:
    """A certificate is public: its file may be readable by anyone."""
    return replace(_reference(model), permissions="any") if model else None


def _share(model: models.ShareModel | None) -> Share | None:
    if model is None:
        return None
    server = model.redis
    return Share(
        redis=Redis(
            url=_text_or_reference(server.url),
            ca_file=server.ca_file,
            username=server.username,
            password=_reference(server.password) if server.password else None,
            prefix=server.prefix,
            timeout=server.timeout,
        ),
        when_unavailable=model.when_unavailable,
        key=_reference(model.key) if model.key else None,
    )


def _jwt(model: models.ClientModel) -> Jwt:
    return Jwt(
        key_id=model.key_id,
        algorithm=model.algorithm,
        audience=model.assertion_audience,
        claims=json.dumps(model.assertion_claims or {}),
        scope_in=model.scope_in,
    )


def _listen(model: models.ListenModel) -> Listen:
    return replace(model.address, page=model.page, hosts=tuple(model.hosts))


def _hook(model: models.FailureHookModel) -> Hook:
    return Hook(
        argv=tuple(model.run or ()),
        signal=model.signal,
        pid_file=model.pid_file,
        process=model.process,
        timeout=model.timeout or 30.0,
        skip_first=isinstance(model, models.ChangeHookModel) and model.skip_first,
    )


def _first(*values: _T | None, default: _T) -> _T:
    return next((value for value in values if value is not None), default)


def _text_or_reference(value: str | ReferenceModel) -> str | Reference:
    return value if isinstance(value, str) else _reference(value)


def _reference(model: ReferenceModel) -> Reference:
    if model.command is not None:
        return Reference("command", model.command[0], argv=tuple(model.command))
    if model.env is not None:
        return Reference("env", model.env)
    if model.credential is not None:
        return Reference("credential", model.credential)
    return Reference("file", model.file or "", permissions=model.permissions or "owner")
