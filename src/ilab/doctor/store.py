"""A store in a bucket, and the model registry: whether they can be used as several machines use them.

An object of a name of its own is written to the bucket, and removed again: nothing else tells what keys may do, and
whether the server keeps to conditions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ilab.doctor.finding import Finding
from ilab.errors import IlabError, InputError, ServiceError

if TYPE_CHECKING:
    from ilab.config import Loaded

NEEDED = "everything"
PATIENCE = 5.0  # seconds that a server that is away is waited for
MOST = 4  # types of results that are named


def bucket(loaded: Loaded) -> Iterator[Finding]:
    """Whether the store's bucket can be read and written, on conditions; and what it holds. Nothing for a folder."""
    if not loaded.bucket:
        return
    from ilab.core.remote_check import taken, try_conditions
    from ilab.transfer.stores import objects_of

    name, what = "store in the bucket", "listed"
    try:
        objects = objects_of(loaded)
        held = taken(objects, PATIENCE)
        what = "written"
        kept = try_conditions(objects, PATIENCE)
    except IlabError as error:
        yield Finding(name, "bad", f"{loaded.bucket} cannot be {what}: {error.message}", NEEDED, _fix(error))
        return
    ignored = [said for said, keeps in (("If-None-Match", kept.absent), ("If-Match", kept.match)) if not keeps]
    if ignored:
        found = f"{loaded.bucket} ignores {' and '.join(ignored)}: two machines could write over each other's work"
        yield Finding(name, "bad", found, NEEDED, "use a newer version of the server, or: --store DIR")
        return
    size = sum(one.bytes for one in held.values())
    count = sum(one.results for one in held.values())
    largest = ", ".join(f"{kind} {one.bytes / 1e6:,.1f} MB" for kind, one in list(held.items())[:MOST])
    told = f"{count} results, {size / 1e6:,.1f} MB{f' ({largest})' if largest else ''}"
    yield Finding(name, "ok", f"{loaded.bucket} can be read and written, on conditions; {told}")


def registry(loaded: Loaded) -> Iterator[Finding]:
    """The model registry, where there is one."""
    from ilab.packaging.registry import is_there
    from ilab.resolvers import REGISTRY, registry_address, registry_of

    address = registry_address(loaded)
    earlier = loaded.home / REGISTRY
    if "://" in address and earlier.is_file():
        found = f"{earlier} is not used any more: the registry is {address}"
        fix = f"aws s3 cp {earlier} {address}   (where nobody registered there yet)   or rm {earlier}"
        yield Finding("earlier model registry", "note", found, "the versions that are in it", fix)
    if not is_there(address):
        return
    try:
        entries = registry_of(loaded).list()
    except IlabError as error:
        yield Finding("model registry", "bad", f"{address}: {error.message}", "registry, pipeline nightly", _fix(error))
        return
    models = len({entry.name for entry in entries})
    yield Finding("model registry", "ok", f"{address}: {len(entries)} versions of {models} models")


def _fix(error: IlabError) -> str:
    """What to type or mend, where the error says it."""
    if isinstance(error, ServiceError):
        return "ilab doctor   (again, when the server answers)   or --store DIR"
    if isinstance(error, InputError) and "nothing there" in error.message:
        return "aws s3 mb s3://BUCKET   or ilab config set where.store s3://BUCKET/PREFIX"
    return error.hint or "ilab config set where.store DIR"
