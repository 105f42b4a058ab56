"""A pod of docs/kubernetes.md without a cluster: what the kubelet would mount, and what a runtime would be told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.manifests import containers


class Pod:
    """The volumes of a pod's spec as the kubelet makes them, with the group that `fsGroup` names."""

    def __init__(self, directory: Path, spec: Mapping[str, Any], texts: Mapping[str, Mapping[str, str]]) -> None:
        self.directory = directory
        self.spec = spec
        self.group: int = spec["securityContext"]["fsGroup"]
        self._texts = texts
        self._generation = 0

    @contextmanager
    def volumes(self) -> Iterator[Pod]:
        """While the pod is there; `texts` has what is in its ConfigMap and its Secret."""
        mounted: list[Path] = []
        try:
            for volume in self.spec["volumes"]:
                place = self.directory / volume["name"]
                place.mkdir(parents=True)
                if "emptyDir" in volume:
                    assert volume["emptyDir"]["medium"] == "Memory"
                    size = volume["emptyDir"]["sizeLimit"].removesuffix("i")
                    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
                    mounted.append(place)
                    # Made as 0777; fsGroup is its group, and everybody's in it who makes a file there.
                    os.chown(place, 0, self.group)
                    place.chmod(0o2777)
                else:
                    self.fill(volume["name"], self._texts[volume["name"]])
            yield self
        finally:
            for place in mounted:
                subprocess.run(["umount", "--lazy", place], check=True)

    def fill(self, name: str, texts: Mapping[str, str]) -> None:
        """Files as the kubelet writes those of a ConfigMap or a Secret, and again when it is another: by one link."""
        [volume] = [volume for volume in self.spec["volumes"] if volume["name"] == name]
        mode = volume["secret"]["defaultMode"] if "secret" in volume else 0o644
        self._generation += 1
        place, written = self.directory / name, f"..2026_{self._generation}"
        (place / written).mkdir()
        for key, text in texts.items():
            file = place / written / key
            file.write_text(text)
            os.chown(file, 0, self.group)
            file.chmod(mode | 0o440)  # what fsGroup adds
            if not (place / key).is_symlink():
                (place / key).symlink_to(f"..data/{key}")
        (place / "..data_tmp").symlink_to(written)
        (place / "..data_tmp").rename(place / "..data")

    def container(self, name: str) -> Mapping[str, Any]:
        """One of its containers."""
        [found] = [container for container in containers(dict(self.spec)) if container["name"] == name]
        return found

    def options(self, name: str) -> list[str]:
        """What podman is told of a container."""
        container = self.container(name)
        context = container["securityContext"]
        options = [f"--user={context['runAsUser']}:{context['runAsGroup']}", f"--group-add={self.group}"]
        if context["readOnlyRootFilesystem"]:
            options += ["--read-only", "--read-only-tmpfs=false"]  # podman alone would make /tmp and /run writable
        if not context["allowPrivilegeEscalation"]:
            options += ["--security-opt=no-new-privileges"]
        options += [f"--cap-drop={right}" for right in context["capabilities"]["drop"]]
        for mount in container["volumeMounts"]:
            access = "ro" if mount.get("readOnly") else "rw"
            options.append(f"--volume={self.directory / mount['name']}:{mount['mountPath']}:{access}")
        return options
