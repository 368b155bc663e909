"""From the configuration to the store: a folder, or a bucket with a mirror on this machine.

Everybody who needs the store opens it here.
"""

from __future__ import annotations

from pathlib import Path

from ilab.config import S3, Loaded
from ilab.core.objects import Objects
from ilab.core.store import Store
from ilab.errors import InputError


def open_store(loaded: Loaded) -> Store:
    """The store of ``where.store``. Asks no server yet.

    Raises ``InputError`` for an address that is none, ``SetupError`` for a folder that cannot be written or boto3
    that is missing.
    """
    where = loaded.config.where
    if not loaded.bucket and "://" in (where.store or ""):
        hint = "give a folder, or s3://BUCKET/PREFIX"
        raise InputError(f"{where.store} is no place for a store", where="where.store", hint=hint)
    if not loaded.bucket:
        return Store(loaded.store)
    from ilab.core.remote_store import RemoteStore

    return RemoteStore(loaded.store, objects_of(loaded))


def objects_of(loaded: Loaded) -> Objects:
    """The objects of a store in a bucket. Asks no server yet."""
    from ilab.transfer.address import parse
    from ilab.transfer.s3_objects import S3Objects

    where = loaded.config.where
    return S3Objects(parse(loaded.bucket), where.s3_endpoint or "", where.web)


def has_it(loaded: Loaded, address: str) -> bool:
    """Whether an artifact of this address is one of the project's own store, from which a step fetches it itself."""
    return open_store(loaded).named(address) is not None


def artifact_at(loaded: Loaded, address: str, *, whole: bool = True) -> Path:
    """The folder of an artifact, by its path or its address in a bucket, from where it is fetched: all of it, or the
    small files alone, which tell of it. It need not be there.

    A path of another machine's mirror means the same artifact in the same store.
    """
    path = Path(address)
    if path.is_dir() or not (loaded.bucket or address.startswith(S3)):
        return path
    store = open_store(loaded)
    named = store.named(address)
    if named is None and address.startswith(S3):  # of another bucket than this project's
        store = open_store(loaded.with_store(address.rsplit("/", 2)[0]))
        named = store.named(address)
    record = store.record(*named) if named else None
    if record is None:
        return path
    return store.contents(record) if whole else store.papers(record)


def latest_of(loaded: Loaded, step: str) -> Path:
    """The folder of what a step made last, fetched where it lies in a bucket. It need not be there."""
    if loaded.bucket:
        store = open_store(loaded)
        record = store.latest(step)
        if record is not None:
            return store.contents(record)
    return loaded.store / "latest" / step
