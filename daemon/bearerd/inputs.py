"""The files that bearerd reads, besides those of the config. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from bearerd.model import Target
from bearerd.terms import Reference


def inputs(targets: Collection[Target]) -> Iterator[str]:
    """The files that these targets are made from: secrets, keys, certificates and templates."""
    for client in {target.client.name: target.client for target in targets}.values():
        yield from _files(client.references)
        if client.provider.ca_file:
            yield client.provider.ca_file
        if client.share is not None:
            redis = client.share.redis
            yield from _files((redis.url, redis.password, client.share.key))
            if redis.ca_file:
                yield redis.ca_file
    for target in targets:
        yield from _files(value for _, value in target.parameters)
        yield from (output.template for output in target.outputs if output.template.startswith("/"))


def _files(values: Iterable[object]) -> Iterator[str]:
    return (value.at for value in values if isinstance(value, Reference) and value.kind == "file")
