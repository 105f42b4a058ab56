"""Write the generated files: `python -m reference` in tests/, after a change of the config's keys or the commands."""

from __future__ import annotations

from reference import ROOT, generated

for path, text in generated().items():
    (ROOT / path).write_text(text, encoding="utf-8")
