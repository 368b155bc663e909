"""What ``ilab model evaluate`` leaves behind and shows: one result file whatever the benchmark, and a report.

result.json      the result (``BenchmarkResult``)       base.json         that of the model before
result.csv       a line for each question               comparison.json   the two, question by question
*_data.json …    what InstructLab's own tools read
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.render import one_line

if TYPE_CHECKING:
    from ilab.cli.evaluate_run import Outcome
    from ilab.evaluation.benchmarks.result import BenchmarkResult

COLUMNS = ("benchmark", "model", "id", "group", "question", "answer", "reference", "score", "note")
RESULT = "result.json"
OTHERS = ("result.csv", "base.json", "comparison.json")  # whose names anybody may use: written beside a result alone
SHOWN = 40  # groups that are listed one by one


def write(outcome: Outcome, folder: Path) -> list[Path]:
    """Write all files into ``folder``; returns their paths."""
    from ilab.core.files import write_json, write_text

    results = [("result", outcome.result), *((("base", outcome.base),) if outcome.base else ())]
    written = []
    for name, result in results:
        write_json(folder / f"{name}.json", result.model_dump(mode="json"))
        written.append(folder / f"{name}.json")
    write_text(folder / "result.csv", _table([result for _, result in results]))
    written.append(folder / "result.csv")
    more = {**({"comparison.json": outcome.comparison} if outcome.comparison else {}), **outcome.files}
    more |= _skipped(outcome, folder)
    for name, content in more.items():
        write_json(folder / name, content)
        written.append(folder / name)
    return written


def _skipped(outcome: Outcome, folder: Path) -> dict[str, Any]:
    """What InstructLab's pipeline opens beside the file of ``outcome``'s benchmark and has not been measured here."""
    from ilab.evaluation.benchmarks.paired import pipeline_files

    files = pipeline_files()
    if f"{outcome.benchmark}_data.json" not in files:
        return {}
    return {name: data for name, data in files.items() if name not in outcome.files and not (folder / name).exists()}


def _table(results: Sequence[BenchmarkResult]) -> str:
    from ilab.evaluation.benchmarks.sheets import harmless

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for result in results:
        for row in result.rows:
            cells = (row.id, row.group, row.question, row.answer, row.reference, row.score, row.note)
            writer.writerow([harmless(cell) for cell in (result.benchmark, result.model, *cells)])
    return text.getvalue()


def show(options: Options, outcome: Outcome, files: Sequence[Path]) -> None:
    """The report for people, or everything but the rows as JSON."""
    if options.as_json:
        options.result({**facts(outcome), "files": [str(path) for path in files]})
        return
    for line in report(outcome):
        click.echo(line)
    for path in files:
        click.echo(f"{path.name:<24} {path}")


def facts(outcome: Outcome) -> dict[str, Any]:
    """The outcome as plain JSON, without the single questions."""
    shown: dict[str, Any] = {"result": _facts(outcome.result)}
    if outcome.base:
        shown["base"] = _facts(outcome.base)
    if outcome.comparison:
        shown["comparison"] = outcome.comparison
    return shown


def report(outcome: Outcome) -> Iterator[str]:
    """The report's lines, under InstructLab's headings."""
    from ilab.evaluation.benchmarks.judged import error_rate
    from ilab.evaluation.benchmarks.paired import TITLES

    result, base = outcome.result, outcome.base
    yield f"# {TITLES[outcome.benchmark]}"
    if base:
        yield from ("", "## BASE MODEL (SCORE)", score_line(base))
    yield from ("", "## MODEL (SCORE)", score_line(result))
    yield f"{result.how}; {result.n:,} scored"
    if base and outcome.comparison:
        yield from _changes(outcome.comparison)
    elif outcome.benchmark == "dk_bench":
        yield from _each(result)
    else:
        yield from _groups(result)
    if result.judge:
        yield from ("", "### ERROR RATE", f"{error_rate(result):.2f}")
    if result.unscored:
        yield from (
            "",
            "### NOT SCORED",
            *(f"{count} × {one_line(reason)}" for reason, count in result.unscored.items()),
        )
    for note in result.notes:
        yield f"note: {one_line(note)}"
    yield ""


def score_line(result: BenchmarkResult) -> str:
    """``NAME (0.52/1.0) [0.41, 0.63]``."""
    from ilab.evaluation.benchmarks.paired import interval

    top = f"{result.scale[1]:.1f}"
    if result.score is None:
        return f"{one_line(result.model)} (no score/{top})"
    bounds = interval(result)
    told = f" [{bounds.low:.2f}, {bounds.high:.2f}]" if bounds.low is not None and bounds.high is not None else ""
    other = ""
    if result.micro is not None and result.macro is not None and f"{result.micro:.2f}" != f"{result.macro:.2f}":
        name, value = ("all questions", result.micro) if result.score == result.macro else ("groups", result.macro)
        other = f", mean over {name} {value:.2f}"
    return f"{one_line(result.model)} ({result.score:.2f}/{top}){told}{other}"


def _groups(result: BenchmarkResult) -> Iterator[str]:
    yield from ("", f"### SCORES ({result.scale[0]:.1f} to {result.scale[1]:.1f})")
    for group in result.groups[:SHOWN]:
        score = "no score" if group.score is None else f"{group.score:.2f}"
        error = "" if group.standard_error is None else f" ± {group.standard_error:.2f}"
        yield f"{one_line(group.name)} - {score}{error} ({group.n} questions)"
    if len(result.groups) > SHOWN:
        yield f"… and {len(result.groups) - SHOWN} more"


def _each(result: BenchmarkResult) -> Iterator[str]:
    """Every question's mark, their average and their total."""
    from ilab.evaluation.benchmarks.dk_bench import totals

    top = f"{result.scale[1]:.0f}"
    yield from ("", "### SCORES")
    for number, row in enumerate(result.rows[:SHOWN], 1):
        yield f"Question #{number}: {'no score' if row.score is None else f'{row.score:g}/{top}'}"
    if len(result.rows) > SHOWN:
        yield f"… and {len(result.rows) - SHOWN} more"
    found = totals(result)
    if found["average"] is not None:
        yield f"Average Score: {found['average']:.2f}/{top}"
        yield f"Total Score: {found['total']:g}/{result.n * int(top)}"


def _changes(comparison: Mapping[str, Any]) -> Iterator[str]:
    """The groups by verdict: a difference that chance alone would make is no change."""
    from ilab.evaluation.compare import IMPROVED, REGRESSED
    from ilab.evaluation.summary import change_with_interval, percent, verdict_text

    leaves = [leaf for leaf in comparison["leaves"] if leaf["n"]]
    lists = (
        ("IMPROVEMENTS", [leaf for leaf in leaves if leaf["verdict"] == IMPROVED]),
        ("REGRESSIONS", [leaf for leaf in leaves if leaf["verdict"] == REGRESSED]),
        ("NO CHANGE", [leaf for leaf in leaves if leaf["verdict"] not in (IMPROVED, REGRESSED)]),
    )
    for title, found in lists:
        if found:
            yield from ("", f"### {title} (share of the scale, change in points, 95 % interval)")
        for number, leaf in enumerate(found, 1):
            before, after = (percent(leaf["models"][model]["value"]) for model in ("base", "candidate"))
            change = change_with_interval(leaf["deltas"]["candidate"])
            told = "" if title != "NO CHANGE" else f": {verdict_text(leaf)}"
            yield f"{number}. {one_line(leaf['name'])}: {before} -> {after} ({change}; {leaf['n']} questions){told}"
    new = [leaf["name"] for leaf in comparison["leaves"] if not leaf["n"]]
    if new:
        yield from ("", "### NEW, OR WITHOUT A SCORE", *(one_line(name) for name in new))


def _facts(result: BenchmarkResult) -> dict[str, Any]:
    from ilab.evaluation.benchmarks.paired import interval

    bounds = interval(result)
    told = result.model_dump(mode="json", exclude={"rows"})
    return {**told, "low": bounds.low, "high": bounds.high}
