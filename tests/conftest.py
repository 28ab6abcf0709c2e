"""Makes the helpers of tests/support importable everywhere, Ctrl-C work in the background, and Hypothesis patient."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "support"))

# A shell without job control starts background commands (`nohup ... &`, some continuous integration) with SIGINT
# ignored, and children inherit that. Tests of Ctrl-C need the usual handler, here and in the processes they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How fast examples run is the machine's affair, not a property. All else stays as the profile in force has it.
settings.register_profile(
    "any machine", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
