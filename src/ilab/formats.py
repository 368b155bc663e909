"""Samples in the formats of other tools, one file each.

messages   {"messages": [{"role", "content"}, …]}, one a line             OpenAI, TRL, Axolotl
alpaca     a list of {"instruction", "input", "output"}                    Stanford Alpaca
sharegpt   a list of {"id", "conversations": [{"from", "value"}, …]}       FastChat, LLaMA-Factory
csv        id, leaf, kind, question, answer, source, page, flow, block     spreadsheets (RFC 4180)
parquet    the columns of csv, and messages as a list of structs           pip install 'ilab[parquet]'
"""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ilab.core.files import replacing, write_text
from ilab.data import Leaf, Sample
from ilab.errors import InputError, SetupError
from ilab.export import instruction_row, is_pair

SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}
COLUMNS = ("id", "leaf", "kind", "question", "answer", "source", "page", "flow", "block")
CONVERSATIONS = ("messages", "sharegpt", "parquet")  # formats that can hold several turns
Write = Callable[[Path, Sequence[Sample], Mapping[str, Leaf]], None]


def write_samples(form: str, path: Path, samples: Sequence[Sample], leaves: Mapping[str, Leaf]) -> None:
    """Write ``samples`` to ``path`` as ``form`` (a name in ``FORMATS``), whole or not at all.

    Raises InputError for an unknown form, or one that cannot hold a sample, SetupError where pyarrow is missing.
    """
    if form not in FORMATS:
        raise InputError(f"there is no format {form!r}", hint=f"known: {', '.join(FORMATS)}")
    talks = 0 if form in CONVERSATIONS else sum(not is_pair(sample) for sample in samples)
    if talks:
        raise InputError(
            f"{talks} of these samples are conversations of several turns, for which {form} has no place",
            hint=f"take another format: {', '.join(CONVERSATIONS)}",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    FORMATS[form](path, samples, leaves)


def conversation(sample: Sample) -> dict[str, Any]:
    """A ShareGPT record."""
    turns = [{"from": SHAREGPT_ROLES[message.role], "value": message.content} for message in sample.messages]
    return {"id": sample.id, "conversations": turns}


def flat(sample: Sample, leaf: Leaf) -> dict[str, Any]:
    """One row of ``COLUMNS``."""
    values = (
        sample.id,
        sample.leaf,
        leaf.kind,
        sample.question,
        sample.answer,
        sample.origin.source,
        sample.origin.page,
        sample.origin.flow,
        sample.origin.block,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _messages(path: Path, samples: Sequence[Sample], _: Mapping[str, Leaf]) -> None:
    rows = ({"messages": [message.model_dump() for message in sample.messages]} for sample in samples)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _alpaca(path: Path, samples: Sequence[Sample], leaves: Mapping[str, Leaf]) -> None:
    _write_list(path, [instruction_row(leaves[sample.leaf], sample) for sample in samples])


def _sharegpt(path: Path, samples: Sequence[Sample], _: Mapping[str, Leaf]) -> None:
    _write_list(path, [conversation(sample) for sample in samples])


def _csv(path: Path, samples: Sequence[Sample], leaves: Mapping[str, Leaf]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(flat(sample, leaves[sample.leaf]) for sample in samples)
    write_text(path, text.getvalue())


def _parquet(path: Path, samples: Sequence[Sample], leaves: Mapping[str, Leaf]) -> None:
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise SetupError(
            "Parquet files are written by pyarrow, which is not installed", hint="pip install 'ilab[parquet]'"
        ) from error
    text, number = arrow.string(), arrow.int32()
    message = arrow.struct([("role", text), ("content", text)])
    fields = [(name, number if name == "page" else text) for name in COLUMNS]
    schema = arrow.schema([*fields, ("messages", arrow.list_(message))])
    rows = [
        {**flat(sample, leaves[sample.leaf]), "messages": [message.model_dump() for message in sample.messages]}
        for sample in samples
    ]
    with replacing(path) as new:
        parquet.write_table(arrow.Table.from_pylist(rows, schema=schema), str(new))


def _write_list(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, json.dumps(rows, indent=2, ensure_ascii=False) + "\n")


FORMATS: dict[str, Write] = {
    "messages": _messages,
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "csv": _csv,
    "parquet": _parquet,
}
