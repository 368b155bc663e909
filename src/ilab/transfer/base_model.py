"""A model that a build starts from, given by address: ``s3://``, ``oci://``, ``hf://``.

What a build is made from is known by its contents, not by its address. A source that names the SHA-256 of its large
files (the hub, a registry with a layer per file, objects that `ilab` uploaded) lets that be known from the small ones
alone; they are fetched when a plan is made, the rest when it is run. Anywhere else the whole model comes first. All of
it goes to the models folder, where a download goes on after an interruption and every byte is checked.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ilab.core.events import Emit
from ilab.core.files import take_over
from ilab.errors import InputError
from ilab.transfer.address import Address, parse
from ilab.transfer.choose import Choice, choose
from ilab.transfer.fetch import fetch, fetch_some, plan
from ilab.transfer.open import Access, open_source
from ilab.transfer.shelf import OWN, Model, Shelf, models_home
from ilab.transfer.source import Source

SMALL = 64 << 20  # bytes of a file up to which it is fetched for a plan: configuration, tokenizer, papers
WHERE = "sdg_base_model"
REMOTE = ("s3://", "oci://", "docker://", "hf://")


@dataclass(frozen=True)
class Look:
    """What is at an address: name -> SHA-256. ``folder`` has the small files; ``missing`` bytes are not here yet."""

    revision: str
    files: dict[str, str]
    folder: Path
    missing: int


def is_remote(locator: str) -> bool:
    return locator.startswith(REMOTE)


def look(locator: str, access: Access, emit: Emit) -> Look:
    """What is at ``locator``; fetches as little as tells it.

    Raises ``InputError`` for an address without such a model, ``ServiceError`` for a server, ``SetupError`` for a disk.
    """
    with _opened(locator, access) as (source, choice, shelf):
        here = _present(choice, shelf)
        large = [file for file in choice.listing.files if file.size > SMALL]
        told = all(file.checksum.kind == "sha256" for file in large)
        if here is None and (not told or any(file.packed for file in choice.listing.files)):
            here = fetch(source, choice, shelf, emit).model
        if here is not None and here.record is not None:
            known = {name: file.sha256 for name, file in here.record.files.items()}
            return Look(choice.listing.revision, known, here.path, 0)
        small = [file for file in choice.listing.files if file.size <= SMALL]
        came = fetch_some(source, choice, shelf, small, emit)
        known = {file.name: file.checksum.value for file in large}
        known.update({name: sha256 for name, (_, sha256) in came.items()})
        folder = shelf.root / OWN / "heads" / choice.listing.name.replace("/", "%")
        shutil.rmtree(folder, ignore_errors=True)
        for name, (path, _) in came.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            take_over(str(path), str(folder / name))
        return Look(choice.listing.revision, known, folder, plan(choice, shelf).missing)


def bring(locator: str, access: Access, emit: Emit) -> Path:
    """The folder of the model at ``locator``, fetched where it is not here. Raises as :func:`look`."""
    with _opened(locator, access) as (source, choice, shelf):
        return fetch(source, choice, shelf, emit).model.path


@contextmanager
def _opened(locator: str, access: Access) -> Iterator[tuple[Source, Choice, Shelf]]:
    address, shelf = parse(locator), Shelf(models_home())
    with open_source(address, access) as source:
        choice = choose(source.listing())
        if choice.single:
            hint = "give a model with safetensors: a GGUF file cannot be trained"
            raise InputError("there is a GGUF file there", where=locator, hint=hint)
        if _stranger(choice, shelf):
            choice = replace(choice, listing=replace(choice.listing, name=_name(address)))
        yield source, choice, shelf


def _stranger(choice: Choice, shelf: Shelf) -> bool:
    """Whether a name that says little (the end of a prefix) is that of a model from elsewhere."""
    if choice.listing.source.startswith("hf://"):
        return False
    named = shelf.find(choice.listing.name)
    return named is None or named.record is None or named.record.source != choice.listing.source


def _name(address: Address) -> str:
    """A name in the models folder that says where a model is from."""
    parts = (re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-.") for part in (address.host, address.path))
    return "/".join(part for part in parts if part)


def _present(choice: Choice, shelf: Shelf) -> Model | None:
    return shelf.find(choice.listing.name) if plan(choice, shelf).present else None
