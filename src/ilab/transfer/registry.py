"""Models in registries, over the registry's own interface (OCI distribution-spec 1.1); no other program is needed.

Two forms are read: layers that are the files themselves (ModelPack, ORAS: an annotation holds the name), and layers
that are archives with the files below ``models/`` (our packages, KServe's modelcars). Every byte has a digest.

Access: nothing, a password (Basic), or a token that a server gives for the registry (Bearer), with docker's logins. A
password goes to the token server that the registry names only over https, or where the registry itself is this machine.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlencode, urljoin

from ilab.core.transport import shown
from ilab.errors import IlabError, InputError, ServiceError
from ilab.models.tls import is_local
from ilab.transfer.address import Address
from ilab.transfer.docker_config import Login, find_login
from ilab.transfer.source import Body, Checksum, Listing, RemoteFile
from ilab.transfer.web import Answer, Http, origin, parsed

LATEST = "latest"
INDEX = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
FILEPATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"
ORAS_UNPACK = "io.deis.oras.content.unpack"
ROOT = "models"  # of the files in an image
LICENCE = "org.opencontainers.image.licenses"
MODELPACK = "application/vnd.cncf.model."
MOST_LAYERS = 1000
USUAL = ("linux", "amd64")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Manifest:
    """``body`` is what was sent, ``digest`` (``sha256:…``) its hash, ``contents`` what it says."""

    digest: str
    body: bytes
    contents: dict[str, Any]

    @property
    def media(self) -> str:
        return str(self.contents.get("mediaType") or MANIFEST[0])


class Registry:
    """A repository of a registry, with the login for it. May be used from several threads.

    ``logins`` is a file as docker writes it, or the folder of a mounted secret, that is looked into first.
    """

    def __init__(self, http: Http, address: Address, logins: Path | None = None) -> None:
        self._http, self.address, self._logins = http, address, logins
        self._base = ""
        self._access: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def base(self) -> str:
        """``https://HOST``; plain http for this machine alone, where nothing speaks TLS (as docker has it)."""
        with self._lock:
            if not self._base:
                host = {"docker.io": "registry-1.docker.io"}.get(self.address.host, self.address.host)
                self._base = f"https://{host}"
                if is_local(parsed(self._base).host):
                    try:
                        self._http.ask("GET", f"{self._base}/v2/")
                    except ServiceError as error:
                        if not error.retryable:  # it speaks TLS, but is not who it should be
                            self._base = ""
                            raise
                        self._base = f"http://{host}"
            return self._base

    def url(self, path: str) -> str:
        return f"{self.base}/v2/{self.address.path}/{path}"

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterable[bytes] | None = None,
        *,
        actions: str = "pull",
    ) -> Answer:
        """One request, with access; a stream as ``content`` is sent once, so access has to be there before."""
        answer = self._http.ask(method, url, {**(headers or {}), **self._access}, content)
        if answer.status == 401 and isinstance(content, bytes | None):
            self.gain_access(answer, actions)
            answer = self._http.ask(method, url, {**(headers or {}), **self._access}, content)
        return answer

    def gain_access(self, refusal: Answer, actions: str) -> None:
        """Log in as the registry asks for (RFC 9110 11.6.1; distribution's token specification).

        Raises ``InputError`` where there is no login, or it does not do.
        """
        challenge = refusal.headers.get("www-authenticate", "")
        kind = challenge.partition(" ")[0].lower()
        login = find_login(self.address.host, self._logins)
        if kind == "basic" and login is not None and login.password:
            self._access = {"authorization": login.basic}
        elif kind == "bearer":
            self._access = {"authorization": f"Bearer {self._token(challenge, login, actions)}"}
        else:
            raise self.locked()

    def locked(self) -> InputError:
        message = f"the registry does not let us {'read or write'} {self.address.path}"
        return InputError(message, where=self.address.host, hint=f"log in with: podman login {self.address.host}")

    def failure(self, answer: Answer) -> IlabError:
        """What a refusal means."""
        if answer.status in (401, 403):
            return self.locked()
        if answer.status == 404:
            named = f"{self.address.path}:{self.address.revision or LATEST}"
            hint = "check the name, and give the tag: oci://HOST/PATH:TAG"
            return InputError(f"the registry has no {named}", where=self.address.host, hint=hint)
        return answer.failure()

    def manifest(self, reference: str, *, nested: bool = False) -> Manifest:
        """The manifest of a tag or digest; of an index that of one machine. It is what its digest says.

        Raises ``InputError`` where there is none, ``ServiceError`` for one that makes no sense.
        """
        url = self.url(f"manifests/{reference}")
        answer = self.ask("GET", url, {"accept": ", ".join((*MANIFEST, *INDEX))})
        if not answer.ok:
            raise self.failure(answer)
        digest = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
        if DIGEST.fullmatch(reference) and reference != digest:
            raise ServiceError("the manifest is not the one that its digest names", where=shown(url))
        contents = answer.json()
        if not isinstance(contents, dict):
            raise ServiceError("the registry gives no manifest", where=shown(url))
        if isinstance(contents.get("manifests"), list) and not nested:
            return self.manifest(_of_one_machine(contents["manifests"], shown(url)), nested=True)
        return Manifest(digest, answer.body, contents)

    def has(self, digest: str) -> bool:
        """Whether the manifest of this digest is there."""
        return self.ask("HEAD", self.url(f"manifests/{digest}"), {"accept": ", ".join((*MANIFEST, *INDEX))}).ok

    @contextmanager
    def blob(self, digest: str, start: int) -> Iterator[Body]:
        """The bytes of a blob from ``start`` on. Raises ``ServiceError``, ``retryable`` where that may help."""
        url = self.url(f"blobs/{digest}")
        try:
            with self._http.body(url, start, self._access) as body:
                yield body
        except InputError as error:
            if "(401)" not in error.message:
                raise
            # A token lives for minutes, a download for hours.
            refusal = self._http.ask("HEAD", url, {})
            self.gain_access(refusal, "pull")
            message = "the registry's token had run out; a new one is there"
            raise ServiceError(message, where=shown(url), retryable=True) from error

    def _token(self, challenge: str, login: Login | None, actions: str) -> str:
        named = dict(_PARAMETER.findall(challenge))
        realm = named.get("realm", "")
        secure = realm.startswith("https://") or (is_local(parsed(self.base).host) and is_local(parsed(realm).host))
        if login is not None and not secure:
            message = "the registry wants the password sent to a server without TLS"
            raise InputError(message, where=shown(realm), hint="it was not sent")
        scope = f"repository:{self.address.path}:{actions}"
        asked = {"service": named.get("service", ""), "scope": scope}
        if login is not None and login.token:
            form = {**asked, "grant_type": "refresh_token", "refresh_token": login.token, "client_id": "ilab"}
            headers = {"content-type": "application/x-www-form-urlencoded"}
            answer = self._http.ask("POST", realm, headers, urlencode(form).encode())
        else:
            headers = {"authorization": login.basic} if login is not None else {}
            answer = self._http.ask("GET", f"{realm}{'&' if '?' in realm else '?'}{urlencode(asked)}", headers)
        if answer.status in (401, 403):
            raise self.locked()
        if not answer.ok:
            raise answer.failure()
        found = answer.json()
        token = (found.get("token") or found.get("access_token")) if isinstance(found, dict) else None
        if not isinstance(token, str) or not token.isprintable():
            raise ServiceError("the server of tokens gives none", where=shown(realm))
        return token


class Image:
    """A model in a registry, as a source."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def listing(self) -> Listing:
        address = self._registry.address
        found = self._registry.manifest(address.revision or LATEST)
        digest, manifest = found.digest, found.contents
        layers = manifest.get("layers")
        if not isinstance(layers, list) or not 0 < len(layers) <= MOST_LAYERS:
            raise InputError("this image has no layers", where=str(address), hint="is it a model?")
        annotations = manifest.get("annotations")
        licence = annotations.get(LICENCE) if isinstance(annotations, dict) else ""
        files = tuple(self._file(layer, number) for number, layer in enumerate(layers))
        printable = "".join(letter for letter in str(licence or "") if letter.isprintable())[:80]
        return Listing(PurePosixPath(address.path).name, str(address), digest, printable, files)

    @contextmanager
    def open(self, file: RemoteFile, start: int) -> Iterator[Body]:
        with self._registry.blob(file.locator, start) as body:
            yield body

    def _file(self, layer: Any, number: int) -> RemoteFile:
        plain = layer if isinstance(layer, dict) else {}
        digest, size, media = plain.get("digest"), plain.get("size"), str(plain.get("mediaType") or "")
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest) or not isinstance(size, int) or size < 0:
            raise ServiceError("a layer has no digest or size", where=str(self._registry.address))
        annotations = plain.get("annotations")
        notes = annotations if isinstance(annotations, dict) else {}
        name = str(notes.get(FILEPATH) or notes.get(TITLE) or "")
        packed = _packed(media, notes)
        root = "" if media.startswith(MODELPACK) else ROOT
        label = f"layer {number + 1}{f' ({name})' if name else ''}" if packed else name or f"layer {number + 1}"
        checksum = Checksum("sha256", digest.removeprefix("sha256:"))
        return RemoteFile(label, size, checksum, digest, packed, root)


def _packed(media: str, notes: Mapping[str, Any]) -> Literal["", "tar", "tar+gzip"]:
    """Whether a layer is an archive. ORAS gives plain files an archive's type, but titles them."""
    if "zstd" in media:
        hint = "pack the model without zstd, or take it from another place"
        raise InputError(f"a layer is compressed in a way that is not read ({media})", hint=hint)
    plain_file = notes.get(TITLE) and str(notes.get(ORAS_UNPACK)).lower() != "true"
    if "tar" not in media or (plain_file and not media.startswith(MODELPACK)):
        return ""
    return "tar+gzip" if media.endswith("gzip") else "tar"


def _of_one_machine(entries: list[Any], where: str) -> str:
    """Of an image for several machines the one for Linux on amd64, else the first: weights are the same for all."""
    found: list[tuple[bool, int, str]] = []
    for entry in entries:
        digest = entry.get("digest") if isinstance(entry, dict) else None
        if isinstance(digest, str) and DIGEST.fullmatch(digest):
            platform = entry.get("platform")
            usual = isinstance(platform, dict) and (platform.get("os"), platform.get("architecture")) == USUAL
            found.append((not usual, len(found), digest))
    if not found:
        raise ServiceError("the registry's index lists no image", where=where)
    return min(found)[2]


def absolute(location: str, base: str) -> str:
    """A Location header as an address; only of the server that gave it (distribution-spec 1.1, push)."""
    url = urljoin(base, location)
    if origin(url) != origin(base):
        raise ServiceError("the registry sends uploads to another server", where=shown(url))
    return url
