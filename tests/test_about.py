"""What a model was made from: out of the store's records, or out of the papers in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ilab.about import about, about_lines, system_prompt
from ilab.core.store import RecordFile, Store

DIGEST = "0" * 64


def put(
    store: Store, step: str, type_: str, files: Mapping[str, Any] | None = None, /, **more: Any
) -> tuple[str, Path]:
    """A result in the store, as a build leaves it; its key and folder."""
    key = f"{len(list(store.root.glob('*/*'))):032x}"
    folder = store.directory(type_, key)
    folder.mkdir(parents=True)
    given = {"fields": {}, "inputs": {}, "counts": {}, **more}
    record = RecordFile(step=step, type=type_, version=1, key=key, input_digests={}, digest=DIGEST, **given)
    (folder / "record.json").write_text(record.model_dump_json())
    for name, value in (files or {}).items():
        text = "".join(f"{json.dumps(row)}\n" for row in value) if name.endswith("l") else json.dumps(value)
        (folder / name).write_text(text)
    return key, folder


def group(name: str, value: float) -> dict[str, Any]:
    measured = {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9}
    change = {"value": 0.25, "low": 0.1, "high": 0.4, "p": 0.01, "p_adjusted": 0.01}
    return {
        "name": name, "items": 9, "n": 9, "clusters": 9, "models": {"base": measured, "phase 1": measured},
        "deltas": {"phase 1": change}, "verdict": "better", "detectable": 0.1, "baselines": {}, "unscored": 0,
    }  # fmt: skip


COMPARISON = {
    "models": ["base", "phase 1"], "reference": "base", "candidate": "phase 1", "baselines": [], "level": 0.95,
    "leaves": [group("knowledge/towers", 0.75)], "kinds": [], "total": group("all leaves", 0.75), "macro": {},
}  # fmt: skip


def row(number: int, system: str) -> dict[str, Any]:
    head = [{"role": "system", "content": system}] if system else []
    turns = [*head, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    return {"id": str(number), "leaf": "l", "source": "knowledge", "sample": "s", "messages": turns}


def built(tmp_path: Path) -> tuple[Store, Path]:
    """A store with one build, and another model of the same taxonomy that no gate has seen."""
    store = Store(tmp_path / "store")
    found = {"t": {"locator": "taxonomy", "revision": "24a3bdb90b574f828394"}}
    taxonomy, _ = put(store, "taxonomy", "taxonomy", found=found)
    base, _ = put(store, "base", "base", fields={"model": "hf:1"}, found={"hf:1": {"locator": "lab/base"}})
    fields = {"teacher": "mixtral"}
    samples, _ = put(
        store, "generate", "generate", fields=fields, counts={"accepted": 4770}, inputs={"taxonomy": taxonomy}
    )
    rows = {"train.jsonl": [row(1, "Be kind."), row(2, ""), row(3, "Be kind.")]}
    mixed, _ = put(store, "mix", "mix", rows, inputs={"samples": samples})
    hyper = {"epochs": 7, "learning_rate": 2e-5}
    trained, _ = put(store, "train-phase-1", "train", fields=hyper, inputs={"base": base, "dataset": mixed})
    select, folder = put(store, "select-phase-1", "select", inputs={"scores": {"a": trained}})
    put(store, "select-phase-1", "select", inputs={"scores": {"a": taxonomy}})
    measured, _ = put(store, "score", "evaluate", inputs={"model": select})
    start, _ = put(store, "score-base", "evaluate", inputs={"model": base})
    models = {"base": start, "phase 1": measured}
    compared, _ = put(store, "final-evaluation", "compare", {"report.json": COMPARISON}, inputs={"models": models})
    gate, _ = put(store, "gate", "gate", {"report.json": {"line": "0.75: PASS"}}, inputs={"evaluation": compared})
    index = {"index.json": {"manifests": [{"digest": "sha256:abc"}]}}
    inputs = {"model": select, "gate": gate}
    put(store, "package", "package", index, fields={"name": "towers", "model_version": "1.2"}, inputs=inputs)
    (folder / "model").mkdir()
    return store, folder / "model"


def test_a_model_of_the_store(tmp_path: Path) -> None:
    store, model = built(tmp_path)
    facts = about(store, model)
    lines = about_lines(facts)
    assert lines[:5] == [
        ("taxonomy", "taxonomy at commit 24a3bdb90b57"),
        ("began from", "lab/base"),
        ("samples", "4,770, by mixtral"),
        ("trained", "train-phase-1: 7 epochs, learning rate 2e-05"),
        ("gate", "0.75: PASS"),
    ]
    assert ("score", "knowledge/towers: 75 % [65, 85], +25 [+10, +40] points against base") in lines
    assert lines[-1] == ("package", "towers 1.2 sha256:abc")
    assert system_prompt(store, model) == "Be kind."


def test_a_model_that_no_gate_has_seen_says_nothing_of_another_ones(tmp_path: Path) -> None:
    store, model = built(tmp_path)
    [other] = [path for path in model.parents[1].iterdir() if path != model.parent]
    facts = about(store, other / "model")
    assert facts.keys() == {"taxonomy"}
    assert system_prompt(store, other / "model") == ""
    [start] = (store.root / "base").iterdir()  # measured beside the one that the gate let through
    assert about(store, start / "model") == {
        "base": "lab/base",
        "scores": [{"name": "knowledge/towers", "text": "75 % [65, 85]"}],
    }


def test_a_model_from_elsewhere_has_papers(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    folder = tmp_path / "pulled"
    folder.mkdir()
    assert about(store, folder) == {} and about_lines({}) == [] and system_prompt(store, folder) == ""
    lineage = {
        "model": {"name": "towers", "version": "1.2"},
        "taxonomy": {"digest": "8c59237c0875f30f", "leaves": {"knowledge/towers": "x"}},
        "steps": [{"type": "base", "fields": {"model": "lab/base"}}],
    }
    for name, value in (("lineage", lineage), ("gate", {"line": "0.75: PASS"}), ("evaluation", COMPARISON)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    assert [name for name, _ in about_lines(about(store, folder))] == [
        "taxonomy", "leaves", "began from", "gate", "score", "package",
    ]  # fmt: skip
    for name in ("lineage", "gate", "evaluation"):
        for text in ("{", "[]", '{"model": 3, "taxonomy": [], "steps": {"a": 1}, "line": 7, "leaves": 4}'):
            (folder / f"{name}.json").write_text(text)
            about_lines(about(store, folder))
