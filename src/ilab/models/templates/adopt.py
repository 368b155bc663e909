"""Giving a model a chat template, and the special tokens of it that its tokenizer lacks.

A base model that never saw a conversation (Granite's, say) has no token for "here the user begins". Adoption says in
one plan what has to change, and writes the half that is files; :mod:`ilab.training.vocabulary` does the half that is
weights:

    plan = plan_adoption(model_dir, template)
    plan.renderer                                         what the model will be asked and trained by
    write_adopted(plan, out)                              tokenizer, template, stop tokens
    write_vocabulary(out, plan)                           rows of the embeddings for the new tokens

Padding rows that many models have behind their vocabulary are used up first, so often nothing needs to grow. The new
rows know nothing: a full fine-tune learns them, an adapter does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from ilab.core.files import write_json, write_text
from ilab.errors import InputError
from ilab.models.chat_template import json_object
from ilab.models.renderer import Renderer
from ilab.models.templates import GIVEN, Template

# Older descriptions of a tokenizer: of its named tokens, and of its vocabulary. tokenizer.json is whole without them.
OLD_NAMES = "special_tokens_map.json"
OLD_WORDS = ("added_tokens.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt")


@dataclass(frozen=True)
class Adoption:
    """``added`` are special tokens that the tokenizer lacked, ``new`` the ids of those that are no words of it either.

    ``known`` is one more than the highest id it had, ``size`` than the highest that it has now. ``stop`` is the token
    that ends an answer, empty where the template's is not known; ``stops`` are the ids that end one, its own first.
    """

    model: Path
    template: Template
    added: tuple[str, ...]
    new: tuple[int, ...]
    known: int
    size: int
    stop: str
    stops: tuple[int, ...]
    renderer: Renderer

    @property
    def rows_before(self) -> int:
        """Rows of the model's embeddings. Raises InputError where config.json does not say it."""
        rows = json_object(self.model / "config.json").get("vocab_size")
        if isinstance(rows, int):
            return rows
        raise InputError(
            "config.json does not say how large the vocabulary is (vocab_size)",
            where=str(self.model / "config.json"),
            hint="give the folder of a Hugging Face model",
        )

    @property
    def rows(self) -> int:
        """Rows that the embeddings need."""
        return max(self.rows_before, self.size)

    @property
    def grows(self) -> bool:
        """Whether the embeddings have to be resized."""
        return self.rows > self.rows_before

    @property
    def unlearnable_stop(self) -> bool:
        """Whether the stop token is new: then it is learnt by who trains the embeddings, and by nobody else.

        A new row is the mean of the others, so its logit is the mean of theirs and never the highest.
        """
        return bool(self.new) and self.stops[0] in self.new


def plan_adoption(model_dir: Path, template: Template) -> Adoption:
    """What ``template`` takes of the model in ``model_dir``; nothing is written.

    Raises InputError for a folder without tokenizer.json, and for a template that has an error.
    """
    before = Renderer.load(model_dir)
    added = tuple(template.missing(before.special_tokens.values()))
    tokenizer = _with_tokens((model_dir / "tokenizer.json").read_text(encoding="utf-8"), added)
    ids: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    where = "the chat template" if template.name == GIVEN else f"{template.name}.jinja (built-in)"
    text = tokenizer.to_str(pretty=True)
    renderer = before.with_tokens(text, template.source, template.stop, where)
    own = {ids[template.stop]} if template.stop else renderer.stop_ids - before.end_ids
    return Adoption(
        model=model_dir,
        template=template,
        added=added,
        new=tuple(sorted(ids[token] for token in added if ids[token] >= before.vocab_size)),
        known=before.vocab_size,
        size=max(ids.values()) + 1,
        stop=template.stop or next((renderer.special_tokens[one] for one in own), ""),
        stops=(*sorted(own), *sorted(before.end_ids - own)),
        renderer=renderer,
    )


def write_adopted(plan: Adoption, out: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json, chat_template.jinja and generation_config.json to ``out``.

    The stop token of the template becomes the model's ``eos_token``, so that every server ends an answer there. Files
    in ``out`` that describe the tokenizer as it was are removed.
    """
    out.mkdir(parents=True, exist_ok=True)
    settings = json_object(plan.model / "tokenizer_config.json")
    settings.pop("chat_template", None)
    settings.pop("added_tokens_decoder", None)  # tokenizer.json says it, and the old list would lack the new ones
    if plan.stop:
        settings["eos_token"] = plan.stop
    generation = json_object(plan.model / "generation_config.json")
    generation["eos_token_id"] = list(plan.stops)
    text = (plan.model / "tokenizer.json").read_text(encoding="utf-8")
    write_text(out / "tokenizer.json", _with_tokens(text, plan.added).to_str(pretty=True) if plan.added else text)
    write_json(out / "tokenizer_config.json", settings)
    write_text(out / "chat_template.jinja", plan.template.source)
    write_json(out / "generation_config.json", generation)
    for name in (OLD_NAMES, *(OLD_WORDS if plan.added else ())):
        (out / name).unlink(missing_ok=True)


def _with_tokens(text: str, added: tuple[str, ...]) -> Tokenizer:
    """The tokenizer of a tokenizer.json, with more special tokens."""
    tokenizer = Tokenizer.from_str(text)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    return tokenizer
