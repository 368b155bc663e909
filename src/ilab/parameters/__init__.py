"""The pipeline parameters as one table.

These names are an interface: they are given with ``-p name=value``, under ``parameters:`` in ``ilab.yaml``, or set by
a pipeline file, and a pipeline refers to them as ``$name``. ``kind`` is *what* when the value is part of a result's
identity, *where* when it may change without changing a byte. ``derive`` turns the older, more general names into the
values that steps take: specific beats general.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ilab.core.pipeline import nearest
from ilab.errors import InputError
from ilab.parameters.data import DATA
from ilab.parameters.evaluation import EVALUATION
from ilab.parameters.output import OUTPUT
from ilab.parameters.parameter import Parameter, one_of
from ilab.parameters.training import TRAINING

TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

TABLE: tuple[Parameter, ...] = (
    *DATA,
    *TRAINING,
    *EVALUATION,
    Parameter(
        "output_save_metrics", bool, True, "write the figures of the evaluation as a table beside the report", "where"
    ),
    Parameter(
        "output_metrics_format",
        str,
        "csv",
        "form of that table; the report's own JSON is always there",
        "where",
        "csv, json",
        one_of("csv", "json"),
    ),
    *OUTPUT,
)
BY_NAME: Mapping[str, Parameter] = {parameter.name: parameter for parameter in TABLE}


@dataclass(frozen=True)
class Given:
    value: Any
    origin: str


def collect(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, Given]:
    """Defaults, then each layer (origin -> values) over them, checked.

    Raises InputError for an unknown name (with the nearest known) or a value out of range.
    """
    given = {parameter.name: Given(parameter.default, "default") for parameter in TABLE}
    for origin, values in layers.items():
        for name, value in values.items():
            if name not in BY_NAME:
                raise InputError(f"unknown parameter {name!r}", where=origin, hint=nearest(name, BY_NAME, "parameters"))
            given[name] = Given(_typed(BY_NAME[name], value, origin), origin)
    return given


def derive(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with what steps take: the effective batch and learning rate of each phase, the tokenizer, the metrics,
    how much a phase takes.

    ``preview``, ``preview_calls`` and ``instructions`` are no parameters: commands that make a few samples set them.
    """
    product = values["train_batch_size"] * values["train_gradient_accumulation_steps"] * values["train_num_workers"]
    derived = {**values, "preview": None, "preview_calls": None, "instructions": None}
    for phase in (1, 2):
        derived[f"batch_phase_{phase}"] = values[f"train_effective_batch_size_phase_{phase}"] or product
        rate = values[f"train_learning_rate_phase_{phase}"]
        derived[f"rate_phase_{phase}"] = values["train_learning_rate"] if rate is None else rate
    samples = values["train_save_samples"]
    derived["save_every"], derived["save_unit"] = (
        (samples, "samples") if samples else (values["output_checkpoint_frequency"], "epochs")
    )
    derived["lora_targets"] = [part.strip() for part in values["train_lora_targets"].split(",") if part.strip()]
    base = values["sdg_base_model"]
    derived["tokenizer"] = values["chunk_tokenizer"] or ("" if base == "tiny" else base)  # tiny's is made by the run
    size = values["mix_sampling_size"]
    derived["sampling_size"] = int(size) if size.isdecimal() else float(size)
    by_teacher = values["eval_items"] == "teacher"  # else nothing about a teacher is part of what the items are
    derived["items_flow"] = "eval" if by_teacher else ""
    derived["items_family"] = values["sdg_teacher_family"] if by_teacher else ""
    derived["items_teacher"] = values["sdg_teacher_model"] if by_teacher else ""
    derived["items_per_chunk"] = values["eval_items_per_chunk"] if by_teacher else 0
    derived["metrics"] = [part.strip() for part in values["eval_metrics"].split(",")]
    return derived


def _typed(parameter: Parameter, value: Any, origin: str) -> Any:
    where = f"{parameter.name} ({origin})"
    if value is None and parameter.default is None:
        return None
    if isinstance(value, str) and parameter.type in (int, float):
        try:
            value = parameter.type(value)
        except ValueError as error:
            raise InputError(f"{value!r} is not a number", where=where) from error
    if parameter.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if parameter.type is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if parameter.type is bool and str(value).lower() in TRUTH:
        value = TRUTH[str(value).lower()]
    if not isinstance(value, parameter.type) or isinstance(value, bool) != (parameter.type is bool):
        raise InputError(f"takes {parameter.type.__name__}, not {value!r}", where=where)
    if not parameter.check(value):
        raise InputError(f"{value!r} is out of range", where=where, hint=f"valid: {parameter.valid}")
    return value
