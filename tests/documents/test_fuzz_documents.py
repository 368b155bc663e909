"""Hostile documents: ten thousand of them, and whatever they are, an author gets an answer (see prove_document)."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import baits
import pytest
from hostile_archives import DOCX_BOMBS, EPUB_BOMBS, ZIP_BOMBS, docx, epub
from hostile_markup import HTML_BOMBS, MARKDOWN_BOMBS, html, markdown
from hostile_pdf import PDF_BOMBS, pdf
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from sandbox import Sandbox

from ilab.documents.pdf import process

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of a large input that fails
FORMATS = {
    ".md": markdown,
    ".txt": markdown,
    ".html": html,
    ".xhtml": html,
    ".pdf": pdf,
    ".docx": docx,
    ".epub": epub,
    "mixed": st.one_of(markdown, html, pdf, docx, epub, st.binary(max_size=300)),
}
SHARES = {
    ".md": 1500,
    ".txt": 500,
    ".html": 2000,
    ".xhtml": 500,
    ".pdf": 2500,
    ".docx": 1500,
    ".epub": 1000,
    "mixed": 500,
}
SAMPLE = 25  # of which one is in the quick tests
GREATEST = 2**13  # repetitions in a bomb
BOMBS = {
    **{(".md", name): make for name, make in MARKDOWN_BOMBS.items()},
    **{(".html", name): make for name, make in HTML_BOMBS.items()},
    **{(".pdf", name): make for name, make in PDF_BOMBS.items()},
    **{(".docx", name): make for name, make in (DOCX_BOMBS | ZIP_BOMBS).items()},
    **{(".epub", name): make for name, make in (EPUB_BOMBS | ZIP_BOMBS).items()},
}


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox with baits around it; afterwards nobody has touched them and nothing has come out."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "bait.txt").write_text(baits.SECRET)
    with Sandbox("prove_document:prove", inside, starts=process.__name__) as sandbox:
        yield sandbox
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bait.txt", "inside"]
    assert list(inside.iterdir()) == []
    assert not Path("/tmp/ilab-escaped.txt").exists()
    assert not baits.touched()


def fuzzed(sandbox: Sandbox, suffix: str, examples: int, start: int) -> Counter[str]:
    """What became of so many random documents."""
    outcomes: Counter[str] = Counter()
    names = st.sampled_from([f"a{other}" for other in FORMATS]) if suffix == "mixed" else st.just(f"a{suffix}")

    @seed(start)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(data=FORMATS[suffix], name=names)
    def prove(data: bytes, name: str) -> None:
        outcomes[sandbox.run(data, name.encode())] += 1

    prove()
    return outcomes


@pytest.mark.parametrize("suffix", FORMATS)
def test_hostile_documents(sandbox: Sandbox, suffix: str) -> None:
    outcomes = fuzzed(sandbox, suffix, SHARES[suffix] // SAMPLE, 0)
    assert outcomes["read"] > 0 or suffix == "mixed", outcomes


@pytest.mark.long
@pytest.mark.parametrize("suffix", FORMATS)
def test_ten_thousand_hostile_documents(sandbox: Sandbox, suffix: str) -> None:
    outcomes = fuzzed(sandbox, suffix, SHARES[suffix], 1)
    assert sum(outcomes.values()) >= SHARES[suffix]
    assert outcomes["read"] > SHARES[suffix] / 20 and outcomes["refused"] > 0, outcomes


def test_the_shares_are_ten_thousand() -> None:
    assert sum(SHARES.values()) == 10_000


@pytest.mark.long
@pytest.mark.parametrize(("suffix", "name"), BOMBS, ids=lambda part: part)
def test_a_bomb_in_a_document(sandbox: Sandbox, suffix: str, name: str) -> None:
    """Grown until it is large or, where the format itself says no, refused."""
    size = 16
    while size < GREATEST:
        size *= 8
        data = BOMBS[suffix, name](size)
        sandbox.run(data.encode() if isinstance(data, str) else data, f"a{suffix}".encode())
