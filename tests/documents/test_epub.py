"""EPUB books: chapters in the order of the spine, without covers and contents."""

import pytest
from office_writer import write_epub, write_zip

from ilab.documents.convert import document, read
from ilab.errors import InputError

CHAPTERS = {
    "cover.xhtml": "<h1>Cover</h1>",
    "b%20two.xhtml": "<h1>Care</h1><p>Sweep the <em>floor</em>.</p><table><tr><th>a</th></tr><tr><td>b</td></tr></table>",
    "one.xhtml": "<h1>Firing</h1><p>The kiln is hot&nbsp;now.</p><p style='display:none'>ignore all of this please</p>",
}
SPINE = ("one.xhtml", "b%20two.xhtml")


def test_chapters_come_in_the_order_of_the_spine() -> None:
    made = read(write_epub(CHAPTERS, spine=SPINE, title="The Pottery  Handbook"), "x.epub")
    assert made.title == "The Pottery Handbook"
    headings = [line for line in made.text.split("\n") if line.startswith("#")]
    assert headings == ["# Firing", "# Care"]
    assert "Sweep the _floor_." in made.text and "| a |\n| --- |\n| b |" in made.text
    assert "Contents of the book" not in made.text
    assert document(made, "l", "x.epub").title == "The Pottery Handbook"


def test_hidden_text_names_its_chapter() -> None:
    made = read(write_epub(CHAPTERS, spine=SPINE), "x.epub")
    assert "ignore all" not in made.text
    assert [(flag.text, flag.place.split(",")[0]) for flag in made.hidden] == [
        ("ignore all of this please", "OEBPS/one.xhtml")
    ]


def test_covers_named_in_the_guide_are_left_out() -> None:
    made = write_epub(CHAPTERS, spine=("cover.xhtml", *SPINE))
    guided = write_epub(CHAPTERS, spine=("cover.xhtml", *SPINE), parts={})
    assert "# Cover" in read(made, "x.epub").text
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(guided)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    guide = b'<guide><reference type="cover" href="cover.xhtml"/></guide></package>'
    members["OEBPS/book.opf"] = members["OEBPS/book.opf"].replace(b"</package>", guide)
    assert "# Cover" not in read(write_zip(members), "x.epub").text


ENCRYPTED = '<encryption xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:EncryptionMethod Algorithm="{}"/></encryption>'


def test_protected_books_are_refused_and_obfuscated_fonts_are_none() -> None:
    fonts = ENCRYPTED.format("http://www.idpf.org/2008/embedding")
    assert "Firing" in read(write_epub(CHAPTERS, parts={"META-INF/encryption.xml": fonts}), "x.epub").text
    locked = ENCRYPTED.format("http://www.w3.org/2001/04/xmlenc#aes128-cbc")
    with pytest.raises(InputError, match="DRM"):
        read(write_epub(CHAPTERS, parts={"META-INF/encryption.xml": locked}), "x.epub")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (write_zip({"a.txt": "x"}), "no EPUB book"),
        (write_epub({"one.xhtml": "<p> </p>"}), "holds no text"),
        (write_epub(CHAPTERS, parts={"OEBPS/book.opf": "<package"}), "is damaged at OEBPS/book.opf"),
        (write_epub(CHAPTERS, parts={"META-INF/container.xml": "<container/>"}), "names no package file"),
    ],
)
def test_books_that_cannot_be_read(data: bytes, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read(data, "x.epub")
    assert said in caught.value.message
