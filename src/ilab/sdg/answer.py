"""How a model's answer becomes columns: by tags, by delimiters, by a pattern, as JSON, or whole.

The five ways are fields of every block that reads an answer. A block takes one of them; without any, the whole text
becomes the column ``output``. An answer with several complete records gives several rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, model_validator

from ilab.sdg.parse import parse_delimited, parse_json, parse_pattern, parse_tags

Record = dict[str, Any]
WAYS = ("tags", "delimiters", "pattern", "keys", "output")


class AnswerForm(BaseModel):
    """``tags``: column to the tag that the prompt asks for, read tolerantly (see :mod:`ilab.sdg.parse`).

    ``delimiters``: column to the two texts around its value, word for word but for case; both empty: the whole
    text. ``pattern``: a regular expression whose groups are the ``columns``. ``keys``: column to the key in the JSON
    objects of the answer. ``output``: the column of the whole text. What is in ``cleanup`` is removed from each value.
    """

    tags: Mapping[str, str] = {}
    delimiters: Mapping[str, tuple[str, str]] | None = None
    pattern: str | None = None
    columns: tuple[str, ...] | None = None
    cleanup: tuple[str, ...] | None = None
    keys: Mapping[str, str] | None = None
    output: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [name for name in WAYS if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"an answer is read in one way, not by {' and '.join(given)}")
        if len({tag.lower() for tag in self.tags.values()}) < len(self.tags):
            raise ValueError("two columns are read from the same tag")
        starts = [start.lower() for start, _ in (self.delimiters or {}).values() if start]
        if len(set(starts)) < len(starts):
            raise ValueError("two columns begin with the same delimiter")
        if self.pattern is None and self.columns:
            raise ValueError("columns belong to a pattern")
        if self.pattern is not None:
            self._check_pattern(self.pattern)
        return self

    def _check_pattern(self, pattern: str) -> None:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"the pattern cannot be read: {error}") from error
        if not self.columns:
            raise ValueError("a pattern needs columns, one for each of its groups")
        if len(self.columns) > max(groups, 1):
            raise ValueError(f"the pattern has {groups} groups for {len(self.columns)} columns")

    def read_columns(self) -> frozenset[str]:
        """The columns that every record has."""
        named = self.tags or self.delimiters or self.columns or self.keys
        return frozenset(named or {self.output or "output"})

    def records(self, text: str, *, truncated: bool) -> list[Record]:
        """The complete records in ``text``. Of an answer that was cut off, what may be incomplete is left out."""
        records = self._found(text, truncated)
        if not self.cleanup:
            return records
        cleaned = [{column: self._cleaned(value) for column, value in record.items()} for record in records]
        return [record for record in cleaned if all(value != "" for value in record.values())]

    def _found(self, text: str, truncated: bool) -> list[Record]:
        if self.tags:
            columns = {tag.lower(): column for column, tag in self.tags.items()}
            found = parse_tags(text, list(columns), truncated=truncated)
            return [{columns[tag]: value for tag, value in record.items()} for record in found]
        if self.delimiters:
            return [dict(record) for record in parse_delimited(text, self.delimiters, truncated=truncated)]
        if self.pattern is not None and self.columns:
            found = parse_pattern(text, self.pattern, self.columns)
            return [dict(record) for record in (found[:-1] if truncated else found)]
        if self.keys:
            return parse_json(text, self.keys)
        whole = text.strip()
        return [{self.output or "output": whole}] if whole and not truncated else []

    def _cleaned(self, value: Any) -> Any:
        if isinstance(value, str):
            for mark in self.cleanup or ():
                value = value.replace(mark, "")
            return value.strip()
        return value

    def wanted(self) -> str:
        """What was asked for, in words."""
        if self.delimiters:
            return ", ".join(start for start, _ in self.delimiters.values() if start) or "any text"
        if self.pattern is not None:
            return f"the pattern {self.pattern[:60]}"
        if self.keys:
            return f"JSON with {', '.join(self.keys.values())}"
        return ", ".join(f"[{tag}]" for tag in self.tags.values()) or "any text"
