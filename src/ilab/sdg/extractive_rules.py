"""From one clause to questions: each fact in several wordings.

A rule decides which part of a clause is the answer and which question word asks for it; `wordings` then asks
for it in different word orders and with different function words: a full question, an embedded one ("Tell me
..."), an echo ("The tower was built when?"), a keyword query and a sentence to fill in. A small model learns
by the overlap of words, so the variety of wordings matters more than the number of facts.

Rules return *candidates* (rule, question, answer). They may return poor ones: the caller drops what is
empty, too long, not copied from the sentence, or answered inside its own question.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain

from ilab.sdg.extractive_grammar import Candidate, Chunk, Clause
from ilab.sdg.extractive_lexicon import (
    APPROXIMATE,
    BASE,
    COLOUR,
    NUMBER,
    PEOPLE,
    PLACE_PREPOSITIONS,
    is_person,
    joined,
    no_article,
    participle_of,
    past_of,
    plural,
    upper_first,
    word_set,
)

ADJECTIVES = {
    "tall": "height", "high": "height", "long": "length", "wide": "width", "deep": "depth",
    "thick": "thickness", "old": "age", "heavy": "weight",
}  # fmt: skip
_MEASURE = re.compile(rf"({APPROXIMATE}{NUMBER} [\w°%-]{{1,20}}) ({'|'.join(ADJECTIVES)})\b", re.IGNORECASE)
_COUNT = re.compile(rf"({APPROXIMATE}{NUMBER}) ([a-z][^,;(]{{2,60}})", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"(?:(?:the|an?) )?([a-z]+(?: [a-z]+)?) of (.{2,60})$", re.IGNORECASE)
_HAS_VALUE = re.compile(rf"(?:an?|the) ([a-z]+(?: [a-z]+)?) of ({APPROXIMATE}{NUMBER}[^,;(]{{0,30}})")
# After these a "to ..." completes the verb; it does not say why.
_CONTROL = word_set(
    """
    allow assign provide present contribute enable require need help begin start continue able use
    try like want have ask tell cause
    encourage seem appear set direct prepare refuse expect prefer remain go come relate link connect
    belong lead add send give bring move close limit apply refer say know hear order offer consider
    """
)
_MOVING = word_set("bring come import originate ship buy transport travel")
# "based on OpenShift" is no place, nor is "written in Go".
_ABSTRACT = word_set(
    """
    based base rely depend focus write involved interested engaged result increase feed specify use
    """
)
_INTRANSITIVE = word_set(
    """
    belong depend rely consist lead refer look feed point listen react return come
    """
)
_TIGHT = word_set("of to on with from for as into")
_UNITS = {
    "weigh": ("How much", "weight"), "cost": ("How much", "cost"), "last": ("How long", "duration"),
    "take": ("How long", "time taken"), "hold": ("How much", "capacity"), "measure": ("How long", "size"),
}  # fmt: skip


def wordings(c: Clause, ask: str, rest: str = "", keyword: str = "", blank: str = "") -> list[str]:
    """The same question in up to five word orders; ``blank`` is what follows the verb in the fill-in one."""
    low = ask[0].lower() + ask[1:]
    main = joined(c.verb, rest) if c.kind != "copula" else rest
    found = [
        joined(ask, c.aux, c.subject, main) + "?",
        f"Tell me {joined(low, c.subject, c.said, rest)}.",
        f"{joined(upper_first(c.subject), c.said, rest, low)}?",
    ]
    if keyword:
        verb = "" if c.kind == "copula" else c.said if c.kind == "active" else c.verb.split(" ")[-1]
        found.append(joined(no_article(c.subject), verb, rest, keyword))
    if blank:
        found.append(f"{joined(upper_first(c.subject), c.said, blank)}.")
    return found


def _emit(rule: str, questions: list[str], answer: str) -> Iterator[Candidate]:
    for question in questions:
        yield rule, question, answer


def copula(c: Clause) -> Iterator[Candidate]:
    """ "S is ...": measures, places, colours, definitions, values."""
    measure = _MEASURE.match(c.rest)
    if measure:
        value, adjective = measure.groups()
        noun = ADJECTIVES[adjective]
        yield from _emit("measure", wordings(c, f"How {adjective}", "", noun, f"____ {adjective}"), value)
        yield (
            "measure",
            f"What {'was' if c.aux in {'was', 'were'} else 'is'} the {noun} of {c.subject}?",
            value,
        )
        yield "measure", f"{upper_first(noun)} of {c.subject}", value
        return
    colour = re.match(rf"({COLOUR}(?:(?:,| and|, and) {COLOUR}){{0,3}})$", c.core)
    first = c.chunks[0] if c.chunks else None
    if colour and first and first.kind == "occasion":
        yield from _colour_when(c, colour.group(1), first)
        return
    if colour:
        yield from _emit("colour", wordings(c, "What colour", "", "colour", "____ in colour"), colour.group(1))
        yield "colour", f"Which colour {c.aux} {c.subject}?", colour.group(1)
        return
    if not c.core and first and first.kind == "place":
        yield from where(c, first, "")
        return
    if not c.core and first and first.kind == "time":
        yield from when(c, first, "")
        return
    if first and first.kind in {"time", "occasion"} and re.fullmatch(r"[a-z]+", c.core):
        yield from when(c, first, c.core)
    elif first and first.opening in _TIGHT and re.fullmatch(r"[a-z]+(?<!ly)(?<![a-rt-z]s)", c.core):
        yield from _emit("preposition", wordings(c, "What", f"{c.core} {first.opening}"), first.text)
        yield "preposition", f"{no_article(c.subject)} {c.core} {first.opening}", first.text
        yield "preposition", f"{upper_first(c.subject)} {c.said} {c.core} {first.opening} ____.", first.text
    elif re.match(r"(?:the|an?) ", c.rest):
        yield from _definition(c)
    elif re.match(rf"{APPROXIMATE}{NUMBER}\b|[A-Z\"“]", c.rest):
        yield from _value(c, c.rest)


def _colour_when(c: Clause, colour: str, occasion: Chunk) -> Iterator[Candidate]:
    """ "The lamp is green when the door is open": without its condition the colour would be one of many."""
    asked = wordings(c, "What colour", occasion.whole, "colour", f"____ {occasion.whole}")
    yield from _emit("colour", [asked[0], asked[1], asked[3], asked[4]], colour)
    yield "colour", f"{upper_first(occasion.whole)}, which colour {c.aux} {c.subject}?", colour
    yield from _emit("occasion", wordings(c, "When", colour, "when"), occasion.whole)


def _definition(c: Clause) -> Iterator[Candidate]:
    question = "Who" if PEOPLE & set(c.core.lower().split()) and c.subject[:1].isupper() else "What"
    answer = c.rest
    if _ATTRIBUTE.match(c.subject) and c.rest.startswith("the "):
        yield from _value(c, answer)
        return
    rule = "definition"
    yield rule, f"{question} {c.aux} {c.subject}?", answer
    yield rule, f"Tell me {question.lower()} {c.subject} {c.aux}.", answer
    yield rule, f"{upper_first(c.subject)} {c.aux} {question.lower()}?", answer
    if question == "What":
        yield rule, f"Define {c.subject}.", answer
        yield rule, f"Explain what {c.subject} {c.aux}.", answer
    if c.rest.startswith("the ") and len(c.rest.split()) <= 14:
        yield "definition-reverse", f"{question} {c.aux} {c.rest}?", c.subject
        yield "definition-reverse", f"Name {c.rest}.", c.subject
        yield "definition-reverse", f"____ {c.aux} {c.rest}.", c.subject


def _value(c: Clause, value: str) -> Iterator[Candidate]:
    rule = "value"
    yield from _emit(rule, wordings(c, "What", "", "", "____"), value)
    yield rule, f"{upper_first(no_article(c.subject))}?", value
    attribute = _ATTRIBUTE.match(c.subject)
    if attribute:
        yield rule, f"{attribute.group(2)} {attribute.group(1)}", value
        yield rule, f"Which {attribute.group(1)} does {attribute.group(2)} have?", value


def when(c: Clause, chunk: Chunk, core: str) -> Iterator[Candidate]:
    """Questions for a time."""
    bare_time = chunk.opening in {"in", "on", "at"}
    answer = chunk.text if bare_time else chunk.whole
    year = re.fullmatch(r"(?:1\d{3}|20\d{2})", chunk.text) is not None and chunk.opening == "in"
    ask = "Since when" if chunk.opening == "since" else "Until when" if chunk.opening == "until" else "When"
    blank = joined(core, chunk.opening, "____") if bare_time else ""
    yield from _emit("when", wordings(c, ask, core, "year" if year else "when", blank), answer)
    if year:
        yield from _emit("year", wordings(c, "In which year", core)[:2], answer)
        yield "year", joined("What year", c.aux, c.subject, c.verb, core) + "?", answer
    elif chunk.opening == "at" and re.search(r"\d", chunk.text):
        yield from _emit("when", wordings(c, "At what time", core)[:2], answer)


def where(c: Clause, chunk: Chunk, core: str) -> Iterator[Candidate]:
    """Questions for a place."""
    bare_place = chunk.opening in {"in", "at"}
    answer = chunk.text if bare_place else chunk.whole
    blank = joined(core, chunk.opening, "____") if bare_place else ""
    yield from _emit("where", wordings(c, "Where", core, "where", blank), answer)
    if c.kind != "active":
        yield "where", joined("In what place", c.aux, c.subject, c.verb, core) + "?", answer


def adverbials(c: Clause) -> Iterator[Candidate]:
    """When, where, how often, how long, why and how, for a clause with a full verb."""
    core = c.core
    placed = c.kind == "passive" or not core or c.base in {"keep", "store", "find", "put", "place", "hang", "spend"}
    for index, chunk in enumerate(c.chunks):
        if chunk.kind == "time":
            yield from when(c, chunk, core)
        elif chunk.kind == "place" and placed and not core.endswith("based") and index == 0 and c.base not in _ABSTRACT:
            yield from where(c, chunk, core)
        elif chunk.kind == "occasion" and chunk.opening in {"when", "after", "before"} and index == 0:
            yield from _emit("occasion", wordings(c, "When", core, "when"), chunk.whole)
        elif chunk.kind == "frequency":
            yield from _emit("how-often", wordings(c, "How often", core, "how often"), chunk.text)
            yield "how-often", joined("How frequently", c.aux, c.subject, c.verb, core) + "?", chunk.text
        elif chunk.kind == "duration":
            yield from _emit("how-long", wordings(c, "For how long", core, "duration"), chunk.text)
            yield "how-long", joined("How long", c.aux, c.subject, c.verb, core) + "?", chunk.text
        else:
            yield from _explanations(c, chunk, index)


def _explanations(c: Clause, chunk: Chunk, index: int) -> Iterator[Candidate]:
    # A reason takes the rest of the sentence with it: "because ships pass close to the reef".
    tail = joined(chunk.whole, *(later.whole for later in c.chunks[index + 1 :]))
    if chunk.kind == "reason":
        yield from _emit("why", wordings(c, "Why", c.core, "reason"), tail)
        yield "why", joined("For what reason", c.aux, c.subject, c.verb, c.core) + "?", tail
    elif chunk.kind == "means" and index == 0:
        yield from _emit("how", wordings(c, "How", c.core, "how"), tail)
        yield "how", joined("In what way", c.aux, c.subject, c.verb, c.core) + "?", tail
    elif chunk.opening in {"to", "for"} and c.base == "use" and c.kind == "passive" and index == 0 and not c.core:
        yield from _emit("purpose", wordings(c, "What", "for", "purpose"), tail)
        yield "purpose", f"What is the use of {c.subject}?", tail
    elif chunk.opening == "with" and index == 0 and 0 < len(c.core.split()) <= 5:
        yield from _emit("instrument", wordings(c, "What", f"{c.core} with", "", f"{c.core} with ____"), chunk.text)
        yield "instrument", joined("With what", c.aux, c.subject, c.verb, c.core) + "?", chunk.text
    elif chunk.kind == "purpose" and c.base not in _CONTROL and index == 0:
        yield from _emit("purpose", wordings(c, "Why", c.core, "purpose"), tail)


def passive(c: Clause) -> Iterator[Candidate]:
    """ "S was built by Y", "S is made of M", "S is called N"."""
    agent = next((chunk for chunk in c.chunks if chunk.kind not in {"time", "place", "frequency"}), None)
    if agent and agent.kind == "agent" and len(c.core.split()) <= 3:
        yield from _agent(c, agent)
    if c.base in {"call", "name", "title", "nickname"} and re.match(r"[A-Z\"“']|(?:the|an?) ", c.core):
        yield from _emit("name", wordings(c, "What", "", "name", "____"), c.core)
        yield "name", f"What {c.aux} the name of {c.subject}?", c.core
        yield "name", joined("Which thing", c.aux, c.verb, c.core) + "?", c.subject
    participle = c.verb.split(" ")[-1]
    tight = re.match(r"(of|as) (.{2,80})$", c.core)
    if tight:
        yield from _emit(
            "preposition", wordings(c, "What", tight.group(1), "", f"{tight.group(1)} ____"), tight.group(2)
        )
        yield "preposition", joined(no_article(c.subject), participle, tight.group(1)), tight.group(2)
    elif not c.core and c.chunks and (c.chunks[0].kind == "other" or c.base in _ABSTRACT):
        yield from _after_preposition(c, c.chunks[0], participle)
    colour = re.match(rf"({COLOUR}(?:(?:,| and|, and) {COLOUR}){{0,3}})$", c.core)
    if participle == "painted" and colour:
        yield from _emit("colour", wordings(c, "What colour", "", "colour", "____"), c.core)
        yield "colour", f"What is the colour of {c.subject}?", c.core


def _agent(c: Clause, agent: Chunk) -> Iterator[Candidate]:
    ask = "Who" if is_person(agent.text) else "What"
    participle = c.verb.split(" ")[-1]
    rule = ask.lower()
    yield rule, f"{ask} {c.aux} {c.subject} {c.verb} by?", agent.text
    yield rule, f"By {'whom' if ask == 'Who' else 'what'} {c.aux} {c.subject} {c.verb}?", agent.text
    yield rule, f"Tell me {ask.lower()} {c.subject} {c.said} by.", agent.text
    yield rule, f"{upper_first(c.subject)} {c.said} by ____.", agent.text
    yield rule, f"{no_article(c.subject)} {participle} by", agent.text
    past = past_of(c.base)
    if past and c.verb == participle and c.aux in {"was", "were"}:
        yield rule, f"{ask} {past} {c.subject}?", agent.text
        if not c.core:
            yield "what-passive", f"What did {agent.text} {c.base}?", c.subject
            yield "what-passive", f"Tell me what {agent.text} {past}.", c.subject


def _after_preposition(c: Clause, chunk: Chunk, verb: str) -> Iterator[Candidate]:
    if (
        (c.base == "use" and c.kind == "passive")
        or chunk.opening not in _TIGHT
        or (chunk.text.split(" ")[0].endswith("ing") and chunk.opening != "for")
    ):
        return
    ask = "Who" if is_person(chunk.text) else "Where" if chunk.opening == "from" and c.base in _MOVING else "What"
    questions = wordings(c, ask, chunk.opening, "", f"{chunk.opening} ____")
    yield from _emit("preposition", questions, chunk.text)
    yield "preposition", joined(no_article(c.subject), verb, chunk.opening), chunk.text


def active(c: Clause) -> Iterator[Candidate]:
    """ "S holds 400 litres", "S built X", "S has a red door": the object, the count and the subject."""
    if not c.core:
        # "A task added to the pipeline": with a past form this is more likely no main clause at all.
        if c.chunks and c.chunks[0].kind == "other" and (c.aux != "did" or c.base in _INTRANSITIVE):
            yield from _after_preposition(c, c.chunks[0], c.verb)
        return
    valued = _HAS_VALUE.match(c.core) if c.base == "have" else None
    if valued:
        noun, value = valued.groups()
        yield "value", f"What is the {noun} of {c.subject}?", value
        yield "value", f"What {noun} {c.aux} {c.subject} have?", value
        yield "value", f"{no_article(c.subject)} {noun}", value
        yield "value", f"Tell me the {noun} of {c.subject}.", value
        return
    count = _COUNT.match(c.core)
    if count:
        yield from _count(c, *count.groups())
        return
    first = c.core.split(" ")[0].lower()
    if first in PLACE_PREPOSITIONS | BASE - {"light", "water"} | {
        "that",
        "how",
        "up",
        "down",
        "out",
        "off",
        "of",
        "it",
        "them",
    }:
        return
    if c.base not in {"be", "become", "remain", "seem", "appear", "go", "come", "mean", "get"}:
        yield from _object(c)


def _count(c: Clause, number: str, noun: str) -> Iterator[Candidate]:
    noun = noun.strip()
    yield from _emit("how-many", wordings(c, f"How many {noun}", "", "", f"____ {noun}"), number)
    yield "how-many", joined(no_article(c.subject), "number of", noun), number
    yield "how-many", joined("What number of", noun, c.aux, c.subject, c.verb) + "?", number
    if c.base in _UNITS:
        ask, keyword = _UNITS[c.base]
        value = f"{number} {noun}"
        yield from _emit("how-much", wordings(c, ask, "", "", "____"), value)
        yield "how-much", f"{no_article(c.subject)} {keyword}", value
        yield "how-much", f"What is the {keyword} of {c.subject}?", value


def _object(c: Clause) -> Iterator[Candidate]:
    # A relative clause goes on past its prepositions: "everything that is related to a pipeline".
    answer = c.rest if " that " in c.core else c.core
    if c.chunks and c.chunks[0].opening in {"as", "into"}:  # "defined X as Y": the object alone says little
        return
    ask = "Who" if is_person(answer) else "What"
    yield from _emit("object", wordings(c, ask, "", "", "____")[:4], answer)
    colour = re.fullmatch(rf"(?:an?|the)? ?({COLOUR}(?: and {COLOUR})?) ([a-z]+)", c.core)
    if c.base == "have" and colour:
        noun = colour.group(2)
        yield (
            "colour",
            f"What colour {'are' if plural(noun) else 'is'} the {noun} of {c.subject}?",
            colour.group(1),
        )
        yield "colour", f"What colour {noun} {c.aux} {c.subject} have?", colour.group(1)
        yield "colour", f"{no_article(c.subject)} {noun} colour", colour.group(1)
    # The subject is asked for only when it can be told from others: a name, or something with an article.
    if re.match(r"[A-Z]|the ", c.subject) and len(answer.split()) <= 8 and c.base not in {"have", "include"}:
        who = "Who" if is_person(c.subject) else "What"
        if c.aux != "do":
            yield "subject", f"{who} {c.said} {answer}?", c.subject
            yield "subject", f"Tell me {who.lower()} {c.said} {answer}.", c.subject
            yield "subject", f"____ {c.said} {answer}.", c.subject
            participle = participle_of(c.base)
            if c.aux == "did" and participle and who == "Who":
                yield (
                    "subject",
                    f"By whom {'were' if plural(answer) else 'was'} {answer} {participle}?",
                    c.subject,
                )


def yes_no(c: Clause) -> Iterator[Candidate]:
    """ "Is S white?" for a short complement that no other rule reads."""
    if c.kind == "copula" and c.rest and len(c.rest.split()) <= 5:
        yield "yes-no", f"{upper_first(c.aux)} {c.subject} {c.rest}?", f"Yes, {c.subject} {c.said} {c.rest}"


def clause_candidates(c: Clause) -> Iterator[Candidate]:
    """Every candidate that the rules above read from one clause."""
    readers: dict[str, Callable[[Clause], Iterator[Candidate]]] = {
        "copula": copula,
        "passive": passive,
        "active": active,
    }
    yield from chain(readers[c.kind](c), () if c.kind == "copula" else adverbials(c))
