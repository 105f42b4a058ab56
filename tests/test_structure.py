"""Which modules may import which others. Read from the source, so that imports in functions count too."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import bearerd

ROOT = Path(bearerd.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
    if path != ROOT / "__init__.py"
}

# cli -> service -> {api, lifecycle} -> {admission, grant, publish, hooks} -> {config, secrets} -> model. Besides,
# admission knows the outcomes of grants, and the packages above it know them and the kinds of its answers, but only
# `service` knows what makes them. BELOW has the modules that everyone may use.
BELOW = {
    "accounts",
    "boundedjson",
    "child",
    "clock",
    "crash",
    "descriptors",
    "errors",
    "handoff",
    "inputs",
    "log",
    "model",
    "mounts",
    "plural",
    "printable",
    "process",
    "reason",
    "redis_address",
    "regular",
    "terms",
    "threads",
    "timeformat",
}
CORES = {"admission", "grant", "publish", "hooks", "share", "target_status"}
VALUES = {"admission.types", "grant.outcome", "share.answers", "share.types", "target_status"}
"""The frozen values that the cores return."""
MAY_IMPORT = {
    "accounts": set(),
    "boundedjson": set(),
    "model": {"terms"},
    "terms": set(),
    "errors": {"printable"},
    "timeformat": set(),
    "log": set(),
    "crash": {"errors", "log"},
    "clock": {"terms"},
    "descriptors": set(),
    "child": {"descriptors", "handoff"},
    "handoff": set(),
    "inputs": {"model", "terms"},
    "plural": set(),
    "printable": set(),
    "process": {"descriptors"},
    "reason": set(),
    "redis_address": set(),
    "regular": {"descriptors"},
    "threads": {"errors"},
    "mounts": set(),
    "config": {"config"} | BELOW - {"accounts", "clock", "log", "child", "mounts"},
    "secrets": {"secrets"} | BELOW - {"clock", "mounts"},
    "grant": {"grant", "secrets"} | BELOW,
    "admission": {"admission", "grant.outcome"} | BELOW,
    "publish": {"publish"} | BELOW,
    "hooks": {"hooks"} | BELOW,
    "share": {
        *("share", "secrets", "publish", "grant.outcome", "grant.credentials"),
        *("grant.connecting", "grant.deadline", "grant.tls"),
    }
    | BELOW,
    "target_status": {"admission.types", "grant.outcome", "model"},
    "lifecycle": {"lifecycle", "publish"} | VALUES | BELOW,
    "trouble": {"grant.outcome", "share.types", "target_status", "terms", "timeformat"},
    "api": {"api", "publish", "trouble"} | VALUES | BELOW,
    "service": {"service", "api", "lifecycle", "secrets", "trouble"} | CORES | BELOW,
    "demo": {"demo", "errors", "reason"},
    "providers": {"providers"},
    "cli": {"cli", "service", "config", "demo", "providers"} | BELOW,
    "__main__": {"cli"},
}

# The modules whose docstring says that they are pure.
PURE = sorted(
    module
    for module, path in MODULES.items()
    if re.search(r"\bPure\b", ast.get_docstring(ast.parse(path.read_text())) or "")
)
# The modules of the cores that decide nothing by themselves: they have threads, files, the log, or the clock.
SHELL = {
    "admission", "admission.admission", "admission.journal",
    "lifecycle", "lifecycle.attempts", "lifecycle.controller", "lifecycle.file_state", "lifecycle.fleet_attempts",
    "lifecycle.jobs", "lifecycle.parts", "lifecycle.reconcile", "lifecycle.schedule", "lifecycle.shared",
    "lifecycle.standing",
}  # fmt: skip
# Modules that read a clock, random numbers, a file or the network.
IMPURE = {
    "time", "random", "secrets", "os", "io", "pathlib", "shutil", "tempfile", "glob", "socket", "ssl", "subprocess",
    "signal", "threading", "queue", "select", "http", "requests", "urllib3", "apscheduler", "watchdog", "logging",
}  # fmt: skip
IMPURE_CALLS = {"open", "input", "print"}
IMPURE_METHODS = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}

# Subjects that are no closed list of kinds: lines of a file, which may hold anything.
OPEN_MATCHES = {
    ("admission.ledger", "entry"),
    ("admission.journal", "_parsed(lines[0])"),
    ("admission.journal", "_parsed(line)"),
}

ONE_USER = {
    "urllib3": {"grant.transport"},
    "apscheduler": {"lifecycle.jobs"},
    "yaml": {"config.document", "config.source", "config.scalar", "providers.catalog"},
    "pydantic": {
        "config.checked",
        "config.missing",
        "config.realign",
        "config.load",
        "config.messages",
        "config.models",
        "config.places",
        "config.resolve",
        "config.schema",
        "config.types",
    },
    "pydantic_core": {"config.quantities", "config.schema", "config.values"},
    "watchdog": {"service.watch"},
    "prometheus_client": {"api.metrics"},
    "jinja2": {"publish.template"},
    "rich": {"cli.progress", "cli.paper", "cli.picture", "cli.status", "cli.table", "demo.show"},
    "fcntl": {"publish.lock", "admission.journal"},
    "jwt": {"grant.assertion"},
    "cryptography": {"grant.assertion", "share.seal"},
    "socks": {"grant.socks"},
    "redis": {"share.redis_connection"},
    "random": {"clock"},
}


@cache
def parsed(module: str) -> ast.Module:
    """The source of a module."""
    return ast.parse(MODULES[module].read_text())


@cache
def imported(module: str) -> frozenset[str]:
    """Every name that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by a relative path"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def module_of(name: str) -> str:
    """`bearerd.grant.reply.Reply` is in the module `grant.reply`, `bearerd.__version__` in the package itself."""
    parts = name.split(".")[1:]
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in MODULES), "__init__")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_one_way(module: str) -> None:
    used = {module_of(name) for name in imported(module) if name.startswith("bearerd.")} - {"__init__"}
    allowed = MAY_IMPORT[module.split(".", maxsplit=1)[0]]
    assert {name for name in used if not allowed & {name, name.split(".", maxsplit=1)[0]}} == set()


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_read_no_clock_no_random_numbers_and_no_file(module: str) -> None:
    assert {name.split(".")[0] for name in imported(module) - {"http.HTTPStatus"}} & IMPURE == set()  # it is a table
    assert {module_of(name) for name in imported(module) if name.startswith("bearerd.")} <= {*PURE, "__init__"}
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in IMPURE_METHODS


def test_every_module_that_decides_is_pure() -> None:
    cores = {module for module in MODULES if module.split(".")[0] in {"admission", "lifecycle"}}
    assert cores - set(PURE) == SHELL


@pytest.mark.parametrize("library", sorted(ONE_USER))
def test_each_library_is_used_by_the_listed_modules_only(library: str) -> None:
    users = {module for module in MODULES if library in {name.split(".")[0] for name in imported(module)}}
    assert users == ONE_USER[library]


def test_the_source_root_is_not_a_package() -> None:
    # A top-level package named daemon would hide PyPI's python-daemon.
    assert not (ROOT.parent / "__init__.py").exists() or ROOT.parent.name != "daemon"
