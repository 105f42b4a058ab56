"""The house's arrows: who may import whom. Read off the source, so that nothing hides in a function."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import bearerd

ROOT = Path(bearerd.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
    if path != ROOT / "__init__.py"
}

# cli -> service -> api -> lifecycle -> {admission, grant, publish} -> model; config -> model; admission knows what a
# grant may come to. Everyone may use what is in BELOW.
BELOW = {"boundedjson", "child", "clock", "errors", "log", "model", "mounts", "process", "regular", "words"}
MAY_IMPORT = {
    "boundedjson": set(),
    "model": set(),
    "errors": set(),
    "words": set(),
    "log": set(),
    "clock": {"model"},
    "child": set(),
    "process": set(),
    "regular": set(),
    "mounts": set(),
    "config": {"config"} | BELOW - {"clock", "log", "child", "mounts"},
    "grant": {"grant"} | BELOW,
    "admission": {"admission", "grant"} | BELOW,
    "publish": {"publish"} | BELOW,
    "lifecycle": {"lifecycle", "admission", "grant", "publish"} | BELOW,
    "api": {"api", "lifecycle", "admission", "grant", "publish"} | BELOW,
    "service": {"service", "api", "lifecycle", "admission", "grant", "publish"} | BELOW,
    "demo": {"demo"},
    "cli": {"cli", "service", "config", "demo"} | BELOW,
    "__main__": {"cli"},
}

PURE = [
    "boundedjson", "model", "errors", "words",
    "config.source", "config.scalar", "config.redaction", "config.suggest", "config.types", "config.messages",
    "config.plain",
    "grant.outcome", "grant.request", "grant.assertion", "grant.lifetime", "grant.reply", "grant.hints",
    "grant.metadata", "grant.rotation", "grant.addresses", "grant.times",
    "admission.types", "admission.queue", "admission.breaker", "admission.ledger", "admission.retry", "admission.rate",
    "admission.parts", "admission.attempt", "admission.waiting", "admission.registry", "admission.core",
    "admission.view",
    "lifecycle.policy", "lifecycle.plan", "lifecycle.token_state", "lifecycle.failure_log", "lifecycle.target_status",
    "lifecycle.wishes",
    "publish.render", "publish.record", "publish.access", "publish.version",
    "service.links",
    "api.message", "api.host",
]  # fmt: skip
# What would read a clock, dice, a file or the network.
IMPURE = {
    "time", "random", "secrets", "os", "io", "pathlib", "shutil", "tempfile", "glob", "socket", "ssl", "subprocess",
    "signal", "threading", "queue", "select", "http", "requests", "urllib3", "apscheduler", "watchdog", "logging",
}  # fmt: skip
IMPURE_CALLS = {"open", "input", "print"}
IMPURE_METHODS = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}

ONE_USER = {
    "requests": {"grant.transport"},
    "urllib3": {"grant.transport"},
    "apscheduler": {"lifecycle.schedule"},
    "yaml": {"config.source", "config.scalar"},
    "pydantic": {"config.types", "config.load", "config.messages"},
    "pydantic_core": {"config.types"},
    "watchdog": {"service.watch"},
    "prometheus_client": {"api.metrics"},
    "jinja2": {"publish.template"},
    "rich": {"cli.progress", "cli.paper", "cli.picture", "cli.status", "demo.show"},
    "fcntl": {"publish.lock", "admission.journal"},
    "jwt": {"grant.assertion"},
    "cryptography": {"grant.assertion"},
    "random": {"clock"},
}


def imported(module: str) -> set[str]:
    """Every name that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by a relative path"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(name: str) -> str:
    """`bearerd.grant.reply.Reply` stands in `grant`."""
    return name.split(".")[1]


def module_of(name: str) -> str:
    """`bearerd.grant.reply.Reply` is of the module `grant.reply`, `bearerd.__version__` of the package itself."""
    words = name.split(".")[1:]
    prefixes = (".".join(words[:length]) for length in range(len(words), 0, -1))
    return next((prefix for prefix in prefixes if prefix in MODULES), "__init__")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_follow_the_arrows(module: str) -> None:
    used = {room(name) for name in imported(module) if name.startswith("bearerd.") and name != "bearerd.__version__"}
    assert used <= MAY_IMPORT[module.split(".", maxsplit=1)[0]]


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_read_no_clock_no_dice_and_no_file(module: str) -> None:
    assert {name.split(".")[0] for name in imported(module) - {"http.HTTPStatus"}} & IMPURE == set()  # it is a table
    assert {module_of(name) for name in imported(module) if name.startswith("bearerd.")} <= {*PURE, "__init__"}
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in IMPURE_METHODS


@pytest.mark.parametrize("library", sorted(ONE_USER))
def test_each_library_is_talked_to_by_one_room_only(library: str) -> None:
    users = {module for module in MODULES if library in {name.split(".")[0] for name in imported(module)}}
    assert users == ONE_USER[library]


def test_the_source_root_is_no_package() -> None:
    # A top-level package named daemon would hide PyPI's python-daemon.
    assert not (ROOT.parent / "__init__.py").exists() or ROOT.parent.name != "daemon"
