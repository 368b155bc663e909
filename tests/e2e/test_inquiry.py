"""On a real small build: the report's diagnoses hold, a question leads to what stands behind its answer, models are
asked side by side.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ilab.artifacts import Documents, Items, Report, Samples
from ilab.core.files import read_json
from ilab.core.store import Store
from ilab.data import Sample
from ilab.errors import InputError
from ilab.inquiry import find_item, inquire, last_results, questions_in

KILN = "knowledge/technology/devices/tavrin_kiln"
TURNED = "How often are the shelves turned by the operator?"  # a test item


def test_every_diagnosis_holds_against_the_files_of_the_build(reference):
    told = reference.json("report", "show")
    store = reference.store
    paths = {name: store.contents(reference.latest(name)) for name in ("items", "generate", "documents")}
    items = {item.id: item for item in Items(paths["items"]).items("test")}
    samples = {sample.id: sample for sample in Samples(paths["generate"]).samples()}
    chunks = {chunk.id: chunk.text for chunk in Documents(paths["documents"]).chunks()}
    scores = {}
    for score in Report(store.contents(reference.latest("final-evaluation"))).scores():
        scores.setdefault(score.item, {})[score.model] = score.value
    wrong = {name for name, found in scores.items() if found["phase 2"] <= 0.5}
    assert {one["item"] for one in told["diagnoses"]} == wrong
    assert sum(told["causes"].values()) == len(wrong) > 0
    for one in told["diagnoses"]:
        item, texts = items[one["item"]], [samples[name].answer for name in one["samples"]]
        if one["cause"] == "learned then forgotten":
            assert scores[item.id]["phase 1"] > 0.5
        if one["cause"] == "not learned" and item.leaf == KILN:
            assert all(scores[item.id][model] <= 0.5 for model in ("phase 1", "phase 2"))
            assert texts and all(set(item.gold.lower().split()) & set(text.lower().split()) for text in texts)
        if one["chunk"] and one["cause"] == "not covered":
            assert item.gold.lower() in chunks[one["chunk"]].lower()


def test_why_tells_answers_samples_passage_leaf_and_author(built):
    built.git("init", "-q")
    built.git("add", ".")
    built.git("commit", "-qm", "the kiln")
    told = built.json("why", TURNED)
    assert told["item"]["gold"] == "75 firings" and list(told["answers"]) == ["base", "phase 1", "phase 2"]
    assert "⟦The operator turns the shelves every 75 firings.⟧" in told["passages"][0]["passage"]
    assert told["samples"] and all(sample["leaf"] == KILN for sample in told["samples"])
    leaf = told["leaf"]
    assert (leaf["path"], leaf["author"], leaf["commit"]) == (KILN, "A Person", built.git("rev-parse", "HEAD"))
    assert Path(leaf["file"]) == (built.root / "taxonomy" / KILN / "qna.yaml").resolve()
    text = built.ilab("why", TURNED).stdout
    assert "last changed by A Person" in text and f"ilab data why '{told['samples'][0]['id']}'" in text
    assert built.ilab("data", "why", told["samples"][0]["id"]).returncode == 0


def test_why_says_that_nothing_was_found_and_names_the_nearest_leaves(reference):
    told = reference.json("why", "Which zebra won the derby?")
    assert not told["samples"] and not told["passages"] and KILN in told["nearest"]
    done = reference.ilab("why", "Which zebra won the derby?")
    assert done.returncode == 0 and "Nothing found" in done.stdout and "ilab taxonomy new" in done.stdout


@pytest.fixture(scope="module")
def taught(reference) -> Sample:
    """A sample whose question no held-out item asks."""
    results = last_results(reference.store)
    own = [one for one in results.taught.samples if one.leaf == KILN and one.train_on == "assistant"]
    return next(one for one in own if find_item(results, one.question) is None)


def test_why_asks_the_model_about_what_no_item_asks(built, taught):
    told = built.json("why", "--ask", taught.question)
    assert set(told["answers"]) == {"small"} and told["item"] is None
    assert taught.question in [sample["question"] for sample in told["samples"]]
    said = told["answers"]["small"]["answer"]
    assert (said or "(nothing)") in built.ilab("why", "--ask", taught.question).stdout


def test_an_answer_given_now_is_held_against_the_samples(reference, taught):
    results = last_results(reference.store)
    wrong = inquire(results, taught.question, reference.root, {"m": "nobody knows 999"})
    assert wrong["diagnosis"]["cause"] in ("not learned", "wrong sample", "sources conflict")
    assert set(wrong["diagnosis"]["samples"]) <= {one.id for one in results.taught.samples}
    right = inquire(results, taught.question, reference.root, {"m": f"It is {wrong['samples'][0]['answer']}."})
    assert right["diagnosis"] is None and "what the model says" in right["samples"][0]["says"]
    known = inquire(results, TURNED, reference.root, {"m": "every 9 firings"})
    assert known["answers"]["m"] == {"answer": "every 9 firings", "right": False} and known["diagnosis"]


def test_models_answer_side_by_side_and_are_asked_once(built):
    (built.root / "ask.jsonl").write_text('{"question": "What is the outer casing made of?", "answer": "steel"}\n')
    told = built.json("model", "compare", "Who designed the kiln?", "--input", "ask.jsonl")
    assert [row["expected"] for row in told["questions"]] == [None, "steel"]
    assert all(list(row["answers"]) == ["base", "small"] for row in told["questions"])
    memo = {path: path.read_bytes() for path in (built.root / ".ilab/store/memo/answers").glob("*.jsonl*")}
    assert built.json("model", "compare", "Who designed the kiln?", "--input", "ask.jsonl") == told
    assert memo and all(path.read_bytes() == text for path, text in memo.items())
    wide = built.ilab("model", "compare", "Who designed the kiln?").stdout.splitlines()
    assert any("base" in line and "small" in line for line in wide)


def test_models_to_compare_are_checked_before_any_is_loaded(reference):
    for arguments, words in (
        ((), "no question"),
        (("Q?", "--model", "nowhere"), "no model here"),
        (("Q?", "--model", "taxonomy"), "nothing to compare"),
        (("Q?", "--input", "absent.txt"), "cannot read questions"),
    ):
        done = reference.ilab("model", "compare", *arguments)
        assert done.returncode == 2 and words in done.stderr, arguments


def test_report_open_show_diff_and_metrics(reference):
    page = Path(reference.json("report", "open")["report"])
    assert page == Path(reference.json("report", "open", page.parent.name[:13])["report"])
    shown = reference.ilab("report", "show").stdout
    assert "gate  " in shown and "still wrong  " in shown and 'ilab why "' in shown
    table = page.parent / "metrics.csv"
    rows = (
        list(csv.DictReader(table.read_text().splitlines()))
        if table.exists()
        else read_json(table.with_suffix(".json"))
    )
    assert {row["run"] for row in rows} == {page.parent.name} and {"score", "change"} <= {row["metric"] for row in rows}
    same = reference.json("report", "diff", page.parent.name, str(page.with_suffix(".json")))
    assert same["total"]["change"]["value"] == 0 and same["settings"] == {}
    assert "Leaves and settings are the same." in reference.ilab("report", "diff", str(page)).stdout
    for wrong in ("nothing-like-this", "ilab.yaml"):
        assert reference.ilab("report", "diff", wrong).returncode == 2


def test_before_a_build_there_is_nothing_to_ask(project):
    done = project.ilab("why", "Anything?")
    assert done.returncode == 2 and "ilab run" in done.stderr
    with pytest.raises(InputError):
        last_results(Store(project.root / "elsewhere"))


def test_questions_come_from_lines_csv_and_json(tmp_path):
    files = {
        "a.txt": "One?\n\n Two? \n",
        "a.csv": "question,answer\nOne?,1\nTwo?,\n",
        "a.jsonl": '{"question": "One?"}\n',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    read = {name: [row.messages[0].content for row in questions_in(tmp_path / name)] for name in files}
    assert read == {"a.txt": ["One?", "Two?"], "a.csv": ["One?", "Two?"], "a.jsonl": ["One?"]}
    for name, text in {"b.jsonl": '{"q": 1}\n', "c.jsonl": "no\n", "b.csv": "x\n1\n", "b.txt": "\n"}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError):
            questions_in(tmp_path / name)
