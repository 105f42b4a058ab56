"""What docs/ hands to operators, tried with Prometheus' own tools and a real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.process import WITHIN, Daemon, eventually, running
from support.prometheus import NAME, names, needs_prometheus, needs_promtool, promtool
from support.server import issues, serving

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "monitoring.md").read_text(encoding="utf-8")
ALERTS, CASES = DOCS / "prometheus/alerts.yaml", DOCS / "prometheus/alerts_test.yaml"
DASHBOARD = json.loads((DOCS / "prometheus/dashboard.json").read_text(encoding="utf-8"))
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
NAMES = set(names())
FAMILIES = {re.sub("_(bucket|count|sum)$", "", name) for name in NAMES}
FENCED = re.findall(r"^```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
BLOCKS = dict(zip(["listen", "scrape", "textfile"], FENCED, strict=True))


def rows(heading: str) -> list[str]:
    """The first column of the table below a heading."""
    return re.findall(r"^\| `(\w+)` \|", PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0], re.MULTILINE)


def queries() -> Iterator[tuple[str, str]]:
    """Each panel's title, and each of its expressions as Grafana would send it."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")


# -- the alerts --------------------------------------------------------------------------------------


@needs_promtool
def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("check", "rules", ALERTS)
    promtool("test", "rules", CASES)


def test_each_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    tests = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    alerts = {rule["alert"] for rule in RULES}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == alerts


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_alerts_name_existing_metrics_and_say_what_to_do(rule: dict[str, Any]) -> None:
    assert set(NAME.findall(rule["expr"])) <= NAMES
    assert set(rule["annotations"]) == {"summary", "runbook"}
    assert re.search("critical|warning", rule["labels"]["severity"])


def test_the_page_has_every_alert_and_every_metric() -> None:
    assert rows("The alerts") == [rule["alert"] for rule in RULES]
    assert sorted(rows("The metrics")) == sorted(FAMILIES)
    assert set(NAME.findall(PAGE)) <= FAMILIES


# -- the dashboard -----------------------------------------------------------------------------------


@needs_promtool
def test_every_expression_of_the_dashboard_parses(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expr} for number, (_, expr) in enumerate(queries())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", tmp_path / "rules.yaml")


def test_the_dashboard_names_existing_metrics() -> None:
    for title, expr in queries():
        assert NAME.findall(expr), title
        assert set(NAME.findall(expr)) <= NAMES, title
    (instance,) = [one for one in DASHBOARD["templating"]["list"] if one["name"] == "instance"]
    assert set(NAME.findall(instance["definition"])) <= NAMES


def test_the_dashboard_can_be_imported_anywhere() -> None:
    assert DASHBOARD["id"] is None  # it is given one there
    assert [one["name"] for one in DASHBOARD["templating"]["list"] if one["type"] == "datasource"] == ["datasource"]
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert {one["datasource"]["uid"] for one in (panel, *panel["targets"])} == {"${datasource}"}
        assert panel["title"]
        assert panel["description"]
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, f"{panel['title']} lies over another"
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


# -- real ones ---------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where a token server's client is configured as the page has it, with two tokens."""
    listen = BLOCKS["listen"].replace("9810", "0")
    with serving(issues()) as server:
        (tmp_path / "config.yaml").write_text(
            f"{listen}output: {{directory: {tmp_path}/out}}\nclients:\n  dnb: {{token_url: '{server.url}', "
            "allow_http: true, client_id: a, client_secret: {env: SECRET}, tokens: {bci: {}, risk: {}}}\n"
        )
        yield tmp_path


def keeping(directory: Path) -> AbstractContextManager[Daemon]:
    return running("run", "-c", directory / "config.yaml", env={"SECRET": "s"})


class Prometheus:
    """A running Prometheus, at a port of its own choice."""

    def __init__(self, log: Daemon) -> None:
        self.address = log.wait_for('msg="Listening on"').rpartition("address=")[2]
        log.wait_for("Server is ready")

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=WITHIN) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> dict[str, float]:
        """Of each series its value, by the label `name`."""
        result = self.ask("query", query=query)["result"]
        return {one["metric"].get("name", ""): float(one["value"][1]) for one in result}


@contextmanager
def prometheus(directory: Path, address: str) -> Iterator[Prometheus]:
    """A real one, configured as the page has it, that scrapes this address."""
    config = yaml.safe_load(BLOCKS["scrape"].replace("127.0.0.1:9810", address))
    config |= {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [str(ALERTS)]}
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
    promtool("check", "config", directory / "prometheus.yaml")
    options = {"config.file": "prometheus.yaml", "storage.tsdb.path": "data", "web.listen-address": "127.0.0.1:0"}
    process = subprocess.Popen(
        ["prometheus", *(f"--{name}={value}" for name, value in options.items())],
        cwd=directory,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = Daemon(process)
    try:
        yield Prometheus(log)
    finally:
        assert log.stop() == 0
        assert process.stderr is not None
        process.stderr.close()


@needs_prometheus
@needs_promtool
def test_a_real_prometheus_scrapes_it_and_notices_its_end(directory: Path) -> None:
    with keeping(directory) as daemon:
        port = daemon.wait_for("listening on port").rpartition(" ")[2]
        with prometheus(directory, f"127.0.0.1:{port}") as server:
            valid = 'bearerd_token_state{job="bearerd", state="valid"}'
            # Each may be in vain while a scrape that took over a second has left nothing.
            eventually(lambda: server.values(valid) == {"dnb/bci": 1, "dnb/risk": 1})
            eventually(lambda: server.values("up") == {"": 1})

            def left() -> dict[str, float]:
                found = server.values("bearerd_token_expiration_timestamp_seconds - time()")
                assert all(3400 < seconds <= 3600 for seconds in found.values())
                return found

            eventually(lambda: left().keys() == {"dnb/bci", "dnb/risk"})

            def known() -> set[str]:
                return {one["metric"]["__name__"] for one in server.ask("query", query='{job="bearerd"}')["result"]}

            # The config has neither hooks nor a share.
            absent = {name for name in NAMES if name.startswith(("bearerd_token_hook", "bearerd_share_"))}
            eventually(lambda: {name for name in known() if NAME.match(name)} == NAMES - absent)
            for _, expr in queries():
                server.ask("query", query=expr)  # raises for what it cannot do

            assert daemon.stop() == 0
            # Pending until the two minutes that it waits are over.
            eventually(
                lambda: (
                    {one["labels"]["alertname"] for one in server.ask("alerts")["alerts"]}
                    == {"BearerdAbsent", "BearerdDown"}
                )
            )
            (group,) = server.ask("rules")["groups"]
            assert {rule["name"]: rule["health"] for rule in group["rules"]} == {rule["alert"]: "ok" for rule in RULES}


@needs_promtool
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here: apt-get install curl")
def test_the_node_exporter_script_writes_the_file_and_removes_it_without_a_daemon(directory: Path) -> None:
    file = directory / "bearerd.prom"
    script = BLOCKS["textfile"].replace("/run/bearerd/", f"{directory}/out/")
    script = script.replace("/var/lib/prometheus/node-exporter/", f"{directory}/")
    (directory / "script").write_text(script)
    with keeping(directory) as daemon:
        daemon.wait_for("listening on port")
        subprocess.run(["sh", "-e", directory / "script"], check=True)
        assert promtool("check", "metrics", given=file.read_bytes()) == ""
        assert set(NAME.findall(file.read_text())) >= {"bearerd_build_info", "bearerd_schedule_alive"}
        assert daemon.stop() == 0
    subprocess.run(["sh", directory / "script"], check=True, capture_output=True)
    assert sorted(directory.glob("bearerd.prom*")) == []
