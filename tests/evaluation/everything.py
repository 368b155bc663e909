"""A built project of two small models, and all of evaluation that needs no server, run on it in one process.

    python tests/evaluation/everything.py PORT FOLDER …     evaluates the projects in the folders

``PORT`` is one on which somebody listens on loopback: unless it is 0, the process ends with 1 where it can be reached,
so that a test can be sure that there was no network.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

COMMANDS: dict[str, tuple[str, ...]] = {
    "leaves": (),
    "branch": ("--benchmark", "mmlu_branch", "--few-shots", "2", "--seed", "3"),
    "mmlu": ("--benchmark", "mmlu", "--model", "tuned", "--test-set", "set", "--few-shots", "2"),
    "tasks": ("--benchmark", "tasks", "--model", "tuned", "--tasks-dir", "tasks"),
    "dk_bench": (
        "--benchmark",
        "dk_bench",
        "--model",
        "tuned",
        "--input-questions",
        "q.jsonl",
        "--judge-model",
        "rule",
    ),
}


def build(folder: Path, model: Path) -> Path:
    """A project in ``folder`` whose base is ``model`` and whose chosen model has other weights."""
    import torch
    from safetensors.torch import load_file, save_file

    from ilab.core.files import write_records
    from ilab.data import Item

    shutil.copytree(model, folder / "base")
    shutil.copytree(model, folder / "tuned")
    draw = torch.Generator().manual_seed(4)
    weights = load_file(folder / "tuned" / "model.safetensors")
    moved = {name: one + 0.05 * torch.randn(one.shape, generator=draw) for name, one in sorted(weights.items())}
    save_file(moved, folder / "tuned" / "model.safetensors", {"format": "pt"})
    latest = folder / "store" / "latest"
    for step, name in (("base", "base"), ("select-phase-2", "tuned")):
        (latest / step).mkdir(parents=True)
        (latest / step / "model").symlink_to(folder / name)

    def item(number: int, leaf: str, kind: Any, split: Any = "test") -> Item:
        options = tuple(f"{number}{sign}" for sign in "wxyz")
        name = f"{leaf}/eval/{number}"
        return Item(
            id=name,
            leaf=leaf,
            split=split,
            kind=kind,
            question=f"What is {number}?",
            options=options if kind == "mcq" else (),
            gold=options[number % 4],
            cluster=name,
        )

    leaf = "knowledge/canal"
    items = [item(n, leaf, "mcq", "dev" if n > 12 else "test") for n in range(15)]
    items += [item(n, "knowledge/weir", "mcq") for n in range(20, 26)]
    items += [item(n, "skills/count", kind) for n, kind in enumerate(("exact", "exact", "free"), 30)]
    write_records(latest / "items" / "items.jsonl", items)
    rows = [
        {"question": f"Which is {n}?", "choices": ["a", "b", "c", "d"], "answer": n % 4, "subject": "law"}
        for n in range(7)
    ]
    for name, some in (("set/test", rows[:5]), ("set/dev", rows[5:])):
        (folder / f"{name}.jsonl").parent.mkdir(exist_ok=True)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    asked = [{"user_input": f"What is {n}?", "reference": str(n)} for n in range(3)]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    return folder


def evaluate_all(folder: Path) -> None:
    """Every command on the project, with a store that has never seen it; results in ``folder/out/NAME``."""
    from click.testing import CliRunner

    from ilab.cli.app import main

    def ilab(*arguments: str) -> None:
        done = CliRunner().invoke(main, ["-C", str(folder), "--store", str(folder / "store"), *arguments])
        if done.exception is not None:
            raise done.exception

    ilab("evaluate", "validate-items")
    ilab("evaluate", "export-tasks", "tasks", "--seed", "5")
    for name, arguments in COMMANDS.items():
        ilab("model", "evaluate", "--output-dir", f"out/{name}", *arguments)


def results(folder: Path) -> dict[str, bytes]:
    """All that was written, but for files named after the time."""
    files = sorted(path for path in (folder / "out").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if "results_" not in str(path)}


if __name__ == "__main__":
    if int(sys.argv[1]):
        try:
            socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5).close()
        except OSError:
            pass
        else:
            sys.exit("there is a network here")
    for one in sys.argv[2:]:
        evaluate_all(Path(one))
