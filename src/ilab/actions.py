"""Compositions across stages: from a configuration to a plan, from a plan's results to a report.

They stand above the stages and below the command line, so a notebook can call what ``ilab run`` calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ilab.config import Loaded, Where
from ilab.core.pipeline import Pipeline, Plan, build, nearest, read_pipeline
from ilab.core.step import Found
from ilab.errors import InputError
from ilab.parameters import Given, collect, derive
from ilab.steps import STEPS


@dataclass(frozen=True)
class Build:
    """A pipeline with its parameters filled in and every key known."""

    loaded: Loaded
    plan: Plan
    given: Mapping[str, Given]
    where: Where
    notes: tuple[str, ...]  # decisions worth a line: which flow was chosen and why


def shipped_pipelines() -> dict[str, Path]:
    folder = Path(str(resources.files("ilab") / "pipelines"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_pipeline(name: str, base: Path) -> Path:
    """A shipped pipeline's name, or the path of a file relative to ``base``."""
    shipped = shipped_pipelines()
    if name in shipped:
        return shipped[name]
    path = base / name
    if path.is_file():
        return path
    raise InputError(f"no pipeline {name!r}", where="pipeline", hint=nearest(name, shipped, "shipped pipelines"))


def prepare(loaded: Loaded, parameters: Mapping[str, Any] | None = None) -> Build:
    """Resolve everything a build depends on and compute every key. Makes nothing, calls no teacher.

    ``parameters`` are those of the command line. Raises InputError(s) for anything a person has to mend first.
    """
    config = loaded.config
    pipeline = read_pipeline(
        find_pipeline(config.pipeline, loaded.base), lambda name: find_pipeline(name, loaded.base)
    )
    given = collect(
        {
            pipeline.path: pipeline.parameters,
            "ilab.yaml": config.parameters,
            "-p": parameters or {},
        }
    )
    values = {name: item.value for name, item in given.items()}
    for name, what in (("sdg_repo_url", "a taxonomy"), ("sdg_base_model", "a base model")):
        if not values[name]:
            raise InputError(
                f"no {name} given: the build needs {what}",
                where=pipeline.path,
                hint=f"add `parameters: {{{name}: ...}}` to ilab.yaml, or -p {name}=...",
            )
    notes = _choose_flow(values, config.where)
    where = _where(loaded, values)
    plan = build(pipeline, STEPS, derive(values), _resolvers(loaded, where))
    return Build(loaded, plan, given, where, notes)


def _choose_flow(values: dict[str, Any], where: Where) -> tuple[str, ...]:
    """Fill in ``sdg_pipeline`` where it was left open."""
    notes: list[str] = []
    if not values["sdg_pipeline"]:
        values["sdg_pipeline"] = "simple" if where.teacher else "extractive"
        if not where.teacher:
            notes.append(
                "no teacher is configured: samples are made by rule from the text (flow `extractive`, not a language "
                "model). For a teacher: --set where.teacher.url=http://127.0.0.1:8000/v1 -p sdg_teacher_model=NAME"
            )
    if values["sdg_teacher_model"] and not where.teacher:
        raise InputError(
            "sdg_teacher_model is given, but no endpoint serves it",
            where="where.teacher",
            hint="add --set where.teacher.url=http://127.0.0.1:8000/v1",
        )
    return tuple(notes)


def _where(loaded: Loaded, values: Mapping[str, Any]) -> Where:
    """The settings about where, with paths made absolute and the requests in flight filled in."""
    where = loaded.config.where
    update: dict[str, Any] = {"store": str(loaded.store)}
    registry = where.registry or str(loaded.store.parent / "registry.sqlite")
    update["registry"] = str(loaded.path(registry))
    if where.cache:
        update["cache"] = str(loaded.path(where.cache))
    if where.teacher and where.teacher.in_flight is None:
        in_flight = values["sdg_batch_size"] * values["sdg_num_workers"]
        update["teacher"] = where.teacher.model_copy(update={"in_flight": in_flight})
    return where.model_copy(update=update)


def _resolvers(loaded: Loaded, where: Where) -> dict[str, Any]:
    from ilab.documents.locate import find_documents
    from ilab.sdg.flow import find_flow
    from ilab.taxonomy.locate import find_taxonomy
    from ilab.taxonomy.read import read_found
    from ilab.training.base import find_base

    taxonomies: dict[str, Found] = {}

    def taxonomy(locator: str) -> Found:
        if locator not in taxonomies:
            taxonomies[locator] = find_taxonomy(locator, loaded.base, where)
        return taxonomies[locator]

    def documents(locator: str) -> Found:
        found = taxonomy(locator)
        return find_documents(read_found(found).leaves, Path((found.details or {})["path"]), where)

    return {
        "taxonomy": taxonomy,
        "documents": documents,
        "model": lambda locator: find_base(locator, loaded.base),
        "flow": lambda locator: find_flow(locator, loaded.base),
    }
