"""Prompts, likelihoods and scores beside lm-evaluation-harness 0.4.13's on the same tasks (see lm_eval_tasks.py)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.evaluation.benchmarks.choices import Form
from ilab.evaluation.benchmarks.mmlu import TestSet, read_mmlu, run_mmlu
from ilab.evaluation.benchmarks.mmlu_branch import branch_of, read_branch, run_mmlu_branch
from ilab.evaluation.benchmarks.tasks import Task, read_tasks, run_tasks
from ilab.evaluation.benchmarks.under_test import LocalUnderTest
from ilab.evaluation.prompts import MMLU, Prompt, joined, lettered, shots_for

sys.path.insert(0, str(Path(__file__).parent))

from lm_eval_tasks import MMLU_RUNS, RESULT, SYSTEM, items, make, short, weights_hash

DUMP: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
CLOSE = 1e-4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make(tmp_path_factory.mktemp("tasks"))
    if weights_hash(folder / "model") != DUMP["model"]:
        pytest.fail("this torch draws other weights from the seed: run tests/evaluation/lm_eval_tasks.py again")
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    memos: dict[str, Memo] = {}
    root = tmp_path_factory.mktemp("memo")
    where = SimpleNamespace(threads=1, device="cpu")
    site = SimpleNamespace(where=where, emit=Bus().for_step("evaluate"), stopping=lambda: False)
    site.memo = lambda name: memos.setdefault(name, Memo(root / name))
    yield site
    for memo in memos.values():
        memo.close()


@pytest.fixture(scope="module")
def model(made: Path, site: Any) -> LocalUnderTest:
    return LocalUnderTest(made / "model", site)


def text_of(prompt: Prompt, model: LocalUnderTest) -> str:
    return model.renderer.text(list(prompt.messages), True) if prompt.chat else prompt.plain


def run(tasks: list[Task], model: LocalUnderTest, site: Any, form: tuple[str, bool] = ("", False)) -> Any:
    return run_tasks(tasks, "m", model.scorer(), model.writer(), site, form)


@pytest.mark.parametrize("folder", ["own", "ilab"])
def test_tasks_are_asked_and_scored_as_the_harness_does(
    made: Path, model: LocalUnderTest, site: Any, folder: str
) -> None:
    tasks = read_tasks(made / folder)
    expected = DUMP[folder]
    result = run(tasks, model, site)
    rows = {name: [row for row in result.rows if row.group == name] for name in expected["asked"]}
    for task in tasks:
        asked = expected["asked"][task.name]
        prompts = [task.prompt(one, "", False) for one in task.questions]
        assert prompts[0].plain == asked[0]["text"]
        assert [short(prompt.plain) for prompt in prompts] == [one["prompt"] for one in asked]
        for row, one, question in zip(rows[task.name], asked, task.questions, strict=True):
            if task.chooses:
                assert [prompts[0].continuation(option) for option in question.options] == one["options"]
                assert row.details["likelihoods"] == pytest.approx(one["likelihoods"], abs=CLOSE)
            else:
                assert row.answer == one["answer"]
        for metric, _ in task.metrics:
            mean = sum(row.details["metrics"][metric] for row in rows[task.name]) / len(asked)
            assert mean == pytest.approx(expected["scores"][task.name][metric])
    assert {task.name for task in tasks} == set(expected["asked"])


def test_our_items_score_the_same_here_and_as_tasks_there(made: Path, model: LocalUnderTest, site: Any) -> None:
    own = run_mmlu_branch(branch_of(items()), "m", model.scorer(), Form(shots=0), site, seed=7)
    again = run_mmlu_branch(read_branch(made / "ilab"), "m", model.scorer(), Form(shots=0), site, seed=7)
    there = DUMP["ilab"]["scores"]
    scores = {group.name: group.score for group in own.groups if group.n}
    assert scores["knowledge/canal"] == pytest.approx(there["knowledge_canal"]["acc"], abs=1e-6)
    assert scores["knowledge/weir gates"] == pytest.approx(there["knowledge_weir_gates"]["acc"], abs=1e-6)
    # The harness' group weighs leaves by their questions, as our micro does; our score does not.
    assert own.micro == pytest.approx(there["ilab"]["acc"], abs=1e-6)
    assert own.score == pytest.approx(sum(scores.values()) / 2, abs=1e-6) == own.macro
    assert {row.id for row in again.rows} == {row.id for row in own.rows}


@pytest.mark.parametrize(("shots", "chat", "system"), MMLU_RUNS)
def test_mmlu_is_asked_in_the_same_strings(
    made: Path, model: LocalUnderTest, site: Any, shots: int, chat: bool, system: str
) -> None:
    assert system in ("", SYSTEM)
    expected = DUMP[f"mmlu {shots} {chat} {bool(system)}"]
    asked = expected["asked"]["mmlu_test"]
    read = read_mmlu(made / "mmlu" / "mmlu.jsonl")
    dev = read_mmlu(made / "mmlu" / "mmlu.dev.jsonl")
    test = TestSet(read.questions, {"canal_building": dev.questions})
    pool = [(one.question, _shot(one)) for one in dev.questions]
    description = MMLU.format("canal building")
    for one, wanted in zip(test.questions, asked, strict=True):
        options = lettered(one.question, one.options)
        prompt = Prompt(options, joined(system, description), shots_for(one.question, pool, shots), chat)
        assert short(text_of(prompt, model)) == wanted["prompt"], text_of(prompt, model)
        assert [prompt.continuation(letter) for letter in "ABCD"] == wanted["options"]
    result = run_mmlu(test, "m", model.scorer(), Form(shots, chat, system), site)
    for row, wanted in zip(result.rows, asked, strict=True):
        assert row.details["likelihoods"] == pytest.approx(wanted["likelihoods"], abs=CLOSE)
        assert row.details["shots"] == shots
    assert result.score == pytest.approx(expected["scores"]["mmlu_test"]["acc"], abs=1e-6)


def _shot(one: Any) -> Any:
    from ilab.evaluation.prompts import Shot

    return Shot(lettered(one.question, one.options), one.letter)
