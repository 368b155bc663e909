"""Giving a model a chat template whose special tokens its tokenizer lacks.

A base model that never saw a conversation (Granite's, say) has no token for "here the user begins". Adoption says in
one plan what has to change, and writes the half that is files; the trainer does the other half before its first step:

    plan = plan_adoption(model_dir, "granite")
    write_adopted(plan, out)                              tokenizer, template, stop tokens
    model.resize_token_embeddings(plan.rows)              new rows from the mean of the old ones

Padding rows that many models have behind their vocabulary are used up first, so often nothing needs to grow. The new
rows know nothing: a full fine-tune learns them, while LoRA does only where it also trains the embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from ilab.core.files import write_json, write_text
from ilab.errors import InputError
from ilab.models.chat_template import json_object
from ilab.models.renderer import Renderer
from ilab.models.templates import ALIASES, TEMPLATES, Template, named_template


@dataclass(frozen=True)
class Adoption:
    """``added`` special tokens get the ids ``first_id`` and up; the embeddings need ``rows``, of which they have
    ``rows_before``. ``stops`` are the ids that end an answer, the template's own first."""

    model: Path
    template: Template
    added: tuple[str, ...]
    first_id: int
    rows_before: int
    rows: int
    stops: tuple[int, ...]

    @property
    def grows(self) -> bool:
        """Whether the embeddings have to be resized."""
        return self.rows > self.rows_before


def plan_adoption(model_dir: Path, name: str) -> Adoption:
    """What ``name`` (a built-in template) takes of the model in ``model_dir``; nothing is written.

    Raises InputError for an unknown template, or a folder without tokenizer.json or ``vocab_size``.
    """
    renderer = Renderer.load(model_dir)
    if ALIASES.get(name, name) not in TEMPLATES:
        named_template(name, (), str(model_dir))  # says which there are
    template = TEMPLATES[ALIASES.get(name, name)]
    config = json_object(model_dir / "config.json")
    rows = config.get("vocab_size")
    if not isinstance(rows, int):
        raise InputError(
            "config.json does not say how large the vocabulary is (vocab_size)",
            where=str(model_dir / "config.json"),
            hint="give the folder of a Hugging Face model",
        )
    added = tuple(template.missing(renderer.special_tokens.values()))
    ids: dict[str, int] = _with_tokens(model_dir, added).get_vocab(with_added_tokens=True)
    first = min((ids[token] for token in added), default=renderer.vocab_size)
    own = ids[template.stop]
    stops = (own, *sorted(renderer.end_ids - {own}))
    return Adoption(model_dir, template, added, first, rows, max(rows, max(ids.values()) + 1), stops)


def write_adopted(plan: Adoption, out: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json, chat_template.jinja and generation_config.json to ``out``.

    The stop token of the template becomes the model's ``eos_token``, so that every server ends an answer there.
    """
    out.mkdir(parents=True, exist_ok=True)
    settings = json_object(plan.model / "tokenizer_config.json")
    settings.pop("chat_template", None)
    settings.pop("added_tokens_decoder", None)  # tokenizer.json says it, and the old list would lack the new ones
    settings["eos_token"] = plan.template.stop
    generation = json_object(plan.model / "generation_config.json")
    generation["eos_token_id"] = list(plan.stops)
    write_text(out / "tokenizer.json", _with_tokens(plan.model, plan.added).to_str(pretty=True))
    write_json(out / "tokenizer_config.json", settings)
    write_text(out / "chat_template.jinja", plan.template.source)
    write_json(out / "generation_config.json", generation)


def _with_tokens(model_dir: Path, added: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer.from_str((model_dir / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    return tokenizer
