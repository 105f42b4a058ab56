"""Templates: each built-in one by a real reader of its language, and all that may be wrong with one's own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bearerd.errors import PublishError
from bearerd.model import Config, Output, Target
from bearerd.publish import template as module
from bearerd.publish.content import content_of
from bearerd.publish.examination import Examination
from bearerd.publish.publisher import Publisher
from bearerd.publish.template import Templates, tojson
from bearerd.terms import TEMPLATES, Token
from support.process import eventually
from support.server import Answer, Server, serving
from support.targets import TARGET, token

SECRET = "s3cr3t-T0k3n.0f_n0b0dy~3lses"
# All characters of a token (RFC 6749 A.12), mostly those with a special meaning somewhere.
ANY = st.one_of(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60),
    st.text(st.sampled_from("\"'\\$%#{}()[]`;:,=<>&|!@*?~-+^/abntux01"), min_size=1, max_size=24),
)
NASTY = [
    '"', "'", "\\", "#", "$", "%", ";", "`", "~", "\\\\", '\\"', '"\\', "\\n", "\\t", "\\0", "\\x41", "\\u0041", '"";',
    '";}', "';}", "$HOME", "${HOME}", "$1", "$(id)", "`id`", "%s", "%00", "%22", "%[src]", "%{+Q}o", "{{", "}}", "{%",
    "{#", "{{access_token}}", "{%endraw%}", "#comment", ";comment", "a#b", "a;b", "a=b", "a:b", "@/etc/passwd", "<!--",
    "&amp;", "!!python/name:os.system", "*alias", "&anchor", "-", "---", "...", "|", ">", "?", "null", "true", "1e3",
    "\"'\\$%#{{`;:,&<>|!@*?~", "a" * 60 + "\\",
]  # fmt: skip
LONG = "".join(chr(0x21 + index % 94) for index in range(40_000))
SEVERAL = st.lists(ANY, min_size=40, max_size=40)
"""For programs that are slow to start."""
ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
EXAMINATION = Examination(Config("/run/bearerd", "/run/bearerd"))
TEMPLATED = Templates()
NEEDED = {"gitconfig": {"url": "https://git.example.com"}, "gcp-external-account": {"audience": "//iam"}}
"""The variables that the built-in templates require."""

Write = Callable[[str | bytes], str]
"""A template's text to its path."""


def output(name: str, path: str = "/run/bearerd/out", /, variable: str = "DNB_BCI_TOKEN", **variables: str) -> Output:
    return Output(path, "template", template=name, variable=variable, vars=tuple(variables.items()))


def made(name: str, given: str | Token = "opaque-1", path: str = "/run/bearerd/out", /, **variables: str) -> str:
    """What a template makes of a token."""
    issued = token(given) if isinstance(given, str) else given
    return content_of(TARGET, issued, output(name, path, **variables), TEMPLATED).decode()


def fault(name: str, given: str | Token = SECRET, /, **variables: str) -> str:
    """How it complains."""
    with pytest.raises(PublishError) as caught:
        made(name, given, **variables)
    said = str(caught.value)
    assert said.startswith(f"template {name}: ")
    return said.removeprefix(f"template {name}: ")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str | bytes) -> str:
        path = tmp_path / "own.j2"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


# -- the built-in ones ---------------------------------------------------------------------------------


def needs(program: str, package: str) -> pytest.MarkDecorator:
    missing = shutil.which(program) is None
    return pytest.mark.skipif(missing, reason=f"{program} is not here: apt-get install {package}")


@pytest.fixture(scope="module")
def api() -> Iterator[Server]:
    with serving(lambda _: Answer()) as server:
        yield server


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


def test_the_built_in_templates_are_the_files_of_the_package() -> None:
    folder = Path(module.__file__).parent / "templates"
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.j2" for name in TEMPLATES]


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_template_is_tried_without_a_token(name: str, tmp_path: Path) -> None:
    whole = replace(TARGET, outputs=(output(name, str(tmp_path / "out"), **NEEDED.get(name, {})),))
    assert EXAMINATION.files_of(whole) == []


@pytest.mark.parametrize(("name", "missing"), [("gitconfig", "url"), ("gcp-external-account", "audience")])
def test_a_missing_variable_is_an_error_with_its_name(name: str, missing: str, tmp_path: Path) -> None:
    (said,) = EXAMINATION.files_of(replace(TARGET, outputs=(output(name, str(tmp_path / "out")),)))
    assert said.startswith(f"template {name}: line ")
    assert said.endswith(f": '{missing}' is not defined")


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_ends_its_last_line_and_has_no_empty_one(name: str) -> None:
    lines = made(name, **NEEDED.get(name, {})).split("\n")
    assert lines.pop() == ""
    assert "" not in lines


def sent(api: Server, argv: Sequence[str | Path]) -> dict[str, str]:
    """The request that a program sends to a server."""
    api.seen.clear()
    done = subprocess.run(argv, env=ENVIRON, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (seen,) = api.seen
    return {name: value for name, value in seen.headers.items() if name not in {"host", "user-agent", "connection"}}


def assert_curl_sends(text: str, api: Server, place: Path) -> None:
    (place / "curlrc").write_text(made("curlrc", text))
    headers = sent(api, ["curl", "-q", "-sS", "--noproxy", "*", "-m20", "-K", place / "curlrc", api.url])
    assert headers == {"accept": "*/*", "authorization": f"Bearer {text}"}


@needs("curl", "curl")
@settings(max_examples=40)
@given(text=ANY)
def test_curl_sends_any_token_unchanged(api: Server, place: Path, text: str) -> None:
    assert_curl_sends(text, api, place)


@needs("curl", "curl")
def test_curl_sends_the_worst_of_them(api: Server, place: Path) -> None:
    for text in (*NASTY, LONG):
        assert_curl_sends(text, api, place)


def assert_wget_sends(text: str, api: Server, place: Path) -> None:
    (place / "wgetrc").write_text(made("wgetrc", text))
    quietly = ["-qO/dev/null", "--no-hsts", "--no-proxy", "-t1", "-T20"]
    headers = sent(api, ["wget", f"--config={place / 'wgetrc'}", *quietly, api.url])
    assert headers == {"accept": "*/*", "accept-encoding": "identity", "authorization": f"Bearer {text}"}


@needs("wget", "wget")
@settings(max_examples=40)
@given(text=ANY)
def test_wget_sends_any_token_unchanged(api: Server, place: Path, text: str) -> None:
    assert_wget_sends(text, api, place)


@needs("wget", "wget")
def test_wget_sends_the_worst_of_them(api: Server, place: Path) -> None:
    for text in (*NASTY, LONG):
        assert_wget_sends(text, api, place)


def assert_git_reads(text: str, place: Path, url: str = "https://git.example.com/a") -> None:
    (place / "gitconfig").write_text(made("gitconfig", text, url=url))
    listed = ["git", "config", "--file", str(place / "gitconfig"), "--null", "--list"]
    done = subprocess.run(listed, env=ENVIRON, capture_output=True, text=True, check=True)
    assert done.stdout == f"http.{url}.extraheader\nAuthorization: Bearer {text}\0"


@needs("git", "git")
@settings(max_examples=40)
@given(text=ANY)
def test_git_reads_any_token_unchanged(place: Path, text: str) -> None:
    assert_git_reads(text, place)


@needs("git", "git")
def test_git_reads_the_worst_of_them_and_the_worst_url(place: Path) -> None:
    for text in (*NASTY, LONG):
        assert_git_reads(text, place)
        assert_git_reads("abc", place, f"https://git.example.com/{text}")


@needs("git", "git")
def test_git_sends_it_to_that_url_only(api: Server, place: Path) -> None:
    (place / "gitconfig").write_text(made("gitconfig", url=f"{api.url}/ours"))
    fetch = ["git", "-c", f"include.path={place / 'gitconfig'}", "ls-remote"]
    for folder in ("ours", "theirs"):
        subprocess.run([*fetch, f"{api.url}/{folder}"], env=ENVIRON, capture_output=True, check=False)
    received = {
        seen.path.split("/")[2]: seen.headers.get("authorization") for seen in api.seen if "/info/refs" in seen.path
    }
    assert received == {"ours": "Bearer opaque-1", "theirs": None}


@given(text=ANY)
@example("\"'\\$%#{{`;:,&<>|!@*?~")
def test_envoy_reads_any_token_unchanged(text: str) -> None:
    (resource,) = yaml.safe_load(made("envoy-sds", text))["resources"]
    assert resource == {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": "dnb/bci",
        "generic_secret": {"secret": {"inline_string": f"Bearer {text}"}},
    }


def test_the_name_for_envoy_can_be_configured() -> None:
    (resource,) = yaml.safe_load(made("envoy-sds", name="it's #1: \u00e5\U0001f511"))["resources"]
    assert resource["name"] == "it's #1: \u00e5\U0001f511"


@given(text=ANY)
@example("\"'\\$%#{{`;:,&<>|!@*?~")
def test_google_reads_any_token_from_the_file(text: str) -> None:
    document = json.loads(made("gcp-external-account", text, '/run/"a', audience="//iam.googleapis.com/x"))
    source = document["credential_source"]
    assert source == {"file": '/run/"a', "format": {"type": "json", "subject_token_field_name": "access_token"}}
    assert document | {"credential_source": None} == {
        "type": "external_account",
        "audience": "//iam.googleapis.com/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": None,
        "access_token": text,
    }


def test_google_gets_a_configured_exchange_and_service_account() -> None:
    more = {"audience": "a", "subject_token_type": "b", "token_url": "https://c", "service_account": "d@e.example"}
    document = json.loads(made("gcp-external-account", **more))
    assert (document["subject_token_type"], document["token_url"]) == ("b", "https://c")
    assert document["service_account_impersonation_url"] == (
        "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/d@e.example:generateAccessToken"
    )


@given(text=ANY)
@example("\"'\\$%#{{`;:,&<>|!@*?~")
def test_a_kubeconfig_without_a_server_has_a_user(text: str) -> None:
    assert yaml.safe_load(made("kubeconfig", text)) == {
        "apiVersion": "v1",
        "kind": "Config",
        "users": [{"name": "dnb-bci", "user": {"token": text}}],
    }


def test_a_kubeconfig_with_a_server_is_complete() -> None:
    document = yaml.safe_load(made("kubeconfig", name="n", server="https://k:6443", ca_file="/etc/ca: #1.pem"))
    assert document == {
        "apiVersion": "v1",
        "kind": "Config",
        "users": [{"name": "n", "user": {"token": "opaque-1"}}],
        "clusters": [
            {"name": "n", "cluster": {"server": "https://k:6443", "certificate-authority": "/etc/ca: #1.pem"}}
        ],
        "contexts": [{"name": "n", "context": {"cluster": "n", "user": "n"}}],
        "current-context": "n",
    }
    (cluster,) = yaml.safe_load(made("kubeconfig", server="https://k:6443"))["clusters"]
    assert cluster["cluster"] == {"server": "https://k:6443"}


@needs("kubectl", "kubernetes-client")
def test_kubectl_reads_the_worst_of_them(tmp_path: Path) -> None:
    tokens = {f"it's {number}: \u00e5\U0001f511": text for number, text in enumerate((*NASTY, LONG))}
    files = []
    for number, (name, text) in enumerate(tokens.items()):
        files.append(tmp_path / f"{number}")
        files[-1].write_text(made("kubeconfig", text, name=name, server="https://k:6443"))
    environ = ENVIRON | {"KUBECONFIG": ":".join(map(str, files))}
    view = ["kubectl", "config", "view", "--raw", "-o", "json"]
    document = json.loads(subprocess.run(view, env=environ, capture_output=True, check=True).stdout)
    assert {user["name"]: user["user"] for user in document["users"]} == {
        name: {"token": text} for name, text in tokens.items()
    }


@contextmanager
def proxying(argv: Sequence[str | Path], at: Path) -> Iterator[None]:
    """A proxy that listens at a socket, until the end of a with block."""
    with subprocess.Popen(argv, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:

        def ready() -> bool:
            assert process.poll() is None, process.communicate()[0]
            with socket.socket(socket.AF_UNIX) as line:
                return line.connect_ex(str(at)) == 0

        try:
            eventually(ready)
            yield
        finally:
            process.kill()
            process.communicate()


def asked(at: Path, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(20)
        line.connect(str(at))
        line.sendall(b"GET %b HTTP/1.0\r\nHost: x\r\n\r\n" % path.encode())
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 "), answer


def assert_all_arrive(tokens: Sequence[str], api: Server, at: Path) -> None:
    """Each at its own path, in the one header that is added."""
    api.seen.clear()
    for number in range(len(tokens)):
        asked(at, f"/{number}")
    assert [seen.headers.get("authorization") for seen in api.seen] == [f"Bearer {text}" for text in tokens]


def assert_nginx_sends(tokens: Sequence[str], api: Server, place: Path) -> None:
    at = place / "nginx.sock"
    at.unlink(missing_ok=True)
    lines = [f"pid {place}/nginx.pid; error_log stderr; daemon off; master_process off; events {{}} http {{"]
    lines += ["access_log off; proxy_http_version 1.1;"]
    lines += [f"{kind}_temp_path {place}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    for number, text in enumerate(tokens):
        (place / f"nginx-{number}").write_text(made("nginx", text, variable=f"TOKEN_{number}"))
        lines += [f"include {place}/nginx-{number};"]
    lines += [f"server {{ listen unix:{at};"]
    for number in range(len(tokens)):
        lines += [f"location = /{number} {{ proxy_set_header Authorization $token_{number};"]
        lines += [f"proxy_pass http://127.0.0.1:{api.port}; }}"]
    (place / "nginx.conf").write_text("\n".join([*lines, "} }", ""]))
    with proxying(["nginx", "-p", place, "-e", "stderr", "-c", place / "nginx.conf"], at):
        assert_all_arrive(tokens, api, at)


@needs("nginx", "nginx-light")
@settings(max_examples=10)
@given(tokens=SEVERAL)
def test_nginx_sends_any_token_unchanged(api: Server, place: Path, tokens: list[str]) -> None:
    assert_nginx_sends(tokens, api, place)


@needs("nginx", "nginx-light")
def test_nginx_sends_the_worst_of_them_and_those_over_its_4_kib_a_word(api: Server, place: Path) -> None:
    # The lengths with "Bearer " about one piece and two; all of it escaped; and more than any reply holds.
    lengths = ["x" * (count - 7) for count in (1999, 2000, 2001, 4000, 4001)]
    assert_nginx_sends([*NASTY, *lengths, '\\"' * 3000, LONG], api, place)


def test_nginx_has_the_variable_in_lower_case() -> None:
    said = "# Included within http: proxy_set_header Authorization $dnb_bci_token;"
    assert made("nginx", "abc") == f'{said}\ngeo $dnb_bci_token {{\n    default "Bearer abc";\n}}\n'


def assert_haproxy_sends(tokens: Sequence[str], api: Server, place: Path) -> None:
    at = place / "haproxy.sock"
    at.unlink(missing_ok=True)
    lines = ["defaults", "  mode http", "  timeout connect 20s", "  timeout client 20s", "  timeout server 20s"]
    lines += ["frontend ours", f"  bind unix@{at}"]
    for number, text in enumerate(tokens):
        (place / f"haproxy-{number}").write_text(made("haproxy-map", text))
        found = f"%[str(dnb/bci),map({place}/haproxy-{number})]"
        lines += [f"  http-request set-header Authorization {found} if {{ path /{number} }}"]
    lines += ["  default_backend theirs", "backend theirs", f"  server theirs 127.0.0.1:{api.port}", ""]
    (place / "haproxy.cfg").write_text("\n".join(lines))
    with proxying(["haproxy", "-db", "-q", "-f", place / "haproxy.cfg"], at):
        assert_all_arrive(tokens, api, at)


@needs("haproxy", "haproxy")
@settings(max_examples=10)
@given(tokens=SEVERAL)
def test_haproxy_sends_any_token_unchanged(api: Server, place: Path, tokens: list[str]) -> None:
    assert_haproxy_sends(tokens, api, place)


@needs("haproxy", "haproxy")
def test_haproxy_sends_the_worst_of_them(api: Server, place: Path) -> None:
    assert_haproxy_sends([*NASTY, LONG[:8000]], api, place)


# -- one's own -----------------------------------------------------------------------------------------


def test_a_template_has_all_fields_of_json_and_the_files_variables(write: Write) -> None:
    names = "client token access_token token_type scope expires_in expires_at obtained_at path variable vars"
    path = write(
        "[" + ",".join(f"{{{{ {name} | tojson }}}}" for name in names.split()) + ",{{ instance_url | tojson }}]"
    )
    issued = token("abc", scope="bci", lifetime=3599.9, extra='{"instance_url": "https://eu.example.com"}')
    assert json.loads(made(path, issued, a="b")) == [
        "dnb", "bci", "abc", "Bearer", "bci", 3599, "2027-01-15T08:59:59Z", "2027-01-15T08:00:00Z",
        "/run/bearerd/out", "DNB_BCI_TOKEN", {"a": "b"}, "https://eu.example.com",
    ]  # fmt: skip


def test_fields_of_the_provider_do_not_replace_bearerds_own(write: Write) -> None:
    ours = ["access_token", "client", "token", "path", "variable", "vars"]
    extra = json.dumps(dict.fromkeys([*ours, "theirs"], "not this"))
    path = write("{{ [" + ",".join(ours) + ", theirs] | tojson }}")
    expected = ["abc", "dnb", "bci", "/run/bearerd/out", "DNB_BCI_TOKEN", {}, "not this"]
    assert json.loads(made(path, token("abc", extra=extra))) == expected


def test_a_missing_scope_is_undefined_and_can_be_tested_for(write: Write) -> None:
    assert made(write("{{ scope | default('none') }}")) == "none"
    assert fault(write("a\n{{ scope }}")) == "line 2: 'scope' is not defined"


@pytest.mark.parametrize("name", ["values", "items", "keys", "get", "pop", "update", "copy"])
def test_a_variable_can_have_the_name_of_a_method(write: Write, name: str) -> None:
    path = write("{{ vars." + name + " }} {{ vars['" + name + "'] }} {{ inner." + name + " }}")
    assert made(path, token(extra=json.dumps({"inner": {name: "c"}})), **{name: "b"}) == "b b c"


def test_methods_of_dict_still_work(write: Write) -> None:
    path = write("{% for key, value in vars.items() %}{{ key }}={{ value }};{% endfor %}")
    assert made(path, a="b", c="d") == "a=b;c=d;"


def test_the_final_line_end_of_a_template_is_kept(write: Write) -> None:
    assert made(write("{{ client }}\n\n")) == "dnb\n\n"
    assert made(write("{{ client }}")) == "dnb"


def test_a_byte_order_mark_is_ignored(write: Write) -> None:
    assert made(write(b"\xef\xbb\xbf{{ client }}")) == "dnb"


def test_nothing_is_escaped_as_html(write: Write) -> None:
    path = write("{{ access_token }} {{ '<' + (access_token | tojson) + '>' }} {{ vars | tojson | quoted }}")
    assert made(path, "<a'&b>", a="<") == '<a\'&b> <"<a\'&b>"> "{\\"a\\": \\"<\\"}"'


@given(text=st.text())
@example("\\ud83d\\udd11</script>'\"\x00\x1f\x7e\xa0\u2027\u202a\ud7ff\ue000\ufffd\U00010000\U0001f511\U0010ffff")
@example("\x7f")
@example("\x80 \x84")
@example(" \x85 ")
@example("\x86 \x9f")
@example(" \u2028 ")
@example(" \u2029 ")
@example("\ufeff")
@example("\ufffe")
@example("\uffff")
@example("\udfff")
@example("\ud800")
def test_json_and_yaml_read_tojson_alike(text: str) -> None:
    written = tojson(text)
    assert json.loads(written) == text
    written.encode()
    if not any("\ud800" <= char <= "\udfff" for char in text):  # halves of a character, which YAML knows nothing of
        assert yaml.safe_load(written) == text


def test_tojson_sorts_and_can_indent(write: Write) -> None:
    issued = token(extra='{"b": {"d": 1, "c": [null, true, 1.5]}}')
    assert made(write("{{ b | tojson }}"), issued) == '{"c": [null, true, 1.5], "d": 1}'
    assert made(write("{{ b.c | tojson(indent=1) }}"), issued) == "[\n null,\n true,\n 1.5\n]"


@needs("git", "git")
@given(text=st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from("\n\t\"\\#;'")))
@example("\n")
@example("\t")
@example('\\n \\\\ " # ; ')
@settings(max_examples=25)
def test_git_reads_any_field_in_quotes(place: Path, text: str) -> None:
    (place / "quoted.j2").write_text("[a]\nb = {{ field | quoted }}\n")
    (place / "quoted").write_text(made(str(place / "quoted.j2"), token(extra=json.dumps({"field": text}))))
    listed = ["git", "config", "--file", str(place / "quoted"), "--null", "--list"]
    done = subprocess.run(listed, env=ENVIRON, capture_output=True, check=True)
    assert done.stdout.decode() == f"a.b\n{text}\0"


@pytest.mark.parametrize("char", ["\0", "\r", "\x0b", "\x1b", "\x7f"])
def test_a_control_character_is_not_quoted(write: Write, char: str) -> None:
    path = write("\n{{ field | quoted }}")
    said = fault(path, token(SECRET, extra=json.dumps({"field": f"{SECRET}{char}"})))
    assert said == "line 2: a control character cannot be quoted"


@pytest.mark.parametrize("value", [None, [], {"a": "b"}])
def test_only_texts_and_numbers_are_quoted(write: Write, value: object) -> None:
    path = write("{{ field | quoted }}")
    assert fault(path, token(extra=json.dumps({"field": value}))) == "line 1: quoted accepts text or a number"
    assert made(write("{{ a | quoted }} {{ b | quoted }}"), token(extra='{"a": 12, "b": 1.5}')) == '"12" "1.5"'


HIDDEN = " (its text is not shown because it could hold the token)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ nope }}", "'nope' is not defined"),
        ("{{ vars.nope }}", "'nope' is not defined"),
        ("{{ nope | quoted }}", "'nope' is not defined"),
        ("{{ vars.nope | tojson }}", "'nope' is not defined"),
        ("{{ [{'a': nope}] | tojson }}", "'nope' is not defined"),
        ("{% if nope %}{% endif %}", "'nope' is not defined"),
        ("{{ nope.deeper }}", "'nope' is not defined"),
        ("{{ [] | first }}", "No first item, sequence was empty"),
        ("{{ access_token.upper | tojson }}", "tojson accepts text, numbers, truth values, lists and mappings"),
        ("{{ access_token }", "unexpected '}'"),
        ("{{ a b }}", "expected token 'end of print statement', got 'b'"),
        ("{% if %}", "Expected an expression, got 'end of statement block'"),
        ("{{ client | quotd }}", "No filter named 'quotd'"),
        ("{% include 'other.j2' %}", "extends, include and import are not allowed"),
        ("{% include access_token ignore missing %}", "extends, include and import are not allowed"),
        ("{% extends '/etc/passwd' %}", "extends, include and import are not allowed"),
        ("{% import 'x' as x %}", "extends, include and import are not allowed"),
        ("{% if false %}{% from 'x' import y %}{% endif %}", "extends, include and import are not allowed"),
        ("{% for n in range(200000) %}x{% endfor %}", f"OverflowError{HIDDEN}"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", f"RecursionError{HIDDEN}"),
        ("{{ 1 / 0 }}", f"ZeroDivisionError{HIDDEN}"),
        ("{{ access_token.__class__ }}", f"SecurityError{HIDDEN}"),
        ("{{ lipsum.__globals__ }}", f"SecurityError{HIDDEN}"),
        ("{{ vars.update({'a': 'b'}) }}", f"SecurityError{HIDDEN}"),
        ("{{ '{0.__class__}'.format(client) }}", f"SecurityError{HIDDEN}"),
    ],
)
def test_errors_in_a_template_name_the_line(write: Write, text: str, said: str) -> None:
    assert fault(write(f"one\n{text}\nthree")) == f"line 2: {said}"


@pytest.mark.parametrize(
    "text",
    [
        "{{ vars[access_token] }}",
        "{{ {}[access_token | upper] }}",
        "{{ client[access_token] }}",
        "{{ [1] | map(access_token) | list }}",
        "{{ [1] | select(access_token) | list }}",
        "{{ client | attr('__' ~ access_token) }}",
        "{{ {'a': 1} | dictsort(by=access_token) }}",
        "{{ access_token | int(default=access_token) + 1 }}",
        "{{ '%d' % access_token }}",
        "{{ access_token.encode('utf-16')[1:].decode('utf-16') }}",
        "{{ 'a'.encode(access_token) }}",
        "{{ access_token.index('?') }}",
        "{{ {access_token: 1} | tojson | int + nope[access_token] }}",
        "{{ vars.b[access_token] }}",
        "{{ client | round(method=access_token) }}",
        "{{ namespace(a=access_token).b }}",
        "{{ access_token() }}",
        "{{ raise(access_token) }}",
        "{% macro a(b) %}{{ b }}{% endmacro %}{{ a(c=access_token, **{access_token: 1}) }}",
        "{{ client | xmlattr }}",
        "{{ {access_token ~ ' ': 1} | xmlattr }}",
        "{{ client | urlize(extra_schemes=[access_token]) }}",
        "{{ access_token | slice(access_token) | list }}",
    ],
)
def test_no_error_holds_a_piece_of_the_token(write: Write, text: str) -> None:
    said = fault(write(f"one\n{text}"), b="c")
    assert said.startswith("line 2: ")
    pieces = {SECRET[start : start + 4] for start in range(len(SECRET) - 3)}
    assert [piece for piece in pieces if piece.casefold() in said.casefold()] == []


def test_text_that_cannot_be_encoded_is_an_error(write: Write) -> None:
    assert fault(write("{{ half }}"), token(extra='{"half": "\\ud800"}')) == f"UnicodeEncodeError{HIDDEN}"


@pytest.mark.parametrize("text", ["", "\n \t\n", "{# nothing #}", "{% if scope is defined %}x{% endif %}"])
def test_a_template_with_empty_output_makes_no_file(write: Write, text: str) -> None:
    assert fault(write(text)) == "its output is empty, and bearerd writes no empty files"


def test_a_template_in_another_encoding_is_an_error_with_the_line(write: Write) -> None:
    assert fault(write(b"one\ntwo\n\xe5\n")) == "line 3: not UTF-8 text"


def test_a_template_is_at_most_1_mib(write: Write) -> None:
    assert made(write("a" * 2**20)) == "a" * 2**20
    assert fault(write("a" * (2**20 + 1))) == "larger than 1 MiB, so not a template"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _: None, "no such file or directory"),
        (os.mkdir, "it is a directory, not a regular file"),
        (os.mkfifo, "it is a FIFO, not a regular file"),
        (lambda path: os.symlink("/dev/zero", path), "it is a device, not a regular file"),
        (lambda path: os.symlink(path, path), "too many levels of symbolic links"),
    ],
    ids=["nothing", "a directory", "a FIFO", "a device", "a link to itself"],
)
def test_only_regular_files_are_templates(tmp_path: Path, make: Callable[[str], object], said: str) -> None:
    path = str(tmp_path / "own.j2")
    make(path)
    assert fault(path) == said


def test_an_open_pipe_does_not_block(tmp_path: Path) -> None:
    path = str(tmp_path / "own.j2")
    os.mkfifo(path)
    held = os.open(path, os.O_RDWR)
    try:
        assert fault(path) == "it is a FIFO, not a regular file"
    finally:
        os.close(held)


def test_a_template_behind_a_symlink_is_read_again_after_a_switch(tmp_path: Path) -> None:
    # As Kubernetes mounts it.
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.j2").write_text(name)
    (tmp_path / "..data").symlink_to("a")
    (tmp_path / "own.j2").symlink_to("..data/own.j2")
    assert made(str(tmp_path / "own.j2")) == "a"
    (tmp_path / "..new").symlink_to("b")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert made(str(tmp_path / "own.j2")) == "b"


def test_a_changed_template_is_noticed_whatever_its_times(write: Write) -> None:
    path = write("a {{ client }}")
    status = os.stat(path)
    assert made(path) == "a dnb"
    write("b {{ client }}")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert made(path) == "b dnb"
    os.unlink(path)
    assert fault(path) == "no such file or directory"


def test_a_template_is_compiled_once(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    templates, path = Templates(), write("{{ client }}")
    assert templates.render(path, {"client": "a"}) == b"a"
    monkeypatch.setattr(templates, "_compile", None)
    assert templates.render(path, {"client": "b"}) == b"b"


def test_only_built_in_templates_are_tried_with_a_sample(write: Write) -> None:
    templates = Templates()
    templates.prove(write("{{ instance_url }}"), {})
    with pytest.raises(PublishError, match="line 1: No filter named 'quotd'"):
        templates.prove(write("{{ instance_url | quotd }}"), {})
    with pytest.raises(PublishError, match="template curlrc: line 2: 'access_token' is not defined"):
        templates.prove("curlrc", {})


def test_several_threads_may_render_at_once(write: Write) -> None:
    path, count = write("{% for n in range(500) %}{{ client }}{% endfor %}"), 8
    templates, start, found = Templates(), threading.Barrier(count), list[bool]()

    def render(number: int) -> None:
        start.wait()
        for round_ in range(5):
            client = f"{number}-{round_} "
            found.append(templates.render(path, {"client": client}) == (client * 500).encode())

    threads = [threading.Thread(target=render, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * count * 5


# -- beside others -------------------------------------------------------------------------------------


def published(tmp_path: Path, *outputs: Output) -> tuple[Publisher, Target, dict[str, Path]]:
    """A target with these outputs, and each one's path by its format."""
    paths: dict[str, Path] = {own.format: tmp_path / own.path for own in outputs}
    ours = tuple(replace(own, path=str(tmp_path / own.path)) for own in outputs)
    return Publisher(Config(str(tmp_path), str(tmp_path))), replace(TARGET, outputs=ours), paths


def test_a_template_that_fails_keeps_the_old_file_and_affects_no_other(tmp_path: Path, write: Write) -> None:
    own = output(write("one {{ access_token }}"), "t/made", a="b")
    publisher, target, paths = published(tmp_path, own, Output("t/raw"))
    assert publisher.ensure(target, token("abc")).faults == ()
    write("two {{ nope }}")
    after = publisher.ensure(target, token("def"))
    assert after.written == (str(paths["raw"]),)
    assert after.faults == (f"template {own.template}: line 1: 'nope' is not defined",)
    assert (paths["raw"].read_text(), paths["template"].read_text()) == ("def", "one abc")

    write("three {{ access_token }} {{ vars.a }}")
    assert publisher.ensure(target, token("def")).written == (str(paths["template"]),)
    assert paths["template"].read_text() == "three def b"
    assert publisher.ensure(target, token("def")).written == ()


def test_without_the_extra_the_error_names_it_and_other_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, target, paths = published(tmp_path, output("curlrc", "t/made"), Output("t/raw"))
    said = (
        "template format template needs a part that is not installed: "
        f"run {sys.prefix}/bin/pip install '.[templates]' in the checkout"
    )
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "jinja2", None)
        after = publisher.ensure(target, token("abc"))
        assert (after.written, after.faults) == ((str(paths["raw"]),), (said.removeprefix("template "),))
        assert Examination(Config(str(tmp_path), str(tmp_path))).files_of(target) == list(after.faults)
    # And one that has it meanwhile goes on.
    assert publisher.ensure(target, token("abc")).written == (str(paths["template"]),)


def test_jinja2_is_imported_only_for_templates(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from bearerd.model import *\n"
        "from bearerd.terms import *\n"
        "from bearerd.publish.publisher import Publisher\n"
        f"output = Output({str(tmp_path / 'bci.json')!r}, 'json')\n"
        "target = Target(Client('dnb', Provider('p')), 'bci', '', outputs=(output,))\n"
        f"publisher = Publisher(Config({str(tmp_path)!r}, {str(tmp_path)!r}))\n"
        "assert publisher.ensure(target, Token('abc', Instant(0, 0), 60)).faults == ()\n"
        "print(*{'jinja2', 'markupsafe'} & {*sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
