"""Likelihoods, choices and standard errors beside those of lm-evaluation-harness 0.4.13 (see lm_eval_dump.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ilab.evaluation.answers import preferred
from ilab.evaluation.statistics import mean_interval
from ilab.models.likelihood import Likelihood, encode_pair, score_all
from ilab.models.likelihood_local import LocalLikelihoods
from ilab.models.local import LocalModel

sys.path.insert(0, str(Path(__file__).parent))

from lm_eval_dump import MODELS, NARROW, RESULT, build, documents, edges, weights_hash

CLOSE = 1e-4
DUMP: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
DOCS = documents()[0]
METRICS = {"acc": "sum", "acc_norm": "characters", "acc_bytes": "bytes"}


@pytest.fixture(scope="module", params=sorted(MODELS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, LocalModel]:
    folder = build(tmp_path_factory.mktemp("parity"), request.param)
    if weights_hash(folder) != DUMP["models"][request.param]["weights"]:
        pytest.fail("this torch draws other weights from the seed: run tests/evaluation/lm_eval_dump.py again")
    return request.param, LocalModel.load(folder, "cpu")


def ask(model: LocalModel, run: dict[str, Any], batch: Any, share: bool) -> list[list[Likelihood]]:
    """Per item the likelihoods of its options."""
    pairs = [
        encode_pair(model.renderer, run["prefix"] + item["context"], option, rendered=run["chat"])
        for item in run["items"]
        for option in item["continuations"]
    ]
    found = iter(score_all(LocalLikelihoods(model, batch, share=share), pairs))
    return [[next(found) for _ in item["continuations"]] for item in run["items"]]


def options(item: dict[str, Any]) -> list[str]:
    """The choices without the blank before them."""
    return [text.removeprefix(" ") for text in item["continuations"]]


@pytest.mark.parametrize("at", range(8))
def test_every_request_has_the_likelihood_that_lm_eval_gives_it(model: tuple[str, LocalModel], at: int) -> None:
    run = DUMP["models"][model[0]]["runs"][at]
    verdicts: dict[str, list[float]] = {name: [] for name in METRICS}
    for item, found in zip(run["items"], ask(model[1], run, "auto", True), strict=True):
        assert [one.total for one in found] == pytest.approx(item["likelihoods"], abs=CLOSE)
        assert [one.greedy for one in found] == item["greedy"]
        gold = DOCS[item["id"]]["answer"]
        for name, per in METRICS.items():
            right = float(preferred([one.total for one in found], options(item), per) == gold)
            assert right == item[name], (item["id"], name)
            verdicts[name].append(right)
    for name, values in verdicts.items():
        mean = mean_interval(values, range(len(values)))
        assert mean.mean == pytest.approx(run["scores"][name], abs=1e-12)
        assert mean.standard_error == pytest.approx(run["scores"][f"{name}_stderr"], abs=1e-12)


@pytest.mark.parametrize("batch", [1, 3, 16, "auto"])
@pytest.mark.parametrize("at", [1, 4, 6, 7])
def test_batches_and_sharing_change_nothing(model: tuple[str, LocalModel], at: int, batch: Any) -> None:
    run = DUMP["models"][model[0]]["runs"][at]
    few = {**run, "items": run["items"][:7]}
    for share in (False, True):
        for item, found in zip(few["items"], ask(model[1], few, batch, share), strict=True):
            assert [one.total for one in found] == pytest.approx(item["likelihoods"], abs=CLOSE)
            assert [one.greedy for one in found] == item["greedy"]


def test_no_prompt_holds_its_own_question_twice() -> None:
    for one in DUMP["models"].values():
        for run in one["runs"]:
            for item in run["items"]:
                question = DOCS[item["id"]]["question"]
                assert (run["prefix"] + item["context"]).count(question) == 1


@pytest.mark.parametrize("share", [True, False])
def test_the_edges(model: tuple[str, LocalModel], share: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut contexts, contexts just as long as the window, blanks, no context, an option that begins another."""
    monkeypatch.setattr(model[1], "context_length", NARROW)
    wanted = DUMP["models"][model[0]]["edges"]
    assert [(context, continuation) for context, continuation, _, _ in wanted[:-2]] == edges()
    assert all(greedy for _, _, _, greedy in wanted[-2:])
    pairs = [encode_pair(model[1].renderer, context, text, rendered=True) for context, text, _, _ in wanted]
    found = score_all(LocalLikelihoods(model[1], share=share), pairs)
    assert [one.total for one in found] == pytest.approx([value for _, _, value, _ in wanted], abs=CLOSE)
    assert [one.greedy for one in found] == [greedy for _, _, _, greedy in wanted]
    lengths = [len(pair.context) + len(pair.continuation) for pair in pairs]
    assert [one.cut for one in found] == [max(length - NARROW - 1, 0) for length in lengths]
    assert {0, 1, 2} <= {one.cut for one in found} and max(one.cut for one in found) > 40
