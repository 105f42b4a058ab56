"""The keys of a client, and those of secret references. Pure."""

from __future__ import annotations

from typing import Final

from bearerd.config.keys.key import Key

CLIENTS: Final = {
    "provider": Key(
        "The name of an entry in `providers`. The client may also set keys of a provider itself, which then replace "
        "those of the entry.",
        without="none; the client then has a `token_url` or an `issuer` of its own",
        examples=("acme",),
    ),
    "client_id": Key(
        "The client id that the provider gave you, as text or as a reference. Required, except with `auth: none` and "
        "`auth: assertion`.",
        examples=("7e0c5a", {"env": "BILLING_ID"}),
    ),
    "client_secret": Key(
        "A reference to the secret, never the secret itself. It is read again at each request, so a new one needs no "
        "restart, except with `env` and `credential`. With a list, newest first, up to 8: when one is refused, the "
        "next is tried, and the one that works stays in use. This makes a rotation without a gap. Required for the "
        "three methods that have `client_secret` in their name.",
        examples=(
            {"file": "/etc/bearerd/dnb.secret"},
            [{"file": "/etc/bearerd/dnb.new"}, {"file": "/etc/bearerd/dnb.secret"}],
        ),
    ),
    "auth": Key(
        "How the client authenticates at the token endpoint. `client_secret_basic`: HTTP Basic with id and secret. "
        "`client_secret_post`: id and secret in the body. `client_secret_jwt`, `private_key_jwt`: an assertion, signed "
        "with the secret or with `private_key`. `tls_client_auth`, `self_signed_tls_client_auth`: the client "
        "certificate of the connection (`certificate` and `private_key`). `assertion`: a JWT that the platform keeps "
        "fresh. `none`: not at all. docs/providers.md says which one a provider wants.",
        default="client_secret_basic",
        examples=("client_secret_post",),
    ),
    "basic_encoding": Key(
        "How `client_secret_basic` encodes special characters, which providers decode differently. `compatible`: only "
        "`%`, `+`, spaces, control and non-ASCII characters, and `:` in the id. `rfc6749`: all that RFC 6749 names. "
        "`raw`: none, for providers that do not decode. Set it if a secret with one of these characters is refused.",
        default="compatible",
        examples=("raw",),
    ),
    "private_key": Key(
        "A reference to a private key, in PEM or as a JWK. With `private_key_jwt` or the JWT bearer grant it signs "
        "assertions (needs the extra `jwt`), and may also be Google's JSON file. With `tls_client_auth` and "
        "`self_signed_tls_client_auth` it belongs to `certificate`.",
        examples=({"file": "/etc/bearerd/acme.key"},),
    ),
    "certificate": Key(
        "A reference to the certificate of `private_key`, in PEM. Required with `tls_client_auth` and "
        "`self_signed_tls_client_auth`, unless `tls_certificate` is set. With assertions, it is for providers that "
        "identify the key by the thumbprint of its certificate (Microsoft Entra ID).",
        examples=({"file": "/etc/bearerd/acme.crt"},),
    ),
    "assertion": Key(
        "With `auth: assertion`: a reference to a JWT that the platform keeps fresh, such as a service account token "
        "of Kubernetes or a SPIFFE JWT-SVID. It is read at each request.",
        examples=({"file": "/var/run/secrets/tokens/sso", "permissions": "any"},),
    ),
    "assertion_type": Key(
        "With `auth: assertion`: the `client_assertion_type` that is sent.",
        default="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        examples=("urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",),
    ),
    "key_id": Key(
        "The `kid` in the header of assertions. Set it if the provider knows several keys of this client.",
        without="the `kid` of a JWK, or the key id in Google's JSON file; else no `kid` is sent",
        examples=("2026-11",),
    ),
    "algorithm": Key(
        "The algorithm that signs assertions. Set it if the provider expects another algorithm than the default.",
        without="RS256 for an RSA key; ES256, ES384 or ES512 for an elliptic curve; EdDSA for an Ed25519 key; HS256 "
        "for a secret",
        examples=("PS256",),
    ),
    "assertion_audience": Key(
        "The `aud` of assertions. Set it if the provider refuses the assertion for its audience.",
        without="the `issuer`, else the `token_url`",
        examples=("https://sso.example.com/token",),
    ),
    "grant_type": Key(
        "The grant, with its full name. Other grants are an assertion (RFC 7523) and the exchange of a token (RFC "
        "8693). docs/providers.md has examples.",
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
        "Additional claims of assertions, as the provider documents them. `iss`, `sub`, `aud`, `exp`, `iat`, `jti` and "
        "`scope` have their own keys.",
        without="none",
        examples=({"resource": "https://api.example.com"},),
    ),
    "TokenModel.assertion_claims": Key(
        "Claims of the assertion for this token only, in addition to those of its client (Italy's PDND). If both "
        "have a claim, the token's is sent.",
        without="none; only those of the client are sent",
        examples=({"purposeId": "1b361d49-33f4-4f1e-a88b-4e12661f2300"},),
    ),
    "scope_in": Key(
        "Where the scope is sent. `form`: as a parameter. `assertion`: as a claim of the assertion (NetSuite, Google).",
        without="`assertion` in the JWT bearer grant with a `private_key`, else `form`",
        examples=("assertion",),
    ),
    "scope_separator": Key(
        "The text between scopes, 1 to 4 characters, in quotes. A few providers want a comma.",
        default=" ",
        examples=(",",),
    ),
    "subject_token": Key(
        "In the token exchange grant (RFC 8693): a reference to the token to exchange. It is read at each request.",
        examples=({"file": "/var/run/secrets/tokens/gcp", "permissions": "any"},),
    ),
    "parameters": Key(
        "Additional parameters of the request, such as the `audience` that Auth0 wants. Values are text, references, "
        "or lists of these for a parameter that is sent more than once. A secret, such as a password, has to be a "
        "reference.",
        default={},
        examples=({"audience": "https://billing.example.com"},),
    ),
    "TokenModel.parameters": Key(
        "Additional parameters for this token only. Those of its client are sent too. If both have a "
        "parameter, the token's is sent.",
        default={},
        examples=({"resource": ["https://a.example.com", "https://b.example.com"]},),
    ),
    "tokens": Key(
        "The tokens of this client, by name. Each one has its own scope and its own files. At least one is required.",
        examples=({"bci": {"scope": "bci"}, "companies": {"scope": ["bci", "companies"]}},),
    ),
    # references to secrets
    "file": Key(
        "The absolute path of a file. It is refused if its group or others can read it, unless `permissions` allows "
        "it. One line end at its end is ignored. A changed file is used at the next request.",
        examples=("/etc/bearerd/dnb.secret",),
    ),
    "env": Key(
        "The name of a variable in the daemon's environment, as container platforms set it. A change needs a restart.",
        examples=("DNB_SECRET",),
    ),
    "credential": Key(
        "The name of a systemd credential of the unit (`LoadCredential=`). A new value needs a restart of the unit.",
        examples=("dnb",),
    ),
    "command": Key(
        "A program by its absolute path, and its arguments. There is no shell. Its output is the secret. It runs at "
        "each request, for at most 10 s, with a minimal environment. docs/secrets.md has the commands of password "
        "managers and clouds.",
        examples=(["/usr/bin/pass", "dnb"],),
    ),
    "permissions": Key(
        "Who may be able to read the file. `owner`: only its owner. `group`: its group too. `any`: everybody. For "
        "files whose mode you cannot set, such as mounts of Kubernetes.",
        default="owner",
        examples=("group",),
    ),
}
