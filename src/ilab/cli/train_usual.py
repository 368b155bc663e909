"""What a training takes where nobody says anything, so that `ilab train` works in any folder.

data      `generated` here, as InstructLab's first versions had it, else what `ilab data generate` keeps
base      --model-path, else the configuration's, else the student recommended for this machine, once downloaded
method    an adapter; all weights of a base that is no larger than an adapter
result    `models` here for `ilab train` and in projects, else InstructLab's later place for checkpoints
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.errors import InputError, SetupError

if TYPE_CHECKING:
    from ilab.config import Loaded
    from ilab.training.choice import Choice

GENERATED, MODELS = "generated", "models"  # where InstructLab's first versions wrote data and models
LARGE = 10_000_000  # parameters of a base from which on an adapter is much smaller
# What an adapter is usually trained with (QLoRA, arXiv 2305.14314, appendix B.2), and what a model of a few million
# parameters is (the quickstart's).
ADAPTER_RATE, SMALL_RATE, BATCH = 2e-4, 3e-3, 16
BATCHES = {"train_batch_size", "train_gradient_accumulation_steps", "train_num_workers"}
HOW = ("method", "pipeline", "lora_rank", "lora_quantize_dtype")  # options that say what is trained


def is_flat() -> bool:
    """Whether the command was called by its short name, `ilab train` for `ilab model train`."""
    context = click.get_current_context()
    return context.parent is not None and context.parent.parent is None


def generated(folder: Path) -> Path | None:
    """The folder of data that is meant where none is named, or None where there is no data."""
    from ilab.config import data_home

    kept = data_home() / "datasets"
    if (folder / GENERATED).is_dir():
        return folder / GENERATED
    return kept if any(kept.rglob("*.jsonl")) else None


def results(folder: Path) -> Path:
    """Where the result of a training goes where no folder is named."""
    from ilab.config import data_home, find_project

    if is_flat() or find_project(folder) is not None:
        return folder / MODELS
    return data_home() / "checkpoints"


def student_at_hand(loaded: Loaded) -> str:
    """The name of the recommended student. Raises ``InputError``, with what to type, where it is not downloaded."""
    from ilab.profiles import wanted
    from ilab.transfer.shelf import model_at

    student = wanted(loaded).get("student")
    other = "give the folder of a Hugging Face model: --model-path DIR (or `tiny`, a toy that is made on the spot)"
    if student is None:
        raise InputError("there is no model to train", hint=other)
    if model_at(student.repository, loaded.base) is None:
        raise InputError(
            f"there is no model to train: the one recommended for this machine is not here ({student})",
            hint=f"get it with: ilab model download --repository {student.repository}\n       or {other}",
        )
    return student.repository


def is_unsaid(given: Mapping[str, Any]) -> bool:
    """Whether no option says what is trained: all weights, or an adapter."""
    return all(given[name] is None for name in HOW)


def method_for(given: Mapping[str, Any], device: str, base: str, folder: Path) -> Choice:
    """What the options mean; where they say nothing, an adapter, or all weights of a small ``base``.

    Raises ``SetupError`` where a large base would have to be trained as a whole because PEFT is missing.
    """
    from ilab.training.choice import Choice, choose_method

    size, unsaid = size_of(base, folder), is_unsaid(given)
    if unsaid and size < LARGE:
        return Choice("full", ("so small a base needs no adapter: all weights are trained (else: --pipeline simple)",))
    choice = choose_method({**given, "pipeline": "simple"} if unsaid else given, device)
    simple = unsaid or (given["pipeline"] == "simple" and not given["method"] and given["lora_rank"] is None)
    if simple and choice.method == "full" and size >= LARGE:
        raise SetupError(
            f"a base of {size:,} parameters is trained by an adapter, which takes the package peft",
            where="train_method",
            hint="pip install 'ilab[lora]', or train all weights with --method full",
        )
    return choice


def defaults_for(method: str | None, device: str, unsaid: set[str]) -> dict[str, Any]:
    """Parameters that suit an adapter, or all weights of a small base; of those in ``unsaid``, left at defaults."""
    usual: dict[str, Any] = {"train_learning_rate": SMALL_RATE if method == "full" else ADAPTER_RATE}
    if device.startswith("cuda") and method != "full":
        usual["train_precision"] = "bf16"
    if unsaid >= BATCHES:
        usual |= {f"train_effective_batch_size_phase_{phase}": BATCH for phase in (1, 2)}
    return {name: value for name, value in usual.items() if name in unsaid}


def size_of(base: str, folder: Path) -> int:
    """How many parameters a base has; 0 for the built-in one and for what turns out to be no model."""
    from ilab.models.chat_template import json_object
    from ilab.training.architecture import architecture
    from ilab.training.base import TINY
    from ilab.transfer.shelf import model_at

    path = None if base == TINY else model_at(base, folder)
    config = json_object(path / "config.json") if path and path.is_dir() else {}
    return architecture(config).parameters if config else 0
