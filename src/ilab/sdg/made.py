"""A sample beside what the filters after the flow must know of the row it was made from."""

from __future__ import annotations

from dataclasses import dataclass

from ilab.data import Rejected, Sample

NEAR = "near-duplicates"  # the filter; its module needs numpy, which rule flows do without
UNANSWERABLE = "unanswerable"  # the column that is "yes" in rows made to have no answer: not to know is right there


@dataclass(frozen=True)
class Made:
    """``question`` stands without its ``context``; ``source`` is the passage that the teacher was given, if any."""

    sample: Sample
    question: str
    context: str | None = None
    source: str = ""
    unanswerable: bool = False

    @property
    def answer(self) -> str:
        return self.sample.answer

    @property
    def is_written_pair(self) -> bool:
        """Whether it is a question with an answer, and a teacher had a part in it."""
        return self.sample.origin.teacher is not None and self.sample.train_on == "assistant"

    def refuse(self, block: str, reason: str) -> Rejected:
        return refuse(self.sample, block, reason)


def refuse(sample: Sample, block: str, reason: str) -> Rejected:
    """The record of a sample that is left out."""
    row = {"question": sample.question, "answer": sample.answer}
    return Rejected(id=sample.id, leaf=sample.leaf, block=block, reason=reason, row=row)
