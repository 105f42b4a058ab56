"""Whether an SBOM says what is installed, and whether that is what is locked."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from supply.lock import Locked, environments, installed

SBOM = "usr/share/bearerd/sbom.cdx.json"
# The CycloneDX project's own schema and validator; `strict` refuses unknown keys.
_VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(f"{error}"[:1000] if error else 0)
"""


def against_schema(text: str, python: Path) -> list[str]:
    """What the schema of CycloneDX 1.6 says against it; `python` is of an environment with requirements/build.txt."""
    done = subprocess.run([python, "-c", _VALIDATE], input=text, text=True, capture_output=True, check=False)
    return [f"schema: {done.stderr.strip()}"] if done.returncode else []


def against_environment(sbom: Mapping[str, Any], found: Mapping[str, str], locked: Mapping[str, Locked]) -> list[str]:
    """The differences between an SBOM, the versions `found` in an environment, and those that are locked for it."""
    main = sbom["metadata"]["component"]
    listed: dict[str, Any] = {canonicalize_name(one["name"]): one for one in (main, *sbom["components"])}
    faults = [] if canonicalize_name(main["name"]) == "bearerd" else [f"the main component is {main['name']}"]
    if "serialNumber" in sbom:
        faults.append("it has a random serial number")
    for name in sorted({*listed, *found, *locked}):
        versions = {
            "listed": listed[name]["version"] if name in listed else "",
            "installed": found.get(name, ""),
            "locked": str(locked[name].version) if name in locked else found["bearerd"] if name == "bearerd" else "",
        }
        if len(set(versions.values())) > 1:
            faults.append(f"{name}: " + ", ".join(f"{where} {what or 'nowhere'}" for where, what in versions.items()))
            continue
        hashes = {one["content"] for one in listed[name].get("hashes", []) if one["alg"] == "SHA-256"}
        if not hashes:
            faults.append(f"{name}: no hash")
        elif name in locked and not hashes <= locked[name].hashes:
            faults.append(f"{name}: its hash is not in the lock")
    return faults


def against_records(site: Path) -> list[str]:
    """The files whose content is not what their wheel's RECORD says, or that are missing."""
    faults = []
    for record in site.glob("*.dist-info/RECORD"):
        with record.open(newline="") as file:
            for name, digest, _ in csv.reader(file):
                path = site / name
                if not path.exists():
                    faults.append(f"{record.parent.name}: {name} is missing")
                elif digest:
                    actual = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
                    faults += [f"{record.parent.name}: {name} is another"] if digest != f"sha256={actual}" else []
    return faults


def checked(root: Path, entries: Sequence[Locked], python: Path) -> tuple[int, list[str]]:
    """How many projects are installed below `root`/opt/bearerd, and all that is wrong with them and their SBOM."""
    venv = root / "opt/bearerd"
    [site] = venv.glob("lib/python*/site-packages")
    found: dict[str, str] = {canonicalize_name(one.name): one.version for one in distributions(path=[str(site)])}
    version = re.search(r"^version = (\S+)$", (venv / "pyvenv.cfg").read_text(), re.MULTILINE)
    assert version, "pyvenv.cfg names no version"
    environment = {**next(environments()), "python_version": version[1].rpartition(".")[0]}
    environment |= {"python_full_version": version[1], "implementation_version": version[1]}
    text = (root / SBOM).read_text()
    faults = against_schema(text, python) + against_records(site)
    faults += against_environment(json.loads(text), found, installed(entries, environment))
    return len(found), faults
