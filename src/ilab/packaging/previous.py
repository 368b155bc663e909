"""The release that a build is to replace, as a model that can be measured beside the new one.

    ""                   none: this is the first
    registry             the newest other version of the model in the registry that was not recalled
    registry:VERSION     that version, alias (stable) or stage (production)
    DIR                  a Hugging Face directory, or an OCI layout that ``package`` wrote

What it was taught is read from its package (leaf digests in ``lineage.json``): leaves that are the same today must not
get worse, the others must get better. Of a bare directory nobody knows, so all of today's leaves count as changed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ilab.artifacts import Candidates
from ilab.core.files import take_over
from ilab.core.step import Counts, Found, fingerprint
from ilab.core.store import digest_file
from ilab.errors import InputError
from ilab.packaging.lineage import NAME as LINEAGE
from ilab.packaging.oci import extract_layout, read_layout
from ilab.packaging.registry import Entry, Registry, semantic
from ilab.packaging.stages import Stages

PREVIOUS = "previous"
REGISTRY = "registry"
WHERE = "previous_model"
HINT = "give a Hugging Face directory, an OCI layout, or `registry` (ilab registry list)"
KEPT = (".safetensors", ".json", ".jinja", ".model", ".txt")


@dataclass(frozen=True)
class Releases:
    """The registered releases: ``registry`` opens their registry, where there is one; ``package`` brings the package
    of a release to this machine, or at least what it tells of itself, and gives its folder, which need not be there."""

    registry: Callable[[], Registry | None]
    package: Callable[[Entry], Path]


def find_previous(locator: str, folder: Path, releases: Releases, entry: tuple[str, str]) -> Found:
    """Resolve the previous release; ``entry`` is the (name, version) that is being built.

    Raises ``InputError`` where there is no such model.
    """
    address = ""
    if locator == REGISTRY or locator.startswith(f"{REGISTRY}:"):
        path, address = _registered(locator.partition(":")[2], releases, entry)
    else:
        path = folder / Path(locator).expanduser()
    if (path / "index.json").is_file() and (path / "oci-layout").is_file():
        details = {"path": str(path), "form": "oci", "address": address}
        return Found(f"oci:{read_layout(path).digest}", locator, details=details)
    if not _is_model(path):
        raise InputError(f"no such model: {locator}", where=WHERE, hint=HINT)
    files = {file.name: digest_file(file) for file in _files(path)}
    return Found(f"sha256:{fingerprint(files)}", locator, details={"path": str(path), "form": "directory"})


def bring_previous(found: Found, fetch: Callable[[str], Path]) -> Found:
    """``found`` as it lies on this machine; a registered release is brought by ``fetch``, by its address.

    Raises ``InputError`` where it is gone, or another one lies there.
    """
    details = found.details or {}
    if Path(details["path"]).is_dir():
        return found
    path = fetch(details["address"]) if details.get("address") else Path(details["path"])
    if not path.is_dir():
        hint = "make the plan again; a folder has to be where this runs, a registered release need not"
        raise InputError(f"the release is not here: {found.locator}", where=str(path), hint=hint)
    _check_same(path, found)
    return replace(found, details={**details, "path": str(path)})


def take_previous(found: Found | None, fetch: Callable[[str], Path], work: Path, out: Candidates) -> Counts:
    """Write the release as one candidate named ``previous``, with the digests of the leaves it was taught; or none.

    ``fetch`` brings a registered release's whole package by its address, of which the plan has had only the papers.
    Raises ``InputError`` where another one lies there by now.
    """
    if found is None:
        out.write_index([])
        return {"models": 0}
    details = found.details or {}
    path, leaves = Path(details["path"]), dict[str, str]()
    if details["form"] == "oci":
        shutil.rmtree(work / PREVIOUS, ignore_errors=True)
        whole = fetch(details["address"]) if details.get("address") else path
        whole = whole if whole.is_dir() else path
        _check_same(whole, found)
        path = extract_layout(whole, work / PREVIOUS)
        if not _is_model(path):
            raise InputError(f"this package holds no model in safetensors: {found.locator}", where=WHERE, hint=HINT)
        leaves = _taught(path / LINEAGE)
    target = out.path / PREVIOUS
    target.mkdir()
    for file in _files(path):
        take_over(str(file.resolve()), str(target / file.name))
    out.write_index([{"name": PREVIOUS, "epoch": None, "step": None, "loss": None, "leaves": leaves}])
    return {"models": 1, "leaves": len(leaves)}


def _check_same(path: Path, found: Found) -> None:
    if f"oci:{read_layout(path).digest}" != found.digest:
        message = "the release there is no longer the one that the plan was made with"
        raise InputError(message, where=(found.details or {}).get("address") or str(path), hint="make the plan again")


def _is_model(path: Path) -> bool:
    return path.is_dir() and (path / "config.json").is_file() and any(path.glob("*.safetensors"))


def _files(path: Path) -> list[Path]:
    """What belongs to the model; not the papers that a package adds."""
    papers = {LINEAGE, "evaluation.json", "gate.json"}
    return sorted(file for file in path.iterdir() if file.is_file() and file.suffix in KEPT and file.name not in papers)


def _taught(file: Path) -> dict[str, str]:
    """Leaf to digest, as the package's lineage says; empty for packages that do not say."""
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    for name in ("taxonomy", "leaves"):
        found = found.get(name) if isinstance(found, dict) else None
    return {str(name): str(digest) for name, digest in found.items()} if isinstance(found, dict) else {}


def _registered(version: str, releases: Releases, entry: tuple[str, str]) -> tuple[Path, str]:
    """The package of a release, on this machine and by its address."""
    name, building = entry
    registry = releases.registry()
    stages = Stages(registry) if registry else None
    known = [one for one in stages.registry.list() if one.name == name] if stages else []
    if version and stages:
        meant = stages.aliases(name).get(version, version)
        wanted = [one for one in known if meant in (one.version, one.stage)]
    else:
        usable = (one for one in known if one.version != building and not one.recalled)
        wanted = sorted(usable, key=lambda one: semantic(one.version))
    if not wanted:
        other = f"version {version}" if version else f"other version than {building}"
        raise InputError(
            f"the registry has no {other} of {name}",
            where=WHERE,
            hint="see what there is: ilab registry list; the first release replaces none: -p previous_model=",
        )
    path, address = releases.package(wanted[-1]), wanted[-1].uri.removeprefix("oci:")
    if not path.is_dir():
        raise InputError(
            f"the package of {name} {wanted[-1].version} is gone",
            where=address,
            hint="build that version again, or give another: -p previous_model=registry:VERSION, or a folder",
        )
    return path, address
