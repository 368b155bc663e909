"""The pipeline parameters as one table.

These names are an interface: they are given with ``-p name=value``, under ``parameters:`` in ``ilab.yaml``, or set by
a pipeline file, and a pipeline refers to them as ``$name``. ``kind`` is *what* when the value is part of a result's
identity, *where* when it may change without changing a byte. ``derive`` turns the older, more general names into the
values that steps take: specific beats general.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ilab.core.pipeline import nearest
from ilab.errors import InputError

Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Parameter:
    name: str
    type: type
    default: Any
    help: str
    kind: Literal["what", "where"] = "what"
    valid: str = ""
    check: Check = lambda value: True


def _positive(value: Any) -> bool:
    return bool(value > 0)


def _not_negative(value: Any) -> bool:
    return bool(value >= 0)


def _share(value: Any) -> bool:
    return bool(0 <= value <= 1)


def _part(value: Any) -> bool:
    return bool(0 <= value < 1)


def _one_of(*words: str) -> Check:
    return lambda value: value in words


def _version(value: Any) -> bool:
    return re.fullmatch(r"\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?", value) is not None


TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
METRICS = ("accuracy", "f1", "judge", "declined")  # those that ilab.evaluation.measures knows

TABLE: tuple[Parameter, ...] = (
    Parameter("sdg_base_model", str, "", "model to fine-tune: `tiny`, or a Hugging Face directory"),
    Parameter("sdg_repo_url", str, "", "taxonomy: a folder, one qna.yaml, or a git URL (URL@ref)"),
    Parameter(
        "sdg_pipeline",
        str,
        "",
        "flow that makes the synthetic data: extractive, simple, full, llama, or a folder; empty: "
        "`simple` with a teacher, else `extractive`",
    ),
    Parameter("sdg_teacher_model", str, "", "name under which the endpoint serves the teacher"),
    Parameter(
        "sdg_verifier_model",
        str,
        "",
        "name under which where.verifier serves a second teacher, for flows with the block `agreement`",
    ),
    Parameter("sdg_scale_factor", int, 30, "instructions to make per seed example", valid="> 0", check=_positive),
    Parameter(
        "sdg_quality_threshold",
        float,
        0.7,
        "lowest score with which a judge lets a row pass",
        valid="0-1",
        check=_share,
    ),
    Parameter(
        "sdg_near_duplicates",
        float,
        0.8,
        "similarity from which a teacher's pairs are near-duplicates, of which the first stays; 1 keeps all",
        valid="above 0, up to 1",
        check=lambda value: 0 < value <= 1,
    ),
    Parameter(
        "sdg_benchmarks",
        str,
        "",
        "files of questions that must not become samples: `PATH, NAME=PATH, PATH#QUESTION+ANSWER` (JSONL, CSV, "
        "Parquet)",
    ),
    Parameter("sdg_random_seed", int, 42, "seed of every choice in data generation and evaluation"),
    Parameter("sdg_batch_size", int, 16, "requests in flight per worker", "where", "> 0", _positive),
    Parameter("sdg_num_workers", int, 4, "concurrent workers towards the teacher", "where", "> 0", _positive),
    Parameter(
        "taxonomy_base",
        str,
        "empty",
        "build only the leaves that changed since this branch, tag or commit; `empty`: all of them",
    ),
    Parameter("chunk_tokens", int, 500, "most tokens of one document chunk", valid="> 0", check=_positive),
    Parameter("chunk_word_count", int, None, "most words of one document chunk", valid="> 0", check=_positive),
    Parameter(
        "chunk_tokenizer",
        str,
        "",
        "what counts chunk_tokens: a model's directory, or a tokenizer.json; empty: the base model's, else an estimate",
    ),
    Parameter(
        "server_ctx_size",
        int,
        None,
        "the teacher's context window in tokens; chunks are cut so that every request fits",
        valid="> 0",
        check=_positive,
    ),
    Parameter(
        "document_policy",
        str,
        "warn",
        "what becomes of hidden and instruction-like text in documents: warn, drop or fail, or by source: "
        "`PATTERN=WORD, …, WORD`",
    ),
    Parameter(
        "document_converter",
        str,
        "builtin",
        "what reads PDF and DOCX: builtin, or docling (pip install 'ilab[docling]')",
        valid="builtin, docling",
        check=_one_of("builtin", "docling"),
    ),
    Parameter(
        "mix_question_variants", int, 1, "copies of each question, the first clean", valid="> 0", check=_positive
    ),
    Parameter(
        "mix_question_noise",
        float,
        0.0,
        "share of a copied question's words that is dropped or swapped",
        valid="0 up to, not including, 1",
        check=_part,
    ),
    Parameter(
        "mix_replay",
        float,
        0.3,
        "share of phase 2's rows that come from phase 1 again",
        valid="0 up to, not including, 1",
        check=_part,
    ),
    Parameter(
        "mix_sampling_size",
        str,
        "1.0",
        "how much of each leaf's questions a phase takes: a share as 0.5, or a count as 30",
        valid="share or count >= 0",
        check=lambda value: re.fullmatch(r"\d+(\.\d+)?", value) is not None,
    ),
    Parameter("mix_max_per_leaf", int, None, "most of a leaf's questions in a phase", valid="> 0", check=_positive),
    Parameter(
        "mix_raft_distractors",
        int,
        0,
        "phase 2 asks the knowledge questions again among so many other passages (RAFT); 0: it does not",
        valid=">= 0",
        check=_not_negative,
    ),
    Parameter(
        "mix_raft_oracle",
        float,
        0.8,
        "share of those questions whose own passage is among the passages",
        valid="0-1",
        check=_share,
    ),
    Parameter(
        "sdg_mix_recipe", str, "", "recipe file: datasets made before that go into phase 2 (skills), and how much"
    ),
    Parameter("sdg_mix_recipe_knowledge", str, "", "the same for phase 1 (knowledge)"),
    Parameter("train_epochs_phase_1", int, 7, "epochs of the knowledge phase", valid="> 0", check=_positive),
    Parameter("train_epochs_phase_2", int, 10, "epochs of the skills phase", valid="> 0", check=_positive),
    Parameter("train_learning_rate", float, 2e-5, "learning rate of both phases", valid="> 0", check=_positive),
    Parameter("train_learning_rate_phase_1", float, None, "learning rate of phase 1", valid="> 0", check=_positive),
    Parameter("train_learning_rate_phase_2", float, None, "learning rate of phase 2", valid="> 0", check=_positive),
    Parameter("train_batch_size", int, 8, "samples per worker and micro-step", valid="> 0", check=_positive),
    Parameter("train_gradient_accumulation_steps", int, 4, "micro-steps per update", valid="> 0", check=_positive),
    Parameter("train_num_workers", int, 2, "training workers", valid="> 0", check=_positive),
    Parameter(
        "train_effective_batch_size_phase_1",
        int,
        None,
        "samples per update in phase 1; replaces the product of batch size, accumulation and workers",
        valid="> 0",
        check=_positive,
    ),
    Parameter("train_effective_batch_size_phase_2", int, None, "the same for phase 2", valid="> 0", check=_positive),
    Parameter("train_num_warmup_steps_phase_1", int, 0, "linear warm-up, steps", valid=">= 0", check=_not_negative),
    Parameter("train_num_warmup_steps_phase_2", int, 0, "linear warm-up, steps", valid=">= 0", check=_not_negative),
    Parameter(
        "train_schedule",
        str,
        "constant",
        "learning rate after warm-up",
        valid="constant, cosine",
        check=_one_of("constant", "cosine"),
    ),
    Parameter("train_weight_decay", float, 0.0, "AdamW weight decay", valid=">= 0", check=_not_negative),
    Parameter(
        "train_precision",
        str,
        "fp32",
        "arithmetic of the forward pass; weights stay fp32",
        valid="fp32, bf16",
        check=_one_of("fp32", "bf16"),
    ),
    Parameter(
        "train_on",
        str,
        "assistant",
        "turns that bear loss: the answers, the last answer, or all turns but the system's",
        valid="assistant, last, all",
        check=_one_of("assistant", "last", "all"),
    ),
    Parameter(
        "train_chat_template",
        str,
        "",
        "chat template that the base gets: granite, llama, mistral, qwen, chatml, instructlab, a .jinja file, or none; "
        "empty: its own, else the one that its special tokens name",
    ),
    Parameter(
        "train_over_length",
        str,
        "drop",
        "what becomes of a sample that is longer than train_sequence_length",
        valid="drop, truncate, split, error",
        check=_one_of("drop", "truncate", "split", "error"),
    ),
    Parameter("train_sequence_length", int, 2048, "longest sample, tokens", valid="> 0", check=_positive),
    Parameter("train_max_batch_len", int, 5000, "most tokens of one micro-batch", valid="> 0", check=_positive),
    Parameter(
        "train_validation_share",
        float,
        0.0,
        "share of the rows that are held out of training; their loss chooses a checkpoint where no dev items exist",
        valid="0 up to, not including, 1",
        check=_part,
    ),
    Parameter(
        "train_select",
        str,
        "auto",
        "what chooses a phase's checkpoint: score on dev items, loss on held-out rows, the last one; auto: the first "
        "that there is",
        valid="auto, score, loss, last",
        check=_one_of("auto", "score", "loss", "last"),
    ),
    Parameter("train_seed", int, 42, "seed of data order and dropout"),
    Parameter(
        "train_method",
        str,
        "full",
        "what is trained: all weights, an adapter (qlora: beside four bits), or the directions that matter least",
        valid="full, lora, qlora, osft",
        check=_one_of("full", "lora", "qlora", "osft"),
    ),
    Parameter("train_lora_rank", int, 16, "rank of an adapter", valid="> 0", check=_positive),
    Parameter("train_lora_alpha", int, 32, "scale of an adapter, over its rank", valid="> 0", check=_positive),
    Parameter("train_lora_dropout", float, 0.0, "dropout before an adapter", valid="0 up to 1", check=_part),
    Parameter(
        "train_lora_targets", str, "", "linear layers that lora, qlora and osft change, as q_proj,v_proj; empty: all"
    ),
    Parameter(
        "train_lora_variant",
        str,
        "plain",
        "kind of adapter",
        valid="plain, rslora, dora",
        check=_one_of("plain", "rslora", "dora"),
    ),
    Parameter("train_osft_share", float, 0.25, "share of directions that osft trains", valid="0-1", check=_share),
    Parameter(
        "train_optimizer",
        str,
        "adamw",
        "optimizer; adamw_8bit holds its moments in eight bits",
        valid="adamw, adamw_8bit",
        check=_one_of("adamw", "adamw_8bit"),
    ),
    Parameter(
        "train_save_samples",
        int,
        None,
        "samples between two candidates, in place of output_checkpoint_frequency",
        valid="> 0",
        check=_positive,
    ),
    Parameter(
        "train_keep_checkpoints",
        int,
        None,
        "newest candidates kept while training, besides the best; all where it is not given",
        valid="> 0",
        check=_positive,
    ),
    Parameter("output_checkpoint_frequency", int, 1, "epochs between two candidates", valid="> 0", check=_positive),
    Parameter(
        "eval_num_samples",
        int,
        100,
        "most held-out items per leaf and split; 0 for all",
        valid=">= 0",
        check=_not_negative,
    ),
    Parameter(
        "eval_items",
        str,
        "rule",
        "who makes held-out questions beside people's: rule (for leaves where people wrote none), or teacher (the flow "
        "`eval`, for knowledge)",
        valid="rule, teacher",
        check=_one_of("rule", "teacher"),
    ),
    Parameter(
        "eval_items_per_chunk",
        int,
        4,
        "with eval_items=teacher: questions asked for per chunk, in 3 calls each",
        valid="> 0",
        check=_positive,
    ),
    Parameter(
        "eval_judge_model",
        str,
        "",
        "name under which where.judge serves the judge; `rule`: word overlap with the reference, no model; empty: none",
    ),
    Parameter(
        "eval_judge_marks",
        str,
        "",
        "file of answers that people marked (question, answer, reference, mark), by which the judge is calibrated",
    ),
    Parameter("eval_open_book", bool, True, "ask the held-out items a second time beside their passage"),
    Parameter(
        "eval_general",
        str,
        "builtin",
        "questions beside the taxonomy, on which nothing may be lost: `builtin`, a file, or empty for none",
    ),
    Parameter("mt_bench_questions", str, "builtin", "conversations that the judge marks: `builtin`, or a file"),
    Parameter("eval_batch_size", int, 16, "items that are scored at once", "where", "> 0", _positive),
    Parameter(
        "previous_model",
        str,
        "",
        "the release to replace, measured beside the new model: `registry`, `registry:VERSION`, or a folder",
    ),
    Parameter(
        "eval_metrics",
        str,
        "accuracy,f1",
        "what the gate's score is the mean of",
        valid=", ".join(METRICS),
        check=lambda value: all(part.strip() in METRICS for part in value.split(",")),
    ),
    Parameter("eval_quality_threshold", float, 0.8, "lowest score that may be published", valid="0-1", check=_share),
    Parameter(
        "gate_margin", float, 0.05, "loss that is borne on leaves that did not change", valid="0-1", check=_share
    ),
    Parameter(
        "gate_general_margin", float, 0.03, "loss that is borne on the general questions", valid="0-1", check=_share
    ),
    Parameter(
        "gate_on",
        str,
        "point",
        "what must reach eval_quality_threshold: the score, or the lower bound of its interval",
        valid="point, lower",
        check=_one_of("point", "lower"),
    ),
    Parameter(
        "gate_on_inconclusive",
        str,
        "stop",
        "what happens when nobody can know yet",
        valid="stop, publish",
        check=_one_of("stop", "publish"),
    ),
    Parameter("publish_anyway", bool, False, "package and register whatever the gate says; the lineage tells it"),
    Parameter("output_model_name", str, "instructlab-model", "registered name"),
    Parameter("output_model_version", str, "0.1.0", "registered version", valid="semantic version", check=_version),
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
