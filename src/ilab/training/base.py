"""The model a run starts from.

``tiny`` is made on the spot (:mod:`ilab.training.tiny`); anything else is a Hugging Face directory on this machine,
taken into the store by hard link where the file system allows, else by copy. Its identity is the hash of its files.
"""

from __future__ import annotations

import json
from pathlib import Path

from ilab.artifacts import Checkpoint
from ilab.core.files import take_over
from ilab.core.step import Counts, Found, fingerprint
from ilab.core.store import digest_file
from ilab.data import digest_text
from ilab.errors import InputError, SetupError

TINY = "tiny"
NEEDED = ("config.json", "tokenizer.json")


def find_base(locator: str, folder: Path) -> Found:
    """Resolve a base model: ``tiny``, or a directory relative to ``folder``.

    Raises InputError for anything that is not a Hugging Face directory with safetensors.
    """
    if locator == TINY:
        from ilab.training.tiny import TinySpec, primer

        digest = fingerprint(TINY, TinySpec().model_dump(mode="json"), digest_text(primer()))
        return Found(f"tiny:{digest}", TINY)
    path = folder / Path(locator).expanduser()
    if not path.is_dir():
        raise InputError(
            f"no such base model: {locator}",
            where="sdg_base_model",
            hint="give a Hugging Face directory on this machine, or `tiny` for the built-in one",
        )
    missing = [name for name in NEEDED if not (path / name).is_file()]
    if missing or not list(path.glob("*.safetensors")):
        raise InputError(
            f"not a Hugging Face model directory: {', '.join(missing) or '*.safetensors'} is missing",
            where=str(path),
            hint="the directory needs config.json, tokenizer.json and *.safetensors",
        )
    files = {file.name: digest_file(file) for file in model_files(path)}
    return Found(f"sha256:{fingerprint(files)}", str(path))


def model_files(path: Path) -> list[Path]:
    """The files of a model directory that belong to the model: no code, no pickles, no subfolders."""
    kept = (".safetensors", ".json", ".jinja", ".model", ".txt", ".md")
    return sorted(file for file in path.iterdir() if file.is_file() and file.suffix in kept)


def make_base(found: Found, out: Checkpoint) -> Counts:
    """Write the base model as a checkpoint."""
    if found.locator == TINY:
        from ilab.training.tiny import TinySpec, make_tiny

        parameters = make_tiny(out.model, TinySpec())
        out.write_choice({"name": TINY, "rule": "made on the spot, untrained", "weights": {}})
        return {"parameters": parameters}
    out.model.mkdir()
    for file in model_files(Path(found.locator)):
        take_over(str(file.resolve()), str(out.model / file.name))
    _refuse_code(out.model)
    out.write_choice({"name": Path(found.locator).name, "rule": "given", "weights": {}})
    return {"files": len(list(out.model.iterdir()))}


def _refuse_code(model: Path) -> None:
    """A model whose config asks for its own Python code cannot be loaded, so it is refused before any work."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    if "auto_map" in config:
        raise SetupError(
            "this model needs Python code from its own repository, which is never run",
            where=str(model / "config.json"),
            hint="use a model of a family that transformers knows, or remove auto_map if it does",
        )
