"""What can be asked of glossary entries, table cells and abbreviations: both ways, in several wordings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ilab.sdg.extractive_grammar import Candidate, parse
from ilab.sdg.extractive_lexicon import (
    APPROXIMATE,
    BASE,
    NUMBER,
    PAST,
    PLACE_PREPOSITIONS,
    THIRD,
    VAGUE,
    plural,
    upper_first,
    word_set,
)
from ilab.sdg.extractive_markdown import plain

_NO_NOUN = word_set("the if how what why when where who see from to for with by")
_REMARKS = word_set(
    """
    note notes tip important warning caution optional example procedure prerequisite solution
    problem result answer
    """
)


def acronym(sentence: str) -> Iterator[Candidate]:
    """ "Supply-chain Levels for Software Artifacts (SLSA)": what the letters stand for."""
    for mark in re.finditer(r"((?:[\w-]{1,30} ){1,7})\(([A-Z]{2,8})\)", sentence):
        words, letters = mark.group(1).split(), mark.group(2)
        for count in range(2, len(words) + 1):
            phrase = words[-count:]
            initials = "".join(w[0] for w in phrase if w not in {"for", "of", "and", "the", "to"} and w)
            if initials.upper() == letters:
                full = " ".join(phrase)
                for question in (
                    f"What does {letters} stand for?",
                    f"{letters} stands for what?",
                    f"{letters} full name",
                    f"Tell me what {letters} stands for.",
                    f"Expand the abbreviation {letters}.",
                ):
                    yield "acronym", question, full
                yield "acronym-reverse", f"What is the abbreviation of {full}?", letters
                yield "acronym-reverse", f"{full} is shortened to ____.", letters
                break


def term_candidates(term: str, definition: str) -> Iterator[Candidate]:
    first, opening = term.partition(" ")[0], definition.partition(" ")[0].lower()
    if first.lower() in BASE and first[:1].isupper() and len(term.split()) >= 3:  # "Add team members": a step
        return
    if opening in PLACE_PREPOSITIONS | THIRD.keys() | PAST.keys() | (_NO_NOUN - {"the"}) or opening.endswith("ing"):
        return
    if (
        term.lower() in _REMARKS or "/" in term or definition.endswith("?") or parse(definition)
    ):  # a sentence is no definition
        return
    if (
        not definition
        or not re.match(r"[\w\"“(]", definition)
        or definition.split(maxsplit=1)[0].lower() in BASE | {"to"}
    ):
        return
    article = re.match(r"(an?|one) ", definition, re.IGNORECASE)
    named = f"{'an' if term[0] in 'aeio' else 'a'} {term}" if article and term.islower() and not plural(term) else term
    if term.endswith("ing") or len(term.split()) > 6:
        named = term
    be, do = ("are", "do") if plural(term) and not article else ("is", "does")
    for question in (
        f"What {be} {named}?",
        f"Define {term}.",
        f"What {do} {term} mean?",
        f"Tell me what {named} {be}.",
        f"{term} meaning",
        f"Explain the term {term}.",
    ):
        yield "glossary", question, definition
    opening = definition.split(maxsplit=1)[0]
    low = (
        definition[0].lower() + definition[1:]
        if opening in {"A", "An", "The", "One"} or (len(opening) > 3 and opening[1:].islower())
        else definition
    )
    short = " ".join(low.split()[:22])
    if len(low.split()) > 22:
        short = re.split(r"[,;]", low)[0]
    yield "term", f"Which term means: {short}?", term
    yield "term", f"What do you call {short}?", term
    yield "term", f"What is the name for {short}?", term
    yield "term", f"____: {short}.", term


def is_column(name: str) -> bool:
    """Whether a column's name is a noun that a question can use."""
    words = name.lower().split()
    if not 1 <= len(words) <= 4 or words[0] in VAGUE | _NO_NOUN:
        return False
    return len(words) == 1 or words[0] not in BASE  # "Range" is a noun, "Find the name" an instruction


def cells_of(line: str) -> list[str]:
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [plain(cell).replace("\0", "|") for cell in inner.replace("\\|", "\0").split("|")]


def cell_candidates(label: str, kind: str, column: str, value: str, unique: bool) -> Iterator[Candidate]:
    low = column[0].lower() + column[1:] if column[1:].islower() else column
    answer = value.rstrip(" .")
    be = "are" if plural(low) else "is"
    for question in (
        f"What {be} the {low} of {label}?",
        f"{label} {low}",
        f"For {label}, what {be} the {low}?",
        f"Tell me the {low} of {label}.",
        f"The {low} of {label} {be} ____.",
    ):
        yield "table", question, answer
    if unique and len(answer.split()) <= 12:
        thing = kind[0].lower() + kind[1:] if kind[1:].islower() or " " in kind else kind or "row"
        yield "table-reverse", f"Which {thing} has the {low} {answer}?", label
        yield "table-reverse", f"{upper_first(low)} {answer}: which {thing}?", label
        yield "table-reverse", f"____ has the {low} {answer}.", label


def existence(sentence: str) -> Iterator[Candidate]:
    """ "There are 118 steps in the tower"."""
    found = re.match(rf"There (are|were) ({APPROXIMATE}{NUMBER}) ([a-z][^,;.(]{{2,60}})", sentence)
    if found:
        verb, number, noun = found.groups()
        thing, _, place = noun.partition(" in ")
        yield (
            "how-many",
            f"How many {noun} {verb} there?" if not place else f"How many {thing} {verb} in {place}?",
            number,
        )
        yield "how-many", f"How many {thing} {verb} there{' in ' + place if place else ''}?", number
        yield "how-many", f"number of {noun}", number
        yield "how-many", f"Tell me how many {thing} there {verb}{' in ' + place if place else ''}.", number
        yield "how-many", f"There {verb} ____ {noun}.", number
        if place:
            yield "how-many", f"How many {thing} {'does' if verb == 'are' else 'did'} {place} have?", number
