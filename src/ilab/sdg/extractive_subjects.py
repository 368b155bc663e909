"""What a sentence is about, said so that a question can stand without the text.

A subject as written may be a pronoun, a possessive or a bare definite. `resolve` replaces it by what the
sentence before was about, or by the full name that a heading or the text gives; a bare definite that no name
replaces ("the tower") asks for the document's topic beside the question. What stays unclear is None: no
question is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from ilab.sdg.extractive_grammar import Candidate
from ilab.sdg.extractive_lexicon import (
    ADVERBS,
    DETERMINERS,
    NUMBER,
    PLACE_PREPOSITIONS,
    VAGUE,
    is_person,
    plural,
    word_set,
)

RESIDUE = re.compile(r"[`|*<>{}\\#\[\]=$~]|https?:|www\.|\w\.(?:com|org|io|dev)\b|_{5,}")
NUMERIC = re.compile(rf"(?<![\w.,-]){NUMBER}(?![\w-]|[.,]\d)")
GENERIC = word_set(
    """
    glossary overview introduction scope summary contents index about how what why when where who
    getting creating using key features prerequisites procedure procedures steps notes references see
    additional related table faq next appendix background general documentation guide welcome
    """
)


@dataclass(frozen=True, slots=True)
class Context:
    """What a chunk's subjects are resolved by."""

    topic: str  # the document's or section's name, "" when no heading is a name
    names: dict[str, str]  # "station" -> "Greywater Tidal Station"
    lower: frozenset[str]  # the words that the text also writes in lower case
    upper: frozenset[str]  # the words that the text writes with a capital inside a sentence or a heading


def context_of(text: str, path: Sequence[str]) -> Context:
    topic = next((h for h in path if is_name(h)), "")
    names: dict[str, str] = {}
    for name in [*re.findall(r"(?<=[a-z,] )[A-Z]\w{1,20}(?: [A-Z]\w{1,20}){1,3}", text), *path]:
        if is_name(name) and len(name.split()) > 1 and name.split()[-1][:1].isupper():
            names.setdefault(name.split()[-1].lower(), name)
    lower = frozenset(re.findall(r"(?<![\w.!?-])[a-z][a-z-]{1,30}\b", text))
    inside = re.findall(r"(?<=[a-z,(] )[\"“*_]{0,3}([A-Z][\w-]{0,30})", text)
    return Context(
        topic,
        names,
        lower,
        frozenset(chain(inside, *(heading.split()[1:] for heading in path), topic.split()[:1])),
    )


def is_name(heading: str) -> bool:
    words = heading.split()
    if not 1 <= len(words) <= 6 or words[0].lower() in GENERIC or RESIDUE.search(heading) or heading.endswith("?"):
        return False
    return words[0][:1].isupper() and not words[0].lower().endswith("ing") and words[0].lower() not in VAGUE


def section_subject(path: Sequence[str]) -> str:
    last = path[-1] if path else ""
    words = last.split()
    if not is_name(last) or len(words) > 4:
        return ""
    if len(words) > 1 and last[1:].islower():  # "Black-capped chickadee" is a kind, not a name
        return ("" if plural(last) else "the ") + last[0].lower() + last[1:]
    return last


def lowered(phrase: str, context: Context) -> str:
    """A sentence's first words as they stand inside a sentence."""
    first, _, others = phrase.partition(" ")
    small = first.lower()
    if first[1:].isupper() or not re.fullmatch(r"[A-Z][a-z-]*", first) or others[:1].isupper():
        common = small in DETERMINERS
    elif small in DETERMINERS or small in context.lower:
        common = True
    else:
        # Never seen in lower case: a plural or a describing word is common unless it has a
        # capital elsewhere, too.
        common = first not in context.upper and (plural(first) or (bool(others) and others.split()[0] != "of"))
    return phrase[:1].lower() + phrase[1:] if common else phrase


def resolve(written: str, context: Context, previous: str) -> str | None:
    """The subject as a question can name it."""
    words = written.split()
    first = words[0].lower()
    if re.match(r"(?:i|you|we|it|they|he|she|that|there)['’]", first) or "following" in words:
        return None
    if len(words) == 1 and first in {"it", "they", "he", "she"}:
        fits = {
            "they": plural(previous) or " and " in previous,
            "it": not plural(previous) and not is_person(previous),
        }
        return previous if previous and fits.get(first, is_person(previous)) else None
    if first in {"its", "their", "his", "her"} and previous and len(words) <= 3 and len(previous.split()) <= 4:
        return f"the {' '.join(words[1:])} of {previous}"
    if first in VAGUE | PLACE_PREPOSITIONS | ADVERBS | {
        "and",
        "but",
        "or",
        "to",
        "for",
        "with",
        "as",
        "by",
        "from",
    }:
        return None
    if len(words) > 6 or NUMERIC.match(written) or first.endswith("ly") or RESIDUE.search(written):
        return None
    subject = lowered(written, context)
    if needs_topic(subject):
        name = context.names.get(words[-1].lower())
        return name or (subject if context.topic or len(words) == 3 else None)
    return subject


def needs_topic(subject: str) -> bool:
    """Whether the subject is a bare definite: "the tower", "the sails of the mill"."""
    short = len(subject.split()) <= 3 or " of the " in subject
    return subject.lower().startswith("the ") and short and not any(w[:1].isupper() for w in subject.split()[1:])


def beside_topic(candidates: Iterator[Candidate], topic: str) -> Iterator[Candidate]:
    """The candidates with the topic before or after the question, in turn."""
    for index, (rule, question, answer) in enumerate(candidates):
        if topic.casefold() in question.casefold():
            yield rule, question, answer
            continue
        end = question[-1] if question[-1] in ".?" else ""
        stem = question[: len(question) - len(end)]
        yield rule, f"{topic}: {question}" if index % 2 == 0 else f"{stem} ({topic}){end}", answer
