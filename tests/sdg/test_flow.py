"""Flow files are checked wholly before the first call."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ilab.errors import InputError, InputErrors
from ilab.sdg.flow import FILES, SHIPPED, load_flow

GOOD = """\
name: mine   # a comment
version: 1
branches:
  pairs:
    input: chunk
    blocks:
      - type: repeat
        times: 2 x scale
      - type: llm
        name: write
        prompt: ask.txt
        tags: {question: QUESTION, answer: ANSWER}
"""


def write(folder: Path, flow: str = GOOD, prompt: str = "Ask about {{ document }}") -> Path:
    (folder / "knowledge.yaml").write_text(flow)
    (folder / "ask.txt").write_text(prompt)
    return folder


@pytest.mark.parametrize(("name", "asks"), [("simple", True), ("extractive", False)])
def test_shipped_flows_load_for_all_kinds(name: str, asks: bool) -> None:
    flow = load_flow(name)
    assert set(flow.flows) == set(FILES)
    assert flow.name == name
    assert flow.calls_teacher is asks


def test_the_digest_is_what_a_flow_does(tmp_path: Path) -> None:
    one = load_flow(write(tmp_path)).digest
    (tmp_path / "other").mkdir()
    moved = write(tmp_path / "other", GOOD.replace("# a comment", "").replace("ask.txt", "renamed.txt"))
    (moved / "ask.txt").rename(moved / "renamed.txt")
    assert load_flow(moved).digest == one
    changed = {
        load_flow(write(tmp_path, prompt="Ask of {{ document }}")).digest,
        load_flow(write(tmp_path, GOOD.replace("2 x scale", "3 x scale"))).digest,
        load_flow(write(tmp_path, GOOD.replace("version: 1", "version: 2"))).digest,
        load_flow(write(tmp_path, GOOD.replace("ANSWER}", "REPLY}"))).digest,
    }
    assert len(changed | {one}) == 5


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("type: repeat", "type: repaet", 7, "did you mean 'repeat'"),
        ("times: 2", "time: 2", 8, "times"),
        ("2 x scale", "many", 8, "a count is"),
        ("input: chunk", "input: chunks", 5, "'chunk'"),
        ("prompt: ask.txt", "prompt: none.txt", 11, "cannot be read"),
        ("prompt: ask.txt", "prompt: ../../etc/passwd", 11, "outside the flow's folder"),
        ("prompt: ask.txt", "prompt: /etc/passwd", 11, "outside the flow's folder"),
        ("answer: ANSWER", "reply: ANSWER", 4, "without a column 'answer'"),
        ("answer: ANSWER", "answer: question", 9, "same tag"),
        ("name: write", "name: repeat", 9, "two blocks are called 'repeat'"),
        ("        prompt: ask.txt\n", "", 9, "'prompt' is missing"),
        ("version: 1", "version: one", 2, "version"),
        ("version: 1", "version: 1\nbranch: x", 3, "branches"),
        ("input: chunk", "input: leaf", 9, "needs the column 'document'"),
        ("name: mine", "name: [mine", 2, "not YAML"),
    ],
)
def test_mistakes_are_told_with_file_line_and_what_is_meant(
    tmp_path: Path, old: str, new: str, line: int, said: str
) -> None:
    write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_flow(tmp_path)
    assert said in str(caught.value)
    assert caught.value.where == f"{tmp_path / 'knowledge.yaml'}:{line}"


def test_prompts_are_checked_against_the_columns_there(tmp_path: Path) -> None:
    write(tmp_path, prompt="{{ documnet }}")
    with pytest.raises(InputError) as caught:
        load_flow(tmp_path)
    assert "needs the column 'documnet'" in caught.value.message
    assert "did you mean 'document'" in caught.value.hint
    write(tmp_path, prompt="{% if %}")
    with pytest.raises(InputError, match="template cannot be read"):
        load_flow(tmp_path)


def test_folders_that_are_no_flow(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_flow("simpel")
    assert "did you mean 'simple'" in caught.value.hint
    with pytest.raises(InputError, match="holds no flow"):
        load_flow(tmp_path)
    write(tmp_path)
    shutil.copy(SHIPPED / "extractive" / "freeform_skills.yaml", tmp_path)
    with pytest.raises(InputError, match="different names: extractive, mine"):
        load_flow(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "flow"
    folder.mkdir()
    write(folder)
    (folder / "ask.txt").unlink()
    (folder / "ask.txt").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="outside"):
        load_flow(folder)


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    broken = GOOD.replace("2 x scale", "many").replace("tags: {", "tag: {").replace("prompt: ask.txt", "temperature: 3")
    write(tmp_path, broken)
    skills = GOOD.replace("chunk", "leaf").replace("ask.txt", "gone.txt")
    (tmp_path / "freeform_skills.yaml").write_text(skills)
    with pytest.raises(InputErrors) as caught:
        load_flow(tmp_path)
    told = [(error.where.rpartition("/")[2], error.message.split(":")[0]) for error in caught.value.errors]
    assert told == [
        ("knowledge.yaml:8", "times"),
        ("knowledge.yaml:9", "the field 'prompt' is missing"),
        ("knowledge.yaml:11", "temperature"),
        ("knowledge.yaml:12", "unknown field 'tag'"),
        ("freeform_skills.yaml:11", "the file 'gone.txt' cannot be read"),
    ]


def test_every_missing_column_is_told_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace("tags: {question: QUESTION, answer: ANSWER}", "output: answer")
        + """\
      - type: expression
        columns: {question: "{{ a }} {{ b }}"}
      - type: drop
        columns: [document]
      - type: combine
        columns: [a, document]
        output: answer
"""
    )
    with pytest.raises(InputErrors) as caught:
        load_flow(write(tmp_path, text))
    said = [error.message for error in caught.value.errors]
    assert said == [
        "block 'expression' needs the column 'a', which is not there yet",
        "block 'expression' needs the column 'b', which is not there yet",
        "block 'combine' needs the column 'document', which is not there yet",
    ]


def test_files_of_a_mapping_are_read(tmp_path: Path) -> None:
    block = """\
      - type: conditional-llm
        name: more
        column: domain
        prompts: {lamps: ask.txt, towers: tower.txt}
        tags: {question: QUESTION, answer: ANSWER}
"""
    (tmp_path / "tower.txt").write_text("Of {{ question }}")
    flow = load_flow(write(tmp_path, GOOD + block))
    [*_, more] = flow.flows["knowledge"].branches[0].blocks
    assert more.model_dump()["prompts"] == {"lamps": "Ask about {{ document }}", "towers": "Of {{ question }}"}
    assert more.own_text() == len("Ask about {{ document }}")
    with pytest.raises(InputError) as caught:
        load_flow(write(tmp_path, GOOD + block.replace("tower.txt", "../up.txt")))
    assert "outside the flow's folder" in caught.value.message
