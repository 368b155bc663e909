"""``ilab taxonomy fix``: what is put right, what is left alone, and that no text changes."""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ilab.cli.app import Options
from ilab.cli.taxonomy_edit import fix
from ilab.errors import InputError
from ilab.taxonomy.check import plain
from ilab.taxonomy.fix import Fixed, apply, fix_text, plan_fixes
from ilab.taxonomy.read import read_taxonomy
from ilab.taxonomy.yamlnodes import MAX_BYTES, compose, decode

LEAF = """# Skills that nobody needs
version: 3
created_by: t   # who
task_description: >
  Counts things,
  and names them.

seed_examples:
  - question: 'How many
      are there?'
    answer: |
      There are:

      * one
      * two
  - question: "What is \\
      a thing?"
    answer: &thing Something.
  - question: And what else?
    answer: *thing
"""


def fixed(text: str) -> str:
    """The text after fixing, which succeeds, and which changes nothing when done again."""
    done = fix_text(text.encode(), "qna.yaml")
    assert done.problem is None
    assert bool(done.changes) == (done.text != text.encode())
    assert fix_text(done.text, "qna.yaml") == Fixed(done.text)
    return done.text.decode()


def values(text: str) -> object:
    node = compose(text, "qna.yaml", [])
    return plain(node) if node is not None else None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a: b  \nc: d\t\n", "a: b\nc: d\n"),
        ("a: b", "a: b\n"),
        ("\n\na: b\n\n\n", "a: b\n"),
        ("a: b\n\n\n\n\n# c\n\n\nd: e\n", "a: b\n\n\n# c\n\n\nd: e\n"),
        ("a: b\r\nc: d\re: f\n", "a: b\nc: d\ne: f\n"),
        ("\ufeffa: b\n", "a: b\n"),
        ("\ufeff\n \n\ufeffa: b\n", "a: b\n"),
        ("\n\ufeff", ""),
        ("a: |\n  b  \n   \n  c\n \nd: e\n", "a: |\n  b\n\n  c\n\nd: e\n"),
        ("a: >\n  b  \n  c\n", "a: >\n  b\n  c\n"),
        ("a: 'b \n\n\n\n\n  '\n", "a: 'b\n\n\n  '\n"),  # after the text, blank lines say nothing
        ("a: |\n  b\n\n\n\n\nc: d\n", "a: |\n  b\n\n\nc: d\n"),
    ],
)
def test_formatting(before: str, after: str) -> None:
    assert fixed(before) == after


@pytest.mark.parametrize(
    "text",
    [
        LEAF,
        "a: |\n  b\n\n\n\n\n  c\n",  # blank lines inside a text are part of it
        'a: "b\\ \n  c"\n',  # so is a blank behind a backslash
        "# nothing but a comment\n",
        "",
    ],
)
def test_good_form_stays(text: str) -> None:
    assert fixed(text) == text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_becomes_utf8(encoding: str) -> None:
    done = fix_text("a: Größe\n".encode(encoding), "qna.yaml")
    assert (done.text.decode(), done.changes[0].what) == ("a: Größe\n", "saved as UTF-8 instead of UTF-16")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("What: is it?", "What: is it?"),
        ("@home", "@home"),
        ("`ls` lists", "`ls` lists"),
        ("%d", "%d"),
        ("& so on", "& so on"),
        ("*very* good", "*very* good"),
        ("**very** good", "**very** good"),
        ("!important", "!important"),
        ("| a | b |", "| a | b |"),
        ("> 5", "> 5"),
        ("{name} is a slot", "{name} is a slot"),
        ("{{ name }} is a slot", "{{ name }} is a slot"),
        ("[1] says so: yes", "[1] says so: yes"),
        ("- no", "- no"),
        ('"Yes" is an answer', '"Yes" is an answer'),
        ('"Yes" and "no"', '"Yes" and "no"'),
        ('"He said "no" to it"', 'He said "no" to it'),
        ("'It's fine'", "It's fine"),
        ("'tis the season", "'tis the season"),
        ("a: b # a remark", "a: b"),
    ],
)
def test_values_that_need_quotes(value: str, text: str) -> None:
    before = f"version: 3\nitems:\n  - question: {value}\n    answer: it's fine\n"
    with pytest.raises(InputError):
        compose(before, "qna.yaml", [])
    after = fixed(before)
    assert values(after) == {"version": "3", "items": [{"question": text, "answer": "it's fine"}]}
    assert after.count("\n") == 4
    assert ("# a remark" in after) == ("# a remark" in value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a: What\n  is: it?\nb: c\n", {"a": "What is: it?", "b": "c"}),
        ("a: > The first\n  and the second\n", {"a": "The first and the second"}),
        ("a: | The first\n  and the second\n", {"a": "The first\nand the second"}),
        ("a: | x | y |\n  | 1 | 2 |\n", {"a": "| x | y |\n| 1 | 2 |"}),
        ("a: Take:\n  - one\n  - two\n", {"a": "Take:\n- one\n- two"}),
        ("a: We are #1\n  of all\nb: c\n", {"a": "We are #1 of all", "b": "c"}),
        ("a:\n\tb: c\n", {"a": {"b": "c"}}),
        ("a:\n\t- b: c\n\t  d: |\n\t\tone\n\t\t\ttwo\n", {"a": [{"b": "c", "d": "one\n    two"}]}),
        ("-\ta: b\n", [{"a": "b"}]),
        ("a: |\n  one\n  \ttwo\n\tthree: x\n", {"a": "one\n\ttwo\nthree: x"}),
        ("patterns:\n  - *.md\n  - docs/*.md\n", {"patterns": ["*.md", "docs/*.md"]}),
    ],
)
def test_what_stops_the_parser(before: str, after: object) -> None:
    assert values(fixed(before)) == after


def test_many_mends_in_one_file_each_with_its_line() -> None:
    text = "- question: a: b\n  answer: | x\n    y\n- question: @c\n  answer: 'd's'\n\n"
    done = fix_text(text.encode(), "qna.yaml")
    assert values(done.text.decode()) == [{"question": "a: b", "answer": "x\ny"}, {"question": "@c", "answer": "d's"}]
    assert [change.line for change in done.changes] == [1, 2, 4, 5, 7]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("question: What: is\n    answer: it\n", 1),  # wrongly indented, not part of the question
        ("a: b\nc\nd: e\n", 2),
        ("options: [a, b\nc: d\n", 2),
        ("a: [b\nc: d\n", 2),
        ("patterns: *.md\n", 1),  # a list is wanted here
        ("a: b\x00c\n", 1),
        ("a: b\n---\nc: d\n", 2),
        ('a: "\\d "b" \\e"\n', 1),
    ],
)
def test_what_is_not_evident_is_left_alone_and_told(text: str, where: int) -> None:
    done = fix_text(text.encode(), "k/qna.yaml")
    assert done.text == text.encode()
    assert done.changes == ()
    assert done.problem is not None
    assert done.problem.where.startswith(f"k/qna.yaml:{where}")
    assert done.problem.hint


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("question: Are we #1 or #2?", "Are we #1 or #2?"),
        ("answer: #1", "#1"),
        ("question: Are we # one?", "Are we"),
        ("question: Why?  #because", "Why?"),  # two blanks set a comment off
        ("question: Why? #TODO reword", "Why?"),
        ("created_by: me #1", "me"),  # no text of the leaf
    ],
)
def test_a_text_that_would_be_cut(line: str, text: str) -> None:
    before = f"a:\n  - {line}\n    b: c\n"
    after = fixed(before)
    assert values(after) == {"a": [{line.partition(":")[0]: text, "b": "c"}]}
    assert ("cut" in str(fix_text(before.encode(), "q").changes)) == (after != before)


BOMBS = {
    "laughs": "a: &a [x]\n"
    + "".join(f"{c}: &{c} [{', '.join(['*' + p] * 20)}]\n" for p, c in zip("bcdef", "abcde", strict=True)),
    "depth": "- " * 100_000,
    "brackets": "a: [\n" * 50_000,
    "quotes": "- q: 'x\n" * 20_000,
    "mends": "- q: a: b\n" * 20_000,
    "tabs": "a:\n" + "\t\tb: 'c\n- d\n" * 10_000,
    "size": "a" * 5_000_000,
    "not text": "\udc80\udcff",
}


@pytest.mark.parametrize("name", BOMBS)
def test_hostile_files_are_left_alone(name: str) -> None:
    data = BOMBS[name].encode("utf-8", "surrogateescape")
    done = fix_text(data, "qna.yaml")
    assert done.text == data
    assert done.problem is not None


SNIPPETS = ["\t", "  ", "\n", "\r\n", "\r", " #1", ": ", "'", '"', "|", ">", "- ", "{", "[", "]", "&a ", "*thing"]
SNIPPETS += ["!t ", "%", "@", "`", "\x85", "\u2028", "\\", "\ufeff", "\x00", "---\n", "? ", " \n", "\n\n\n\n"]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = LEAF
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(text)))
        text = (
            text[:at]
            + draw(st.sampled_from(SNIPPETS))
            + text[at + draw(st.integers(0, 12)) * draw(st.integers(0, 1)) :]
        )
    return text


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_texts_stay_and_fixing_twice_changes_nothing(text: str) -> None:
    data = text.encode()
    try:
        before = values(decode(data, "qna.yaml"))
        readable = True
    except InputError:
        readable = False
    done = fix_text(data, "qna.yaml")
    if done.problem is not None:
        assert not readable
        assert done.text == data
        return
    after = values(done.text.decode())
    if readable and "cut at" not in str(done.changes):
        assert repr(after).split() == repr(before).replace("\\t", " ").split() or words(after) == words(before)
    assert fix_text(done.text, "qna.yaml") == Fixed(done.text)


def words(tree: object) -> list[str]:
    """All that a tree holds, but for blanks."""
    return repr(tree).replace("\\n", " ").replace("\\t", " ").split()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a taxonomy with one leaf in good form and one that needs fixing."""
    monkeypatch.chdir(tmp_path)
    for name, text in {"good": LEAF, "bad": LEAF.replace("\n", "\r\n").replace("who", "who  ")}.items():
        (tmp_path / "compositional_skills" / name).mkdir(parents=True)
        (tmp_path / "compositional_skills" / name / "qna.yaml").write_bytes(text.encode())
    return tmp_path


def run(*arguments: str, as_json: bool = False) -> Result:
    done = CliRunner().invoke(fix, list(arguments), obj=Options(Path(), (), None, as_json=as_json, verbose=False))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_command(tree: Path) -> None:
    bad = tree / "compositional_skills/bad/qna.yaml"
    before = bad.read_bytes()
    for option in ("--check", "--diff"):
        done = run(option)
        assert done.exit_code == (2 if option == "--check" else 0)
        assert done.output.endswith("1 file would be fixed, 1 in order. Next: ilab taxonomy fix\n")
        assert bad.read_bytes() == before
    assert "+++ b/compositional_skills/bad/qna.yaml" in run("--diff").output
    done = run("compositional_skills/bad")
    assert done.exit_code == 0
    assert "compositional_skills/bad/qna.yaml:1: ended 20 line(s) with LF alone\n" in done.output
    assert done.output.endswith("1 file fixed, 0 in order. Next: ilab taxonomy check compositional_skills/bad\n")
    assert bad.read_text() == LEAF
    assert run("--check").exit_code == 0


def test_one_bad_file_does_not_keep_others_from_being_fixed(tree: Path) -> None:
    (tree / "compositional_skills/good/qna.yaml").write_text("a: [b\n")
    done = run(as_json=True)
    assert done.exit_code == 2
    facts = json.loads(done.output)
    bad, good = facts["files"]
    assert (bad["file"], bad["errors"]) == ("compositional_skills/bad/qna.yaml", [])
    assert good["errors"][0]["line"] == 1
    assert facts["written"]
    assert (tree / "compositional_skills/bad/qna.yaml").read_text() == LEAF


@pytest.mark.parametrize(("old", "new"), [("qna.yml", "qna.yaml"), ("QNA.yaml", "qna.yaml"), ("Eval.YML", "eval.yaml")])
def test_rename(tree: Path, old: str, new: str) -> None:
    folder = tree / "compositional_skills/other"
    folder.mkdir()
    (folder / old).write_text("a: b \n")
    assert run("--check").exit_code == 2
    assert [path.name for path in folder.iterdir()] == [old]
    done = run()
    assert f"other/{old}: renamed to {new}\n" in done.output
    assert [path.name for path in folder.iterdir()] == [new]
    assert (folder / new).read_text() == "a: b\n"


@pytest.mark.parametrize("names", [("qna.yaml", "QNA.yaml"), ("qna.yml", "Qna.yaml")])
def test_rename_overwrites_nothing(tree: Path, names: tuple[str, str]) -> None:
    folder = tree / "compositional_skills/other"
    folder.mkdir()
    for name in names:
        (folder / name).write_text(f"a: {name}\n")
    done = run()
    assert done.exit_code == 2
    assert "stands beside it" in done.output
    assert {path.name: path.read_text() for path in folder.iterdir()} == {name: f"a: {name}\n" for name in names}


def test_mode_is_kept_and_links_stay(tree: Path) -> None:
    bad = tree / "compositional_skills/bad/qna.yaml"
    bad.chmod(0o640)
    link = tree / "compositional_skills/link"
    link.mkdir()
    (link / "qna.yaml").symlink_to(bad)
    run()
    assert stat.S_IMODE(bad.stat().st_mode) == 0o640
    assert (link / "qna.yaml").is_symlink()
    assert bad.read_text() == LEAF


def test_links_out_of_the_taxonomy_are_not_followed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "qna.yaml"
    outside.write_text("a: b \n")
    leaf = tree / "compositional_skills/leaf"
    leaf.mkdir()
    (leaf / "qna.yaml").symlink_to(outside)
    (tree / "compositional_skills/folder").symlink_to(outside.parent)
    done = run()
    assert done.exit_code == 2
    assert "compositional_skills/leaf/qna.yaml" in done.output
    assert "is a link that leaves the taxonomy" in done.output
    assert "compositional_skills/folder" not in done.output
    assert outside.read_text() == "a: b \n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_may_not_be_written_is_told(tree: Path) -> None:
    bad = tree / "compositional_skills/bad/qna.yaml"
    bad.chmod(0o444)
    done = run()
    assert done.exit_code == 2
    assert "may not be written" in done.output
    assert b"\r\n" in bad.read_bytes()


def test_no_taxonomy_and_wrong_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no qna.yaml below"):
        list(plan_fixes(tmp_path))
    with pytest.raises(InputError, match="no such file"):
        list(plan_fixes(tmp_path / "qna.yaml"))
    (tmp_path / "readme.md").write_text("x \n")
    with pytest.raises(InputError, match=r"is named qna\.yaml or eval\.yaml"):
        list(plan_fixes(tmp_path / "readme.md"))


def public_files(root: Path) -> Iterator[Path]:
    return (
        path
        for top in ("knowledge", "compositional_skills", "foundational_skills")
        for path in (root / top).rglob("qna.yaml")
    )


def test_the_public_taxonomy_says_the_same_however_it_is_formatted(shared: Path, tmp_path: Path) -> None:
    root = tmp_path / "taxonomy"
    shutil.copytree(shared / "data" / "instructlab-taxonomy", root)
    digests = {leaf.path: leaf.digest for leaf in read_taxonomy(root).leaves}
    plans = [plan for plan in plan_fixes(root) if plan.needed]
    assert [plan.source.name for plan in plans] == ["foundational_skills/reasoning/logical_reasoning/general/qna.yaml"]
    for path in public_files(root):
        path.write_bytes(b"\xef\xbb\xbf\n" + path.read_bytes().replace(b"\n", b"\r\n").rstrip() + b"\r\n\r\n")
    plans = list(plan_fixes(root))
    assert len(plans) == len(digests) == 16
    for plan in plans:
        assert plan.fixed.problem is None
        apply(plan)
    assert {leaf.path: leaf.digest for leaf in read_taxonomy(root).leaves} == digests
    for path in public_files(root):
        text = path.read_bytes()
        assert not any(wrong in text for wrong in (b"\r", b" \n", b"\t\n", b"\n\n\n\n", b"\xef\xbb\xbf")), path
        assert text[:1] != b"\n"
        assert text.endswith(b"\n")
        assert not text.endswith(b"\n\n")


@pytest.mark.parametrize("data", [b"\xff\xfe\xff\xfe", b"\xef\xbb\xbf\xef\xbb\xbfa: b\n", b"\xff\xfe\xff\xfea\x00"])
def test_two_byte_order_marks_go_at_once(data: bytes) -> None:
    once = fix_text(data, "qna.yaml")
    again = fix_text(once.text, "qna.yaml")
    assert again.text == once.text
    assert not again.changes
    assert not once.text.startswith(b"\xef\xbb\xbf")


def test_a_file_of_just_the_size_that_is_read_does_not_grow_over_it() -> None:
    data = b"a: " + b"x" * (MAX_BYTES - 3)
    assert fix_text(data, "qna.yaml").text == data
    assert fix_text(data[:-1], "qna.yaml").text == data[:-1] + b"\n"
