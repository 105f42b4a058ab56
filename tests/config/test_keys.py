"""What the descriptions of keys say is true: the loader applies the defaults, and accepts the examples."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bearerd.config.load import load, schema
from bearerd.config.schema import flow
from bearerd.model import Config

SECRET = {"client_secret": {"file": "/s"}}
SIGNED = {"auth": "private_key_jwt", "private_key": {"file": "/k"}}
MUTUAL = {"auth": "tls_client_auth", "private_key": {"file": "/k"}, "certificate": {"file": "/c"}}
BEARER = {
    "auth": "none",
    "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
    "private_key": {"file": "/k"},
}
EXCHANGE = {"auth": "none", "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange"}
# The keys without which a key of a client has no effect; by default, those of a client with a secret.
CLIENTS: dict[str, dict[str, Any]] = {
    "private_key": SIGNED,
    "certificate": MUTUAL,
    "assertion": {"auth": "assertion"},
    "assertion_type": {"auth": "assertion", "assertion": {"file": "/a"}},
    "key_id": SIGNED,
    "algorithm": SIGNED,
    "assertion_audience": SIGNED,
    "assertion_claims": SIGNED,
    "scope_in": SIGNED,
    "assertion_issuer": BEARER,
    "assertion_subject": BEARER,
    "subject_token": EXCHANGE,
    "tls_certificate": SECRET | {"tls_private_key": {"file": "/k"}},
    "tls_private_key": SECRET | {"tls_certificate": {"file": "/c"}},
}
# The same for the keys of files and hooks.
FILES: dict[str, dict[str, Any]] = {
    "template": {"format": "template", "path": "x"},
    "vars": {"format": "template", "template": "gitconfig", "path": "x"},
    "name": {"format": "env"},
}
HOOKS: dict[str, dict[str, Any]] = {
    "run": {},
    "signal": {"pid_file": "/p"},
    "pid_file": {"signal": "HUP"},
    "process": {"signal": "HUP"},
}
URL = {"token_url": "https://p.example/token"}
ABSENT = object()


def config_with(model: str, key: str, value: Any = ABSENT) -> dict[str, Any]:
    """A small config, which has this value under a key of a mapping with this model, or leaves it out."""
    own = {} if value is ABSENT else {key: value}
    section = {"OutputModel": "output", "ControlModel": "control", "LogModel": "log"}.get(model)
    whole: dict[str, Any] = {"providers": {"acme": URL}}
    if model == "ConfigFile":
        whole |= own
    elif model == "ListenModel":
        whole["listen"] = {"address": "127.0.0.1:1"} | own
    elif model == "ProviderModel":
        pair = CLIENTS[key] if key in {"tls_certificate", "tls_private_key"} else {}
        pair = {name: inner for name, inner in pair.items() if name != "client_secret"}
        whole["providers"] = {"acme": ({} if key == "issuer" else URL) | pair | own}
    elif section:
        whole[section] = own
    if key != "clients":
        whole["clients"] = {"c": client_with(model, key, own)}
    return whole


def client_with(model: str, key: str, own: dict[str, Any]) -> dict[str, Any]:
    """The client of such a config."""
    token: dict[str, Any] = {}
    client: dict[str, Any] = {"client_id": "a", "tokens": {"t": token}}
    client |= {"provider": "acme"} if model == "ProviderModel" else URL
    # The keys without which this one has no effect.
    client |= CLIENTS.get(key, SECRET) if model in {"ClientModel", "TokenModel"} else SECRET
    match model:
        case "ClientModel":
            if key == "issuer" or (key == "provider" and own):
                del client["token_url"]
            if key == "grant_type":
                del client["client_secret"]
                client["auth"] = "none"
            client |= own
        case "TokenModel":
            token |= own
        case "FileModel":
            token["files"] = [{"format": "raw"} | FILES.get(key, {}) | own]
        case "ChangeHookModel" | "FailureHookModel":
            hook = HOOKS.get(key, {"run": ["/bin/true"]}) | own
            token["on_change" if model == "ChangeHookModel" else "on_failure"] = [hook]
        case "ProxyModel":
            proxy = {"url": "https://proxy.example:1", "username": "u", "password": {"file": "/p"}}
            client["proxy"] = proxy | own
        case "RedisModel":
            login = {"username": {"password": {"file": "/p"}}}.get(key, {})
            url = "rediss://redis.example" if key == "ca_file" else "redis://redis.example"
            client["share"] = {"redis": {"url": url} | login | own}
        case "ShareModel":
            client["share"] = {"redis": {"url": "redis://redis.example"}} | own
        case "ReferenceModel":
            client["client_secret"] = own if key != "permissions" else {"file": "/s"} | own
    return client


def loaded(path: Path, config: dict[str, Any]) -> Config:
    """A config as it is loaded from a file that is written as the documentation writes values."""
    file = path / "config.yaml"
    file.write_text("".join(f"{key}: {flow(value)}\n" for key, value in config.items()), encoding="utf-8")
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == config
    # The directories of include are part of a config, and contain its own.
    return replace(load(str(file), {}), source_directories=())


def properties() -> list[tuple[str, str, dict[str, Any]]]:
    """Each key with its model and its schema."""
    whole = schema()
    models = {"ConfigFile": whole} | whole["$defs"]
    return [(name, key, value) for name, model in models.items() for key, value in model["properties"].items()]


@pytest.mark.parametrize(
    ("model", "key", "default"),
    [pytest.param(m, k, v["default"], id=f"{m}.{k}") for m, k, v in properties() if "default" in v],
)
def test_the_loader_applies_the_default_that_the_schema_names(
    tmp_path: Path, model: str, key: str, default: Any
) -> None:
    assert loaded(tmp_path, config_with(model, key, default)) == loaded(tmp_path, config_with(model, key))


@pytest.mark.parametrize(("model", "key", "about"), [pytest.param(m, k, v, id=f"{m}.{k}") for m, k, v in properties()])
def test_each_key_has_an_example_that_loads_and_differs_from_its_default(
    tmp_path: Path, model: str, key: str, about: dict[str, Any]
) -> None:
    assert about["examples"]
    for example in about["examples"]:
        config = loaded(tmp_path, config_with(model, key, example))
        if "default" in about:
            assert example != about["default"]
            if key != "include":  # which names only files that do not exist here
                assert config != loaded(tmp_path, config_with(model, key))


# Of these keys a mapping has exactly one, or at most one.
ALTERNATIVES = {
    "ReferenceModel": {"file", "env", "credential", "command"},
    "ChangeHookModel": {"run", "signal", "pid_file", "process"},
    "FailureHookModel": {"run", "signal", "pid_file", "process"},
    "ProviderModel": {"token_url", "issuer"},
    "ClientModel": {"token_url", "issuer"},
}


@pytest.mark.parametrize(("model", "key", "about"), [pytest.param(m, k, v, id=f"{m}.{k}") for m, k, v in properties()])
def test_each_key_says_what_happens_without_it(model: str, key: str, about: dict[str, Any]) -> None:
    whole = schema()
    required = ({"ConfigFile": whole} | whole["$defs"])[model].get("required", [])
    assert (
        key in required
        or key in ALTERNATIVES.get(model, ())
        or re.search("Default: |required", about["description"], re.IGNORECASE)
    )
