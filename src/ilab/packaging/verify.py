"""Is this package the model that was evaluated? Digests, the chat template, tokens, logits, and the signature.

digests     every byte is what the manifest names
files       weights, tokenizer, settings are those that were evaluated (the probe has their digests)
template, tokens, logits      the model says to fixed texts what it said when it was packaged
signature   if there is one, and a key to check it with
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ilab.core.events import Emit
from ilab.errors import GateError, InputError
from ilab.packaging.oci import Layout, extract_layout, read_layout, verify_layout
from ilab.packaging.probe import compare, read_probe
from ilab.packaging.publish import Reach, check_package, fetch_package
from ilab.packaging.sign import check_signature
from ilab.transfer.address import Address
from ilab.transfer.pull import Mismatch

UNSIGNED = "there is none"
UNCHECKED = "there is one; it was not checked, for no public key was given"


@dataclass(frozen=True)
class Verdict:
    """``checks`` maps a check to what was found, ``wrong`` to what is wrong with it; empty: it is the model."""

    digest: str
    size: int
    checks: dict[str, str]
    wrong: dict[str, str]

    def require(self, where: str) -> None:
        """Raises ``GateError`` where anything is wrong."""
        if self.wrong:
            told = "; ".join(f"{name}: {reason}" for name, reason in self.wrong.items())
            hint = "do not use it; fetch it again, or build it again: ilab package build"
            raise GateError(f"this is not the model that was evaluated: {told}", where=where, hint=hint)


def verify_quickly(place: Address | Path, reach: Reach, emit: Emit) -> Verdict:
    """Digests alone. Reads every byte, keeps nothing, asks no model."""
    try:
        digest, size = check_package(place, reach, emit)
    except (Mismatch, InputError) as error:
        if not isinstance(error, Mismatch) and not isinstance(place, Path):
            raise
        return Verdict("", 0, {}, {"digests": error.message})
    return Verdict(digest, size, {"digests": "every byte is what the manifest names"}, {})


def verify(place: Address | Path, work: Path, reach: Reach, key: str, threads: int, emit: Emit) -> Verdict:
    """Everything. ``work`` is a folder that takes the package (from a registry) and the model; ``key`` a reference to
    the public key (``env:``, ``file:``) or empty. Raises ``InputError`` for a place without a package."""
    try:
        layout, signatures = fetch_package(place, work / "package", reach, emit)
    except Mismatch as error:
        return Verdict("", 0, {}, {"digests": error.message})
    if problems := verify_layout(layout):
        return Verdict("", 0, {}, {"digests": problems[0]})
    found = read_layout(layout)
    emit.progress(0, None, "", "unpacking")
    folder = _unpacked(found, work)
    if not isinstance(place, Path):
        shutil.rmtree(layout)  # a second copy of the weights is not needed any more
    checks = {"digests": f"{len(found.layers)} layers are what the manifest names"}
    wrong: dict[str, str] = {}
    _signature(folder, signatures, key, checks, wrong)
    emit.progress(0, None, "", "asking the model")
    try:
        parity = compare(read_probe(folder), folder, threads)
    except InputError as error:
        wrong["model"] = error.message
        return Verdict(found.digest, found.size, checks, wrong)
    return Verdict(found.digest, found.size, checks | parity.checks, wrong | parity.wrong)


def _unpacked(found: Layout, work: Path) -> Path:
    shutil.rmtree(work / "model", ignore_errors=True)
    return extract_layout(found.path, work / "model")


def _signature(folder: Path, signatures: list[bytes], key: str, checks: dict[str, str], wrong: dict[str, str]) -> None:
    """One good signature is enough: several people may sign the same model."""
    if not key:
        checks["signature"] = UNCHECKED if signatures else UNSIGNED
        return
    if not signatures:
        wrong["signature"] = UNSIGNED
    for signature in signatures:
        try:
            check_signature(folder, signature, key)
        except GateError as error:
            wrong["signature"] = error.message
        else:
            wrong.pop("signature", None)
            checks["signature"] = "it is that of this model by this key"
            return
