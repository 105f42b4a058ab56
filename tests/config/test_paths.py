"""Paths of outputs, directories and templates."""

from __future__ import annotations

import re

import pytest

from bearerd.config.load import load
from bearerd.errors import ConfigError
from bearerd.model import Output
from bearerd.terms import TEMPLATES
from support.config_text import OTHER, SMALLEST, Folder, config


@pytest.mark.parametrize(
    ("given_directory", "runtime", "directory"),
    [
        pytest.param("", None, "/run/bearerd", id="neither"),
        pytest.param("", "", "/run/bearerd", id="an empty variable"),
        pytest.param("", "/run/tokens", "/run/tokens", id="systemd's"),
        pytest.param("", "/run/tokens:/run/other", "/run/tokens", id="the first of systemd's"),
        pytest.param("output: {directory: /srv/t}", "/run/tokens", "/srv/t", id="the config's wins"),
        pytest.param("output: {directory: //srv//t/./}", None, "/srv/t", id="in one spelling"),
    ],
)
def test_the_directory_comes_from_the_config_or_systemd_or_is_the_default(
    folder: Folder, given_directory: str, runtime: str | None, directory: str
) -> None:
    environ = {} if runtime is None else {"RUNTIME_DIRECTORY": runtime}
    found = folder.load(config(top=given_directory), environ)
    assert found.directory == directory
    assert found.targets[0].outputs[0].path == f"{directory}/dnb/bci"


@pytest.mark.parametrize(
    ("top", "state", "directory"),
    [
        pytest.param("", None, "/run/bearerd/.bearerd", id="neither"),
        pytest.param("", "", "/run/bearerd/.bearerd", id="an empty variable"),
        pytest.param("output: {directory: /srv/t}", None, "/srv/t/.bearerd", id="beside the output"),
        pytest.param("", "/var/lib/bearerd", "/var/lib/bearerd", id="systemd's"),
        pytest.param("", "/var/lib/a:/var/lib/b", "/var/lib/a", id="the first of systemd's"),
        pytest.param("state_directory: /srv/state", "/var/lib/bearerd", "/srv/state", id="the config's wins"),
        pytest.param("state_directory: //srv//state/./", None, "/srv/state", id="in one spelling"),
    ],
)
def test_the_state_directory_comes_from_the_config_or_systemd_or_is_in_the_output_directory(
    folder: Folder, top: str, state: str | None, directory: str
) -> None:
    environ = {} if state is None else {"STATE_DIRECTORY": state}
    assert folder.load(config(top=top), environ).state_directory == directory


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("/run/bearerd/dnb/bci", "too"),
        ("/run/bearerd/dnb/bci/x", "and the state to /run/bearerd/dnb/bci/x: one is a directory of the other"),
    ],
)
def test_the_state_directory_is_not_at_or_below_a_token_file(folder: Folder, state: str, said: str) -> None:
    said = f"'dnb/bci' would be written to /run/bearerd/dnb/bci {said}"
    assert folder.headlines(config(top=f"state_directory: {state}")) == [f"config.yaml:1:18: {said}"]
    # By systemd: the token's file is what the config can change.
    with pytest.raises(ConfigError) as raised:
        folder.load(config(token="files: [{format: raw, path: dnb/bci}]"), {"STATE_DIRECTORY": state})
    assert f"config.yaml:7:41: {said}" in raised.value.full
    folder.load(config(top="state_directory: /run/bearerd/dnb"))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        pytest.param("../x", "expected a path without ..", id="out of the directory"),
        pytest.param("a/../b", "expected a path without ..", id="out and in again"),
        pytest.param("/etc/../x", "expected a path without ..", id="absolute"),
        pytest.param("..", "expected a path without ..", id="above"),
        pytest.param(".bearerd/x", "expected a path outside .bearerd, which bearerd keeps for itself", id=".bearerd"),
        pytest.param("/srv/.bearerd/x", "expected a path outside .bearerd", id=".bearerd of another directory"),
        pytest.param(".bearerd", "expected a path outside .bearerd", id=".bearerd itself"),
        pytest.param("a/", "expected the path of a file, found a directory", id="slash at the end"),
        pytest.param(".", "expected the path of a file, found a directory", id="the directory"),
        pytest.param("/run/bearerd", "expected the path of a file, found a directory", id="the directory in full"),
        pytest.param("/run", "expected the path of a file, found a directory", id="above the directory"),
        pytest.param("/", "expected the path of a file, found a directory", id="the root"),
        pytest.param("''", "expected text, found an empty string", id="nothing"),
        pytest.param('"a\\0b"', "expected text without NUL characters", id="NUL"),
        pytest.param('"a\\nb"', "expected a path without line breaks and other control characters", id="line break"),
        pytest.param('"a\\x85b"', "expected a path without line breaks and other control characters", id="C1"),
        pytest.param("x" * 256, "a name in this path is longer than 255 bytes", id="256 bytes"),
        pytest.param("ä" * 128, "a name in this path is longer than 255 bytes", id="128 characters of two bytes"),
        pytest.param(f"{'x' * 256}/a", "a name in this path is longer than 255 bytes", id="a directory of 256 bytes"),
    ],
)
def test_a_path_of_a_directory_or_of_bearerd_itself_is_refused(folder: Folder, path: str, said: str) -> None:
    (headline,) = folder.headlines(config(token=f"files: [{{format: raw, path: {path}}}]"))
    assert headline.startswith(f"config.yaml:7:41: {said}")


def test_a_directory_with_a_line_break_is_refused(folder: Folder) -> None:
    # Hooks get one path on each line.
    (headline,) = folder.headlines(config(top='output: {directory: "/srv/a\\nb"}'))
    assert headline == "config.yaml:1:21: expected a path without line breaks and other control characters"


@pytest.mark.parametrize("path", ["x" * 255, "a/.b/c", "a b", "ä", "/srv/a", "...", "a..b", ".bearerd-x"])
def test_other_paths_are_accepted(folder: Folder, path: str) -> None:
    assert folder.target(config(token=f"files: [{{format: raw, path: {path}}}]")).outputs[0].path.endswith(path)


def template(more: str = "", name: str = "nginx", path: str = ", path: x") -> str:
    """A config with one templated file; `more` begins with a comma."""
    return config(token=f"files: [{{format: template, template: {name}{path}{more}}}]")


@pytest.mark.parametrize("name", [*TEMPLATES, "/etc/bearerd/own.j2", "/a b", "/"])
def test_a_template_is_built_in_or_an_absolute_path(folder: Folder, name: str) -> None:
    assert folder.target(template(name=name)).outputs == (
        Output("/run/bearerd/x", "template", template=name, variable="DNB_BCI_TOKEN"),
    )


def test_the_settings_of_a_template_are_read(folder: Folder) -> None:
    (output,) = folder.target(template(", vars: {url: 'https://a', _b2: \" c\\n\"}, name: T, mode: '600'")).outputs
    assert (output.vars, output.variable, output.mode) == ((("url", "https://a"), ("_b2", " c\n")), "T", 0o600)
    assert folder.target(template(", vars: {}")).outputs[0].vars == ()


@pytest.mark.parametrize("name", ["ngnix", "nginx.j2", "own.j2", "./own.j2", "../own.j2", "Nginx", "' nginx'"])
def test_an_unknown_template_is_an_error_that_lists_the_built_in_ones(folder: Folder, name: str) -> None:
    (headline,) = folder.headlines(template(name=name))
    said = "config.yaml:7:50: expected the absolute path of a template (/…), or a built-in one: "
    assert headline.startswith(said + ", ".join(TEMPLATES))
    assert ("did you mean 'nginx'?" in headline) is ("ng" in name.lower())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("''", "expected text, found an empty string"),
        ('"/a\\0b"', "expected text without NUL characters"),
        ("5", "expected text in quotes, found a number"),
        ("[nginx]", "expected text, found a list"),
        ("", "expected a value, found nothing"),
    ],
)
def test_a_template_must_be_text(folder: Folder, name: str, said: str) -> None:
    (headline,) = folder.headlines(template(name=name))
    assert headline.endswith(f": {said}")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("format: template, path: x", "format: template requires template and path"),
        ("format: template", "format: template requires template and path"),
        (
            "format: template, template: nginx",
            "format: template requires template and path",
        ),
        ("format: json, template: nginx", "template only applies to format template"),
        ("format: json, vars: {a: b}", "vars only applies to format template"),
        ("format: json, vars: {}", "vars only applies to format template"),
        ("format: template, template: nginx, path: x, newline: true", "newline only applies to format raw"),
    ],
)
def test_a_template_needs_a_path_and_the_format_template(folder: Folder, file: str, said: str) -> None:
    (headline,) = folder.headlines(config(token=f"files: [{{{file}}}]"))
    assert headline.startswith(f"config.yaml:7:21: {said}")


@pytest.mark.parametrize(
    ("given", "at", "said"),
    [
        ("[a]", "7:72", "expected a mapping, found a list"),
        ("", "7:72", "expected a value, found nothing"),
        ("{a: 5}", "7:76", "expected text in quotes, found a number"),
        ("{a: b, c: ''}", "7:82", "expected text, found an empty string"),
        ("{a: {b: c}}", "7:76", "expected text, found a mapping"),
        ("{1a: b}", "7:73", "expected a name of letters, digits and '_', not beginning with a digit"),
        ("{a.b: c}", "7:73", "expected a name of letters, digits and '_', not beginning with a digit"),
        ("{a-b: c}", "7:73", "expected a name of letters, digits and '_', not beginning with a digit"),
    ],
)
def test_vars_are_names_and_texts(folder: Folder, given: str, at: str, said: str) -> None:
    (headline,) = folder.headlines(template(f", vars: {given}"))
    assert headline.startswith(f"config.yaml:{at}: {said}")


def test_an_output_over_its_own_template_is_an_error(folder: Folder) -> None:
    text = template(name="/etc/own.conf", path=", path: //etc/./own.conf")
    assert folder.headlines(text) == [
        "config.yaml:7:71: 'dnb/bci' would be written over /etc/own.conf, which bearerd reads"
    ]


@pytest.mark.parametrize(
    "client",
    [
        "ca_file: /keep",
        "headers: {X-Key: {file: /keep}}",
        "parameters: {actor_token: {file: /keep}}",
        "share: {redis: {url: redis://h}, key: {file: /keep}}",
        "share: {redis: {url: {file: /keep}}}",
        "share: {redis: {url: redis://h, username: u, password: {file: /keep}}}",
        "share: {redis: {url: rediss://h, ca_file: /keep}}",
    ],
)
def test_an_output_over_a_file_that_bearerd_reads_is_an_error(folder: Folder, client: str) -> None:
    (headline,) = folder.headlines(config(client, token="files: [{format: raw, path: //./keep}]"))
    assert headline == "config.yaml:8:41: 'dnb/bci' would be written over /keep, which bearerd reads"


def test_an_output_over_the_secret_of_another_client_is_an_error(folder: Folder) -> None:
    text = config(token="files: [{format: raw, path: /s}]")
    (headline,) = folder.headlines(text + SMALLEST.partition("\n")[2].replace("dnb:", "other:"))
    assert headline == "config.yaml:7:41: 'dnb/bci' would be written over /s, which bearerd reads"


@pytest.mark.parametrize("name", ["config.yaml", "other.yaml"])
def test_an_output_over_a_file_of_the_config_is_an_error(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(folder.path)
    path = folder.path / name
    (folder.path / "other.yaml").write_text(OTHER)
    (folder.path / "config.yaml").write_text(
        config(top="include: [other.yaml]", token=f"files: [{{format: raw, path: {path}}}]")
    )
    with pytest.raises(ConfigError) as raised:
        load("config.yaml", {})
    assert f"'dnb/bci' would be written over {path}, which bearerd reads" in raised.value.full


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/null", "//dev/./fd/1", "/dev/shm"])
def test_no_output_replaces_a_device(folder: Folder, path: str) -> None:
    (headline,) = folder.headlines(config(token=f"files: [{{format: raw, path: {path}}}]"))
    assert headline == (
        "config.yaml:7:41: expected a path outside /dev, where a file would replace a device, for every program"
    )
    folder.load(config(token="files: [{format: raw, path: /dev/shm/token}]"))


@pytest.mark.parametrize(("client", "variable"), [("3scale", "_3SCALE_BCI_TOKEN"), ("a.b-c", "A_B_C_BCI_TOKEN")])
def test_a_variable_is_valid_in_a_shell(folder: Folder, client: str, variable: str) -> None:
    assert folder.target(config().replace("dnb:", f"{client}:")).outputs[0].variable == variable


def test_an_output_with_a_template_is_checked_like_others(folder: Folder) -> None:
    assert "and 'dnb/abc'" in folder.error(
        template(path=", path: /run/bearerd/dnb/abc").replace("      bci", "      abc: {}\n      bci")
    )
    assert "expected a path without .." in folder.error(template(path=", path: ../x"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("a", "a", id="the same"),
        pytest.param("a/b", "a//./b", id="in another spelling"),
        pytest.param("a", "/run/bearerd/a", id="absolute"),
        pytest.param("/srv/a", "//srv/a", id="two slashes"),
    ],
)
def test_two_outputs_with_one_path_are_an_error_that_names_both(folder: Folder, first: str, second: str) -> None:
    text = config(token=f"files: [{{format: raw, path: {first}}}]").replace(
        "      bci", f"      abc: {{files: [{{format: raw, path: {second}}}]}}\n      bci"
    )
    (headline,) = folder.headlines(text)
    assert re.fullmatch(
        r"config\.yaml:8:41: 'dnb/bci' and 'dnb/abc' \(config\.yaml:7\) would be written to the same file, (\S+)",
        headline,
    )


def test_outputs_of_two_clients_in_two_files_collide_too(folder: Folder) -> None:
    (headline,) = folder.headlines(
        config(top="include: [a.yaml]", token="files: [{format: raw, path: t}]"),
        a=OTHER.replace("{scope: bci}", "{files: [{format: raw, path: t}]}"),
    )
    assert headline == (
        "a.yaml:7:41: 'other/bci' and 'dnb/bci' (config.yaml:8) would be written to the same file, /run/bearerd/t"
    )


def test_a_shared_list_of_files_with_a_path_collides_for_the_second_token(folder: Folder) -> None:
    text = config(top="files: [{format: raw, path: t}]").replace("bci: {}", "bci: {}\n      abc: {}")
    assert "'dnb/abc' and 'dnb/bci' (config.yaml:8) would be written to the same file, /run/bearerd/t" in folder.error(
        text
    )


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a"), ("dnb", "dnb/x")])
def test_a_path_below_another_output_is_an_error(folder: Folder, first: str, second: str) -> None:
    files = f"files: [{{format: raw, path: {first}}}, {{format: raw, path: {second}}}]"
    (headline,) = folder.headlines(config(token=files))
    assert headline == (
        f"config.yaml:7:{64 + len(first)}: 'dnb/bci' would be written to /run/bearerd/{second} "
        f"and 'dnb/bci' to /run/bearerd/{first}: one is a directory of the other"
    )
