"""What a person writes for a place of models.

OWNER/NAME  OWNER/NAME::REVISION  hf://OWNER/NAME    the hub (HF_ENDPOINT)
oci://HOST[:PORT]/PATH[:TAG|@sha256:…]  docker://…   a registry
s3://BUCKET/PREFIX                                   an object store
file:///FOLDER  file://FILE.gguf                     this machine
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from ilab.errors import InputError

Kind = Literal["hf", "oci", "s3", "file"]
FORMS = "OWNER/NAME, oci://HOST/PATH, s3://BUCKET/PREFIX or file:///FOLDER"
_SCHEMES: dict[str, Kind] = {"hf": "hf", "oci": "oci", "docker": "oci", "s3": "s3", "file": "file"}
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./+-]{0,199}", re.ASCII)
_OCI = re.compile(  # distribution-spec 1.1: host, name, tag or digest
    r"(?P<host>[A-Za-z0-9.-]+(?::\d+)?|\[[0-9a-fA-F:]+\](?::\d+)?)/(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,62}", re.ASCII)


@dataclass(frozen=True)
class Address:
    """``host`` is a registry's or the bucket; ``path`` the repository, prefix or folder; ``revision`` may be empty."""

    kind: Kind
    path: str
    host: str = ""
    revision: str = ""

    def __str__(self) -> str:
        slash = "/" if self.host and self.path else ""
        return f"{self.kind}://{self.host}{slash}{self.path}"


def parse(text: str, release: str = "") -> Address:
    """What ``text`` means, with the revision that it or ``release`` names. Raises ``InputError`` for what it cannot."""
    bare, mark, revision = text.partition("::")
    if mark and release:
        raise InputError("the revision is given twice", where=text, hint="give ::REVISION or --release")
    revision = revision if mark else release
    if (mark or release) and not (_REVISION.fullmatch(revision) and ".." not in revision):
        raise InputError(f"{revision!r} is no branch, tag or commit", where=text, hint="like OWNER/NAME::v1.0")
    scheme, separator, rest = bare.partition("://")
    if not separator:
        scheme, rest = "hf", bare
    if scheme not in _SCHEMES:
        raise InputError(f"{scheme}:// is no place that models come from", where=text, hint=f"give {FORMS}")
    kind = _SCHEMES[scheme]
    reading = {"hf": _hub, "oci": _oci, "s3": _s3, "file": _file}[kind]
    return reading(rest, revision)


def _hub(rest: str, revision: str) -> Address:
    if not _HUB.fullmatch(rest) or ".." in rest:
        raise InputError(f"{rest!r} names no model", where="--repository", hint=f"give {FORMS}")
    return Address("hf", rest, revision=revision)


def _oci(rest: str, revision: str) -> Address:
    match = _OCI.fullmatch(rest)
    if match is None:
        hint = "like oci://registry.example.com/team/model:1.0, in small letters"
        raise InputError(f"oci://{rest} names no image", where="--repository", hint=hint)
    named = match["digest"] or match["tag"] or ""
    if named and revision:
        raise InputError("the tag is given twice", where=f"oci://{rest}", hint="give it in the name or with --release")
    return Address("oci", match["name"], match["host"], named or revision)


def _s3(rest: str, revision: str) -> Address:
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise InputError(f"{bucket!r} is no name of a bucket", where="--repository", hint="like s3://models/my-model")
    if revision:
        raise InputError("objects have no releases", where=f"s3://{rest}", hint="leave --release out")
    return Address("s3", prefix.strip("/"), bucket)


def _file(rest: str, revision: str) -> Address:
    parts = urlsplit(f"file://{rest}")
    if parts.netloc not in ("", "localhost", ".", "~", ".."):
        hint = "an absolute path has three slashes: file:///data/models/mine"
        raise InputError(f"{parts.netloc!r} is a host, not a folder of this machine", where=f"file://{rest}", hint=hint)
    if revision:
        raise InputError("files have no releases", where=f"file://{rest}", hint="leave --release out")
    host = "" if parts.netloc == "localhost" else parts.netloc
    return Address("file", unquote(host + parts.path))
