"""What a benchmark asks never becomes a sample."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilab.data import Message, Origin, Sample
from ilab.errors import InputError, SetupError
from ilab.models.chat import prompt_text
from ilab.sdg.benchmarks import (
    OWN,
    RUN,
    Benchmark,
    Index,
    Source,
    drop_benchmarks,
    find_benchmarks,
    open_benchmarks,
    parse_sources,
    read_benchmark,
)
from ilab.sdg.made import Made

LONG = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May"
ANSWER = "She sold half of 48 clips in May, that is 24, so altogether she sold 72 clips in the two months"
SHORT = "What is the capital of France?"


def made(number: int, question: str, answer: str, context: str | None = None, train_on: str = "assistant") -> Made:
    messages = (
        Message(role="user", content=prompt_text(question, context)),
        Message(role="assistant", content=answer),
    )
    origin = Origin(leaf="k", leaf_digest="0", flow="f", block="b")
    sample = Sample(id=f"k#{number}", leaf="k", messages=messages, train_on=train_on, origin=origin)
    return Made(sample, question, context)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_overlaps_go_and_the_benchmark_is_named() -> None:
    benchmarks = [Benchmark("gsm", ((LONG, ANSWER),)), Benchmark("trivia", ((SHORT, "Paris"),))]
    rows = [
        made(1, f"Read this. {LONG.upper()}!", "72"),  # the question, in another dress
        made(2, "How many?", f"Well: {ANSWER}."),  # its solution
        made(3, "How many?", "72", context=f"A story.\n{LONG}"),
        made(4, "what is the capital of france", "Lyon"),  # short: the very same, whatever the answer
        made(5, "What is the capital of France?", "Paris", context="A lesson."),  # the context is no part of it
        made(6, "What is the capital of France called?", "Paris"),
        made(7, " ".join(LONG.split()[: RUN - 1]), "72"),  # one word too few
        made(8, "Capitals", "What is the capital of France?", train_on="all"),
        made(9, "What is the capital of France?", "It is a country in Europe.", train_on="all"),  # a heading
        made(10, "Maths", f"A well-known task: {LONG}.", train_on="all"),  # a document that quotes the benchmark
    ]
    kept, dropped = drop_benchmarks(rows, benchmarks)
    assert [one.sample.id for one in kept] == ["k#6", "k#7", "k#8", "k#9"]
    assert [(entry.id, entry.reason.partition(":")[0]) for entry in dropped] == [
        ("k#1", "benchmark gsm"),
        ("k#2", "benchmark gsm"),
        ("k#3", "benchmark gsm"),
        ("k#4", "benchmark trivia"),
        ("k#5", "benchmark trivia"),
        ("k#10", "benchmark gsm"),
    ]
    assert {entry.block for entry in dropped} == {"benchmarks"}
    assert "13 words in a row of entry 1: natalia sold clips" in dropped[0].reason


def test_phrases_that_many_entries_have_tell_nothing() -> None:
    phrase = "The following are multiple choice questions with their answers about the subject of"
    many = Benchmark("m", tuple((f"{phrase} number {n}",) for n in range(OWN + 1)))
    few = Benchmark("m", many.entries[:OWN])
    assert Index([many]).match(f"{phrase} lamps", ()) is None
    assert Index([many]).match(f"{phrase} number 3", ()) is not None  # twelve common words and one of its own
    assert Index([few]).match(f"{phrase} lamps", ()) is not None


words = st.lists(st.sampled_from("abc"), max_size=20).map(" ".join)


@given(st.lists(words, max_size=4), words)
def test_the_index_finds_what_comparing_with_every_entry_finds(entries: list[str], question: str) -> None:
    def overlap(entry: str) -> bool:
        one, other = f" {entry} ", question.split()
        runs = [f" {' '.join(other[at : at + RUN])} " for at in range(len(other) - RUN + 1)]
        return any(run in one for run in runs) or (0 < len(entry.split()) < RUN and entry == question)

    index = Index([Benchmark("b", tuple((entry,) for entry in entries))])
    assert (index.match(question, ()) is not None) == any(overlap(entry) for entry in entries)


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        ({"id": 1, "question": "Q", "answer": "A", "subject": "s"}, ("Q", "A")),
        ({"question": "Q", "choices": ["a", "b"], "answer": 1}, ("Q", "a", "b")),
        ({"question": "Q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}, ("Q", "a", "b")),
        ({"question": "Q", "answers": {"text": ["a"], "answer_start": [3]}, "context": "long"}, ("Q", "a")),
        ({"input": "Q", "target": "A"}, ("Q", "A")),
        ({"prompt": "Q", "completion": "A"}, ("Q", "A")),
        ({"turns": ["Q", "and then?"], "category": "math"}, ("Q",)),
        ({"ctx": "Q", "endings": ["a", "b"], "label": 0}, ("Q", "a", "b")),
        ({"Question": "Q", "Best_Answer": "A"}, ("Q", "A")),
    ],
)
def test_usual_columns_are_known(tmp_path: Path, row: object, texts: tuple[str, ...]) -> None:
    path = write(tmp_path / "b.jsonl", row)
    assert read_benchmark(Source("b", path)).entries == (texts,)
    listed = tmp_path / "b.json"
    listed.write_text(json.dumps([row], indent=1))
    assert read_benchmark(Source("b", listed)).entries == (texts,)


def test_tables_and_named_columns(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text('\ufeffquestion,answer\n"Who, then?",Ada\n,\n', encoding="utf-8")
    assert read_benchmark(Source("b", tmp_path / "b.csv")).entries == (("Who, then?", "Ada"),)
    (tmp_path / "b.tsv").write_text("task\tsolution\nAdd 1.\t2\n")
    assert read_benchmark(Source("b", tmp_path / "b.tsv", ("task", "solution"))).entries == (("Add 1.", "2"),)


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({"question": ["Q"], "choices": [["a", "b"]]}), tmp_path / "b.parquet")
    assert read_benchmark(Source("b", tmp_path / "b.parquet")).entries == (("Q", "a", "b"),)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="not readable Parquet"):
        read_benchmark(Source("b", tmp_path / "bad.parquet"))


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed")
def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(SetupError, match=r"ilab\[parquet\]"):
        read_benchmark(Source("b", tmp_path / "b.parquet"))


def test_the_identity_is_name_columns_and_content(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "b.jsonl", {"question": SHORT, "prompt": LONG})
    here = find_benchmarks("b.jsonl", tmp_path / "here")
    assert here.digest == find_benchmarks("b=there/b.jsonl", tmp_path).digest
    assert here.digest != find_benchmarks("c=there/b.jsonl", tmp_path).digest
    assert here.digest != find_benchmarks("b.jsonl#prompt", tmp_path / "here").digest
    assert [one.entries for one in open_benchmarks(here)] == [((SHORT,),)]
    write(tmp_path / "here" / "b.jsonl", {"question": LONG})
    assert find_benchmarks("b.jsonl", tmp_path / "here").digest != here.digest
    with pytest.raises(InputError, match="changed after the plan"):
        open_benchmarks(here)
    (tmp_path / "here" / "b.jsonl").unlink()
    with pytest.raises(InputError, match="changed after the plan"):
        open_benchmarks(here)


def test_the_order_of_the_list_does_not_matter(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", {"question": "A"})
    write(tmp_path / "b.jsonl", {"question": "B"})
    assert find_benchmarks("a.jsonl, b.jsonl", tmp_path).digest == find_benchmarks("b.jsonl,a.jsonl,", tmp_path).digest
    assert [one.name for one in parse_sources("b.jsonl, x=a.jsonl", tmp_path)] == ["b", "x"]


@pytest.mark.parametrize(
    ("content", "locator", "message"),
    [
        ('{"question": "Q"}\n', "none.jsonl", "there is no such file"),
        ('{"question": "Q"}\n', "b.txt", "a benchmark is a file in"),
        ('{"question": "Q"}\n', "b.jsonl,b=b.jsonl", "two benchmarks are called 'b'"),
        ('{"question": "Q"}\n', "a/b=b.jsonl", "is no name for a benchmark"),
        ('{"question": "Q"}\n', "b.jsonl#task", "no column 'task' (columns: question)"),
        ('{"id": 1, "title": "T"}\n', "b.jsonl", "no column of questions (columns: id, title)"),
        ('{"question": 3}\n', "b.jsonl", "the column 'question' holds no text"),
        ("", "b.jsonl", "there are no rows"),
        ('{"question": "Q"}\n{"question"\n', "b.jsonl", "b.jsonl:2: not JSON"),
        ('"Q"\n', "b.jsonl", "b.jsonl:1: not an object"),
        ("[" * 100_000, "b.jsonl", "not JSON"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: str, locator: str, message: str) -> None:
    (tmp_path / "b.jsonl").write_text(content)
    (tmp_path / "b.txt").write_text(content)
    with pytest.raises(InputError) as error:
        find_benchmarks(locator, tmp_path)
    assert message in str(error.value)
