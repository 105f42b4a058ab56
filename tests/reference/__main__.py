"""Write the generated files: `python -m reference` in tests/, after a change of the config's keys or the commands."""

from __future__ import annotations

from reference import generated

for path, text in generated().items():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
