"""Where each message stands in the text that a chat template makes of a conversation.

What a template writes for a message is found by rendering the conversation up to it: a template that only grows gives a
prefix of the whole. What a person wrote is found by rendering once more with every text replaced by a private-use
sentinel and aligning the two. Both are exact or nothing: a template that rewrites texts has no spans for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ilab.errors import InputError
from ilab.models.chat_template import ChatTemplate

SENTINEL = 0xF0000  # first character of Unicode's private plane 15
_SENTINELS = re.compile("([\U000f0000-\U000ffffd])")
TEXTS = ("content", "reasoning_content")  # fields that hold a person's or a model's text
FIELDS = ("role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name")

Span = tuple[int, int]  # character offsets in a rendering, end excluded
Turn = dict[str, Any]  # one message: FIELDS, of which role and content are always text


@dataclass(frozen=True)
class Rendering:
    """A rendered conversation. ``prompts`` and ``ends`` lack the messages where the template is no prefix of itself."""

    text: str
    contents: Mapping[int, Span]  # message index -> its content; without the messages that the template rewrites
    written: frozenset[Span]  # all texts of messages, contents included
    prompts: Mapping[int, int]  # index of an assistant message -> end of its generation prompt
    ends: Mapping[int, int]  # index of a message -> end of all that the template writes for it


@dataclass(frozen=True)
class Dialogue:
    """The turns of one conversation with the tools it may call, and the template that writes it."""

    template: ChatTemplate
    turns: Sequence[Turn]
    tools: Sequence[Mapping[str, Any]] | None = None

    def render(self, count: int, add_generation_prompt: bool) -> str:
        """The text of the first ``count`` messages."""
        return self.template.render(self.turns[:count], add_generation_prompt, self.tools)


def locate(
    dialogue: Dialogue, special: Collection[str], required: Collection[int], add_generation_prompt: bool
) -> Rendering:
    """Render, and find every message. ``special`` are the texts of the tokenizer's special tokens.

    ``required`` are the messages whose beginning and end must be known. Raises ``InputError`` where they are not: the
    template changes earlier text as the conversation goes on, or drops a message.
    """
    _check_structures(dialogue, special)
    turns = dialogue.turns
    text = dialogue.render(len(turns), add_generation_prompt)
    prompts: dict[int, int] = {}
    ends: dict[int, int] = {}
    for index, turn in enumerate(turns):
        whole = index + 1 == len(turns) and not add_generation_prompt
        end = len(text) if whole else _prefix(dialogue, text, index + 1, False, index in required)
        if end is not None:
            ends[index] = end
        if turn["role"] == "assistant":
            # Nothing comes before a first message: its loss begins with its content.
            start = _prefix(dialogue, text, index, True, index in required) if index else 0
            if start is not None:
                prompts[index] = start
    contents, written = _align(dialogue, special, text, add_generation_prompt)
    if 0 in prompts:
        prompts[0] = contents[0][0] if 0 in contents else 0
    return Rendering(text, contents, written, prompts, ends)


def _prefix(dialogue: Dialogue, text: str, count: int, prompt: bool, required: bool) -> int | None:
    """How much of ``text`` the first ``count`` messages are; None where they are no prefix and need not be."""
    shorter = dialogue.render(count, prompt)
    if text.startswith(shorter):
        return len(shorter)
    if not required:
        return None
    raise InputError(
        f"the chat template changes earlier text as the conversation goes on (at message {count}), "
        "so training would not match what the model is asked later",
        where=dialogue.template.where,
        hint="train on the last turn alone (-p train_on=last), or take a template whose rendering only grows "
        "(train_chat_template)",
    )


def _align(
    dialogue: Dialogue, special: Collection[str], text: str, add_generation_prompt: bool
) -> tuple[dict[int, Span], frozenset[Span]]:
    """Where each content, and all that was written, stands in ``text``. Empty where the template rewrites a text."""
    turns = dialogue.turns
    # An empty text is marked only where a message is nothing but its content: templates ask whether there is one.
    fields = [
        (index, name)
        for index, turn in enumerate(turns)
        for name in TEXTS
        if turn.get(name) or (name == "content" and not turn.get("tool_calls"))
    ]
    marked = [dict(turn) for turn in turns]
    for number, (index, name) in enumerate(fields):
        marked[index][name] = chr(SENTINEL + number)
    parts = _SENTINELS.split(dialogue.template.render(marked, add_generation_prompt, dialogue.tools))
    shown = [fields[ord(mark) - SENTINEL] for mark in parts[1::2]]
    if missing := [index for index, name in fields if name == "content" and (index, name) not in shown]:
        raise InputError(
            f"the chat template leaves out message {missing[0] + 1} ({turns[missing[0]]['role']})",
            where=dialogue.template.where,
            hint="leave that message out, or give a template that supports the role",
        )
    contents: dict[int, Span] = {}
    written: set[Span] = set()
    at = len(parts[0])
    fits = text.startswith(parts[0])
    for (index, name), literal in zip(shown, parts[2::2], strict=True):
        content = turns[index][name]
        forms = (content, content.strip(), content.lstrip(), content.rstrip())
        form = next((form for form in forms if text.startswith(form + literal, at)), None)
        if form is None:
            fits = False
            break
        written.add((at, at + len(form)))
        if name == "content":
            contents[index] = (at, at + len(form))
        at += len(form) + len(literal)
    if fits and at == len(text):
        return contents, frozenset(written)
    if any(token in turn.get(name, "") for turn in turns for name in TEXTS for token in special):
        raise InputError(
            "a message holds the text of a special token, and this template rewrites messages: "
            "the two cannot be told apart",
            where=dialogue.template.where,
            hint="take the special token out of the message",
        )
    return {}, frozenset()


def _check_structures(dialogue: Dialogue, special: Collection[str]) -> None:
    """Tools and tool calls must be written by the template, and may hold no special token, which none could tell."""
    calls = [turn["tool_calls"] for turn in dialogue.turns if turn.get("tool_calls")]
    for name, present in (("tools", dialogue.tools), ("tool_calls", calls)):
        if not present:
            continue
        if not dialogue.template.uses(name):
            raise InputError(
                f"this conversation has {name}, which the chat template does not write",
                where=dialogue.template.where,
                hint="take a template that does (train_chat_template: chatml, granite) or a model whose own does, or "
                "leave the conversation out",
            )
        structure = json.dumps(present, ensure_ascii=False)
        found = next((token for token in special if token in structure), None) or _SENTINELS.search(structure)
        if found:
            raise InputError(f"{name} of this conversation hold a special token: {found}", hint="take it out")


def plain_turns(messages: Sequence[Any]) -> list[Turn]:
    """Messages, records or mappings, as turns. Raises ``InputError`` where one lacks a role or a content."""
    turns = []
    for number, message in enumerate(messages, 1):
        fields = message if isinstance(message, Mapping) else message.model_dump()
        turn = {name: fields[name] for name in FIELDS if fields.get(name) is not None}
        if turn.get("tool_calls"):
            turn.setdefault("content", "")
        if not all(isinstance(turn.get(name), str) for name in ("role", "content")):
            raise InputError(f"message {number} lacks a role or a content", hint="give both as text")
        for name in TEXTS:
            check_unicode(turn.get(name, ""))
        turns.append(turn)
    if not turns:
        raise InputError("a conversation needs at least one message")
    return turns


def check_unicode(text: str) -> None:
    """Raise ``InputError`` for text that is no valid Unicode (a lone surrogate)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"the text is not valid Unicode at character {error.start + 1}: {error.reason}") from error
