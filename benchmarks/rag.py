"""How well retrieval finds the passage that answers a question, and how long it takes.

    python benchmarks/rag.py [--data DIR] [--tokens N] [--embedder DIR|hashed] [--speed PASSAGES]
    python benchmarks/rag.py --write      # the figures of benchmarks/rag.md: some minutes

Questions are those of a real taxonomy (``qna.yaml`` and the question-answer pairs in ``pre-generated`` that somebody's
teacher wrote) on the documents in ``markdown``. A passage *answers* a question where it holds at least 60 % of the
content words of its right answer, which the search does not see; questions that no passage answers by that rule
are left out and counted. Printed: the share of questions with such a passage among the first 1, 3, 5 and 10, and the
mean reciprocal rank among the first 50 (MRR), for BM25 alone, vectors alone, and both fused. The same
questions come once more *misspelt*: every word of six letters or more lacks its third.

``--speed`` times a store of so many passages: the same documents again and again, each copy with words of its own.
Times are those of one processor core, whatever else it does.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from ilab.config import Where
from ilab.core.events import Bus
from ilab.data import Document, digest_text
from ilab.documents.convert import document, read
from ilab.evaluation.answers import content_words
from ilab.rag.embedder import embedder_of
from ilab.rag.ingest import ingest
from ilab.rag.search import By, Retriever
from ilab.rag.store import DocumentStore
from ilab.retrieval import cut

DATA = Path(__file__).resolve().parents[2] / "shared/data/konflux-taxonomy"
HOLDS = 0.6  # of the answer's content words
DEPTH = 50
LONG = re.compile(r"\b(\w\w)\w(\w{3,})")
RESULT = Path(__file__).with_suffix(".md")
WAYS: dict[str, By] = {"BM25": "text", "vectors": "vectors", "fused": "both"}

HEAD = """\
# Finding the passage that answers

Made by `benchmarks/rag.py --write` from the Konflux taxonomy (38 pages of its documentation). It says there what
counts as found. The embedder `hashed` is no model: on questions in good spelling it adds little to BM25.

"""

Pair = tuple[str, str]  # question, answer


def documents_in(folder: Path) -> list[Document]:
    paths = sorted(folder.glob("*.md"))
    return [document(read(path.read_bytes(), path.name), "", path.name) for path in paths]


def questions(data: Path) -> dict[str, list[Pair]]:
    seeds = yaml.safe_load((data / "qna.yaml").read_text(encoding="utf-8"))["seed_examples"]
    lines = [
        line for path in sorted((data / "pre-generated").glob("*.jsonl")) for line in path.read_text().splitlines()
    ]
    rows = [json.loads(line) for line in lines]
    pairs = [(str(row.get("user")), str(row.get("assistant"))) for row in rows if row.get("user")]
    misspelt = [(LONG.sub(r"\1\2", question), answer) for question, answer in pairs]
    own = [(seed["question"], seed["answer"]) for seed in seeds]
    return {"qna.yaml": own, "pre-generated": pairs, "pre-generated, misspelt": misspelt}


def answering(answer: str, texts: Sequence[str]) -> set[str]:
    """Those of ``texts`` that hold enough of the answer's words."""
    words = content_words(answer)
    return {text for text in texts if words and len(words & content_words(text)) >= HOLDS * len(words)}


def built(store: DocumentStore, documents: Sequence[Document], setting: str, tokens: int) -> Retriever:
    embedder = embedder_of(setting, Where())
    collection = store.make("benchmark", embedder.identity, embedder.setting)
    ingest((store, collection, embedder), "benchmark", cut(documents, tokens), Bus().for_step("ingest"))
    return Retriever(store, collection, embedder)


def quality(retriever: Retriever, texts: Sequence[str], data: Path) -> None:
    for name, pairs in questions(data).items():
        wanted = [(question, answering(answer, texts)) for question, answer in pairs]
        asked = [(question, good) for question, good in wanted if good]
        print(f"\n{name}: {len(asked)} of {len(pairs)} questions have an answering passage")
        print("\n| ranked by | @1 | @3 | @5 | @10 | MRR |\n| --- | ---: | ---: | ---: | ---: | ---: |")
        for way, by in WAYS.items():
            ranks = []
            for question, good in asked:
                found = [hit.passage.text for hit in retriever.search(question, DEPTH, by)]
                ranks.append(next((rank for rank, text in enumerate(found, 1) if text in good), 0))
            shares = [sum(0 < rank <= most for rank in ranks) / len(ranks) for most in (1, 3, 5, 10)]
            mean = sum(1 / rank for rank in ranks if rank) / len(ranks)
            print(f"| {way} | {' | '.join(f'{share:.2f}' for share in shares)} | {mean:.3f} |")


def speed(documents: Sequence[Document], setting: str, tokens: int, passages: int, asked: Sequence[str]) -> None:
    each = sum(len(one.chunks) for one in cut(documents, tokens))
    copies = [_copy(one, number) for number in range(-(-passages // each)) for one in documents]
    with tempfile.TemporaryDirectory() as folder, DocumentStore.open(Path(folder) / "store.db", make=True) as store:
        begin = time.process_time()
        made = built(store, copies, setting, tokens)
        spent = time.process_time() - begin
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        begin = time.process_time()
        opened = Retriever(store, made.collection, embedder_of(setting, Where()))
        opening = time.process_time() - begin
        times = []
        for question in asked:
            begin = time.process_time()
            opened.search(question, 3)
            times.append(time.process_time() - begin)
        count = each * len(copies) // len(documents)
        print(f"\n{count:,} passages: {spent:.0f} s to make, {size / 2**20:.0f} MiB, {opening:.2f} s to open,")
        print(f"{1000 * sum(times) / len(times):.0f} ms a question, {1000 * max(times):.0f} ms the slowest")


def _copy(one: Document, number: int) -> Document:
    text = "\n".join(
        f"{line} w{number}" if line and not line.startswith("#") else line for line in one.text.split("\n")
    )
    return one.model_copy(update={"text": text, "source": f"{number}/{one.source}", "id": digest_text(text)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--embedder", default="hashed")
    parser.add_argument("--speed", type=int, default=0, metavar="PASSAGES")
    parser.add_argument("--write", action="store_true", help=f"put the figures into {RESULT.name}")
    given = parser.parse_args()
    if not given.write:
        show(given.data, given.embedder, given.tokens, given.speed)
        return
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        show(given.data, given.embedder, 200, 50_000)
        print()
        show(given.data, given.embedder, 400, 0)
    RESULT.write_text(HEAD + text.getvalue(), encoding="utf-8")


def show(data: Path, embedder: str, tokens: int, passages: int) -> None:
    documents = documents_in(data / "markdown")
    texts = [chunk.text for one in cut(documents, tokens) for chunk in one.chunks]
    print(f"## {len(documents)} documents, {len(texts)} passages of at most {tokens} tokens, embedder {embedder}")
    with tempfile.TemporaryDirectory() as folder, DocumentStore.open(Path(folder) / "store.db", make=True) as store:
        quality(built(store, documents, embedder, tokens), texts, data)
    if passages:
        asked = [question for question, _ in questions(data)["pre-generated"][:40]]
        speed(documents, embedder, tokens, passages, asked)


if __name__ == "__main__":
    main()
