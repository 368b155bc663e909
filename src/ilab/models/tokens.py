"""Counts tokens as a model would, from its ``tokenizer.json`` alone: neither transformers nor torch is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ilab.errors import InputError, SetupError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "tokenizer.json"


def counter(model_dir: Path) -> Callable[[str], int]:
    """Gives the number of tokens of a text, without those that a chat template or the model puts around it.

    Control tokens written in a text count as the ordinary text that they are there. Raises ``InputError`` where
    ``model_dir`` has no ``tokenizer.json`` that can be read, ``SetupError`` without the library ``tokenizers``.
    """
    tokenizer = load_tokenizer(model_dir)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return count


def load_tokenizer(model_dir: Path) -> Tokenizer:
    """The tokenizer as it stands in ``model_dir``. Raises as :func:`counter`."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        hint = "pip install 'ilab[train]', or count by an estimate: -p chunk_tokenizer="
        raise SetupError("counting tokens with a model's tokenizer needs `tokenizers`", hint=hint) from error

    path = model_dir / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = "save it with transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)"
        if not (model_dir / "tokenizer.model").exists():
            hint = "give the directory of a Hugging Face model"
        raise InputError(f"there is no {FILE} that can be read", where=str(model_dir), hint=hint) from error
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception, and nothing else
        if type(error) is not Exception:
            raise
        raise InputError(f"cannot be read: {error}", where=str(path), hint="download the model again") from error
    return tokenizer
