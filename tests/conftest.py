from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes, to make or to run, says more of the machine's other work than of the code.
settings.register_profile("bearerd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("bearerd")
