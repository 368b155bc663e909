"""Which processor to use."""

from __future__ import annotations

from ilab.errors import SetupError


def pick_device(wanted: str) -> str:
    """``auto`` becomes cuda or mps where there is one, else cpu. Raises SetupError for a device that is not there."""
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available.get(wanted.split(":", maxsplit=1)[0], False):
        raise SetupError(
            f"there is no {wanted} device on this machine",
            where="where.device",
            hint="use --set where.device=auto, or cpu",
        )
    return wanted
