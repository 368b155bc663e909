"""Which files of a listing are downloaded, and why others are not.

Weights are taken as safetensors or GGUF only: other formats are pickles, which run code when they are opened. Code is
never taken. A repository with safetensors is taken whole; one with GGUF files holds the same model many times, so one
of them is taken (with all its parts).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from ilab.errors import InputError
from ilab.transfer.source import Listing, RemoteFile, safe_name

KEPT = (".safetensors", ".json", ".txt", ".model", ".jinja", ".md", ".tiktoken")
PAPERS = ("license", "licence", "notice", "copying", "use_policy")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack")
USUAL = "q4_k_m"  # the type of GGUF that is taken where nobody says which
_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})\.gguf", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """``listing`` with the files that are taken; ``single`` for GGUF files, which lie in the models folder itself.

    ``left_out`` is for people: a file's name and why it is not taken.
    """

    listing: Listing
    single: bool
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def choose(listing: Listing, filename: str = "") -> Choice:
    """The files to take of ``listing``; ``filename`` is a GGUF file in it.

    Raises ``InputError`` where there are no weights that can be opened safely, or several GGUF files and no word
    about which.
    """
    files = [file for file in listing.files if not _hidden(file.name)]
    for file in files:
        safe_name(file.name)
    gguf = [file for file in files if file.name.lower().endswith(".gguf")]
    tensors = [file for file in files if file.name.endswith(".safetensors")]
    if filename or (gguf and not tensors and not any(file.packed for file in files)):
        return _one(listing, gguf, filename)
    if not tensors and not any(file.packed for file in files):
        raise _no_weights(listing, files)
    taken = [file for file in files if file.packed or takes(file.name)]
    if not all(_consolidated(file.name) for file in tensors):
        taken = [file for file in taken if not _consolidated(file.name)]
    names = {file.name for file in taken}
    if "config.json" not in names and not any(file.packed for file in taken):
        hint = "choose a language model for transformers, or one as GGUF"
        raise InputError("there is no config.json beside its weights", where=listing.source, hint=hint)
    left = tuple((file.name, _why(file.name)) for file in files if file.name not in names)
    return Choice(replace(listing, files=tuple(taken)), False, left)


def takes(name: str) -> bool:
    """Whether a file of this name is taken: weights, configuration, tokenizer, papers."""
    path = PurePosixPath(name)
    paper = path.suffix == "" and path.name.lower().startswith(PAPERS)
    return (path.suffix.lower() in KEPT or paper) and not _hidden(name)


def _one(listing: Listing, gguf: list[RemoteFile], filename: str) -> Choice:
    """One GGUF file, with its parts where it comes in several."""
    notes: tuple[str, ...] = ()
    if filename:
        named = [file for file in gguf if filename in (file.name, PurePosixPath(file.name).name)]
        if len(named) != 1:
            raise _which(listing, gguf, f"there is no GGUF file {filename!r} in it")
    else:
        named = gguf[:1] if len({_stem(file.name) for file in gguf}) == 1 else _usual(gguf)
        if not named:
            raise _which(listing, gguf, "it holds several GGUF files")
        notes = (f"of {len(gguf)} GGUF files, {named[0].name} is taken; --filename chooses another",) * (len(gguf) > 1)
    stem = _stem(named[0].name)
    parts = [file for file in gguf if _stem(file.name) == stem]
    expected = _PART.fullmatch(named[0].name)
    if expected and len(parts) != int(expected[2]):
        raise InputError(f"of {expected[2]} parts of this file there are {len(parts)}", where=listing.source)
    flat = tuple(replace(file, name=PurePosixPath(file.name).name) for file in parts)
    return Choice(replace(listing, name=flat[0].name, files=flat), True, (), notes)


def _stem(name: str) -> str:
    match = _PART.fullmatch(name)
    return match[1] if match else name


def _usual(gguf: Iterable[RemoteFile]) -> list[RemoteFile]:
    found = [file for file in gguf if USUAL in file.name.lower()]
    return found[:1] if len({_stem(file.name) for file in found}) == 1 else []


def _which(listing: Listing, gguf: list[RemoteFile], message: str) -> InputError:
    names = ", ".join(sorted(PurePosixPath(file.name).name for file in gguf)[:8]) or "none"
    return InputError(message, where=listing.source, hint=f"choose one with --filename; there are: {names}")


def _no_weights(listing: Listing, files: list[RemoteFile]) -> InputError:
    pickles = [file.name for file in files if PurePosixPath(file.name).suffix.lower() in PICKLES]
    if pickles:
        message = f"its weights are pickles ({pickles[0]}), which run code when they are opened"
        return InputError(message, where=listing.source, hint="choose a model with weights as safetensors or GGUF")
    hint = "choose a model with weights as safetensors or GGUF"
    return InputError("there are no weights in it", where=listing.source, hint=hint)


def _consolidated(name: str) -> bool:
    """The same weights once more, in the form of some makers' own programs (Mistral's, Meta's, OpenAI's)."""
    path = PurePosixPath(name)
    return path.name.startswith("consolidated") or path.parts[0] == "original"


def _hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _why(name: str) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PICKLES:
        return "a pickle, which runs code when it is opened"
    if _consolidated(name) and suffix == ".safetensors":
        return "the same weights once more"
    if suffix in (".py", ".sh", ".so"):
        return "code"
    return "not needed"
