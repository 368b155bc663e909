"""Tables that people open in a spreadsheet: CSV with harmless cells, and XLSX through openpyxl (the extra ``xlsx``)."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ilab.core.files import write_text
from ilab.errors import InputError, SetupError

FORMS = ("jsonl", "csv", "xlsx")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_ILLEGAL = dict.fromkeys([*range(9), 11, 12, *range(14, 32)])  # control characters that XML cannot hold
_CELL = 32767  # characters that a cell of a spreadsheet holds
_UNPACKED = 256 * 2**20  # bytes of a workbook's parts; more is no list of questions


def check_form(form: str) -> None:
    """Raises ``InputError`` for an unknown form, ``SetupError`` where openpyxl is wanted and missing."""
    if form not in FORMS:
        raise InputError(f"no such form of output: {form!r}", hint=f"known are: {', '.join(FORMS)}")
    if form == "xlsx":
        _openpyxl()


def harmless(value: Any) -> Any:
    """``value`` with an apostrophe before it where a spreadsheet would run it as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A header and a line for each row; None is empty."""
    out = io.StringIO(newline="")
    table = csv.writer(out, lineterminator="\n")
    table.writerow(list(rows[0]) if rows else [])
    table.writerows([harmless(value) for value in row.values()] for row in rows)
    write_text(path, out.getvalue())


def write_sheet(path: Path, sheets: Mapping[str, Sequence[Sequence[Any]]]) -> None:
    """A workbook with a sheet for each name. Texts stay texts: nothing becomes a formula."""
    workbook = _openpyxl().Workbook()
    workbook.remove(workbook.active)
    for name, rows in sheets.items():
        sheet = workbook.create_sheet(name)
        for row in rows:
            sheet.append([_cell(value) for value in row])
    out = io.BytesIO()
    workbook.save(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.getvalue())


def read_sheet(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a workbook's first sheet by the names in its first row; empty rows are left out.

    Raises ``InputError`` for what is no workbook, ``SetupError`` without openpyxl.
    """
    openpyxl = _openpyxl()
    try:
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > _UNPACKED:
                raise InputError(f"unpacks to more than {_UNPACKED >> 20} MiB", where=str(path))
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
        rows = list(workbook.worksheets[0].iter_rows(values_only=True))
        workbook.close()
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, IndexError, SyntaxError) as error:
        raise InputError(f"no workbook that can be read: {error}", where=str(path)) from error
    names = [str(name or "").strip() for name in rows[0]] if rows else []
    return (dict(zip(names, row, strict=False)) for row in rows[1:] if any(value is not None for value in row))


def _cell(value: Any) -> Any:
    return harmless(value.translate(_ILLEGAL))[:_CELL] if isinstance(value, str) else value


def _openpyxl() -> Any:
    try:
        return import_module("openpyxl")
    except ImportError as error:
        hint = "pip install 'ilab[xlsx]', or use JSONL or CSV"
        raise SetupError("XLSX is read and written with openpyxl, which is not installed", hint=hint) from error
