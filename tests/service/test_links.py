from __future__ import annotations

import os
from collections.abc import Mapping

import pytest

from bearerd.service.links import deciding


def walk(path: str, tree: Mapping[str, str | None]) -> list[str]:
    """The target of a symlink in this mapping, and None for any other path."""

    def target(place: str) -> str | None:
        if place not in tree:
            raise FileNotFoundError(place)
        return tree[place]

    return deciding(path, target)


KUBERNETES = {
    "/etc": None,
    "/etc/config": "..data/config",
    "/etc/..data": "..2024",
    "/etc/..2024": None,
    "/etc/..2024/config": None,
}
NIXOS = {
    "/etc": None,
    "/etc/bearerd": "/etc/static/bearerd",
    "/etc/static": "/nix/store/1-etc/etc",
    "/nix": None,
    "/nix/store": None,
    "/nix/store/1-etc": None,
    "/nix/store/1-etc/etc": None,
    "/nix/store/1-etc/etc/bearerd": "/nix/store/2-bearerd",
    "/nix/store/2-bearerd": None,
    "/nix/store/2-bearerd/secret": None,
}


@pytest.mark.parametrize(
    ("path", "tree", "found"),
    [
        pytest.param("/a/b", {"/a": None, "/a/b": None}, ["/a/b"], id="a file"),
        pytest.param("/etc/config", KUBERNETES, ["/etc/config", "/etc/..data", "/etc/..2024/config"], id="Kubernetes"),
        pytest.param(
            "/etc/bearerd/secret",
            NIXOS,
            ["/etc/bearerd", "/etc/static", "/nix/store/1-etc/etc/bearerd", "/nix/store/2-bearerd/secret"],
            id="NixOS",
        ),
        pytest.param(
            "/a/../up/./x",
            {"/a": "/deep/down", "/deep": None, "/deep/down": None, "/deep/up": None, "/deep/up/x": None},
            ["/a", "/deep/up/x"],
            id="up from where a link leads",
        ),
        pytest.param("/a/later/x", {"/a": None}, ["/a/later"], id="not there yet"),
        pytest.param("/a", {"/a": "b/c"}, ["/a", "/b"], id="a link to what is not there yet"),
        pytest.param("/d/.", {"/d": "e", "/e": None}, ["/d", "/e/."], id="what is in a directory"),
        pytest.param("/", {}, ["/"], id="the root"),
    ],
)
def test_each_symlink_and_the_end_of_a_path_are_found(
    path: str, tree: Mapping[str, str | None], found: list[str]
) -> None:
    assert walk(path, tree) == found


def test_a_loop_of_symlinks_ends() -> None:
    found = walk("/a/x", {"/a": "b", "/b": "a"})
    assert len(found) == 41
    assert set(found) == {"/a", "/b"}


def test_the_kernel_gives_up_at_the_same_symlink(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = os.path.realpath(tmp_path_factory.mktemp("links"))
    open(f"{directory}/0", "w", encoding="utf-8").close()
    for number in range(1, 42):
        os.symlink(str(number - 1), f"{directory}/{number}")

    def target(place: str) -> str | None:
        return os.readlink(place) if os.path.islink(place) else None

    assert deciding(f"{directory}/40", target)[-1] == f"{directory}/0"
    assert os.path.exists(f"{directory}/40")
    assert f"{directory}/0" not in deciding(f"{directory}/41", target)
    assert not os.path.exists(f"{directory}/41")
