"""Keys at a wrong place: one error, which says where they belong."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from bearerd.config import models
from bearerd.config.load import load
from bearerd.config.places import homes, keys_at, named, vocabulary
from bearerd.errors import ConfigError

KEYS = """\
token_url: https://login.example.com/t
client_id: 7e0c5a
client_secret: {file: /etc/bearerd/dnb.secret}
"""
CLIENT = "clients:\n  dnb:\n" + "".join(f"    {line}\n" for line in KEYS.splitlines())
CONFIG = f"{CLIENT}    tokens:\n      bci: {{scope: bci}}\n"


def indented(text: str, spaces: int) -> str:
    return "".join(f"{' ' * spaces}{line}\n" for line in text.splitlines())


def headlines(path: Path, text: str, **files: str) -> list[str]:
    """`LINE:COLUMN: MESSAGE` of each error; of another file with its name in front."""
    for name, content in {"config": text, **files}.items():
        (path / f"{name}.yaml").write_text(content)
    with pytest.raises(ConfigError) as raised:
        load(str(path / "config.yaml"), {})
    lines = [problem.full.splitlines()[0] for problem in raised.value.problems]
    return [line.removeprefix(f"{path}/").removeprefix("config.yaml:") for line in lines]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            f"{CLIENT}tokens:\n  bci: {{}}\n",
            "6:1: 'tokens' is indented too little: begin it in column 5, as a key of client 'dnb'",
            id="tokens at the top level",
        ),
        pytest.param(
            f"{CLIENT}  tokens:\n    bci: {{}}\n",
            "6:3: 'tokens' is indented too little: begin it in column 5, as a key of client 'dnb'",
            id="tokens beside the client",
        ),
        pytest.param(
            f"clients:\n  dnb:\n{indented(KEYS, 2)}  tokens: {{bci: {{}}}}\n",
            "3:3: 'token_url' and the 3 keys after it are indented too little: begin them in column 5, as keys of "
            "client 'dnb'",
            id="all keys beside the client",
        ),
        pytest.param(
            f"clients:\n  dnb:\n{KEYS}tokens: {{bci: {{}}}}\n",
            "3:1: 'token_url' and the 3 keys after it are indented too little: begin them in column 5, "
            "as keys of client 'dnb'",
            id="all keys at the top level",
        ),
        pytest.param(
            f"clients:\n{indented(KEYS, 2)}  tokens: {{bci: {{}}}}\n",
            "2:3: 'token_url' and the 3 keys after it are keys of a client: write the name of a client above, and "
            "indent them",
            id="a client without a name",
        ),
        pytest.param(
            f"{KEYS}tokens: {{bci: {{}}}}\n",
            "1:1: 'token_url' and the 3 keys after it are keys of a client: write 'clients:' and the name of a client "
            "above, and indent them",
            id="a client without clients and a name",
        ),
        pytest.param(
            f"{KEYS}timeout: 5s\ntokens: {{bci: {{}}}}\n",
            "1:1: 'token_url' and the 4 keys after it are keys of a client: write 'clients:' and the name of a client "
            "above, and indent them",
            id="a client with keys of a provider without clients and a name",
        ),
        pytest.param(
            f"dnb:\n{indented(KEYS, 2)}  tokens: {{bci: {{}}}}\n",
            "1:1: 'dnb' looks like a client: write 'clients:' above, and indent it",
            id="a client without clients",
        ),
        pytest.param(
            f"clients:\ndnb:\n{indented(KEYS, 2)}  tokens: {{bci: {{}}}}\n",
            "2:1: 'dnb' is indented too little: begin it in column 3, as a client",
            id="a client like clients",
        ),
        pytest.param(
            f"{CLIENT}    tokens:\n    bci: {{scope: bci}}\n    risk:\n",
            "7:5: 'bci' and the key after it are indented too little: begin them in column 7, each as a token",
            id="tokens like tokens",
        ),
        pytest.param(
            f"{CLIENT}    tokens:\n      bci:\n      scope: bci\n",
            "8:7: 'scope' is indented too little: begin it in column 9, as a key of token 'bci'",
            id="a scope like its token",
        ),
        pytest.param(
            f"{CLIENT}    tokens:\n      scope: bci\n",
            "7:7: 'scope' is a key of a token: write the name of a token above, and indent it",
            id="a token without a name",
        ),
    ],
)
def test_what_is_indented_too_little_is_one_error(tmp_path: Path, text: str, said: str) -> None:
    found = headlines(tmp_path, text)
    # A token without a value is an error of its own.
    assert [line for line in found if "found nothing" not in line] == [said]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (f"{CLIENT}tokens:\n  bci: {{skope: x}}\n", "7:9: unknown key 'skope'; did you mean 'scope'?"),
        (f"{CLIENT}  tokens:\n    bci: {{skope: x}}\n", "7:11: unknown key 'skope'; did you mean 'scope'?"),
        (
            f"clients:\ndnb:\n{indented(KEYS, 2)}  auth: basic\n  tokens: {{bci: {{}}}}\n",
            "6:9: unknown value; did you mean 'client_secret_basic'?",
        ),
    ],
)
def test_what_was_indented_too_little_is_checked_too(tmp_path: Path, wrong: str, right: str) -> None:
    found = headlines(tmp_path, wrong)
    assert found[1:] == [right]


@pytest.mark.parametrize(
    ("where", "key", "said"),
    [
        ("token", "timeout: 1s", "'timeout' is a key of a client, not of a token"),
        ("token", "token_url: x", "'token_url' is a key of a client, not of a token"),
        ("token", "on_expiry: keep", "'on_expiry' is a key of output, not of a token"),
        ("token", "mode: x", "'mode' is a key of an entry of files, not of a token: write files: [{format: …, mode"),
        ("client", "scope: x", "'scope' is a key of a token, not of a client: write tokens: {NAME: {scope: …}}"),
        ("client", "scopes: [x]", "'scope' is a key of a token, not of a client: write tokens: {NAME: {scope: …}}"),
        ("client", "audience: x", "unknown key 'audience'; did you mean 'parameters'?"),
        ("client", "insecure_skip_verify: true", "unknown key 'insecure_skip_verify'; did you mean 'ca_file'?"),
        ("client", "tls: {verify: false}", "unknown key 'tls'; did you mean 'ca_file'?"),
        ("client", "parameters: a=b", "expected a mapping, found text; for example {audience: https://bill"),
        ("client", "headers: [X-Tenant]", "expected a mapping, found a list; for example {X-Tenant: acme, X-Api-Key:"),
        ("client", "auth: client_secret", "unknown value; did you mean 'client_secret_basic' or 'client_se"),
        ("client", "ca_file: $HOME/ca.pem", "expected an absolute path (/…); variables are not expanded"),
        ("top", "listen: {address: 127.0.0.1:1, hosts: a}", "expected a list, found text; for example [web1.examp"),
        ("top", "user: bearerd", "unknown key 'user': the top level has no such key"),
        ("client", "directory: x", "'directory' is a key of output, not of a client"),
        ("client", "include: [x]", "'include' is a key of the top level, not of a client"),
        ("top", "directory: /x", "'directory' is a key of output, not of the top level: write output: {directory: …}"),
        ("top", "page: true", "'page' is a key of listen, not of the top level: write listen: {address: …, page: …}"),
        ("top", "auth: none", "'auth' is a key of a client, not of the top level"),
        ("top", "proxy: http://h:1", "'proxy' is a key of a provider or a client, not of the top level"),
        ("top", "output: {files: []}", "'files' is a key of the top level, not of output"),
        ("token", "file: x", "unknown key 'file'; did you mean 'files'?"),
        ("client", "token: {}", "unknown key 'token'; did you mean 'tokens'?"),
        ("client", "token_path: x", "unknown key 'token_path': a client has no such key; config.example.yaml shows "),
        ("client", "auth:none", None),
        ("top", "log:{level: info}", "unknown key: a space is missing after the colon"),
        ("top", "clientsSecret: 1", "unknown key 'clientsSecret'"),
    ],
)  # fmt: skip
def test_a_key_at_a_wrong_place_says_where_it_belongs(tmp_path: Path, where: str, key: str, said: str | None) -> None:
    text = {
        "top": f"{key}\n{CONFIG}",
        "client": CONFIG.replace("    tokens:", f"    {key}\n    tokens:"),
        "token": CONFIG.replace("scope: bci", key),
    }[where]
    (found,) = headlines(tmp_path, text)
    assert found.split(": ", 1)[1].startswith(said or "a space is missing after the colon")


@pytest.mark.parametrize("key", ["token_endpoint", "url", "tokenUri"])
def test_the_name_that_another_program_has_for_a_required_key_is_one_error(tmp_path: Path, key: str) -> None:
    text = CONFIG.replace("token_url:", f"{key}:")
    assert headlines(tmp_path, text) == [f"3:5: unknown key '{key}'; did you mean 'token_url'?"]


def test_several_keys_that_belong_to_one_place_are_one_error(tmp_path: Path) -> None:
    text = f"providers:\n  p:\n{indented(KEYS, 4)}    tokens: {{a: {{}}}}\n{CONFIG}"
    assert headlines(tmp_path, text) == [
        "4:5: 'client_id', 'client_secret' and 'tokens' are keys of a client, not of a provider"
    ]


def test_a_scope_instead_of_tokens_is_one_error(tmp_path: Path) -> None:
    assert headlines(tmp_path, f"{CLIENT}    scope: bci\n") == [
        "6:5: 'scope' is a key of a token, not of a client: write tokens: {NAME: {scope: …}}"
    ]


@pytest.mark.parametrize("name", ["tokens", "auth", "provider"])
def test_a_client_may_have_the_name_of_a_key(tmp_path: Path, name: str) -> None:
    second = CONFIG.removeprefix("clients:\n").replace("dnb:", f"{name}:")
    (tmp_path / "c.yaml").write_text(f"{CONFIG}{second}")
    found = load(str(tmp_path / "c.yaml"), {})
    assert [target.full_name for target in found.targets] == ["dnb/bci", f"{name}/bci"]


def test_a_token_may_have_the_name_of_a_key(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG.replace("bci: {", "a: {}\n      scope: {"))
    assert [target.name for target in load(str(tmp_path / "c.yaml"), {}).targets] == ["a", "scope"]


@pytest.mark.parametrize("key", sorted(vocabulary()))
def test_every_key_of_a_part_is_known_at_each_other_place(key: str) -> None:
    for here in ((), ("output",), ("clients", "*"), ("clients", "*", "tokens", "*"), ("providers", "*")):
        for place in homes(key, here):
            assert named(place)
            assert key in keys_at(models.ConfigFile, tuple("x" if step == "*" else step for step in place))


@pytest.mark.parametrize("part", models.Part.__subclasses__())
def test_each_example_of_a_part_is_valid(part: type[models.Part]) -> None:
    if part.example:
        part.model_validate(yaml.safe_load(part.example))


SAME_FILE = "{files: [{format: raw, path: dnb/bci}]}"
"""The files of a token that has the file of `dnb/bci`."""

# -- all errors in one go ----------------------------------------------------------------------------


def test_an_error_of_one_stage_hides_none_of_another(tmp_path: Path) -> None:
    text = """\
log: {level: inof}
providers:
  p: {token_url: http://elsewhere/, timeout: 5}
clients:
  a:
    provider: p
    client_id: x
    client_id: y
    client_secret: {file: /s}
    tokens:
      one: {files: [{format: raw, path: t}]}
      two: {skope: x, files: [{format: raw, path: t}]}
  b:
    token_url: http://elsewhere/t
    client_id: [x]
    client_secret: {file: /s}
    tokens:
      one: {files: [{format: json}, {format: raw, path: t}]}
      two: {files: [{format: raw, path: ../t}, {format: raw, mode: no}]}
"""
    assert [line.split(" ")[0].rstrip(":") for line in headlines(tmp_path, text)] == [
        "1:14",  # inof
        "3:18",  # plain http
        "3:46",  # timeout
        "8:5",  # client_id twice
        "12:13",  # skope
        "12:51",  # a/two and a/one
        "14:16",  # plain http
        "15:16",  # client_id
        "18:57",  # b/one and a/one
        "19:41",  # ..
        "19:68",  # mode
    ]


def test_errors_in_the_main_file_and_in_an_included_one_are_reported_together(tmp_path: Path) -> None:
    more = CONFIG.replace("dnb:", "other:").replace("{scope: bci}", "{files: [{format: raw, path: dnb/bci}]}")
    found = headlines(tmp_path, f"include: [more.yaml]\nlog: {{level: 5}}\n{CONFIG}", more=f"{more}  x: [\n")
    assert [line.split(": ")[0] for line in found] == ["2:14", "more.yaml:8:6"]
    found = headlines(tmp_path, f"include: [more.yaml]\nlog: {{level: 5}}\n{CONFIG}", more=more)
    assert [line.split(": ")[0] for line in found] == ["2:14", "more.yaml:7:41"]


@pytest.mark.parametrize(
    "text",
    [
        CONFIG.replace("{scope: bci}", f"{{fils: [{{format: raw, path: x}}]}}\n      two: {SAME_FILE}"),
        CONFIG.replace("{scope: bci}", f"{{files: 5}}\n      two: {SAME_FILE}"),
        CONFIG.replace("{scope: bci}", f"{{path: x}}\n      two: {SAME_FILE}"),
        CONFIG.replace("{scope: bci}", "{files: [{format: raw, path: 5}, {format: raw, path: dnb/bci}]}"),
        CONFIG.replace("https://login.example.com/t", "http://localhost/t\n    allow_htp: true"),
        "log: {level: 5}\nlisten: {}\n" + CONFIG.replace("tokens:", "tokns:"),
    ],
)
def test_a_mistake_has_no_consequential_errors(tmp_path: Path, text: str) -> None:
    # The last one has three mistakes.
    assert len(headlines(tmp_path, text)) == (3 if "tokns" in text else 1)


def test_no_clients_are_reported_beside_other_errors_but_not_beside_a_mistyped_key(tmp_path: Path) -> None:
    assert [line.split(": ")[0] for line in headlines(tmp_path, "log: {level: 5}\n")] == ["1:1", "1:14"]
    assert headlines(tmp_path, "cleints: {}\n") == ["1:1: unknown key 'cleints'; did you mean 'clients'?"]


def test_the_second_of_two_clients_with_one_name_is_checked_too(tmp_path: Path) -> None:
    found = headlines(tmp_path, f"include: [more.yaml]\n{CONFIG}", more=CONFIG.replace("scope: bci", "scope: 5"))
    assert [line.split(": ")[0] for line in found] == ["more.yaml:2:3", "more.yaml:7:20"]


@pytest.mark.parametrize("secret", ["client_secret: {hunter2}", "password: {hunter2: x}"])
def test_a_mapping_below_a_misplaced_secret_is_not_named(tmp_path: Path, secret: str) -> None:
    (tmp_path / "config.yaml").write_text(f"providers:\n  {secret}\n{CONFIG}")
    with pytest.raises(ConfigError) as raised:
        load(str(tmp_path / "config.yaml"), {})
    assert "unknown key: a provider has no such key" in raised.value.full
    assert "hunter2" not in raised.value.full


def test_many_unknown_keys_and_names_take_no_time_each(tmp_path: Path) -> None:
    # In processor time. What was meant is found for the errors that are shown, and not among ten thousand names.
    keys = "".join(f"    k{number}: 1\n" for number in range(20_000))
    providers = "".join(f"  p{number}: {{token_url: https://login.example.com/t}}\n" for number in range(3000))
    clients = "".join(
        f"  c{number}: {{provider: q{number}, client_id: a, client_secret: {{file: /s}}, tokens: {{a: {{}}}}}}\n"
        for number in range(1000)
    )
    start = time.process_time()
    *_, last = headlines(tmp_path, f"clients:\n  c:\n{keys}")
    assert last.endswith("and 19001 more errors; is this the right file?")
    found = headlines(tmp_path, f"providers:\n{providers}clients:\n{clients}")
    assert len(found) == 1000
    assert time.process_time() - start < 12


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("client_id: 7", "client_id:7"),
        ("    client_id", "   client_id"),
        ("    client_id", "  client_id"),
        ("    client_id", "     client_id"),
        ("      bci", "\t  bci"),
        ("7e0c5a", "'7e0c5a"),
        ("7e0c5a", "@7e0c5a"),
        ("{scope: bci}", "{scope: bci"),
        ("dnb.secret}", "dnb.secret"),
        ("    client_id", "    - client_id"),
    ],
)
def test_a_text_that_is_not_yaml_hides_no_error_after_it(tmp_path: Path, old: str, new: str) -> None:
    client = CONFIG.replace(old, new)
    text = f"log: {{level: inof}}\n{client}  last:\n{indented(KEYS, 4)}    auth: post\n    tokens: {{a: {{}}}}\n"
    text += "output:\n  mode: 640\n   group: x\nlisten: {page: 5}\n"
    first, mistake, value, indentation, *after = headlines(tmp_path, text)
    assert first == "1:14: unknown value; did you mean 'info'?"
    assert 5 <= int(mistake.split(":")[0]) <= 8
    assert value == "13:11: unknown value; did you mean 'client_secret_post'?"
    assert indentation.startswith("17:4: indented further than line 16, whose key has a value already")
    assert [line.split(": ")[0] for line in after] == ["18:1", "18:16"]


TWO_CLIENTS = f"{CONFIG}  last:\n{indented(KEYS, 4)}    tokens: {{a: {{}}}}\nlog: {{level: info}}\n"


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (
            "clients:",
            " clients:",
            ["1:2: 'clients' is indented too far: begin it in column 1, as a key of the top level"],
        ),
        ("log:", "\tproviders:\n  a: {token_url: https://h/t}\nlog:", ["13:1: a tab in the indentation"]),
        ("\n    token_url", "\ntoken_url", ["3:1: 'token_url' is indented too little: begin it in column 5"]),
        ("  dnb:", "\tdnb:", ["2:1: a tab"]),
    ],
)
def test_a_mistake_in_the_indentation_is_not_repeated_for_the_lines_below_it(
    tmp_path: Path, old: str, new: str, found: list[str]
) -> None:
    said = headlines(tmp_path, TWO_CLIENTS.replace(old, new, 1))
    assert len(said) == len(found), said
    assert all(line.startswith(start) for line, start in zip(said, found, strict=True)), said


def test_providers_under_a_mistyped_key_are_not_unknown_too(tmp_path: Path) -> None:
    client = CONFIG.replace("token_url: https://login.example.com/t", "provider: sso")
    text = f"providrs:\n  sso: {{token_url: https://login.example.com/t}}\n{client}"
    assert headlines(tmp_path, text) == ["1:1: unknown key 'providrs'; did you mean 'providers'?"]


def test_a_provider_in_a_file_that_is_not_yaml_is_not_reported_as_unknown(tmp_path: Path) -> None:
    client = CONFIG.replace("token_url: https://login.example.com/t", "provider: sso")
    (line,) = headlines(tmp_path, f"include: [more.yaml]\n{client}", more="providers: [\n")
    assert line == "more.yaml:1:12: the [ that opens here is never closed by ]"
    (line,) = headlines(tmp_path, f"include: [more.yaml]\n{client}", more="providers: {'a}\n")
    assert line.startswith("more.yaml:1:13: the quote")


def test_a_text_that_is_neither_yaml_nor_a_config_has_one_error(tmp_path: Path) -> None:
    secrets = "hunter2: x\npassword: hunter2\n  a: b\nDB_URL=postgres://u:hunter2@h\n"
    for text in (secrets, f"{secrets}clients: {{}}\n", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END: x\n"):
        (line,) = headlines(tmp_path, f"include: [more.yaml]\n{CONFIG}", more=text)
        assert "hunter2" not in line


@pytest.mark.parametrize("number", range(1, 6))
@pytest.mark.parametrize("by", [-2, 2])
def test_a_line_that_is_moved_by_one_level_is_one_error(tmp_path: Path, number: int, by: int) -> None:
    lines = TWO_CLIENTS.splitlines()
    line = lines[number]
    lines[number] = line[-by:] if by < 0 else " " * by + line
    (found,) = headlines(tmp_path, "\n".join(lines) + "\n")
    assert found


LARGER = """\
log: {level: info}
providers:
  sandbox:
    token_url: https://login.example.com/sandbox
    timeout: 5s
  production:
    token_url: https://login.example.com/production
    headers:
      X-Tenant: acme
clients:
  dnb:
    provider: sandbox
    client_id: 7e0c5a
    client_secret: {file: /etc/bearerd/dnb.secret}
    tokens:
      bci: {scope: bci}
      risk:
        scope: risk
        files:
          - format: raw
          - {format: header}
  billing:
    provider: production
    client_id: 9f1d4b
    client_secret:
      file: /etc/bearerd/billing.secret
    parameters:
      audience: https://billing.example.com
    tokens:
      read: {scope: read}
      write:
        scope: write
  reports:
    token_url: https://reports.example.com/token
    client_id: reports
    auth: none
    tokens: {all: {}}
"""


def moved(lines: list[str], first: int, after: int, by: int) -> str:
    """The text with these lines moved to the right, or to the left as far as there are spaces."""
    some = [
        " " * by + line if by > 0 else line[min(-by, len(line) - len(line.lstrip())) :] for line in lines[first:after]
    ]
    return "".join(f"{line}\n" for line in (*lines[:first], *some, *lines[after:]))


def errors_of(path: Path, text: str) -> list[str]:
    """Each error in full; none if the config is valid."""
    (path / "config.yaml").write_text(text)
    try:
        load(str(path / "config.yaml"), {})
    except ConfigError as error:
        return [problem.full for problem in error.problems]
    return []


@pytest.mark.parametrize("by", [2, -2])
@pytest.mark.parametrize("block", [False, True], ids=["line", "block"])
def test_no_line_or_block_that_is_moved_by_one_level_is_two_errors(tmp_path: Path, by: int, *, block: bool) -> None:
    lines = LARGER.splitlines()
    assert errors_of(tmp_path, LARGER) == []
    several = {}
    for first, line in enumerate(lines):
        level = len(line) - len(line.lstrip())
        deeper = (len(each) - len(each.lstrip()) > level for each in lines[first + 1 :])
        after = first + 1 + (next((at for at, below in enumerate(deeper) if not below), 0) if block else 0)
        found = errors_of(tmp_path, moved(lines, first, after, by))
        if len(found) > 1:
            several[first + 1] = found
    assert several == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            CONFIG.replace("    client_id", "    ? client_id"), "remove the question mark", id="question mark"
        ),
        pytest.param(CONFIG.replace("7e0c5a", "#7e0c5a"), "a value that begins with # must be in quotes", id="comment"),
        pytest.param(LARGER.replace("clients:\n", ""), "clients", id="the line clients is missing"),
        pytest.param(
            "clients:\ndnb:\n  token_url: https://login.example.com/t\n  client_id: 7e0c5a\n"
            "    client_secret: {file: /etc/bearerd/dnb.secret}\n  tokens:\n      bci: {scope: bci}\n"
            "    client_id: 9f1d4b\n",
            "",
            id="a key that is moved, and moved back with its block",
        ),
    ],
)
def test_a_mark_or_a_missing_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert any(said in error for error in errors_of(tmp_path, text))
