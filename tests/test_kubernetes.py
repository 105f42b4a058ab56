"""The manifests in docs/kubernetes.md are valid and consistent. tests/image runs them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from bearerd import __version__
from bearerd.cli.verbs import parser
from bearerd.config.load import load
from bearerd.model import Config
from support.manifests import PAGE, containers, objects, only, patch, pod, texts
from support.prometheus import needs_promtool, promtool

ROOT = PAGE.parents[1]
KINDS = ["Deployment", "Job"]
CONTEXT = {
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}


def patched() -> dict[str, Any]:
    """The Deployment with the page's patch. Like kubectl, it merges maps, and lists by the names of their items."""
    found = deepcopy(only("Deployment"))
    merge(found, patch())
    return found


def merge(base: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and key in base:
            merge(base[key], value)
        elif isinstance(value, list) and key in base:
            for item in value:
                [same] = [one for one in base[key] if one["name"] == item["name"]]
                merge(same, item)
        else:
            base[key] = value


def everything(node: Any) -> list[tuple[str, Any]]:
    """Each key of a document with its value."""
    if isinstance(node, dict):
        return [*node.items(), *(pair for value in node.values() for pair in everything(value))]
    return [pair for value in node for pair in everything(value)] if isinstance(node, list) else []


def config(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return load(str(file), {})


def commands() -> list[list[str]]:
    """The commands of the page, split into words."""
    return [shlex.split(line) for text in texts("sh") for line in text.replace("\\\n", " ").splitlines()]


def of(spec: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [container for container in containers(spec) if container["name"] == name]
    return dict(found)


def mounts(container: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """The mount path of each volume, and whether it is writable."""
    return {
        mount["name"]: (mount["mountPath"], not mount.get("readOnly", False)) for mount in container["volumeMounts"]
    }


# -- the page ------------------------------------------------------------------------------------------


def test_each_block_names_its_file() -> None:
    known = ("# kubernetes: ", "# bearerd: ", "# prometheus.yml\n", "# compose: ")
    assert [text.partition("\n")[0] for text in texts("yaml") if not text.startswith(known)] == []
    assert len(texts("yaml")) == 9


def test_each_image_has_a_version_and_bearerds_is_this_one() -> None:
    text = PAGE.read_text(encoding="utf-8") + (ROOT / "Containerfile").read_text(encoding="utf-8")
    assert "latest" not in text
    images = re.findall(r"image: (\S+)", text)
    assert all(re.fullmatch(r"[a-z./]+:\d+\.\d+\.\d+", image) for image in images)
    assert set(re.findall(r"\bbearerd:(\d[\d.]*)", text)) == {__version__}


# -- Kubernetes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
def test_each_object_is_valid_for_the_api_server(version: str) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    found = [*objects(), patched()]
    assert [document["kind"] for document in found] == [
        *("ConfigMap", "Deployment"),  # companies.yaml
        *("Deployment", "Service", "NetworkPolicy"),  # valkey.yaml
        "ConfigMap",  # share.yaml
        "Job",
        "Deployment",  # the patched one
    ]
    for document in found:
        assert kubernetes.validate(document, version, strict=True) == version


@pytest.mark.parametrize("kind", KINDS)
def test_each_volume_is_mounted_and_as_a_directory(kind: str) -> None:
    spec = pod(kind)
    volumes = {volume["name"] for volume in spec["volumes"]}
    assert {name for container in containers(spec) for name in mounts(container)} == volumes
    assert not {"subPath", "subPathExpr"} & {key for key, _ in everything(spec)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokens_are_in_memory_and_written_by_bearerd_alone(kind: str) -> None:
    spec = pod(kind)
    [tokens] = [volume for volume in spec["volumes"] if "emptyDir" in volume]
    assert tokens["emptyDir"]["medium"] == "Memory"
    assert mounts(of(spec, "bearerd"))[tokens["name"]] == ("/run/bearerd", True)
    [program] = spec["containers"]
    assert mounts(program) == {tokens["name"]: ("/run/bearerd", False)}


@pytest.mark.parametrize("kind", KINDS)
def test_no_container_has_a_right_that_it_does_not_need(kind: str) -> None:
    spec = pod(kind)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "fsGroup": 2000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    users = [container["securityContext"]["runAsUser"] for container in containers(spec)]
    assert len({*users, 0}) == len(users) + 1
    for container in containers(spec):
        users_and_more = container["securityContext"]
        assert {key: users_and_more[key] for key in CONTEXT} == CONTEXT


def test_the_config_loads_and_fits_the_mounts(tmp_path: Path) -> None:
    found = config(tmp_path, only("ConfigMap")["data"]["config.yaml"])
    for spec in map(pod, KINDS):
        where = {name: path for name, (path, _) in mounts(of(spec, "bearerd")).items()}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert where["config"] == "/etc/bearerd"
        assert volumes["config"]["configMap"]["name"] == only("ConfigMap")["metadata"]["name"]
        assert found.directory == where["tokens"]
        [target] = found.targets
        [secret] = target.client.client_secret
        assert secret.at == f"{where['secrets']}/dnb"
        # fsGroup makes it readable for the group, which bearerd refuses without this key.
        assert volumes["secrets"]["secret"] == {"secretName": "bearerd", "defaultMode": 0o400}
        assert secret.permissions == "group"
    assert found.listen is not None
    [port] = of(pod("Deployment"), "bearerd")["ports"]
    assert (found.listen.host, found.listen.port) == ("0.0.0.0", port["containerPort"])


def test_the_program_waits_for_a_sidecar_that_stays() -> None:
    sidecar = of(pod("Deployment"), "bearerd")
    assert pod("Deployment")["initContainers"] == [sidecar]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["exec"]["command"][1:] == ["health", "--ready"]
    assert sidecar["livenessProbe"]["exec"]["command"][1:] == ["health", "--live"]
    assert "restartPolicy" not in of(pod("Job"), "bearerd")  # its containers have to end


def test_each_command_line_is_one_that_bearerd_understands() -> None:
    found = [of(pod("Job"), "bearerd")["args"]]
    for key, value in everything(only("Deployment")):
        if key == "exec":
            assert value["command"][0] == "bearerd"
            found.append(value["command"][1:])
    for words in commands():
        if words[:2] == ["kubectl", "exec"]:
            assert words[2:7] == ["deploy/companies", "-c", "bearerd", "--", "bearerd"]
            found.append(words[7:])
    assert len(found) == 5
    for words in found:
        parser().parse_args(words)


def test_bearerd_signals_processes_of_the_same_user(tmp_path: Path) -> None:
    spec = patched()["spec"]["template"]["spec"]
    assert spec["shareProcessNamespace"] is True
    assert len({container["securityContext"]["runAsUser"] for container in containers(spec)}) == 1
    [hooks] = texts("yaml", "bearerd: for that token")
    whole = yaml.safe_load(only("ConfigMap")["data"]["config.yaml"])
    whole["clients"]["dnb"]["tokens"]["bci"] |= yaml.safe_load(hooks)
    [target] = config(tmp_path, yaml.safe_dump(whole)).targets
    [hook] = target.on_change
    assert (hook.signal, hook.process, hook.skip_first) == ("HUP", "companies", True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here: apt-get install kubernetes-client")
def test_the_secret_is_made_as_it_is_mounted(tmp_path: Path) -> None:
    argv = next(words for words in commands() if words[:3] == ["kubectl", "create", "secret"])
    (tmp_path / "dnb.secret").write_text("s3cr3t")
    argv += ["--dry-run=client", "--output=yaml"]
    made = yaml.safe_load(subprocess.run(argv, cwd=tmp_path, capture_output=True, check=True).stdout)
    [volume] = [volume for volume in pod("Deployment")["volumes"] if "secret" in volume]
    assert made["metadata"]["name"] == volume["secret"]["secretName"]
    assert list(made["data"]) == ["dnb"]


@needs_promtool
def test_the_scrape_config_is_valid_and_names_the_port(tmp_path: Path) -> None:
    [text] = texts("yaml", "prometheus.yml")
    whole = yaml.safe_load(text)
    [job] = whole["scrape_configs"]
    # Debian's Prometheus is built without it.
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    promtool("check", "config", "--syntax-only", tmp_path / "prometheus.yml")
    sidecar = of(pod("Deployment"), "bearerd")
    [kept] = [rule["regex"] for rule in job["relabel_configs"] if rule.get("action") == "keep"]
    assert kept == f"{sidecar['name']};{sidecar['ports'][0]['name']}"


# -- pods that share -----------------------------------------------------------------------------------


def valkey() -> dict[str, Any]:
    """Valkey's container."""
    [container] = only("Deployment", "valkey.yaml")["spec"]["template"]["spec"]["containers"]
    return dict(container)


def test_the_shared_config_is_the_other_one_with_a_share_and_fits_the_mounts(tmp_path: Path) -> None:
    texts_of = [only("ConfigMap", file)["data"]["config.yaml"] for file in ("share.yaml", "companies.yaml")]
    shared, other = map(yaml.safe_load, texts_of)
    shared.pop("share")
    assert shared == other
    [target] = config(tmp_path, texts_of[0]).targets
    assert target.client.share is not None
    assert isinstance(target.client.share.redis.url, str)
    found = urlsplit(target.client.share.redis.url)
    service = only("Service", "valkey.yaml")
    assert (found.hostname, found.port) == (service["metadata"]["name"], service["spec"]["ports"][0]["port"])
    where, _ = mounts(of(pod("Deployment"), "bearerd"))["secrets"]
    made = {
        word.removeprefix("--from-file=").rpartition("=")[0] or word.rpartition("=")[2] for word in secret_of_pods()
    }
    for reference in (target.client.share.key, target.client.share.redis.password, *target.client.client_secret):
        assert reference is not None
        assert reference.at.rpartition("/")[0] == where
        assert reference.at.rpartition("/")[2] in made
        assert reference.permissions == "group"


def secret_of_pods() -> list[str]:
    """What the last command for the secret `bearerd` puts into it."""
    made = [words for words in commands() if words[:5] == ["kubectl", "create", "secret", "generic", "bearerd"]]
    return [word for word in made[-1] if word.startswith("--from-file=")]


def test_only_the_pods_that_share_reach_valkey() -> None:
    policy, labels = only("NetworkPolicy", "valkey.yaml")["spec"], {"app": "valkey"}
    deployment = only("Deployment", "valkey.yaml")["spec"]
    assert deployment["template"]["metadata"]["labels"] == labels
    assert deployment["selector"]["matchLabels"] == labels
    assert policy["podSelector"]["matchLabels"] == labels
    assert only("Service", "valkey.yaml")["spec"]["selector"] == labels
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy
    [ingress] = policy["ingress"]
    [source] = ingress["from"]
    pods = only("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert source == {"podSelector": {"matchLabels": pods}}
    ports = {port["name"] for port in valkey()["ports"]}
    assert {port["port"] for port in ingress["ports"]} == ports


def test_valkey_has_no_right_that_it_does_not_need() -> None:
    spec = only("Deployment", "valkey.yaml")["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] not in {
        container["securityContext"]["runAsUser"] for container in containers(pod("Deployment"))
    }
    assert valkey()["securityContext"] == CONTEXT
    assert valkey()["resources"]["limits"]["memory"]
    [(path, writable)] = mounts(valkey()).values()
    assert (path, writable) == ("/etc/valkey", False)


# -- Compose, Docker, Podman ---------------------------------------------------------------------------


def test_compose_starts_the_program_when_the_image_is_healthy() -> None:
    [text] = texts("yaml", "compose")
    services, volumes = (yaml.safe_load(text)[key] for key in ("services", "volumes"))
    ours, theirs = services["bearerd"], services["companies"]
    assert ours["read_only"] is True
    assert ours["cap_drop"] == ["ALL"]
    assert ours["security_opt"] == ["no-new-privileges:true"]
    assert theirs["depends_on"] == {"bearerd": {"condition": "service_healthy"}}
    assert re.search(r'^HEALTHCHECK .* CMD \["\S+/bearerd", "health"\]$', containerfile(), re.MULTILINE)
    # Directories only, never a file. A source that is not a path is a declared volume.
    assert ours["volumes"] == ["./bearerd:/etc/bearerd:ro", "tokens:/run/bearerd"]
    assert theirs["volumes"] == ["tokens:/run/bearerd:ro"]
    assert list(volumes) == ["tokens"]
    user = re.search(r"^USER (\d+):(\d+)$", containerfile(), re.MULTILINE)
    assert user
    assert volumes["tokens"]["driver_opts"]["o"] == f"uid={user[1]},gid={user[2]},mode=0750"
    assert theirs["group_add"] == [user[2]]


def test_the_commands_are_the_compose_file_by_hand() -> None:
    [text] = texts("yaml", "compose")
    compose = yaml.safe_load(text)
    [create] = [words for words in commands() if words[1:3] == ["volume", "create"]]
    options = compose["volumes"]["tokens"]["driver_opts"]
    assert [words for words in create if "=" in words] == [f"{key}={value}" for key, value in options.items()]
    ours, theirs = ([" ".join(words)] for words in commands() if words[1:2] == ["run"])
    for option in ("--read-only", "--cap-drop ALL", "--security-opt no-new-privileges", "--memory 128m"):
        assert option in ours[0]
    for service, command in (("bearerd", ours[0]), ("companies", theirs[0])):
        for volume in compose["services"][service]["volumes"]:
            assert f"--volume {volume.replace('./', '$PWD/')}" in command
    assert "--user 10001:10001 --group-add 65532" in theirs[0]


def test_composes_config_loads(tmp_path: Path) -> None:
    [text] = texts("yaml", "bearerd: ./bearerd/config.yaml")
    [target] = config(tmp_path, text).targets
    [secret] = target.client.client_secret
    [install] = [words for words in commands() if words[0] == "install"]
    assert secret.at == f"/etc/{install[-1]}"


# -- the image -----------------------------------------------------------------------------------------


def containerfile() -> str:
    return (ROOT / "Containerfile").read_text(encoding="utf-8")


def test_the_image_runs_as_a_number_without_a_shell_and_names_no_volume() -> None:
    steps = [line.split(" ", 1) for line in containerfile().splitlines() if re.match(r"[A-Z]+ ", line)]
    last = steps[max(number for number, (word, _) in enumerate(steps) if word == "FROM") :]
    assert {"VOLUME", "SHELL"} & {word for word, _ in last} == set()
    given = dict(last)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", given["USER"])
    assert given["ENTRYPOINT"] == '["/opt/bearerd/bin/bearerd"]'
    parser().parse_args(yaml.safe_load(given["CMD"]))


def test_the_base_is_an_image_by_its_short_name_and_can_be_another() -> None:
    assert re.findall(r"^ARG BASE=(\S+)$", containerfile(), re.MULTILINE) == ["python:3.13-slim-bookworm"]
    assert re.findall(r"^FROM (\S+)", containerfile(), re.MULTILINE) == ["${BASE}", "${BASE}"]
