"""YAML trees: text as written, lines, and input that is broken or meant to hurt."""

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
    path.write_bytes(b"a: b\nc: caf\xe9\n")
    with pytest.raises(InputError, match="is not UTF-8 text") as error:
        load(path, "qna.yaml", [])
    assert error.value.where == "qna.yaml:2"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: [1\nc: 2\n", 3, "`[` is opened and not closed (begun at line 2)"),
        ("a: 1\nb: c: d\n", 2, "a `: ` stands where none can be"),
        ("a:\n\t- b\n", 2, "a tab stands in the indentation"),
        ("a: 1\n b: 2\n", 2, "`: ` stands where none can be"),
        ("a:\n  - b\n c: d\n", 3, "indentation"),
        ('a: "b\nc: d\n', 2, "a quotation mark is opened and never closed"),
        ("a: @b\n", 1, "may not begin with `@`"),
        ("a: `b`\n", 1, "may not begin with ``"),
        ("a: b\nc\n", 2, "neither a `key: value`"),
        ("a: b\n\x07: d\n", 2, "control character"),
        ("é: b\né\x07: d\n", 2, "control character"),
        ("a: *b\n", 1, "refers to nothing above it"),
        ("a: &x [*x]\n", 1, "refers to nothing above it"),
        ("a: b\n---\nc: d\n", 2, "a second YAML document"),
        ("a: !!python/object/apply:os.system [x]\n", 1, "tag"),
        ("a: !mine x\n", 1, "tag"),
        ("? [a, b]\n: c\n", 1, "a key must be a word"),
    ],
)
def test_what_yaml_cannot_read_is_told_in_plain_words(text: str, line: int, words: str) -> None:
    told = error_of(text)
    assert told.startswith(f"qna.yaml:{line}: ")
    assert words in told


def test_duplicate_keys_are_told_and_the_reading_goes_on() -> None:
    problems: list[InputError] = []
    node = compose("a: 1\nb: 2\na: 3\nc: {d: 1, d: 2}\n", "qna.yaml", problems)
    assert [problem.where for problem in problems] == ["qna.yaml:3", "qna.yaml:4"]
    assert "first at line 1" in problems[0].message
    assert plain(node) == {"a": "1", "b": "2", "c": {"d": "1"}}  # type: ignore[arg-type]


def test_empty_files_have_no_tree() -> None:
    for text in ("", "\n", "---\n", "# only a comment\n"):
        assert tree(text) is None


def test_aliases_are_followed_within_limits() -> None:
    assert plain(tree("a: &x {k: v}\nb: *x\n")) == {"a": {"k": "v"}, "b": {"k": "v"}}  # type: ignore[arg-type]
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    assert "aliases expanded" in error_of(bomb)
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
        assert error.where.startswith("qna.yaml:") and int(error.where.split(":")[1]) >= 1


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
