"""ZIP archives that came from somebody else, and the XML in them: read in memory through one guard.

Nothing is ever written to a disk. Refused are archives with names that lead out of a folder, links, passwords, too many
members, too much content, or content packed tighter than documents are; and XML that declares entities. XML is parsed
without network, without DTDs and without libxml2's huge mode.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import Any

from lxml import etree

from ilab.errors import InputError

MAX_MEMBERS = 10_000
MAX_TOTAL = 256 * 2**20  # bytes of all members together
MAX_MEMBER = 64 * 2**20  # bytes of one member that is read
MAX_NAME = 200  # characters of a member's name
MAX_RATIO = 200  # times that a member may grow, once it is larger than:
_SMALL = 2**20
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, ValueError, OverflowError)
_HINT = "save it again in the program that it was written with"


class Archive:
    """An open archive. ``names`` are its members' names, folders left out."""

    def __init__(self, data: bytes) -> None:
        """Raises ``InputError`` for what is no archive, or one that is refused."""
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            members = self._zip.infolist()
        except _BROKEN as error:
            raise InputError(f"is no ZIP archive that can be read: {error}", hint=_HINT) from error
        if len(members) > MAX_MEMBERS:
            raise InputError(f"holds {len(members)} files; at most {MAX_MEMBERS} are read")
        total = 0
        for member in members:
            _check_member(member)
            total += member.file_size
        if total > MAX_TOTAL:
            raise InputError(f"holds {total / 2**20:.0f} MiB unpacked; at most {MAX_TOTAL // 2**20} are read")
        self._left = MAX_TOTAL
        self._members = {member.filename: member for member in members if not member.is_dir()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def read(self, name: str) -> bytes:
        """The contents of a member. Raises ``InputError`` where it is missing, damaged or too large."""
        member = self._members.get(name)
        if member is None:
            raise InputError(f"lacks {name[:MAX_NAME]}", hint=_HINT)
        self._left -= member.file_size
        if member.file_size > MAX_MEMBER or self._left < 0:
            raise InputError(f"{name} in it has {member.file_size / 2**20:.0f} MiB, which is too much")
        try:
            with self._zip.open(member) as stream:
                return stream.read(member.file_size)
        except _BROKEN as error:
            raise InputError(f"is damaged at {name}: {str(error)[:200]}", hint=_HINT) from error

    def xml(self, name: str) -> etree._Element:
        """The root of a member's XML. Raises ``InputError`` where it is missing, no XML, or declares entities."""
        return parse_xml(self.read(name), name)


def parse_xml(data: bytes, name: str) -> etree._Element:
    """The root of an XML text. ``name`` is for errors. Raises ``InputError``."""
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        reason = str(error)[:200]  # it quotes the file
        raise InputError(f"is damaged at {name}: {reason}", hint=_HINT) from error
    dtd: Any = root.getroottree().docinfo.internalDTD
    if dtd is not None and dtd.entities():
        raise InputError(f"{name} in it declares XML entities, which are refused", hint=_HINT)
    return root


def resolved(base: str, target: str) -> str:
    """The member that ``target`` (a relative reference) means when it stands in the member ``base``."""
    path = target.partition("#")[0].partition("?")[0]
    parts = [] if path.startswith("/") else list(PurePosixPath(base).parent.parts)
    for part in path.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return "/".join(parts)


def _check_member(member: zipfile.ZipInfo) -> None:
    """Refuses a member that a document does not have."""
    name = member.orig_filename
    parts = name.split("/")
    if len(name) > MAX_NAME:
        raise InputError(f"holds a file whose name has {len(name)} characters; at most {MAX_NAME} are read", hint=_HINT)
    shown = ascii(name)[:MAX_NAME]
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or parts[0].endswith(":"):
        raise InputError(f"holds a file with the name {shown}, which leads out of it")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise InputError(f"holds a link ({shown})")
    if member.flag_bits & 0x1:
        raise InputError("is encrypted", hint="save it without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"holds {shown}, packed in a way that documents are not", hint=_HINT)
    packed = max(member.compress_size, 1)
    if member.file_size > _SMALL and member.file_size > MAX_RATIO * packed:
        ratio = member.file_size // packed
        raise InputError(f"holds {shown}, packed {ratio} times; that is an archive bomb, not a document")
