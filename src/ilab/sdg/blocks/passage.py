"""The document's own paragraphs as rows: the first training phase reads them whole, under their headings."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from ilab.sdg.block import Context, Reject, Row, RuleBlock


class Passage(RuleBlock):
    """One row per paragraph (text between blank lines, headings left out), trained on from first to last token.

    The heading path stands where a question would; ``train_on`` is ``all``.
    """

    type: ClassVar[str] = "passage"

    least_words: int = 4

    def needs(self) -> frozenset[str]:
        return frozenset({"document", "headings"})

    def adds(self) -> frozenset[str]:
        return frozenset({"question", "answer", "train_on"})

    def derive(self, row: Row, context: Context) -> list[tuple[str, dict[str, Any]]]:
        heading = " > ".join(row.columns["headings"]) or "Document"
        paragraphs = [paragraph.strip() for paragraph in re.split(r"\n\s*\n", row.columns["document"])]
        kept = [
            paragraph
            for paragraph in (re.sub(r"(?m)^#{1,6} .*\n?", "", text).strip() for text in paragraphs)
            if len(paragraph.split()) >= self.least_words
        ]
        if not kept:
            raise Reject("no paragraph", f"none has {self.least_words} words")
        return [
            (f"passage-{number}", {"question": heading, "answer": paragraph, "train_on": "all"})
            for number, paragraph in enumerate(kept, 1)
        ]
