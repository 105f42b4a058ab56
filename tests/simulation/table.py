"""What many worlds came to, as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from simulation.checks import INVARIANTS
from simulation.fleet_checks import FLEET_INVARIANTS
from simulation.run import Result

_SHOWN = (
    "grants", "issued", "transient", "rate_limited", "refused", "malformed", "starts", "kill", "restart",
    "suspend", "step", "reloads", "remove", "put_back", "rescope", "move", "limit", "slots", "rotate", "mistype",
    "refresh", "fail_disk", "tamper", "stop", "cut", "reads", "events", "waits",
)  # fmt: skip


@dataclass
class Table:
    """Sums."""

    worlds: Counter[str] = field(default_factory=Counter)
    """By kind."""
    checks: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    token_years: float = 0.0
    violations: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """One more world."""
        self.worlds[result.world.kind] += 1
        self.checks.update(result.checks)
        self.counts.update(result.counts)
        self.token_years += result.token_years
        if result.violation is not None:
            self.violations.append(result)

    def text(self) -> str:
        """For people."""
        broken = Counter(str(result.violation.invariant) for result in self.violations if result.violation)
        lines = [f"{'invariant':<78}{'checks':>12}{'violations':>12}"]
        for name, meaning in (INVARIANTS | FLEET_INVARIANTS).items():
            lines.append(f"({name}) {meaning:<74}{self.checks[name]:>12,}{broken.pop(name, 0):>12,}")
        lines += [f"{name:<78}{'':>12}{number:>12,}" for name, number in sorted(broken.items())]
        lines.append("")
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(self.worlds.items()))
        lines.append(f"worlds       {self.worlds.total():,}: {kinds}")
        lines.append(f"token-years  {self.token_years:,.1f}")
        lines += [f"{name:<12} {self.counts[name]:,}" for name in _SHOWN if self.counts[name]]
        lines += [f"{name} {number:,}" for name, number in sorted(self.counts.items()) if name.startswith("beyond")]
        return "\n".join(lines)


def story(result: Result) -> str:
    """A violation with all that is needed to see it again."""
    violation = result.violation
    lines = [result.world.text(), *result.trace, f"VIOLATION {violation}"]
    return "\n".join(lines)
