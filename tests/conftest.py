from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# The time of an example depends on the load of the machine more than on the code.
settings.register_profile("bearerd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("bearerd")

# Hundreds of tests start the command. Without bytecode on disk each start would compile all modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
