"""Who makes vectors of texts. One of three, told apart by a *setting*, which is also what a person types:

    hashed        character n-grams, hashed: no model, no download (:mod:`ilab.rag.hashed`)
    server:NAME   an OpenAI-compatible /v1/embeddings, at where.embedder
    DIR           a Hugging Face directory, in this process (:mod:`ilab.models.embeddings_local`)

``identity`` says whether two embedders make the same vectors: of a directory it is the digest of its files, of a server
only the model's name is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ilab.config import EmbedderWhere, Where
from ilab.core.store import digest_tree
from ilab.errors import InputError
from ilab.rag.hashed import HashedEmbedder
from ilab.rag.vectors import Floats, unit

if TYPE_CHECKING:
    from ilab.models.embeddings_local import LocalEmbeddings

HASHED, SERVER = HashedEmbedder.name, "server:"
AT = "check where.embedder.url (as http://127.0.0.1:8000/v1) and where.embedder.model"


class Embedder(Protocol):
    """``setting`` chooses it again. Vectors are [texts, dimensions], of length 1."""

    @property
    def identity(self) -> str: ...
    @property
    def setting(self) -> str: ...
    def documents(self, texts: Sequence[str]) -> Floats: ...
    def queries(self, texts: Sequence[str]) -> Floats: ...


class ServedEmbedder:
    """The model of a server. Questions and documents are sent as they are."""

    def __init__(self, where: EmbedderWhere) -> None:
        self._where = where
        self.identity = self.setting = f"{SERVER}{where.model}"

    def documents(self, texts: Sequence[str]) -> Floats:
        """Raises ServiceError where the server fails."""
        from ilab.models.embeddings import embed

        at = self._where
        found = embed(at.url, at.model, texts, at.api_key, timeout=at.timeout, ca_file=at.ca_file, hint=AT)
        return unit(np.asarray(found, dtype=np.float32).reshape(len(texts), -1))

    def queries(self, texts: Sequence[str]) -> Floats:
        return self.documents(texts)


class LocalEmbedder:
    """The model of a folder, loaded when the first text comes. Its digest is computed from all of its files."""

    def __init__(self, folder: Path, where: Where) -> None:
        self._folder = folder
        self._where = where
        self.setting = str(folder)

    @cached_property
    def identity(self) -> str:
        return f"model/{digest_tree(self._folder)}"

    def documents(self, texts: Sequence[str]) -> Floats:
        return unit(self._model.embed(texts, "document"))

    def queries(self, texts: Sequence[str]) -> Floats:
        return unit(self._model.embed(texts, "query"))

    @cached_property
    def _model(self) -> LocalEmbeddings:
        from ilab.models.embeddings_local import LocalEmbeddings

        return LocalEmbeddings.load(self._folder, self._where.device, self._where.threads)


def embedder_of(setting: str, where: Where) -> Embedder:
    """The embedder that ``setting`` means. Raises InputError where its server or folder is not configured or there."""
    if setting == HASHED:
        return HashedEmbedder()
    if setting.startswith(SERVER):
        name = setting.removeprefix(SERVER)
        if where.embedder is None or (name and where.embedder.model != name):
            hint = f"ilab config set where.embedder.url URL, and where.embedder.model {name or 'NAME'}"
            raise InputError(
                f"no server is configured for the embedding model {name!r}", where="where.embedder", hint=hint
            )
        return ServedEmbedder(where.embedder)
    if not (Path(setting) / "config.json").is_file():
        hint = "give a Hugging Face folder: --embedding-model-path DIR; or: --embedding-model-path hashed"
        raise InputError("there is no embedding model here", where=setting, hint=hint)
    return LocalEmbedder(Path(setting), where)
