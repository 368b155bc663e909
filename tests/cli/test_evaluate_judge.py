"""A judge from the command line: held against people's marks, and asked which of two answers is better."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ilab.cli.app import main
from ilab.errors import IlabError, InputError, ServiceError
from ilab.evaluation.judge import Preference
from ilab.evaluation.preferring import duels, tally
from ilab.evaluation.rubric import Pair
from ilab.evaluation.rule_judge import RuleJudge
from ilab.evaluation.subject import Answered
from ilab.inquiry import asked
from ilab.testing.judging import part
from ilab.testing.teacher import Teacher, serve


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """What a caught error holds is let go while its warning is still expected."""
    yield
    gc.collect()


def ilab(folder: Path, *arguments: str) -> Result:
    done = CliRunner().invoke(main, ["-C", str(folder), "--store", str(folder / "store"), *arguments])
    if done.exception is not None and not isinstance(done.exception, (IlabError, SystemExit)):
        raise done.exception
    return done


def told_by(folder: Path, *arguments: str) -> Any:
    done = ilab(folder, "--json", *arguments)
    assert done.exception is None, done.exception
    return json.loads(done.stdout)


def judging(reply: Callable[[str], str]) -> Any:
    return serve(lambda body: reply(body["messages"][-1]["content"]), models=("judge",))


def at(server: Teacher) -> tuple[str, ...]:
    return ("--judge-endpoint", server.url)


# -- calibration -----------------------------------------------------------------------------------------------------


def like_people(prompt: str) -> str:
    return '{"mark": 10}' if part(prompt, "answer") == part(prompt, "reference") else '{"mark": 2}'


@pytest.fixture
def marks(tmp_path: Path) -> str:
    """Forty marked answers; of two the people think otherwise than whoever compares them with the reference."""
    rows = []
    for number in range(40):
        right = number % 2 == 0
        good = right != (number in (4, 5))
        answer = f"{number} locks" if right else "none"
        rows.append({"question": f"How many, {number}?", "answer": answer, "reference": f"{number} locks"})
        rows[-1]["mark"] = "good" if good else "bad"
    (tmp_path / "my marks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "my marks.jsonl"


def test_a_judge_is_held_against_people(tmp_path: Path, marks: str) -> None:
    with judging(like_people) as server:
        asked = ("evaluate", "calibrate-judge", marks, "--judge-model", "judge", *at(server))
        told = told_by(tmp_path, *asked)
        calls = len(server.calls)
        shown = ilab(tmp_path, *asked).stdout
        assert len(server.calls) == calls  # every reply is kept
    # 38 of 40 alike, with as many good as bad on both sides: κ = (0.95 - 0.5) / 0.5
    assert (told["n"], told["agreement"], told["probes"], told["probes_failed"]) == (40, 0.95, 20, 0)
    assert told["kappa"] == pytest.approx(0.9) and told["low"] < 0.9 < told["high"] and told["trusted"] is True
    assert told["next"] == "ilab run -p eval_judge_model=judge -p eval_judge_marks='my marks.jsonl'"
    assert "κ 0.90 (0.67 to 0.97), n = 40: trusted" in shown and "95 % of 40 answers" in shown
    assert "20 of 20 known answers recognised" in shown and f"Next: {told['next']}" in shown
    assert "order         moves a mark by 0.00" in shown


def test_the_judge_by_rule_is_calibrated_too_and_a_few_answers_prove_nothing(tmp_path: Path) -> None:
    rows = [("It has 14.", "It has 14.", "good"), ("None.", "It has 14.", "bad")]
    text = "".join(f"How many {n}?,{answer},{gold},{mark}\n" for n, (answer, gold, mark) in enumerate(rows))
    (tmp_path / "m.csv").write_text(f"question,answer,reference,mark\n{text}")
    (tmp_path / "ilab.yaml").write_text("parameters: {eval_judge_model: rule}\n")  # as the project's runs judge
    shown = ilab(tmp_path, "evaluate", "calibrate-judge", "m.csv").stdout
    assert "judge rule: κ 1.00" in shown and "not trusted (needs 0.4 on 30 answers)" in shown
    assert "no model judged" in shown and "no gate hangs on them" in shown


def test_what_a_calibration_lacks_is_said(tmp_path: Path, marks: str) -> None:
    asked = ("evaluate", "calibrate-judge")
    nobody = ilab(tmp_path, *asked, marks).exception
    assert isinstance(nobody, InputError) and "--judge-model rule" in nobody.hint
    absent = ilab(tmp_path, *asked, "absent.jsonl", "--judge-model", "rule").exception
    assert isinstance(absent, InputError) and "absent.jsonl" in absent.where
    with judging(lambda prompt: "I would rather not.") as server:
        nameless = ilab(tmp_path, *asked, marks, *at(server)).exception
        silent = ilab(tmp_path, *asked, marks, "--judge-model", "judge", *at(server)).exception
    assert isinstance(nameless, InputError) and "name" in nameless.message and "endpoint check" in nameless.hint
    assert isinstance(silent, ServiceError) and "no readable mark (40)" in silent.message
    away = ilab(tmp_path, *asked, marks, "--judge-model", "judge", "--judge-endpoint", "http://127.0.0.1:9/v1")
    assert isinstance(away.exception, ServiceError) and away.exception.exit_code == 4


# -- which of two ----------------------------------------------------------------------------------------------------


def said(*texts: str | None) -> list[Answered]:
    return [Answered(text, "" if text is not None else "too long") for text in texts]


class Recording(RuleJudge):
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.pairs: list[Pair] = []

    def prefer(self, pairs: Any) -> list[Preference]:
        self.pairs += pairs
        return super().prefer(pairs)


def test_what_is_plain_is_not_asked() -> None:
    rows = [asked("a", "14 locks"), asked("b", "x"), asked("c", "x"), asked("d", "x"), asked("e")]
    answers = {
        "base": said("no idea", "same", "", None, "one"),
        "tuned": said("14 locks", "same ", "words", "text", "two"),
    }
    judge = Recording()
    found = duels(answers, rows, judge)
    assert [(pair.question, pair.first, pair.second, pair.reference) for pair in judge.pairs] == [
        ("a", "no idea", "14 locks", "14 locks"),
        ("e", "one", "two", None),
    ]
    assert [duel.better or duel.winner for duel in found] == ["tuned", "tie", "tuned", None, None]
    assert [duel.note.partition(":")[0] for duel in found[1:]] == [
        "both answer the same", "the other answer is empty", "the model gave no answer", "no reference",
    ]  # fmt: skip
    [total] = tally(found)
    assert total["wins"] == {"base": 0, "tuned": 2} and total["ties"] == 1
    assert total["unread"] == {"no reference": 1, "the model gave no answer": 1}


def test_every_two_of_three_models_meet() -> None:
    answers = {"a": said("14 locks", "7"), "b": said("none", "7"), "c": said("14", "8 of them")}
    found = duels(answers, [asked("one", "14 locks"), asked("two", "8 of them")], RuleJudge())
    assert [(duel.question, duel.first, duel.second) for duel in found] == [
        (number, *pair) for number in (0, 1) for pair in (("a", "b"), ("a", "c"), ("b", "c"))
    ]
    assert [one["wins"] for one in tally(found)] == [{"a": 1, "b": 0}, {"a": 1, "c": 1}, {"b": 0, "c": 2}]


@pytest.fixture
def models(tmp_path: Path, tiny_model: Path) -> tuple[str, ...]:
    """Two models that answer otherwise: the second has other weights."""
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    weights = load_file(other / "model.safetensors")
    save_file({name: -tensor for name, tensor in weights.items()}, other / "model.safetensors", {"format": "pt"})
    return ("--model", f"one={tiny_model}", "--model", f"two={other}", "--max-tokens", "4", "--device", "cpu")


def test_a_judge_says_which_answer_is_better_in_both_orders(tmp_path: Path, models: tuple[str, ...]) -> None:
    told = told_by(tmp_path, "model", "compare", "How many?", "Who?", "Why?", *models)
    second = [row["answers"]["two"] for row in told["questions"]]
    assert "judging" not in told and all(row["answers"]["one"] != row["answers"]["two"] for row in told["questions"])

    def prefer(prompt: str) -> str:
        question = part(prompt, "question")
        if question == "Who?":
            return '{"better": "A"}'  # whatever stands first
        if question == "Why?":
            return "I cannot say."
        return '{"better": "A"}' if part(prompt, "A") == second[0] else '{"better": "B"}'

    words = ("model", "compare", "How many?", "Who?", "Why?", *models, "--judge", "judge")
    with judging(prefer) as server:
        judged = told_by(tmp_path, *words, *at(server))
        assert len(server.calls) == 2 + 2 + 2  # both orders; an unreadable reply is asked for once more
        shown = ilab(tmp_path, *words, *at(server)).stdout
        assert len(server.calls) == 6
    verdicts = [row["verdicts"][0] for row in judged["questions"]]
    assert [one["winner"] for one in verdicts] == ["two", "tie", None]
    [pair] = judged["judging"]["pairs"]
    assert (pair["wins"], pair["ties"]) == ({"one": 0, "two": 1}, 1)
    assert pair["unread"] == {"the judge gave no readable mark": 1} and judged["judging"]["judge"] == "judge"
    assert "better: two\n" in shown and "tie\n" in shown
    assert "better: one 0, two 1; ties 1, no verdict 1 (1 × the judge gave no readable mark)" in " ".join(shown.split())


def test_whom_to_ask_is_said_before_any_model_is_loaded(tmp_path: Path, models: tuple[str, ...]) -> None:
    ask = ("model", "compare", "How many?", *models)
    swallowed = ilab(tmp_path, "model", "compare", *models, "Who?", "--judge", "How deep is it?").exception
    assert isinstance(swallowed, InputError) and "before --judge" in swallowed.hint
    nobody = ilab(tmp_path, *ask, "--judge").exception
    assert isinstance(nobody, InputError) and "judges" in nobody.message
    alone = ilab(tmp_path, *ask, "--judge-endpoint", "http://127.0.0.1:9/v1").exception
    assert isinstance(alone, InputError) and "--judge" in alone.hint
    assert not list((tmp_path / "store" / "memo" / "answers").glob("*.jsonl"))
    (tmp_path / "ilab.yaml").write_text("parameters: {eval_judge_model: rule}\n")
    told = told_by(tmp_path, *ask, "--judge")  # the project's judge
    assert told["judging"]["by_rule"] and list(told["judging"]["pairs"][0]["unread"]) == ["no reference"]
