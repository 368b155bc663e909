"""``ilab data list``, ``show`` and ``why``: what was generated, to read, and the history of one sample."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.core.store import Store
    from ilab.provenance import Entry

MODEL = re.compile(r"(?:train|messages)_(.+)_\d{4}-\d\d-\d\dT\d\d_\d\d_\d\d(?:_\d+)?\.jsonl")  # and when
RUN = click.option("--run", "run_", metavar="RUN", default="", help="A run's id, or its beginning; else the newest.")
LEAF = click.option("--leaf", metavar="LEAF", default="", help="Only this leaf: a path, or the last parts of one.")


def open_store(options: Options) -> Store:
    """The store of the project, which must be there: looking makes none."""
    from ilab.transfer import stores

    loaded = options.load()
    if not loaded.bucket and not loaded.store.is_dir():
        raise InputError("nothing has been generated yet", where=str(loaded.store), hint="run: ilab data generate")
    return stores.open_store(loaded)


@click.command(name="list")
@click.argument("directories", nargs=-1, metavar="[DIR]...")
@click.option("--dataset-dirs", multiple=True, metavar="DIR", hidden=True, help="As DIR.")
@click.pass_obj
def list_(options: Options, directories: Sequence[str], dataset_dirs: Sequence[str]) -> None:
    """What was generated: when, from which taxonomy, by which flow and teacher, and how much of it was accepted.

    Lists the runs of the store, and what was exported to DIR, by this program or another.  [default of DIR: where
    data generate writes]
    """
    from ilab.cli.data_options import datasets_of
    from ilab.provenance import runs

    folders = [options.directory / Path(name).expanduser() for name in (*directories, *dataset_dirs)]
    for folder in folders:
        if not folder.is_dir():
            raise InputError("there is no such folder", where=str(folder))
    loaded = options.load()
    usual = datasets_of(loaded)
    folders = folders or ([usual] if usual and usual.is_dir() else [])
    root = loaded.store
    found = [run.facts() for run in runs(open_store(options))] if root.is_dir() else []
    exported = [facts for folder in folders for facts in _exported(folder)]
    if options.as_json:
        options.result({"runs": found, "exported": exported})
        return
    if not found and not exported:
        raise InputError("nothing has been generated yet", where=str(root), hint="run: ilab data generate")
    _show_runs(found)
    _show_exported(exported)


@click.command()
@click.argument("run", required=False, default="")
@LEAF
@click.option("--block", metavar="NAME", default="", help="Only what this block wrote or refused.")
@click.option("--verdict", type=click.Choice(["accepted", "rejected"]), help="Only samples, or only refused rows.")
@click.option("--grep", metavar="TEXT", default="", help="Only what has this text, in either case of letters.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="At most so many.")
@click.pass_obj
def show(options: Options, /, run: str, limit: int, **given: Any) -> None:
    """Read samples and refused rows. RUN is a run's id or its beginning; without it the newest."""
    from ilab.cli.findings import printable
    from ilab.provenance import Filter, find_run, select

    chosen = find_run(open_store(options), run)
    found = select(chosen, Filter(**given))
    if options.as_json:
        entries = [{"verdict": _verdict(entry), **entry.model_dump(mode="json")} for entry in found[:limit]]
        options.result({"run": chosen.record.key, "found": len(found), "entries": entries})
        return
    for entry in found[:limit]:
        click.echo("\n".join(_entry_lines(entry)))
    left = len(found) - limit
    accepted = sum(_verdict(entry) == "accepted" for entry in found)
    more = f", {left} not shown (--limit)" if left > 0 else ""
    name = f"run {chosen.record.key[:8]}, flow {chosen.flow}"
    click.echo(printable(f"{accepted} accepted, {len(found) - accepted} rejected{more}; {name}"))


@click.command()
@click.argument("sample")
@RUN
@click.pass_obj
def why(options: Options, sample: str, run_: str) -> None:
    """Where a sample comes from: leaf, document, flow, prompt, teacher, verdicts, and the models that learned it.

    SAMPLE is the id of a sample, of a refused row or of a training row, or the beginning of one.
    """
    from ilab.provenance import explain, find_entry

    loaded = options.load()
    run, entry = find_entry(open_store(options), sample, run_)
    told = explain(run, entry, loaded.base)
    if options.as_json:
        options.result(told)
    else:
        click.echo(_story(told))


# -- list ----------------------------------------------------------------------------------------------------------


def _exported(folder: Path) -> list[dict[str, Any]]:
    """Exports below ``folder``, newest first: by their manifest, or for other programs' by the names of their files."""
    from ilab.export import MANIFEST

    found = []
    for file in folder.rglob("messages_*.jsonl"):
        manifest = _manifest(file.parent / MANIFEST)
        named = {"model": manifest["teacher"] or "by rule"} if "teacher" in manifest else {}
        found.append({**manifest, **_file_facts(file), **named})
    for file in folder.rglob("train_*.jsonl"):
        if not list(file.parent.glob("messages_*.jsonl")):
            found.append(_file_facts(file))
    return sorted(found, key=lambda facts: (-facts["written"], facts["path"]))


def _manifest(path: Path) -> dict[str, Any]:
    """What an export says of itself; nothing where it is no export of ours."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    ours = isinstance(facts, dict) and all(isinstance(facts.get(name), str) for name in ("run", "flow"))
    return facts if ours else {}


def _file_facts(file: Path) -> dict[str, Any]:
    with file.open("rb") as lines:
        samples = sum(1 for _ in lines)
    about = {"path": str(file), "written": file.stat().st_mtime, "samples": samples, "bytes": file.stat().st_size}
    model = MODEL.fullmatch(file.name)
    return {**about, "model": model[1] if model else "unknown"}


def _show_runs(found: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    from ilab.cli.findings import printable
    from ilab.cli.render import console

    if not found:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "when", "taxonomy", "flow", "teacher", "leaves", "accepted", "rejected", "path"):
        right = name in ("leaves", "accepted", "rejected")
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=name in ("run", "when"))
    for facts in found:
        taxonomy = f"{facts['taxonomy']}@{facts['revision'][:8]}" if facts["revision"] else facts["taxonomy"]
        few = f" (at most {facts['instructions']:,})" if facts["instructions"] else " (preview)" * facts["preview"]
        flow = f"{facts['flow']}{few}"
        numbers = [f"{facts[name]:,}" for name in ("leaves", "accepted", "rejected")]
        words = [facts["run"][:8], _when(facts["started"]), taxonomy, flow, facts["teacher"] or "by rule"]
        table.add_row(*(_plain(printable(text)) for text in words), *numbers, _plain(printable(facts["path"])))
    console().print(table)


def _show_exported(exported: Sequence[Mapping[str, Any]]) -> None:
    from ilab.cli.findings import printable

    for facts in exported:
        made = f", run {facts['run'][:8]}, flow {facts['flow']}" if "run" in facts else ""
        size = f"{facts['bytes'] / 1e6:.1f} MB"
        counts = f"{facts['samples']:,} samples of {facts['model']}, {size}{made}"
        click.echo(printable(f"{_when(facts['written'])}  {counts}  {facts['path']}"))


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


# -- show ----------------------------------------------------------------------------------------------------------


def _verdict(entry: Entry) -> str:
    from ilab.provenance import verdict_of

    return verdict_of(entry)


def _entry_lines(entry: Entry) -> list[str]:
    from ilab.cli.findings import printable
    from ilab.data import Sample
    from ilab.provenance import answer_of, block_of, question_of

    accepted = isinstance(entry, Sample)
    mark = click.style("✓", fg="green") if accepted else click.style("✗", fg="red")
    lines = [f"{mark} {click.style(printable(entry.id), bold=True)}"]
    if not isinstance(entry, Sample):
        lines.append(printable(f"  {block_of(entry)}: {entry.reason}"))
    for letter, text in (("Q", question_of(entry)), ("A", answer_of(entry))):
        if text:
            first, *rest = text.splitlines() or [""]
            lines += [printable(f"  {letter}: {first}"), *(printable(f"     {line}") for line in rest)]
    return [*lines, ""]


# -- why -----------------------------------------------------------------------------------------------------------


def _story(told: Mapping[str, Any]) -> str:
    """The history as text: a line for each fact that is there, long texts indented below."""
    from ilab.cli.findings import printable

    parts = [click.style(printable(told["id"]), bold=True)]
    refused = f" by block {told['block']}: {told['reason']}" if told["reason"] else ""
    facts: list[tuple[str, str]] = [
        ("verdict", told["verdict"] + refused),
        (
            "leaf",
            told["leaf"] + (f" ({told['place']}" + ", its seed example)" * told["from_seed"] if told["place"] else ""),
        ),
    ]
    if told["place"] and not told["from_seed"]:
        facts[-1] = ("leaf", f"{told['leaf']} ({told['place']})")
    document = told["document"]
    if document:
        page = f", page {document['page']}" if document["page"] else ""
        heading = f", {' > '.join(document['heading'])}" if document["heading"] else ""
        span = "–".join(str(end) for end in document["span"])
        facts.append(("document", f"{document['source']}{page}{heading}, characters {span} ({document['id'][:8]})"))
    facts += [("flow", f"{told['flow']}, block {told['block']}"), ("teacher", _teacher(told))]
    facts += [("usage", ", ".join(f"{value:,} {name}" for name, value in (told["usage"] or {}).items()))]
    for verdict in told["verdicts"]:
        word = "passed" if verdict["accepted"] else "failed"
        score = f", score {verdict['score']:g}" if verdict["score"] is not None else ""
        facts.append(("judged", f"{word} {verdict['block']}{score}: {verdict['reason']}"))
    facts.append(("run", f"{told['run']['run'][:8]} of {_when(told['run']['started'])}, {told['run']['path']}"))
    rows = [
        f"{one['step']} ({one['rows']} row{'s' * (one['rows'] != 1)}, {one['key'][:8]})" for one in told["datasets"]
    ]
    facts.append(("datasets", ", ".join(rows) or "in none yet"))
    facts.append(("models", ", ".join(f"{one['step']} ({one['key'][:8]})" for one in told["models"])))
    parts += [printable(f"  {name:<9} {text}") for name, text in facts if text]
    parts += _block("question", told["question"]) + _block("answer", told["answer"])
    if document:
        title = "passage (⟦ ⟧ marks the evidence)" if document["evidence"] else "passage"
        parts += _block(title, document["passage"])
    for name, text in (told["prompt"] or {}).items():
        parts += _block("prompt" if name == "missing" else f"template of the {name}", text)
    return "\n".join(parts)


def _teacher(told: Mapping[str, Any]) -> str:
    if not told["teacher"]:
        return "none: made by rule"
    sampling = ", ".join(
        f"{name} {value}" for name, value in (told["sampling"] or {}).items() if value not in (None, [])
    )
    reported = ", ".join(f"{name} {value}" for name, value in (told["reported"] or {}).items() if value)
    return "; ".join(part for part in (told["teacher"], sampling, reported and f"it reported {reported}") if part)


def _block(title: str, text: str) -> list[str]:
    from ilab.cli.findings import printable

    if not text:
        return []
    return ["", f"  {title}:", *(printable(f"    {line}") for line in text.splitlines())]
