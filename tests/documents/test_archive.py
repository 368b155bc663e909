"""Archives that mean harm."""

import io
import struct
import zipfile

import pytest
from office_writer import write_zip

from ilab.documents.office import archive
from ilab.documents.office.archive import Archive, parse_xml, resolved
from ilab.errors import InputError


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a\\..\\x", "C:/x"])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="leads out of it"):
        Archive(write_zip({"good": "x", name: "x"}))


def test_links_are_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        made.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="holds a link"):
        Archive(out.getvalue())


def test_bombs_are_refused_before_they_are_unpacked() -> None:
    with pytest.raises(InputError, match="archive bomb"):
        Archive(write_zip({"a": b"\0" * 5_000_000}))


def test_a_member_that_hides_its_size_gives_no_more_than_it_says() -> None:
    data = bytearray(write_zip({"a": b"x" * 100_000}))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    with pytest.raises(InputError, match="is damaged at a"):
        Archive(bytes(data)).read("a")


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_zip({"a": "x" * 50, "b": "y" * 60})
    monkeypatch.setattr(archive, "MAX_MEMBERS", 1)
    with pytest.raises(InputError, match="holds 2 files"):
        Archive(data)
    monkeypatch.setattr(archive, "MAX_MEMBERS", 5)
    monkeypatch.setattr(archive, "MAX_TOTAL", 100)
    with pytest.raises(InputError, match="unpacked"):
        Archive(data)
    monkeypatch.setattr(archive, "MAX_TOTAL", 120)
    opened = Archive(data)
    assert opened.read("b") == b"y" * 60 and opened.read("a") == b"x" * 50
    with pytest.raises(InputError, match="too much"):  # read again and again it would be more than all of it
        opened.read("b")


def test_passwords_are_told() -> None:
    data = bytearray(write_zip({"a": "x"}))
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(InputError, match="is encrypted"):
        Archive(bytes(data))


def test_entities_are_refused_and_document_types_without_them_are_not() -> None:
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 9))
    with pytest.raises(InputError):
        parse_xml(f'<!DOCTYPE a [<!ENTITY a0 "ha">{laughs}]><a>&a8;</a>'.encode(), "x.xml")
    root = parse_xml(b'<!DOCTYPE package PUBLIC "x" "http://example.org/x.dtd"><package/>', "x.opf")
    assert root.tag == "package"


@pytest.mark.parametrize(
    ("base", "target", "wanted"),
    [
        ("OEBPS/book.opf", "text/a.xhtml#x", "OEBPS/text/a.xhtml"),
        ("OEBPS/book.opf", "../a.xhtml", "a.xhtml"),
        ("OEBPS/book.opf", "../../../a.xhtml", "a.xhtml"),
        ("word/document.xml", "/word/styles.xml", "word/styles.xml"),
        ("", "word/document.xml", "word/document.xml"),
    ],
)
def test_references_are_resolved_inside_the_archive(base: str, target: str, wanted: str) -> None:
    assert resolved(base, target) == wanted
