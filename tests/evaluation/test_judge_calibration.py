"""Agreement of a judge with people."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilab.data import Judgment
from ilab.errors import InputError, ServiceError
from ilab.evaluation.calibration import (
    Calibration,
    Marked,
    calibrate,
    cohen_kappa,
    kappa_interval,
    read_marked,
    trusted,
)
from ilab.evaluation.judge import Preference, judgment
from ilab.evaluation.rubric import QUALITY, Asked, Pair, Rubric
from ilab.evaluation.rule_judge import RuleJudge


class Says:
    """A judge that says what a table of answers holds; what stands there with None it cannot mark."""

    name = "says"
    by_rule = False

    def __init__(self, marks: dict[str, float | None]) -> None:
        self.marks = marks

    def mark(self, asked: Sequence[Asked], rubric: Rubric = QUALITY) -> list[Judgment]:
        found = []
        for one in asked:
            mark = self.marks.get(one.answer or "", 1.0)
            share = None if mark is None else rubric.share(mark)
            found.append(judgment(one, self.name, mark=share, note="" if mark else "unreadable"))
        return found

    def prefer(self, pairs: Sequence[Pair]) -> list[Preference]:
        return []


def by_matrix(first: Sequence[int], second: Sequence[int], quadratic: bool) -> float:
    """The textbook's way, by the matrix of counts (as scikit-learn computes it)."""
    labels = sorted({*first, *second})
    counts = np.zeros((len(labels), len(labels)))
    for a, b in zip(first, second, strict=True):
        counts[labels.index(a), labels.index(b)] += 1
    expected = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()
    values = np.array(labels, dtype=float)
    weights = (values[:, None] - values[None, :]) ** 2 if quadratic else 1 - np.eye(len(labels))
    return float(1 - (weights * counts).sum() / (weights * expected).sum())


def test_the_textbook_example() -> None:
    """Fifty grants, both say yes 20 times, both no 15, one alone 5 and 10: po .7, pe .5, so kappa .4."""
    first = [1] * 25 + [0] * 25
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def test_weights_tell_near_from_far() -> None:
    people = [1, 3, 5, 7, 9, 10]
    near, far = [2, 4, 6, 8, 10, 9], [9, 10, 1, 3, 5, 2]
    assert cohen_kappa(people, near) is not None and (cohen_kappa(people, near) or 0) < 0.1
    assert (cohen_kappa(people, near, quadratic=True) or 0) > 0.9
    assert (cohen_kappa(people, far, quadratic=True) or 0) < 0


@given(st.lists(st.tuples(st.integers(1, 10), st.integers(1, 10)), min_size=2, max_size=60), st.booleans())
def test_kappa_against_the_matrix(pairs: list[tuple[int, int]], quadratic: bool) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    found = cohen_kappa(first, second, quadratic=quadratic)
    if len(set(first)) == len(set(second)) == 1:
        assert found is None if first[0] == second[0] else found == pytest.approx(0)
    else:
        assert found == pytest.approx(by_matrix(first, second, quadratic), abs=1e-9)
        assert found == cohen_kappa(second, first, quadratic=quadratic)


def test_bounds() -> None:
    first = [True] * 30 + [False] * 30
    second = [True] * 25 + [False] * 5 + [True] * 5 + [False] * 25
    kappa, low, high = kappa_interval(first, second)
    assert kappa is not None and low is not None and high is not None
    agreed = 50 / 60  # Cohen 1960: se = sqrt(po(1-po)/n) / (1-pe), with pe = .5 here
    half = 1.96 * math.sqrt(agreed * (1 - agreed) / 60) / 0.5
    assert kappa == pytest.approx(2 / 3) and (low, high) == pytest.approx((kappa - half, kappa + half), abs=0.05)
    _, low, high = kappa_interval(first[::10], first[::10])
    assert high == pytest.approx(1) and low is not None and low < 0.6  # six answers judged alike are no certainty
    assert kappa_interval([], []) == (None, None, None)


def rows(n: int) -> list[Marked]:
    return [
        Marked(f"Question {i}?", f"answer {i}", i % 2 == 0, 9.0 if i % 2 == 0 else 2.0, f"reference {i}")
        for i in range(n)
    ]


def says(n: int, wrong: int = 0) -> Says:
    """Right about all answers but the first ``wrong``, and about references where they belong."""
    marks: dict[str, float | None] = {f"answer {i}": (8.0 if (i % 2 == 0) != (i < wrong) else 3.0) for i in range(n)}
    return Says(marks)


def test_trusted_needs_agreement_and_enough_answers() -> None:
    assert trusted(calibrate(says(30), rows(30)))
    assert not trusted(calibrate(says(29), rows(29)))
    assert not trusted(calibrate(says(40, wrong=20), rows(40)))
    assert not trusted(None)
    found = calibrate(says(40, wrong=4), rows(40))
    assert (found.n, found.agreement, found.kappa) == (40, 0.9, pytest.approx(0.8))
    assert "trusted" in found.line() and "0.80" in found.line() and "n = 40" in found.line()


def test_a_judge_that_finds_everything_good_is_not_trusted() -> None:
    found = calibrate(Says(dict.fromkeys((f"answer {i}" for i in range(40)), 9.0)), rows(40))
    assert found.kappa == 0 and found.agreement == 0.5 and not trusted(found)
    alike = calibrate(Says({}), [Marked(f"Q{i}?", "a", False) for i in range(40)])
    assert alike.kappa is None and not trusted(alike) and "alike" in alike.line()


def test_unscored_answers_do_not_count() -> None:
    judge = says(40)
    judge.marks |= {f"answer {i}": None for i in range(15)}
    found = calibrate(judge, rows(40))
    assert found.n == 25 and found.unscored == {"unreadable": 15} and not trusted(found)
    with pytest.raises(ServiceError, match="none of 5 answers: unreadable"):
        calibrate(Says({f"answer {i}": None for i in range(5)}), rows(5))


def test_probes() -> None:
    good = RuleJudge()
    distinct = [Marked(f"Q{i}?", "x", False, None, text) for i, text in enumerate(("red lamp", "14 locks", "a weir"))]
    found = calibrate(good, distinct)
    assert (found.probes, found.probes_failed, found.by_rule) == (6, 0, True)
    kind = calibrate(
        Says({row.reference: 10.0 for row in distinct if row.reference}), distinct
    )  # high wherever it stands
    assert (kind.probes, kind.probes_failed) == (6, 3)
    # Seven is too low for what is right and too high for what is wrong.
    lukewarm = calibrate(Says({row.reference: 7.0 for row in distinct if row.reference}), distinct)
    assert lukewarm.probes_failed == 6


def test_files(tmp_path: Path) -> None:
    lines = tmp_path / "marks.jsonl"
    given = [
        {"question": "Q1?", "answer": "A", "mark": 9, "reference": "R"},
        {"question": "Q2?", "answer": "", "mark": "bad"},
        {"question": "Q3?", "answer": "B", "mark": "Good", "context": "C"},
    ]
    lines.write_text("\n".join(json.dumps(row) for row in given) + "\n\n")
    expected = [
        Marked("Q1?", "A", True, 9.0, "R"),
        Marked("Q2?", "", False),
        Marked("Q3?", "B", True, None, None, "C"),
    ]
    assert read_marked(lines) == expected
    table = tmp_path / "marks.csv"
    table.write_text('question,answer,mark,reference,context\nQ1?,A,9,R,\nQ2?,,bad,,\n"Q3?",B,Good,,C\n')
    assert read_marked(table) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"question": "Q?", "answer": "A", "mark": 11}',
            "marks.jsonl: row 1: mark '11' is neither good, bad nor 1 to 10",
        ),
        ('{"question": "Q?", "answer": "A", "mark": "nan"}', "neither good"),
        ('{"question": "Q?", "answer": "A"}', "mark is missing"),
        ('\n{"answer": "A", "mark": 1}', "marks.jsonl: row 1: question is missing"),
        ("[1]", "not an object"),
        ("{", "marks.jsonl:1: not JSON"),
        ("", "holds no marked answer"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "marks.jsonl"
    path.write_text(text)
    with pytest.raises(InputError) as failed:
        read_marked(path)
    assert said in str(failed.value)


def test_a_calibration_is_kept_as_json() -> None:
    found = calibrate(says(30), rows(30))
    assert Calibration.model_validate_json(found.model_dump_json()) == found
