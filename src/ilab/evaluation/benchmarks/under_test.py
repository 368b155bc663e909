"""The model that a benchmark measures, opened late: a run whose answers are all kept loads no weights.

scorer    likelihoods of options
writer    answers to plain prompts until a stop text (tasks of one's own)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ilab.core.step import Site, fingerprint
from ilab.core.store import digest_tree
from ilab.errors import InputError, Stopped
from ilab.evaluation.benchmarks.choices import Scorer
from ilab.evaluation.benchmarks.tasks import Write
from ilab.evaluation.prompts import Prompt
from ilab.models.renderer import Renderer

if TYPE_CHECKING:
    from ilab.models.likelihood_local import LocalLikelihoods
    from ilab.models.local import LocalModel
    from ilab.models.served import ServedModel

AT_ONCE = 64  # answers of a server that are under way together, and kept together
Ids = Sequence[int]
WRITING = 1  # raised when the same prompt may get another answer for reasons of ours


class LocalUnderTest:
    """A Hugging Face folder, loaded once for likelihoods and answers alike."""

    def __init__(self, folder: Path, site: Site, batch: int | Literal["auto"] = "auto") -> None:
        """Raises ``InputError`` where the folder holds no model that can be scored."""
        from ilab.models.weights import check_folder

        if folder.is_file() and folder.suffix.lower() == ".gguf":
            raise InputError(
                "a GGUF file gives no likelihoods of options here",
                where=str(folder),
                hint="give the folder of the model that it was made from",
            )
        check_folder(folder)
        self.renderer = Renderer.load(folder)
        self.digest = digest_tree(folder)
        self._folder, self._site, self._batch = folder, site, batch

    @cached_property
    def model(self) -> LocalModel:
        from ilab.models.device import pick_device
        from ilab.models.local import LocalModel

        where = self._site.where
        return LocalModel.load(self._folder, pick_device(where.device), where.threads)

    def likelihoods(self) -> LocalLikelihoods:
        """The engine over the loaded model."""
        from ilab.models.likelihood_local import LocalLikelihoods

        return LocalLikelihoods(self.model, self._batch)

    def scorer(self) -> Scorer:
        """Its likelihoods; weights, tokenizer and number format all lie in the folder that is its identity."""
        return Scorer(self.digest, self.renderer, self.likelihoods)

    def writer(self) -> Write:
        """Its greedy answers, each kept in the memo ``answers``."""
        return _Writer(self.digest, self.renderer, self._site, 1, self._written)

    def _written(self, prompts: Sequence[Ids], until: tuple[str, ...], max_tokens: int) -> list[str | None]:
        from ilab.models.local import Answer, ContextError, DivergedError, Sampling

        answers: list[str | None] = []
        for ids in prompts:
            try:
                answers.append("".join(Answer(self.model, ids, Sampling(max_tokens=max_tokens, stop=until))))
            except (ContextError, DivergedError):
                answers.append(None)
        return answers


class ServedUnderTest:
    """A model at an endpoint; what is rendered and counted here takes its tokenizer's folder."""

    def __init__(self, model: ServedModel, site: Site) -> None:
        self._model, self._site = model, site

    def scorer(self) -> Scorer:
        """Its likelihoods, if the server tells them; known by its address and name."""
        model = self._model
        return Scorer(model.identity, model.renderer, lambda: model.likelihoods)

    def writer(self) -> Write:
        """Its greedy answers, each kept in the memo ``answers``."""
        return _Writer(self._model.identity, self._model.renderer, self._site, AT_ONCE, self._written)

    def _written(self, prompts: Sequence[Ids], until: tuple[str, ...], max_tokens: int) -> list[str | None]:
        fitting = [ids for ids in prompts if 0 < len(ids) < self._model.context_length]
        answers = iter(self._model.write_all(fitting, max_tokens, until))
        return [next(answers) if 0 < len(ids) < self._model.context_length else None for ids in prompts]


@dataclass(frozen=True)
class _Writer:
    """Prompts to answers, ``block`` at a time. What has none (too long, no numbers) is asked again next time."""

    identity: str
    renderer: Renderer
    site: Site
    block: int
    generate: Callable[[Sequence[Ids], tuple[str, ...], int], list[str | None]]

    def __call__(self, prompts: Sequence[Prompt], until: tuple[str, ...], max_tokens: int) -> list[str | None]:
        memo, said = self.site.memo("answers"), [self._said(prompt) for prompt in prompts]
        keys = [
            fingerprint("written", WRITING, self.identity, prompt.chat, text, list(until), max_tokens)
            for prompt, text in zip(prompts, said, strict=True)
        ]
        found: list[str | None] = [memo.get(key) for key in keys]
        missing = [at for at, known in enumerate(found) if known is None]
        for start in range(0, len(missing), self.block):
            if self.site.stopping():
                raise Stopped("evaluation stopped", hint="run the same command to go on")
            some = missing[start : start + self.block]
            ids = [self._ids(prompts[at], said[at]) for at in some]
            for at, answer in zip(some, self.generate(ids, until, max_tokens), strict=True):
                found[at] = answer
                if answer is not None:
                    memo.put(keys[at], answer)
        return found

    def _said(self, prompt: Prompt) -> str:
        return self.renderer.text(list(prompt.messages), add_generation_prompt=True) if prompt.chat else prompt.plain

    def _ids(self, prompt: Prompt, said: str) -> Ids:
        if prompt.chat:
            return self.renderer.encode_rendered(said)
        return [*self.renderer.begin_ids, *self.renderer.encode_text(said)]
