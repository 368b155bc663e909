"""Tables of people's: JSON lines, one JSON list, CSV, TSV and Parquet, row by row, with the line of what is wrong."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ilab.errors import InputError, SetupError

FORMS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
Row = Mapping[str, Any]


def read_table(path: Path) -> Iterator[Row]:
    """The rows of a file in one of ``FORMS``, by its ending (any other: JSON lines).

    Raises ``InputError`` with file and line where it cannot be read, ``SetupError`` for Parquet without pyarrow.
    """
    if path.suffix.lower() == ".parquet":
        return _parquet(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from error
    if path.suffix.lower() in (".csv", ".tsv"):
        return _table(path, text)
    return _objects(path, text)


def _objects(path: Path, text: str) -> Iterator[Row]:
    """JSON lines, or one JSON list of objects."""
    try:
        whole = json.loads(text) if text.lstrip().startswith("[") else None
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", where=str(path)) from error
    lines = enumerate(whole, 1) if isinstance(whole, list) else _lines(path, text)
    for number, row in lines:
        if not isinstance(row, dict):
            raise InputError("not an object of columns", where=f"{path}:{number}", hint="one JSON object a line")
        yield row


def _lines(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                where = f"{path}:{number}"
                raise InputError(f"not JSON: {error}", where=where, hint="one JSON object a line") from error


def _table(path: Path, text: str) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        for row in reader:
            yield {name: value for name, value in row.items() if name is not None}
    except csv.Error as error:
        raise InputError(f"not a table: {error}", where=f"{path}:{reader.line_num}") from error


def _parquet(path: Path) -> Iterator[Row]:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        hint = "pip install 'ilab[parquet]', or give it as JSONL or CSV"
        raise SetupError("Parquet is read with pyarrow, which is not installed", where=str(path), hint=hint) from error
    try:
        rows: list[Row] = parquet.read_table(path).to_pylist()
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"not readable Parquet: {error}", where=str(path)) from error
    return iter(rows)
