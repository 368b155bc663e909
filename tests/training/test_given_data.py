"""Data by file and folder, results as folders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ilab.core.files import read_json
from ilab.data import TrainingRow
from ilab.errors import InputError
from ilab.training.deliver import NOTE, check_target, deliver, samples_seen
from ilab.training.folders import data_file, newest, pair, phase_files
from ilab.training.rows import find_rows, rows_of, stacked

OLD, NEW = "2024-05-02T20_36_31", "2025-01-01T00_00_00"
ROW = {"user": "Q?", "assistant": "A."}


def touch(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def rows(path: Path) -> list[TrainingRow]:
    found = find_rows(str(path), Path())
    return rows_of(found.digest, found)[0]


def test_the_name_says_which_is_newest_and_not_the_file_s_time(tmp_path: Path) -> None:
    new = touch(tmp_path / "a" / f"train_m_{NEW}.jsonl")
    old = touch(tmp_path / f"train_z_{OLD}.jsonl")
    os.utime(old, (2e9, 2e9))
    assert newest(tmp_path, "train_*.jsonl") == new
    second = touch(tmp_path / "a" / f"train_m_{NEW}_2.jsonl")
    assert newest(tmp_path, "train_*.jsonl") == second
    assert newest(tmp_path, "test_*.jsonl") is None


def test_without_a_time_in_the_name_the_file_s_own_decides(tmp_path: Path) -> None:
    for number, name in enumerate(("train_b.jsonl", "train_a.jsonl")):
        os.utime(touch(tmp_path / name), (1e9 + number, 1e9 + number))
    assert newest(tmp_path, "train_*.jsonl") == tmp_path / "train_a.jsonl"
    stamped = touch(tmp_path / f"train_{OLD}.jsonl")
    assert newest(tmp_path, "train_*.jsonl") == stamped  # a name that says its time is an export


def test_the_questions_are_those_of_the_same_export(tmp_path: Path) -> None:
    train = touch(tmp_path / f"train_m_{OLD}.jsonl")
    touch(tmp_path / f"test_m_{NEW}.jsonl")
    assert pair(tmp_path) == (train, tmp_path / f"test_m_{NEW}.jsonl")
    same = touch(tmp_path / f"test_m_{OLD}.jsonl")
    assert pair(tmp_path) == (train, same)


def test_a_folder_stands_for_all_of_its_samples(tmp_path: Path) -> None:
    skills = touch(tmp_path / f"skills_train_msgs_{NEW}.jsonl")
    assert data_file(tmp_path) == skills
    with pytest.raises(InputError, match="no knowledge_train_msgs"):
        phase_files(tmp_path)
    train = touch(tmp_path / f"train_{OLD}.jsonl")
    assert data_file(tmp_path) == train
    whole = touch(tmp_path / f"messages_{OLD}.jsonl")
    assert data_file(tmp_path) == whole
    knowledge = touch(tmp_path / f"knowledge_train_msgs_{OLD}.jsonl")
    assert phase_files(tmp_path) == (knowledge, skills)
    assert data_file(skills) == skills


def test_a_folder_with_files_of_other_names(tmp_path: Path) -> None:
    touch(tmp_path / "test_1.jsonl")
    only = touch(tmp_path / "mine.jsonl")
    assert data_file(tmp_path) == only
    touch(tmp_path / "yours.jsonl")
    with pytest.raises(InputError) as caught:
        data_file(tmp_path)
    assert "mine.jsonl, test_1.jsonl, yours.jsonl" in caught.value.hint


def test_a_row_is_what_it_says_wherever_it_stands(tmp_path: Path) -> None:
    one = rows(touch(tmp_path / "a.jsonl", ROW, {"user": "R?", "assistant": "B.", "system": "S."}, ROW))
    other = rows(touch(tmp_path / "b.jsonl", {"user": "R?", "assistant": "B.", "system": "S."}, ROW, ROW))
    assert len({row.id for row in one}) == 3
    assert {row.id.split("#")[1] for row in one} == {row.id.split("#")[1] for row in other}
    assert [message.role for message in one[1].messages] == ["system", "user", "assistant"]


def test_what_is_trained_on(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]
    made = rows(touch(tmp_path / "a.jsonl", {"messages": turns, "unmask": True}, {"messages": turns}))
    assert [row.train_on for row in made] == ["all", "assistant"]
    assert made[0].id != made[1].id


def test_rows_without_an_answer_are_counted(tmp_path: Path) -> None:
    found = find_rows(str(touch(tmp_path / "a.jsonl", ROW, {"user": "Q?", "assistant": " "})), Path())
    kept, empty = rows_of(found.digest, found)
    assert (len(kept), empty) == (1, 1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "this line is not JSON"),
        ("[1]", "this row is no JSON object"),
        ('{"question": "Q?"}', "this is no row of training data"),
        ('{"user": 1, "assistant": "A."}', "`user` is no text"),
        ('{"messages": [{"role": "user", "content": "Q?"}]}', "this row is messages, the rows before it are dialogue"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path: Path, line: str, said: str) -> None:
    path = touch(tmp_path / "a.jsonl", ROW)
    path.write_text(f"{path.read_text()}\n{line}\n")
    with pytest.raises(InputError, match=said) as caught:
        find_rows(str(path), Path())
    assert caught.value.where == f"{path}:3" and caught.value.hint


def test_a_role_that_no_phase_trains_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"messages": [{"role": "critic", "content": "x"}, {"role": "assistant", "content": "y"}]}\n')
    with pytest.raises(InputError, match="message 1: there is no role 'critic'") as caught:
        find_rows(str(path), Path())
    assert caught.value.where == f"{path}:1" and "tool" in caught.value.hint


def test_a_file_that_changes_while_a_run_waits_is_refused(tmp_path: Path) -> None:
    path = touch(tmp_path / "a.jsonl", ROW)
    found = find_rows("a.jsonl", tmp_path)
    touch(path, ROW, ROW)
    with pytest.raises(InputError, match="has changed since the run began"):
        rows_of(found.digest, found)


def test_stacking_takes_each_row_once_and_no_replay(tmp_path: Path) -> None:
    made = rows(touch(tmp_path / "a.jsonl", ROW, {"user": "R?", "assistant": "B."}))
    again = made[0].model_copy(update={"id": f"replay/{made[0].id}", "source": "replay"})
    other = made[1].model_copy(update={"id": "other"})
    assert stacked({"data-2": [again, other, made[1]], "data-1": made}) == [*made, other]


def test_a_result_replaces_an_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    model = tmp_path / "model"
    touch(model / "adapter" / "a.json")
    out = deliver(model, tmp_path / "out" / "merged", {"base": "tiny"})
    touch(model / "new.json")
    deliver(model, out, {"base": "other"})
    assert read_json(out / NOTE) == {"base": "other", "files": ["adapter/a.json", "new.json"]}
    touch(out / "mine.txt")
    with pytest.raises(InputError, match=r"an earlier result and mine\.txt, which would be lost"):
        check_target(out)
    (out / "mine.txt").unlink()
    (model / "new.json").unlink()
    deliver(model, out, {"base": "other"})
    assert not (out / "new.json").exists()  # it was a file of the earlier result
    link = tmp_path / "link"
    link.symlink_to(out)
    deliver(model, link, {"base": "third"})
    assert link.is_symlink() and read_json(out / NOTE)["base"] == "third"
    (out / "adapter" / "a.json").write_text("changed")
    assert (model / "adapter" / "a.json").read_text() == ""  # a copy, not a link
    (out / NOTE).unlink()
    with pytest.raises(InputError, match="holds something else"):
        check_target(out)
    with pytest.raises(InputError, match="a model is a folder"):
        check_target(model / "adapter" / "a.json")
    assert [path.name for path in out.parent.iterdir()] == ["merged"]


def test_samples_up_to_a_step() -> None:
    assert samples_seen([{"step": 1, "samples": 4}, {"step": 2, "samples": 3}, {"step": 3, "samples": 4}], 2) == 7
