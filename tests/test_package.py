"""The scripts of the Debian package, run in a mount namespace with its own /etc, /run and /var/lib, and the RPM's spec.

tests/booted builds, installs and upgrades the packages.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from bearerd import __version__

SYSTEMD = Path(__file__).parents[1] / "systemd"
POSTRM = SYSTEMD / "deb/postrm"
SPEC = SYSTEMD / "rpm/bearerd.spec"

# The script sees its own directories, and a user bearerd.
_IN_NAMESPACE = """
set -e
mkdir "$1/etc"
cp /etc/group "$1/etc/"
{ cat /etc/passwd; echo "bearerd:x:64321:64321::/:/usr/sbin/nologin"; } > "$1/etc/passwd"
mount --bind "$1/etc" /etc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
for name in $2; do
  mkdir -p "$name"
  echo token > "$name/file"
done
for name in $3; do touch "$name"; done
for name in $4; do chown -R 64321 "$name"; done
sh "$5" purge
find /etc/bearerd /etc/systemd /run /var/lib -maxdepth 1 -name "*bearerd*" 2> /dev/null | sort
"""


def purged(tmp_path: Path, directories: str, files: str = "", bearerds: str = "") -> list[str]:
    """The paths that are left after a purge."""
    namespace = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _IN_NAMESPACE, "sh"]
    done = subprocess.run(
        [*namespace, str(tmp_path), directories, files, bearerds, str(POSTRM)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip(f"needs mount namespaces: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts over /etc, /run and /var/lib, in a namespace")
def test_a_purge_removes_the_files_of_the_package_and_no_others(tmp_path: Path) -> None:
    ours = "/run/bearerd /var/lib/bearerd /run/bearerd-sales /var/lib/bearerd-sales"
    # Of another package, without a config, and one that an administrator gave to another user.
    others = "/run/bearerd-exporter /var/lib/bearerd-exporter /run/bearerd-old /run/bearerd-billing"
    left = purged(
        tmp_path,
        f"/etc/bearerd {ours} {others}",
        "/etc/bearerd/config.yaml /etc/bearerd/sales.yaml /etc/bearerd/billing.yaml /etc/bearerd/x.secret",
        f"{ours} /run/bearerd-old",
    )
    assert left == sorted(others.split())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts over /etc, /run and /var/lib, in a namespace")
def test_a_purge_without_a_config_removes_nothing_else(tmp_path: Path) -> None:
    assert purged(tmp_path, "/run/bearerd /run/bearerd-exporter", "", "/run/bearerd") == ["/run/bearerd-exporter"]


def test_the_spec_has_the_version_of_bearerd() -> None:
    found = re.findall(r"^Version: +(\S+)$|^\* .* - (\S+)-1$", SPEC.read_text(), re.MULTILINE)
    assert found[:2] == [(__version__, ""), ("", __version__)]


@pytest.mark.parametrize(
    ("file", "exception", "reason"),
    [("deb/lintian-overrides", "bearerd: ", "# "), ("rpm/rpmlint.toml", '  "', "  # ")],
    ids=["lintian", "rpmlint"],
)
def test_each_exception_of_a_linter_has_a_reason(file: str, exception: str, reason: str) -> None:
    # A reason is above the exceptions that it explains.
    lines = (SYSTEMD / file).read_text().splitlines()
    first = [number for number, line in enumerate(lines) if line.startswith(exception)]
    groups = [number for number in first if number - 1 not in first]
    assert groups
    assert [lines[number] for number in groups if not lines[number - 1].startswith(reason)] == []
