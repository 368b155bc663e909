"""The image that a modelcar stands on: from a registry, or an image layout on this disk. Its digest is identity."""

from __future__ import annotations

from pathlib import Path

from ilab.core.events import Emit
from ilab.core.step import Found, Site
from ilab.errors import InputError
from ilab.packaging.oci import read_layout
from ilab.packaging.publish import Reach, place_of, registry_at
from ilab.transfer.address import parse
from ilab.transfer.pull import pull_image
from ilab.transfer.registry import LATEST

WHERE = "output_modelcar_base_image"


def find_image(locator: str, folder: Path, reach: Reach) -> Found:
    """Resolve a base image. Raises ``InputError`` where there is none, ``ServiceError`` for a registry that fails."""
    place = place_of(locator, folder)
    if isinstance(place, Path):
        if not (place / "oci-layout").is_file():
            hint = "give HOST/PATH:TAG of a registry, or the folder of an OCI image layout; empty: no base image"
            raise InputError(f"there is no image: {locator}", where=WHERE, hint=hint)
        return Found(f"oci:{read_layout(place).digest}", locator, details={"path": str(place)})
    with registry_at(place, reach) as registry:
        digest = registry.manifest(place.revision or LATEST).digest
    return Found(f"oci:{digest}", locator, details={"address": f"{place}@{digest}"})


def take_image(digest: str, reach: Reach, site: Site) -> Path | None:
    """The layout of the base image with this digest, None for none."""
    if not digest:
        return None
    return _bring(site.locate(digest), reach, site.work, site.emit)


def bring_image(locator: str, folder: Path, reach: Reach, work: Path, emit: Emit) -> Path | None:
    """The layout of the image that ``locator`` means, below ``work`` if it comes from a registry; None for none."""
    return _bring(find_image(locator, folder, reach), reach, work, emit) if locator else None


def _bring(found: Found, reach: Reach, work: Path, emit: Emit) -> Path:
    details = found.details or {}
    if "path" in details:
        return Path(details["path"])
    address = parse(details["address"])
    with registry_at(address, reach) as registry:
        pull_image(registry, address.revision, work / "base-image", emit)
    return work / "base-image"
