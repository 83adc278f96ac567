"""How the threads of a program share the processor's cores with other programs."""

from __future__ import annotations

import os

# Turns of an idle loop, some microseconds; GNU's OpenMP makes 300 000 by default.
_SPINS = "3000"


def share_cores() -> None:
    """Has torch's threads on Linux give way soon where they wait for each other; call it before torch is imported.

    A thread that waits in a loop holds the core that the awaited one needs, if another program has the other.
    Loops this short cost at most a tenth while the machine is quiet, and beside a busy program training takes
    2.5 times the quiet time, not four (`python -m bench.busy`). Who has set a variable of OpenMP's keeps it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
