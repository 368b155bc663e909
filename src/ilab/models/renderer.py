"""Messages to tokens and back: one renderer for training, evaluation, serving and packaging.

A conversation is rendered to text by the model's own chat template and the text is tokenised as a whole, so
training sees the tokens that any server of the model makes. Three properties hold by construction:

* *The prompt is a prefix of the training row.* Text is tokenised up to the end of every generation prompt in turn.
  Where the longer text would tokenise differently across that edge, the tokens are cut there, in prompts too.
* *Masks are exact.* Messages are found in the rendering (:mod:`ilab.models.rendering`); tokens carry character
  offsets. A turn's loss begins where the generation prompt ends and includes the stop token.
* *Nobody can inject a control token.* Where a special token is found inside a content, that content is tokenised
  apart, with special tokens read as ordinary text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tokenizers import Tokenizer

from ilab.data import Message, digest_text, short
from ilab.errors import InputError
from ilab.models.chat_template import ChatTemplate, json_object
from ilab.models.rendering import Dialogue, Rendering, Span, Turn, check_unicode, locate, plain_turns
from ilab.models.templates import TEMPLATES, choose_template

TINY_SPECIAL_TOKENS = ("<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TINY_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
Messages = Sequence[Message | Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None
TrainedTurns = Literal["assistant", "last", "all"]  # which turns bear loss; ``all`` is all but the system's


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation, and for each token whether it bears loss and the index of its message."""

    ids: list[int]
    trained: list[bool]
    turns: list[int]


class _Token(NamedTuple):
    id: int
    start: int
    end: int


class Renderer:
    """Renders and tokenises for one model. Immutable; may be shared between threads."""

    def __init__(self, tokenizer: str, template: ChatTemplate, eos: Iterable[int]) -> None:
        """``tokenizer`` is the text of a tokenizer.json, ``eos`` the ids of the configuration that end a text."""
        self.where = template.where
        self._template = template
        self._tokenizer, self._around = _tokenizer(tokenizer, self.where)
        self._plain, _ = _tokenizer(tokenizer, self.where)
        self._plain.encode_special_tokens = True
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {number: token.content for number, token in added.items() if token.special}
        names = "|".join(re.escape(name) for name in sorted(self._special.values(), key=len, reverse=True))
        self._special_texts = re.compile(names or "(?!)")
        self._eos = frozenset(eos)
        self._text = tokenizer

    def __reduce__(self) -> tuple[Any, ...]:
        """So that worker processes can have one; compiled parts are made anew there."""
        return type(self), (self._text, self._template, self._eos)

    @classmethod
    def load(cls, model_dir: Path) -> Renderer:
        """Read tokenizer.json, the chat template and the special tokens of a Hugging Face directory.

        A model that has no template gets the one that its special tokens name, if any does. Raises ``InputError``
        where a file is missing or cannot be understood. A model without a template can still encode text.
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
        own = cls(path.read_text(encoding="utf-8"), ChatTemplate.load(model_dir), eos)
        model_type = str(json_object(model_dir / "config.json").get("model_type", ""))
        chosen = None if own.has_template else choose_template(own.special_tokens.values(), model_type)
        return own if chosen is None else own.with_template(chosen.source, f"{chosen.name}.jinja (built-in)")

    def with_template(self, source: str, where: str) -> Renderer:
        """The same tokenizer under another chat template. Raises ``InputError`` where that one has an error."""
        return self._under(self._text, source, where, {})

    def with_tokens(self, tokenizer: str, source: str, stop: str, where: str) -> Renderer:
        """The same model under another tokenizer.json and another chat template; ``stop`` ends its texts, if given."""
        return self._under(tokenizer, source, where, {"eos_token": stop} if stop else {})

    def _under(self, tokenizer: str, source: str, where: str, named: Mapping[str, str]) -> Renderer:
        own = self._template
        return Renderer(tokenizer, ChatTemplate(source, {**own.named, **named}, where, own.add_bos), self.end_ids)

    @property
    def special_tokens(self) -> Mapping[int, str]:
        """Id and text of every special token."""
        return self._special

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides which tokens a conversation becomes."""
        template = self._template
        parts = [self._text, template.source, template.named, template.add_bos, sorted(self._eos)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def has_template(self) -> bool:
        return self._template.source is not None

    def writes(self, field: str) -> bool:
        """Whether the chat template mentions ``field`` (``tools``, ``reasoning_content``)."""
        return self._template.uses(field)

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest token id."""
        return int(max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)) + 1

    @property
    def template_name(self) -> str:
        """What the chat template is called: a built-in one's name, or ``own``, with the hash of its text."""
        source = self.template_source
        if source is None:
            return "none"
        name = next((one.name for one in TEMPLATES.values() if one.source == source), "own")
        return f"{name} {short(digest_text(source))}"

    @property
    def template_source(self) -> str | None:
        """The chat template in use, for whoever writes a model that is to be asked the same way."""
        return self._template.source

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The configured ends of text."""
        named = self._token_id("eos_token")
        return self._eos if named is None else self._eos | {named}

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the configured ends of text, and what the template puts after an answer."""
        found = set(self.end_ids)
        if self.has_template:
            encoded = self.encode(
                [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}], "assistant"
            )
            answer = [number for number, trained in zip(encoded.ids, encoded.trained, strict=True) if trained]
            found.update(self._special.keys() & answer[-1:])
        return frozenset(found)

    @cached_property
    def opening(self) -> str:
        """What the template writes of its own between the prompt and an answer, all of which bears loss.

        An empty block of reasoning, in some: who trains on it teaches the model not to reason.
        """
        rendering = self._locate([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], None, [1])
        content = rendering.contents.get(1)
        return rendering.text[rendering.prompts[1] : content[0]] if content else ""

    def text(self, messages: Messages, add_generation_prompt: bool, tools: Tools = None) -> str:
        """The conversation as the chat template writes it. Raises ``InputError`` where the template refuses it."""
        return self._template.render(plain_turns(messages), add_generation_prompt, tools)

    def encode(self, messages: Messages, train_on: TrainedTurns, tools: Tools = None) -> Encoded:
        """Tokens of a whole conversation and which of them bear loss.

        For ``assistant``: what the model has to write in each assistant turn, from the end of the generation
        prompt to the stop token. For ``last``: in the last assistant turn alone. For ``all``: the contents of the
        other messages too, except the system's. Raises ``InputError`` where the template changes text before a
        trained turn as the conversation goes on, or drops a message.
        """
        turns = plain_turns(messages)
        answers = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
        if train_on == "all":
            chosen = [index for index, turn in enumerate(turns) if turn["role"] != "system"]
        else:
            chosen = answers[-1:] if train_on == "last" else answers
        rendering = self._locate(turns, tools, chosen)
        tokens = self._tokenise(rendering)
        regions = [self._region(rendering, index, turns[index]) for index in chosen]
        ends = sorted((end, index) for index, end in rendering.ends.items())
        trained, turn_of = [], []
        region = last = 0  # tokens come in the order of the text, and so do regions and ends
        for _, start, end in tokens:
            while region < len(regions) and regions[region][1] <= start:
                region += 1
            trained.append(region < len(regions) and max(end, start + 1) > regions[region][0])
            while last + 1 < len(ends) and ends[last][0] <= start:
                last += 1
            turn_of.append(ends[last][1])
        return Encoded([token.id for token in tokens], trained, turn_of)

    def encode_document(self, text: str) -> Encoded:
        """Tokens of a whole document for continued pretraining: all of them bear loss.

        What the tokenizer puts before a text (usually the beginning-of-text token, or nothing; ``add_bos_token`` of
        tokenizer_config.json decides where it is given) comes first, the end-of-text token last, where there is one.
        """
        end = self._token_id("eos_token")
        if end is None and self._eos:
            end = min(self._eos)
        closing = [end] if end is not None else self._around[1]
        ids = [*self.begin_ids, *self.encode_text(text), *closing]
        return Encoded(ids, [True] * len(ids), [0] * len(ids))

    @cached_property
    def begin_ids(self) -> list[int]:
        """What the tokenizer puts before a text on its own: the beginning-of-text token, or nothing."""
        before, bos = self._around[0], self._token_id("bos_token")
        if self._template.add_bos is None:
            return before
        return [] if not self._template.add_bos else [bos] if bos is not None else before

    @property
    def first_id(self) -> int:
        """The token that stands for an empty text: the one that begins a text, else the one that ends it, else 0."""
        known = (self._token_id("bos_token"), self._token_id("eos_token"), min(self._eos, default=0))
        return next(token for token in known if token is not None)

    def prompt_ids(self, messages: Messages, tools: Tools = None) -> list[int]:
        """Tokens after which the model writes the next answer: always a prefix of that answer's training row."""
        return [token.id for token in self._tokenise(self._locate(messages, tools, None))]

    def encode_text(self, text: str) -> list[int]:
        """Tokens of plain text: no template, no tokens added, special tokens read as ordinary text."""
        check_unicode(text)
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def encode_rendered(self, text: str) -> list[int]:
        """Tokens of a text that a chat template made: special tokens in it are control tokens. None are added."""
        check_unicode(text)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        """The text of tokens, without the special ones unless asked for."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=not keep_special)
        return text

    def _token_id(self, name: str) -> int | None:
        """The id of ``bos_token``, ``eos_token`` … of tokenizer_config.json."""
        found = self._tokenizer.token_to_id(self._template.named.get(name, ""))
        return None if found is None else int(found)

    def _locate(self, messages: Messages, tools: Tools, required: Collection[int] | None) -> Rendering:
        """``required`` None: as a prompt."""
        dialogue = Dialogue(self._template, plain_turns(messages), tools)
        return locate(dialogue, self._special.values(), required or (), required is None)

    def _region(self, rendering: Rendering, index: int, turn: Turn) -> Span:
        """The characters of message ``index`` that bear loss."""
        end = rendering.ends[index]
        content = rendering.contents.get(index)
        if turn["role"] != "assistant":
            return content or (rendering.ends.get(index - 1, 0), end)
        start = rendering.prompts[index]
        after = content[1] if content else start
        stops = [match.end() for match in self._special_texts.finditer(rendering.text[after:end])]
        if not stops:
            return start, end
        # Behind plain content comes the stop token; calls of tools may have special tokens of their own before it.
        plain = content is not None and not turn.get("tool_calls")
        return start, after + (stops[0] if plain else stops[-1])

    def _tokenise(self, rendering: Rendering) -> list[_Token]:
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

    def _tokens(self, rendering: Rendering, start: int, end: int) -> list[_Token]:
        """Tokens of ``text[start:end]``; a content in which a special token is found is tokenised apart."""
        contents = {span for span in rendering.written if span[0] >= start and span[1] <= end}
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


def _tokenizer(text: str, where: str) -> tuple[Any, tuple[list[int], list[int]]]:
    """The tokenizer, and the tokens that it would put before and after a text on its own; here it adds none."""
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception, and nothing else
        if type(error) is not Exception:
            raise
        raise InputError(f"tokenizer.json cannot be read: {error}", where=where) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    alone = tokenizer.encode("a", add_special_tokens=False).ids
    around = tokenizer.encode("a", add_special_tokens=True).ids
    tokenizer.post_processor = None  # it would trim spaces off the offsets
    at = next((at for at in range(len(around)) if around[at : at + len(alone)] == alone), 0) if alone else 0
    return tokenizer, (around[:at], around[at + len(alone) :])
