"""The kinds of artifact on disk: how each is read and written, nothing more.

    taxonomy    leaves.jsonl                               what people wrote
    documents   documents.jsonl  chunks.jsonl              what the leaves refer to
    items       items.jsonl  dropped.jsonl                 held-out questions
    samples     samples.jsonl  rejected.jsonl  card.json   synthetic data
    dataset     train.jsonl  mix.json                      what one phase trains on
    candidates  <name>/…  candidates.json  metrics.jsonl   the checkpoints one training run saved
    checkpoint  Hugging Face directory  choice.json        one model
    report      report.json  scores.jsonl  judgments.jsonl  scores, comparisons, verdicts, registrations
    package     OCI image layout                           what is published

All text is UTF-8 JSON or JSONL that a person can open; weights are safetensors. ``record.json`` beside them is the
store's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from ilab.core.files import read_json, read_records, write_json, write_records
from ilab.core.step import Artifact
from ilab.data import Chunk, Document, Item, Judgment, Leaf, Rejected, Sample, Score, TrainingRow


class Taxonomy(Artifact):
    kind: ClassVar[str] = "taxonomy"

    def write(self, leaves: Iterable[Leaf]) -> int:
        return write_records(self.path / "leaves.jsonl", leaves)

    def leaves(self) -> list[Leaf]:
        return list(read_records(self.path / "leaves.jsonl", Leaf))


class Documents(Artifact):
    kind: ClassVar[str] = "documents"

    def write(self, documents: Iterable[Document], chunks: Iterable[Chunk]) -> tuple[int, int]:
        return (
            write_records(self.path / "documents.jsonl", documents),
            write_records(self.path / "chunks.jsonl", chunks),
        )

    def documents(self) -> list[Document]:
        return list(read_records(self.path / "documents.jsonl", Document))

    def chunks(self) -> list[Chunk]:
        return list(read_records(self.path / "chunks.jsonl", Chunk))


class Items(Artifact):
    kind: ClassVar[str] = "items"

    def write(self, items: Iterable[Item], dropped: Iterable[Rejected]) -> tuple[int, int]:
        return (
            write_records(self.path / "items.jsonl", items),
            write_records(self.path / "dropped.jsonl", dropped),
        )

    def items(self, split: str | None = None) -> list[Item]:
        return [item for item in read_records(self.path / "items.jsonl", Item) if split is None or item.split == split]

    def dropped(self) -> list[Rejected]:
        return list(read_records(self.path / "dropped.jsonl", Rejected))


class Samples(Artifact):
    kind: ClassVar[str] = "samples"

    def write(self, samples: Iterable[Sample], rejected: Iterable[Rejected], card: dict[str, Any]) -> None:
        """``card`` holds accept rates per leaf and block, length figures, the flow; plain JSON, no times."""
        write_records(self.path / "samples.jsonl", samples)
        write_records(self.path / "rejected.jsonl", rejected)
        write_json(self.path / "card.json", card)

    def samples(self) -> list[Sample]:
        return list(read_records(self.path / "samples.jsonl", Sample))

    def rejected(self) -> list[Rejected]:
        return list(read_records(self.path / "rejected.jsonl", Rejected))

    def card(self) -> dict[str, Any]:
        card: dict[str, Any] = read_json(self.path / "card.json")
        return card


class Dataset(Artifact):
    kind: ClassVar[str] = "dataset"

    def write(self, rows: Iterable[TrainingRow], mix: dict[str, Any]) -> int:
        """``mix`` says what came from where: rows per source and leaf, weights, replay."""
        write_json(self.path / "mix.json", mix)
        return write_records(self.path / "train.jsonl", rows)

    def rows(self) -> list[TrainingRow]:
        return list(read_records(self.path / "train.jsonl", TrainingRow))

    def mix(self) -> dict[str, Any]:
        mix: dict[str, Any] = read_json(self.path / "mix.json")
        return mix


class Candidates(Artifact):
    """``candidates.json``: a list of {name, epoch, step, training_loss, loss}, earliest first; each name is a folder.

    ``loss`` is that of rows held out of training, None where none were.
    """

    kind: ClassVar[str] = "candidates"

    def write_index(self, index: list[dict[str, Any]]) -> None:
        write_json(self.path / "candidates.json", index)

    def index(self) -> list[dict[str, Any]]:
        index: list[dict[str, Any]] = read_json(self.path / "candidates.json")
        return index

    def models(self) -> dict[str, Path]:
        return {entry["name"]: self.path / entry["name"] for entry in self.index()}

    def metrics(self) -> list[dict[str, Any]]:
        """One object per optimizer step: step, epoch, loss, gradient_norm, learning_rate, tokens, samples."""
        lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


class Checkpoint(Artifact):
    """A Hugging Face model directory under ``model/``; ``choice.json`` says by which rule it was chosen or made."""

    kind: ClassVar[str] = "checkpoint"

    @property
    def model(self) -> Path:
        return self.path / "model"

    def write_choice(self, choice: dict[str, Any]) -> None:
        write_json(self.path / "choice.json", choice)

    def choice(self) -> dict[str, Any]:
        choice: dict[str, Any] = read_json(self.path / "choice.json")
        return choice

    def models(self) -> dict[str, Path]:
        return {"model": self.model}


class Report(Artifact):
    """``report.json`` (plain JSON); where items were scored ``scores.jsonl``, and where a judge spoke, its words."""

    kind: ClassVar[str] = "report"

    def write(self, report: dict[str, Any], scores: Iterable[Score] = (), judgments: Iterable[Judgment] = ()) -> None:
        write_records(self.path / "scores.jsonl", scores)
        write_records(self.path / "judgments.jsonl", judgments)
        write_json(self.path / "report.json", report)

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = read_json(self.path / "report.json")
        return report

    def scores(self) -> list[Score]:
        return list(read_records(self.path / "scores.jsonl", Score))

    def judgments(self) -> list[Judgment]:
        return list(read_records(self.path / "judgments.jsonl", Judgment))


class Package(Artifact):
    """An OCI image layout (``oci-layout``, ``index.json``, ``blobs/``)."""

    kind: ClassVar[str] = "package"

    def index(self) -> dict[str, Any]:
        index: dict[str, Any] = read_json(self.path / "index.json")
        return index
