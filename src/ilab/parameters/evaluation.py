"""Of evaluation and the gate."""

from __future__ import annotations

from ilab.parameters.parameter import Parameter, not_negative, one_of, positive, share, workers

METRICS = ("accuracy", "f1", "judge", "declined")  # those that ilab.evaluation.measures knows

EVALUATION: tuple[Parameter, ...] = (
    Parameter(
        "eval_num_samples",
        int,
        100,
        "most held-out items per leaf and split; 0 for all",
        valid=">= 0",
        check=not_negative,
    ),
    Parameter(
        "eval_items",
        str,
        "rule",
        "who makes held-out questions beside people's: rule (for leaves where people wrote none), or teacher (the flow "
        "`eval`, for knowledge)",
        valid="rule, teacher",
        check=one_of("rule", "teacher"),
    ),
    Parameter(
        "eval_items_per_chunk",
        int,
        4,
        "with eval_items=teacher: questions asked for per chunk, in 3 calls each",
        valid="> 0",
        check=positive,
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
    Parameter(
        "final_eval_few_shots",
        int,
        0,
        "solved questions of the same subject that stand before each general one",
        valid=">= 0",
        check=not_negative,
    ),
    Parameter("mt_bench_questions", str, "builtin", "conversations that the judge marks: `builtin`, or a file"),
    Parameter("eval_batch_size", int, 16, "items that are scored at once", "where", "> 0", positive),
    Parameter(
        "final_eval_batch_size",
        str,
        "",
        "the same for the final evaluation: a number, or auto for as many as fit; empty: eval_batch_size",
        "where",
        "auto, or > 0",
        lambda value: value == "" or workers(value),
    ),
    Parameter(
        "mt_bench_max_workers",
        str,
        "auto",
        "questions to the judge at once in mt-bench; auto: as where.judge.in_flight",
        "where",
        "auto, or > 0",
        workers,
    ),
    Parameter(
        "final_eval_max_workers",
        str,
        "auto",
        "questions to the judge at once in the final evaluation",
        "where",
        "auto, or > 0",
        workers,
    ),
    Parameter(
        "previous_model",
        str,
        "",
        "the release to replace, measured beside the new model: `registry`, `registry:VERSION` (or alias), or a folder",
    ),
    Parameter(
        "eval_metrics",
        str,
        "accuracy,f1",
        "what the gate's score is the mean of",
        valid=", ".join(METRICS),
        check=lambda value: all(part.strip() in METRICS for part in value.split(",")),
    ),
    Parameter("eval_quality_threshold", float, 0.8, "lowest score that may be published", valid="0-1", check=share),
    Parameter("gate_margin", float, 0.05, "loss that is borne on leaves that did not change", valid="0-1", check=share),
    Parameter(
        "gate_general_margin", float, 0.03, "loss that is borne on the general questions", valid="0-1", check=share
    ),
    Parameter(
        "gate_score",
        str,
        "point",
        "what must reach eval_quality_threshold: the score, or the lower bound of its interval",
        valid="point, lower",
        check=one_of("point", "lower"),
    ),
    Parameter(
        "gate_on_inconclusive",
        str,
        "stop",
        "what happens when nobody can know yet",
        valid="stop, publish",
        check=one_of("stop", "publish"),
    ),
    Parameter("publish_anyway", bool, False, "package and register whatever the gate says; the lineage tells it"),
)
