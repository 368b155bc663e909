"""The words that the extractive rules know, and what their forms tell.

A list of common verbs with their inflections, closed classes (determiners, pronouns, prepositions), numbers,
times, colours and people. Reading text without a tagger stands on these lists: a verb that is missing costs
the sentences it stands in, so a new verb goes into `VERBS`, or into `IRREGULAR` with its past and
participle.
"""

from __future__ import annotations

import re
from collections.abc import Iterator


def word_set(words: str) -> frozenset[str]:
    """The words of a text, to write a set of words without quotes."""
    return frozenset(words.split())


# Base forms; regular inflections are derived. Words that are mostly nouns (place, time, name) are left out.
VERBS = """
accept accompany add affect allow announce appear apply appoint arrange arrive assess assign assist attach
attract automate back bake belong border borrow boil burn call capture carry cause change charge check
circulate claim clean climb close collect combine comprise conclude connect consist construct contain
continue contribute control convert cook cool cost cover create cross cultivate date declare defeat define
deliver depend deploy derive describe design destroy detect determine develop direct discover display
distinguish distribute dominate donate drain earn educate elect employ empty enable encourage end enforce
enhance ensure enter equip establish evaluate examine execute exhibit exist expand explain export express
extend extract face feature fill filter finance finish fire fit follow force form found function fund
gather generate govern grant guard guarantee guide handle happen harvest heat help hoist host house
identify illuminate implement import improve include incorporate increase indicate inherit inhabit inspect
inspire install integrate introduce invade invent involve isolate issue join keel kill label land last
launch lift light limit link list live load locate lock locate look lower maintain manage manufacture mark
marry mean measure melt mirror mix monitor moor mount move nest note number observe obtain occupy occur
offer open operate order organize organise originate overlook own pack paint patrol pay perform pick plant
play populate power praise prefer prepare present preserve press prevent print process produce program
prohibit promote protect prove provide publish pull pump purchase push raise range reach receive recognize
recognise record recover reduce reference refer reflect refuse regulate reinforce relate release remain
remember remove rename repair replace report represent require rescue reside resolve restore restrict
result retain retire return reuse review roll rotate sail save scan schedule score seal secure select
separate serve share ship show sign signal simplify smell solve sort span specify sponsor spread stage
start state stay stock stop store strengthen stretch study succeed suffer suggest supply support surround
survive taste test tie track trade train transfer transform translate transport trap travel treat trigger
turn type update upgrade use validate value verify view visit wait warn wash watch water weigh welcome
work wrap yield hatch migrate feed roost perch weave tag trim tow tune steer tether compile parse encode
decode render cache fetch invoke configure customize reconfigure file gain adopt dub attain award
calculate commission compose conduct count dedicate demolish excavate exceed evolve flow hunt incubate
invite love mate mine pass peak pour prey rebuild reopen revise rule sculpt settle sew surface thrive
unveil vary smoke salt ferry row knit brew polish grease rotate forge deposit hatch shelter stem flash
burn
"""
# base: past, participle
IRREGULAR = {
    "become": "became become", "begin": "began begun", "blow": "blew blown", "break": "broke broken",
    "bring": "brought brought", "build": "built built", "buy": "bought bought", "catch": "caught caught",
    "choose": "chose chosen", "come": "came come", "dig": "dug dug", "draw": "drew drawn",
    "drive": "drove driven", "eat": "ate eaten", "fall": "fell fallen", "feed": "fed fed",
    "find": "found found", "fly": "flew flown", "freeze": "froze frozen",
    "get": "got got", "give": "gave given",
    "grind": "ground ground",
    "go": "went gone", "grow": "grew grown", "hang": "hung hung", "hear": "heard heard", "hide": "hid hidden",
    "hold": "held held", "keep": "kept kept", "know": "knew known", "lay": "laid laid", "lead": "led led",
    "leave": "left left", "lend": "lent lent", "lie": "lay lain", "lose": "lost lost", "make": "made made",
    "mean": "meant meant", "meet": "met met", "pay": "paid paid", "put": "put put", "read": "read read",
    "ring": "rang rung", "rise": "rose risen", "run": "ran run", "say": "said said", "see": "saw seen",
    "sell": "sold sold", "send": "sent sent", "set": "set set", "shine": "shone shone",
    "show": "showed shown",
    "sing": "sang sung", "sink": "sank sunk", "sit": "sat sat", "sleep": "slept slept",
    "speak": "spoke spoken",
    "spend": "spent spent", "spread": "spread spread", "stand": "stood stood", "steal": "stole stolen",
    "swim": "swam swum", "take": "took taken", "teach": "taught taught", "tell": "told told",
    "throw": "threw thrown", "weave": "wove woven", "wear": "wore worn",
    "win": "won won", "wind": "wound wound",
    "write": "wrote written",
}  # fmt: skip
DOUBLED = word_set(
    """
    stop ship wrap scan trap plan ban fit trim tag transfer refer prefer program occur
    """
)
BE = word_set("is are was were")
MODALS = word_set("can may must will should could might would")
DETERMINERS = word_set(
    """
    the a an this that these those its their his her our your my each every some any no
    """
)
PRONOUNS = word_set(
    """
    it he she they we you i one this that these those there who which what all both some many most
    others
    """
)
VAGUE = PRONOUNS | word_set(
    """
    its their his her our your my another other such each every any no several few more much either
    neither none here everything something anyone someone nothing not only also then even first second
    finally
    """
)
NOT_IN_SUBJECT = word_set(
    """
    that which who whom whose where when if because while you we i your our us although unless as than
    how why it they he she not then so but
    """
)
ADVERBS = word_set(
    """
    also now still often usually always sometimes then currently generally today first once
    """
)
PLACE_PREPOSITIONS = word_set(
    """
    in on at near inside outside beside behind under above below beneath opposite along across between
    throughout within around
    """
)
NEGATION = re.compile(r"\b(?:not|never|no longer|cannot|hardly|neither|nor)\b|n['’]t\b", re.IGNORECASE)
NUMBER_WORDS = sorted(
    word_set(
        "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
        " seventeen eighteen"
        " nineteen twenty thirty forty fifty sixty seventy eighty ninety"
    )
)
NUMBER = (
    r"(?:\d{1,12}(?:[.,:]\d{1,12}){0,4}(?:[–-]\d{1,12}(?:[.,]\d{1,12})?)?"
    r"(?: (?:hundred|thousand|million|billion))?"
    rf"|(?:{'|'.join(NUMBER_WORDS)})(?:-\w{{3,5}})?"
    r"(?: (?:hundred|thousand|million|dozen))?|(?:one|a) (?:hundred|dozen))"
)
APPROXIMATE = r"(?:(?:about|nearly|almost|around|over|roughly|up to|exactly|at least|at most|more than|only) )?"
MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
DAY = "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)s?"
TIME = re.compile(
    rf"\b(?:1\d{{3}}|20\d{{2}})s?\b|\b{MONTH}\b|\b{DAY}\b"
    r"|\b\d{1,2}[:.]\d\d\b|\b\d{1,2} ?(?:am|pm|o'clock)\b"
    r"|\b(?:noon|midnight|dawn|dusk|sunrise|sunset|spring|summer|autumn|winter|nightfall|night|daybreak)\b"
    r"|\b(?:mornings?|evenings?|afternoons?|weekends?|centur(?:y|ies))\b"
)
UNIT_OF_TIME = r"(?:seconds?|minutes?|hours?|days?|nights?|weeks?|months?|years?|decades?|centuries)"
FREQUENCY = re.compile(
    rf"(?:every|each) (?:{NUMBER} |other |second |third )?(?:{UNIT_OF_TIME}"
    rf"|morning|evening|spring|summer|autumn|winter|{DAY}|{MONTH})"
    rf"|every {NUMBER} [a-z]+"
    rf"|(?:once|twice|{NUMBER} times) (?:a|an|per|each|every) (?:{NUMBER} )?\w+"
    r"|(?:hourly|daily|weekly|monthly|yearly|annually)\b"
)
COLOURS = sorted(
    word_set(
        "black white red green blue yellow orange brown grey gray pink purple golden silver cream buff"
        " scarlet crimson"
        " turquoise violet ochre beige"
    )
)
COLOUR = rf"(?:(?:dark|light|pale|bright|slate|greenish|deep) )?(?:{'|'.join(COLOURS)})"
PEOPLE = word_set(
    """
    keeper engineer architect captain author writer painter artist founder director manager doctor nurse
    teacher farmer baker fisherman merchant mason carpenter king queen emperor mayor scientist biologist
    chemist physicist astronomer explorer singer actor actress composer poet priest bishop soldier
    officer president minister lawyer journalist editor player coach designer developer inventor
    volunteer volunteers keepers engineers crew team sailors students family brothers sisters council
    committee woman man women men people
    """
)
NOT_A_SURNAME = word_set(
    """
    station service services pipeline pipelines company society university museum council ministry
    harbour harbor island point bay river lake house tower bridge works mill school church college
    street road railway line group contract platform system framework times star post america states
    kingdom club trust board office department lighthouse windmill mill mills tram ferry observatory
    theatre theater hotel park garden gardens mountain valley sea ocean act war award
    """
)


def _inflections() -> tuple[dict[str, str], dict[str, str], dict[str, str], frozenset[str]]:
    """Third-person forms, pasts and participles (each: form -> base), and the base forms."""
    third: dict[str, str] = {}
    past: dict[str, str] = {}
    participle: dict[str, str] = {}
    regular = [word for word in VERBS.split() if word not in IRREGULAR]
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
    return (low.endswith("s") and not low.endswith(("ss", "us", "is"))) or low in {
        "people",
        "men",
        "women",
        "children",
    }


def is_person(phrase: str) -> bool:
    """Whether the phrase names a person or people, as far as its form shows."""
    words = phrase.split()
    if not words:
        return False
    last = words[-1].strip(".,").lower()
    if last in PEOPLE:
        return True
    names = [w for w in words if w[:1].isupper() and w.isalpha() and not w.isupper()]
    return 2 <= len(words) == len(names) <= 3 and last not in NOT_A_SURNAME and not plural(words[-1])


def upper_first(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def no_article(text: str) -> str:
    """The text without an article in front, for keyword queries."""
    return re.sub(r"^(?:the|an?) ", "", text, flags=re.IGNORECASE)


def joined(*parts: str) -> str:
    """The non-empty parts with single spaces between."""
    return " ".join(part for part in parts if part)
