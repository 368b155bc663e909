"""``ilab data export`` and ``subset``: samples for other tools, all of them or a part that stands for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.data_look import LEAF, RUN, open_store
from ilab.errors import InputError, SetupError

if TYPE_CHECKING:
    from ilab.data import Sample
    from ilab.provenance import Run

INSTRUCTLAB = "instructlab"  # a folder of files and not one file
FORMATS = ("messages", "alpaca", "sharegpt", "parquet", "csv", INSTRUCTLAB)
FORMAT = click.option("--format", "form", type=click.Choice(FORMATS), default="messages", show_default=True)
OUTPUT = click.option(
    "--output", required=True, metavar="FILE", help="The file to write; for instructlab, the folder for a new folder."
)
KIND = click.option(
    "--kind",
    type=click.Choice(["knowledge", "grounded", "freeform", "document"]),
    help="Only leaves of this kind; document: the passages that are trained on whole.",
)
FORCE = click.option("--force", is_flag=True, help="Replace a file that is there.")


@click.command()
@FORMAT
@OUTPUT
@RUN
@LEAF
@KIND
@FORCE
@click.pass_obj
def export(options: Options, /, form: str, output: str, force: bool, **given: Any) -> None:
    """Write samples in another tool's format: messages, Alpaca, ShareGPT, Parquet, CSV, or InstructLab's own files.

    Question-answer samples, unless `--kind document` asks for the passages that are trained on whole.
    """
    run, samples = _samples(options, **given)
    _write(options, run, samples, form, _target(options, output, form, force))


@click.command()
@click.option("--size", required=True, metavar="N|SHARE", help="How many: 500, or a share as 0.1 or 10%.")
@FORMAT
@OUTPUT
@RUN
@LEAF
@KIND
@click.option("--embeddings", metavar="URL", help="An OpenAI-compatible server whose embeddings to compare by.")
@click.option("--embedding-model", metavar="NAME", help="Name under which it serves the embedding model.")
@click.option("--api-key", metavar="REF", default="", help="env:NAME or file:PATH that holds its key.")
@FORCE
@click.pass_obj
def subset(options: Options, /, size: str, form: str, output: str, force: bool, **given: Any) -> None:
    """Write the few samples that stand best for all of them (facility location).

    The first rows stand for most, so the head of the file is a smaller subset. Samples are alike by their letter
    sequences, or by the embeddings of a server.
    """
    if find_spec("numpy") is None:
        raise SetupError("subsets are chosen with numpy, which is not installed", hint="pip install numpy")
    from ilab.sdg.subset import count_of, coverage, facility_location, similarities, vectors

    url, model, key = given.pop("embeddings"), given.pop("embedding_model"), given.pop("api_key")
    if bool(url) != bool(model):
        raise InputError("--embeddings and --embedding-model go together")
    target = _target(options, output, form, force)
    run, samples = _samples(options, **given)
    texts = [f"{sample.question}\n{sample.answer}" for sample in samples]
    count = count_of(size, len(samples))
    rows = _embedded(url, model, key, texts) if url else vectors(texts)
    similar = similarities(rows)
    chosen = facility_location(similar, count)
    _write(options, run, [samples[index] for index in chosen], form, target, coverage=coverage(similar, chosen))


def _samples(options: Options, run_: str, leaf: str, kind: str | None) -> tuple[Run, list[Sample]]:
    """The samples that are meant. Raises InputError where there are none, or their taxonomy is gone."""
    from ilab.provenance import find_run, leaves_named

    run = find_run(open_store(options), run_)
    leaves = set(leaves_named(run, leaf) if leaf else run.card["leaves"])
    if kind not in (None, "document"):
        leaves = {path for path in leaves if run.card["leaves"][path]["kind"] == kind}
    train_on = "all" if kind == "document" else "assistant"
    samples = [sample for sample in run.samples if sample.leaf in leaves and sample.train_on == train_on]
    if not samples:
        raise InputError("there is no such sample in this run", where=str(run.path), hint="see: ilab data show")
    return run, samples


def _target(options: Options, output: str, form: str, force: bool) -> Path:
    path = options.directory / output
    if form == INSTRUCTLAB:
        if path.exists() and not path.is_dir():
            raise InputError("this is a file; a folder is written into", where=str(path))
        return path
    if path.is_dir():
        raise InputError("this is a folder; a file is written", where=str(path))
    if path.exists() and not force:
        raise InputError("this file is there already", where=str(path), hint="give another name, or --force")
    return path


def _embedded(url: str, model: str, key: str, texts: Sequence[str]) -> Any:
    import numpy as np

    from ilab.models.embeddings import embed
    from ilab.sdg.subset import unit

    return unit(np.asarray(embed(url, model, texts, key), dtype=np.float32))


def _write(options: Options, run: Run, samples: Sequence[Sample], form: str, path: Path, **told: float) -> None:
    from ilab.cli.findings import printable
    from ilab.export import export_run, leaves_of
    from ilab.formats import write_samples

    if form == INSTRUCTLAB and all(sample.train_on == "all" for sample in samples):
        raise InputError("passages that are trained on whole stand in none of these files", hint="leave --kind out")
    if form == INSTRUCTLAB:
        path = export_run(run, samples, path).folder
    else:
        write_samples(form, path, samples, leaves_of(run))
    facts: Mapping[str, Any] = {"path": str(path), "format": form, "samples": len(samples), **told}
    covered = f", standing for {told['coverage']:.0%} of all" if told else ""
    options.result(facts, printable(f"{len(samples):,} samples{covered}: {path}"))
