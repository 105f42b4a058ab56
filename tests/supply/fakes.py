"""The audit against services that answer in each way: it must tell them apart."""

from __future__ import annotations

import tempfile
from pathlib import Path

from supply.audit import audit
from supply.lock import lock
from support.server import Answer, Script, serving

_VULNERABLE = {
    "id": "PYSEC-0000-1", "summary": "an invention", "published": "2026-01-01T00:00:00Z",
    "affected": [{
        "package": {"name": "pysocks", "ecosystem": "PyPI"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}],
    }],
}  # fmt: skip
SERVICES: dict[str, tuple[Script, str]] = {
    "no vulnerability": (lambda _: Answer(200, {}), "clean"),
    "a vulnerability": (lambda _: Answer(200, {"vulns": [_VULNERABLE]}), "found"),
    "503": (lambda _: Answer(503), "no data"),
    "a page of a proxy": (lambda _: Answer(200, b"<html>please log in</html>"), "no data"),
}


def audits(program: Path) -> list[str]:
    """What went wrong, for a lock of one project."""
    faults = []
    [entry] = [entry for entry in lock("runtime") if entry.name == "pysocks"]
    with tempfile.TemporaryDirectory(prefix="bearerd-audit-") as name:
        small = Path(name) / "small.txt"
        small.write_text(f"{entry.requirement} " + " ".join(f"--hash=sha256:{one}" for one in entry.hashes) + "\n")
        for service, (script, expected) in SERVICES.items():
            with serving(script) as server:
                audited = audit(small, program, server.url)
            if audited.outcome != expected:
                faults.append(f"{service}: {audited.outcome}, not {expected}: {audited.text}")
        gone = audit(small, program, server.url)  # it has ended
        if gone.outcome != "no data":
            faults.append(f"no service: {gone.outcome}: {gone.text}")
        small.write_text("pysocks>=1\n")  # neither a version nor a hash: a mistake here, not missing data
        broken = audit(small, program, server.url)
        if broken.outcome != "failed":
            faults.append(f"no lock: {broken.outcome}: {broken.text}")
    return faults
