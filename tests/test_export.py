"""Exported files: upstream's names and fields, and what upstream has wrong put right."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from ilab.cli.data_export import FORMATS as OFFERED
from ilab.core.store import Store
from ilab.data import Leaf, Message, Origin, Place, QuestionAnswer, Sample, SeedExample
from ilab.errors import InputError, SetupError
from ilab.evaluation.benchmarks.mmlu_branch import find_tasks, read_branch
from ilab.export import SYSTEM, Exported, export_legacy, export_run, leaf_names, question_and_context
from ilab.formats import FORMATS, write_samples
from ilab.provenance import Run, find_entry, find_run
from ilab.sdg.precomputed import survey
from ilab.sdg.recipe import read_recipe
from ilab.sdg.sieve import limit

QUICKSTART = Path(__file__).resolve().parents[1] / "examples" / "quickstart"
KNOWLEDGE = {"document", "icl_document", "document_outline", "domain", "leaf_node_type", "leaf_node_path"} | {
    f"icl_{part}_{number}" for part in ("query", "response") for number in (1, 2, 3)
}
SKILL = {"task_description", "seed_question", "seed_response", "leaf_node_type", "leaf_node_path"}
PLACE = Place(file="qna.yaml", line=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    store = tmp_path_factory.mktemp("store")
    arguments = ["-C", str(QUICKSTART), "--store", str(store), "data", "generate", "--sdg-scale-factor", "3", "--quiet"]
    subprocess.run([sys.executable, "-m", "ilab", *arguments], check=True, capture_output=True)
    return find_run(Store(store))


@pytest.fixture
def exported(run: Run, tmp_path: Path) -> Exported:
    return export_run(run, run.samples, tmp_path / "out")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def one(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def sample(identity: str, leaf: str = "a", question: str = "q?", answer: str = "a") -> Sample:
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    origin = Origin(leaf=leaf, leaf_digest="0", flow="f", block="b")
    return Sample(id=identity, leaf=leaf, messages=messages, origin=origin)


def leaf(kind: Any, context: str | None = None) -> Leaf:
    pair = QuestionAnswer(question="q?", answer="a", place=PLACE)
    seed = SeedExample(context=context, pairs=(pair,), place=PLACE)
    return Leaf(path="a", kind=kind, version=3, created_by="t", seeds=(seed,), digest="0", place=PLACE)


def test_names_of_files_and_folders(exported: Exported) -> None:
    folder = exported.folder
    suffix = exported.files["messages"].removeprefix("messages_").removesuffix(".jsonl")
    date, clock = suffix.split("T")
    assert folder.name == f"{date}_{clock.replace('_', '')}"
    assert {path.name for path in folder.iterdir()} == {
        "export.json",
        f"generated_{suffix}",
        f"preprocessed_{suffix}",
        f"node_datasets_{suffix}",
        *(f"{part}_{suffix}.jsonl" for part in ("messages", "train", "test")),
        *(f"{phase}_train_msgs_{suffix}.jsonl" for phase in ("knowledge", "skills")),
        *(f"{phase}_recipe_{suffix}.yaml" for phase in ("knowledge", "skills")),
    }
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_fields_of_every_record(exported: Exported) -> None:
    folder = exported.folder
    fields = {
        "messages_*.jsonl": {"messages", "metadata"},
        "train_*.jsonl": {"system", "user", "assistant"},
        "test_*.jsonl": {"system", "user", "assistant"},
        "skills_train_msgs_*.jsonl": {"messages", "metadata", "id", "unmask"},
        "preprocessed_*/knowledge_history*.jsonl": KNOWLEDGE,
        "preprocessed_*/*calendar_line.jsonl": SKILL,
        "preprocessed_*/*delivery_record.jsonl": SKILL | {"seed_context"},
        "generated_*/knowledge_history*.jsonl": KNOWLEDGE | {"question", "response"},
        "generated_*/*calendar_line.jsonl": SKILL | {"question", "response"},
        "generated_*/*delivery_record.jsonl": SKILL | {"seed_context", "context", "question", "response"},
        "node_datasets_*/*calendar_line.jsonl": SKILL | {"question", "response", "id", "messages", "unmask"},
        "node_datasets_*/*kiln_p07.jsonl": {"messages", "metadata", "id", "unmask"},
        "node_datasets_*/*kiln_p10.jsonl": {"messages", "metadata", "id", "unmask"},
        "knowledge_train_msgs_*.jsonl": {"messages", "metadata", "id", "unmask"},
    }
    for pattern, wanted in fields.items():
        rows = lines(one(folder, pattern))
        assert rows
        assert {frozenset(row) for row in rows} == {frozenset(wanted)}, pattern
    messages = lines(one(folder, "messages_*.jsonl"))[0]
    assert [message["role"] for message in messages["messages"]] == ["user", "assistant"]
    assert json.loads(messages["metadata"]) == {"system": SYSTEM}
    for mixed in lines(one(folder, "skills_train_msgs_*.jsonl")):
        assert [message["role"] for message in mixed["messages"]] == ["system", "user", "assistant"]
        assert isinstance(json.loads(mixed["metadata"]), dict)
    for node in lines(one(folder, "node_datasets_*/*kiln_p07.jsonl")):
        assert [message["role"] for message in node["messages"]] == ["user", "assistant"]


def test_types_and_paths_of_leaves_are_upstreams(exported: Exported) -> None:
    kinds = {}
    for file in exported.folder.glob("preprocessed_*/*.jsonl"):
        row = lines(file)[0]
        assert row["leaf_node_path"] == file.stem
        kinds[file.stem.rpartition("_")[2]] = row["leaf_node_type"]
    assert kinds == {"station": "knowledge", "kiln": "knowledge", "line": "freeform_skill", "record": "grounded_skill"}


def test_a_context_stands_once_in_a_row(run: Run, exported: Exported) -> None:
    contexts: Counter[str] = Counter()
    for row in lines(one(exported.folder, "generated_*/*delivery_record.jsonl")):
        assert row["context"] and row["context"] not in row["question"]
        contexts[f"{row['question']}\n{row['context']}"] += 1
    users = Counter(row["user"] for row in lines(one(exported.folder, "train_*.jsonl")))
    assert contexts and all(users[text] == count for text, count in contexts.items())


def test_the_test_file_has_every_seed_example_once(run: Run, exported: Exported) -> None:
    rows = lines(one(exported.folder, "test_*.jsonl"))
    pairs = sum(len(seed.pairs) for leaf in run.leaves.values() for seed in leaf.seeds)
    assert len(rows) == pairs == len({(row["user"], row["assistant"]) for row in rows})


def knowledge_ids(run: Run, *, of_a_passage: bool = False) -> set[str]:
    return {
        s.id
        for s in run.samples
        if run.leaves[s.leaf].kind == "knowledge" and s.train_on == "assistant" and (s.origin.chunk or not of_a_passage)
    }


@pytest.mark.parametrize("phase", ["knowledge", "skills"])
def test_reading_a_recipe_back_gives_the_very_rows_of_its_mix(exported: Exported, phase: str) -> None:
    file = exported.folder / exported.files[f"{phase}_recipe"]
    content = yaml.safe_load(file.read_text())
    assert {entry["sampling_size"] for entry in content["datasets"]} == {1.0}
    assert content["metadata"] == {"sys_prompt": SYSTEM}
    mixed = lines(exported.folder / exported.files[f"{phase}_train_msgs"])
    assert len({row["id"] for row in mixed}) == len(mixed)
    read = list(read_recipe(file).rows(seed=1))
    assert [(row.id.partition("#")[2], row.train_on == "all") for row in read] == [
        (row["id"], row["unmask"]) for row in mixed
    ]
    for row, written in zip(read, mixed, strict=True):
        assert [{"content": m.content, "role": m.role} for m in row.messages] == written["messages"]
    whole = survey(exported.folder / exported.files[f"{phase}_train_msgs"])
    assert [row.messages for row in whole.rows(len(whole.ids), 1)] == [row.messages for row in read]


def test_phase_07_has_every_knowledge_question_below_its_passage(run: Run, exported: Exported) -> None:
    rows = lines(exported.folder / exported.files["knowledge_train_msgs"])
    assert {row["id"] for row in rows} == knowledge_ids(run)
    samples = {s.id: s for s in run.samples}
    for row in rows:
        found = samples[row["id"]]
        chunk = run.chunks.get((found.leaf, found.origin.chunk or ""))  # a seed example was made from none
        passage = chunk.text if chunk else ""
        system, user, assistant = row["messages"]
        assert (system["role"], user["role"], assistant["role"]) == ("system", "user", "assistant")
        assert user["content"] == (f"{passage}\n\n{found.question}" if chunk else found.question)
        assert assistant["content"] == found.answer
        assert row["unmask"] is True
        assert json.loads(row["metadata"]) == {
            "dataset": "document_knowledge_qa",
            "domain": run.leaves[found.leaf].domain,
            "sdg_document": passage,
        }


def test_phase_10_has_skills_questions_among_passages_and_phase_07_again(run: Run, exported: Exported) -> None:
    rows = lines(exported.folder / exported.files["skills_train_msgs"])
    knowledge = knowledge_ids(run)
    skills = {s.id for s in run.samples if run.leaves[s.leaf].kind != "knowledge"}
    among = {f"{identity}~raft" for identity in knowledge_ids(run, of_a_passage=True)}
    assert 100 < len(among) < len(knowledge)
    assert {row["id"] for row in rows} == skills | among | {f"replay/{identity}" for identity in knowledge}
    assert {row["id"] for row in rows if row["unmask"]} == {f"replay/{identity}" for identity in knowledge}
    asked = [row for row in rows if row["id"] in among]
    assert {json.loads(row["metadata"])["dataset"] for row in asked} == {"document_knowledge_qa_raft_p0.4"}
    with_own = 0
    for row in asked:
        user = row["messages"][1]["content"]
        assert user.count("Document:\n") == 4
        with_own += json.loads(row["metadata"])["sdg_document"] in user
    assert with_own / len(asked) == pytest.approx(0.4, abs=0.12)
    _, entry = find_entry(run.store, asked[0]["id"])
    assert entry.id == asked[0]["id"].removesuffix("~raft")


def test_a_folder_for_instructlab_by_data_export(run: Run, tmp_path: Path) -> None:
    arguments = ["--store", str(run.store.root), "data", "export", "--format", "instructlab", "--output", str(tmp_path)]
    more = ["--leaf", "tavrin_kiln"]
    done = subprocess.run([sys.executable, "-m", "ilab", *arguments, *more], check=True, capture_output=True, text=True)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert str(folder) in done.stdout
    rows = lines(one(folder, "knowledge_train_msgs_*.jsonl"))
    assert {row["id"] for row in rows} == {identity for identity in knowledge_ids(run) if "tavrin_kiln" in identity}
    refused = subprocess.run(
        [sys.executable, "-m", "ilab", *arguments, "--kind", "document"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "passages" in refused.stderr


def test_passages_are_no_questions_and_nothing_says_where_it_lay(run: Run, exported: Exported) -> None:
    pairs = [s for s in run.samples if s.train_on == "assistant"]
    assert len(pairs) < len(run.samples)
    assert exported.samples == len(pairs) == len(lines(one(exported.folder, "train_*.jsonl")))
    for path in exported.folder.rglob("*.*"):
        text = path.read_text(encoding="utf-8")
        assert (
            str(exported.folder.parent) not in text and str(run.store.root) not in text and str(QUICKSTART) not in text
        )


def test_the_same_samples_give_the_same_bytes(run: Run, tmp_path: Path) -> None:
    first = export_run(run, run.samples, tmp_path)
    second = export_run(run, run.samples, tmp_path)
    assert first.folder != second.folder
    for part, name in first.files.items():
        if not part.endswith("_recipe"):  # it names the other files, which are called after the time
            assert (first.folder / name).read_bytes() == (second.folder / second.files[part]).read_bytes()


def test_exports_within_one_second_have_folders_of_their_own(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two terminals, or two tests: the one that ended later found a folder in its way."""
    monkeypatch.setattr(time, "strftime", lambda *_: "2026-01-02T03_04_05")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: export_run(run, run.samples, tmp_path), range(4)))
    assert {one.folder.name for one in made} == {path.name for path in tmp_path.iterdir()}
    assert len({one.folder for one in made}) == 4


def test_an_export_that_fails_leaves_nothing(run: Run, tmp_path: Path) -> None:
    broken = run.samples[0].model_copy(update={"train_on": "assistant", "leaf": "gone"})
    with pytest.raises(KeyError):
        export_legacy(run, [broken], tmp_path / "legacy")
    assert list((tmp_path / "legacy").iterdir()) == []
    with pytest.raises(TypeError):
        export_run(run, run.samples, tmp_path / "out", system={1})  # type: ignore[arg-type]
    assert list((tmp_path / "out").iterdir()) == []


def test_legacy_files(run: Run, tmp_path: Path) -> None:
    taken = limit(run.samples, 7)
    (tmp_path / "train_old_2024-06-01T00_00_00.jsonl").write_text("kept")
    made = export_legacy(run, taken, tmp_path)
    assert made.folder == tmp_path
    suffix = made.files["train"].removeprefix("train_extractive_").removesuffix(".jsonl")
    assert made.files["generated"] == f"generated_extractive_{suffix}.json"
    text = (tmp_path / made.files["generated"]).read_text(encoding="utf-8")
    entries = json.loads(text)
    assert text.startswith('[\n    {\n        "instruction"')
    assert [set(entry) for entry in entries] == [{"instruction", "input", "output"}] * 7
    for entry, row in zip(entries, lines(tmp_path / made.files["train"]), strict=True):
        assert row["user"] == (f"{entry['instruction']}\n{entry['input']}" if entry["input"] else entry["instruction"])
        assert row["assistant"] == entry["output"]
    log = (tmp_path / made.files["discarded"]).read_text(encoding="utf-8").splitlines()
    assert len(log) == len(run.rejected) > 0
    assert all(row.reason in line for row, line in zip(run.rejected, log, strict=True))
    again = export_legacy(run, taken, tmp_path)
    assert set(again.files.values()).isdisjoint(made.files.values())
    assert (tmp_path / "train_old_2024-06-01T00_00_00.jsonl").read_text() == "kept"


@pytest.mark.parametrize(
    ("kind", "context", "question", "expected"),
    [
        ("freeform", None, "one\ntwo", ("one\ntwo", "")),
        ("grounded", "c\nd", "one\ntwo\nc\nd", ("one\ntwo", "c\nd")),
        ("grounded", "c", "one\na new context\nof two lines", ("one", "a new context\nof two lines")),
    ],
)
def test_question_and_context(kind: str, context: str | None, question: str, expected: tuple[str, str]) -> None:
    assert question_and_context(leaf(kind, context), sample("a/1", question=question)) == expected


def test_a_stored_context_decides_where_a_question_ends() -> None:
    found = sample("a/1", question="one\ntwo\nthree").model_copy(update={"context": "two\nthree"})
    assert question_and_context(leaf("grounded", "c"), found) == ("one", "two\nthree")
    assert question_and_context(leaf("knowledge"), found) == ("one", "two\nthree")


def test_leaves_whose_names_would_be_the_same() -> None:
    names = leaf_names(["a/b_c", "a_b/c", "d/e", "../f"])
    assert len(set(names.values())) == 4
    assert names["d/e"] == "d_e"
    assert names["a/b_c"].startswith("a_b_c_")
    assert not any("/" in name or name.startswith(".") for name in names.values())


def test_limit_takes_from_all_leaves_and_never_more() -> None:
    samples = [sample(f"a/{n}") for n in range(9)] + [sample(f"b/{n}", "b") for n in range(2)]
    for most in range(1, 12):
        taken = limit(samples, most)
        assert len(taken) == most
        assert taken == [one for one in samples if one in taken]  # in their order
        assert Counter(one.leaf for one in taken)["b"] == min(2, most // 2)
        assert {one.id for one in limit(samples, most - 1)} < {one.id for one in taken}


def test_formats(run: Run, tmp_path: Path) -> None:
    samples = limit(run.samples, 12)
    for form in ("messages", "alpaca", "sharegpt", "csv"):
        write_samples(form, tmp_path / form, samples, run.leaves)
    rows = lines(tmp_path / "messages")
    assert rows[0] == {"messages": [message.model_dump() for message in samples[0].messages]}
    alpaca = json.loads((tmp_path / "alpaca").read_text())
    assert {tuple(row) for row in alpaca} == {("instruction", "input", "output")}
    sharegpt = json.loads((tmp_path / "sharegpt").read_text())
    assert [turn["from"] for turn in sharegpt[0]["conversations"]] == ["human", "gpt"]
    assert [row["conversations"][1]["value"] for row in sharegpt] == [one.answer for one in samples]
    with (tmp_path / "csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert [(row["id"], row["question"]) for row in read] == [(one.id, one.question) for one in samples]
    with pytest.raises(InputError):
        write_samples("xml", tmp_path / "xml", samples, run.leaves)
    assert set(FORMATS) == set(OFFERED) - {"instructlab"} == {"messages", "alpaca", "sharegpt", "csv", "parquet"}


def test_conversations_of_several_turns_are_kept_whole_or_refused(run: Run, tmp_path: Path) -> None:
    pair = next(s for s in run.samples if s.train_on == "assistant")
    system = Message(role="system", content="Be brief.")
    talk = pair.model_copy(update={"id": f"{pair.id}/talk", "messages": (system, *pair.messages, *pair.messages)})
    made = export_run(run, [pair, talk], tmp_path)
    rows = lines(made.folder / made.files["messages"])
    assert [len(row["messages"]) for row in rows] == [2, 4]
    assert [json.loads(row["metadata"])["system"] for row in rows] == [SYSTEM, "Be brief."]
    assert len(lines(made.folder / made.files["train"])) == 1
    write_samples("sharegpt", tmp_path / "s", [talk], run.leaves)
    turns = json.loads((tmp_path / "s").read_text())[0]["conversations"]
    assert [turn["from"] for turn in turns] == ["system", "human", "gpt", "human", "gpt"]
    for form in ("alpaca", "csv"):
        with pytest.raises(InputError, match="1 of these samples"):
            write_samples(form, tmp_path / form, [pair, talk], run.leaves)
        assert not (tmp_path / form).exists()


def test_parquet(run: Run, tmp_path: Path) -> None:
    samples = limit(run.samples, 12)
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(SetupError, match="pyarrow") as caught:
            write_samples("parquet", tmp_path / "p", samples, run.leaves)
        assert caught.value.hint == "pip install 'ilab[parquet]'"
        return
    from pyarrow import parquet

    write_samples("parquet", tmp_path / "p", samples, run.leaves)
    rows = parquet.read_table(tmp_path / "p").to_pylist()
    assert [row["id"] for row in rows] == [one.id for one in samples]
    assert [row["messages"] for row in rows] == [[message.model_dump() for message in one.messages] for one in samples]
    assert rows[0]["page"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_held_out_questions_stand_beside_as_tasks(run: Run, exported: Exported) -> None:
    """As InstructLab names them; read back they are the same questions, and no recipe mixes them."""
    folder = exported.folder / exported.files["train"].replace("train_", "node_datasets_").removesuffix(".jsonl")
    asked = {item.id: item for item in run.items if item.kind == "mcq" and item.split == "test"}
    kinds = {path: leaf.kind for path, leaf in run.leaves.items()}
    wanted = {identity: item for identity, item in asked.items() if kinds[item.leaf] == "knowledge"}
    assert wanted
    branch = read_branch(find_tasks(exported.folder))
    assert not branch.dropped and not branch.notes
    assert {one.id: (one.group, one.question, one.options[one.gold]) for one in branch.questions} == {
        identity: (item.leaf, item.question, item.gold) for identity, item in wanted.items()
    }
    assert len({one.gold for one in branch.questions}) > 1  # the right option has no place of its own
    for file in folder.glob("*_task.yaml"):
        task = yaml.safe_load(file.read_text())
        assert (
            task["tag"] == "mmlu_pr"
            and task["dataset_kwargs"]["data_files"]["test"] == f"mmlubench_{task['task']}.jsonl"
        )
        for row in lines(folder / f"mmlubench_{task['task']}.jsonl"):
            assert row["dataset_type"] == "mcq_qa" and row["subject"] == run.leaves[task["metadata"]["leaf"]].domain
    assert "mmlubench" not in "".join(path.read_text() for path in exported.folder.glob("*_recipe_*.yaml"))
