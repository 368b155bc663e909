"""Word files: what Word shows comes out as Markdown, what it does not show is told."""

import pytest
from office_writer import item, paragraph, run, table, write_docx

from ilab.documents.convert import read
from ilab.documents.converted import Converted
from ilab.errors import InputError


def converted(*body: str, **options: object) -> Converted:
    return read(write_docx(*body, **options), "x.docx")  # type: ignore[arg-type]


def test_headings_are_those_of_the_outline_in_any_language() -> None:
    made = converted(
        paragraph(run("The Pottery Handbook"), style="Titel"),
        paragraph(run("Brennen"), style="berschrift1"),
        paragraph(run("Pflege"), style="Kapitel"),
        paragraph(run("Boden"), style="Unter"),
        paragraph(run("Direct"), properties='<w:outlineLvl w:val="2"/>'),
        paragraph(run("The kiln is "), run("hot", "<w:b/>"), run(".")),
    )
    assert (
        made.text
        == "# The Pottery Handbook\n\n# Brennen\n\n## Pflege\n\n## Boden\n\n### Direct\n\nThe kiln is **hot**.\n"
    )


def test_lists_tables_notes_and_links() -> None:
    note = f'<w:footnote w:id="2">{paragraph(run("Measured with a cone."))}</w:footnote>'
    made = converted(
        item("one"),
        item("two"),
        item("deeper", 1),
        table(("glaze", "heat"), ("celadon", "1280"), ("sh|no", "1240")),
        paragraph(run("It is hot."), '<w:r><w:footnoteReference w:id="2"/></w:r>'),
        paragraph(
            '<w:hyperlink r:id="a">' + run("the web") + "</w:hyperlink>",
            '<w:hyperlink r:id="b">' + run(" a file") + "</w:hyperlink>",
        ),
        links={"a": "https://example.org/x", "b": "file:///etc/passwd"},
        notes=note,
    )
    assert made.text == (
        "- one\n- two\n  1. deeper\n\n"
        "| glaze | heat |\n| --- | --- |\n| celadon | 1280 |\n| sh\\|no | 1240 |\n\n"
        "It is hot.[^1]\n\n[the web](https://example.org/x) a file\n\n[^1]: Measured with a cone.\n"
    )


@pytest.mark.parametrize(
    ("hidden", "why"),
    [
        (run("secret words", "<w:vanish/>"), "hidden"),
        (run("secret words", '<w:rStyle w:val="Ghost"/>'), "hidden"),
        (run("secret words", '<w:color w:val="FFFFFF"/>'), "white on white"),
        (run("secret words", '<w:sz w:val="1"/>'), "smaller than a point"),
        ('<w:del w:id="1"><w:r><w:delText>secret words</w:delText></w:r></w:del>', "deleted"),
    ],
)
def test_what_nobody_sees_is_not_text_and_is_told(hidden: str, why: str) -> None:
    made = converted(paragraph(run("Seen.")), paragraph(run("Also"), hidden, run(" seen.")))
    assert made.text == "Seen.\n\nAlso seen.\n"
    assert [(flag.text, flag.place) for flag in made.hidden] == [("secret words", f"paragraph 2 ({why})")]


def test_white_text_on_a_shade_is_seen_and_so_is_what_a_style_unhides() -> None:
    shade = '<w:shd w:val="clear" w:fill="000080"/>'
    made = converted(
        paragraph(run("On blue.", '<w:color w:val="FFFFFF"/>'), properties=shade),
        paragraph(run("Marked.", '<w:color w:val="FFFFFF"/><w:highlight w:val="black"/>')),
        table(("a",), ("b",), properties='<w:tblStyle w:val="Dark"/>').replace(
            "<w:rPr></w:rPr>", '<w:rPr><w:color w:val="FFFFFF"/></w:rPr>'
        ),
        paragraph(run("Unhidden.", '<w:rStyle w:val="Ghost"/><w:vanish w:val="0"/>')),
    )
    assert made.hidden == ()
    for text in ("On blue.", "Marked.", "| a |", "Unhidden."):
        assert text in made.text


def test_inserted_text_boxes_and_formulas_are_text() -> None:
    box = paragraph(run("In the box."))
    made = converted(
        paragraph('<w:ins w:id="2">' + run("New.") + "</w:ins>"),
        paragraph(
            run("Host."),
            '<w:r><mc:AlternateContent><mc:Choice Requires="wps"><w:drawing><wps:txbx>'
            f"<w:txbxContent>{box}</w:txbxContent></wps:txbx></w:drawing></mc:Choice>"
            f"<mc:Fallback><w:pict><w:txbxContent>{box}</w:txbxContent></w:pict></mc:Fallback></mc:AlternateContent></w:r>",
        ),
        paragraph(run("So "), "<m:oMath><m:r><m:t>a=b</m:t></m:r></m:oMath>", run(" holds.")),
    )
    assert made.text == "New.\n\nHost.\n\nIn the box.\n\nSo a=b holds.\n"


def test_the_title_is_that_of_the_properties() -> None:
    assert converted(paragraph(run("x")), title="On Kilns").title == "On Kilns"
    assert converted(paragraph(run("x")), title="Document1").title == ""


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"word/document.xml": "<w:document"}, "is damaged at word/document.xml"),
        ({"word/document.xml": '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'}, "declares XML entities"),
        (
            {"word/styles.xml": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'},
            "declares XML entities",
        ),
        ({"_rels/.rels": "<a/>", "word/document.xml": "<a/>"}, "is damaged"),
        ({"word/document.xml": f'<a xmlns:w="{"&#10;x" * 999}"/>'}, "is damaged at word/document.xml"),
        ({"word/" + "x" * 500: "<a/>"}, "a file whose name has 505 characters"),
    ],
)
def test_damaged_and_hostile_parts_are_refused(parts: dict[str, str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        converted(paragraph(run("x")), parts=parts)
    assert said in caught.value.message and caught.value.hint and len(caught.value.message) < 500


def test_odd_values_do_no_harm() -> None:
    wide = table(("a", "b"), ("c", "d")).replace("<w:tcPr/>", '<w:tcPr><w:gridSpan w:val="99999999999"/></w:tcPr>', 1)
    wide = wide.replace("<w:tcPr/>", '<w:tcPr><w:gridSpan w:val="x"/></w:tcPr>', 1)
    made = converted(
        wide,
        paragraph(
            '<w:r><w:sym w:font="x" w:char="zz"/></w:r>',
            run("Text."),
            '<w:hyperlink r:id="none">' + run(" Link.") + "</w:hyperlink>",
        ),
        paragraph(run("Styled."), style="none"),
    )
    assert "Text. Link." in made.text and "Styled." in made.text


def test_another_archive_is_no_word_file() -> None:
    from office_writer import write_zip

    with pytest.raises(InputError, match="no Word file"):
        read(write_zip({"a.txt": "x"}), "x.docx")


def test_a_flood_of_references_to_notes_is_refused() -> None:
    reference = '<w:r><w:footnoteReference w:id="2"/></w:r>'
    note = '<w:footnote w:id="2"><w:p><w:r><w:t>A note.</w:t></w:r></w:p></w:footnote>'
    with pytest.raises(InputError, match="refers to notes more than 5000 times"):
        read(write_docx(f"<w:p>{reference * 5_001}</w:p>", notes=note), "x.docx")
