"""Recipes in instructlab-sdg's form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ilab.core.step import Found
from ilab.errors import InputError, InputErrors
from ilab.sdg.recipe import Recipe, find_recipe, found_recipe, read_recipe


def dataset(path: Path, rows: int, name: str = "r") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ({"prompt": f"{name} {n}?", "completion": str(n), "id": f"{name}{n}"} for n in range(rows))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def recipe(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_an_upstream_recipe_is_taken_as_it_is(tmp_path: Path) -> None:
    absolute = dataset(tmp_path / "elsewhere" / "b.jsonl", 10, "b")
    dataset(tmp_path / "recipes" / "data" / "a.jsonl", 8, "a")
    path = recipe(
        tmp_path / "recipes" / "skills.yaml",
        "datasets:\n"
        "  - path: data/a.jsonl\n    sampling_size: 0.5\n"
        f"  - path: {absolute}\n    sampling_size: 15\n"
        "metadata:\n  sys_prompt: I am new.\n",
    )
    found = read_recipe(path)
    rows = list(found.rows(1))
    assert found.count == len(rows) == 4 + 15
    assert len({row.id for row in rows}) == 19
    assert {row.messages[0].content for row in rows} == {"I am new."}
    told = list(found.told().values())
    assert [(one["found"], one["rows"], one["repeated"]) for one in told] == [(8, 4, 0), (10, 15, 5)]
    assert found.notes() == ["b.jsonl has 10 rows and the recipe asks for 15: some are seen again"]


def test_what_upstream_leaves_empty_may_be_empty(tmp_path: Path) -> None:
    for number, text in enumerate(("datasets:\nmetadata:\n", "datasets: []\n", "metadata: {sys_prompt: x}\n")):
        found = read_recipe(recipe(tmp_path / f"{number}.yaml", text))
        assert (found.count, list(found.rows(1))) == (0, [])
    dataset(tmp_path / "a.jsonl", 3)
    found = read_recipe(recipe(tmp_path / "all.yaml", "datasets: [{path: a.jsonl, sampling_size: 1.0}]\n"))
    assert (found.count, found.system) == (3, None)
    one = read_recipe(recipe(tmp_path / "one.yaml", "datasets: [{path: a.jsonl, sampling_size: 1}]\n"))
    assert one.count == 1  # an int is a count


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("datasets:\n  - path: a.jsonl\n    samplingsize: 1\n", 3, "samplingsize"),
        ("datasets: []\nmeta: {}\n", 2, "meta"),
        ("datasets:\n  - sampling_size: 1.0\n", 2, "path"),
        ("datasets:\n  - path: a.jsonl\n    sampling_size: -1\n", 3, "greater"),
        ("datasets:\n  - path: a.jsonl\n    sampling_size: .nan\n", 3, "sampling_size"),
        ("datasets:\n  - path: a.jsonl\n    sampling_size: 'all'\n", 3, "sampling_size"),
        ("datasets:\n  - path: a.jsonl\n    sampling_size: true\n", 3, "sampling_size"),
        ("datasets:\n  - path: gone.jsonl\n", 2, "no dataset 'gone.jsonl'"),
        ("datasets:\n  - path: a.jsonl\n  - path: b.jsonl\n", 3, "the same rows as 'a.jsonl'"),
        ("datasets: [\n", 2, "not YAML"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, line: int, told: str) -> None:
    dataset(tmp_path / "a.jsonl", 3)
    dataset(tmp_path / "b.jsonl", 3)
    path = recipe(tmp_path / "r.yaml", text)
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    errors = caught.value.errors if isinstance(caught.value, InputErrors) else [caught.value]
    assert any(error.where == f"{path}:{line}" and told in str(error) for error in errors), str(caught.value)


def test_a_list_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a recipe is a mapping"):
        read_recipe(recipe(tmp_path / "r.yaml", "- a\n"))


def test_identity_is_content_and_not_place(tmp_path: Path) -> None:
    dataset(tmp_path / "one" / "a.jsonl", 5)
    dataset(tmp_path / "two" / "other.jsonl", 5)
    recipe(tmp_path / "one" / "r.yaml", "datasets: [{path: a.jsonl, sampling_size: 2}]\n")
    recipe(tmp_path / "two" / "s.yaml", "# moved\ndatasets:\n  - {path: other.jsonl, sampling_size: 0.4}\n")
    first = find_recipe("one/r.yaml", tmp_path)
    assert find_recipe("two/s.yaml", tmp_path).digest == first.digest
    dataset(tmp_path / "one" / "a.jsonl", 6)
    changed = find_recipe("one/r.yaml", tmp_path)
    assert changed.digest != first.digest
    with pytest.raises(InputError, match="has changed since"):
        found_recipe(first.digest, changed)
    assert found_recipe(changed.digest, Found(changed.digest, "x", details=changed.details)).count == 2
    assert json.loads((changed.details or {})["notes"]) == []


def test_a_system_message_is_part_of_the_identity() -> None:
    assert Recipe(()).digest != Recipe((), "x").digest
