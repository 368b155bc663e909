"""``ilab flow``: what flows do, and flows of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.outputs import are_records, check_pair, output_file
from ilab.cli.process import detachable, go_to_background, leaving, meet_teachers
from ilab.cli.teacher import served, tell_teacher
from ilab.errors import InputError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ilab.config import Loaded, Where
    from ilab.data import Kind
    from ilab.sdg.block import Row
    from ilab.sdg.engine import Result
    from ilab.sdg.flow import Flow
    from ilab.teacher_at_hand import Teacher

SCALE = click.option("--sdg-scale-factor", "scale", type=click.IntRange(1), default=1, help="Samples per input row.")
KIND = click.option("--kind", type=click.Choice(["knowledge", "grounded", "freeform"]), help="Which file of the flow.")


@click.group(name="flow")
def group() -> None:
    """Look at flows, check, copy and run them."""


@group.command(name="list")
@click.pass_obj
def list_(options: Options) -> None:
    """The flows that ship with ilab."""
    from rich.table import Table

    from ilab.cli.render import console
    from ilab.sdg.catalogue import catalogue

    flows = catalogue()
    if options.as_json:
        options.result(flows)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("flow", "leaves", "teacher"):
        table.add_column(name)
    for flow in flows:
        table.add_row(flow["name"], ", ".join(flow["kinds"]), "asks one" if flow["teacher"] else "needs none")
    console().print(table)


@group.command()
@click.argument("name", metavar="NAME|DIR|FILE")
@KIND
@SCALE
@click.pass_obj
def show(options: Options, name: str, kind: Kind | None, scale: int) -> None:
    """Every block of a flow: what it needs, adds and costs per input row."""
    from ilab.sdg.catalogue import calls_per_row, describe

    flows = _flows(options, name, kind)
    if options.as_json:
        shown = [
            {"file": flow.where, "kind": flow.kind, "notes": list(flow.notes), "branches": describe(flow, scale)}
            for flow in flows
        ]
        options.result(shown)
        return
    for flow in flows:
        click.secho(f"{flow.name}: {flow.where}", bold=True)
        _notes(flow)
        for branch in describe(flow, scale):
            click.echo(f"\nbranch {branch['branch']}, a row per {branch['input']}")
            _block_table(branch["blocks"])
        click.echo(f"\nteacher calls per input row: {calls_per_row(flow, scale)} (scale factor {scale})\n")


@group.command()
@click.argument("folder", metavar="DIR")
@click.pass_obj
def check(options: Options, folder: str) -> None:
    """Find everything that is wrong with a flow, without a single call."""
    from ilab.sdg.flow import load_flow

    flow = load_flow(_path(options, folder))
    blocks = sum(len(branch.blocks) for each in flow.flows.values() for branch in each.branches)
    for each in flow.flows.values():
        _notes(each)
    facts = {"name": flow.name, "kinds": list(flow.flows), "blocks": blocks, "digest": flow.digest}
    options.result(facts, f"{flow.name}: {', '.join(flow.flows)}; {blocks} blocks, nothing wrong")


@group.command()
@click.argument("name", metavar="NAME|DIR")
@click.argument("target", metavar="DIR")
@click.pass_obj
def copy(options: Options, name: str, target: str) -> None:
    """Copy a flow to a new folder, to change it there."""
    from ilab.sdg.catalogue import copy_flow

    path = options.directory / target
    copy_flow(_path(options, name), path)
    options.result({"path": str(path)}, f"copied to {path}\nNext: ilab flow check {target}")


@group.command()
@click.argument("name", metavar="NAME|DIR|FILE")
@click.option("--input", "source", required=True, metavar="FILE", help="Rows, a JSON object a line.")
@click.option("--output", required=True, metavar="FILE", help="Where the rows go; refused ones go beside it.")
@click.option("--model", metavar="NAME|PATH", help="The teacher: as a server calls it, or a downloaded model.")
@click.option("--endpoint-url", metavar="URL", help="An OpenAI-compatible server that plays the teacher.")
@click.option("--api-key", metavar="REF", help="env:NAME or file:PATH that holds its key.")
@click.option("--verifier-model", metavar="NAME", help="Name under which where.verifier serves the second teacher.")
@click.option("--seed", type=int, default=42, help="Of every choice.")
@click.option("--quality-threshold", type=click.FloatRange(0, 1), default=0.7, help="Lowest score a judge lets pass.")
@KIND
@SCALE
@detachable
@click.pass_obj
def run(options: Options, /, name: str, source: str, output: str, kind: Kind | None, **given: Any) -> None:
    """Run a flow over rows of your own.

    Every answer is kept before it is used: run the same command again after any interruption.
    """
    from ilab.actions import where_of
    from ilab.cli.render import counted
    from ilab.sdg.flow import find_file, load_file
    from ilab.sdg.rows import check_rows, read_rows, refused_path, write_rows
    from ilab.teacher_at_hand import reached

    path = output_file(options, output, are_records("id"), options.directory / source)
    check_pair(path, output, refused_path(path), are_records("id", "leaf", "block", "reason", "row"))
    loaded = options.load(where__teacher__url=given["endpoint_url"], where__teacher__api_key=given["api_key"])
    flow = load_file(find_file(_path(options, name), kind))
    rows = read_rows(options.directory / source)
    check_rows(flow, rows)
    teacher = _teacher(options, loaded, flow, given["model"] or "")
    if leaving() and teacher.model is None:
        meet_teachers(where_of(teacher.loaded), [flow], (teacher.name, given["verifier_model"] or ""), given["scale"])
    go_to_background(options)
    with served(teacher) as address:
        where = where_of(reached(teacher, address))
        result, counts = _run(loaded, where, (flow, rows), {**given, "model": teacher.name})
    refused = write_rows(path, result)
    _notes(flow)
    facts = {"output": str(path), "rejected": str(refused), "counts": counts}
    told = f"{counted(counts['rows'], 'rows')}: {path}\n{counts['rejected']:,} refused: {refused}"
    options.result(facts, f"{told}\n{counted(counts['calls'], 'calls')}, {counts['calls_from_memo']:,} from memo")
    if not result.rows:
        reasons = "".join(f"\n  {entry.id}: {entry.block}: {entry.reason}" for entry in result.rejected[:3])
        kind_of = ServiceError if flow.calls_teacher else InputError
        raise kind_of(f"no row came out: {len(result.rejected)} were refused{reasons}", where=flow.where)


def _teacher(options: Options, loaded: Loaded, flow: Flow, name: str) -> Teacher:
    """The teacher that is at hand, where the flow asks one."""
    from ilab.teacher_at_hand import Teacher, find_teacher

    if not flow.calls_teacher:
        return Teacher(loaded, name)
    name = name or str(loaded.config.parameters.get("sdg_teacher_model") or "")
    teacher = find_teacher(loaded, name, needed=f"the flow {flow.name!r} asks a teacher", here=options.directory)
    tell_teacher(teacher)
    return teacher


def _run(
    loaded: Loaded, where: Where, what: tuple[Flow, Sequence[Row]], given: Mapping[str, Any]
) -> tuple[Result, dict[str, int]]:
    """Run the flow over the rows."""
    from ilab.cli.pipeline import run_folder, watching
    from ilab.core.run import Engine
    from ilab.sdg.rows import RowJob, run_rows
    from ilab.sdg.teachers import open_teacher, open_verifier
    from ilab.transfer.stores import open_store

    flow, rows = what
    name, second = given["model"], given["verifier_model"] or ""
    engine = Engine(open_store(loaded), where)
    try:
        with watching(engine, run_folder(engine)):
            emit = engine.bus.for_step("flow")
            return run_rows(
                RowJob(
                    flow=flow,
                    rows=rows,
                    scale_factor=given["scale"],
                    seed=given["seed"],
                    quality=given["quality_threshold"],
                    memo=engine.memo,
                    emit=emit,
                    stopping=engine.stop.is_set,
                    teacher=open_teacher(where, [flow], name, given["scale"], emit),
                    teacher_name=name,
                    verifier=open_verifier(where, [flow], second, given["scale"], emit),
                    verifier_name=second,
                    in_flight=(where.teacher.in_flight or 64) if where.teacher else 64,
                )
            )
    finally:
        engine.close()


def _path(options: Options, name: str) -> str:
    """The name of a flow, shipped or the user's own, or a path as seen from the working folder."""
    from ilab.sdg.stage import flow_folder

    return flow_folder(name, options.directory)


def _flows(options: Options, name: str, kind: Kind | None) -> list[Flow]:
    from ilab.sdg.flow import find_file, load_file, load_flow

    path = _path(options, name)
    if Path(path).is_file():
        return [load_file(Path(path))]
    flows = load_flow(path).flows
    if kind is None:
        return list(flows.values())
    if kind not in flows:
        find_file(path, kind)  # says what there is
    return [flows[kind]]


def _notes(flow: Flow) -> None:
    for note in flow.notes:
        click.echo(f"note: {flow.where}: {note}", err=True)


def _block_table(blocks: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from ilab.cli.render import console

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("block", "type", "needs", "adds", "rows", "calls"):
        table.add_column(head, overflow="fold", justify="right" if head in ("rows", "calls") else "left")
    for block in blocks:
        adds = ", ".join([*block["adds"], *(f"-{column}" for column in block["drops"])])
        type_ = f"{block['type']} (waits for its leaf)" if block["waits"] else block["type"]
        calls = str(block["calls"]) if block["calls"] else ""
        table.add_row(block["name"], type_, ", ".join(block["needs"]), adds, str(block["rows"]), calls)
    console().print(table)
