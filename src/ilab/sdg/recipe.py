"""Recipes: which datasets made before go into a phase beside the taxonomy's own samples, and how much of each.

    datasets:
      - path: instructlab_community.jsonl     # relative to the recipe's folder
        sampling_size: 0.25                   # a float is a share (1.0: all), an int a count
    metadata:
      sys_prompt: You are …                   # the system message of every row of the phase

The form is instructlab-sdg's, and its files are accepted unchanged. What a recipe asks for is drawn without
repetition as long as there are rows enough. Identity is what the files say, never where they lie or how they are
called.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, ValidationError

from ilab.core.step import Found, fingerprint
from ilab.data import TrainingRow
from ilab.errors import InputError, InputErrors
from ilab.sdg.precomputed import Precomputed, count_of, survey
from ilab.sdg.source import explain, read_source

SHAPE = "a recipe is a mapping with datasets and metadata"


class Entry(BaseModel):
    """One dataset and how much of it. Fields as upstream names them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(min_length=1)
    sampling_size: StrictInt | StrictFloat = Field(1.0, ge=0, allow_inf_nan=False)


class Metadata(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sys_prompt: str | None = None


class Form(BaseModel):
    """The recipe file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    datasets: tuple[Entry, ...] = ()
    metadata: Metadata = Metadata()


@dataclass(frozen=True)
class Recipe:
    """A recipe whose datasets have been read through. ``system`` is None where it names no system message."""

    datasets: tuple[tuple[Precomputed, int], ...]  # with the rows wanted of each
    system: str | None = None

    @property
    def digest(self) -> str:
        """What the recipe makes of a phase: contents and counts."""
        return fingerprint([[found.digest, wanted] for found, wanted in self.datasets], self.system)

    @property
    def count(self) -> int:
        return sum(wanted for _, wanted in self.datasets)

    def rows(self, seed: int) -> Iterator[TrainingRow]:
        """The rows of all datasets, read as they are asked for."""
        for found, wanted in self.datasets:
            yield from found.rows(wanted, seed, self.system)

    def told(self) -> dict[str, Any]:
        """Rows of each dataset: there, left out for want of an answer, taken, and taken more than once."""
        return {
            found.name: {
                "found": len(found.ids),
                "empty": found.empty,
                "rows": wanted,
                "repeated": max(0, wanted - len(found.ids)),
            }
            for found, wanted in self.datasets
        }

    def notes(self) -> list[str]:
        """What a person should know before it is used."""
        short_of = [(found, wanted) for found, wanted in self.datasets if wanted > len(found.ids)]
        few = [
            f"{found.path.name} has {len(found.ids):,} rows and the recipe asks for {wanted:,}: some are seen again"
            for found, wanted in short_of
        ]
        empty = [
            f"{found.path.name}: rows without an answer, which are left out: {found.empty:,}"
            for found, _ in self.datasets
            if found.empty
        ]
        return few + empty


def read_recipe(path: Path) -> Recipe:
    """Read a recipe and its datasets. Raises ``InputError(s)`` with ``file:line`` of what is wrong in the recipe."""
    source = read_source(path, shape=SHAPE)
    content = {name: value for name, value in source.content.items() if value is not None}  # `datasets:` and no more
    try:
        form = Form.model_validate(content)
    except ValidationError as error:
        raise InputErrors(explain(error, Form, source, ())) from error
    found: dict[str, int] = {}
    datasets = []
    for number, entry in enumerate(form.datasets):
        where = source.at(("datasets", number, "path"))
        file = path.parent / Path(entry.path).expanduser()
        if not file.is_file():
            raise InputError(f"there is no dataset {entry.path!r}", where=where, hint=f"looked for {file}")
        dataset = survey(file)
        if dataset.digest in found:
            raise InputError(
                f"{entry.path!r} holds the same rows as {form.datasets[found[dataset.digest]].path!r}",
                where=where,
                hint="name it once; a sampling_size above 1.0 takes rows more than once",
            )
        found[dataset.digest] = number
        datasets.append((dataset, count_of(entry.sampling_size, len(dataset.ids))))
    return Recipe(tuple(datasets), form.metadata.sys_prompt)


def find_recipe(locator: str, folder: Path) -> Found:
    """Resolve a recipe's path, relative to ``folder``. Reads and checks all of it; ``details`` has notes for people."""
    path = folder / Path(locator).expanduser()
    recipe = read_recipe(path)
    return Found(f"recipe:{recipe.digest}", locator, details={"path": str(path), "notes": json.dumps(recipe.notes())})


def found_recipe(digest: str, found: Found) -> Recipe:
    """The recipe of a plan, read again. Raises ``InputError`` where a file has changed since the plan was made."""
    path = Path((found.details or {})["path"])
    recipe = read_recipe(path)
    if f"recipe:{recipe.digest}" != digest:
        raise InputError(
            "the recipe or one of its datasets has changed since the run began",
            where=str(path),
            hint="run the same command again",
        )
    return recipe
