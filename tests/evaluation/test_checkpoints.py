"""Scoring and choosing the candidates of a run, and asking models the same questions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ilab.artifacts import Candidates, Checkpoint, Report
from ilab.config import Where
from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.data import Item, Message, TrainingRow
from ilab.errors import Stopped
from ilab.evaluation.before_after import compare_answers
from ilab.evaluation.stage import evaluate, select
from ilab.models.local import LocalModel, Sampling

Here = Any  # a site with what these functions ask of it


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Here]:
    memos: dict[str, Memo] = {}

    def memo(name: str) -> Memo:
        return memos.setdefault(name, Memo(tmp_path / "memo" / name))

    where = Where(threads=1, device="cpu")
    found = SimpleNamespace(where=where, emit=Bus().for_step("s"), stopping=lambda: False, memo=memo, memos=memos)
    yield found
    for one in memos.values():
        one.close()


def item(number: int, gold: str, *options: str) -> Item:
    return Item(
        id=f"a/{number}", leaf="a", split="dev", kind="mcq" if options else "exact", question=f"Question {number}?",
        options=options, gold=gold, cluster=str(number),
    )  # fmt: skip


ITEMS = [item(1, "red", "red", "green"), item(2, "14", "37", "14"), item(3, "lamp")]


def row(question: str, answer: str) -> TrainingRow:
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return TrainingRow(id=question, leaf="q", source="given", sample=question, messages=messages)


def changed(model: Path, folder: Path, value: float) -> Path:
    """A copy of a model with other numbers in one of its matrices."""
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name] = torch.full_like(weights[name], value)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def entry(epoch: int, loss: float | None) -> dict[str, Any]:
    return {"name": f"epoch-{epoch:03d}", "epoch": epoch, "step": epoch, "loss": loss}


def report(folder: Path) -> Report:
    folder.mkdir(parents=True)
    return Report(folder)


def test_a_checkpoint_is_scored_once_whatever_it_is_called(
    tiny_model: Path, tmp_path: Path, site: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = report(tmp_path / "one")
    both = {"epoch-001": tiny_model, "epoch-002": changed(tiny_model, tmp_path / "b", 0.1)}
    evaluate(both, ("dev", ITEMS), [], "", first, site)
    monkeypatch.setattr(LocalModel, "load", lambda *_: pytest.fail("scored again"))
    second = report(tmp_path / "two")
    evaluate({"samples-5": shutil.copytree(tiny_model, tmp_path / "copy")}, ("dev", ITEMS), [], "", second, site)
    before = [score for score in first.scores() if score.model == "epoch-001"]
    assert [score.model_copy(update={"model": "epoch-001"}) for score in second.scores()] == before
    assert len({score.model for score in first.scores()}) == 2 and len(before) == 3
    evaluate({"other": tiny_model}, ("dev", ITEMS[:2]), [], "", report(tmp_path / "three"), site)
    assert site.memos["scores"].writes == 6  # each item of each of the two models


def test_stopped_within_a_checkpoint_what_is_scored_is_kept(tiny_model: Path, tmp_path: Path, site: Here) -> None:
    site.stopping = lambda: site.memos["scores"].writes == 4
    models = {"a": tiny_model, "b": changed(tiny_model, tmp_path / "b", 0.1)}
    with pytest.raises(Stopped):
        evaluate(models, ("dev", ITEMS), [], "", report(tmp_path / "r"), site)
    site.stopping = lambda: False
    evaluate(models, ("dev", ITEMS), [], "", report(tmp_path / "again"), site)
    assert site.memos["scores"].writes == 6  # what the first had is not asked again


def test_a_diverged_checkpoint_is_not_measured_and_not_chosen(tiny_model: Path, tmp_path: Path, site: Here) -> None:
    candidates = Candidates(tmp_path / "candidates")
    changed(tiny_model, candidates.path / "epoch-001", float("nan"))
    shutil.copytree(tiny_model, candidates.path / "epoch-002")
    candidates.write_index([entry(1, None), entry(2, 2.0)])
    made = report(tmp_path / "r")
    evaluate(candidates.models(), ("dev", ITEMS), [], "", made, site)
    assert {score.value for score in made.scores() if score.model == "epoch-001"} == {None}
    assert all("no numbers" in score.note for score in made.scores() if score.model == "epoch-001")
    assert made.report()["mean"]["epoch-001"] is None
    (tmp_path / "out").mkdir()
    out = Checkpoint(tmp_path / "out")
    select(candidates, made, "score", out)
    assert out.choice()["name"] == "epoch-002"


def test_without_scores_the_loss_chooses(tiny_model: Path, tmp_path: Path) -> None:
    candidates = Candidates(tmp_path / "candidates")
    for name in ("epoch-001", "epoch-002"):
        shutil.copytree(tiny_model, candidates.path / name)
    candidates.write_index([entry(1, 1.0), entry(2, 1.0)])
    (tmp_path / "out").mkdir()
    out = Checkpoint(tmp_path / "out")
    select(candidates, None, "auto", out)
    assert (out.choice()["name"], out.choice()["weights"]) == ("epoch-001", {})
    assert (out.model / "model.safetensors").is_file()


def test_models_are_asked_as_they_would_answer_in_a_chat(tiny_model: Path, tmp_path: Path, site: Here) -> None:
    questions = [row("How many locks has the canal?", "14\n"), row("Größe?", "café"), row("long " * 300, "x")]
    made = report(tmp_path / "r")
    other = changed(tiny_model, tmp_path / "b", 0.1)
    compare_answers({"before": tiny_model, "after": other}, questions, 8, made, site)
    found = [json.loads(line) for line in (made.path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [list(one) for one in found] == [["question", "expected", "before", "after"]] * 3
    assert [one["expected"] for one in found] == ["14", "café", "x"]
    for name, folder in (("before", tiny_model), ("after", other)):
        model = LocalModel.load(folder, "cpu")
        for one in found[:2]:
            prompt = model.renderer.prompt_ids([Message(role="user", content=one["question"])])
            ids = list(model.generate(prompt, max_tokens=8, stop_ids=model.renderer.stop_ids))
            assert one[name] == model.renderer.decode(ids).strip()
    assert found[2]["before"].startswith("(not asked: the prompt has")
    assert "### Größe?" in (made.path / "answers.md").read_text(encoding="utf-8")
    assert Sampling().temperature == 0.0


def test_an_interrupted_comparison_goes_on(
    tiny_model: Path, tmp_path: Path, site: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = [row(f"Question {n}?", "x") for n in range(3)]
    stops = iter([False, True])
    site.stopping = lambda: next(stops)
    with pytest.raises(Stopped):
        compare_answers({"before": tiny_model}, questions, 4, report(tmp_path / "a"), site)
    site.stopping = lambda: False
    compare_answers({"before": tiny_model}, questions, 4, report(tmp_path / "b"), site)
    assert site.memos["answers"].writes == 3
    monkeypatch.setattr(LocalModel, "load", lambda *_: pytest.fail("asked again"))
    compare_answers({"after": tiny_model}, questions, 4, report(tmp_path / "c"), site)
