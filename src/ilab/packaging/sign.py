"""Signatures of models: OpenSSF model signing 1.0, with a key (ECDSA on P-256, P-384 or P-521).

A signature covers every file of the model with its digest. It is a Sigstore bundle and stands *beside* the package, not
in it: ECDSA is different each time, and the package is the same each time. The package `model-signing` makes and checks
it, and so does its own program on the unpacked folder, without ilab:

    model_signing verify key FOLDER --signature model.sig --public_key KEY
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from ilab.errors import GateError, InputError, SetupError
from ilab.models.secret import read_secret

KEY = "where.package.sign_key"


def sign_folder(folder: Path, key: str, password: str = "") -> bytes:
    """The signature of all files below ``folder``. ``key`` and ``password`` are references (``env:``, ``file:``).

    Raises ``InputError`` for a key that cannot be used, ``SetupError`` without the package ``model-signing``.
    """
    signing = _library("signing")
    with _key_file(key) as path, tempfile.TemporaryDirectory() as work:
        signature = Path(work) / "model.sig"
        try:
            secret = read_secret(password, "where.package.sign_key_password") if password else None
            config = signing.Config().use_elliptic_key_signer(private_key=path, password=secret)
            config.sign(folder, signature)
        except (ValueError, TypeError, OSError) as error:
            hint = "make one with: openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem"
            raise InputError(f"this key cannot sign: {_first(error)}", where=key, hint=hint) from error
        return signature.read_bytes()


def check_signature(folder: Path, signature: bytes, key: str) -> None:
    """Raises ``GateError`` where ``signature`` is not that of ``folder`` by the private half of the public ``key``."""
    verifying = _library("verifying")
    with _key_file(key) as path, tempfile.TemporaryDirectory() as work:
        file = Path(work) / "model.sig"
        file.write_bytes(signature)
        try:
            config = verifying.Config().use_elliptic_key_verifier(public_key=path)
        except (ValueError, TypeError, OSError) as error:
            hint = "give the public key: openssl ec -in KEY.pem -pubout -out KEY.pub"
            raise InputError(f"this key cannot check anything: {_first(error)}", where=key, hint=hint) from error
        try:
            config.verify(folder, file)
        except (ValueError, TypeError, KeyError) as error:
            raise GateError(
                f"the signature is not that of this model by this key: {_first(error)}",
                where=key,
                hint="do not use the package, or give the public key of whoever signed it",
            ) from error


@contextmanager
def _key_file(reference: str) -> Iterator[Path]:
    """The key as a file, which nobody else can read and which is gone afterwards."""
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "key.pem"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(_pem(reference))
        yield path


def _pem(reference: str) -> str:
    """The key behind ``env:NAME`` or ``file:PATH``; a PEM text has several lines. Raises ``InputError`` for none."""
    kind, _, name = reference.partition(":")
    try:
        found = Path(name).expanduser().read_text(encoding="ascii") if kind == "file" else os.environ.get(name, "")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the key file cannot be read", where=name, hint="give a PEM file: file:PATH") from error
    if kind not in ("env", "file") or "-----BEGIN " not in found:
        hint = "give env:NAME of a variable that holds a PEM key, or file:PATH"
        shown = reference if kind in ("env", "file") else KEY  # it may be the key itself, by mistake
        raise InputError("there is no key behind this reference", where=shown, hint=hint)
    return found


def _library(part: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(f"model_signing.{part}")
    except ImportError as error:
        hint = "type: pip install 'ilab[sign]'"
        raise SetupError("signatures need the package model-signing", hint=hint) from error


def _first(error: Exception) -> str:
    """The first line of a foreign error, as far as people want to read it; keys are not in it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
