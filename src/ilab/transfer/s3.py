"""Models in object stores that speak S3, by boto3 (``pip install 'ilab[s3]'``).

Keys, profile, region and endpoint come from where every program of AWS takes them (``AWS_ACCESS_KEY_ID``,
``AWS_PROFILE``, ``AWS_ENDPOINT_URL_S3`` …); ``where.web.ca_file`` is trusted besides, by ``AWS_CA_BUNDLE`` where it is
empty. What we upload carries its SHA-256; of other objects the MD5 is known where they were sent in one piece.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ilab.config import WebWhere
from ilab.core.step import fingerprint
from ilab.core.store import digest_file
from ilab.errors import IlabError, InputError, ServiceError, SetupError
from ilab.transfer.address import Address
from ilab.transfer.source import Body, Checksum, Listing, RemoteFile

SHA256 = "sha256"  # the name of our metadata
MOST_OBJECTS = 2000
CHUNK = 1 << 16  # bytes that are waited for before they are written
_MD5 = re.compile(r"[0-9a-f]{32}")
_AGAIN = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "500", "502", "503")


class Bucket:
    """The objects below a prefix; a source, and a place to upload to. ``endpoint`` may be empty."""

    def __init__(self, address: Address, endpoint: str, settings: WebWhere) -> None:
        self._address = address
        self._client: Any = open_client(str(address), endpoint, settings)

    def listing(self) -> Listing:
        address = self._address
        prefix = f"{address.path}/" if address.path else ""
        keys: list[tuple[str, int]] = []
        with in_our_words(str(address)):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=address.host, Prefix=prefix)
            for page in pages:
                keys += [(str(one["Key"]), int(one["Size"])) for one in page.get("Contents", [])]
                if len(keys) > MOST_OBJECTS:
                    hint = "give the folder of one model: s3://BUCKET/PREFIX"
                    raise InputError(f"more than {MOST_OBJECTS} objects are there", where=str(address), hint=hint)
            if not keys and address.path:
                keys = [(address.path, -1)]  # perhaps a single file
                prefix = f"{address.path.rpartition('/')[0]}/".lstrip("/")
            files = tuple(self._file(key, prefix) for key, _ in sorted(keys) if not key.endswith("/"))
        if not files:
            raise InputError("there is nothing there", where=str(address), hint="check the bucket and the prefix")
        revision = fingerprint([[file.name, file.key] for file in files])
        return Listing(PurePosixPath(address.path or address.host).name, str(address), revision, "", files)

    @contextmanager
    def open(self, file: RemoteFile, start: int) -> Iterator[Body]:
        key, _, etag = file.locator.rpartition("#")
        with in_our_words(f"s3://{self._address.host}/{key}"):
            given = {"Range": f"bytes={start}-"} if start else {}
            reply = self._client.get_object(Bucket=self._address.host, Key=key, IfMatch=etag, **given)
            with closing(reply["Body"]) as body:
                yield Body(start, body.iter_chunks(CHUNK))

    def put(self, name: str, path: Path, told: Callable[[int], None]) -> None:
        """Upload a file, in parts where it is large; ``told`` gets the bytes as they go. The same file is left."""
        key = f"{self._address.path}/{name}" if self._address.path else name
        sha256 = digest_file(path)
        with in_our_words(f"s3://{self._address.host}/{key}"):
            if self._has(key, sha256):
                told(path.stat().st_size)
                return
            extra = {"Metadata": {SHA256: sha256}}
            self._client.upload_file(str(path), self._address.host, key, ExtraArgs=extra, Callback=told)

    def _has(self, key: str, sha256: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            head = self._client.head_object(Bucket=self._address.host, Key=key)
        except ClientError as error:
            if str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")) == "404":
                return False
            raise
        return bool(head.get("Metadata", {}).get(SHA256) == sha256)

    def _file(self, key: str, prefix: str) -> RemoteFile:
        head = self._client.head_object(Bucket=self._address.host, Key=key)
        etag = str(head["ETag"])
        ours, md5 = str(head.get("Metadata", {}).get(SHA256, "")), etag.strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", ours):
            checksum = Checksum("sha256", ours)
        elif _MD5.fullmatch(md5) and not str(head.get("ServerSideEncryption", "")).startswith("aws:kms"):
            checksum = Checksum("md5", md5)
        else:
            checksum = Checksum()
        return RemoteFile(key.removeprefix(prefix), int(head["ContentLength"]), checksum, f"{key}#{etag}")


def open_client(where: str, endpoint: str, settings: WebWhere) -> Any:
    """A client of boto3. Raises ``SetupError`` where that is missing, ``InputError`` for no endpoint."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise SetupError("object stores need boto3", where=where, hint="type: pip install 'ilab[s3]'") from error
    options: dict[str, Any] = {"config": Config(read_timeout=settings.timeout, retries={"mode": "standard"})}
    if endpoint:
        options["endpoint_url"] = endpoint
    if settings.ca_file:
        options["verify"] = str(Path(settings.ca_file).expanduser())
    with in_our_words(where):
        return boto3.session.Session().client("s3", **options)


@contextmanager
def in_our_words(where: str) -> Iterator[None]:
    """boto3's exceptions as ours; ``where`` is the object."""
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        raise _explained(error, where) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        raise InputError("there are no keys for this store", where=where, hint=hint) from error
    except S3UploadFailedError as error:
        cause = error.__context__
        if isinstance(cause, ClientError):
            raise _explained(cause, where) from error
        raise ServiceError(f"the upload failed: {error}", where=where, hint="run the same command again") from error
    except (BotoCoreError, HTTPError) as error:
        hint = "check the address (--s3-endpoint, AWS_ENDPOINT_URL_S3), and try again"
        raise ServiceError(f"the store cannot be used: {error}", where=where, hint=hint, retryable=True) from error
    except ValueError as error:  # of boto3 itself, for an endpoint that is no address
        raise InputError(f"{error}", where=where, hint="see --s3-endpoint, AWS_ENDPOINT_URL_S3") from error


def _explained(error: Any, where: str) -> IlabError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    if code in _AGAIN or status.startswith("5") or status == "429":
        return ServiceError(f"the store answers {code}", where=where, hint="try again later", retryable=True)
    if code in ("NoSuchBucket", "NoSuchKey", "404") or status == "404":
        return InputError("there is nothing there", where=where, hint="check the bucket and the prefix")
    if status in ("401", "403"):
        hint = "check AWS_ACCESS_KEY_ID, AWS_PROFILE, and what they may do"
        return InputError(f"the store refuses access ({code})", where=where, hint=hint)
    if status == "412":
        return ServiceError("the object was changed meanwhile", where=where, hint="run the same command again")
    return InputError(f"the store answers {code or status}", where=where)
