"""How fast are ``ilab taxonomy check`` and ``diff`` on large taxonomies and long histories?

    python benchmarks/taxonomy.py            # a few minutes on one core
    python benchmarks/taxonomy.py --write    # also put the figures into benchmarks/taxonomy.md

The leaves are made by rule, of the sizes of InstructLab's own taxonomy: knowledge of five contexts of some 150 words
with three pairs each, and skills of five to eight pairs; no two texts are alike. Every command runs in a process of
its own, and beside it a bare way that does less: for ``check`` loading the same files with libyaml (``CSafeLoader``)
and validating them with the ``jsonschema`` package, for ``diff`` git's own lists of files.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cost import HEAD, Cost, cost, ilab, python, row

LEAVES, COMMITS, CHANGED = 10_000, 10_000, 50
RESULT = Path(__file__).with_suffix(".md")
_BARE = """
import json, sys, yaml
from importlib import resources
from pathlib import Path
from jsonschema import Draft202012Validator
folder = resources.files("ilab.taxonomy").joinpath("schema")
schemas = {name: json.loads(folder.joinpath(name + ".json").read_text()) for name in ("knowledge", "skill")}
rules = {name: Draft202012Validator(schema) for name, schema in schemas.items()}
wrong = 0
for file in sorted(Path(sys.argv[1]).rglob("qna.yaml")):
    leaf = yaml.load(file.read_bytes(), yaml.CSafeLoader)
    if sys.argv[2] == "validate":
        wrong += sum(1 for _ in rules["knowledge" if "document" in leaf else "skill"].iter_errors(leaf))
print(wrong)
"""
_WORDS = """\
bren cal dor eth fal gim hol ist jor kel lum mor nar oss pel quin ral sten tor ul var wend yar zan
a al ane ar el en er eth ia in ine is on or os um
burns carries covers divides feeds follows guards holds joins lights marks opens passes turns
valley harbour bridge mill quarry market chapel ridge orchard gate tower ford
"""
_STEMS, _ENDS, _VERBS, _PLACES = (line.split() for line in _WORDS.splitlines())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--leaves", type=int, default=LEAVES)
    arguments.add_argument("--commits", type=int, default=COMMITS)
    arguments.add_argument("--write", action="store_true", help=f"put the figures into {RESULT.name}")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = "\n".join([HEAD, *measure(Path(folder), options.leaves, options.commits)])
    print(text)
    if options.write:
        RESULT.write_text(f"# `ilab taxonomy` on large taxonomies\n\nMade by `benchmarks/taxonomy.py`.\n\n{text}\n")


def measure(folder: Path, leaves: int, commits: int) -> Iterator[str]:
    """The rows of the table, one by one."""
    large = folder / "large"
    make_taxonomy(large, leaves)
    loaded = cost(python(_BARE, large, "load"))
    bare = cost(python(_BARE, large, "validate"))
    assert bare.output == "0\n", bare.output
    checked = cost(ilab("taxonomy", "check", large))
    assert f"{leaves:,} leaves" in checked.output and " 0 errors" in checked.output, checked.output[-300:]
    yield row(f"loading {leaves:,} leaves with libyaml", loaded)
    yield row(f"… and validating them with jsonschema ({size(large)})", bare)
    yield row(f"`check` of {leaves:,} leaves", checked, bare)
    commit_all(large)
    expected = change(large, CHANGED)
    yield from _rows(f"{leaves:,} leaves, {CHANGED} changed", large, "HEAD", expected)
    long = folder / "long"
    make_history(long, commits)
    yield from _rows(f"{commits:,} commits, half of them since the base", long, "main", 100)


def _rows(name: str, root: Path, base: str, expected: int) -> Iterator[str]:
    fork = git(root, "merge-base", "HEAD", base)
    bare = _sum(
        cost(["git", "diff", "--name-only", fork], root),
        cost(["git", "ls-files", "--others", "--exclude-standard"], root),
    )
    found = cost(ilab("taxonomy", "diff", "--taxonomy-base", base, "--taxonomy-path", root))
    listed = [line for line in found.output.splitlines() if line.endswith("qna.yaml")]
    assert len(listed) == expected, (len(listed), expected)
    yield row(f"git's own lists of files: {name}", bare)
    yield row(f"`diff`: {name}", found, bare)


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(one.cpu + other.cpu, one.wall + other.wall, max(one.peak, other.peak), one.output + other.output)


def make_taxonomy(root: Path, leaves: int) -> None:
    """Two of three leaves are knowledge, the others skills; all have an attribution."""
    for number in range(leaves):
        generator = random.Random(f"leaf {number}")
        kind = "compositional_skills" if number % 3 == 2 else "knowledge"
        folder = root / kind / _name(generator) / f"{_name(generator)}_{number}"
        folder.mkdir(parents=True)
        text = skill(generator) if number % 3 == 2 else knowledge(generator)
        (folder / "qna.yaml").write_text(text)
        (folder / "attribution.txt").write_text(
            f"Title of work: {_name(generator)}\nLicense of the work: CC-BY-SA-4.0\n"
        )


def knowledge(generator: random.Random) -> str:
    """A leaf of knowledge: five contexts of some 150 words with three pairs each."""
    lines = ["version: 3", f"domain: {_name(generator)}", "created_by: somebody", "seed_examples:"]
    for _ in range(5):
        sentences = [_sentence(generator) for _ in range(14)]
        lines += ["  - context: |", *(f"      {sentence}" for sentence in sentences), "    questions_and_answers:"]
        for sentence in generator.sample(sentences, 3):
            words = sentence.split()
            lines += ["      - question: |", f"          What is said of {words[2]} and {words[4]} {_name(generator)}?"]
            lines += ["        answer: |", f"          {sentence}"]
    lines += [f"document_outline: All about the {generator.choice(_PLACES)} of {_name(generator)}", "document:"]
    lines += [f"  repo: https://example.org/{_name(generator)}.git", f"  commit: c{generator.getrandbits(36):09x}"]
    return "\n".join([*lines, "  patterns:", "    - docs/*.md", ""])


def skill(generator: random.Random) -> str:
    """A skill of five to eight pairs, every other one with contexts."""
    lines = [
        "version: 3",
        "created_by: somebody",
        f"task_description: Tell of a {generator.choice(_PLACES)}, in one line.",
    ]
    lines.append("seed_examples:")
    grounded = generator.random() < 0.5
    for _ in range(generator.randint(5, 8)):
        sentence = _sentence(generator)
        lines += [f"- question: 'What can be said of {_name(generator)} and {_name(generator)}?'", "  answer: >-"]
        lines += [f"    {sentence}", f"    {_sentence(generator)}"]
        if grounded:
            lines += ["  context: |", *(f"    {_sentence(generator)}" for _ in range(3)), f"    {sentence}"]
    return "\n".join([*lines, ""])


def _sentence(generator: random.Random) -> str:
    choice, number = generator.choice, generator.randint
    return (
        f"The {choice(_PLACES)} of {_name(generator)} {choice(_VERBS)} the {_name(generator)} {choice(_PLACES)} since "
        f"{number(1100, 2020)}, {number(2, 900)} m above the {choice(_PLACES)}."
    )


def _name(generator: random.Random) -> str:
    return generator.choice(_STEMS) + generator.choice(_STEMS) + generator.choice(_ENDS)


def change(root: Path, count: int) -> int:
    """Edit, add and remove leaves; the number of those that a diff lists."""
    files = sorted(root.rglob("qna.yaml"))
    generator = random.Random("change")
    for at, file in enumerate(generator.sample(files, count)):
        if at % 5 == 4:
            file.unlink()
        elif at % 5 == 3:
            new = file.parent.parent / f"new_{at}" / "qna.yaml"
            new.parent.mkdir()
            new.write_text(file.read_text())
        else:
            file.write_text(file.read_text() + "# edited\n")
    return count - count // 5


def make_history(root: Path, commits: int) -> None:
    """Half of the commits on main, then as many on main and on a branch that is checked out; each edits one leaf.

    Git is given them as one stream (``git fast-import``). A hundred leaves differ from main's in the end.
    """
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    half = commits // 2
    with subprocess.Popen(["git", "fast-import", "--quiet"], cwd=root, stdin=subprocess.PIPE) as process:
        assert process.stdin
        for number in range(commits + half):
            branch = "main" if number < commits else "mine"
            origin = f"from :{half}\n" if number == commits else ""
            text = knowledge(random.Random(f"commit {number % 100}")) + f"# {number}\n"
            head = f"commit refs/heads/{branch}\nmark :{number + 1}\ncommitter t <t@example.org> {number} +0000\n"
            file = f"M 644 inline knowledge/a/leaf_{number % 100}/qna.yaml\ndata {len(text.encode())}\n{text}\n"
            process.stdin.write(f"{head}data 1\nx\n{origin}{file}".encode())
    assert process.returncode == 0
    git(root, "checkout", "--quiet", "mine")


def commit_all(root: Path) -> None:
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "all")


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def size(root: Path) -> str:
    total = sum(file.stat().st_size for file in root.rglob("qna.yaml"))
    return f"{total / 2**20:.0f} MiB"


if __name__ == "__main__":
    main()
