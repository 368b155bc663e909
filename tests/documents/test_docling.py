"""The converter docling: without it a plain error; where it is installed, what needs no models is read."""

from importlib.util import find_spec

import pytest
from office_writer import item, paragraph, run, table, write_docx
from pdf_writer import Page, Text, write_pdf

from ilab.documents.convert import read
from ilab.errors import InputError, SetupError

HERE = find_spec("docling") is not None
TYPES = """<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Default Extension="xml" ContentType="application/xml"/>
<Override PartName="/word/document.xml"
ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>"""
needs_docling = pytest.mark.skipif(not HERE, reason="docling is not installed")


@pytest.mark.skipif(HERE, reason="docling is installed")
def test_without_it_the_error_tells_what_to_install() -> None:
    with pytest.raises(SetupError) as caught:
        read(b"<html><body><p>x</p></body></html>", "x.html", converter="docling")
    assert caught.value.hint == 'pip install "ilab[docling]"'


def test_formats_that_it_is_not_asked_for_are_read_without_it() -> None:
    assert read(b"# A\n", "a.md", converter="docling").text == "# A\n"


@needs_docling
@pytest.mark.filterwarnings("default")
def test_web_pages_and_word_files() -> None:
    page = b"<html><body><h1>Firing</h1><p>It is hot.</p><table><tr><th>a</th></tr><tr><td>b</td></tr></table></body></html>"
    made = read(page, "x.html", converter="docling")
    assert made.text.startswith("# Firing\n\nIt is hot.\n\n| a ") and made.pages == ()
    word = write_docx(
        paragraph(run("The kiln is hot.")),
        item("one"),
        table(("a", "b"), ("c", "d")),
        parts={"[Content_Types].xml": TYPES},
    )
    assert "The kiln is hot." in read(word, "x.docx", converter="docling").text


@needs_docling
@pytest.mark.filterwarnings("default")
def test_damaged_files_and_missing_models_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cannot be read by docling"):
        read(b"PK\x03\x04 and nothing", "x.docx", converter="docling")
    from docling.datamodel.settings import settings

    monkeypatch.setattr(settings, "artifacts_path", "/nowhere/at/all")
    with pytest.raises(SetupError, match="the models of docling are not on this machine"):
        read(write_pdf([Page((Text(72, 700, "x"),))]), "x.pdf", converter="docling")
