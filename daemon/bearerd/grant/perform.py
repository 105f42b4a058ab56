"""One grant for a target: credentials read, request composed and sent, reply understood."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

from bearerd.clock import Clock
from bearerd.errors import SecretUnavailable
from bearerd.grant.credentials import read_credentials
from bearerd.grant.endpoint import Endpoint, NoReply
from bearerd.grant.outcome import Outcome, Refused, Transient, Unsent
from bearerd.grant.reply import understand
from bearerd.grant.request import Credentials, compose, depends_on_encoding
from bearerd.model import Provider, Target


class Grants:
    """Performs grants, from any thread; keeps one endpoint for each provider."""

    def __init__(self, clock: Clock, environ: Mapping[str, str]) -> None:
        self._clock = clock
        self._environ = environ
        self._lock = threading.Lock()
        self._endpoints: dict[Provider, Endpoint] = {}

    def perform(self, target: Target) -> tuple[Outcome, str]:
        """What a grant came to, and the client id that it was for ("" when that could not be read)."""
        try:
            credentials = read_credentials(target.client, self._environ)
        except SecretUnavailable as error:
            return Unsent(str(error), phase="secret"), ""
        request = compose(target, credentials)
        # The lifetime counts from just before the request: what the way took is not the reader's to use.
        sent = self._clock.now()
        reply = self._endpoint(target.client.provider).post(request)
        if isinstance(reply, NoReply):
            if reply.phase == "set-up":
                return Unsent(reply.reason, phase="set-up", hint=reply.hint), credentials.client_id
            return Transient(reply.reason, phase=reply.phase, hint=reply.hint), credentials.client_id
        outcome = understand(reply, target, sent, never_show=(credentials.client_secret,))
        return _hinted(outcome, target, credentials), credentials.client_id

    def close_idle(self) -> None:
        """Close connections that a burst left open."""
        for endpoint in list(self._endpoints.values()):
            endpoint.close_idle()

    def _endpoint(self, provider: Provider) -> Endpoint:
        with self._lock:
            endpoint = self._endpoints.get(provider)
            if endpoint is None:
                endpoint = self._endpoints[provider] = Endpoint(provider)
            return endpoint


def _hinted(outcome: Outcome, target: Target, credentials: Credentials) -> Outcome:
    """A refusal of a secret that providers read in two ways names the setting to try."""
    client = target.client
    if (
        isinstance(outcome, Refused)
        and outcome.whole_client
        and client.auth == "client_secret_basic"
        and depends_on_encoding(credentials.client_secret)
    ):
        others = "raw or rfc6749" if client.basic_encoding == "compatible" else "compatible"
        return replace(
            outcome,
            hint=f"the secret holds %, + or a space, which providers read in two ways: try basic_encoding: {others}",
        )
    return outcome
