"""bitsandbytes, which puts weights in four bits and moments in eight, without the code that it would download.

On some processors it asks the package ``kernels``, where that is installed, for compiled code from the Hugging Face hub
when it is imported, and warns where that fails. What runs here is what was installed; its own code does the same.
"""

from __future__ import annotations

import logging
import sys
import threading
from importlib import import_module
from typing import Any

NAME = "bitsandbytes"
_DOWNLOADS = "kernels"
_importing = threading.Lock()


def bitsandbytes(part: str = "") -> Any:
    """The package, or a ``part`` of it.

    Raises ``ImportError``, ``OSError`` or ``RuntimeError`` where it cannot be loaded.
    """
    logging.getLogger(NAME).setLevel(logging.ERROR)
    with _importing:
        there = sys.modules.get(_DOWNLOADS)
        sys.modules[_DOWNLOADS] = None  # type: ignore[assignment]  # importing it raises ImportError
        try:
            import_module(NAME)
        finally:
            del sys.modules[_DOWNLOADS]
            if there is not None:
                sys.modules[_DOWNLOADS] = there
    return import_module(f"{NAME}.{part}" if part else NAME)
