"""The judge in the pipeline's steps, on a tiny model: what is marked, what stays as it was, what is said without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ilab.data import Item, Judgment, Score
from ilab.errors import InputError
from ilab.evaluation.judging import NO_MARK, expect_judgments, find_marks, find_mt_bench, told, with_marks

LEAF = "knowledge/a"


def item(number: int, kind: str = "free", **changes: Any) -> Item:
    options = ("red", "green") if kind == "mcq" else ()
    fields = {"id": f"i{number}", "leaf": LEAF, "split": "test", "kind": kind, "question": f"Q{number}?", "gold": "red"}
    return Item(**{**fields, "options": options, "cluster": f"c{number}", **changes})


def score(of: Item, value: float | None = 0.25) -> Score:
    return Score(item=of.id, leaf=of.leaf, model="m", kind=of.kind, cluster=of.cluster, value=value, answer="red")


def judgment(of: Item, mark: float | None, note: str = "") -> Judgment:
    return Judgment(item=of.id, leaf=of.leaf, model="m", judge="j", mark=mark, note=note)


def test_a_mark_is_the_score_of_a_written_answer_and_stands_beside_any_other() -> None:
    for kind, value in (("free", 0.75), ("exact", 0.25), ("mcq", 0.25)):
        one = item(1, kind)
        found = with_marks([score(one)], [one], [judgment(one, 0.75)])[0]
        assert (found.value, found.metrics["judge"]) == (value, 0.75), kind


def test_without_a_readable_mark_a_written_answer_is_unscored_never_low() -> None:
    free, exact = item(1), item(2, "exact")
    silent = [judgment(one, None, "the judge gave no readable mark") for one in (free, exact)]
    written, matched = with_marks([score(free), score(exact)], [free, exact], silent)
    assert (written.value, written.note) == (None, NO_MARK) and "judge" not in written.metrics
    assert matched == score(exact)


def test_what_was_not_judged_stays_as_it_was() -> None:
    items = [item(1, unanswerable=True), item(2, "mcq", origin="general")]
    assert with_marks([score(one) for one in items], items, []) == [score(one) for one in items]


def test_what_a_report_says_of_the_judge() -> None:
    assert told("", []) == {"judge": None, "note": "no judge"}
    items = [item(number) for number in range(4)]
    said = [judgment(items[0], 1.0), *(judgment(one, None, "unreadable: what it said") for one in items[1:])]
    found = told("j", said)
    assert (found["marked"], found["unscored"]) == (1, {"unreadable": 3}) and not found["by_rule"]
    assert told("rule", [])["by_rule"]


def test_only_a_model_costs_calls_two_for_each_answer_and_none_for_what_is_not_judged() -> None:
    items = [item(1), item(2, "mcq"), item(3, unanswerable=True), item(4, "mcq", origin="general")]
    assert expect_judgments("j", 3, items) == {"calls": 12}
    assert expect_judgments("", 3, items) == expect_judgments("rule", 3, items) == {}


def test_marks_of_people_are_known_by_what_they_say(tmp_path: Path) -> None:
    text = "question,answer,reference,mark\nQ?,red,red,10\nR?,green,red,1\n"
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.csv").write_text("\n".join([(lines := text.splitlines())[0], lines[2], lines[1]]) + "\n")
    assert find_marks("a.csv", tmp_path).digest == find_marks("b.csv", tmp_path).digest
    with pytest.raises(InputError, match="no such file"):
        find_marks("c.csv", tmp_path)


def test_questions_for_conversation_are_read_at_once(tmp_path: Path) -> None:
    assert find_mt_bench("builtin", tmp_path).digest == find_mt_bench("builtin", Path("/")).digest
    (tmp_path / "q.jsonl").write_text('{"question_id": 1}\n')
    for name in ("q.jsonl", "absent.jsonl"):
        with pytest.raises(InputError):
            find_mt_bench(name, tmp_path)
