"""Held-out items that a teacher writes: beside people's, from chunks set apart, asked once, every loss with a reason."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ilab.artifacts import Documents, Items, Taxonomy
from ilab.cli.app import main
from ilab.config import Endpoint, Where
from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.core.step import Site
from ilab.data import Chunk, Item, Leaf
from ilab.errors import InputError, ServiceError, Stopped
from ilab.sdg.flow import load_flow
from ilab.sdg.generate import starts_of
from ilab.sdg.hold_out import hold_out, kept_apart, set_apart
from ilab.sdg.stage import find_items_flow
from ilab.steps.data import HoldOut
from ilab.testing.lab_teacher import answer_lab_prompts
from ilab.testing.teacher import Teacher, serve

LEAF = "knowledge/towers"
SKILL = "compositional_skills/calendar"
QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"


def text(number: int) -> str:
    facts = ("lamp is lit at hour", "oil comes from island", "boat brings bread on day", "tower is white since year")
    return " ".join(f"In village {number} the {fact} {7 * number + n} of the calendar." for n, fact in enumerate(facts))


@pytest.fixture
def chunks(make_chunk: Callable[..., Chunk]) -> list[Chunk]:
    return [make_chunk(LEAF, text(number)) for number in range(12)]


def person(number: int, split: str = "test") -> Item:
    return Item(
        id=f"{LEAF}/eval/{number}",
        leaf=LEAF,
        split=split,
        kind="exact",
        question=f"Who wrote letter {number}?",
        gold="x",
        cluster=str(number),
    )


class Run:
    """One run of the step, in a folder of its own."""

    def __init__(self, folder: Path, memo: Callable[[str], Memo], leaves: list[Leaf], chunks: list[Chunk]) -> None:
        self.memo = memo
        self.stopping: Callable[[], bool] = lambda: False
        self._folder = folder
        self.taxonomy, self.documents = Taxonomy(folder / "taxonomy"), Documents(folder / "documents")
        for one in (self.taxonomy, self.documents):
            one.path.mkdir(parents=True)
        self.taxonomy.write(leaves)
        self.documents.write([], chunks)
        self._made = 0

    def __call__(self, teacher: Teacher | None, in_flight: int = 16, **fields: Any) -> tuple[Items, dict[str, int]]:
        self._made += 1
        out = Items(self._folder / f"items-{self._made}")
        out.path.mkdir()
        found = find_items_flow("eval")
        endpoint = Endpoint(url=teacher.url, in_flight=in_flight) if teacher else None
        site = Site(
            where=Where(teacher=endpoint, cache=str(self._folder / "cache")),
            work=self._folder,
            found={found.digest: found},
            emit=Bus().for_step("items"),
            memo=self.memo,
            stopping=self.stopping,
            history=list,
        )
        step = HoldOut(**{"flow": found.digest, "teacher": "teacher", "per_chunk": 12, **fields})
        return out, step.run(self.taxonomy, self.documents, out=out, site=site)


@pytest.fixture
def run(
    tmp_path: Path,
    memos_in: Callable[[Path], Callable[[str], Memo]],
    make_leaf: Callable[..., Leaf],
    chunks: list[Chunk],
) -> Callable[..., Run]:
    def make(name: str = "one", items: tuple[Item, ...] = (), own: list[Chunk] | None = None) -> Run:
        leaves = [make_leaf(LEAF).model_copy(update={"items": items}), make_leaf(SKILL, "freeform")]
        folder = tmp_path / name
        return Run(folder, memos_in(folder / "memo"), leaves, chunks if own is None else own)

    return make


def test_items_come_from_chunks_set_apart_and_every_loss_is_counted(
    run: Callable[..., Run], chunks: list[Chunk]
) -> None:
    one = run()
    with serve(answer_lab_prompts) as teacher:
        out, counts = one(teacher)
    apart = set_apart(one.taxonomy.leaves(), chunks, 42)
    assert len(apart) == 2
    items = [item for item in out.items() if item.leaf == LEAF]
    assert items and {item.origin for item in items} == {"eval"} and {item.kind for item in items} == {"mcq"}
    assert {item.cluster for item in items} <= {f"{LEAF}#{chunk.id}" for chunk in apart}
    texts = {f"{LEAF}#{chunk.id}": chunk.text for chunk in chunks}
    assert all([option for option in item.options if option in texts[item.cluster]] == [item.gold] for item in items)
    skills = [item for item in out.items() if item.leaf == SKILL]
    assert skills and {item.origin for item in skills} == {"rule"}
    lost = Counter(entry.block for entry in out.dropped() if entry.leaf == LEAF)
    assert len(items) + sum(lost.values()) == 12 * len(apart)
    assert {"clear", "solved"} <= set(lost)
    assert all(entry.reason for entry in out.dropped())
    assert counts["calls"] == len(teacher.calls) <= 3 * 12 * len(apart)
    assert (counts["made_by_teacher"], counts["made_by_rule"]) == (len(items), len(skills))
    assert counts["left_out"] == len(out.dropped())


def test_peoples_items_stay_come_first_and_are_not_asked_again(run: Callable[..., Run]) -> None:
    with serve(answer_lab_prompts) as teacher:
        out, _ = run()(teacher)
        made = next(item for item in out.items("test") if item.origin == "eval")
        same = person(9).model_copy(update={"question": made.question + "!"})
        own = (*(person(number) for number in range(3)), same)
        both, _ = run("two", own)(teacher)
        few, _ = run("three", own)(teacher, per_leaf=4)
    asked = [item for item in both.items() if item.leaf == LEAF]
    assert {item.origin for item in asked} == {"person", "eval"}
    assert made.id not in {item.id for item in asked}
    twice = [entry.reason for entry in both.dropped() if "as a person's" in entry.reason]
    assert f"nearly the same question as a person's: {made.question}" in twice
    assert {item.origin for item in few.items("test") if item.leaf == LEAF} == {"person"}
    assert any("eval_num_samples: 4" in entry.reason for entry in few.dropped())


def test_the_same_bytes_at_any_concurrency_and_no_call_twice(run: Callable[..., Run]) -> None:
    one, other = run("one"), run("other")
    with serve(answer_lab_prompts) as teacher:
        first, counts = one(teacher, in_flight=1)
        second, _ = other(teacher, in_flight=32)
        asked = len(teacher.calls)
        again, free = one(teacher)
        assert len(teacher.calls) == asked and free["calls"] == 0 and free["calls_from_memo"] == counts["calls"]
    for name in ("items.jsonl", "dropped.jsonl"):
        assert first.path.joinpath(name).read_bytes() == second.path.joinpath(name).read_bytes()
        assert first.path.joinpath(name).read_bytes() == again.path.joinpath(name).read_bytes()
    assert first.path.joinpath("items.jsonl").read_bytes()


def test_what_was_answered_before_a_stop_is_not_asked_again(run: Callable[..., Run]) -> None:
    one, whole = run("one"), run("whole")
    with serve(answer_lab_prompts, latency=0.02) as teacher:
        one.stopping = lambda: len(teacher.calls) >= 8
        with pytest.raises(Stopped):
            one(teacher, in_flight=2)
        before = len(teacher.calls)
        one.stopping = lambda: False
        out, counts = one(teacher, in_flight=2)
        assert counts["calls_from_memo"] >= before - 2  # at most those that were in flight
        together = len(teacher.calls)
        expected, all_counts = whole(teacher)
    assert together <= all_counts["calls"] + 2
    assert out.path.joinpath("items.jsonl").read_bytes() == expected.path.joinpath("items.jsonl").read_bytes()


def test_by_rule_nothing_is_asked_and_nothing_has_changed(run: Callable[..., Run], chunks: list[Chunk]) -> None:
    one = run()
    out, counts = one(None, flow="", per_chunk=0)
    items, dropped = hold_out(one.taxonomy.leaves(), chunks, 100, 42)
    assert out.items() == items and out.dropped() == dropped
    assert counts.keys() == {"items", "made_by_rule", "left_out"}


def test_a_teacher_that_writes_nothing_usable_is_told_with_three_rows(run: Callable[..., Run]) -> None:
    with serve(lambda body: "I would rather not.") as teacher, pytest.raises(ServiceError) as caught:
        run()(teacher, per_chunk=2)
    assert "4 rows were refused, 4 of them by block 'compose'" in caught.value.message
    assert caught.value.message.count("I would rather not.") == 3
    assert "eval_items=rule" in caught.value.hint


def test_a_leaf_without_documents_is_no_error(run: Callable[..., Run]) -> None:
    with serve(answer_lab_prompts) as teacher:
        out, _ = run("none", own=[])(teacher)
    assert teacher.calls == [] and {item.leaf for item in out.items()} == {SKILL}


def test_few_chunks_are_all_used_and_many_keep_some_apart(make_leaf: Callable[..., Leaf], chunks: list[Chunk]) -> None:
    leaves = [make_leaf(LEAF), make_leaf(SKILL, "freeform")]
    assert set_apart(leaves, chunks[:9], 42) == chunks[:9]
    many = set_apart(leaves, chunks, 42)
    assert len(many) == 2 and set_apart(leaves, chunks[::-1], 42) == many[::-1]  # by text, not by place
    assert {chunk.id for chunk in set_apart(leaves, chunks, 7)} != {chunk.id for chunk in many}


def test_of_chunks_kept_apart_only_the_text_is_trained(make_leaf: Callable[..., Leaf], chunks: list[Chunk]) -> None:
    leaves = [make_leaf(LEAF)]
    names = [f"{LEAF}#{chunk.id}" for chunk in set_apart(leaves, chunks, 42)]
    items = [person(n).model_copy(update={"origin": "eval", "cluster": name}) for n, name in enumerate(names)]
    apart = kept_apart(chunks, items)
    assert apart == set(names)
    few = [items[0].model_copy(update={"cluster": f"{LEAF}#{chunk.id}"}) for chunk in chunks[:3]]
    assert kept_apart(chunks[:3], few) == set()  # nothing would be left to teach
    assert (
        kept_apart(chunks, [person(1).model_copy(update={"cluster": names[0]})]) == set()
    )  # a person's, not a chunk's

    def started(flow: str) -> dict[bool, set[str]]:
        """The chunks that branches begin with, by whether the branch trains the text itself."""
        found: dict[bool, set[str]] = {True: set(), False: set()}
        for start in starts_of(leaves, chunks, load_flow(flow), apart):
            whole = any(block.type == "passage" for block in start.blocks)
            found[whole].update({f"{LEAF}#{start.row.trace.chunk}"} if start.row.trace.chunk else ())
        return found

    every = {f"{LEAF}#{chunk.id}" for chunk in chunks}
    for flow in ("full", "llama", "extractive"):
        assert started(flow) == {True: every, False: every - apart}
    assert started("simple")[False] == every  # it does not train the text, so it has to teach it


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def show(*arguments: str) -> dict[str, Any]:
        command = ["-C", str(QUICKSTART), "--store", str(tmp_path / "store"), "--json", *arguments]
        done = CliRunner().invoke(main, command)
        assert done.exception is None, done.exception
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    return show


def test_a_forecast_asks_nothing_and_counts_both_kinds_of_calls(plan: Callable[..., dict[str, Any]]) -> None:
    with serve() as teacher:
        generate = ("data", "generate", "--endpoint-url", teacher.url, "--model", "teacher", "--pipeline", "simple")
        told = plan(*generate, "--dry-run", "-p", "eval_items=teacher", "-p", "eval_items_per_chunk=2")
        rule = plan(*generate, "--dry-run")
    assert teacher.calls == []
    assert told["items"]["calls"] > 0 and told["items"]["calls"] % 6 == 0 and told["items"]["state"] == "run"
    assert told["generate"]["calls"] == rule["generate"]["calls"] > 0
    assert "calls" not in rule["items"]


def test_a_number_of_instructions_does_not_change_who_writes_the_held_out_questions(
    plan: Callable[..., dict[str, Any]],
) -> None:
    with serve() as teacher:
        generate = ("data", "generate", "--endpoint-url", teacher.url, "--model", "teacher", "--pipeline", "simple")
        told = plan(*generate, "--dry-run", "-p", "eval_items=teacher", "--num-instructions", "5")
    assert teacher.calls == []
    assert told["items"]["calls"] > 0 and told["generate"]["calls"] < 10


def test_a_forecast_holds_the_budget_against_all_calls(tmp_path: Path) -> None:
    command = ["-C", str(QUICKSTART), "--store", str(tmp_path), "--json", "data", "generate", "--dry-run"]
    command += ["--endpoint-url", "http://127.0.0.1:9/v1", "--model", "teacher", "--pipeline", "simple"]
    command += ["--sdg-scale-factor", "1", "-p", "eval_items=teacher"]
    told = json.loads(CliRunner().invoke(main, command).stdout)
    both = told["items"]["calls"] + told["generate"]["calls"]
    for budget, tells in ((both - 1, True), (both, False)):
        done = CliRunner().invoke(main, [*[one for one in command if one != "--json"], "--budget", f"{budget:g}"])
        assert ("is less than that" in done.stderr) is tells


def ilab(store: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program itself, for what makes something."""
    command = [sys.executable, "-m", "ilab", "-C", str(QUICKSTART), "--store", str(store), *arguments]
    return subprocess.run([*command, "-p", "eval_items=teacher"], capture_output=True, text=True, check=False)


def test_a_preview_pays_for_no_held_out_questions(tmp_path: Path) -> None:
    with serve() as teacher:
        asked = ("--endpoint-url", teacher.url, "--model", "teacher", "--pipeline", "simple", "--preview", "1")
        done = ilab(tmp_path, "data", "generate", *asked)
    assert done.returncode == 0, done.stderr
    assert teacher.calls and not [call for call in teacher.calls if "test item" in call["messages"][-1]["content"]]


def test_a_budget_holds_for_held_out_questions_too(tmp_path: Path) -> None:
    with serve(answer_lab_prompts) as teacher:
        asked = ("--endpoint-url", teacher.url, "--model", "teacher", "--pipeline", "full", "--sdg-scale-factor", "1")
        done = ilab(tmp_path, "data", "generate", *asked, "--budget", "7")
    assert done.returncode == 6 and "the budget of 7 calls is spent" in done.stderr, done.stderr
    assert len(teacher.calls) == 7 and all("test item" in str(call) for call in teacher.calls[:4])


def test_a_teacher_must_be_named(tmp_path: Path) -> None:
    command = ["-C", str(QUICKSTART), "--store", str(tmp_path), "data", "generate", "--dry-run"]
    done = CliRunner().invoke(main, [*command, "-p", "eval_items=teacher"])
    assert isinstance(done.exception, InputError) and "eval_items=teacher asks a teacher" in done.exception.message
    done = CliRunner().invoke(main, [*command, "-p", "sdg_verifier_model=second"])
    assert isinstance(done.exception, InputError) and "no endpoint serves it" in done.exception.message
