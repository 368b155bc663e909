"""From a Hugging Face directory to a GGUF file that has been checked.

The file is written beside its final name, checked there, and named last, so a GGUF file that exists under its name is
one that said what the model says. A failed check leaves nothing but its message. Memory holds one tensor at a time;
only the check of the logits needs the model as a whole, and is left out, and said to be, where it does not fit.
"""

from __future__ import annotations

import math
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilab.core.events import Bus, Emit
from ilab.core.files import write_json
from ilab.core.store import digest_file, disk_error
from ilab.errors import GateError, InputError, SetupError
from ilab.models.chat_template import json_object
from ilab.models.gguf.reader import File
from ilab.packaging.gguf import parity
from ilab.packaging.gguf.families import Shape, read_shape, tensors
from ilab.packaging.gguf.llamacpp import need_quantiser, quantise
from ilab.packaging.gguf.origin import Label, describe
from ilab.packaging.gguf.parity import Check, Parity
from ilab.packaging.gguf.quantisation import FileType, file_type
from ilab.packaging.gguf.vocabulary import Vocabulary, read_vocabulary
from ilab.packaging.gguf.weights import Slot, Weights, plan
from ilab.packaging.gguf.write import library, write_file

SILENT = Bus().for_step("convert")
SPARE = 1.2  # times the model in 32 bits is what the check of the logits takes


@dataclass(frozen=True)
class Options:
    """How to go about it; no part of what the file holds."""

    force: bool = False
    threads: int = 1
    emit: Emit = SILENT


@dataclass(frozen=True)
class _Job:
    """All that is known before the first byte is written. ``base`` is the type that is written here: ``kind``, or
    where llama.cpp has to make that, the type that the weights have."""

    folder: Path
    output: Path
    kind: FileType
    base: FileType
    shape: Shape
    vocabulary: Vocabulary
    weights: Weights
    slots: Sequence[Slot]
    keys: dict[str, Any]
    options: Options


def export_gguf(
    model_dir: Path, output: Path, type_: str = "f16", label: Label | None = None, options: Options | None = None
) -> Parity:
    """Write the model as ``output``, of a type in ``quantisation.TYPES``, and ``parity.json`` beside it.

    Returns what was checked. Raises ``InputError`` for a model that cannot be converted or a file that is there,
    ``SetupError`` for what the machine lacks, ``GateError`` where the file does not say what the model says.
    """
    job = _prepare(Path(model_dir), Path(output), file_type(type_), label or Label(), options or Options())
    written = job.output.with_name(f".{job.output.name}.{os.getpid()}.partial")
    between = written.with_suffix(".base")
    try:
        _write(job, written, between)
        result = _check(job, written)
        write_json(parity_path(job.output), result.model_dump())
        os.replace(written, job.output)
    except OSError as error:
        raise disk_error(error, job.output) from error
    finally:
        for path in (written, between):
            path.unlink(missing_ok=True)
    return result


def is_export_of(model_dir: Path, output: Path) -> bool:
    """Whether ``output`` is what was written of just these files, and is as it was. Reads all of them."""
    try:
        parity = Parity.model_validate_json(parity_path(output).read_text(encoding="utf-8"))
        if f"sha256:{digest_file(output)}" != parity.digest:
            return False
        return _digests([*_papers(model_dir), *Weights(model_dir).files]) == parity.source
    except (OSError, ValueError, InputError):
        return False


def parity_path(output: Path) -> Path:
    """Where the result of the checks stands: ``NAME.parity.json`` beside ``NAME.gguf``."""
    return output.with_name(f"{output.stem}.parity.json")


def _prepare(folder: Path, output: Path, kind: FileType, label: Label, options: Options) -> _Job:
    """Everything that can be refused is refused here."""
    library()  # or there is no use in going on
    if not kind.tensor:
        need_quantiser(kind)
    where = str(folder / "config.json")
    config = json_object(folder / "config.json")
    if not config:
        raise InputError("this folder holds no Hugging Face model (config.json is missing)", where=str(folder))
    if output.suffix != ".gguf" or output.is_dir():
        raise InputError("the name of a GGUF file ends in .gguf", where=str(output))
    if output.exists() and not options.force:
        raise InputError("this file is there already", where=str(output), hint="give another name, or --force")
    if (beside := parity_path(output)).is_file() and not json_object(beside).keys() >= {"digest", "checks", "stored"}:
        message = "this file is no result of earlier checks, and theirs would be written over it"
        raise InputError(message, where=str(beside), hint="give another name, or remove it")
    shape = read_shape(config, where)
    weights = Weights(folder)
    parts = tensors(shape, weights.names, str(folder))
    base = kind if kind.tensor else file_type(weights.dtype("model.embed_tokens.weight").lower())
    slots = plan(parts, weights, base.tensor)
    vocabulary = read_vocabulary(folder, shape.vocabulary)
    count = sum(math.prod(slot.shape) for slot in slots)
    keys = {
        **describe(folder, label),
        "general.size_label": library().size_label(count, 0, 0, 0),
        "general.file_type": base.number,
        **vocabulary.keys,
    }
    job = _Job(folder, output, kind, base, shape, vocabulary, weights, slots, keys, options)
    _need_disk(job)
    return job


def _need_disk(job: _Job) -> None:
    """Raises ``SetupError`` where the file would not fit."""
    size = sum(slot.size for slot in job.slots)
    if job.base is not job.kind:
        size += round(size * job.kind.bits / job.base.bits)
    folder = job.output.parent
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise SetupError(
            f"the file needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=str(folder),
            hint="free some space, give --output on another disk, or take a smaller --type",
        )


def _write(job: _Job, written: Path, between: Path) -> None:
    emit, total = job.options.emit, len(job.slots)
    base = job.base
    write_file(
        written if base is job.kind else between,
        job.shape,
        job.keys,
        job.slots,
        job.weights,
        lambda number: emit.progress(number, total, "tensors", f"writing {base.name}"),
    )
    if base is not job.kind:
        emit.progress(total, total, "tensors", f"llama.cpp quantises to {job.kind.name}")
        quantise(between, written, job.kind, job.options.threads)
        between.unlink()


def _check(job: _Job, written: Path) -> Parity:
    """All checks. Raises ``GateError`` for the first that fails."""
    emit = job.options.emit
    emit.progress(0, 3, "checks", "weights")
    file = File(written)
    errors = parity.tensor_errors(file, job.weights)
    checks = [_passed(parity.check_weights(errors, job.kind), job)]
    emit.progress(1, 3, "checks", "tokens and logits")
    opening = job.vocabulary.opening
    texts = parity.prompts(job.folder, opening, job.shape.context)
    subject = parity.Subject(texts, opening, job.shape.vocabulary, job.options.threads)
    reference = _too_big(job) or _ask(job, texts, errors)
    try:
        found = parity.file_checks(written, job.folder, subject, reference)
    except SetupError as error:  # llama.cpp refuses the file: that is a failed check
        raise _failure(error.message, job) from error
    checks += [_passed(check, job) for check in found]
    emit.progress(3, 3, "checks")
    return Parity(
        file=job.output.name,
        type=job.kind.name,
        digest=f"sha256:{digest_file(written)}",
        bytes=written.stat().st_size,
        source=_digests([*_papers(job.folder), *job.weights.files]),
        checks=tuple(checks),
        stored=dict(sorted(Counter(file.types().values()).items())),
        notes=(*job.shape.notes, *job.vocabulary.notes),
    )


def _papers(folder: Path) -> list[Path]:
    """What the keys of the file come from: configuration, tokenizer, template, card, lineage."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".json", ".jinja", ".md") and path.is_file())


def _digests(paths: Sequence[Path]) -> dict[str, str]:
    return {path.name: f"sha256:{digest_file(path)}" for path in paths}


def _ask(job: _Job, texts: Sequence[Sequence[int]], errors: Mapping[str, float]) -> parity.Reference:
    """What the model itself says; it is gone from memory when this returns."""
    import torch

    from ilab.models.weights import load_weights

    return parity.ask_model(load_weights(job.folder, torch.float32, "cpu"), texts, errors, job.kind)


def _too_big(job: _Job) -> str:
    """Why the logits cannot be compared here, empty where they can."""
    free = _available()
    need = sum(slot.size * 32 / file_type(slot.stored.lower()).bits for slot in job.slots) * SPARE
    if free is None or need <= free:
        return ""
    return f"the model in 32 bits takes {need / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"


def _available() -> int | None:
    """Bytes of memory that can be had without swapping, None where the system does not say (Linux does)."""
    with suppress(OSError, ValueError, StopIteration, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    return None


def _passed(check: Check, job: _Job) -> Check:
    if check.wrong:
        raise _failure(f"{check.name}, by {check.by}: {check.wrong}", job)
    return check


def _failure(message: str, job: _Job) -> GateError:
    return GateError(
        f"the file does not say what the model says: {message}",
        where=str(job.output),
        hint="nothing was written; try --type f32, which rounds nothing, and report it if that fails too",
    )


__all__ = ["Label", "Options", "Parity", "export_gguf", "parity_path"]
