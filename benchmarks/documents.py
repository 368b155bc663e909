"""What does it cost to convert and chunk a long PDF, does memory stay flat, and is the structure still there?

    python benchmarks/documents.py            # a few minutes on one core
    python benchmarks/documents.py --write    # also put the figures into benchmarks/documents.md

The PDF is made here, of plain operators (tests/documents/pdf_writer.py): chapters and sections in larger type,
paragraphs, a ruled and an unruled table in turn on every fifth page, a running header and page numbers. Converting and
chunking runs in a process of its own, and beside it the bare text extraction of pypdfium2, which knows nothing of
headings, tables, headers or chunks. What was written is counted in what comes out.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from cost import HEAD, ROOT, cost, python, row

sys.path.insert(0, str(ROOT / "tests" / "documents"))
from pdf_writer import Mark, Page, Text, paragraph, table, wrap, write_pdf

PAGES = (50, 500, 2000)
BUDGET = 500  # tokens of a chunk
RESULT = Path(__file__).with_suffix(".md")
HEADER = "The Book of Kilns and Mills"
EVERY = 5  # pages from one table to the next
_MAKE = "import sys; sys.path.insert(0, sys.argv[3]); import documents; documents.make(int(sys.argv[1]), sys.argv[2])"
_BARE = """
import sys, pypdfium2
document = pypdfium2.PdfDocument(sys.argv[1])
print(sum(len(page.get_textpage().get_text_range()) for page in document))
"""
_OURS = """
import json, sys
from pathlib import Path
from ilab.documents.chunk import chunk_documents
from ilab.documents.convert import document, read
converted = read(Path(sys.argv[1]).read_bytes(), sys.argv[1])
made = document(converted, "knowledge/kilns", sys.argv[1])
chunks = chunk_documents([made], int(sys.argv[2]))
print(json.dumps({"text": made.text, "pages": len(made.pages), "chunks": len(chunks)}))
"""
_WORDS = """\
the a its this each every that
kiln mill bridge quarry harbour chapel orchard tower ford ridge market gate furnace millstone waterwheel chimney
burns carries covers divides feeds follows guards holds joins lights marks opens passes turns rests cools
old great narrow northern wooden iron quiet heavy second famous ruined
slowly twice often never early again together
"""
_ARTICLES, _NOUNS, _VERBS, _KINDS, _MANNERS = (line.split() for line in _WORDS.splitlines())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pages", type=int, nargs="+", default=list(PAGES))
    arguments.add_argument("--write", action="store_true", help=f"put the figures into {RESULT.name}")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows, notes = [HEAD], [""]
        for pages in options.pages:
            made, note = measure(Path(folder), pages)
            rows += made
            notes.append(note)
    text = "\n".join([*rows, *notes])
    print(text)
    if options.write:
        RESULT.write_text(f"# Converting and chunking a long PDF\n\nMade by `benchmarks/documents.py`.\n\n{text}\n")


def measure(folder: Path, pages: int) -> tuple[list[str], str]:
    """The rows about a PDF of so many pages, and what of its structure came out."""
    file = folder / f"{pages}.pdf"
    cost(python(_MAKE, str(pages), file, Path(__file__).parent), times=1)  # a process of its own keeps this one small
    times = 3 if pages <= 500 else 1
    bare = cost(python(_BARE, file), times=times)
    ours = cost(python(_OURS, file, str(BUDGET)), times=times)
    megabytes = f"{file.stat().st_size / 2**20:.1f} MiB"
    rows = [
        row(f"pypdfium2's bare text of {pages:,} pages ({megabytes})", bare),
        row(f"converted and chunked: {pages:,} pages", ours, bare),
    ]
    return rows, _structure(json.loads(ours.output), pages)


def make(pages: int, target: str) -> None:
    """Write the PDF of so many pages to ``target``."""
    Path(target).write_bytes(write_pdf(map(_page, range(1, pages + 1)), title=HEADER, compress=True))


def _structure(found: dict[str, Any], pages: int) -> str:
    """How much of what was written is there, in a sentence."""
    lines = found["text"].split("\n")
    headings = [line.lstrip("# ") for line in lines if line.startswith("#")]
    wanted = [heading for number in range(1, pages + 1) for heading in _headings(number)]
    cells = {cell.strip() for line in lines if line.startswith("|") for cell in line.strip("| ").split("|")}
    values = [row[1] for number in range(EVERY, pages + 1, EVERY) for row in _table(number)[1:]]
    sentences = {sentence for number in range(1, pages + 1) for text in _texts(number) for sentence in text.split(". ")}
    whole = " ".join(found["text"].split())
    kept = sum(sentence.rstrip(".") in whole for sentence in sentences)
    return (
        f"- {pages:,} pages: {_share(sum(h in set(headings) for h in wanted), len(wanted))} of the headings (and "
        f"{len(headings) - len(wanted):+d}), {_share(sum(value in cells for value in values), len(values))} of the "
        f"table cells, {_share(kept, len(sentences))} of the sentences whole, "
        f"{sum(HEADER in line for line in lines)} running headers left, {found['pages']:,} page marks, "
        f"{found['chunks']:,} chunks."
    )


def _share(some: int, of: int) -> str:
    return f"{100 * some / of:.1f} %" if of else "none"


def _headings(number: int) -> list[str]:
    """A chapter on every tenth page, a section on every other one."""
    name = _phrase(random.Random(f"heading {number}")).capitalize()
    return (
        [f"{number // 10 + 1}. {name} {number}"] if number % 10 == 1 else [f"On {name} {number}"] if number % 2 else []
    )


def _texts(number: int) -> list[str]:
    """The page's paragraphs, some 350 words."""
    generator = random.Random(f"page {number}")
    count = 4 if number % EVERY else 3
    return [" ".join(_sentence(generator) for _ in range(generator.randint(4, 7))) for _ in range(count)]


def _table(number: int) -> list[list[str]]:
    generator = random.Random(f"table {number}")
    rows = [
        [f"{generator.choice(_NOUNS)} {at}", f"{generator.randint(10_000, 99_999)}", f"{generator.random():.3f}"]
        for at in range(6)
    ]
    return [["part", "number", "weight"], *rows]


def _page(number: int) -> Page:
    marks: list[Mark] = [Text(72, 760, HEADER, 8), Text(300, 30, str(number), 9)]
    at = 720.0
    for heading in _headings(number):
        size = 20 if number % 10 == 1 else 14
        marks.append(Text(72, at, heading, size, "Helvetica-Bold"))
        at -= 2 * size
    for text in _texts(number):
        marks += paragraph(text, 72, at)
        at -= 13.75 * len(wrap(text, 468)) + 10
    if number % EVERY == 0:
        marks += table(_table(number), 72, at, [150, 120, 120], ruled=number % (2 * EVERY) == 0)
    return Page(tuple(marks))


def _sentence(generator: random.Random) -> str:
    words = [_phrase(generator), generator.choice(_VERBS), _phrase(generator), generator.choice(_MANNERS)]
    return (
        f"{' '.join(words).capitalize()}, and in {generator.randint(1100, 2020)} {_phrase(generator)} did so as well."
    )


def _phrase(generator: random.Random) -> str:
    return f"{generator.choice(_ARTICLES)} {generator.choice(_KINDS)} {generator.choice(_NOUNS)}"


if __name__ == "__main__":
    main()
