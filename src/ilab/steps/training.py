"""Steps that make models. See :mod:`ilab.steps`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from ilab.artifacts import Candidates, Checkpoint, Dataset
from ilab.core.step import Counts, Resolve, Site, Step


class MakeBase(Step):
    """The model to start from: the tiny built-in one, made on the spot, or a Hugging Face directory.

    ``chat_template`` is the hash of the template that it gets; without one it keeps its own, and a model that has none
    gets the one that its special tokens name.
    """

    type: ClassVar[str] = "base"
    model: Annotated[str, Resolve("model")]
    chat_template: Annotated[str, Resolve("chat-template")] = ""

    def run(self, *, out: Checkpoint, site: Site) -> Counts:
        from ilab.training.base import base_folder, make_base
        from ilab.transfer.open import access_of

        chosen, found = self.chat_template, site.locate(self.model)
        folder = base_folder(found, access_of(site.where), site.emit)
        return make_base(found, out, (chosen, site.locate(chosen)) if chosen else None, folder)


class Train(Step):
    """One phase of fine-tuning, by a ``method``. Saves a candidate every ``save_every`` epochs (or ``save_unit``).

    The fields are those of :class:`ilab.training.settings.TrainSettings`, which says what each means.
    """

    type: ClassVar[str] = "train"
    version: ClassVar[int] = 2
    epochs: int
    batch: int
    learning_rate: float
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 0.0
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    precision: Literal["fp32", "bf16"] = "fp32"
    train_on: Literal["assistant", "last", "all"] = "assistant"
    over_length: Literal["drop", "truncate", "split", "error"] = "drop"
    max_length: int = 2048
    max_batch_tokens: int = 5000
    method: Literal["full", "lora", "qlora", "osft"] = "full"
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ()
    lora_variant: Literal["plain", "rslora", "dora"] = "plain"
    osft_share: float = 0.25
    save_every: int = 1
    save_unit: Literal["epochs", "steps", "samples", "tokens"] = "epochs"
    keep: int | None = None
    validation: float = 0.0
    seed: int = 42

    def run(self, dataset: Dataset, base: Checkpoint, *, out: Candidates, site: Site) -> Counts:
        from ilab.training.stage import train_phase

        return train_phase(self.fields(), dataset, base, out, site)

    def expect(self, inputs: Mapping[str, Any], site: Site) -> dict[str, float]:
        from ilab.training.forecast import expect

        return expect(self.fields(), inputs["dataset"].rows(), inputs["base"].model, site.where)
