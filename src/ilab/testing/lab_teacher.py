"""Answers the prompts of the flows ``full``, ``llama`` and ``eval`` by rule, alike for equal requests.

    with serve(script=answer_lab_prompts) as teacher: ...

What is asked for is read from the tags after the prompt's last word "form", and all else from the material between
tags. Some of what it writes is wrong on purpose, chosen by the request's seed (by the prompt where none is sent), and
as a judge it finds exactly that: so a test sees every judge refuse something.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ilab.data import digest_text
from ilab.sdg.text import normal, words

UNTRUE = "All of it is kept on the moon."  # no passage says so
UNCLEAR = "What does the passage say here, draft {}?"  # not clear without the document
BESIDE = "Why do people enjoy holidays by the sea, case {}?"  # fits no passage
ANSWERED = "What is known of"  # the passage answers questions that begin so
UNFIT = "Tell me something, case {}."  # no task for any skill
REFUSAL = "I would rather not do that."
MISSPELT = {"teh": "the", "recieve": "receive"}  # what it mends
TAGS = re.compile(r"\[([A-Z_0-9]+)\]\s*(.*?)\s*\[/\1\]", re.DOTALL)


def answer_lab_prompts(body: Mapping[str, Any]) -> str:
    """The answer to a chat completion request. An unknown prompt gets an answer without tags."""
    prompt = body["messages"][-1]["content"]
    material, _, form = prompt.rpartition("form")
    wanted = tuple(tag for tag, _ in TAGS.findall(form))
    given = TAGS.findall(material)
    chance = int(body.get("seed") or int(digest_text(prompt)[:8], 16))
    rule = RULES.get(wanted)
    if rule is None:
        return "I have nothing to say about it."
    said = rule(dict(given), dict(reversed(given)), chance, material)
    return "\n".join(f"[{tag}]\n{value}\n[/{tag}]" for tag, value in zip(wanted, said, strict=True))


# A rule gets the last and the first text of each tag, a number to choose by, and the prompt; it returns the values.
Given = Mapping[str, str]
Rule = Callable[[Given, Given, int, str], tuple[str, ...]]


def _sentences(passage: str) -> list[str]:
    """Whole sentences of running text: no headings, no rows of tables."""
    found = [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", re.sub(r"(?m)^\d+\. ", "", passage))]
    return [part for part in found if len(part.split()) > 5 and part[0] not in "#|"] or [passage]


def _inside(text: str, passage: str) -> bool:
    return f" {normal(text)} " in f" {normal(passage)} "


def _pair(last: Given, first: Given, chance: int, prompt: str) -> tuple[str, ...]:
    """A question about a sentence, which is the answer; or a skill's example, varied and done."""
    if "PASSAGE" not in last:
        task = UNFIT.format(chance) if chance % 7 == 0 else f"{first['QUESTION']} {chance % 1_000_003}"
        return task, REFUSAL if chance % 7 == 1 else f"Done: {task}"
    sentence = _sentences(last["PASSAGE"])[chance % len(_sentences(last["PASSAGE"]))]
    about = " ".join(sentence.split()[:5]).strip(".")
    match chance // 64 % 8:
        case 0:
            return f"Where is {about} kept, draft {chance}?", UNTRUE
        case 1:
            return UNCLEAR.format(chance), sentence
        case 2:
            return BESIDE.format(chance), sentence
    return f"{ANSWERED} {about}, version {chance % 4}?", sentence


def _triple(last: Given, first: Given, chance: int, prompt: str) -> tuple[str, ...]:
    return f"{first['CONTEXT']} It is number {chance}.", *_pair({}, first, chance, prompt)


def _question(last: Given, first: Given, chance: int, prompt: str) -> tuple[str, ...]:
    """A question that the passage leaves open, or a task like the example's."""
    if "PASSAGE" not in last:
        return (UNFIT.format(chance) if chance % 5 == 0 else f"{first['QUESTION']} {chance % 1_000_003}",)
    sentence = _sentences(last["PASSAGE"])[chance % len(_sentences(last["PASSAGE"]))]
    about = " ".join(sentence.split()[:5]).strip(".")
    match chance // 64 % 4:
        case 0:
            return (f"{ANSWERED} {about}, version {chance}?",)
        case 1:
            return (BESIDE.format(chance),)
    return (f"Who sang of {about} in {1000 + chance % 1000}?",)


def _response(last: Given, first: Given, chance: int, prompt: str) -> tuple[str, ...]:
    return (REFUSAL if chance % 5 == 0 else f"Done: {last['QUESTION']}",)


def _context(last: Given, first: Given, chance: int, prompt: str) -> tuple[str, ...]:
    return (f"{first['CONTEXT']} It is number {chance}.",)


def _corrected(last: Given, first: Given, chance: int, prompt: str) -> tuple[str, ...]:
    return (re.sub(r"\w+", lambda word: MISSPELT.get(word.group(), word.group()), last["PASSAGE"]),)


def _retold(last: Given, first: Given, chance: int, prompt: str) -> tuple[str, ...]:
    """The first sentences; now and then with one that is not true."""
    told = _sentences(last["PASSAGE"])[:3]
    return (" ".join([*told, UNTRUE] if chance % 3 == 0 else told),)


def _facts(last: Given, first: Given, chance: int, prompt: str) -> tuple[str, ...]:
    return ("\n".join(f"{n}. {sentence}" for n, sentence in enumerate(_sentences(last["PASSAGE"]), 1)),)


def _item(last: Given, first: Given, chance: int, prompt: str) -> tuple[str, ...]:
    """How a sentence goes on; now and then with a right answer that is wrong, or two that are right."""
    sentence = _sentences(last["PASSAGE"])[chance % len(_sentences(last["PASSAGE"]))].split()
    about, rest = " ".join(sentence[:4]), " ".join(sentence[4:]).strip(".")
    wrong = [f"{chance % 89 + n} {thing}" for n, thing in enumerate(("silver moons", "glass boats", "paper hats"))]
    question = UNCLEAR.format(chance) if chance // 64 % 8 == 0 else f"How does it go on: {about}, version {chance % 9}?"
    match chance // 64 % 8:
        case 1:
            rest = "a thing that nobody has seen"
        case 2:
            wrong[1] = " ".join(sentence[:5])
    return question, rest, *wrong


def _choice(last: Given, first: Given, chance: int, prompt: str) -> tuple[str, ...]:
    options = re.findall(r"(?m)^([A-D])\. (.*)$", last["EXAM"])
    right = [letter for letter, option in options if _inside(option, last["PASSAGE"])]
    return f"the passage has {right}", right[0] if len(right) == 1 else "SEVERAL" if right else "NONE"


def _score(last: Given, first: Given, chance: int, prompt: str) -> tuple[str, ...]:
    """1 and why, for what is wrong, else 3."""
    why = _complaint(last, prompt)
    return why or "nothing is wrong", "1" if why else "3"


def _complaint(last: Given, prompt: str) -> str:
    if "TEXT" in last:
        text = re.sub(r"(?m)^\d+\. ", "", last["TEXT"])
        mended = {*words(last["PASSAGE"]), *MISSPELT.values()}
        return "" if set(words(text)) <= mended else "the passage does not say all of that"
    if "PASSAGE" not in last:
        good = last["ANSWER"].startswith("Done:") and not _starts(last["QUESTION"], UNFIT)
        return "" if good else "the task is not done"
    if _starts(last["QUESTION"], BESIDE) and "supports an answer" not in prompt:
        return "it is about holidays"
    if "ANSWER" in last and not _inside(last["ANSWER"], last["PASSAGE"]):
        return "the passage does not say that"
    return ""


def _verdict(last: Given, first: Given, chance: int, prompt: str) -> tuple[str, ...]:
    """YES or NO, or a word of the prompt's own."""
    question = last["QUESTION"]
    if "PASSAGE" in last:
        answered = question.startswith(ANSWERED)
        if "UNRELATED" in prompt:
            return "looked", "ANSWERED" if answered else "UNRELATED" if _starts(question, BESIDE) else "OPEN"
        return ("it is the first fact", "YES") if answered else ("it is not there", "NO")
    if _starts(question, UNCLEAR):
        return "it speaks of a passage", "NO"
    return ("it is no task", "NO") if _starts(question, UNFIT) else ("it is clear", "YES")


def _starts(text: str, template: str) -> bool:
    return text.startswith(template.partition("{}")[0])


RULES: dict[tuple[str, ...], Rule] = {
    ("QUESTION", "ANSWER"): _pair,
    ("CONTEXT", "QUESTION", "ANSWER"): _triple,
    ("QUESTION",): _question,
    ("ANSWER",): _response,
    ("CONTEXT",): _context,
    ("CORRECTED",): _corrected,
    ("SUMMARY",): _retold,
    ("DETAILED",): _retold,
    ("EXTRACT",): _retold,
    ("FACTS",): _facts,
    ("QUESTION", "RIGHT", "WRONG_1", "WRONG_2", "WRONG_3"): _item,
    ("WHY", "CHOICE"): _choice,
    ("WHY", "SCORE"): _score,
    ("WHY", "VERDICT"): _verdict,
}
