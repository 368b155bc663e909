"""What turns the locators of a pipeline file into digests: one resolver for each kind of thing outside the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ilab.config import Loaded, PackageWhere, Where
from ilab.core.git import server_of
from ilab.core.step import Found
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.packaging.registry import Entry, Registry

REGISTRY = "registry.sqlite"  # the model registry, beside the store or in its bucket


def registry_address(loaded: Loaded) -> str:
    """Where the model registry is, as a path or ``s3://…``: ``where.registry``, else beside a store in a folder and
    in a store in a bucket, so that all who share the store share it."""
    given = loaded.config.where.registry
    if given:
        return given if "://" in given else str(loaded.path(given))
    return f"{loaded.bucket}/{REGISTRY}" if loaded.bucket else str(loaded.store.parent / REGISTRY)


def registry_of(loaded: Loaded) -> Registry:
    """The model registry of this project."""
    from ilab.packaging.registry import open_registry

    return open_registry(registry_address(loaded), loaded.config.where)


def package_of(loaded: Loaded, entry: Entry, *, whole: bool = True) -> Path:
    """The folder with the package of a registered release, which need not be there any more. One that lies in a bucket
    is fetched, ``whole`` or without its weights. Raises ``ServiceError`` where the bucket is out of reach."""
    from ilab.transfer.stores import artifact_at

    return artifact_at(loaded, entry.uri.removeprefix("oci:"), whole=whole)


def where_packages_go(loaded: Loaded, values: Mapping[str, Any]) -> PackageWhere:
    """``where.package``, with the parameters where it says nothing, and paths made absolute. A folder that packages go
    to is relative to the project; so is a file of logins. A secret's name that is no file here is left out: docker's
    usual places are looked into then."""
    from ilab.packaging.publish import place_of

    where = loaded.config.where.package
    given = where.push or values["output_oci_model_uri"]
    place = place_of(given, loaded.base) if given else ""
    logins = loaded.path(where.logins or values["output_oci_registry_secret"])
    if where.logins and not logins.exists():
        raise InputError("there is no such file", where=f"where.package.logins: {logins}", hint="correct the path")
    return where.model_copy(
        update={
            "push": str(place) if isinstance(place, Path) else given,
            "logins": str(logins) if logins.exists() else "",
            "model_registry": where.model_registry or values["output_model_registry_api_url"],
            "model_registry_name": where.model_registry_name or values["output_model_registry_name"],
        }
    )


def resolvers(loaded: Loaded, where: Where, values: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """What turns locators into digests, under the parameters' ``values``; ``notes`` are added to."""
    since = values["taxonomy_base"]
    from ilab.documents.locate import find_documents, fitting
    from ilab.sdg.benchmarks import find_benchmarks
    from ilab.sdg.recipe import find_recipe
    from ilab.sdg.stage import find_flow, find_items_flow
    from ilab.taxonomy.locate import find_taxonomy, read_found
    from ilab.training.base import find_template
    from ilab.training.rows import find_rows

    taxonomies: dict[str, Found] = {}

    def taxonomy(locator: str) -> Found:
        if locator not in taxonomies:
            taxonomies[locator] = find_taxonomy(locator, loaded.base, where, since, fitting)
        return taxonomies[locator]

    def documents(locator: str) -> Found:
        tree = taxonomy(locator)
        reading, origin = read_found(tree), tree.details or {}
        server = server_of(origin.get("address", ""))
        found = find_documents(reading.leaves, reading.root, where, base=loaded.base, login=server)
        details = dict(found.details or {})
        notes.extend(json.loads(details["notes"]))
        if "address" in origin:  # the leaves' own files are that commit's
            trees = {**json.loads(details["trees"]), origin["root"]: (origin["address"], tree.revision)}
            details["trees"] = json.dumps(trees, sort_keys=True)
        return replace(found, details=details)

    def flow(locator: str) -> Found:
        found = find_flow(locator, loaded.base, values["sdg_max_tokens"])
        notes.extend(note for note in [(found.details or {}).get("note")] if note)
        return found

    def recipe(locator: str) -> Found:
        found = find_recipe(locator, loaded.base)
        notes.extend(json.loads((found.details or {})["notes"]))
        return found

    return {
        "taxonomy": taxonomy,
        "documents": documents,
        **_models(loaded, where, values, notes),
        "chat-template": lambda choice: find_template(choice, loaded.base),
        "recipe": recipe,
        "rows": lambda locator: find_rows(locator, loaded.base),
        "flow": flow,
        "items-flow": find_items_flow,
        "benchmarks": lambda locator: find_benchmarks(locator, loaded.base),
        "image": lambda locator: _image(locator, loaded, where),
        **_measuring(loaded, (values["output_model_name"], values["output_model_version"])),
    }


def _models(loaded: Loaded, where: Where, values: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Models, each looked for once, and tokenizers: that of the model to train is looked for where the model is."""
    from ilab.documents.stage import find_tokenizer
    from ilab.training.base import check_template, find_base
    from ilab.transfer.open import access_of

    base, models = values["sdg_base_model"], dict[str, Found]()

    def model(locator: str) -> Found:
        if locator not in models:
            models[locator] = find_base(locator, loaded.base, access_of(where, loaded.base))
            missing = int((models[locator].details or {}).get("missing", 0))
            if missing:
                notes.append(f"{locator}: {missing / 1e6:,.1f} MB are downloaded when the step that takes it runs")
            if locator == base:
                chosen = values["train_chat_template"], loaded.base, values["train_method"]
                notes.extend(check_template(models[locator], *chosen))
        return models[locator]

    def tokenizer(locator: str) -> Found:
        if locator == base:
            folder = (model(locator).details or {}).get("folder")  # what is wrong with the model itself is said first
            if folder:
                found = find_tokenizer(folder, loaded.base)
                return replace(found, locator=locator, details={**(found.details or {}), "address": locator})
        return find_tokenizer(locator, loaded.base)

    return {"tokenizer": tokenizer, "model": model}


def _image(locator: str, loaded: Loaded, where: Where) -> Found:
    from ilab.packaging.base_image import find_image
    from ilab.packaging.publish import reach_of

    return find_image(locator, loaded.base, reach_of(where))


def _measuring(loaded: Loaded, entry: tuple[str, str]) -> dict[str, Any]:
    """What models are measured on and beside; ``entry`` is the (name, version) that is being built."""
    from ilab.evaluation.general import find_general
    from ilab.evaluation.judging import find_marks, find_mt_bench
    from ilab.packaging.previous import Releases, find_previous
    from ilab.packaging.registry import is_there
    from ilab.transfer.stores import has_it

    releases = Releases(
        lambda: registry_of(loaded) if is_there(registry_address(loaded)) else None,
        lambda release: package_of(loaded, release, whole=not has_it(loaded, release.uri.removeprefix("oci:"))),
    )
    return {
        "general": lambda locator: find_general(locator, loaded.base),
        "marks": lambda locator: find_marks(locator, loaded.base),
        "mt-bench": lambda locator: find_mt_bench(locator, loaded.base),
        "earlier": lambda locator: _earlier(locator, loaded, entry[0]),
        "previous": lambda locator: find_previous(locator, loaded.base, releases, entry),
    }


def _earlier(locator: str, loaded: Loaded, name: str) -> Found:
    """The rows that a registered version was taught: ``registry:VERSION``, or an alias of it."""
    from ilab.packaging.stages import Stages
    from ilab.sdg.earlier import find_earlier
    from ilab.transfer.stores import open_store

    entry = Stages(registry_of(loaded)).find(name, locator.partition(":")[2])
    return find_earlier(f"{name} {entry.version}", entry.lineage, open_store(loaded))
