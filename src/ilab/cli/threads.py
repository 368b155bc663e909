"""How waiting threads behave; must be said before torch is imported."""

from __future__ import annotations

import os


def passive_threads() -> None:
    """Let idle worker threads spin a little, then sleep. Values given by the user stay.

    Threads that spin without end make everything crawl as soon as another process wants the same cores: a 12 s
    evaluation took 198 s. Threads that sleep at once cost a tiny model a quarter of its speed on an idle machine.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # GNU's runtime, which torch brings on Linux: before it sleeps
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
