"""The keys of a client, and those of secret references. Pure."""

from __future__ import annotations

from typing import Final

from bearerd.config.keys.key import Key

CLIENTS: Final = {
    "provider": Key(
        "The name of an entry in `providers`. The client may also set keys of a provider itself; each one replaces "
        "the same key of the entry.",
        without="none; the client then needs a `token_url` or an `issuer` of its own",
        examples=("acme",),
    ),
    "client_id": Key(
        "The client id that the provider gave you, as text or as a reference. Required, except with `auth: none` and "
        "`auth: assertion`.",
        examples=("7e0c5a", {"env": "BILLING_ID"}),
    ),
    "client_secret": Key(
        "A reference to the secret, never the secret itself. It is read again for each request, so a new secret needs "
        "no restart, except with `env` and `credential`. For a rotation without a gap, use a list of up to 8 "
        "references, newest first: if the provider refuses one, bearerd tries the next, and keeps the one that works. "
        "Required if the name of the `auth` method begins with `client_secret`.",
        examples=(
            {"file": "/etc/bearerd/dnb.secret"},
            [{"file": "/etc/bearerd/dnb.new"}, {"file": "/etc/bearerd/dnb.secret"}],
        ),
    ),
    "auth": Key(
        "How the client authenticates at the token endpoint. `client_secret_basic`: HTTP Basic with id and secret. "
        "`client_secret_post`: id and secret in the body. `client_secret_jwt`: an assertion signed with the secret. "
        "`private_key_jwt`: an assertion signed with `private_key`. `tls_client_auth`, `self_signed_tls_client_auth`: "
        "the client certificate of the connection (`certificate` and `private_key`). `assertion`: a JWT that the "
        "platform keeps fresh. `none`: not at all. docs/providers.md says which method a provider requires.",
        default="client_secret_basic",
        examples=("client_secret_post",),
    ),
    "basic_encoding": Key(
        "Which special characters `client_secret_basic` encodes; providers differ in how they decode them. "
        "`compatible`: `%`, `+`, spaces, control and non-ASCII characters, and `:` in the id. `rfc6749`: all "
        "characters that RFC 6749 names. `raw`: none, for providers that do not decode. Change it if a provider "
        "refuses an id or secret that contains such characters.",
        default="compatible",
        examples=("raw",),
    ),
    "private_key": Key(
        "A reference to a private key, in PEM or as a JWK. With `private_key_jwt` or the JWT bearer grant, it signs "
        "assertions (this needs the extra `jwt`), and may also be a JSON key file from Google. With `tls_client_auth` "
        "and `self_signed_tls_client_auth`, it is the key of `certificate`.",
        without="none",
        examples=({"file": "/etc/bearerd/acme.key"},),
    ),
    "certificate": Key(
        "A reference to the certificate of `private_key`, in PEM. Required with `tls_client_auth` and "
        "`self_signed_tls_client_auth`, unless `tls_certificate` is set. With assertions, set it if the provider "
        "identifies the key by the thumbprint of its certificate, as Microsoft Entra ID does.",
        without="none",
        examples=({"file": "/etc/bearerd/acme.crt"},),
    ),
    "assertion": Key(
        "A reference to a JWT that the platform keeps fresh, such as a service account token of Kubernetes or a SPIFFE "
        "JWT-SVID. It is read again for each request. Required with `auth: assertion`.",
        examples=({"file": "/var/run/secrets/tokens/sso", "permissions": "any"},),
    ),
    "assertion_type": Key(
        "With `auth: assertion`: the `client_assertion_type` that is sent.",
        default="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        examples=("urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",),
    ),
    "key_id": Key(
        "The `kid` in the header of assertions. Set it if several keys of this client are registered at the provider.",
        without="the `kid` of a JWK, or the key id in a JSON key file from Google; otherwise no `kid` is sent",
        examples=("2026-11",),
    ),
    "algorithm": Key(
        "The algorithm that signs assertions. Set it if the provider requires another one than the default for the "
        "type of the key.",
        without="RS256 for an RSA key; ES256, ES384 or ES512 for an elliptic curve; EdDSA for an Ed25519 key; HS256 "
        "for a secret",
        examples=("PS256",),
    ),
    "assertion_audience": Key(
        "The `aud` of assertions. Set it if the provider refuses assertions because of their audience.",
        without="the `issuer`, else the `token_url`",
        examples=("https://sso.example.com/token",),
    ),
    "grant_type": Key(
        "The grant type, as it is sent to the provider. Other values are the JWT bearer grant "
        "(`urn:ietf:params:oauth:grant-type:jwt-bearer`, RFC 7523), token exchange "
        "(`urn:ietf:params:oauth:grant-type:token-exchange`, RFC 8693), and grants of a single provider, such as "
        "Zoom's. docs/providers.md has examples.",
        default="client_credentials",
        examples=("urn:ietf:params:oauth:grant-type:token-exchange",),
    ),
    "assertion_issuer": Key(
        "In the JWT bearer grant: the `iss` of the assertion.",
        without="the `client_id`",
        examples=("robot@project.iam.gserviceaccount.com",),
    ),
    "assertion_subject": Key(
        "In the JWT bearer grant: the `sub` of the assertion, such as the user for whom a service account acts.",
        without="none; the assertion has no `sub`",
        examples=("someone@example.com",),
    ),
    "assertion_claims": Key(
        "Additional claims in assertions, as the provider documents them. `iss`, `sub`, `aud`, `exp`, `iat`, `jti` "
        "and `scope` cannot be set here.",
        without="none",
        examples=({"resource": "https://api.example.com"},),
    ),
    "TokenModel.assertion_claims": Key(
        "Claims in the assertions for this token only, in addition to those of its client; Italy's PDND requires one "
        "for each token. A claim here replaces the client's claim of the same name.",
        without="none; only those of the client are sent",
        examples=({"purposeId": "1b361d49-33f4-4f1e-a88b-4e12661f2300"},),
    ),
    "scope_in": Key(
        "Where the scope is sent. `form`: as a parameter of the request. `assertion`: as a claim in the assertion, "
        "for NetSuite and Google for example.",
        without="`assertion` in the JWT bearer grant with a `private_key`, else `form`",
        examples=("assertion",),
    ),
    "scope_separator": Key(
        "The text between scopes, 1 to 4 characters, in quotes. A few providers require a comma.",
        default=" ",
        examples=(",",),
    ),
    "subject_token": Key(
        "In the token exchange grant (RFC 8693): a reference to the token to exchange. It is read again for each "
        "request.",
        without="none",
        examples=({"file": "/var/run/secrets/tokens/gcp", "permissions": "any"},),
    ),
    "parameters": Key(
        "Additional parameters of the request, such as the `audience` that Auth0 requires. Values are text or "
        "references. A list sends the parameter once for each value. A secret, such as a password, must be a "
        "reference.",
        default={},
        examples=({"audience": "https://billing.example.com"},),
    ),
    "TokenModel.parameters": Key(
        "Additional parameters for this token only, in addition to those of its client. A parameter here replaces the "
        "client's parameter of the same name.",
        default={},
        examples=({"resource": ["https://a.example.com", "https://b.example.com"]},),
    ),
    "tokens": Key(
        "The tokens of this client, by name. Each token has its own scope and its own files. At least one token is "
        "required.",
        examples=({"bci": {"scope": "bci"}, "companies": {"scope": ["bci", "companies"]}},),
    ),
    # references to secrets
    "file": Key(
        "The absolute path of a file that contains the secret. bearerd refuses the file if its group or others can "
        "read it, unless `permissions` allows that. A line end after the secret is ignored. A changed file is used at "
        "the next request.",
        examples=("/etc/bearerd/dnb.secret",),
    ),
    "env": Key(
        "The name of a variable in the daemon's environment, as container platforms set it. A new value needs a "
        "restart.",
        examples=("DNB_SECRET",),
    ),
    "credential": Key(
        "The name of a systemd credential of the unit (`LoadCredential=`). A new value needs a restart of the unit.",
        examples=("dnb",),
    ),
    "command": Key(
        "A program that prints the secret: its absolute path, and its arguments. It runs for each request, without a "
        "shell, for at most 10 s, with a minimal environment. docs/secrets.md has the commands of password managers "
        "and clouds.",
        examples=(["/usr/bin/pass", "dnb"],),
    ),
    "permissions": Key(
        "Which users may have permission to read the file. `owner`: only its owner. `group`: also its group. "
        "`any`: all users. Set it for files whose mode you cannot change, such as those that Kubernetes mounts.",
        default="owner",
        examples=("group",),
    ),
}
