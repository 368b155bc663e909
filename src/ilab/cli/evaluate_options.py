"""The options of ``ilab model evaluate`` and of its old spelling ``ilab evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from ilab.cli.evaluate_judge import JUDGE_OPTIONS, TLS_OPTIONS
from ilab.cli.old_options import OldOptions
from ilab.cli.process import detachable
from ilab.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])

BENCHMARKS = {
    "leaves": "what this project's build learned, on its held-out questions",
    "mmlu": "general knowledge",
    "mmlu_branch": "new knowledge: multiple choice made from a taxonomy, before and after",
    "mt_bench": "general skills, marked by a judge",
    "mt_bench_branch": "new skills: a taxonomy's seed examples, marked by a judge, before and after",
    "dk_bench": "questions of your own with reference answers, marked by a judge",
    "tasks": "tasks of your own in lm-evaluation-harness' form",
}
NEEDED = {
    "mmlu": ("model",),
    "mmlu_branch": ("model", "base_model"),
    "mt_bench": ("model", "judge_model"),
    "mt_bench_branch": ("model", "base_model", "judge_model", "taxonomy_path", "branch"),
    "dk_bench": ("judge_model", "input_questions"),
    "tasks": ("model", "tasks_dir"),
}  # what a benchmark cannot do without; a project's build gives `model` and `base_model`

OLD = OldOptions(
    taken={
        "--backend": "a folder is loaded in this process; a server is given with --endpoint-url",
        "--judge-backend": "the judge is a server: --judge-endpoint URL",
        "--gpus": "what the model runs on is where.device",
        "--merge-system-user-message": "the judge is asked in one user message",
        "--enable-serving-output": "no server is started",
        "--skip-server": "the model is loaded in this process anyway",
    },
    refused={
        "--base-model-id": "give the folder of the base model: --base-model DIR",
        "--judge-model-id": "give the name under which the judge is served: --judge-model NAME",
    },
    flags=frozenset({"--merge-system-user-message", "--enable-serving-output", "--skip-server"}),
)


def _auto_or_number(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and value != "auto" and not (value.isdecimal() and int(value) > 0):
        raise click.BadParameter("a number above 0, or auto", param=parameter)
    return value


OPTIONS = (
    click.option(
        "--benchmark",
        type=click.Choice(list(BENCHMARKS)),
        help="What is measured.  [default: leaves, where this project was built]",
    ),
    click.option("--model", metavar="DIR|NAME", help="Model to measure: a folder, or a name at --endpoint-url."),
    click.option("--base-model", metavar="DIR|NAME", help="Model to compare with.  [default: the project's base]"),
    click.option("--endpoint-url", metavar="URL", help="OpenAI-compatible server that serves --model by its name."),
    click.option("--api-key", metavar="REF", help="env:NAME or file:PATH that holds that server's key."),
    click.option("--tokenizer", metavar="DIR", help="Tokenizer of a served model, where likelihoods are read."),
    click.option(
        "--context-length",
        type=click.IntRange(8),
        metavar="N",
        help="Tokens that a served model reads.  [default: what its server says]",
    ),
    *JUDGE_OPTIONS,
    click.option("--output-dir", metavar="DIR", help="Where results go.  [default: eval_data/NAME in the data home]"),
    click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N questions of each subject or leaf."),
    click.option("--seed", type=int, default=42, show_default=True, help="Of the order of options, and of --limit."),
    click.option("--few-shots", type=click.IntRange(0), metavar="N", help="Questions shown before.  [default: 5]"),
    click.option(
        "--batch-size", default="auto", show_default=True, callback=_auto_or_number, help="Rows at once, or auto."
    ),
    click.option(
        "--max-workers", default="auto", show_default=True, callback=_auto_or_number, help="Requests under way at once."
    ),
    click.option("--chat", is_flag=True, help="Ask in the model's chat template; scores differ from plain ones."),
    click.option("--test-set", metavar="DIR", help="mmlu: the questions.  [default: cais/mmlu in the hub's cache]"),
    click.option("--tasks-dir", metavar="DIR", help="mmlu_branch, tasks: folder of task files."),
    click.option("--taxonomy-path", metavar="DIR", help="mmlu_branch: whose leaves.  [default: the project's]"),
    click.option("--branch", metavar="REF", help="mt_bench_branch: the branch with the new skills."),
    click.option("--base-branch", metavar="REF", help="mt_bench_branch: the branch to compare with."),
    click.option(
        "--questions", metavar="FILE", help="mt_bench: questions in FastChat's form.  [default: our own, few]"
    ),
    click.option("--input-questions", metavar="FILE", help="dk_bench: user_input, reference, and response if known."),
    click.option(
        "--output-file-formats", default="jsonl", show_default=True, metavar="LIST", help="dk_bench: jsonl, csv, xlsx."
    ),
    click.option("--system-prompt", metavar="TEXT", help="Said to the model first."),
    click.option(
        "--temperature", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="dk_bench: of answers."
    ),
    click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N, mps.  [config: where.device]"),
    *TLS_OPTIONS,
)


def evaluate_options(command: F) -> F:
    """Add all options to ``command``."""
    command = detachable(command)
    for option in reversed(OPTIONS):
        command = option(command)
    return OLD(command)


def require(benchmark: str, given: Mapping[str, Any]) -> None:
    """Raises ``InputError`` that names every option that ``benchmark`` lacks."""
    lacking = [f"--{name.replace('_', '-')}" for name in NEEDED.get(benchmark, ()) if not given.get(name)]
    if lacking:
        raise InputError(
            f"the benchmark {benchmark} requires {', '.join(lacking)}",
            hint=f"{benchmark}: {BENCHMARKS[benchmark]}; see ilab model evaluate --help",
        )
