"""Loading a model's weights: from safetensors only, never with code of its own, one at a time.

transformers builds a model under settings that hold for the whole process (default device and dtype), so two threads
that load at once spoil each other's weights; and it imports its own parts when they are first asked for, which two
threads cannot do at once either. Steps run in threads; hence the lock, around imports from transformers too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ilab.errors import InputError

BUILDING = threading.Lock()  # held while anything is imported from transformers, and while it builds a model


def check_folder(folder: Path) -> None:
    """Raises ``InputError`` where ``folder`` cannot be that of a model. Reads nothing."""
    if not (folder / "config.json").is_file():
        raise InputError(
            "this folder holds no Hugging Face model (config.json is missing)",
            where=str(folder),
            hint="build one with `ilab run`, or give another folder",
        )


def load_weights(folder: Path, dtype: Any, device: str, *, quantization: Any = None) -> Any:
    """The causal language model of a Hugging Face directory on ``device``, ready for evaluation.

    ``dtype`` is a torch dtype, or ``"auto"`` for the one the weights are stored in; ``quantization`` is a configuration
    of transformers to load them by. Raises ``InputError`` where the folder holds no model that can be loaded safely.
    """
    from safetensors import SafetensorError

    check_folder(folder)
    try:
        with BUILDING:
            from transformers import AutoModelForCausalLM
            from transformers.utils import logging

            logging.disable_progress_bar()
            options = {} if quantization is None else {"quantization_config": quantization, "device_map": {"": device}}
            model = AutoModelForCausalLM.from_pretrained(
                str(folder),
                **options,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                attn_implementation="sdpa",
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"this model cannot be loaded: {str(error).strip().splitlines()[0]}",
            where=str(folder),
            hint="it must be a known architecture with its weights as safetensors",
        ) from error
    return (model if quantization is not None else model.to(device)).eval()


@contextlib.contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Let safetensors' own error for a disk that takes no more be an OSError, as every other writer's is."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        full = f"os error {errno.ENOSPC}" in str(error)
        number = errno.ENOSPC if full else errno.EIO
        raise OSError(number, os.strerror(number) if full else str(error), str(folder)) from error
