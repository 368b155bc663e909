"""Question–answer pairs by rule from a passage's own sentences, glossaries and tables. Not a language model."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

from ilab.sdg.block import Context, Reject, Row, RuleBlock
from ilab.sdg.extractive import extract


class Extract(RuleBlock):
    """Adds ``question``, ``answer``, ``evidence`` and ``rule``. Children are named ``<rule>-<n>``."""

    type: ClassVar[str] = "extract"

    def needs(self) -> frozenset[str]:
        return frozenset({"document", "headings"})

    def adds(self) -> frozenset[str]:
        return frozenset({"question", "answer", "evidence", "rule"})

    def derive(self, row: Row, context: Context) -> list[tuple[str, dict[str, Any]]]:
        made: list[tuple[str, dict[str, Any]]] = []
        counted: Counter[str] = Counter()
        for pair in extract(row.columns["document"], tuple(row.columns["headings"])):
            counted[pair.rule] += 1
            columns = {
                "question": pair.question,
                "answer": pair.answer,
                "evidence": pair.evidence,
                "rule": pair.rule,
            }
            made.append((f"{pair.rule}-{counted[pair.rule]}", columns))
        if not made:
            raise Reject("no rule applies", "the passage has no sentence, definition or table that a rule reads")
        return made
