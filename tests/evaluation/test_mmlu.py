"""MMLU and MMLU-Branch: what is read, in which order it is asked, what is never shown, what is left out."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ilab.data import Item
from ilab.errors import InputError, Stopped
from ilab.evaluation.benchmarks.choices import NO_NUMBERS, Choice, Form, ask_choices, limited, summarise
from ilab.evaluation.benchmarks.mmlu import find_mmlu, read_mmlu, run_mmlu
from ilab.evaluation.benchmarks.mmlu_branch import branch_of, find_tasks, read_branch, run_mmlu_branch
from ilab.evaluation.benchmarks.paired import branch_data, compare_results, interval
from ilab.evaluation.prompts import LETTERS

sys.path.insert(0, str(Path(__file__).parent))

from asked import close, site, told

SDG_TASK = """task: {leaf}
tag: mmlu_pr
dataset_path: json
dataset_kwargs:
  data_files:
    test: /home/somebody/.local/share/instructlab/datasets/node_datasets_1/mmlubench_{leaf}.jsonl
test_split: test
doc_to_text: "{{{{question.strip()}}}}\\nA. {{{{choices[0]}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Any]:
    made = site(tmp_path / "memo")
    yield made
    close(made)


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def question(number: int, gold: int = 0) -> dict[str, Any]:
    return {"question": f"What is {number}?", "choices": [f"{number}{sign}" for sign in "wxyz"], "answer": gold}


def sdg(folder: Path, leaf: str, rows: list[dict[str, Any]]) -> None:
    """A leaf as InstructLab's data generation writes it."""
    lines(folder / f"mmlubench_{leaf}.jsonl", rows)
    (folder / f"{leaf}_task.yaml").write_text(SDG_TASK.format(leaf=leaf), encoding="utf-8")


def sdg_row(number: int, letter: str, stored: int) -> dict[str, Any]:
    options = [f"{number}{sign}" for sign in "wxyz"]
    text = f"What is {number}?\n" + "\n".join(f"{mark}) {option}" for mark, option in zip("ABCD", options, strict=True))
    row = {"question": f"What is {number}?", "choices": options, "answer": stored, "subject": "d"}
    return {**row, "mmlubench_question": text, "mmlubench_answer": f"{letter})"}


# -- reading ---------------------------------------------------------------------------------------------------------


def test_the_authors_archive_is_read_by_subject(tmp_path: Path) -> None:
    for split, count in (("test", 2), ("dev", 1)):
        (tmp_path / "data" / split).mkdir(parents=True)
        for subject in ("abstract_algebra", "virology"):
            text = "".join(f'"A ""quoted"" question {n}, {subject}?",a,b,"c, d",e,C\n' for n in range(count))
            (tmp_path / "data" / split / f"{subject}_{split}.csv").write_text(text, encoding="utf-8")
    read = read_mmlu(tmp_path)
    assert [one.group for one in read.questions] == ["abstract_algebra"] * 2 + ["virology"] * 2
    assert read.questions[0].question == 'A "quoted" question 0, abstract_algebra?'
    assert (read.questions[0].options, read.questions[0].gold) == (("a", "b", "c, d", "e"), 2)
    assert {group: len(pool) for group, pool in read.shots.items()} == {"abstract_algebra": 1, "virology": 1}


def test_a_line_that_is_no_question_is_named(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "law_test.csv").write_text("Q,a,b,c,d,A\nQ,a,b,c,A\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_mmlu(tmp_path)
    assert caught.value.where.endswith("law_test.csv:2")
    for answer in (4, -1, "E", None, True):
        with pytest.raises(InputError, match=r"answer|position"):
            read_mmlu(lines(tmp_path / "x.jsonl", [{**question(1), "answer": answer}]))


def test_the_right_option_is_known_by_position_letter_or_text(tmp_path: Path) -> None:
    rows = [{**question(3), "answer": answer} for answer in (2, "2", "C", "3y", "C) 3y", " (c) ")]
    read = read_mmlu(lines(tmp_path / "a.jsonl", rows)).questions
    assert [one.gold for one in read] == [2] * 6
    assert len({one.id for one in read}) == 6  # asked six times, told apart


def test_the_hubs_cache_is_found_and_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="not on this machine"):
        find_mmlu("cais/mmlu", tmp_path)
    home = tmp_path / "datasets--cais--mmlu"
    (home / "snapshots" / "abc").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc\n")
    assert find_mmlu("cais/mmlu", tmp_path) == home / "snapshots" / "abc"


def test_too_few_dev_questions_for_the_shots_is_said(tiny_model: Path, here: Any, tmp_path: Path) -> None:
    test = read_mmlu(lines(tmp_path / "law.jsonl", [question(1)]))
    with pytest.raises(InputError, match="law has 0 dev questions, and 5 shots are wanted"):
        run_mmlu(test, "m", told(tiny_model, lambda *_: 0.0)[0], Form(), here)


# -- asking ----------------------------------------------------------------------------------------------------------


def knows(questions: dict[str, str]) -> Any:
    """A model that knows the right option's letter from the lines of the prompt's last question."""

    def like(prompt: str, option: str) -> float:
        last = prompt[prompt.rindex("What is ") :].splitlines()
        right = questions[last[0]]
        wanted = next(line[0] for line in last[1:-1] if line[3:] == right)
        return 0.0 if option.strip() == wanted else -1.0

    return like


@pytest.mark.parametrize(("sign", "expected"), [(1, 1.0), (-1, 0.0)])
def test_an_oracle_scores_all_and_its_opposite_nothing(
    tiny_model: Path, here: Any, tmp_path: Path, sign: int, expected: float
) -> None:
    rows = [question(number, number % 4) for number in range(9)]
    sdg(tmp_path, "leaf", rows)
    right = knows({row["question"]: row["choices"][row["answer"]] for row in rows})
    scorer, asked = told(tiny_model, lambda prompt, option: sign * right(prompt, option))
    result = run_mmlu_branch(read_branch(tmp_path), "m", scorer, Form(), here, seed=3)
    assert result.score == expected
    assert {row.details["shots"] for row in result.rows} == {0}  # the task has no file of its own for them
    order = {row.id: row.details["options"] for row in result.rows}
    assert len({tuple(option[-1] for option in options) for options in order.values()}) > 1  # not all in one order
    again = run_mmlu_branch(read_branch(tmp_path), "m", scorer, Form(), here, seed=3)
    assert again == result
    assert len(asked.asked) == 9 * 4  # nothing twice


def test_no_prompt_holds_its_own_question_or_one_that_is_asked(tiny_model: Path, here: Any) -> None:
    """Check 10: shots come from the dev questions, and never the question itself, however it is spelt."""

    def item(number: int, split: str, text: str = "") -> Item:
        options = tuple(question(number)["choices"])
        return Item(
            id=f"{split}{number}{text}", leaf="knowledge/a", split=split, kind="mcq", cluster="c",
            question=text or f"What is {number}?", options=options, gold=options[number % 4],
        )  # fmt: skip

    items = (
        [item(n, "test") for n in range(6)] + [item(n, "dev") for n in range(10, 14)] + [item(2, "dev", "what is  2 ?")]
    )
    scorer, asked = told(tiny_model, lambda *_: 0.0)
    result = run_mmlu_branch(branch_of(items), "m", scorer, Form(shots=5), here, seed=1)
    tests = [f"What is {number}?" for number in range(6)]
    prompts = {prompt for prompt, _ in asked.asked}
    assert len(prompts) == 6
    for prompt in prompts:
        assert sum(
            prompt.casefold().replace("  ", " ").replace(" ?", "?").count(text.casefold()) for text in tests
        ) in (1, 2)
    own = next(prompt for prompt in prompts if prompt.rstrip().splitlines()[-6] == "What is 2?")
    assert "what is  2 ?" not in own
    assert own.count("Answer:") == 5  # four shots are left for this one
    assert sorted(row.details["shots"] for row in result.rows) == [4, 5, 5, 5, 5, 5]


def test_options_are_ordered_by_seed_and_id_alone_and_gold_stays_the_same_text() -> None:
    choices = [Choice(id=f"q{n}", group="g", question="?", options=("a", "b", "b", "d"), gold=n % 4) for n in range(40)]
    for one in choices:
        moved = one.permuted(7)
        assert moved.options[moved.gold] == one.options[one.gold]
        assert sorted(moved.options) == sorted(one.options)
        turned = Choice(**{**one.model_dump(), "options": one.options[::-1], "gold": 3 - one.gold})
        assert turned.permuted(7).options == moved.options  # the order it was written in plays no part
    places = [one.model_copy(update={"gold": 0}).permuted(7).gold for one in choices]
    assert {places.count(place) > 3 for place in range(4)} == {True}
    assert [one.permuted(8).options for one in choices] != [one.permuted(7).options for one in choices]


def test_a_stop_loses_at_most_what_was_under_way(tiny_model: Path, tmp_path: Path) -> None:
    choices = [Choice(id=f"q{n}", group="g", question=f"What is {n}?", options=("a", "b"), gold=0) for n in range(8)]
    scorer, asked = told(tiny_model, lambda *_: 0.0)
    made = site(tmp_path, stopping=lambda: len(asked.asked) >= 6)
    with pytest.raises(Stopped):
        ask_choices(scorer, choices, {}, Form(shots=0), {}, made)
    close(made)
    first = set(asked.asked)
    scorer, asked = told(tiny_model, lambda *_: 0.0)
    made = site(tmp_path)
    rows = ask_choices(scorer, choices, {}, Form(shots=0), {}, made)
    assert len(rows) == 8
    assert len(first) == 6 and not first & set(asked.asked)
    # Another model, another prompt: nothing of it is known.
    for other, form in (("n", Form(shots=0)), ("m", Form(shots=0, system="Be brief."))):
        scorer, asked = told(tiny_model, lambda *_: 0.0, other)
        ask_choices(scorer, choices, {}, form, {}, made)
        assert len(asked.asked) == 16
    close(made)


def test_what_has_no_number_is_unscored_and_of_equals_the_first_wins(tiny_model: Path, here: Any) -> None:
    choices = [
        Choice(id=f"q{n}", group="g", question=f"What is {n}?", options=("a", "b"), gold=n % 2) for n in range(4)
    ]
    scorer, _ = told(tiny_model, lambda prompt, _: math.nan if "is 3?" in prompt else -1.0)
    result = summarise("b", "m", ask_choices(scorer, choices, {}, Form(shots=0, texts=True), {}, here), "how")
    assert [row.answer for row in result.rows] == ["a", "a", "a", None]
    assert (result.n, result.unscored, result.score) == (3, {NO_NUMBERS: 1}, pytest.approx(2 / 3, abs=1e-6))


def test_a_limit_draws_by_id_from_every_group() -> None:
    choices = [Choice(id=f"{g}{n}", group=g, question="?", options=("a", "b"), gold=0) for g in "xy" for n in range(9)]
    drawn = limited(choices, 3, 5)
    assert [one.group for one in drawn] == ["x"] * 3 + ["y"] * 3
    assert {one.id for one in limited(choices[::-1], 3, 5)} == {one.id for one in drawn}
    assert {one.id for one in limited(choices, 3, 6)} != {one.id for one in drawn}


# -- a branch's files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("golds", ["BC", "D", "CB"])
def test_the_teachers_letter_decides_not_the_position_that_was_stored(tmp_path: Path, golds: str) -> None:
    """Check 11: a leaf whose answers are all B or C is stored as 0 and 1, which are A and B."""
    numbers = {letter: place for place, letter in enumerate(sorted(set(golds)))}
    rows = [sdg_row(n, golds[n % len(golds)], numbers[golds[n % len(golds)]]) for n in range(6)]
    sdg(tmp_path, "leaf", rows)
    read = read_branch(tmp_path)
    for n, one in enumerate(read.questions):
        wanted = f"{n}{'wxyz'[LETTERS.index(golds[n % len(golds)])]}"
        assert one.options[one.gold] == wanted
        for seed in range(3):
            moved = one.permuted(seed)
            assert moved.options[moved.gold] == wanted


def test_what_cannot_be_asked_is_counted_and_a_tiny_or_empty_leaf_stops_nothing(
    tiny_model: Path, here: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "node_datasets_2026-01-02"
    (tmp_path / "node_datasets_2026-01-01").mkdir()
    sdg(folder, "empty", [])
    sdg(folder, "one", [question(1)])
    sdg(folder, "four", [question(n) for n in range(10, 14)])
    bad = [
        sdg_row(20, "A", 0) | {"mmlubench_question": "What is it, vitamin A)?"},
        sdg_row(21, "E", 0),
        sdg_row(22, "B", 0),
    ]
    same = {**question(30), "choices": ["x", "X ", "y", "z"]}
    sdg(folder, "mixed", [*bad, same, sdg_row(22, "B", 0), {"question": "?"}])
    result = run_mmlu_branch(read_branch(find_tasks(tmp_path)), "m", told(tiny_model, lambda *_: 0.0)[0], Form(), here)
    groups = {group.name: group for group in result.groups}
    assert {name: group.n for name, group in groups.items()} == {"empty": 0, "one": 1, "four": 4, "mixed": 1}
    assert groups["empty"].score is None
    assert sum(groups["mixed"].unscored.values()) == 5 == sum(result.unscored.values())
    assert groups["mixed"].unscored["two options are the same"] == 1
    assert groups["mixed"].unscored["the same question again"] == 1
    assert result.score == pytest.approx(
        (groups["one"].score + groups["four"].score + groups["mixed"].score) / 3, abs=1e-6
    )  # type: ignore[operator]


def test_questions_are_read_beside_the_task_alone(tmp_path: Path) -> None:
    secret = lines(tmp_path / "secret.jsonl", [question(1)])
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name in (str(secret), "../secret.jsonl"):
        text = SDG_TASK.format(leaf="x").replace(
            "/home/somebody/.local/share/instructlab/datasets/node_datasets_1/mmlubench_x.jsonl", name
        )
        (folder / "x_task.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"questions are missing: secret.jsonl"):
            read_branch(folder)
    (folder / "secret.jsonl").symlink_to(secret)
    with pytest.raises(InputError, match="missing"):
        read_branch(folder)
    with pytest.raises(InputError, match="no tasks here"):
        find_tasks(tmp_path / "nothing")


# -- two models ------------------------------------------------------------------------------------------------------


def rated(model: str, right: dict[str, list[int]]) -> Any:
    from ilab.evaluation.benchmarks.result import Row

    rows = [
        Row(id=f"{leaf}{n}", group=leaf, question="?", score=float(value))
        for leaf, values in right.items()
        for n, value in enumerate(values)
    ]
    return summarise("mmlu_branch", model, rows, "how")


def test_a_change_that_chance_would_make_is_no_change() -> None:
    base = rated("b", {"up": [0] * 20, "noise": [0, 1] * 10, "small": [0]})
    other = rated("c", {"up": [1] * 20, "noise": [1, 0] * 9 + [1, 1], "small": [1], "extra": [1, 0]})
    comparison = compare_results(base, other)
    data = branch_data("mmlu_branch", other, base, comparison)
    assert [entry["task"] for entry in data["summary_object"]["improvements"]] == ["up"]
    assert {entry["task"] for entry in data["summary_object"]["no_changes"]} == {"noise", "small"}
    assert data["summary_object"]["new"] == [{"qna": "extra", "average_score": 0.5}]
    assert data["summary_object"]["regressions"] == []
    assert json.loads(data["summary"]) == data["summary_object"]
    assert (data["max_score"], data["trained_model_score"], data["base_model_score"]) == (
        "1.0",
        other.score,
        base.score,
    )
    # The same model twice: nothing moved at all.
    same = compare_results(base, base)
    assert {leaf["deltas"]["candidate"]["value"] for leaf in same["leaves"]} == {0.0}


def test_the_files_of_a_skipped_benchmark_have_every_key() -> None:
    asked = branch_data("mmlu_branch", rated("c", {"a": [1]}))
    skipped = branch_data("mmlu_branch", None)
    assert asked.keys() == skipped.keys()
    assert skipped["trained_model_score"] is None and json.loads(skipped["summary"])["new"] == []
    assert {"judge_model", "error_rate"} <= branch_data("mt_bench_branch", None).keys()


def test_the_interval_of_a_mean_of_groups_covers_what_it_should() -> None:
    """95 % of intervals hold the true mean, by simulation with leaves of different size and ease."""
    import random

    draw, covered = random.Random(1), 0
    truth = {"a": (12, 0.9), "b": (40, 0.3), "c": (25, 0.6)}
    for _ in range(400):
        result = rated("m", {name: [int(draw.random() < p) for _ in range(n)] for name, (n, p) in truth.items()})
        bounds = interval(result)
        assert bounds.low is not None and bounds.high is not None and bounds.low <= (result.score or 0) <= bounds.high
        covered += bounds.low <= 0.6 <= bounds.high
    assert 0.92 <= covered / 400 <= 0.99
    all_right = interval(rated("m", {"a": [1] * 5, "b": [1] * 5}))
    assert all_right.low is not None and all_right.low < 0.8  # unanimous is not certain
