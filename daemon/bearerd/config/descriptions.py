"""What each config key is for, in one sentence: the descriptions of the JSON Schema. Pure.

A key means the same in every mapping, unless it has an entry with the mapping's name in front.
"""

from __future__ import annotations

from typing import Final

DESCRIPTIONS: Final[dict[str, str]] = {
    # the top level
    "include": "More config files, relative to this one, as names or patterns.",
    "reload": "Whether changes are picked up automatically (watch) or at HUP only (signal).",
    "startup_timeout": "After this time the systemd unit counts as ready even without all tokens. Default: 30s.",
    "state_directory": "For state that has to survive a reboot, and never a token. Default: $STATE_DIRECTORY, else "
    "$XDG_STATE_HOME/bearerd for tokens below $XDG_RUNTIME_DIR, else .bearerd in the output directory.",
    "output": "The directory, owner and modes of the token files.",
    "providers": "Token endpoints that several clients share, by name.",
    "clients": "Client ids with their credentials and tokens, by name.",
    "control": "The socket of the local API.",
    "listen": "Metrics and probes over TCP. By default bearerd does not listen on TCP.",
    "log": "Level and format of the log.",
    # output
    "directory": "Where the token files are. Default: $RUNTIME_DIRECTORY, else, for users other than root, "
    "$XDG_RUNTIME_DIR/bearerd, else /run/bearerd.",
    "directory_mode": 'The mode of directories that bearerd creates, in quotes. Default: "0750".',
    "mode": 'The mode of the file, octal and in quotes. Default: "0640"; for the socket "0660".',
    "owner": "The owner, as a name or a number. By default it is neither set nor checked.",
    "group": "The group, as a name or a number. By default it is neither set nor checked.",
    "on_expiry": "Whether the files of an expired token stay. Default: keep.",
    # the top level, clients and tokens
    "files": "The files of each token. Default: one raw file.",
    "refresh_before": "How long before expiry: a share up to 50%, or a duration such as 5m. Default: 20%.",
    "default_lifetime": "The lifetime of tokens whose provider names none. Default: 1h.",
    "lifetime_unit": "The unit of expires_in, for providers where its size misleads. Default: auto.",
    "max_age": "Refresh a token after this time even if it lives longer: at least 1m, or never. Default: 24h.",
    "publish_delay": "How long a new token waits before it is published, at most 1h. Default: 0s.",
    "strict_scope": "Whether to refuse a token whose scope differs from the requested one. Default: false.",
    "required": "Whether the daemon needs the token to be ready. Default: true.",
    "on_change": "Hooks that run after the files of a token changed.",
    "on_failure": "Hooks that run when a token can no longer be refreshed.",
    # providers
    "token_url": "The token endpoint.",
    "issuer": "The issuer, exactly as the provider writes it, if it publishes its metadata.",
    "ca_file": "Certificate authorities to trust instead of the system's, in PEM.",
    "tls_certificate": "The client certificate of connections (mTLS), in PEM, next to any auth.",
    "tls_private_key": "The private key of tls_certificate, in PEM.",
    "headers": "Additional headers, as text or references. Those of a provider are also sent for its metadata.",
    "body": "How parameters are sent: as a form or a JSON object. Default: form.",
    "proxy": "The URL of a proxy (http, https, socks5 or socks5h), or a mapping with a login to it.",
    "timeout": "The time for one request, from name look-up to the last byte. Default: 10s.",
    "max_concurrency": "Requests at the same time to this provider. Default: 8.",
    "rate_limit": "Requests per period, such as 10/s or 10/8h. It holds across restarts.",
    "refused_limit": "Attempts per period that may be refused, for each client. Default: 4/2m.",
    "allow_http": "Whether to allow plain http, only to this machine. Default: false.",
    "token_field": "The field of the token in the reply, or a dotted path to it. Default: access_token.",
    "ProxyModel.url": "The URL of the proxy, without a login.",
    "ProxyModel.username": "The user name at the proxy.",
    "ProxyModel.password": "A reference to the password. It is read again at each request.",
    # clients
    "provider": "The name of a provider whose keys this client uses.",
    "client_id": "The client id, or a reference to it.",
    "client_secret": "A reference to the secret, or a list of them, newest first. Never the secret itself.",
    "auth": "How the client authenticates. Default: client_secret_basic.",
    "basic_encoding": "How client_secret_basic encodes special characters. Default: compatible.",
    "private_key": "A reference to the key that signs assertions, or that belongs to certificate.",
    "certificate": "A reference to the certificate of private_key, in PEM.",
    "assertion": "A reference to a JWT that the platform keeps fresh, for auth assertion.",
    "assertion_type": "The client_assertion_type of auth assertion. Default: that of a JWT (RFC 7523).",
    "key_id": "The kid of assertions. A JWK has its own.",
    "algorithm": "The algorithm that signs assertions. The default depends on the key.",
    "assertion_audience": "The audience of assertions. Default: the issuer, else the token URL.",
    "grant_type": "The grant, with its full name. Default: client_credentials.",
    "assertion_issuer": "The issuer of the assertion of a grant. Default: the client id.",
    "assertion_subject": "The subject of the assertion of a grant.",
    "assertion_claims": "Additional claims of assertions. Those of a token are added to its client's.",
    "scope_in": "Where the scope is sent. Default: the form, or the assertion of a grant.",
    "scope_separator": "The text between scopes. Default: a space.",
    "subject_token": "A reference to the token that is exchanged (RFC 8693). It is read at each request.",
    "parameters": "Additional parameters of the request, as text, lists or references.",
    "tokens": "The tokens of this client, by name.",
    "scope": "The requested scopes, as text or a list.",
    # files
    "FileModel.format": "What is in the file.",
    "path": "Where the file is: relative to the output directory, or absolute.",
    "newline": "Whether a line end follows the token. Default: false.",
    "name": "The name of the variable, for the formats env and template.",
    "max_staleness": "For how long a reader may use what it read: a refresh is due at least that long before expiry.",
    "template": "The name of a built-in template, or the absolute path of your own in Jinja2.",
    "vars": "Values for the template, by name.",
    # hooks
    "run": "A program by its absolute path, and its arguments. There is no shell.",
    "signal": "A signal, sent to the process of pid_file or process.",
    "pid_file": "The absolute path of a file with the process id.",
    "process": "The name of the process, as `ps -o comm` shows it.",
    "ChangeHookModel.timeout": "After this time the program is killed. Default: 30s.",
    "FailureHookModel.timeout": "After this time the program is killed. Default: 30s.",
    "skip_first": "Whether the hook does not run for the first token. Default: false.",
    # control, listen, log
    "socket": "The absolute path of the socket. Default: .bearerd/control.sock in the output directory.",
    "address": "An IP address and a port, such as 127.0.0.1:9810 or [::1]:9810.",
    "page": "Whether the status page is at /. Default: false.",
    "hosts": "Names in the Host header that are accepted besides IP addresses and localhost.",
    "level": "The least level that is logged. Default: info.",
    "format": "The format of log lines. Default: text.",
    # references
    "file": "The absolute path of a file that only its owner can read.",
    "env": "The name of an environment variable.",
    "credential": "The name of a systemd credential.",
    "command": "A program by its absolute path, and its arguments; its output is the secret.",
    "permissions": "Who may read the file besides its owner, if its mode cannot be set: its group, or any user.",
}
