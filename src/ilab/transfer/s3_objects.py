"""The objects of a store (:mod:`ilab.core.objects`) in a bucket, by boto3.

A condition is S3's own: ``If-None-Match: *`` and ``If-Match``. How old an object is follows from two times of the
same answer, ``Last-Modified`` and ``Date``, so no clock of ours is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from ilab.config import WebWhere
from ilab.core.objects import Facts
from ilab.core.remote_check import unsafe
from ilab.errors import InputError
from ilab.transfer.address import Address
from ilab.transfer.s3 import SHA256, in_our_words, open_client

BLOCK = 1 << 20
MOST = 1000  # objects that one request may delete
SAME = object()  # the answer about an object that did not change


class S3Objects:
    """See :class:`ilab.core.objects.Objects`. ``endpoint`` may be empty."""

    def __init__(self, address: Address, endpoint: str, settings: WebWhere) -> None:
        self.address = str(address)
        self._bucket = address.host
        self._prefix = f"{address.path}/" if address.path else ""
        self._client: Any = open_client(self.address, endpoint, settings)

    def get(self, name: str, *, unless: str = "") -> tuple[bytes, Facts] | None:
        with self._words(name):
            reply = self._found(self._client.get_object, name, unless)
            if reply is None:
                return None
            if reply is SAME:
                return b"", Facts(0, unless, 0.0)
            with closing(reply["Body"]) as body:
                return body.read(), _facts(reply)

    @contextmanager
    def stream(self, name: str, start: int) -> Iterator[Iterator[bytes]]:
        with self._words(name):
            given = {"Range": f"bytes={start}-"} if start else {}
            reply = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name, **given)
            with closing(reply["Body"]) as body:
                yield body.iter_chunks(BLOCK)

    def put(self, name: str, path: Path, sha256: str = "") -> None:
        with self._words(name):
            if sha256:
                head = self._found(self._client.head_object, name)
                if head and head["Metadata"].get(SHA256) == sha256 and head["ContentLength"] == path.stat().st_size:
                    return
            extra = {"Metadata": {SHA256: sha256}} if sha256 else {}
            self._client.upload_file(str(path), self._bucket, self._prefix + name, ExtraArgs=extra)

    def write(self, name: str, data: bytes, *, absent: bool = False, match: str = "") -> str:
        from botocore.exceptions import ClientError

        condition = {"IfNoneMatch": "*"} if absent else {"IfMatch": match} if match else {}
        with self._words(name):
            try:
                reply = self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=data, **condition)
            except ClientError as error:
                # 409: somebody else writes at the same moment; 404: what was to be replaced has gone
                if condition and _status(error) in (404, 409, 412) and _code(error) != "NoSuchBucket":
                    return ""
                if condition and _status(error) == 501:
                    raise unsafe("does not know conditions", self.address) from error
                raise
        return str(reply["ETag"])

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        with self._words(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for one in page.get("Contents", []):
                    yield str(one["Key"]).removeprefix(self._prefix), int(one["Size"])

    def delete(self, names: Iterable[str]) -> None:
        keys = [{"Key": self._prefix + name} for name in names]
        with self._words(""):
            for start in range(0, len(keys), MOST):
                several = {"Objects": keys[start : start + MOST], "Quiet": True}
                reply = self._client.delete_objects(Bucket=self._bucket, Delete=several)
                if refused := reply.get("Errors"):
                    message = f"an object cannot be removed ({refused[0].get('Code')})"
                    where = f"{self.address}/{str(refused[0].get('Key')).removeprefix(self._prefix)}"
                    raise InputError(message, where=where, hint="check what your keys may do")

    def _found(self, call: Any, name: str, unless: str = "") -> Any:
        """The answer about an object, None where there is none, ``SAME`` where it is the one of the ETag ``unless``. A
        bucket that is missing stays an error."""
        from botocore.exceptions import ClientError

        condition = {"IfNoneMatch": unless} if unless else {}
        try:
            return call(Bucket=self._bucket, Key=self._prefix + name, **condition)
        except ClientError as error:
            if unless and _status(error) == 304:
                return SAME
            if _status(error) == 404 and _code(error) != "NoSuchBucket":
                return None
            raise

    def _words(self, name: str) -> Any:
        return in_our_words(f"{self.address}/{name}" if name else self.address)


def _facts(reply: Any) -> Facts:
    now = parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"])
    age = (now - reply["LastModified"]).total_seconds()
    return Facts(int(reply["ContentLength"]), str(reply["ETag"]), age)


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
