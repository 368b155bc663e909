"""Messages to tokens and back: one renderer for training, evaluation, serving and packaging.

A conversation is rendered to text by the model's own chat template and the text is tokenised as a whole, so
training sees the tokens that any server of the model makes. Three properties hold by construction:

* *The prompt is a prefix of the training row.* Text is tokenised up to the end of every generation prompt in turn.
  Where the longer text would tokenise differently across that edge, the tokens are cut there, in prompts too.
* *Masks are exact.* Messages are found by rendering once more with every content replaced by a private-use
  sentinel and aligning the two texts; tokens carry character offsets. A turn's loss begins where the generation
  prompt ends and includes the stop token. Where a template rewrites contents, prefix differences are used instead.
* *Nobody can inject a control token.* Where a special token is found inside a content, that content is tokenised
  apart, with special tokens read as ordinary text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ilab.data import Message, TrainOn
from ilab.errors import InputError
from ilab.models.chat_template import ChatTemplate, json_object

TINY_SPECIAL_TOKENS = ("<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TINY_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
SENTINEL = 0xF0000  # first character of Unicode's private plane 15
_SENTINELS = re.compile("([\U000f0000-\U000ffffd])")

Span = tuple[int, int]  # character offsets in a rendering, end excluded
Messages = Sequence[Message | Mapping[str, Any]]


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation, and for each token whether it bears loss."""

    ids: list[int]
    trained: list[bool]


@dataclass(frozen=True)
class _Token:
    id: int
    start: int
    end: int


@dataclass(frozen=True)
class _Rendering:
    """A rendered conversation: where each content stands, and where each assistant turn's prompt and text end."""

    text: str
    contents: dict[int, Span]  # message index -> its content; without the messages that the template rewrites
    prompts: dict[int, int]  # index of an assistant message -> end of its generation prompt
    ends: dict[int, int]  # index of a message -> end of all that the template writes for it


class Renderer:
    """Renders and tokenises for one model. Immutable; may be shared between threads."""

    def __init__(self, tokenizer: str, template: ChatTemplate, eos: Iterable[int]) -> None:
        """``tokenizer`` is the text of a tokenizer.json, ``eos`` the ids of the configuration that end a text."""
        self.where = template.where
        self._template = template
        self._tokenizer = _tokenizer(tokenizer, self.where)
        self._plain = _tokenizer(tokenizer, self.where)
        self._plain.encode_special_tokens = True
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {number: token.content for number, token in added.items() if token.special}
        self._eos = frozenset(eos)

    @classmethod
    def load(cls, model_dir: Path) -> Renderer:
        """Read tokenizer.json, the chat template and the special tokens of a Hugging Face directory.

        Raises ``InputError`` where a file is missing or cannot be understood. A model without a template can still
        encode text.
        """
        path = model_dir / "tokenizer.json"
        if not path.is_file():
            raise InputError(
                "this folder has no tokenizer.json",
                where=str(model_dir),
                hint="give the folder of a Hugging Face model",
            )
        eos: set[int] = set()
        for name in ("config.json", "generation_config.json"):
            value = json_object(model_dir / name).get("eos_token_id")
            eos.update(number for number in (value if isinstance(value, list) else [value]) if isinstance(number, int))
        return cls(path.read_text(encoding="utf-8"), ChatTemplate.load(model_dir), eos)

    @property
    def has_template(self) -> bool:
        return self._template.source is not None

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest token id."""
        return int(max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)) + 1

    @cached_property
    def pad_id(self) -> int:
        """The padding token, else the lowest stop token, else 0. Padding is masked by length, never by this id."""
        named = self._tokenizer.token_to_id(self._template.named.get("pad_token", ""))
        return int(named) if named is not None else min(self.stop_ids, default=0)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the configured ends of text, and what the template puts after an answer."""
        found = set(self._eos)
        named = self._tokenizer.token_to_id(self._template.named.get("eos_token", ""))
        if named is not None:
            found.add(int(named))
        if self.has_template:
            encoded = self.encode(
                [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}], "assistant"
            )
            answer = [number for number, trained in zip(encoded.ids, encoded.trained, strict=True) if trained]
            found.update(self._special.keys() & answer[-1:])
        return frozenset(found)

    def text(self, messages: Messages, add_generation_prompt: bool) -> str:
        """The conversation as the chat template writes it. Raises ``InputError`` where the template refuses it."""
        return self._template.render(_plain_messages(messages), add_generation_prompt)

    def encode(self, messages: Messages, train_on: TrainOn) -> Encoded:
        """Tokens of a whole conversation and which of them bear loss.

        For ``assistant``: what the model has to write in each assistant turn, from the end of the generation
        prompt to the stop token. For ``all``: the contents of the other messages too, except the system's. Raises
        ``InputError`` where the template changes earlier text as the conversation goes on, or drops a message.
        """
        turns = _plain_messages(messages)
        rendering = self._locate(turns, add_generation_prompt=False)
        tokens = self._tokenise(rendering)
        regions = [
            region
            for index, turn in enumerate(turns)
            if turn["role"] == "assistant" or (train_on == "all" and turn["role"] != "system")
            for region in [self._region(rendering, index, turn["role"])]
        ]
        trained = [
            any(token.start < end and max(token.end, token.start + 1) > start for start, end in regions)
            for token in tokens
        ]
        return Encoded([token.id for token in tokens], trained)

    def prompt_ids(self, messages: Messages) -> list[int]:
        """Tokens after which the model writes the next answer: always a prefix of that answer's training row."""
        rendering = self._locate(_plain_messages(messages), add_generation_prompt=True)
        return [token.id for token in self._tokenise(rendering)]

    def encode_text(self, text: str) -> list[int]:
        """Tokens of plain text: no template, no tokens added, special tokens read as ordinary text."""
        _check_unicode(text)
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        """The text of tokens, without the special ones unless asked for."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=not keep_special)
        return text

    def _locate(self, turns: list[dict[str, str]], add_generation_prompt: bool) -> _Rendering:
        text = self._template.render(turns, add_generation_prompt)
        prompts, ends = {}, {}
        for index, turn in enumerate(turns):
            ends[index] = self._prefix(text, turns[: index + 1], False)
            if turn["role"] == "assistant":
                # Nothing comes before a first message: its loss begins with its content.
                prompts[index] = self._prefix(text, turns[:index], True) if index else 0
        contents = self._align(turns, text, add_generation_prompt)
        if 0 in prompts:
            prompts[0] = contents[0][0] if 0 in contents else 0
        return _Rendering(text, contents, prompts, ends)

    def _prefix(self, text: str, turns: list[dict[str, str]], add_generation_prompt: bool) -> int:
        shorter = self._template.render(turns, add_generation_prompt)
        if not text.startswith(shorter):
            raise InputError(
                f"the chat template changes earlier text as the conversation goes on (at message {len(turns)}), "
                "so training would not match what the model is asked later",
                where=self.where,
                hint="train on single turns, or give a template whose rendering only grows",
            )
        return len(shorter)

    def _align(self, turns: list[dict[str, str]], text: str, add_generation_prompt: bool) -> dict[int, Span]:
        """Where each content stands in ``text``, trimmed or not. Empty where the template rewrites one."""
        marked = [{**turn, "content": chr(SENTINEL + index)} for index, turn in enumerate(turns)]
        parts = _SENTINELS.split(self._template.render(marked, add_generation_prompt))
        shown = {ord(mark) - SENTINEL for mark in parts[1::2]}
        if missing := sorted(set(range(len(turns))) - shown):
            raise InputError(
                f"the chat template leaves out message {missing[0] + 1} ({turns[missing[0]]['role']})",
                where=self.where,
                hint="leave that message out, or give a template that supports the role",
            )
        spans: dict[int, Span] = {}
        at = len(parts[0])
        fits = text.startswith(parts[0])
        for mark, literal in zip(parts[1::2], parts[2::2], strict=True):
            content = turns[ord(mark) - SENTINEL]["content"]
            forms = (content, content.strip(), content.lstrip(), content.rstrip())
            form = next((form for form in forms if text.startswith(form + literal, at)), None)
            if form is None:
                fits = False
                break
            spans[ord(mark) - SENTINEL] = (at, at + len(form))
            at += len(form) + len(literal)
        if fits and at == len(text):
            return spans
        if any(special in turn["content"] for turn in turns for special in self._special.values()):
            raise InputError(
                "a message holds the text of a special token, and this template rewrites messages: "
                "the two cannot be told apart",
                where=self.where,
                hint="take the special token out of the message",
            )
        return {}

    def _region(self, rendering: _Rendering, index: int, role: str) -> Span:
        """The characters of message ``index`` that bear loss."""
        end = rendering.ends[index]
        begin = rendering.ends.get(index - 1, 0)
        content = rendering.contents.get(index)
        if role != "assistant":
            return content or (begin, end)
        start = rendering.prompts[index]
        after = content[1] if content else start
        names = "|".join(re.escape(name) for name in sorted(self._special.values(), key=len, reverse=True))
        stops = [match.end() for match in re.finditer(names, rendering.text[after:end])] if names else []
        if not stops:
            return start, end
        return start, after + (stops[0] if content else stops[-1])

    def _tokenise(self, rendering: _Rendering) -> list[_Token]:
        """Tokens of the rendering; those up to the end of a generation prompt never depend on what follows."""
        before: list[_Token] = []  # up to the last cut
        current: list[_Token] = []  # from the last cut to the last edge
        cut = edge = 0
        for following in sorted({*rendering.prompts.values(), len(rendering.text)} - {0}):
            longer = self._tokens(rendering, cut, following)
            if [token.id for token in longer[: len(current)]] == [token.id for token in current]:
                current = longer
            else:
                before += current
                cut, current = edge, self._tokens(rendering, edge, following)
            edge = following
        return before + current

    def _tokens(self, rendering: _Rendering, start: int, end: int) -> list[_Token]:
        """Tokens of ``text[start:end]``; a content in which a special token is found is tokenised apart."""
        contents = {span for span in rendering.contents.values() if span[0] >= start and span[1] <= end}
        apart: set[Span] = set()
        while True:
            tokens: list[_Token] = []
            at = start
            for first, last in sorted(apart):
                tokens += self._piece(self._tokenizer, rendering.text, at, first)
                tokens += self._piece(self._plain, rendering.text, first, last)
                at = last
            tokens += self._piece(self._tokenizer, rendering.text, at, end)
            special = [token for token in tokens if token.id in self._special]
            injected = {
                (first, last)
                for first, last in contents - apart
                if any(token.start < last and token.end > first for token in special)
            }
            if not injected:
                return tokens
            apart |= injected

    def _piece(self, tokenizer: Any, text: str, start: int, end: int) -> list[_Token]:
        if start == end:
            return []
        encoding = tokenizer.encode(text[start:end], add_special_tokens=False)
        return [
            _Token(number, start + first, start + last)
            for number, (first, last) in zip(encoding.ids, encoding.offsets, strict=True)
        ]


def _tokenizer(text: str, where: str) -> Any:
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception, and nothing else
        if type(error) is not Exception:
            raise
        raise InputError(f"tokenizer.json cannot be read: {error}", where=where) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.post_processor = None  # it adds no tokens here, and would trim spaces off the offsets
    return tokenizer


def _plain_messages(messages: Messages) -> list[dict[str, str]]:
    plain = []
    for number, message in enumerate(messages, 1):
        fields = message if isinstance(message, Mapping) else message.model_dump()
        role, content = fields.get("role"), fields.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise InputError(f"message {number} lacks a role or a content", hint="give both as text")
        _check_unicode(content)
        plain.append({"role": role, "content": content})
    if not plain:
        raise InputError("a conversation needs at least one message")
    return plain


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"the text is not valid Unicode at character {error.start + 1}: {error.reason}") from error
