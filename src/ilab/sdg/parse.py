"""Reading a model's answer by tags, as models really write them.

Asked for ``[QUESTION]…[/QUESTION]``, models also write ``<question>``, ``**Question:**``, ``Question 2:``, leave
out closing tags, or say ``[END]``. All of these are read alike: the text is cut at every marker, each piece
belongs to the marker before it, and a record is complete when every wanted tag has text. A closing tag matters for
one thing only: of an answer that was cut off, a last piece without it is not trusted.

Other prompts ask for other forms: values between literal delimiters, text that a pattern matches, JSON objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

LONGEST = 200_000  # characters of an answer that a pattern of somebody else's is run over
BRACKET = re.compile(r"[{\[]")
THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


def parse_tags(text: str, tags: Sequence[str], *, truncated: bool = False) -> list[dict[str, str]]:
    """The complete records in ``text``, each a mapping of lower-cased tag to stripped text, in order.

    ``truncated`` says that the answer was cut off: a record whose last piece was never closed is left out.
    """
    text = THINKING.sub("", text)
    wanted = tuple(tag.lower() for tag in tags)
    records = _records(text, _markers(wanted, short_forms=False), wanted, truncated)
    # "Q:" and "A:" are looked for only when nothing else is there: "A:" may as well be an option of a question.
    return records or _records(text, _markers(wanted, short_forms=True), wanted, truncated)


@lru_cache(maxsize=256)
def _markers(tags: tuple[str, ...], *, short_forms: bool) -> re.Pattern[str]:
    names = {tag: "|".join([re.escape(tag), *([re.escape(tag[0])] if short_forms else [])]) for tag in tags}
    any_name = "|".join(names.values())
    opening = "|".join(
        # [TAG] or <TAG>, or at the start of a line: **Tag 2:**, ## Tag, 1. Tag:
        rf"(?P<{_group(tag)}>[\[<]\s*(?:{name})\s*\d*\s*[\]>]:?"
        rf"|^[ \t]*(?:\d+[.)][ \t]*)?(?:\#+[ \t]*)?[*_]*(?:{name})[ \t]*\d*[*_]*[ \t]*[:：][*_]*"
        rf"|^[ \t]*\#+[ \t]*(?:{name})[ \t]*\d*[ \t]*$)"
        for tag, name in names.items()
    )
    end = rf"end(?:[ _-]*(?:of[ _-]*)?(?:{any_name}))?"
    closing = rf"(?P<closing>[\[<]\s*(?:/\s*(?:{any_name})?|{end})\s*[\]>])"
    return re.compile(f"{closing}|{opening}", re.IGNORECASE | re.MULTILINE)


def _group(tag: str) -> str:
    return "tag_" + re.sub(r"\W", "_", tag)


def _records(text: str, markers: re.Pattern[str], tags: Sequence[str], truncated: bool) -> list[dict[str, str]]:
    by_group = {_group(tag): tag for tag in tags}
    found = list(markers.finditer(text))
    records: list[dict[str, str]] = []
    current: dict[str, str] = {}
    for index, marker in enumerate(found):
        tag = by_group.get(marker.lastgroup or "")
        if tag is None:
            continue
        last = index + 1 == len(found)
        piece = text[marker.end() :] if last else text[marker.end() : found[index + 1].start()]
        value = piece.strip().strip("*").strip()
        if tag in current:  # a new record begins
            current = {}
        if value and not (last and truncated):
            current[tag] = value
        if len(current) == len(tags):
            records.append(current)
            current = {}
    return records


def parse_delimited(
    text: str, delimiters: Mapping[str, tuple[str, str]], *, truncated: bool = False
) -> list[dict[str, str]]:
    """The complete records in ``text``, each value standing between the two delimiters of its column.

    Delimiters are literal but for case. A value whose end is missing reaches to the next start, or to the end of
    the text. Where every column has as many values, the first ones are a record, and so on (so questions may all
    stand before the answers); otherwise a record is what stands together. A column with two empty delimiters is the
    whole text, and goes to the first record.
    """
    text = THINKING.sub("", text)
    marked = {column: pair for column, pair in delimiters.items() if any(pair)}
    whole = {column: text.strip() for column in delimiters if column not in marked}
    if not marked:
        return [whole] if text.strip() and not truncated else []
    pieces = _pieces(text, marked, truncated)
    values = {column: [value for name, value in pieces if name == column] for column in marked}
    if len({len(found) for found in values.values()}) == 1:
        records = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    else:
        records = _grouped(pieces, len(marked))
    return [{**record, **whole} for record in (records[:1] if whole else records)]


def _pieces(text: str, marked: Mapping[str, tuple[str, str]], truncated: bool) -> list[tuple[str, str]]:
    """(column, value) in the order of the text; empty values are left out."""
    lowered = text.lower() if len(text.lower()) == len(text) else text  # folding may lengthen, and offsets must hold
    fold = str.lower if lowered is not text else str
    starts: list[tuple[int, int, str]] = []
    for column, (start, _) in marked.items():
        at = lowered.find(fold(start)) if start else 0
        while at >= 0:
            starts.append((at, at + len(start), column))
            at = lowered.find(fold(start), at + len(start)) if start else -1
    starts.sort()
    pieces = []
    for number, (_, begin, column) in enumerate(starts):
        limit = starts[number + 1][0] if number + 1 < len(starts) else len(text)
        end = lowered.find(fold(marked[column][1]), begin, limit) if marked[column][1] else -1
        value = text[begin : end if end >= 0 else limit].strip()
        cut = truncated and end < 0 and limit == len(text)
        if value and not cut:
            pieces.append((column, value))
    return pieces


def _grouped(pieces: Sequence[tuple[str, str]], size: int) -> list[dict[str, str]]:
    """Records of ``size`` different columns that stand together; a column that comes again begins a new one."""
    records: list[dict[str, str]] = []
    current: dict[str, str] = {}
    for column, value in pieces:
        if column in current:
            current = {}
        current[column] = value
        if len(current) == size:
            records.append(current)
            current = {}
    return records


def parse_pattern(text: str, pattern: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """A record for each match of ``pattern`` (its dot matches line ends too): its groups, in order, are ``columns``.

    Values are stripped. A record with an empty value is left out.
    """
    text = THINKING.sub("", text)[:LONGEST]
    records = []
    for match in re.finditer(pattern, text, re.DOTALL):
        values = [(value or "").strip() for value in match.groups() or (match.group(),)][: len(columns)]
        if all(values):
            records.append(dict(zip(columns, values, strict=True)))
    return records


def parse_json(text: str, keys: Mapping[str, str]) -> list[dict[str, Any]]:
    """A record for each JSON object in ``text``, in lists and inside of other text too, that has all the ``keys``.

    ``keys`` maps columns to keys. Texts are stripped; other values stay as they are. Empty ones do not count. Where
    there is no record, commas before a closing bracket are forgiven.
    """
    text = THINKING.sub("", text)
    return _json_records(text, keys) or _json_records(re.sub(r",(\s*[}\]])", r"\1", text), keys)


def _json_records(text: str, keys: Mapping[str, str]) -> list[dict[str, Any]]:
    decoder = json.JSONDecoder(strict=False)
    objects: list[Any] = []
    at = 0
    while (start := BRACKET.search(text, at)) is not None:
        try:
            found, at = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            at = start.end()
            continue
        objects += found if isinstance(found, list) else [found]
    records = []
    for entry in objects:
        if isinstance(entry, dict) and all(entry.get(key) not in (None, "", [], {}) for key in keys.values()):
            values = {column: entry[key] for column, key in keys.items()}
            records.append({c: value.strip() if isinstance(value, str) else value for c, value in values.items()})
    return records
