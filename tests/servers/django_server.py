"""PyPI's django-oauth-toolkit as it comes, over http on a free port of loopback.

The first line of stdin is JSON: {"clients": {id: secret}, "scopes": [...]}. Prints its port when it is ready; ends
when stdin does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from django.conf import settings
from django.core.management import call_command


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def main() -> None:
    options = json.loads(sys.stdin.readline())
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        # One connection, of the one thread that serves.
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
        OAUTH2_PROVIDER={"SCOPES": dict.fromkeys(options["scopes"], "")},
        # It keeps no secret but a hash; this one takes no time.
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        SECRET_KEY="of no use",
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from django.core.wsgi import get_wsgi_application  # noqa: PLC0415 - not before the settings
    from django.urls import include, path  # noqa: PLC0415 - as above
    from oauth2_provider.models import get_application_model  # noqa: PLC0415 - as above

    settings.ROOT_URLCONF = (path("", include("oauth2_provider.urls")),)
    application = get_application_model()
    for client_id, secret in options["clients"].items():
        application.objects.create(
            client_id=client_id,
            client_secret=secret,
            client_type=application.CLIENT_CONFIDENTIAL,
            authorization_grant_type=application.GRANT_CLIENT_CREDENTIALS,
        )
    server = make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=Quiet)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    print(server.server_port, flush=True)  # noqa: T201 - what the test waits for
    server.serve_forever()


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
