"""Embeddings from a model in this process: a Hugging Face directory as sentence-transformers writes them.

``modules.json`` names what follows the network; read here are the pooling of its token vectors (the first token's, or
the mean over all that are not padding) and the scaling to length 1, which embedding models in wide use need alone.
A directory without it is pooled by the mean. Models with further layers are refused rather than run without them.
Queries and documents may have texts put before them (``config_sentence_transformers.json``). Weights are safetensors
and no code comes with a model. A text beyond the model's length is cut at its end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import torch

from ilab.errors import InputError
from ilab.models.device import pick_device
from ilab.models.tokens import load_tokenizer
from ilab.models.weights import BUILDING, check_folder

Kind = Literal["query", "document"]

BATCH = 32  # texts that go through the network together
LONGEST = 8192  # tokens of a text, whatever the model says
KNOWN = ("Transformer", "Pooling", "Normalize")
POOLING = {"pooling_mode_cls_token": "first", "pooling_mode_mean_tokens": "mean"}


@dataclass(frozen=True)
class Reading:
    """How a directory's token vectors become one: ``pooling`` is ``first`` or ``mean``; ``longest`` in tokens."""

    pooling: str
    longest: int
    prompts: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path) -> Reading:
        """Raises InputError for a directory that is pooled in a way not known here."""
        modules = {one["type"].rpartition(".")[2]: one for one in _json(folder, "modules.json", [])}
        other = [kind for kind in modules if kind not in KNOWN]
        if other:
            hint = "take one that ends in pooling, as ibm-granite/granite-embedding-97m-multilingual-r2"
            raise InputError(
                f"this embedding model has a layer that is not known here: {other[0]}", where=str(folder), hint=hint
            )
        name = PurePosixPath(modules.get("Pooling", {}).get("path", "1_Pooling")).name
        config = _json(folder, f"{name}/config.json", {}) if "Pooling" in modules else {}
        modes = [mode for mode, wanted in config.items() if mode.startswith("pooling_mode_") and wanted is True]
        if config and (len(modes) != 1 or modes[0] not in POOLING or config.get("include_prompt") is False):
            message = f"this embedding model pools its tokens in a way not known here: {', '.join(modes) or 'none'}"
            raise InputError(message, where=str(folder / name), hint="take one that pools by `cls` or `mean`")
        lengths = [
            _json(folder, "sentence_bert_config.json", {}).get("max_seq_length"),
            _json(folder, "tokenizer_config.json", {}).get("model_max_length"),
            _json(folder, "config.json", {}).get("max_position_embeddings"),
            LONGEST,
        ]
        prompts = _json(folder, "config_sentence_transformers.json", {}).get("prompts") or {}
        return cls(
            POOLING[modes[0]] if modes else "mean",
            min(int(one) for one in lengths if isinstance(one, int | float) and one > 0),
            {name: text for name, text in prompts.items() if isinstance(text, str)},
        )


class LocalEmbeddings:
    """The model of a directory. One caller at a time."""

    def __init__(self, network: Any, tokenizer: Any, reading: Reading, device: str) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._reading = reading
        self._device = device

    @classmethod
    def load(cls, folder: Path, device: str = "auto", threads: int = 1) -> LocalEmbeddings:
        """Raises ``InputError`` where the folder holds no embedding model that can be loaded safely."""
        check_folder(folder)
        reading, chosen = Reading.of(folder), pick_device(device)
        network = _network(folder, chosen)
        torch.set_num_threads(threads)
        tokenizer = load_tokenizer(folder)
        tokenizer.enable_truncation(reading.longest)
        tokenizer.enable_padding(pad_id=getattr(network.config, "pad_token_id", None) or 0)
        return cls(network, tokenizer, reading, chosen)

    def embed(self, texts: Sequence[str], kind: Kind) -> np.ndarray[Any, np.dtype[np.float32]]:
        """[texts, dimensions]; a ``query`` or ``document`` as the model tells them apart, if it does."""
        prompts = self._reading.prompts
        before = prompts.get(kind, prompts.get("passage", "") if kind == "document" else "")
        rows = [self._batch([before + text for text in texts[at : at + BATCH]]) for at in range(0, len(texts), BATCH)]
        size = self._network.config.hidden_size
        return np.concatenate(rows) if rows else np.zeros((0, size), dtype=np.float32)

    @torch.inference_mode()
    def _batch(self, texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        encoded = self._tokenizer.encode_batch(texts)
        ids = torch.tensor([one.ids for one in encoded], device=self._device)
        mask = torch.tensor([one.attention_mask for one in encoded], device=self._device)
        hidden = self._network(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        if self._reading.pooling == "first":
            pooled = hidden[:, 0]
        else:
            weights = mask.unsqueeze(-1).float()
            pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        found: np.ndarray[Any, np.dtype[np.float32]] = pooled.cpu().numpy()
        return found


def _network(folder: Path, device: str) -> Any:
    from safetensors import SafetensorError

    try:
        with BUILDING:
            from transformers import AutoModel
            from transformers.utils import logging

            logging.disable_progress_bar()
            network = AutoModel.from_pretrained(
                str(folder), dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        message = f"this embedding model cannot be loaded: {str(error).strip().splitlines()[0]}"
        raise InputError(
            message, where=str(folder), hint="it must be a known architecture with its weights as safetensors"
        ) from error
    return network.to(device).eval()


def _json(folder: Path, name: str, otherwise: Any) -> Any:
    """The JSON of a file of the model, ``otherwise`` where there is none or it is of another kind."""
    path = folder / name
    if not path.is_file():
        return otherwise
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"no JSON: {error}", where=str(path)) from error
    return found if isinstance(found, type(otherwise)) else otherwise
