"""The model that a benchmark measures, opened late: a run whose answers are all kept loads no weights.

open_scorer    likelihoods of options: a Hugging Face folder in this process
open_writer    answers to plain prompts until a stop text (tasks of one's own)
"""

from __future__ import annotations

from collections.abc import Sequence
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

        def write(prompts: Sequence[Prompt], until: tuple[str, ...], max_tokens: int) -> list[str | None]:
            return [self._written(prompt, until, max_tokens) for prompt in prompts]

        return write

    def _written(self, prompt: Prompt, until: tuple[str, ...], max_tokens: int) -> str | None:
        from ilab.models.local import Answer, ContextError, DivergedError, Sampling

        memo = self._site.memo("answers")
        said = self.renderer.text(list(prompt.messages), add_generation_prompt=True) if prompt.chat else prompt.plain
        key = fingerprint("written", WRITING, self.digest, prompt.chat, said, list(until), max_tokens)
        kept = memo.get(key)
        if kept is not None:
            return str(kept)
        if self._site.stopping():
            raise Stopped("evaluation stopped", hint="run the same command to go on")
        ids = (
            self.renderer.encode_rendered(said)
            if prompt.chat
            else [*self.renderer.begin_ids, *self.renderer.encode_text(said)]
        )
        try:
            answer = "".join(Answer(self.model, ids, Sampling(max_tokens=max_tokens, stop=until)))
        except (ContextError, DivergedError):
            return None
        memo.put(key, answer)
        return answer
