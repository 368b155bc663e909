"""The bytes of a document file: read whole, regular files only, up to a size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ilab.documents.convert import BINARY
from ilab.errors import InputError

MAX_TEXT = 20 * 2**20
MAX_BINARY = 200 * 2**20  # PDF, DOCX, EPUB: mostly pictures
_LFS = b"version https://git-lfs.github.com/spec/"
_LFS_HINT = "take `git lfs pull` in a clone, and name the clone in where.documents.mirrors"


def read_document(path: Path, suffix: str = "") -> bytes:
    """The bytes of the file at ``path``; ``suffix`` says its format where the name does not.

    Raises ``InputError`` (without ``where``) where it is too large, no regular file, or a pointer to one.
    """
    most = MAX_BINARY if (suffix or path.suffix).lower() in BINARY else MAX_TEXT
    try:
        # A pipe that nobody writes to must not block.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as handle:
            facts = os.fstat(handle.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise InputError("is not a regular file")
            data = handle.read(most + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error
    if len(data) > most:
        message = f"has {max(facts.st_size, len(data)) / 2**20:.1f} MiB; at most {most // 2**20} MiB are read"
        raise InputError(message, hint="divide the document")
    if data.startswith(_LFS):
        raise InputError("is a Git LFS pointer; the document itself is not in the repository", hint=_LFS_HINT)
    return data
