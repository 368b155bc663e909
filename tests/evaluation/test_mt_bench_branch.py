"""MT-Bench-Branch: the seeds of skills as questions, for base and candidate."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ilab.artifacts import Checkpoint, Report
from ilab.config import EvaluateWhere
from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.data import Kind, Leaf, Place, QuestionAnswer, SeedExample
from ilab.errors import InputError
from ilab.evaluation.benchmarks.mt_bench_branch import branch_questions, run_mt_bench_branch
from ilab.evaluation.benchmarks.paired import branch_data, compared
from ilab.evaluation.benchmarks.result import BenchmarkResult
from ilab.evaluation.judging import mt_bench_branch
from ilab.testing.judging import bench, part

PLACE = Place(file="qna.yaml", line=1)


def leaf(path: str, *pairs: tuple[str, str, str | None], kind: Kind = "grounded") -> Leaf:
    seeds = tuple(
        SeedExample(
            context=context, pairs=(QuestionAnswer(question=question, answer=answer, place=PLACE),), place=PLACE
        )
        for question, answer, context in pairs
    )
    return Leaf(path=path, kind=kind, version=3, created_by="me", seeds=seeds, digest="d", place=PLACE)


LEAVES = [
    leaf("skills/two", ("Extract the name.", "Ada", "Ada came."), ("Extract the name.", "Bo", "Bo came.")),
    leaf("skills/one", ("Say hello.", "Hello.", None), ("Say bye.", "Bye.", None), kind="freeform"),
    leaf("knowledge/three", ("How many locks?", "14", "The canal has 14 locks."), kind="knowledge"),
]


def by_reference(prompt: str) -> str:
    return '{"mark": 9}' if part(prompt, "answer") == part(prompt, "reference") else '{"mark": 2}'


def answer(known: dict[str, str]) -> Any:
    return lambda messages: known.get(messages[-1]["content"], "Whatever.")


def test_two_contexts_are_two_questions() -> None:
    questions = branch_questions(LEAVES)
    assert [(one.group, one.reference) for one in questions] == [
        ("skills/one", ("Hello.",)),
        ("skills/one", ("Bye.",)),
        ("skills/two", ("Ada",)),
        ("skills/two", ("Bo",)),
    ]
    assert len({one.question_id for one in questions}) == 4
    assert questions[2].turns == ("Extract the name.\nAda came.",) and questions[2].qna_file == "skills/two/qna.yaml"
    assert branch_questions(LEAVES[::-1]) == questions  # whatever the order of the leaves
    twice = leaf("skills/one", ("Say hello.", "Hello.", None), ("Say hello.", "Hi.", None))
    assert [one.reference for one in branch_questions([twice])] == [("Hello.",)]


def test_base_and_candidate(tmp_path: Path) -> None:
    out = tmp_path / "out"
    learnt = {"Say hello.": "Hello.", "Extract the name.\nAda came.": "Ada", "Extract the name.\nBo came.": "Bo"}
    results, scripts = (
        {},
        {"base": answer({"Say bye.": "Bye.", "Say hello.": "Hello."}), "candidate": answer(learnt)},
    )
    current = [""]

    def either(messages: list[dict[str, str]]) -> str:
        return str(scripts[current[0]](messages))

    with bench(tmp_path, either, by_reference) as b:
        # The script sees no model's name, so it is told which one is asked.
        subjects = {}
        for name in ("base", "candidate"):
            subject = b.subject(name)
            plain = subject.answer

            def told(*args: Any, name: str = name, plain: Any = plain, **more: Any) -> Any:
                current[0] = name
                return plain(*args, **more)

            subject.answer = told  # type: ignore[method-assign]
            subjects[name] = subject
        results = run_mt_bench_branch(branch_questions(LEAVES), subjects, b.judge, out, b.emit, branch="rc")
        temperatures = {call["temperature"] for call in b.server.calls}
    assert temperatures == {0.0}
    base, candidate = results["base"], results["candidate"]
    assert (base.score, candidate.score) == (5.5, 7.25) and candidate.macro == 7.25
    assert {group.name: group.score for group in candidate.groups} == {"skills/one": 5.5, "skills/two": 9}
    assert any("training was made from" in note for note in candidate.notes)
    place = out / "mt_bench_branch" / "rc"
    assert {path.relative_to(place).as_posix() for path in place.rglob("*.jsonl")} == {
        "question.jsonl",
        "reference_answer/judge.jsonl",
        "model_answer/base.jsonl",
        "model_answer/candidate.jsonl",
        "model_judgment/judge_single.jsonl",
    }
    question = json.loads((place / "question.jsonl").read_text().splitlines()[0])
    assert set(question) == {"question_id", "category", "turns", "reference", "qna_file"}
    assert question["category"] == "taxonomy"
    told_files = branch_data("mt_bench_branch", *compared(results))
    assert set(told_files) == {
        "report_title",
        "model",
        "judge_model",
        "max_score",
        "trained_model_score",
        "base_model",
        "base_model_score",
        "error_rate",
        "summary",
        "summary_object",
    }
    assert json.loads(told_files["summary"]) == told_files["summary_object"]
    assert told_files["summary_object"] == {
        "improvements": [],
        "regressions": [],
        "no_changes": [  # two questions of a leaf prove nothing, however far they moved
            {"task": "skills/one/qna.yaml", "average_score": 5.5},
            {"task": "skills/two/qna.yaml", "average_score": 9.0},
        ],
        "new": [],
    }
    assert (told_files["trained_model_score"], told_files["base_model_score"]) == (7.25, 5.5)


def test_the_same_model_twice_changes_nothing(tmp_path: Path) -> None:
    with bench(tmp_path, answer({"Say bye.": "Bye."}), by_reference) as b:
        one = run_mt_bench_branch(
            branch_questions(LEAVES), {"candidate": b.subject("candidate")}, b.judge, tmp_path / "out", b.emit
        )
    found = one["candidate"]
    same = {"base": found, "candidate": found}
    changes = branch_data("mt_bench_branch", *compared(same))["summary_object"]
    assert [entry["task"] for entry in changes["no_changes"]] == ["skills/one/qna.yaml", "skills/two/qna.yaml"]
    assert not (changes["improvements"] or changes["regressions"] or changes["new"])


def test_errors(tmp_path: Path) -> None:
    with bench(tmp_path, answer({})) as b:
        with pytest.raises(InputError, match="no skill"):
            run_mt_bench_branch(branch_questions([LEAVES[2]]), {"base": b.subject()}, b.judge, tmp_path, b.emit)
        with pytest.raises(InputError, match="by one name"):
            run_mt_bench_branch(
                branch_questions(LEAVES), {"base": b.subject(), "candidate": b.subject()}, b.judge, tmp_path, b.emit
            )
        assert b.server.calls == []


def test_a_run_writes_the_same_file_by_the_same_rule(tiny_model: Path, tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo")
    where = SimpleNamespace(device="cpu", threads=1, evaluate=EvaluateWhere())
    site = SimpleNamespace(
        where=where, emit=Bus().for_step("s"), stopping=lambda: False, memo=lambda name: memo, work=tmp_path
    )
    models = {}
    for name in ("base", "candidate"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").symlink_to(tiny_model)
        models[name] = Checkpoint(tmp_path / name)
    (tmp_path / "out").mkdir()
    out = Report(tmp_path / "out")
    mt_bench_branch("rule", LEAVES, models, out, site)  # type: ignore[arg-type]
    memo.close()
    data = json.loads((out.path / "files" / "mt_bench_branch_data.json").read_text())
    results = {name: BenchmarkResult.model_validate(one) for name, one in out.report()["results"].items()}
    assert data == json.loads(json.dumps(branch_data("mt_bench_branch", *compared(results))))
    assert len(data["summary_object"]["no_changes"]) == 2 and data["judge_model"] == "rule"  # the same weights
