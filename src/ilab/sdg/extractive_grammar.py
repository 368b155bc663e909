"""Just enough English grammar to take a plain declarative sentence apart.

There is no tagger here. A clause is found by its verb: forms of "be" and "have", modal verbs, and the
inflections of a list of common verbs (`VERBS`, `IRREGULAR`). What stands before the verb is the subject,
what follows is cut at prepositions and connectives into a *core* (the object or complement) and *chunks*
(when, where, by whom, why ...).

A sentence that does not fit this shape gives ``None`` rather than a guess: questions, negations, commands,
subordinate clauses in the subject, verbs that are not listed. A missed sentence costs a few examples; a
wrongly read one teaches nonsense. Every pattern is bounded, and only the first words of a sentence are
looked at for the verb, so the time is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ilab.sdg.extractive_lexicon import (
    ADVERBS,
    APPROXIMATE,
    BASE,
    BE,
    DETERMINERS,
    FINITE,
    FREQUENCY,
    MODALS,
    NEGATION,
    NOT_IN_SUBJECT,
    NUMBER,
    PARTICIPLE,
    PAST,
    PLACE_PREPOSITIONS,
    THIRD,
    TIME,
    UNIT_OF_TIME,
    bare,
    plural,
    word_set,
)

_BOUNDARY = re.compile(
    rf"(?:^|(?<=\s))(?:from \S.{{0,30}}? (?:to|until) (?=\S)|between \S.{{0,30}}? and (?=\S)"
    rf"|{FREQUENCY.pattern}"
    r"|(?:in order to|so that|because of|because|due to|in|on|at|by|from|since|until|during|before|after|near"
    r"|inside|outside|beside|behind|under|above|below|beneath|opposite|along|across|between|throughout|within|around"
    r"|through|into|(?<!\bup )to|for|with|using|via|when|once|as|against|over|onto)(?=\s))"
)
_CLAUSE_END = re.compile(
    r"[;—]| – |: |,? such as |,? (?:but|which|who|whose|while|although|though)\b"
    r"|,? (?:so(?! that)|whereas|where|if|unless|then)\b"
    r"|, and (?:you|we|it|they|he|she|the|this|these|that|is|are|was|were)\b"
    r"|, (?:\w{2,14}ing|it|they|he|she|making|with"
    r"|including|and then)\b|\. "
)
_AND = re.compile(r",? (?:and|or) (\w{2,20})(?: (\w{1,20}))?")
_LEAD = re.compile(r"([A-Z]\w{1,12}(?: [^,.;:]{1,60})?), (?=\w)")
_SKIP_LEAD = word_set(
    """
    currently today however therefore also originally traditionally locally
    """
)
_OPENINGS = (
    PLACE_PREPOSITIONS
    | _SKIP_LEAD
    | word_set(
        """
    every each once twice since until during before after from for by to with without if when while
    although though because unless as like despite unlike due using here there
    """
    )
)
_SKIP_OPENINGS = (
    "like ",
    "in addition",
    "for example",
    "as a result",
    "in particular",
    "despite ",
    "unlike ",
)
_NO_VERB_AFTER = word_set("of to for and or by with from into as")
_MANNER = (
    "the form",
    "average",
    "general",
    "particular",
    "fact",
    "addition",
    "order",
    "total",
    "turn",
    "part",
    "case",
)
_SHORT = re.compile(r"[^\"“'’]{1,20}(?: [^\"“'’ ]{1,20}){0,4}")
_DURATION = re.compile(rf"{APPROXIMATE}(?:{NUMBER}|a|many) (?:more )?{UNIT_OF_TIME}\b")
_RESOLVABLE = frozenset(["it", "they", "he", "she"])
_CLOSING = " ,.;:!?"
_SPLIT = re.compile(r"(?:;|, and|, but|, while|, whereas) (?=(?:the|it|they|he|she|an?|its|their) )")
_TIME_PREPOSITIONS = word_set("in on at since until during before after by from between around")
_CLAUSE_PREPOSITIONS = word_set("when once after before")

Candidate = tuple[str, str, str]  # rule, question, answer


@dataclass(frozen=True, slots=True)
class Chunk:
    """One part after the verb: what it tells, the word it starts with, and the text without that word."""

    kind: str
    opening: str
    text: str

    @property
    def whole(self) -> str:
        """The chunk as it stands in the sentence."""
        return f"{self.opening} {self.text}".strip()


@dataclass(frozen=True, slots=True)
class Clause:
    """One main clause: ``said`` is the verb group as written, ``aux`` and ``verb`` its halves when asked."""

    subject: str
    aux: str
    verb: str
    said: str
    kind: str  # "copula", "passive" or "active"
    base: str  # the main verb's base form
    rest: str
    core: str
    chunks: tuple[Chunk, ...]


def find_verb(words: list[str]) -> int | None:
    """The index of the first finite verb among the first ten words; None when there is none to be sure of."""
    low = [bare(word) for word in words[:18]]
    for i in range(1, min(len(low), 11)):
        if (low[i - 1] in NOT_IN_SUBJECT and not (i == 1 and low[0] in _RESOLVABLE)) or words[i - 1].endswith(
            (",", ";", ":")
        ):
            return None
        if low[i] in FINITE:
            return i
        if _verbal(words, low, i):
            return i
    return None


def _verbal(words: list[str], low: list[str], i: int) -> bool:
    """Whether word ``i`` is the clause's verb and not a noun or an adjective spelled alike."""
    word, before = low[i], low[i - 1]
    following = low[i + 1] if i + 1 < len(low) else ""
    if word != words[i] or before.endswith(("'s", "’s", "s'", "s’")):  # a possessive, or "releases," in a list
        return False
    if before in DETERMINERS or before in PLACE_PREPOSITIONS or before in _NO_VERB_AFTER:
        return False
    if low[0].endswith("ing") and (i <= 2 or word in BASE):  # "Running builds in ..."
        return False
    if following in FINITE or (following == "of" and word in BASE | set(THIRD) - {"consists", "consist"}):
        return False
    subject_plural = (plural(words[i - 1]) and not words[i - 1].endswith(("'s", "’s"))) or "and" in low[:i]
    # "The images signed by X are ...": a finite verb soon after means that this one is a participle.
    soon = low[i + 1 : i + 7]
    if any(w in FINITE for w in soon) and not {"that", "which", "and", "who"} & set(soon):
        return False
    if word in THIRD and following not in THIRD and not (following in PAST and following not in BASE):
        return not subject_plural or words[i - 1][:1].isupper()
    if unlisted_base(word, following) and not subject_plural:
        return True
    if word in PAST and word not in BASE:
        return following != "by" and _opens_object(words, low, i)
    return word in BASE and subject_plural


def _opens_object(words: list[str], low: list[str], i: int) -> bool:
    """Whether a past form at ``i`` is a verb; in "a separate managed team" it describes a noun."""
    following = words[i + 1] if i + 1 < len(words) else ""
    if i > 1 and low[i - 1].endswith("ly") and low[i - 2] in DETERMINERS:
        return False
    known = DETERMINERS | PLACE_PREPOSITIONS | _NO_VERB_AFTER | {"", "since", "until", "during", "before", "after"}
    return i == 1 or words[i - 1][:1].isupper() or bare(following) in known or not following[:1].islower()


def unlisted_base(word: str, following: str) -> str | None:
    """The base of a verb that is not listed, known by its ending and the article or number after it."""
    if not re.fullmatch(r"[a-z]{2,16}[^s\W]s", word) or not (
        following in {"the", "a", "an"} or following[:1].isdigit()
    ):
        return None
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("shes", "ches", "sses", "xes", "zes", "oes")) else word[:-1]


_Group = tuple[str, str, str, str, int]  # kind, aux, verb in a question, base, index after the group


def _adverb(word: str) -> bool:
    return word in ADVERBS or (word.endswith("ly") and word != "only")


def _past_adverbs(low: list[str], j: int) -> int:
    while j < len(low) and _adverb(low[j]):
        j += 1
    return j


def _is_participle(low: list[str], j: int) -> bool:
    return j < len(low) and (low[j] in PARTICIPLE or (low[j].endswith("ed") and len(low[j]) > 4))


def _verb_group(words: list[str], i: int) -> _Group | None:
    """The verb group that starts at word ``i``; None for what a question cannot be made of."""
    low = [bare(word) for word in words]
    aux, j = low[i], _past_adverbs(low, i + 1)
    if aux in BE:
        if _is_participle(low, j):
            return "passive", aux, low[j], PARTICIPLE.get(low[j], low[j]), j + 1
        return "copula", aux, "", "be", i + 1
    if aux in {"has", "have", "had"}:
        return _perfect(low, i, j)
    if aux in MODALS:
        return _modal(low, aux, j)
    if aux in THIRD:
        return "active", "does", THIRD[aux], THIRD[aux], i + 1
    if aux in BASE:
        return "active", "do", aux, aux, i + 1
    if aux in PAST:
        return "active", "did", PAST[aux], PAST[aux], i + 1
    base = unlisted_base(aux, low[i + 1] if i + 1 < len(low) else "") or aux
    return "active", "does", base, base, i + 1


def _perfect(low: list[str], i: int, j: int) -> _Group | None:
    """ "has been built", "has redefined", or "has" as a verb of its own."""
    following = low[j] if j < len(low) else ""
    k = _past_adverbs(low, j + 1)
    if following == "been" and _is_participle(low, k):
        return "passive", low[i], f"been {low[k]}", PARTICIPLE.get(low[k], low[k]), k + 1
    if following in PARTICIPLE and j + 1 < len(low) and low[j + 1] not in DETERMINERS | _NO_VERB_AFTER:
        return None  # "has limited access" and "has redefined art" are written alike
    if following in PARTICIPLE and j + 1 < len(low):
        return "active", low[i], following, PARTICIPLE[following], j + 1
    if following in {"been", "to"} or following.endswith("ed"):  # a perfect of a verb that is not listed
        return None
    return "active", {"has": "does", "have": "do", "had": "did"}[low[i]], "have", "have", i + 1


def _modal(low: list[str], aux: str, j: int) -> _Group | None:
    following = low[j] if j < len(low) else ""
    if following == "be":
        k = _past_adverbs(low, j + 1)
        passive = _is_participle(low, k)
        return ("passive", aux, f"be {low[k]}", PARTICIPLE.get(low[k], low[k]), k + 1) if passive else None
    return ("active", aux, following, following, j + 1) if following in BASE else None


def clip(rest: str) -> tuple[str, str]:
    """``rest`` up to the end of its clause, and a second predicate that "and" joins to it."""
    rest = " " + rest
    end = _CLAUSE_END.search(rest)
    rest = rest[: end.start()] if end else rest
    for joint in _AND.finditer(rest):
        word = joint.group(1)
        # "opens and closes at nine" has a second verb; "deciduous and mixed forests", "tasks and
        # tests" have not.
        after = (joint.group(2) or "").lower()
        verbal = word in THIRD or (word in PAST and after in DETERMINERS | PLACE_PREPOSITIONS | _NO_VERB_AFTER)
        verbal = verbal or (word.endswith("s") and after in {"you", "the", "a", "an", "your"})
        if word in FINITE or (verbal and after):
            return rest[: joint.start()].strip(_CLOSING), rest[joint.start(1) :]
    return rest.strip(_CLOSING), ""


def chunks_of(rest: str) -> tuple[str, tuple[Chunk, ...]]:
    """``rest`` cut into its core and its chunks."""
    marks = list(_BOUNDARY.finditer(rest))
    core = rest[: marks[0].start()] if marks else rest
    chunks = []
    for mark, following in zip(marks, [*marks[1:], None], strict=False):
        piece = rest[mark.start() : following.start() if following else len(rest)].strip(" ,")
        chunks.append(classify(piece))
    return core.strip(" ,"), tuple(chunks)


def classify(piece: str) -> Chunk:
    """What one chunk tells: when, how often, how long, why, by whom, by which means, where, or "other"."""
    if FREQUENCY.match(piece):
        return Chunk("frequency", "", piece)
    for opening in ("in order to", "so that", "because of", "due to"):
        if piece.startswith(opening + " "):
            kind = "purpose" if opening in {"in order to", "so that"} else "reason"
            return Chunk(kind, opening, piece[len(opening) + 1 :])
    opening, _, text = piece.partition(" ")
    return Chunk(_kind(opening, text), opening, text)


def _kind(opening: str, text: str) -> str:
    first = text.partition(" ")[0]
    place = opening in PLACE_PREPOSITIONS
    manner = place and (text.startswith(_MANNER) or len(text.split()) > 8)
    # Longer or quoted, it is rather a thing with a date in it: "in Swift's 2009 song".
    dated = opening in _TIME_PREPOSITIONS and TIME.search(text) is not None and _SHORT.fullmatch(text)
    tests = (
        ("reason", opening == "because"),
        ("purpose", opening == "to" and first in BASE | {"be", "have"}),
        ("duration", opening == "for" and _DURATION.match(text)),
        ("time", dated),
        ("occasion", opening in _CLAUSE_PREPOSITIONS and len(text.split()) >= 2),
        ("means", opening == "using" or (opening == "by" and first.endswith("ing"))),
        ("agent", opening == "by"),
        ("manner", manner),
        ("place", place),
    )
    return next((kind for kind, holds in tests if holds), "other")


def strip_lead(sentence: str) -> tuple[str, Chunk | None] | None:
    """The sentence without an opening adverbial, and that adverbial; None when the opening is a condition."""
    lead = _LEAD.match(sentence)
    if not lead or lead.group(1).split()[0].lower() not in _OPENINGS:
        return sentence, None
    words = lead.group(1)
    rest = sentence[lead.end() :]
    chunk = classify(words[0].lower() + words[1:])
    if chunk.kind in {"time", "frequency"}:
        return rest, chunk
    if words.lower() in _SKIP_LEAD or words.lower().startswith(_SKIP_OPENINGS):
        return rest, None
    if chunk.kind == "place" and len(words.split()) <= 8:
        return rest, chunk
    return None


def parse(sentence: str) -> list[Clause]:
    """The main clauses of a plain sentence, subjects as written; empty when it is not understood."""
    if sentence.rstrip().endswith("?") or len(sentence) > 600:
        return []
    found: list[Clause] = []
    for part in _SPLIT.split(sentence):
        # After a part that was not understood, "it" may mean anything.
        opened = strip_lead(part[:1].upper() + part[1:]) if not NEGATION.search(part) else None
        if opened is None or (found == [] and part is not sentence and not sentence.startswith(part)):
            break
        found.extend(_predicates(*opened))
    return found


def _predicates(body: str, lead: Chunk | None) -> Iterator[Clause]:
    """One clause for each of at most three predicates: "X was built in 1890 and has three rooms"."""
    for _ in range(3):
        words = body.split()
        i = find_verb(words)
        group = _verb_group(words, i) if i is not None else None
        if i is None or group is None or group[4] > len(words):
            return
        kind, aux, verb, base, after = group
        subject = " ".join(words[:i])
        rest, second = clip(" ".join(words[after:]))
        while rest.split(" ")[0].lower() in ADVERBS or re.match(r"[a-z]{3,}ly ", rest):
            rest = rest.partition(" ")[2]
        core, chunks = chunks_of(rest)
        said = " ".join(word for word in words[i:after] if word not in ADVERBS)
        bare_subject = re.sub(r" ?\([^)]*\)?", "", subject).strip()
        if bare_subject:
            yield Clause(bare_subject, aux, verb, said, kind, base, rest, core, (*chunks, lead) if lead else chunks)
        if not second:
            return
        # "was built in 1890 and restored in 1978": the second participle takes the auxiliary of the first.
        shared = f"{words[i]} " if kind == "passive" and bare(second.split()[0]) in PARTICIPLE else ""
        body, lead = f"{subject} {shared}{second}", None
