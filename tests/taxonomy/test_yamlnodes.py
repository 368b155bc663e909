"""YAML trees: text as written, places, and input that is broken or meant to hurt."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ilab.errors import InputError
from ilab.taxonomy.check import plain
from ilab.taxonomy.yamlnodes import MappingNode, Node, SequenceNode, compose, load


def tree(text: str) -> Node | None:
    problems: list[InputError] = []
    node = compose(text, "qna.yaml", problems)
    assert problems == []
    return node


def error_of(text: str) -> str:
    with pytest.raises(InputError) as error:
        compose(text, "qna.yaml", [])
    return str(error.value)


@pytest.mark.parametrize(
    "word", ["no", "Yes", "1e3", "007", "0x1F", "2024-01-01", "12:30:45", "null", "~", "1_000", "3.10", ".inf"]
)
def test_scalars_are_the_text_as_written(word: str) -> None:
    assert plain(tree(f"answer: {word}")) == {"answer": word}


def test_every_node_knows_its_line_and_column() -> None:
    node = tree("a: 1\nlist:\n  - x\n  - k: |\n      text\n")
    assert isinstance(node, MappingNode)
    entry = node.entries["list"]
    assert (entry.key.line, entry.key.column) == (2, 1)
    assert isinstance(entry.value, SequenceNode)
    inner = entry.value.items[1]
    assert (inner.line, inner.column) == (4, 5)
    assert isinstance(inner, MappingNode)
    assert (inner.entries["k"].value.line, inner.entries["k"].value.column) == (4, 8)


@pytest.mark.parametrize(
    "text",
    [
        "a: b",
        "a: b\r\n",
        "a: b   \n\n\n",
        "\ufeffa: b\n",
        "---\na: b\n...\n",
        "a:\tb\n",
        "# c\n\na: b # c\n",
        "a: b\n\t\n",
        "a: b\t\n",
        "a: b\t# c\n",
        "{a: b}",
    ],
)
def test_formatting_is_never_an_error(text: str) -> None:
    assert plain(tree(text)) == {"a": "b"}


def test_encodings(tmp_path: Path) -> None:
    path = tmp_path / "qna.yaml"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes("a: é\n".encode(encoding))
        assert plain(load(path, "qna.yaml", [])) == {"a": "é"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "at", "words"),
    [
        (b"a: b\nc: caf\xe9\n", "2:7", "is not UTF-8 text (byte 11)"),
        ("a: b\nc: ééé".encode() + b"\xff", "2:7", "is not UTF-8 text (byte 14)"),
        ("\ufeffa: é".encode() + b"\xc3", "1:5", "is not UTF-8 text (byte 8)"),
        ("a: b\nc: é".encode("utf-16") + b"\x00", "2:5", "is not UTF-16 text"),
    ],
)
def test_bytes_that_are_no_text_are_told_with_their_place(tmp_path: Path, data: bytes, at: str, words: str) -> None:
    (tmp_path / "qna.yaml").write_bytes(data)
    with pytest.raises(InputError) as error:
        load(tmp_path / "qna.yaml", "qna.yaml", [])
    assert error.value.where == f"qna.yaml:{at}"
    assert words in error.value.message


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("a: 1\nb: [1\nc: 2\n", "3:2", "a `,` or the closing `]` is missing here (begun at line 2)"),
        ("a: 1\nb: [1, 2\n", "2:4", "a `[` is opened here and never closed"),
        ("a: 1\nb: {c: 1\n\n", "2:4", "a `{` is opened here and never closed"),
        ("a: 1\nb: c: d\n", "2:5", 'a `: ` stands where none can be\n  put the text in quotes: `b: "c: d"`'),
        ('  - q: Say "x": now\n', "1:15", 'put the text in quotes: `q: "Say \\"x\\": now"`'),
        ("a:\n\t- b\n", "2:1", "a tab stands in the indentation"),
        ("a:\n  - b\n\t- c\n", "3:1", "a tab stands in the indentation"),
        ("a: |\n\tb\n", "2:1", "a tab stands in the indentation"),
        ("a: 1\n b: 2\n", "2:3", "`: ` stands where none can be"),
        ("a:\n  - b\n c: d\n", "3:2", "indentation"),
        ('a: "b\nc: d\n', "1:4", 'a `"` is opened here and never closed'),
        ("a: 'it's'\n", "1:8", "something follows the closing quotation mark"),
        ('a: "C:\\path"\n', "1:7", "`\\p` means nothing inside double quotes"),
        ("a: >b\n  c\n", "1:5", "stands alone at the end of its line"),
        ("a: @b\n", "1:4", "may not begin with `@`"),
        ("a: `b`\n", "1:4", "may not begin with ``"),
        ("a: *\n", "1:4", "may not begin with `*`"),
        ("a: b\nc\n", "2:1", "neither a `key: value`"),
        ("a: b\nc d e\nf: g\n", "2:1", "neither a `key: value`"),
        ("a: b\n\x07: d\n", "2:1", "the control character U+0007"),
        ("é: b\né\x07: d\n", "2:2", "the control character U+0007"),
        ("a: *b\n", "1:4", "refers to nothing above it"),
        ("a: &x [*x]\n", "1:8", "refers to nothing above it"),
        ("a: b\n---\nc: d\n", "2:1", "a second YAML document"),
        ("a: !!python/object/apply:os.system [x]\n", "1:4", "tag"),
        ("a: !mine x\n", "1:4", "tag"),
        ("? [a, b]\n: c\n", "1:3", "a key must be a word"),
    ],
)
def test_what_yaml_cannot_read_is_told_in_plain_words(text: str, at: str, words: str) -> None:
    told = error_of(text)
    assert told.startswith(f"qna.yaml:{at}: ")
    assert words in told


def test_lines_are_those_of_an_editor() -> None:
    """For YAML 1.1 three more characters end a line; no editor, and neither git nor GitHub, counts them."""
    node = tree("a: 'x\u2028 y'\nb: |\n  x\u0085  z\nc: '\u2029'\nd: e\n")
    assert isinstance(node, MappingNode)
    places = {key: (entry.key.line, entry.key.column) for key, entry in node.entries.items()}
    assert places == {"a": (1, 1), "b": (2, 1), "c": (4, 1), "d": (5, 1)}
    assert error_of("a: 'x\u2028 y'\nb: @\n").startswith("qna.yaml:2:4: ")
    for end in ("\n", "\r\n", "\r"):
        assert error_of(f"a: é{end}é: 日本 @{end}b: @{end}").startswith("qna.yaml:3:4: ")


def test_duplicate_keys_are_told_and_the_reading_goes_on() -> None:
    problems: list[InputError] = []
    node = compose("a: 1\nb: 2\na: 3\nc: {d: 1, d: 2}\n", "qna.yaml", problems)
    assert [problem.where for problem in problems] == ["qna.yaml:3:1", "qna.yaml:4:11"]
    assert "first at line 1" in problems[0].message
    assert plain(node) == {"a": "1", "b": "2", "c": {"d": "1"}}  # type: ignore[arg-type]


def test_empty_files_have_no_tree() -> None:
    for text in ("", "\n", "---\n", "# only a comment\n"):
        assert tree(text) is None


def test_aliases_are_followed_within_limits() -> None:
    assert plain(tree("a: &x {k: v}\nb: *x\n")) == {"a": {"k": "v"}, "b": {"k": "v"}}  # type: ignore[arg-type]
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    told = error_of(bomb)
    assert "aliases expanded" in told
    line, column = (int(number) for number in told.split(":")[1:3])
    assert bomb.splitlines()[line - 1][column - 1] == "*", "the place is the alias that is one too many"
    long = f"a: &a {'x' * 10**6}\n" + "".join(f"b{n}: *a\n" for n in range(40))
    assert "aliases expanded" in error_of(long)
    ladder = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 80))
    assert "levels deep" in error_of(ladder)


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "? " * 100_000, "[" * 51 + "]" * 51])
def test_deep_nesting_is_refused(text: str) -> None:
    assert "levels deep" in error_of(text)


def test_too_large_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "qna.yaml").write_bytes(b"a: b\n" * 10**6)
    with pytest.raises(InputError, match="at most 4 MiB"):
        load(tmp_path / "qna.yaml", "qna.yaml", [])
    with pytest.raises(InputError, match="not a regular file"):
        load(tmp_path, "qna.yaml", [])


PIECES = st.sampled_from(
    [
        "a",
        "b: ",
        "- ",
        "\n",
        "\n  ",
        "[",
        "]",
        "{",
        "}",
        ",",
        '"',
        "'",
        "|\n",
        ">",
        "&x ",
        "*x",
        "!t ",
        "\t",
        "#",
        "? ",
        "---\n",
        "%",
        "\\",
        "\0",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=8)), max_size=40).map("".join))
def test_hostile_text_gives_a_tree_or_an_input_error_with_a_line(text: str) -> None:
    try:
        compose(text, "qna.yaml", [])
    except InputError as error:
        line, column = (int(number) for number in error.where.removeprefix("qna.yaml:").split(":"))
        lines = re.split(r"\r\n|\n|\r", text)
        assert 1 <= line <= len(lines) and 1 <= column <= len(lines[line - 1]) + 1, "the place lies in the file"


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=12,
    ).filter(lambda value: value not in ("",))
)
def test_what_pyyaml_writes_is_read_back(value: object) -> None:
    """PyYAML's own representer is the reference for every way of quoting."""
    text = yaml.safe_dump(value, allow_unicode=True)
    node = tree(text)
    expected = yaml.compose(text, Loader=yaml.SafeLoader)
    assert (_texts(node) if node else []) == _reference(expected)


def _texts(node: Node) -> object:
    if isinstance(node, MappingNode):
        return {key: _texts(entry.value) for key, entry in node.entries.items()}
    return [_texts(item) for item in node.items] if isinstance(node, SequenceNode) else node.text


def _reference(node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return {key.value: _reference(value) for key, value in node.value}
    return [_reference(item) for item in node.value] if isinstance(node, yaml.SequenceNode) else node.value
