"""Hypothesis strategies for DOCX and EPUB files that nobody should make: mutated parts, lying archives, bombs.

``docx`` and ``epub`` are strategies of a file's bytes; ``DOCX_BOMBS``, ``EPUB_BOMBS`` and ``ZIP_BOMBS`` make files of a size.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable, Sequence

import baits
from changes import BYTE_CHANGES, NUMBERS, TEXT_CHANGES, insert, wrap
from hostile_markup import PAGE, TAGS, XHTML
from hypothesis import strategies as st

Members = tuple[tuple[str, str], ...]
Bomb = Callable[[int], bytes]
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_REL = "http://schemas.openxmlformats.org/package/2006/relationships"
_TYPES = (
    f'{_XML}<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
_ROOT_RELS = (
    f'{_XML}<Relationships xmlns="{_REL}"><Relationship Id="r1" Type="{_R}/officeDocument" Target="word/document.xml"/>'
    "</Relationships>"
)
_RELS = (
    f'{_XML}<Relationships xmlns="{_REL}"><Relationship Id="r1" Type="{_R}/styles" Target="styles.xml"/>\n'
    f'<Relationship Id="r2" Type="{_R}/hyperlink" Target="https://example.org/map" TargetMode="External"/>\n'
    f'<Relationship Id="r3" Type="{_R}/image" Target="{baits.URL}.png" TargetMode="External"/>\n'
    f'<Relationship Id="r4" Type="{_R}/numbering" Target="numbering.xml"/>\n'
    f'<Relationship Id="r5" Type="{_R}/footnotes" Target="footnotes.xml"/></Relationships>'
)
_STYLES = (
    f'{_XML}<w:styles xmlns:w="{_W}"><w:style w:type="paragraph" w:styleId="H1"><w:name w:val="heading 1"/></w:style>\n'
    '<w:style w:type="paragraph" w:styleId="T"><w:name w:val="Title"/><w:basedOn w:val="T"/></w:style></w:styles>'
)
_NUMBERING = (
    f'{_XML}<w:numbering xmlns:w="{_W}"><w:abstractNum w:abstractNumId="0"><w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/>'
    '</w:lvl></w:abstractNum>\n<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num></w:numbering>'
)
_NOTES = f'{_XML}<w:footnotes xmlns:w="{_W}"><w:footnote w:id="2"><w:p><w:r><w:t>A note.</w:t></w:r></w:p></w:footnote></w:footnotes>'
_PARAGRAPH = "<w:p><w:r><w:t>It burns for two days.</w:t></w:r></w:p>"
_BODY = f"""\
<w:p><w:pPr><w:pStyle w:val="H1"/></w:pPr><w:r><w:t>The kiln</w:t></w:r></w:p>
<w:p><w:r><w:rPr><w:b/></w:rPr><w:t xml:space="preserve">It stands </w:t></w:r><w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden here now</w:t></w:r>
<w:ins w:id="1"><w:r><w:t>in the valley</w:t></w:r></w:ins><w:del w:id="2"><w:r><w:delText>on the hill</w:delText></w:r></w:del></w:p>
<w:p><w:pPr><w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr></w:pPr><w:r><w:t>a door</w:t></w:r></w:p>
<w:p><w:hyperlink r:id="r2"><w:r><w:t>the map</w:t></w:r></w:hyperlink><w:r><w:footnoteReference w:id="2"/></w:r></w:p>
<w:tbl><w:tr><w:tc><w:tcPr><w:gridSpan w:val="2"/></w:tcPr><w:p><w:r><w:t>part</w:t></w:r></w:p></w:tc></w:tr>
<w:tr><w:tc><w:tcPr><w:vMerge w:val="restart"/></w:tcPr>{_PARAGRAPH}</w:tc><w:tc><w:p/></w:tc></w:tr></w:tbl>
<w:p><w:r><w:rPr><w:color w:val="FFFFFF"/><w:sz w:val="1"/></w:rPr><w:t>white and of no size</w:t></w:r></w:p>
"""


def _document(body: str, head: str = "") -> str:
    return f'{_XML}{head}<w:document xmlns:w="{_W}" xmlns:r="{_R}"><w:body>{body}</w:body></w:document>'


def _word(body: str = _BODY, head: str = "", *more: tuple[str, str]) -> Members:
    return (
        ("[Content_Types].xml", _TYPES),
        ("_rels/.rels", _ROOT_RELS),
        ("word/document.xml", _document(body, head)),
        ("word/_rels/document.xml.rels", _RELS),
        ("word/styles.xml", _STYLES),
        ("word/numbering.xml", _NUMBERING),
        ("word/footnotes.xml", _NOTES),
        *more,
    )


def _book(
    spine: str = '<itemref idref="a"/>\n<itemref idref="b"/>', items: str = "", *more: tuple[str, str]
) -> Members:
    package = (
        f'{_XML}<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>The kiln</dc:title></metadata>\n<manifest>'
        '<item id="a" href="one.xhtml" media-type="application/xhtml+xml"/>\n'
        '<item id="b" href="text/two%20more.html" media-type="application/xhtml+xml"/>\n'
        f'<item id="n" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>{items}</manifest>\n'
        f"<spine>{spine}</spine></package>"
    )
    container = (
        f'{_XML}<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
        '<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    page = '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>One</title></head><body><h1>One</h1><p>It burns.</p></body></html>'
    return (
        ("mimetype", "application/epub+zip"),
        ("META-INF/container.xml", container),
        ("OEBPS/book.opf", package),
        ("OEBPS/one.xhtml", _XML + page),
        ("OEBPS/text/two more.html", PAGE),
        ("OEBPS/nav.xhtml", XHTML),
        *more,
    )


def zipped(members: Sequence[tuple[str, str | bytes]], fault: str = "", much: int = 0) -> bytes:
    """The archive of ``members``; with a ``fault`` one of them is (the one of number ``much``) not as it should be."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (name, text) in enumerate(members):
            here = fault if number == much % max(len(members), 1) else ""
            info = zipfile.ZipInfo(name.replace("\x00", "\x01") or "a")
            info.compress_type = zipfile.ZIP_STORED if number == 0 else zipfile.ZIP_DEFLATED
            data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
            if here == "link":
                info.external_attr, data = (stat.S_IFLNK | 0o777) << 16, baits.FILE.encode()
            elif here == "name":
                info.filename = baits.ESCAPES[much % len(baits.ESCAPES)].replace("\x00", "\x01") or "a"
            archive.writestr(info, data)
            if here == "twice":
                archive.writestr(zipfile.ZipInfo(info.filename + "\u0301"), data)
    data = out.getvalue()
    if fault == "sizes":  # the directory says that the first deflated member is of another size
        at = data.find(b"PK\x01\x02", data.find(b"PK\x01\x02") + 4)
        data = data[: at + 24] + struct.pack("<I", (0, 1, 2**31, 2**32 - 1)[much % 4]) + data[at + 28 :]
    elif fault == "secret":  # … that it is encrypted
        at = data.find(b"PK\x01\x02", data.find(b"PK\x01\x02") + 4)
        data = data[: at + 8] + b"\x01\x00" + data[at + 10 :]
    elif fault == "method":  # … that it is compressed in a way of its own
        at = data.find(b"PK\x01\x02", data.find(b"PK\x01\x02") + 4)
        data = data[: at + 10] + struct.pack("<H", (9, 12, 14, 99)[much % 4]) + data[at + 12 :]
    elif fault == "early":
        data = b"MZ" * much + data
    elif fault == "late":
        data += b"PK\x05\x06" + b"\x00" * (much % 40)
    return data


_LAUGHS = (
    "<!DOCTYPE a [<!ENTITY a0 'ha'>" + "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 12)) + "]>"
)
_OUTSIDE = f'<!DOCTYPE a [<!ENTITY a11 SYSTEM "{baits.FILE}"><!ENTITY b SYSTEM "{baits.URL}"><!ENTITY % c SYSTEM "{baits.URL}"> %c;]>'
_REFERENCE = _PARAGRAPH.replace("two", "&a11;")

ZIP_BOMBS: dict[str, Bomb] = {
    "a member of zeros": lambda n: zipped((*_word(), ("word/media/a.bin", b"\x00" * (n * 2**16)))),
    "many members": lambda n: zipped((*_word(), *((f"a/{i}", "") for i in range(n)))),
    "members in members": lambda n: zipped(
        (*_word(), ("a.zip", ZIP_BOMBS["members in members"](n // 2) if n > 1 else b""))
    ),
    "a long name": lambda n: zipped((*_word(), ("a" * min(n, 65000), ""))),
    "deep folders": lambda n: zipped((*_word(), ("a/" * min(n, 30000) + "b", ""))),
    "the same member": lambda n: zipped(
        (*_word(), *((f"word/document.xml{chr(1)}{i}", _document("")) for i in range(n)))
    ).replace(b"\x01", b"\x00"),
    "nothing but directories": lambda n: b"PK\x03\x04" + b"PK\x01\x02" * n + b"PK\x05\x06" + b"\xff" * 18,
}
_FIELD = '<w:fldChar w:fldCharType="begin"/><w:instrText>INCLUDETEXT</w:instrText>'
_PICTURE = f'<w:p><w:r><w:drawing><a:blip xmlns:a="{_R}" r:embed="r3" r:link="r3"/></w:drawing></w:r></w:p>'
_STYLE = '<w:style w:type="paragraph" w:styleId="s{}"><w:basedOn w:val="s{}"/></w:style>'
_ITEM = '<item id="c{}" href="{}" media-type="application/xhtml+xml"/>'


def _with(members: Members, part: str, old: str, new: str) -> bytes:
    """The archive in which ``old`` is replaced, once, in the member whose name ends in ``part``."""
    return zipped([(name, text.replace(old, new, 1) if name.endswith(part) else text) for name, text in members])


def _with_laughs(part: str, root: str, head: str = _LAUGHS) -> Members:
    """A book with ``head`` before the root element of one of its members."""
    return tuple((name, text.replace(root, head + root) if name.endswith(part) else text) for name, text in _book())


def _chapters(n: int, href: str, *more: tuple[str, str]) -> bytes:
    """A book of ``n`` chapters; ``href`` may hold the number of each."""
    items = "".join(_ITEM.format(number, href.format(number)) for number in range(n))
    return zipped(_book("".join(f'<itemref idref="c{number}"/>' for number in range(n)), items, *more))


DOCX_BOMBS: dict[str, Bomb] = {
    "paragraphs": lambda n: zipped(_word(_PARAGRAPH * n)),
    "a body of blanks": lambda n: zipped(_word(" " * (n * 1000))),
    "a long text": lambda n: zipped(_word(_PARAGRAPH.replace("two", "kiln " * n))),
    "tables in tables": lambda n: zipped(_word("<w:tbl><w:tr><w:tc>" * n + _PARAGRAPH + "</w:tc></w:tr></w:tbl>" * n)),
    "elements in elements": lambda n: zipped(_word("<w:p>" * n + "</w:p>" * n)),
    "boxes in boxes": lambda n: zipped(
        _word("<w:p><w:r><w:pict><w:txbxContent>" * n + "</w:txbxContent></w:pict></w:r></w:p>" * n)
    ),
    "a great span": lambda n: _with(_word(), "document.xml", 'gridSpan w:val="2"', f'gridSpan w:val="{n}"'),
    "rows that merge": lambda n: zipped(
        _word(f"<w:tbl>{'<w:tr><w:tc><w:tcPr><w:vMerge/></w:tcPr><w:p/></w:tc></w:tr>' * n}</w:tbl>")
    ),
    "deep lists": lambda n: zipped(
        _word("".join(_BODY.split("\n")[3].replace('ilvl w:val="0"', f'ilvl w:val="{level}"') for level in range(n)))
    ),
    "styles on styles": lambda n: _with(
        _word(), "styles.xml", "<w:style ", "".join(_STYLE.format(i, i + 1) for i in range(n)) + "<w:style "
    ),
    "notes in notes": lambda n: _with(
        _word(), "footnotes.xml", "<w:r>", '<w:r><w:footnoteReference w:id="2"/></w:r>' * n + "<w:r>"
    ),
    "notes again and again": lambda n: zipped(_word('<w:p><w:r><w:footnoteReference w:id="2"/></w:r></w:p>' * n)),
    "relations": lambda n: _with(
        _word(),
        "document.xml.rels",
        "</Relationships>",
        f'<Relationship Id="x" Type="{_R}/image" Target="../../../../{baits.FILE}"/>' * n + "</Relationships>",
    ),
    "attributes": lambda n: zipped(_word("<w:p" + "".join(f" a{i}='b'" for i in range(n)) + "/>")),
    "spaces of names": lambda n: zipped(
        _word(
            "".join(f'<a{i}:p xmlns:a{i}="a{i}">' for i in range(n)) + "".join(f"</a{i}:p>" for i in reversed(range(n)))
        )
    ),
    "laughs": lambda n: zipped(_word(_REFERENCE * n, _LAUGHS)),
    "what lies outside": lambda n: zipped(_word(_REFERENCE * n, _OUTSIDE)),
    "pictures": lambda n: zipped(_word(_PICTURE * n)),
    "fields": lambda n: zipped(_word(f"<w:p><w:r>{_FIELD * n}</w:r></w:p>")),
}
EPUB_BOMBS: dict[str, Bomb] = {
    "one chapter again and again": lambda n: zipped(_book('<itemref idref="b"/>' * n)),
    "chapters": lambda n: _chapters(n, "c{}.xhtml", *((f"OEBPS/c{number}.xhtml", XHTML) for number in range(n))),
    "many names of one chapter": lambda n: _chapters(n, "one.xhtml#{}"),
    "chapters outside": lambda n: _chapters(n, f"../../../{baits.FILE}"),
    "chapters elsewhere": lambda n: _chapters(n, baits.URL),
    "laughs in a chapter": lambda n: _with(_with_laughs("one.xhtml", "<html"), "one.xhtml", "It burns", "&a11;" * n),
    "laughs in the package": lambda n: _with(_with_laughs("book.opf", "<package"), "book.opf", "The kiln", "&a11;" * n),
    "what lies outside a chapter": lambda n: _with(
        _with_laughs("one.xhtml", "<html", _OUTSIDE), "one.xhtml", "It burns", "&a11;&b;" * n
    ),
    "what lies outside the package": lambda n: _with(
        _with_laughs("book.opf", "<package", _OUTSIDE), "book.opf", "The kiln", "&a11;&b;" * n
    ),
    "packages": lambda n: _with(
        _book(), "container.xml", "<rootfile ", '<rootfile full-path="../x.opf"/>' * n + "<rootfile "
    ),
    "a key": lambda n: zipped(
        _book("", "", ("META-INF/encryption.xml", f"{_XML}<encryption>{'<a/>' * n}</encryption>"))
    ),
    "a deep chapter": lambda n: _with(_book(), "one.xhtml", "<p>", "<div>" * n),
    "a chapter of blanks": lambda n: _with(_book(), "one.xhtml", "<p>", " " * (n * 1000)),
}
_BITS = (
    *TAGS,
    "<w:p>",
    "</w:p>",
    "<w:tbl>",
    "<w:tc>",
    "<w:r>",
    "</w:r>",
    "<w:t>",
    "&",
    "&a;",
    _LAUGHS,
    _OUTSIDE,
    "]]>",
    "<?a b?>",
    "\x00",
)
_XML_CHANGES = (
    *TEXT_CHANGES,
    insert(_BITS),
    insert(_BITS),
    wrap((("<w:p>", "</w:p>"), ("<w:tbl><w:tr><w:tc>", "</w:tc></w:tr></w:tbl>"))),
)
_FAULTS = (*[""] * 8, "link", "name", "twice", "sizes", "secret", "method", "early", "late")


def _mutated(members: Members) -> st.SearchStrategy[bytes]:
    def build(
        steps: list[tuple[int, int, int, int]], gone: int, fault: str, much: int, torn: list[tuple[int, int, int]]
    ) -> bytes:
        parts = list(members)
        for part, which, where, number in steps:
            at = (2, part % len(parts))[part % 2]  # every other time the third, which is the document itself
            name, text = parts[at]
            parts[at] = (name, _XML_CHANGES[which](text, where, number))
        if gone < len(parts):
            del parts[gone]
        data = zipped(parts, fault, much)
        for which, where, number in torn:
            data = BYTE_CHANGES[which](data, where, number)
        return data

    step = st.tuples(NUMBERS, st.integers(0, len(_XML_CHANGES) - 1), NUMBERS, NUMBERS)
    tear = st.tuples(st.integers(0, len(BYTE_CHANGES) - 1), NUMBERS, NUMBERS)
    return st.builds(
        build,
        st.lists(step, max_size=2),
        st.integers(0, 80),
        st.sampled_from(_FAULTS),
        NUMBERS,
        st.just([]) | st.lists(tear, max_size=2),
    )


def _bombs(*makers: dict[str, Bomb]) -> st.SearchStrategy[bytes]:
    bombs = [make for maker in makers for _, make in sorted(maker.items())]
    return st.builds(lambda which, n: bombs[which](n), st.integers(0, len(bombs) - 1), st.integers(1, 60))


docx: st.SearchStrategy[bytes] = st.one_of(*[_mutated(_word())] * 4, _bombs(DOCX_BOMBS, ZIP_BOMBS))
epub: st.SearchStrategy[bytes] = st.one_of(*[_mutated(_book())] * 4, _bombs(EPUB_BOMBS, ZIP_BOMBS))
