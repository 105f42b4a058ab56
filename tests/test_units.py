"""The unit files. tests/booted runs them under a real systemd."""

from __future__ import annotations

from pathlib import Path

UNITS = Path(__file__).parents[1] / "systemd"


def settings(unit: str) -> list[str]:
    return [line for line in (UNITS / unit).read_text().splitlines() if not line.startswith("#")]


def test_an_instance_is_the_service_with_a_config_and_directories_of_its_own() -> None:
    instance = [
        line.replace(" (%i)", "").replace("/%i.yaml", "/config.yaml").replace("bearerd-%i", "bearerd")
        for line in settings("bearerd@.service")
    ]
    assert instance == settings("bearerd.service")
    assert sum("%i" in line for line in settings("bearerd@.service")) == 5


def test_a_config_that_takes_too_much_memory_ends_only_its_reader() -> None:
    # By default (stop), systemd stops a unit if the kernel kills any of its processes for lack of memory.
    assert "OOMPolicy=continue" in settings("bearerd.service")
