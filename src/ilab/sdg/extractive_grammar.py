"""Just enough English grammar to take a plain declarative sentence apart.

There is no tagger here. A clause is found by its verb: forms of "be" and "have", modal verbs, and the inflections
of a list of common verbs (`VERBS`, `IRREGULAR`). What stands before the verb is the subject, what follows is cut at
prepositions and connectives into a *core* (the object or complement) and *chunks* (when, where, by whom, why ...).

A sentence that does not fit this shape gives ``None`` rather than a guess: questions, negations, commands,
subordinate clauses in the subject, verbs that are not listed. A missed sentence costs a few examples; a wrongly read
one teaches nonsense. Every pattern is bounded, and only the first words of a sentence are looked at for the verb, so
the time is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Base forms; regular inflections are derived. Words that are mostly nouns (place, time, name) are left out.
VERBS = """accept accompany add affect allow announce appear apply appoint arrange arrive assess assign assist attach
attract automate back bake belong border borrow boil burn call capture carry cause change charge check circulate
claim clean climb close collect combine comprise conclude connect consist construct contain continue contribute
control convert cook cool cost cover create cross cultivate date declare defeat define deliver depend deploy derive
describe design destroy detect determine develop direct discover display distinguish distribute dominate donate
drain earn educate elect employ empty enable encourage end enforce enhance ensure enter equip establish evaluate
examine execute exhibit exist expand explain export express extend extract face feature fill filter finance finish
fire fit follow force form found function fund gather generate govern grant guard guarantee guide handle happen
harvest heat help hoist host house identify illuminate implement import improve include incorporate increase
indicate inherit inhabit inspect inspire install integrate introduce invade invent involve isolate issue join keel
kill label land last launch lift light limit link list live load locate lock locate look lower maintain manage
manufacture mark marry mean-s measure melt mirror mix monitor moor mount move nest note number observe obtain occupy
occur offer open operate order organize organise originate overlook own pack paint patrol pay-s perform pick plant
play populate power praise prefer prepare present preserve press prevent print process produce program prohibit
promote protect prove provide publish pull pump purchase push raise range reach receive recognize recognise record
recover reduce reference refer reflect refuse regulate reinforce relate release remain remember remove rename repair
replace report represent require rescue reside resolve restore restrict result retain retire return reuse review
roll rotate sail save scan schedule score seal secure select separate serve share ship show-s sign signal simplify
smell solve sort span specify sponsor spread-s stage start state stay stock stop store strengthen stretch study
succeed suffer suggest supply support surround survive taste test tie track trade train transfer transform translate
transport trap travel treat trigger turn type update upgrade use validate value verify view visit wait warn wash
watch water weigh welcome work wrap yield hatch migrate feed-s roost perch weave-s tag trim tow tune steer tether
compile parse encode decode render cache fetch resolve invoke schedule migrate configure customize reconfigure"""
# base: past, participle
IRREGULAR = {
    "become": "became become", "begin": "began begun", "blow": "blew blown", "break": "broke broken",
    "bring": "brought brought", "build": "built built", "buy": "bought bought", "catch": "caught caught",
    "choose": "chose chosen", "come": "came come", "dig": "dug dug", "draw": "drew drawn",
    "drive": "drove driven", "eat": "ate eaten", "fall": "fell fallen", "feed": "fed fed",
    "find": "found found", "fly": "flew flown", "freeze": "froze frozen", "get": "got got", "give": "gave given",
    "grind": "ground ground",
    "go": "went gone", "grow": "grew grown", "hang": "hung hung", "hear": "heard heard", "hide": "hid hidden",
    "hold": "held held", "keep": "kept kept", "know": "knew known", "lay": "laid laid", "lead": "led led",
    "leave": "left left", "lend": "lent lent", "lie": "lay lain", "lose": "lost lost", "make": "made made",
    "mean": "meant meant", "meet": "met met", "pay": "paid paid", "put": "put put", "read": "read read",
    "ring": "rang rung", "rise": "rose risen", "run": "ran run", "say": "said said", "see": "saw seen",
    "sell": "sold sold", "send": "sent sent", "set": "set set", "shine": "shone shone", "show": "showed shown",
    "sing": "sang sung", "sink": "sank sunk", "sit": "sat sat", "sleep": "slept slept", "speak": "spoke spoken",
    "spend": "spent spent", "spread": "spread spread", "stand": "stood stood", "steal": "stole stolen",
    "swim": "swam swum", "take": "took taken", "teach": "taught taught", "tell": "told told",
    "throw": "threw thrown", "weave": "wove woven", "wear": "wore worn", "win": "won won", "wind": "wound wound",
    "write": "wrote written",
}  # fmt: skip
DOUBLED = frozenset("stop ship wrap scan trap plan ban fit trim tag transfer refer prefer program occur".split())
BE = frozenset("is are was were".split())
MODALS = frozenset("can may must will should could might would".split())
DETERMINERS = frozenset("the a an this that these those its their his her our your my each every some any no".split())
PRONOUNS = frozenset(
    "it he she they we you i one this that these those there who which what all both some many most others".split()
)
VAGUE = PRONOUNS | frozenset(
    "its their his her our your my another other such each every any no several few more much either neither none"
    " here everything something anyone someone nothing not only also then even first second finally".split()
)
NOT_IN_SUBJECT = frozenset(
    "that which who whom whose where when if because while you we i your our us although unless as than how why"
    " it they he she not then so but".split()
)
ADVERBS = frozenset("also now still often usually always sometimes then currently generally today first once".split())
NEGATION = re.compile(r"\b(?:not|never|no longer|cannot|hardly|neither|nor)\b|n['’]t\b", re.IGNORECASE)
NUMBER_WORDS = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen"
    " nineteen twenty thirty forty fifty sixty seventy eighty ninety"
).split()
NUMBER = (
    r"(?:\d{1,12}(?:[.,:]\d{1,12}){0,4}(?:[–-]\d{1,12}(?:[.,]\d{1,12})?)?(?: (?:hundred|thousand|million|billion))?"
    rf"|(?:{'|'.join(NUMBER_WORDS)})(?:-\w{{3,5}})?(?: (?:hundred|thousand|million|dozen))?|(?:one|a) (?:hundred|dozen))"
)
APPROXIMATE = r"(?:(?:about|nearly|almost|around|over|roughly|up to|exactly|at least|at most|more than|only) )?"
MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
DAY = "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)s?"
TIME = re.compile(
    rf"\b(?:1\d{{3}}|20\d{{2}})s?\b|\b{MONTH}\b|\b{DAY}\b|\b\d{{1,2}}[:.]\d\d\b|\b\d{{1,2}} ?(?:am|pm|o'clock)\b"
    r"|\b(?:noon|midnight|dawn|dusk|sunrise|sunset|spring|summer|autumn|winter|nightfall|night|daybreak)\b"
    r"|\b(?:mornings?|evenings?|afternoons?|weekends?|centur(?:y|ies))\b"
)
UNIT_OF_TIME = r"(?:seconds?|minutes?|hours?|days?|nights?|weeks?|months?|years?|decades?|centuries)"
FREQUENCY = re.compile(
    rf"(?:every|each) (?:{NUMBER} |other |second |third )?(?:{UNIT_OF_TIME}|morning|evening|spring|summer|autumn"
    rf"|winter|{DAY}|{MONTH})|(?:once|twice|{NUMBER} times) (?:a|an|per|each|every) (?:{NUMBER} )?\w+"
    r"|(?:hourly|daily|weekly|monthly|yearly|annually)\b"
)
_BOUNDARY = re.compile(
    rf"(?:^|(?<=\s))(?:from \S.{{0,30}}? (?:to|until) (?=\S)|between \S.{{0,30}}? and (?=\S)|{FREQUENCY.pattern}"
    r"|(?:in order to|so that|because of|because|due to|in|on|at|by|from|since|until|during|before|after|near|inside"
    r"|outside|beside|behind|under|above|below|beneath|opposite|along|across|between|throughout|within|around"
    r"|through|into|to|for|with|using|via|when|once|as|against|over|onto)(?=\s))"
)
_CLAUSE_END = re.compile(
    r"[;—]| – |: |,? (?:but|which|who|whose|while|although|though|so(?! that)|whereas|where|if|unless|then)\b"
    r"|, (?:\w{2,14}ing|it|they|he|she|and (?:it|they|he|she|the|this|these|that|is|are|was|were)|making|with"
    r"|including|and then)\b|\. "
)
_AND = re.compile(r",? (?:and|or) (\w{2,20})")
_LEAD = re.compile(r"([A-Z]\w{1,12}(?: [^,.;:]{1,60})?), (?=\w)")
_SKIP_LEAD = frozenset("currently today however therefore also originally traditionally locally".split())
PLACE_PREPOSITIONS = frozenset(
    "in on at near inside outside beside behind under above below beneath opposite along across between throughout"
    " within around".split()
)
_CLOSING = " ,.;:!?"
_SPLIT = re.compile(r"(?:;|, and|, but|, while|, whereas) (?=(?:the|it|they|he|she|an?|its|their) )")
_TIME_PREPOSITIONS = frozenset("in on at since until during before after by from between around".split())
_CLAUSE_PREPOSITIONS = frozenset("when once after before".split())


@dataclass(frozen=True, slots=True)
class Chunk:
    """One part after the verb: what it tells (`kind`), the word it starts with, and the text without that word."""

    kind: str
    opening: str
    text: str

    @property
    def whole(self) -> str:
        """The chunk as it stands in the sentence."""
        return f"{self.opening} {self.text}".strip()


@dataclass(frozen=True, slots=True)
class Clause:
    """One main clause. ``said`` is the verb group as written; ``aux`` and ``verb`` are its halves in a question."""

    subject: str
    aux: str
    verb: str
    said: str
    kind: str  # "copula", "passive" or "active"
    base: str  # the main verb's base form
    rest: str
    core: str
    chunks: tuple[Chunk, ...]


def _inflections() -> tuple[dict[str, str], dict[str, str], dict[str, str], frozenset[str]]:
    """Third-person forms, pasts and participles (each: form -> base), and the base forms."""
    third: dict[str, str] = {}
    past: dict[str, str] = {}
    participle: dict[str, str] = {}
    regular = [word for word in VERBS.split() if not word.endswith("-s")]
    for base in [*regular, *IRREGULAR]:
        ending_y = base.endswith("y") and base[-2] not in "aeou"
        sibilant = base.endswith(("s", "sh", "ch", "x", "z", "o"))
        third[base[:-1] + "ies" if ending_y else base + ("es" if sibilant else "s")] = base
        if base in IRREGULAR:
            continue
        stem = base + base[-1] if base in DOUBLED else base[:-1] + "i" if ending_y else base
        past[stem + ("d" if base.endswith("e") else "ed")] = base
    participle.update(past)
    for base, forms in IRREGULAR.items():
        first, second = forms.split()
        past[first], participle[second] = base, base
    return third, past, participle, frozenset([*regular, *IRREGULAR])


THIRD, PAST, PARTICIPLE, BASE = _inflections()
FINITE = BE | MODALS | frozenset(["has", "have", "had"])


def past_of(base: str) -> str | None:
    """The past tense of a listed verb: "build" -> "built"."""
    if base in IRREGULAR:
        return IRREGULAR[base].split()[0]
    return next((form for form in _regular_pasts(base) if PAST.get(form) == base), None)


def participle_of(base: str) -> str | None:
    """The past participle of a listed verb: "write" -> "written"."""
    return IRREGULAR[base].split()[1] if base in IRREGULAR else past_of(base)


def _regular_pasts(base: str) -> Iterator[str]:
    yield from (base + "ed", base + "d", base[:-1] + "ied", base + base[-1:] + "ed")


def bare(word: str) -> str:
    """A token in lower case without the punctuation around it."""
    return word.strip(".,;:!?()[]\"'“”‘’").lower()


def plural(word: str) -> bool:
    """Whether a noun looks plural."""
    low = bare(word)
    return (low.endswith("s") and not low.endswith(("ss", "us", "is"))) or low in {"people", "men", "women", "children"}


def find_verb(words: list[str]) -> int | None:
    """The index of the first finite verb among the first ten words, or None when there is none to be sure of."""
    low = [bare(word) for word in words[:18]]
    for i in range(1, min(len(low), 11)):
        if low[i - 1] in NOT_IN_SUBJECT or words[i - 1].endswith((",", ";", ":")):
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
    if word != words[i].lower() or before.endswith(("'s", "’s", "s'", "s’")):  # a possessive, or "releases," in a list
        return False
    if before in DETERMINERS or before in PLACE_PREPOSITIONS or before in {"of", "to", "for", "and", "or", "by"}:
        return False
    if following in FINITE or following == "of" and word in BASE | set(THIRD) - {"consists", "consist"}:
        return False
    subject_plural = (plural(words[i - 1]) and not words[i - 1].endswith(("'s", "’s"))) or "and" in low[:i]
    if word in THIRD and following not in THIRD:
        return not subject_plural or words[i - 1][:1].isupper()
    if unlisted_base(word, following) and not subject_plural:
        return True
    # "The images signed by X are ..." : a finite verb soon after means that this one is a participle.
    later_finite = any(w in FINITE for w in low[i + 1 : i + 7]) and not {"that", "which", "and"} & set(low[i + 1 : i + 7])
    if word in PAST and word not in BASE:
        return not later_finite and following != "by"
    return word in BASE and subject_plural and not later_finite


def unlisted_base(word: str, following: str) -> str | None:
    """The base of a verb that is not listed, known by its ending and the article or number after it."""
    if not re.fullmatch(r"[a-z]{2,16}[^s\W]s", word) or not (following in {"the", "a", "an"} or following[:1].isdigit()):
        return None
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("shes", "ches", "sses", "xes", "zes", "oes")) else word[:-1]


def _verb_group(words: list[str], i: int) -> tuple[str, str, str, str, int] | None:
    """(kind, aux, verb in a question, base, index after the group) for the verb at ``i``."""
    low = [bare(word) for word in words]

    def skip(j: int) -> int:
        while j < len(low) and (low[j] in ADVERBS or (low[j].endswith("ly") and low[j] != "only")):
            j += 1
        return j

    def participle(j: int) -> bool:
        return j < len(low) and (low[j] in PARTICIPLE or (low[j].endswith("ed") and len(low[j]) > 4))

    aux, j = low[i], skip(i + 1)
    if aux in BE:
        if participle(j) and not words[j].endswith("-"):
            return "passive", aux, low[j], PARTICIPLE.get(low[j], low[j]), j + 1
        return "copula", aux, "", "be", i + 1
    if aux in {"has", "have", "had"}:
        if j < len(low) and low[j] == "been" and participle(skip(j + 1)):
            k = skip(j + 1)
            return "passive", aux, f"been {low[k]}", PARTICIPLE.get(low[k], low[k]), k + 1
        if j < len(low) and low[j] in PARTICIPLE and j + 1 < len(low):
            return "active", aux, low[j], PARTICIPLE[low[j]], j + 1
        if j < len(low) and low[j].endswith("ed"):  # a perfect of a verb that is not listed
            return None
        does = {"has": "does", "have": "do", "had": "did"}[aux]
        return None if j < len(low) and low[j] in {"been", "to"} else ("active", does, "have", "have", i + 1)
    if aux in MODALS:
        if j < len(low) and low[j] == "be":
            k = skip(j + 1)
            if participle(k):
                return "passive", aux, f"be {low[k]}", PARTICIPLE.get(low[k], low[k]), k + 1
            return None
        return ("active", aux, low[j], low[j], j + 1) if j < len(low) and low[j] in BASE else None
    if aux in THIRD:
        return "active", "does", THIRD[aux], THIRD[aux], i + 1
    if aux in BASE:
        return "active", "do", aux, aux, i + 1
    if aux in PAST:
        return "active", "did", PAST[aux], PAST[aux], i + 1
    base = unlisted_base(aux, low[i + 1] if i + 1 < len(low) else "") or aux
    return "active", "does", base, base, i + 1


def clip(rest: str) -> tuple[str, str]:
    """``rest`` up to the end of its clause, and a second predicate ("opens at nine") that "and" joins to it."""
    rest = " " + rest
    end = _CLAUSE_END.search(rest)
    rest = rest[: end.start()] if end else rest
    for joint in _AND.finditer(rest):
        word = joint.group(1)
        if word in FINITE or word in THIRD or word in PAST:
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
    if opening == "because":
        return Chunk("reason", opening, text)
    if opening == "to" and text.split(" ")[0] in BASE | {"be", "have"}:
        return Chunk("purpose", opening, text)
    if opening == "for" and re.match(rf"{APPROXIMATE}(?:{NUMBER}|a|many) (?:more )?{UNIT_OF_TIME}\b", text):
        return Chunk("duration", opening, text)
    # Longer or quoted, it is rather a thing with a date in it: "in Swift's 2009 song".
    if TIME.search(text) and opening in _TIME_PREPOSITIONS and re.fullmatch(r"[^\"“'’]{1,20}(?: [^\"“'’ ]{1,20}){0,4}", text):
        return Chunk("time", opening, text)
    if opening in _CLAUSE_PREPOSITIONS and len(text.split()) >= 2:
        return Chunk("occasion", opening, text)
    if opening == "using" or (opening == "by" and text.split(" ")[0].endswith("ing")):
        return Chunk("means", opening, text)
    if opening == "by":
        return Chunk("agent", opening, text)
    return Chunk("place" if opening in PLACE_PREPOSITIONS else "other", opening, text)


def strip_lead(sentence: str) -> tuple[str, Chunk | None] | None:
    """The sentence without an opening adverbial, and that adverbial; None when the opening is a condition."""
    lead = _LEAD.match(sentence)
    if not lead:
        return sentence, None
    words = lead.group(1)
    rest = sentence[lead.end() :]
    chunk = classify(words[0].lower() + words[1:])
    if chunk.kind in {"time", "frequency"}:
        return rest, chunk
    if words.lower() in _SKIP_LEAD:
        return rest, None
    return None


def parse(sentence: str) -> list[Clause]:
    """The main clauses of a plain sentence (no Markdown), subjects as written; empty when it is not understood."""
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
    """One clause for each of at most three predicates of one subject: "X was built in 1890 and has three rooms"."""
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
