"""A provider that checks the secret of its client, for rigs. Its secret can change, and it can be down."""

from __future__ import annotations

import base64
import time

from support.server import Answer, Seen


class Provider:
    """Issues t-1, t-2 and so on, or tokens with another prefix, to clients with its present secret."""

    def __init__(self) -> None:
        self.secret = "first"
        self.prefix = "t-"
        self.grants = 0
        self.refused = 0
        self.down = False
        self.lifetime = 3600.0
        self.spare = 5.0
        """Seconds for which a token is accepted after its expiry, to allow for pauses of the machine."""
        self._until: dict[str, float] = {}

    def __call__(self, seen: Seen) -> Answer:
        if self.down:
            return Answer(503)
        given = base64.b64decode(seen.headers["authorization"].split()[1]).decode()
        if given != f"7e0c5a:{self.secret}":
            self.refused += 1
            return Answer(401, {"error": "invalid_client"})
        self.grants += 1
        token = self.newest()
        self._until[token] = time.monotonic() + self.lifetime + self.spare
        return Answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime})

    def newest(self) -> str:
        """The token that it issued last."""
        return f"{self.prefix}{self.grants}"

    def issued(self, token: str) -> bool:
        """Whether it issued this token, even if that is no longer accepted."""
        return token in self._until

    def takes(self, token: str) -> bool:
        """Whether it issued this token and still accepts it."""
        return self._until.get(token, 0.0) > time.monotonic()
