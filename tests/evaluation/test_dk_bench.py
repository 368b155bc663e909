"""DK-Bench: a user's questions, marked 1 to 5."""

from __future__ import annotations

import csv
import json
import re
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ilab.errors import InputError, ServiceError, SetupError
from ilab.evaluation.benchmarks.dk_bench import How, load_entries, run_dk_bench, totals
from ilab.evaluation.benchmarks.sheets import harmless, read_sheet, write_csv, write_sheet
from ilab.evaluation.judge import NO_ANSWER, UNREADABLE
from ilab.testing.judging import bench, by_length, part
from ilab.testing.teacher import Faults

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROWS = [{"user_input": f"Question {i}?", "reference": f"reference {i}"} for i in range(4)]
needs_openpyxl = pytest.mark.skipif(find_spec("openpyxl") is None, reason="openpyxl is not installed")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def words(messages: list[dict[str, str]]) -> str:
    """One word more than the question's number."""
    return " ".join(["word"] * (int(re.findall(r"\d+", messages[-1]["content"])[0]) + 1))


def test_a_few_questions_are_the_same_few(tmp_path: Path) -> None:
    with bench(tmp_path, words) as b:

        def asked(rows: list[dict[str, Any]], limit: int, seed: int) -> list[str]:
            path, how = write(tmp_path / "q.jsonl", rows), How(limit=limit, seed=seed)
            result = run_dk_bench(path, b.subject(), b.judge, tmp_path / "out", [], b.emit, how)
            assert (f"{limit} of {len(rows)} questions" in result.notes) == (limit < len(rows))
            return [row.question for row in result.rows]

        two = asked(ROWS, 2, 1)
        assert len(two) == 2 and asked(ROWS[::-1], 2, 1) == two[::-1]
        assert {tuple(asked(ROWS, 2, seed)) for seed in range(8)} != {tuple(two)}
        assert asked(ROWS, 9, 1) == [row["user_input"] for row in ROWS]


def test_a_model_answers_and_a_judge_marks(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", ROWS)
    how = How(system_prompt="Be short.", temperature=0.5, when=WHEN)
    with bench(tmp_path, words) as b:
        result = run_dk_bench(path, b.subject(), b.judge, tmp_path / "out", ["jsonl", "csv"], b.emit, how)
        asked = [call for call in b.server.calls if call["model"] == "student"]
        assert all("1 to 5" in messages[-1]["content"] for messages in b.asked("judge"))
    assert [row.score for row in result.rows] == [1, 2, 3, 4] and result.scale == (1, 5)
    assert totals(result) == {"average": 2.5, "total": 10, "median": 2.5}
    assert {call["max_tokens"] for call in asked} == {768} and {call["temperature"] for call in asked} == {0.5}
    assert asked[0]["messages"][0] == {"role": "system", "content": "Be short."}
    folder = tmp_path / "out" / "student"
    assert sorted(found.name for found in folder.iterdir()) == [
        "results_2026-01-02T03-04-05.csv",
        "results_2026-01-02T03-04-05.jsonl",
    ]
    first = json.loads((folder / "results_2026-01-02T03-04-05.jsonl").read_text().splitlines()[0])
    assert first == {
        "user_input": "Question 0?",
        "response": "word",
        "reference": "reference 0",
        "scores": 1,
        "model_name": "student",
        "timestamp": "2026-01-02T03:04:05+00:00",
    }
    with (folder / "results_2026-01-02T03-04-05.csv").open(newline="") as handle:
        table = list(csv.DictReader(handle))
    assert [row["scores"] for row in table] == ["1.0", "2.0", "3.0", "4.0"] and set(table[0]) == set(first)


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_ready_responses_need_no_model(tmp_path: Path, ending: str) -> None:
    rows = [{**row, "response": "word " * (i + 1)} for i, row in enumerate(ROWS)]
    path = tmp_path / f"q{ending}"
    write_csv(path, rows) if ending == ".csv" else write(path, rows)
    with bench(tmp_path, words) as b:
        result = run_dk_bench(path, None, b.judge, tmp_path / "out", ["jsonl"], b.emit)
        assert b.asked("student") == []
    assert result.model == "no-model-provided" and result.score == 2.5
    assert (tmp_path / "out/no-model-provided/results.jsonl").is_file()


def test_blank_responses(tmp_path: Path) -> None:
    rows = [{**row, "response": "" if i else "one two"} for i, row in enumerate(ROWS)]
    path = write(tmp_path / "q.jsonl", rows)
    with bench(tmp_path, words) as b:
        judged = run_dk_bench(path, None, b.judge, tmp_path / "out", [], b.emit)
        assert [row.score for row in judged.rows] == [2, 1, 1, 1]  # a model that said nothing
        asked = run_dk_bench(path, b.subject(), b.judge, tmp_path / "out", [], b.emit)
        assert [row.score for row in asked.rows] == [2, 2, 3, 4] and len(b.asked("student")) == 3
        with pytest.raises(InputError, match="4 of 4 questions have no response"):
            run_dk_bench(write(tmp_path / "n.jsonl", ROWS), None, b.judge, tmp_path / "out", [], b.emit)


def test_failures_poison_no_average(tmp_path: Path) -> None:
    def mark(prompt: str) -> str:
        return "No idea." if part(prompt, "question") == "Question 3?" else by_length(prompt)

    path = write(tmp_path / "q.jsonl", ROWS)
    with bench(tmp_path, words, mark, faults=Faults(plan={0: "400"})) as b:
        subject = b.subject()
        subject._at_once = 1
        result = run_dk_bench(path, subject, b.judge, tmp_path / "out", ["jsonl", "csv"], b.emit)
    assert result.unscored == {NO_ANSWER: 1, UNREADABLE: 1} and result.n == 2
    assert totals(result) == {"average": 2.5, "total": 5, "median": 2.5}
    scores = [json.loads(line)["scores"] for line in (tmp_path / "out/student/results.jsonl").read_text().splitlines()]
    assert scores == [None, 2, 3, None]
    with bench(tmp_path, words, lambda prompt: "Hm.") as b, pytest.raises(ServiceError, match="none of 4"):
        run_dk_bench(
            write(tmp_path / "o.jsonl", [{**row, "response": "x"} for row in ROWS]), None, b.judge, tmp_path, [], b.emit
        )


def test_equal_rows_are_each_scored(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", [{**ROWS[0], "response": text} for text in ("a", "a b", "a b c")])
    assert len({entry.id for entry in load_entries(path)}) == 3
    with bench(tmp_path, words) as b:
        assert [row.score for row in run_dk_bench(path, None, b.judge, tmp_path, [], b.emit).rows] == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no question"),
        ('{"user_input": "Q?"}', "row 1: reference is missing"),
        ('{"user_input": "Q?", "reference": "r"}\n{"reference": "r"}', "row 2: user_input is missing"),
        ("nothing", "not JSON"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        load_entries(path)


def test_cells_run_no_formula(tmp_path: Path) -> None:
    assert [harmless(value) for value in ("=1+1", "+1", "-1", "@x", "\t=1", "1", -1, None)] == [
        "'=1+1",
        "'+1",
        "'-1",
        "'@x",
        "'\t=1",
        "1",
        -1,
        None,
    ]
    rows = [{"user_input": "=cmd()", "reference": "@r", "response": "+1 word"}]
    path = write(tmp_path / "q.jsonl", rows)
    with bench(tmp_path, words) as b:
        run_dk_bench(path, None, b.judge, tmp_path / "out", ["csv", "jsonl"], b.emit)
    folder = tmp_path / "out/no-model-provided"
    with (folder / "results.csv").open(newline="") as handle:
        row = next(csv.DictReader(handle))
    assert (row["user_input"], row["reference"], row["response"]) == ("'=cmd()", "'@r", "'+1 word")
    assert json.loads((folder / "results.jsonl").read_text())["user_input"] == "=cmd()"


def test_unknown_forms_and_missing_openpyxl_are_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    path = write(tmp_path / "q.jsonl", ROWS)
    with bench(tmp_path, words) as b:
        with pytest.raises(InputError, match="'pdf'"):
            run_dk_bench(path, b.subject(), b.judge, tmp_path, ["pdf"], b.emit)
        with pytest.raises(SetupError, match="openpyxl") as failed:
            run_dk_bench(path, b.subject(), b.judge, tmp_path, ["jsonl", "xlsx"], b.emit)
        assert "ilab[xlsx]" in failed.value.hint and b.server.calls == []
    with pytest.raises(SetupError, match="openpyxl"):
        load_entries(tmp_path / "q.xlsx")


@needs_openpyxl
def test_workbooks(tmp_path: Path) -> None:
    import openpyxl

    source = tmp_path / "q.xlsx"
    header = ("user_input", "reference", "response")
    body = [(f"Question {i}?", f"=reference({i})", "word " * (i + 1)) for i in range(3)]
    write_sheet(source, {"Any": [header, *body, (None, None, None)]})
    with bench(tmp_path, words) as b:
        result = run_dk_bench(source, None, b.judge, tmp_path / "out", ["xlsx"], b.emit)
    assert result.score == 2
    workbook = openpyxl.load_workbook(tmp_path / "out/no-model-provided/results.xlsx")
    assert workbook.sheetnames == ["Results", "Summary"]
    results = list(workbook["Results"].iter_rows(values_only=True))
    assert results[0] == ("user_input", "response", "reference", "scores") and [row[3] for row in results[1:]] == [
        1,
        2,
        3,
    ]
    assert all(cell.data_type != "f" for row in workbook["Results"].iter_rows() for cell in row)
    assert list(workbook["Summary"].iter_rows(values_only=True))[:3] == [("average", 2), ("total", 6), ("median", 2)]


@needs_openpyxl
def test_what_is_no_workbook(tmp_path: Path) -> None:
    path = tmp_path / "q.xlsx"
    path.write_text("user_input,reference\n")
    with pytest.raises(InputError, match="no workbook"):
        read_sheet(path)
    with pytest.raises(InputError, match="no workbook"):
        read_sheet(tmp_path / "missing.xlsx")
