"""Known vulnerabilities of what is locked: `cd tests && python -m supply.audit [URL]`, with pip-audit on the path.

Asks OSV, or the service at URL, about every version in requirements/. Exit 1 if one has a known vulnerability, or if
the audit itself fails. If the service cannot be reached or gives no answer, it says so, and exits with 0.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from supply.lock import LOCKS
from support.rig import say

_WITHIN = 600.0  # seconds; one request for each of about 80 versions, each with pip-audit's timeout of 15 s at worst
# The exceptions of pip-audit and requests for a service that is not there, refuses, or answers with something else.
_NO_DATA = re.compile(
    r"^(pip_audit\._service\.interface\.(ServiceError|ConnectionError)\b|requests\.exceptions\.|urllib3\.exceptions\."
    r"|ERROR:pip_audit\._cli:(Could not connect|Tip: your network)).*",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Audited:
    """The outcome for one lock."""

    outcome: Literal["clean", "found", "no data", "failed"]
    text: str


def audit(lock: Path, program: str | Path = "pip-audit", url: str = "") -> Audited:
    """Ask about each version in a lock."""
    with tempfile.TemporaryDirectory(prefix="bearerd-audit-") as name:
        output = Path(name) / "found.json"
        try:
            done = subprocess.run(
                [program, "--requirement", lock, "--require-hashes", "--disable-pip", "--progress-spinner=off",
                 "--vulnerability-service=osv", *([f"--osv-url={url}"] if url else []), f"--cache-dir={name}/cache",
                 "--format=json", f"--output={output}"],
                capture_output=True, text=True, timeout=_WITHIN, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Audited("no data", f"no end within {_WITHIN:g} s")
        return judged(done.returncode, output.read_text() if output.exists() else "", done.stderr)


def judged(code: int, output: str, complaint: str) -> Audited:
    """What the end of pip-audit means.

    It exits with 1 for a vulnerability as well as for an error, and with 0 if it had to skip everything.
    """
    if output:
        entries = json.loads(output)["dependencies"]
        found = [
            f"{entry['name']} {entry['version']}: {one['id']}, fixed in {one['fix_versions'] or 'no version'}"
            for entry in entries
            for one in entry.get("vulns", [])
        ]
        skipped = [f"{entry['name']}: {entry['skip_reason']}" for entry in entries if "skip_reason" in entry]
        if found:
            return Audited("found", "; ".join(found))
        if skipped:
            return Audited("no data", "; ".join(skipped))
        if code == 0 and entries:
            return Audited("clean", f"{len(entries)} versions, no known vulnerability")
    last = complaint.strip().splitlines()[-1:] or ["no message"]
    if reason := _NO_DATA.search(complaint):
        return Audited("no data", reason[0])
    return Audited("failed", f"exit {code}: {last[0]}")


def main() -> int:
    """Audit all locks."""
    outcomes = set()
    for lock in sorted(LOCKS.glob("*.txt")):
        audited = audit(lock, url=sys.argv[1] if len(sys.argv) > 1 else "")
        outcomes.add(audited.outcome)
        missing = "; nothing is known about these versions" if audited.outcome == "no data" else ""
        say(f"{lock.relative_to(LOCKS.parent)}: {audited.outcome}{missing} ({audited.text})")
    return 1 if outcomes & {"found", "failed"} else 0


if __name__ == "__main__":
    raise SystemExit(main())
