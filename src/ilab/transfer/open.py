"""From an address to the source that reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ilab.config import WebWhere, Where
from ilab.transfer.address import Address
from ilab.transfer.source import Source


@dataclass(frozen=True)
class Access:
    """How to reach the places of models; ``token`` is a reference to the hub's, ``base`` where file:// begins."""

    web: WebWhere
    token: str = ""
    s3_endpoint: str = ""
    base: Path = Path()


def access_of(where: Where, base: Path = Path()) -> Access:
    """The way that the configuration describes; the hub's token is that in ``HF_TOKEN``."""
    return Access(where.web, s3_endpoint=where.s3_endpoint or "", base=base)


@contextmanager
def open_source(address: Address, access: Access) -> Iterator[Source]:
    """The source behind ``address``; its connections are closed at the end."""
    if address.kind == "file":
        from ilab.transfer.files import Folder

        yield Folder(address, access.base)
        return
    if address.kind == "s3":
        from ilab.transfer.s3 import Bucket

        yield Bucket(address, access.s3_endpoint, access.web)
        return
    from ilab.transfer.huggingface import Hub, hub_token
    from ilab.transfer.registry import Image, Registry
    from ilab.transfer.web import Http

    http = Http(access.web)
    try:
        yield Hub(http, address, hub_token(access.token)) if address.kind == "hf" else Image(Registry(http, address))
    finally:
        http.close()
