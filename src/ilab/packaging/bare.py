"""A package of a model that no pipeline of ours built: the folder as it is, with a probe, so that it can be checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ilab.packaging.image import LICENCE, TITLE, VERSION, How, write_layout
from ilab.packaging.licences import base_licence, licence_of_package
from ilab.packaging.probe import take_probe
from ilab.transfer.layout import PROBE


@dataclass(frozen=True)
class Label:
    """Name and version of the package; an empty licence is that of the model's own card."""

    name: str
    version: str
    license: str = ""


def package_folder(model: Path, out: Path, label: Label, how: How, threads: int) -> str:
    """Write the layout ``out``, which must be new or empty; returns its digest. Raises what
    :func:`ilab.packaging.image.write_layout` does."""
    probe = take_probe(model, threads)
    annotations = {
        TITLE: label.name,
        VERSION: label.version,
        LICENCE: licence_of_package(label.license, base_licence(model, tiny=False)),
    }
    files: dict[str, bytes | Path] = {PROBE: (probe.model_dump_json(indent=2) + "\n").encode()}
    return write_layout(out, model, files, annotations, label.version, how)
