"""The job that every client of the benchmark does, and the texts that the server answers it with.

n documents of 400 words; one call a document gives three questions, one call a question gives an answer, one call an
answer judges it, and the answers judged YES are kept: 7 n calls, 3 n rows. Standard library alone: this is read in the
environment of each peer.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

WORDS = ["kiln", "mill", "bridge", "quarry", "chapel", "orchard", "tower", "market", "gate", "burns", "carries", "old"]
ASK = "Write three questions about this text, each as [QUESTION]…[/QUESTION].\n\n{document}"
REPLY = "Answer the question from the text, as [ANSWER]…[/ANSWER].\n\n{document}\n\n{question}"
JUDGE = "Is the answer supported by the text? Say [VERDICT]YES[/VERDICT] or NO.\n\n{document}\n\n{question}\n\n{answer}"
NUMBER = re.compile(r"Document (\d+)\.")
ASKED = re.compile(r"What is known of kiln (\d)")


@dataclass(frozen=True)
class Work:
    """One job. ``latency`` in seconds.

    It is the same for all calls, or drawn: ``sigma`` is that of its logarithm (the mean stays), ``slow`` the share of
    the calls that take ten times as long.
    """

    documents: int
    in_flight: int
    latency: float
    sigma: float = 0.0
    slow: float = 0.0

    @property
    def calls(self) -> int:
        return 7 * self.documents


def documents(count: int) -> list[str]:
    """Texts of 400 words. The number in the first sentence tells them apart."""
    draw = random.Random(7)
    return [f"Document {n}. " + " ".join(draw.choices(WORDS, k=400)) + "." for n in range(count)]


def jinja(prompt: str) -> str:
    """A prompt of the job as a template in Jinja's form."""
    return prompt.replace("{", "{{ ").replace("}", " }}")


def answer_text(prompt: str) -> str:
    """What the three stages are answered. No two questions are alike, so that nobody drops them as duplicates."""
    found = NUMBER.search(prompt)
    number = found[1] if found else "0"
    if "three questions" in prompt:
        asked = (f"What is known of kiln {n} and the mill of document {number}?" for n in range(3))
        return "".join(f"[QUESTION]\n{question}\n[/QUESTION]\n" for question in asked)
    if "Answer the" in prompt:
        of = ASKED.search(prompt)
        kiln = of[1] if of else "0"
        return f"[ANSWER]\nThe kiln {kiln} of document {number} burns and carries the gate to the market.\n[/ANSWER]"
    return "[VERDICT]YES[/VERDICT]"
