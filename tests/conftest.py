"""Makes the helpers of tests/support importable everywhere, and Ctrl-C work also in the background."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))

# A shell without job control starts background commands (`nohup ... &`, some continuous integration) with SIGINT
# ignored, and children inherit that. Tests of Ctrl-C need the usual handler, here and in the processes they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
