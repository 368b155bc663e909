"""From files to documents: what is dropped, and that nothing else is. Headings are compared with markdown-it."""

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from ilab.documents.convert import convert
from ilab.documents.markdown import blocks

PAGES = Path(__file__).parents[3] / "shared" / "data" / "konflux-taxonomy" / "markdown"


def text_of(text: str, name: str = "a.md") -> str:
    return convert(text, "knowledge/a", name).text


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("---\ntitle: x\n---\nText.\n", "Text.\n"),
        ("+++\ntitle = 1\n+++\nText.", "Text.\n"),
        ("---\n\nText after a rule.\n", "---\n\nText after a rule.\n"),
        ("---\nnever closed\n", "---\nnever closed\n"),
        ("a\r\nb\rc", "a\nb\nc\n"),
        ("\ufeffa\x00b\x1b[0m\u202ec", "ab[0mc\n"),
        ("a <!-- b --> c <!-- d\n\ne --> f", "a  c  f\n"),
        ("a\n\n<!-- gone -->\n\nb", "a\n\nb\n"),
        ("a <!-- never closed\nb", "a\n"),
        ("```\n<!-- kept -->  \n\n\nx\n```", "```\n<!-- kept -->  \n\n\nx\n```\n"),
        ("a  \n\n\n\nb\t", "a\n\nb\n"),
        (" \n\n", ""),
    ],
)
def test_what_is_kept_of_markdown(written: str, kept: str) -> None:
    assert text_of(written) == kept


def test_plain_text_keeps_what_only_markdown_would_drop() -> None:
    assert text_of("---\na: 1\n---\n<!-- b -->\n", "a.txt") == "---\na: 1\n---\n<!-- b -->\n"


def test_the_id_depends_on_the_text_and_not_on_its_formatting() -> None:
    one, two = convert("# A\n\nb\n", "l", "x.md"), convert("# A  \r\n\r\n\r\nb", "m", "y@main:z/y.md")
    assert one.id == two.id
    assert convert("# A\n\nc\n", "l", "x.md").id != one.id
    assert convert("no heading", "l", "https://h/r@main:docs/guide.md").title == "guide"


@pytest.mark.skipif(not PAGES.is_dir(), reason="the shared data are not here")
def test_headings_of_real_pages_are_those_of_a_commonmark_parser() -> None:
    """markdown-it is another implementation; headings inside lists and quotes are not ours to find."""
    compared = more = 0
    for path in sorted(PAGES.glob("*.md")):
        text = convert(path.read_text(encoding="utf-8"), "l", path.name).text
        tokens = MarkdownIt().enable("table").parse(text)
        wanted = [
            (int(token.tag[1]), tokens[index + 1].content.splitlines()[-1])  # we take the line above an underline
            for index, token in enumerate(tokens)
            if token.type == "heading_open" and token.level == 0
        ]
        found = [(block.level, block.title) for block in blocks(text) if block.kind == "heading"]
        assert [heading for heading in found if heading in wanted] == wanted, path.name
        compared += len(wanted)
        more += len(found) - len(wanted)
    assert compared == 157
    assert more == 28  # underlined lines that CommonMark reads as the lazy end of a list item or table
