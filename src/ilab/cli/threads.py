"""How waiting threads behave; must be said before torch is imported."""

from __future__ import annotations

import os


def passive_threads() -> None:
    """Let idle worker threads sleep instead of spin.

    With another job on the machine two spinning threads made a 12 s evaluation take 198 s; on an idle machine
    sleeping costs some percent. A value given by the user stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
