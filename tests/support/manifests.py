"""The manifests in docs/kubernetes.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from support.pages import blocks

ALONE = "companies.yaml", "nightly.yaml"
PAGE = Path(__file__).parents[2] / "docs" / "kubernetes.md"


def texts(language: str, whose: str = "") -> list[str]:
    """The blocks of a language on the page; with `whose`, only those whose first line names it."""
    start = f"# {whose}" if whose else ""
    return [block.text for block in blocks(PAGE) if block.language == language and block.text.startswith(start)]


def objects(*files: str) -> list[dict[str, Any]]:
    """The complete Kubernetes objects, of these files or of all."""
    wanted = [text for file in files or ("",) for text in texts("yaml", f"kubernetes: {file}")]
    found = [document for text in wanted for document in yaml.safe_load_all(text)]
    return [document for document in found if "kind" in document]


def only(kind: str, *files: str) -> dict[str, Any]:
    """The only object of a kind in these files, or in those of pods that share nothing."""
    [found] = [document for document in objects(*(files or ALONE)) if document["kind"] == kind]
    return found


def patch() -> dict[str, Any]:
    """The blocks that are not complete objects."""
    found = [document for text in texts("yaml", "kubernetes") for document in yaml.safe_load_all(text)]
    [only_one] = [document for document in found if "kind" not in document]
    return dict(only_one)


def pod(kind: str) -> dict[str, Any]:
    """The spec of the pods that the object of this kind creates."""
    return dict(only(kind)["spec"]["template"]["spec"])


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All containers of a pod, in the order in which they start."""
    return [*spec.get("initContainers", []), *spec["containers"]]
