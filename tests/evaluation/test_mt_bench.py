"""MT-Bench with a scripted model and a scripted judge at a real server."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ilab.core.events import Bus, Event
from ilab.errors import InputError, ServiceError, Stopped
from ilab.evaluation.benchmarks.chat_files import BUILTIN, Question, QuestionSet, file_name, load_questions
from ilab.evaluation.benchmarks.mt_bench import run_mt_bench
from ilab.evaluation.judge import FAILED, NO_ANSWER, REFUSED, UNREADABLE
from ilab.evaluation.rule_judge import RuleJudge
from ilab.testing.judging import Bench, bench, by_length, part
from ilab.testing.teacher import Faults

Messages = list[dict[str, str]]
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def echo(messages: Messages) -> str:
    """As many words as the conversation has messages."""
    return " ".join(["word"] * len(messages))


def small(n: int = 3, **more: Any) -> QuestionSet:
    questions = [
        Question(
            question_id=i,
            category=("writing", "math")[i % 2],
            turns=(f"First {i}?", f"Second {i}?"),
            reference=(f"ref {i}", "") if i % 2 else (),
        )
        for i in range(n)
    ]
    return QuestionSet("small", tuple(questions), **more)


def run(b: Bench, folder: Path, questions: QuestionSet | None = None, name: str = "student", **more: Any) -> Any:
    return run_mt_bench(questions or small(), b.subject(name), b.judge, folder, b.emit, **more)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_scores_and_groups(tmp_path: Path) -> None:
    with bench(tmp_path, echo) as b:
        result = run(b, tmp_path / "out")
        asked = b.asked("student")
    # One word is mark 1, three words (user, assistant, user) are mark 3.
    assert [row.score for row in result.rows] == [1, 3] * 3
    assert result.score == result.micro == 2 and result.scale == (1, 10)
    assert {group.name: (group.score, group.n) for group in result.groups} == {
        "writing": (2, 4),
        "math": (2, 2),
        "turn 1": (1, 3),
        "turn 2": (3, 3),
    }
    assert result.n == 6 and result.unscored == {} and result.judge == "judge"
    second = [messages for messages in asked if len(messages) == 3]
    assert len(second) == 3 and second[0][1] == {"role": "assistant", "content": "word"}


def test_temperatures_by_category_are_seeded(tmp_path: Path) -> None:
    with bench(tmp_path, echo) as b:
        run(b, tmp_path / "out")
        calls = [call for call in b.server.calls if call["model"] == "student"]
    warm = [call for call in calls if call["temperature"] == 0.7]
    assert {call["messages"][0]["content"] for call in warm} == {"First 0?", "First 2?"}
    assert all("seed" in call for call in warm) and len({call["seed"] for call in warm}) == 4
    assert all(call["temperature"] == 0 and "seed" not in call for call in calls if call not in warm)


def test_the_judge_sees_reference_and_earlier_turns(tmp_path: Path) -> None:
    with bench(tmp_path, echo) as b:
        run(b, tmp_path / "out")
        prompts = [messages[-1]["content"] for messages in b.asked("judge")]
    about = Counter((part(prompt, "question"), bool(part(prompt, "reference"))) for prompt in prompts)
    # With a reference in both orders, without one once.
    expected = {(f"{turn} {i}?", False): 1 for turn in ("First", "Second") for i in (0, 2)}
    assert about == {**expected, ("First 1?", True): 2, ("Second 1?", False): 1}
    second = next(prompt for prompt in prompts if part(prompt, "question") == "Second 1?")
    assert "user: First 1?" in second and "assistant: word" in second


def test_files_are_those_of_fastchat(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with bench(tmp_path, echo) as b:
        run(b, out, when=WHEN)
        run(b, out, name="base", when=WHEN)
        again = run(b, out, when=WHEN)
    answers = lines(out / "mt_bench/model_answer/student.jsonl")
    assert [set(row) for row in answers] == [{"question_id", "answer_id", "model_id", "choices", "tstamp"}] * 3
    assert answers[1]["choices"] == [{"index": 0, "turns": ["word", "word word word"]}]
    assert answers[1]["model_id"] == "student" and answers[1]["tstamp"] == WHEN.timestamp()
    judgments = lines(out / "mt_bench/model_judgment/judge_single.jsonl")
    keys = {"question_id", "model", "judge", "user_prompt", "judgment", "score", "turn", "tstamp"}
    assert [set(row) for row in judgments] == [keys] * 12
    assert Counter(row["model"] for row in judgments) == {"base": 6, "student": 6}  # neither overwrites the other
    assert [row["score"] for row in judgments] == [1, 3] * 6
    assert judgments[0]["judge"] == ["judge", "quality"] and "First 0?" in judgments[0]["user_prompt"]
    assert json.loads(judgments[0]["judgment"].splitlines()[-1]) == {"mark": 1}
    summary = json.loads((out / "mt_bench_data.json").read_text())
    assert (summary["best_model"], summary["best_score"]) == ("base", 2)
    assert [entry["model"] for entry in summary["reports"]] == ["base", "student"]
    report = summary["reports"][1]
    assert (report["overall_score"], report["turn_scores"], report["error_rate"]) == (again.score, [1, 3], 0)
    assert set(report["qa_scores"][0]) == {"question_id", "score", "category", "question", "answer"}


def test_without_a_time_equal_results_are_equal_bytes(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        with bench(tmp_path / name, echo) as b:
            run(b, tmp_path / name / "out")
        files = sorted((tmp_path / name / "out").rglob("*.json*"))
        found.append([path.read_bytes() for path in files])
    assert found[0] == found[1] and len(found[0]) == 3


def test_a_rerun_asks_nobody(tmp_path: Path) -> None:
    with bench(tmp_path, echo) as b:
        first = run(b, tmp_path / "out")
    with bench(tmp_path, echo) as b:
        assert run(b, tmp_path / "other") == first
        assert b.server.calls == []


def test_stopped_and_gone_on(tmp_path: Path) -> None:
    told: list[Event] = []
    emit = Bus([told.append]).for_step("evaluate")
    done = [0]

    def stopping() -> bool:
        done[0] = sum(event.kind == "progress" for event in told)
        return done[0] >= 8

    with bench(tmp_path, echo, stopping=stopping, emit=emit) as b:
        with pytest.raises(Stopped):
            run(b, tmp_path / "out")
        before = len(b.server.calls)
        assert b.asked("judge")
    with bench(tmp_path, echo) as b:
        assert run(b, tmp_path / "out").n == 6
        # 6 answers and 7 passes in all; up to four requests were under way when it stopped.
        assert 13 - before <= len(b.server.calls) <= 13 - before + 4
        assert b.asked("student") == []


def test_nonsense_of_the_judge_is_counted(tmp_path: Path) -> None:
    """One in twenty of the judge's replies is nonsense, in both wordings."""

    def mark(prompt: str) -> str:
        number = int(re.findall(r"\d+", part(prompt, "question"))[0])
        return "Lovely! 10/10 [1]" if number % 20 == 3 else by_length(prompt)

    with bench(tmp_path, echo, mark) as b:
        result = run(b, tmp_path / "out", small(40))
    assert result.unscored == {UNREADABLE: 4} and result.n == 76
    assert {row.score for row in result.rows} == {1, 3, None} and result.score == 2
    judgments = lines(tmp_path / "out/mt_bench/model_judgment/judge_single.jsonl")
    assert Counter(row["score"] for row in judgments) == {1: 38, 3: 38, -1: 4}
    summary = json.loads((tmp_path / "out/mt_bench_data.json").read_text())
    assert summary["reports"][0]["error_rate"] == 0.05


@pytest.mark.parametrize("fault", ["400", "500", "silent"])
def test_a_failed_answer_is_unscored_and_not_judged(tmp_path: Path, fault: Any) -> None:
    # The first turn of the first question fails in all tries.
    plan = dict.fromkeys(range(2 if fault != "400" else 1), fault)
    questions = QuestionSet("one", small(3).questions)
    with bench(tmp_path, echo, faults=Faults(plan=plan)) as b:
        subject = b.subject()
        subject._at_once = 1  # so that the first call is the first question's
        result = run_mt_bench(questions, subject, b.judge, tmp_path / "out", b.emit)
        # Its second turn was never asked, for it would answer to a conversation that was not held.
        assert sum(len(messages) == 3 for messages in b.asked("student")) == 2
    assert result.unscored == {NO_ANSWER: 2} and result.n == 4 and result.score == 2
    turns = [row["choices"][0]["turns"] for row in lines(tmp_path / "out/mt_bench/model_answer/student.jsonl")]
    assert turns.count(["$ERROR$", "$ERROR$"]) == 1


@pytest.mark.parametrize(("fault", "why"), [("400", REFUSED), ("500", FAILED)])
def test_failures_of_the_judge_are_unscored(tmp_path: Path, fault: Any, why: str) -> None:
    calls = 6  # the answers come first
    plan = {calls + number: fault for number in range(2 if fault == "500" else 1)}
    with bench(tmp_path, echo, faults=Faults(plan=plan)) as b:
        judge = b.judge
        judge._at_once = 1
        result = run_mt_bench(small(), b.subject(), judge, tmp_path / "out", b.emit)
    assert result.unscored == {why: 1} and result.n == 5


def test_nothing_scored_is_an_error_with_the_reason(tmp_path: Path) -> None:
    said = rf"none of 6 answers of student could be scored: {UNREADABLE} \(6\)"
    with bench(tmp_path, echo, lambda prompt: "Hm.") as b, pytest.raises(ServiceError, match=said):
        run(b, tmp_path / "out")
    with bench(tmp_path, echo, faults=Faults(share=1.0, kinds=("400",))) as b:
        with pytest.raises(ServiceError, match=f"{NO_ANSWER} .6.") as failed:
            run(b, tmp_path / "other", name="base")
        assert "ilab model chat" in failed.value.hint and b.asked("judge") == []


def test_the_judge_by_rule_says_so(tmp_path: Path) -> None:
    with bench(tmp_path, lambda messages: "ref 1") as b:
        result = run_mt_bench(small(), b.subject(), RuleJudge(), tmp_path / "out", b.emit)
    assert result.judge == "rule" and any("not by a language model" in note for note in result.notes)
    assert [row.score for row in result.rows if row.reference] == [10]
    assert result.n == 1 and sum(result.unscored.values()) == 5


def test_our_own_questions() -> None:
    own = load_questions()
    assert own.name == BUILTIN and "not comparable" in own.note
    assert Counter(question.category for question in own.questions) == dict.fromkeys(
        ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"), 3
    )
    assert len({question.question_id for question in own.questions}) == 24
    assert all(len(question.turns) == 2 for question in own.questions)
    for question in own.questions:
        if question.category in ("math", "reasoning", "coding"):
            assert len(question.reference) == 2 and all(question.reference)


def test_references_of_our_own_questions_hold() -> None:
    """What can be computed is computed."""
    by_words = {question.turns[0]: question for question in load_questions().questions}

    def one(words: str) -> Question:
        return next(question for text, question in by_words.items() if words in text)

    assert one("tank").reference[0].startswith(f"{240 / (240 / 6 - 240 / 10):g} hours")
    assert one("tank").reference[1].startswith(f"{5 + (240 - 5 * 16) / 40:g} hours")
    assert 45 + 47 + 49 == 141 and str(45**2 + 47**2 + 49**2) in one("odd numbers").reference[1]
    scope: dict[str, Any] = {}
    exec(one("longest_run").reference[0], scope)
    assert [scope["longest_run"](values) for values in ([], [1], [1, 1, 2], [2, 1, 1, 1, 2, 2])] == [0, 1, 2, 3]
    exec(one("longest_run").reference[1], scope)
    assert [scope["longest_run"](values) for values in ([], [1, 2], [3, 1, 1, 2, 2])] == [None, (1, 1), (1, 2)]
    xs, seen = [1, 2, 3], []
    for x in xs:
        if x == 2:
            xs.remove(x)
        seen.append(x)
    assert seen == [1, 2] and one("xs.remove").reference[0].startswith("It prints 1 and 2")


def test_a_file_in_fastchats_form(tmp_path: Path) -> None:
    path = tmp_path / "question.jsonl"
    rows = [
        {"question_id": 81, "category": "writing", "turns": ["One?", "Two?"]},
        {"question_id": 111, "category": "math", "turns": ["One?", "Two?"], "reference": ["1", "2"], "extra": True},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = load_questions(path)
    assert found.name == "question" and found.note == ""
    assert found.questions[1].reference == ("1", "2") and found.questions[0].reference_of(1) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no question"),
        ('{"question_id": 1, "category": "math"}', "row 1: turns"),
        ('{"question_id": 1, "category": "math", "turns": []}', "1 to 8 turns"),
        ('{"question_id": 1, "category": "math", "turns": [" "]}', "none of them empty"),
        ('{"question_id": 1, "category": "math", "turns": ["a"]}\n' * 2, "question_id 1 stands there more than once"),
        ("no json", "not JSON"),
    ],
)
def test_wrong_question_files(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "question.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(said)):
        load_questions(path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b/model-7b", "model-7b"),
        ("../../etc/passwd", "passwd"),
        ("..", "model"),
        (".hidden", "hidden"),
        ("a b:c", "a_b_c"),
    ],
)
def test_names_of_models_are_no_paths(name: str, expected: str) -> None:
    assert file_name(name) == expected
