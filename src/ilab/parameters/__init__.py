"""The pipeline parameters as one table.

These names are an interface: they are given with ``-p name=value``, under ``parameters:`` in ``ilab.yaml``, in a file
(:mod:`ilab.parameters.files`), by the ConfigMap and the run form of a cluster, or set by a pipeline file, and a
pipeline refers to them as ``$name``. Some defaults differ between the environments dev and prod. ``kind`` is *what*
when the value is part of a result's identity, *where* when it may change without changing a byte. ``derive`` turns the
older, more general names into the values that steps take: specific beats general.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ilab.core.git import is_url, split_ref
from ilab.core.pipeline import nearest
from ilab.errors import InputError, InputErrors
from ilab.parameters.data import DATA
from ilab.parameters.evaluation import EVALUATION
from ilab.parameters.infrastructure import INFRASTRUCTURE
from ilab.parameters.output import OUTPUT
from ilab.parameters.parameter import Environment, Parameter
from ilab.parameters.training import TRAINING

TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

PAGES: Mapping[str, tuple[Parameter, ...]] = {
    "data": DATA,
    "training": TRAINING,
    "evaluation": EVALUATION,
    "infrastructure": INFRASTRUCTURE,
    "output": OUTPUT,
}
TABLE: tuple[Parameter, ...] = tuple(parameter for page in PAGES.values() for parameter in page)
NOT_NEEDED: Mapping[str, str] = {  # what older pipelines know and has nothing to change here; taken with a note
    "mt_bench_merge_system_user_message": "the judge is always asked in one user message",
}
BY_NAME: Mapping[str, Parameter] = {parameter.name: parameter for parameter in TABLE}


@dataclass(frozen=True)
class Given:
    value: Any
    origin: str


def collect(layers: Mapping[str, Mapping[str, Any]], environment: Environment = "dev") -> dict[str, Given]:
    """Defaults of ``environment``, then each layer (origin -> values) over them, checked.

    Raises InputError for unknown names (with the nearest known) and values out of range: all of them at once.
    """
    given: dict[str, Given] = {}
    for parameter in TABLE:
        origin = "default" if parameter.default_in(environment) == parameter.default else f"environment {environment}"
        given[parameter.name] = Given(parameter.default_in(environment), origin)
    wrong: list[InputError] = []
    for origin, values in layers.items():
        for name, value in values.items():
            if name in NOT_NEEDED:
                continue
            try:
                given[name] = Given(_known(name, value, origin), origin)
            except InputError as error:
                wrong.append(error)
    if len(wrong) > 1:
        raise InputErrors(wrong)
    if wrong:
        raise wrong[0]
    return given


def _known(name: str, value: Any, origin: str) -> Any:
    if name not in BY_NAME:
        raise InputError(f"unknown parameter {name!r}", where=origin, hint=nearest(name, BY_NAME, "parameters"))
    return _typed(BY_NAME[name], value, origin)


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
    size, share = values["mix_sampling_size"], values["sdg_sample_size"]
    derived["sampling_size"] = share if share is not None else int(size) if size.isdecimal() else float(size)
    derived["train_sequence_length"] = min(
        values["train_sequence_length"], values["sdg_max_batch_len"] or values["train_sequence_length"]
    )
    derived["sdg_repo_url"] = _repository(values)
    by_teacher = values["eval_items"] == "teacher"  # else nothing about a teacher is part of what the items are
    derived["items_flow"] = "eval" if by_teacher else ""
    derived["items_family"] = values["sdg_teacher_family"] if by_teacher else ""
    derived["items_teacher"] = values["sdg_teacher_model"] if by_teacher else ""
    derived["items_per_chunk"] = values["eval_items_per_chunk"] if by_teacher else 0
    derived["metrics"] = [part.strip() for part in values["eval_metrics"].split(",")]
    return derived


def _repository(values: Mapping[str, Any]) -> str:
    """The taxonomy's locator, with the branch or pull request that is wanted of it.

    Raises InputError where these are given of what is no git address, or both of them.
    """
    url, branch, number = values["sdg_repo_url"], values["sdg_repo_branch"], values["sdg_repo_pr"]
    if not branch and not number:
        return str(url)
    name = "sdg_repo_pr" if number else "sdg_repo_branch"
    if branch and number:
        raise InputError("a branch and a pull request are given; one of them is taken", where="sdg_repo_pr")
    if not is_url(url):
        hint = "a folder is read as it stands; for a repository on this machine give file:///PATH"
        raise InputError(f"sdg_repo_url is no git address: {url!r}", where=name, hint=hint)
    if split_ref(url)[1] != "HEAD":
        raise InputError(f"sdg_repo_url names a ref itself: {url}", where=name, hint=f"leave {name} out, or the @REF")
    return f"{url}#{f'refs/pull/{number}/head' if number else branch}"


def _typed(parameter: Parameter, value: Any, origin: str) -> Any:
    where = f"{origin}: {parameter.name}"
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
