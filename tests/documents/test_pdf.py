"""PDF files made here, line by line: what a reader sees comes out as Markdown, what nobody sees is told."""

import re
from pathlib import Path

import pytest
from pdf_writer import WHITE, Box, Line, Mark, Page, Text, paragraph, table, write_pdf

from ilab.core.memo import Memo
from ilab.documents.chunk import chunk
from ilab.documents.convert import document, read
from ilab.documents.converted import Converted
from ilab.documents.pdf import page as pdf_page
from ilab.documents.pdf import process as pdf_process
from ilab.documents.pdf import reader as pdf
from ilab.errors import InputError

PROSE = (
    "The kiln of the pottery reaches twelve hundred degrees in nine hours and keeps that heat for one more hour "
    "before it cools. Glazes are mixed on Mondays from feldspar, whiting and quartz, and sieved twice."
)
CLAY = "Clay is dug in the south valley, washed in three tanks and left to dry under a roof until the spring."


def converted(*pages: tuple[Mark, ...], **options: str) -> Converted:
    return read(write_pdf([Page(marks) for marks in pages], **options), "x.pdf")


def test_headings_paragraphs_and_lists() -> None:
    made = converted(
        (
            Text(72, 720, "The Pottery Handbook", 22, "Helvetica-Bold"),
            Text(72, 680, "1 Firing", 15, "Helvetica-Bold"),
            *paragraph(PROSE, 72, 655),
            *paragraph(CLAY, 72, 590),
            Text(72, 545, "1.1 Care", 11, "Helvetica-Bold"),
            Text(72, 525, "• sweep the floor"),
            Text(
                72, 511, "• turn the shelves over before they bend, and when they have bent lay them on the other side"
            ),
            Text(82, 497, "and fire them once without pots"),
            Text(90, 483, "• deeper"),
            Text(72, 460, "1. light the burner"),
            Text(72, 446, "2. close the door"),
        )
    )
    assert made.text == (
        "# The Pottery Handbook\n\n## 1 Firing\n\n"
        f"{PROSE}\n\n{CLAY}\n\n### 1.1 Care\n\n"
        "- sweep the floor\n"
        "- turn the shelves over before they bend, and when they have bent lay them on the other side "
        "and fire them once without pots\n"
        "  - deeper\n"
        "1. light the burner\n2. close the door\n"
    )
    assert made.hidden == ()


def test_words_divided_at_the_end_of_a_line_are_joined_and_compounds_are_kept() -> None:
    lines = [
        "Every kiln has a thermo-",
        "couple. It is a well-",
        "known part, and the fast-",
        "cooling kind costs more. All the fast kilns, the cooling ones too, are well-known. Pre-",
        "and post-firing weights are noted; see the numbers in x-",
        "7 of the table, which has been there since the first kiln was built and is read every day.",
    ]
    made = converted(tuple(Text(72, 700 - 14 * row, line) for row, line in enumerate(lines)))
    text = " ".join(made.text.split())
    for wanted in ("a thermocouple.", "a well-known part", "fast-cooling kind", "Pre- and post-firing", "in x-7 of"):
        assert wanted in text


def test_two_columns_are_read_one_after_the_other_below_a_title_across() -> None:
    made = converted(
        (
            Text(
                72, 740, "Two columns of text below one title that is wider than either of them", 16, "Helvetica-Bold"
            ),
            *paragraph(f"{PROSE} {PROSE}", 72, 700, 220),
            *paragraph(f"{CLAY} {CLAY} {CLAY}", 320, 697, 220),
        )
    )
    assert made.text.split("\n\n")[1:] == [f"{PROSE} {PROSE}", f"{CLAY} {CLAY} {CLAY}\n"]


def test_three_columns() -> None:
    texts = [f"{word} {CLAY} {CLAY}" for word in ("First", "Second", "Third")]
    marks = [mark for at, text in enumerate(texts) for mark in paragraph(text, 50 + 180 * at, 700, 150, 9)]
    assert converted(tuple(marks)).text.strip().split("\n\n") == texts


ROWS = [
    ["glaze", "heat", "use"],
    ["celadon", "1280", "bowls"],
    ["tenmoku", "1300", "cups"],
    ["shino", "1240", "plates"],
]
MARKDOWN = "\n".join(["| glaze | heat | use |", "| --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in ROWS[1:])])


@pytest.mark.parametrize("ruled", [True, False])
def test_tables_ruled_and_bare(ruled: bool) -> None:
    made = converted(
        (*paragraph(PROSE, 72, 720), *table(ROWS, 72, 660, [90, 70, 80], ruled=ruled), *paragraph(CLAY, 72, 560))
    )
    assert made.text == f"{PROSE}\n\n{MARKDOWN}\n\n{CLAY}\n"


def test_merged_cells_stand_in_their_first_column_and_pipes_are_escaped() -> None:
    edges = [72, 172, 272, 372]
    marks = [Line(72, y, 372, y) for y in (700, 680, 660, 640)]
    marks += [Line(x, 700, x, 640) for x in (72, 372)] + [Line(x, 680, x, 640) for x in edges[1:3]]
    texts = [
        Text(80, 686, "All the glazes of the year"),
        Text(76, 666, "a|b"),
        Text(176, 666, "c"),
        Text(276, 666, "d"),
    ]
    texts += [Text(76, 646, "e"), Text(176, 646, "f"), Text(276, 646, "g")]
    made = converted((*paragraph(PROSE, 72, 760), *marks, *texts))
    rows = made.text.strip().split("\n\n")[1].split("\n")
    assert rows == ["| All the glazes of the year |  |  |", "| --- | --- | --- |", "| a\\|b | c | d |", "| e | f | g |"]


def test_lines_of_a_cell_are_joined_in_a_table_without_rules() -> None:
    cells = [
        (700, "glaze", "what it is"),
        (680, "celadon", "a green glaze that was first"),
        (667, "", "made in the ninth century"),
        (640, "tenmoku", "a black glaze with iron in"),
        (627, "", "it, fired in a reducing kiln"),
        (600, "shino", "white and thick"),
    ]
    marks = [Text(x, y, text) for y, *texts in cells for x, text in zip((72, 200), texts, strict=True) if text]
    assert converted((*paragraph(PROSE, 72, 760), *marks)).text.split("\n\n", 1)[1] == (
        "| glaze | what it is |\n| --- | --- |\n"
        "| celadon | a green glaze that was first made in the ninth century |\n"
        "| tenmoku | a black glaze with iron in it, fired in a reducing kiln |\n"
        "| shino | white and thick |\n"
    )


def test_running_heads_and_page_numbers_go_and_chapter_titles_stay() -> None:
    def page(number: int) -> tuple[Mark, ...]:
        side = 72 if number % 2 else 400
        return (
            Text(side, 765, f"The Pottery Handbook, part {number // 3}", 9),
            Text(72, 715, f"Chapter {number}", 18, "Helvetica-Bold"),
            *paragraph(PROSE, 72, 680),
            Text(300, 30, f"- {number} -", 9),
        )

    made = converted(*(page(number) for number in range(1, 9)))
    assert made.text == "\n".join(f"# Chapter {number}\n\n{PROSE}\n" for number in range(1, 9))


def test_short_pages_that_differ_only_in_a_number_are_no_running_heads() -> None:
    made = converted(*((Text(72, 720, f"This is page {number}."),) for number in range(1, 6)))
    assert made.text.count("This is page") == 5


def test_pages_begin_where_their_text_begins_and_paragraphs_flow_over() -> None:
    begin, rest = "A sentence that goes over the end of the page, which is", "why it is joined. It ends here."
    made = converted(
        (*paragraph(PROSE, 72, 720), Text(72, 100, begin)),
        (Text(72, 720, rest), *paragraph(CLAY, 72, 680)),
        (),
        (Text(72, 720, "Last.", 18, "Helvetica-Bold"), *paragraph(CLAY, 72, 680)),
    )
    assert f"{begin} {rest}" in made.text
    starts = made.pages
    assert len(starts) == 4 and starts[2] == starts[3]  # a page without text begins where the next one does
    assert made.text[starts[1] :].startswith(rest)
    assert made.text[starts[3] :].startswith("# Last.")
    pages = [part.page for part in chunk(document(made, "l", "x.pdf"), 40)]
    assert pages == sorted(pages) and {1, 4} <= set(pages) and 3 not in pages


def test_code_keeps_its_lines_and_indentation() -> None:
    code = ["def fire(kiln):", "    while kiln.cold:", "        kiln.heat()", "    return kiln"]
    marks = [
        Text(90 + 6 * (len(line) - len(line.lstrip())), 600 - 12 * row, line.lstrip(), 10, "Courier")
        for row, line in enumerate(code)
    ]
    made = converted((*paragraph(PROSE, 72, 700), *marks, *paragraph(CLAY, 72, 540)))
    assert made.text == f"{PROSE}\n\n```\n" + "\n".join(code) + f"\n```\n\n{CLAY}\n"


def test_text_that_looks_like_markup_is_not_read_as_such() -> None:
    made = converted((*paragraph(PROSE, 72, 720), Text(72, 660, "# not a heading"), Text(72, 620, "| not a table")))
    assert "\n\n\\# not a heading\n\n\\| not a table\n" in made.text


HIDDEN = {
    "in the colour of its background": (Text(72, 600, "white on white", colour=WHITE),),
    "invisible": (Text(72, 600, "drawn without ink", mode=3),),
    "smaller than a point": (Text(72, 600, "a hundredth of an inch", 0.5),),
    "off the page": (Text(700, 600, "right of the page"),),
    "covered": (Text(72, 600, "below a white box"), Box(60, 590, 300, 30)),
    "in the colour of its background, dark": (Box(60, 590, 300, 30, (0, 0, 0)), Text(72, 600, "black on black")),
}


@pytest.mark.parametrize("why", HIDDEN)
def test_what_nobody_sees_is_not_text_and_is_told(why: str) -> None:
    marks = HIDDEN[why]
    made = converted((*paragraph(PROSE, 72, 720),), (*paragraph(CLAY, 72, 720), *marks))
    assert made.text == f"{PROSE}\n\n{CLAY}\n"
    secret = next(mark.text for mark in marks if isinstance(mark, Text))
    assert [(flag.kind, flag.text) for flag in made.hidden] == [("hidden-text", secret)]
    assert made.hidden[0].place == f"page 2 ({why.partition(', dark')[0]})"


def test_white_text_on_a_dark_box_is_seen() -> None:
    made = converted(
        (*paragraph(PROSE, 72, 720), Box(60, 590, 300, 30, (0.1, 0.1, 0.4)), Text(72, 600, "Beware", colour=WHITE))
    )
    assert made.text == f"{PROSE}\n\nBeware\n" and made.hidden == ()


def test_the_text_layer_of_a_scanned_page_is_the_text() -> None:
    data = write_pdf(
        [Page(tuple(Text(72, 700 - 14 * row, line, mode=3) for row, line in enumerate([PROSE[:60], CLAY[:60]])))]
    )
    with pytest.raises(InputError, match="holds no text"):
        read(data, "x.pdf")
    assert PROSE[:60] in read(with_picture(data), "x.pdf").text


def with_picture(data: bytes) -> bytes:
    """The one-page PDF with a picture of one white dot over the page, as a scanner makes it."""
    picture = b"q 612 0 0 792 0 0 cm BI /W 1 /H 1 /CS /G /BPC 8 ID \xff EI Q\n"
    length = re.search(rb"<< /Length (\d+) >>\nstream\n", data)
    assert length
    longer = b"<< /Length %d >>\nstream\n%b" % (int(length.group(1)) + len(picture), picture)
    return data[: length.start()] + longer + data[length.end() :]  # the table of places is wrong now; pdfium mends it


def test_titles_come_from_the_file_unless_they_are_a_programs() -> None:
    assert converted(paragraph(PROSE, 72, 720), title="On Kilns").title == "On Kilns"
    assert converted(paragraph(PROSE, 72, 720), title="Microsoft Word - kiln_v3.doc").title == ""


def test_text_that_runs_upwards_is_read_upright() -> None:
    data = write_pdf([Page(paragraph(PROSE, 72, 500, 400))])
    turned = data.replace(b" Tf 72.00 500.00 Td", b" Tf 0 1 -1 0 300 72 Tm").replace(
        b" Tf 72.00 486.25 Td", b" Tf 0 1 -1 0 314 72 Tm"
    )
    turned = turned.replace(b" Tf 72.00 472.50 Td", b" Tf 0 1 -1 0 328 72 Tm")
    assert turned != data
    assert read(turned, "x.pdf").text.startswith(PROSE[:100])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"%PDF-1.4\nand nothing else", "is no PDF file that can be read"),
        (write_pdf([Page()]), "holds no text"),
        (write_pdf([Page(paragraph(PROSE, 72, 720))])[:900], "is no PDF file that can be read"),
    ],
)
def test_files_that_cannot_be_read(data: bytes, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read(data, "x.pdf")
    assert said in caught.value.message
    assert caught.value.hint


def test_an_encrypted_file_is_told_as_such() -> None:
    data = write_pdf([Page(paragraph(PROSE, 72, 720))])
    lock = b"/Encrypt << /Filter /Standard /V 1 /R 2 /O <%b> /U <%b> /P -4 >> /ID [<00> <00>] /Root" % (
        b"41" * 32,
        b"42" * 32,
    )
    with pytest.raises(InputError, match="is encrypted"):
        read(data.replace(b"/Root", lock, 1) if data.count(b"/Root") == 1 else data, "x.pdf")


def test_limits_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_pdf([Page(paragraph(PROSE, 72, 720))] * 3)
    monkeypatch.setattr(pdf, "MAX_PAGES", 2)
    with pytest.raises(InputError, match="has 3 pages; at most 2"):
        pdf.read(data)
    monkeypatch.setattr(pdf, "MAX_PAGES", 5)
    monkeypatch.setattr(pdf_page, "MAX_OBJECTS", 2)
    with pytest.raises(InputError, match="page 1: has a page of more than 2 drawn objects"):
        pdf.read(data)


def test_a_conversion_is_kept_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_pdf([Page((*paragraph(PROSE, 72, 720), *HIDDEN["invisible"]))], title="On Kilns")
    memo = Memo(tmp_path)
    first = read(data, "x.pdf", memo)
    monkeypatch.setattr(pdf_process, "read", lambda data: pytest.fail("was read again"))
    assert read(data, "other.pdf", memo) == first
    memo.close()
    assert read(data, "x.pdf", Memo(tmp_path)) == first
    assert first.title == "On Kilns" and first.hidden and first.pages == (0,)


def test_one_thread_after_the_other_uses_pdfium() -> None:
    from concurrent.futures import ThreadPoolExecutor

    files = [write_pdf([Page(paragraph(f"Number {n}. {PROSE}", 72, 720))] * 3) for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda data: read(data, "x.pdf").text, files))
    assert [text.split(".")[0] for text in texts] == [f"Number {n}" for n in range(8)]
