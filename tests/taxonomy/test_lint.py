"""Warnings: each fault is found at its place, and leaves that are right give none."""

import itertools
import random
import time
from pathlib import Path

import pytest
import yaml

from ilab.data import Leaf, Place
from ilab.taxonomy.layout import find_layout
from ilab.taxonomy.lint import LintWarning, _personal, lint, passed_over
from ilab.taxonomy.read import read_leaves
from ilab.taxonomy.similar import NEAR, NearCopies, words

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = ROOT.parent / "shared" / "data" / "instructlab-taxonomy"
TOWNS = ["Vellsay", "Elmsund", "Tavishall", "Harrowby", "Brakke"]
CREDIT = "Title: Towns\nLicense of the work: CC-BY-SA-4.0\n"


def seed(town: str) -> dict[str, object]:
    about = {"harbour": f"The harbour of {town} faces south.", "tower": f"Its tower has {len(town)} bells."}
    pairs = [
        {"question": f"Which way does the harbour of {town} face?", "answer": "south"},
        {"question": f"How many bells hang over {town}?", "answer": f"{len(town)} bells"},
        {"question": f"What does the {town} harbour look at?", "answer": "the south"},
    ]
    return {"context": " ".join(about.values()), "questions_and_answers": pairs}


def knowledge(root: Path, change: str = "", to: str = "", credit: str | None = CREDIT) -> list[LintWarning]:
    """The warnings about a good leaf in which ``change`` (which must stand there once or more) is replaced."""
    folder = root / "knowledge" / "towns"
    folder.mkdir(parents=True, exist_ok=True)
    leaf = {
        "version": 3,
        "created_by": "t",
        "domain": "towns",
        "document_outline": "Towns.",
        "document": {"path": "towns.md"},
        "seed_examples": [seed(town) for town in TOWNS],
    }
    text = yaml.safe_dump(leaf, sort_keys=False, width=10_000)
    assert change in text
    (folder / "qna.yaml").write_text(text.replace(change, to, 1) if change else text)
    if credit is not None:
        (folder / "attribution.txt").write_text(credit)
    return lint(read(root))


def read(root: Path) -> tuple[Leaf, ...]:
    leaves, problems = read_leaves(find_layout(root))
    assert problems == []
    return leaves


def skill(root: Path, pairs: list[dict[str, str]]) -> tuple[Leaf, ...]:
    folder = root / "compositional_skills" / "s"
    folder.mkdir(parents=True, exist_ok=True)
    leaf = {"version": 3, "created_by": "t", "task_description": "d", "seed_examples": pairs}
    (folder / "qna.yaml").write_text(yaml.safe_dump(leaf, sort_keys=False))
    (folder / "attribution.txt").write_text(CREDIT)
    return read(root)


def test_a_good_leaf_has_no_warning(tmp_path: Path) -> None:
    assert knowledge(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "to", "code", "told"),
    [
        ("answer: south", "answer: towards Norrland", "answer-not-found", "`towards Norrland`"),
        ("Which way does the harbour of Vellsay face?", "Harbour way in Vellsay", "no-question", "does not look like"),
        ("How many bells hang over Elmsund?", "How many bells hang over, Vellsay?", "near-duplicate", "line"),
        ("Its tower has 7 bells.", "Its tower has 7 bells. " + "Ding. " * 500, "long-context", "511 words"),
        ("answer: the south", f"answer: the south {'and ' * 250}", "long-pair", "259 words"),
        ("faces south.", "faces south (ask ann.lee@harbour.se).", "personal-data", "an e-mail address (`ann.…`)"),
        ("faces south.", "faces south; call +46 8 123 456 78.", "personal-data", "a telephone number (`+46 …`)"),
        (
            "faces south.",
            "faces south. DE89 3704 0044 0532 0130 00",
            "personal-data",
            "a bank account number (`DE89…`)",
        ),
    ],
)
def test_every_fault_of_the_texts(tmp_path: Path, change: str, to: str, code: str, told: str) -> None:
    if code == "near-duplicate":  # the answers must be alike, too
        knowledge(tmp_path)
        change, to = f"{change}\n    answer: 7 bells", f"{to}\n    answer: 7 bells"
    found = knowledge(tmp_path, change, to)
    assert [warning.code for warning in found] == [code]
    assert told in found[0].message
    assert found[0].hint
    lines = (tmp_path / found[0].place.file).read_text().splitlines()
    first_words = to.split("\n")[0][:30]
    spot = next(number for number, line in enumerate(lines, 1) if first_words in line)
    assert 0 <= spot - found[0].place.line <= 3, "the warning stands at the pair or seed example it is about"


@pytest.mark.parametrize(
    "harmless",
    [
        "faces south since 2024-01-15 10:30.",
        "faces south; write to harbour@example.org.",
        "faces south at 192.168.100.200 and 1-800-1.",
        "faces south. GB00 1234 5678 9012 3456 78 is no account, its check digits are wrong.",
        "faces south, 1 234 567 890 crowns, version 1.2.3-4.",
    ],
)
def test_numbers_that_are_nobodys(tmp_path: Path, harmless: str) -> None:
    assert knowledge(tmp_path, "faces south.", harmless) == []


@pytest.mark.parametrize(
    ("question", "fine"),
    [
        ("Name the way it faces.", True),
        ("Vellsay 的港口朝哪个方向？", True),
        ("Tell me where the harbour looks", True),
        ("harbour direction", False),
    ],
)
def test_what_counts_as_a_question(tmp_path: Path, question: str, fine: bool) -> None:
    found = knowledge(tmp_path, "Which way does the harbour of Vellsay face?", question)
    assert ([warning.code for warning in found] == []) is fine


@pytest.mark.parametrize("answer", ["It is facing southwards.", "Yes", "seven bells"])
def test_an_answer_in_another_form_is_found(tmp_path: Path, answer: str) -> None:
    assert knowledge(tmp_path, "answer: south", f"answer: '{answer}'") == []


def test_a_context_that_the_teachers_window_does_not_hold(tmp_path: Path) -> None:
    knowledge(tmp_path, "Its tower has 7 bells.", "Its tower has 7 bells. " + "水" * 400)
    leaves = read(tmp_path)
    size = len(leaves[0].seeds[0].context.encode()) // 4
    assert lint(leaves) == lint(leaves, window=size) == []
    (found,) = lint(leaves, window=size - 1)
    assert (found.code, found.place) == ("long-context", leaves[0].seeds[0].place)
    assert found.message == f"the context has about {size} tokens; the teacher's window holds {size - 1}"


def test_contexts_in_some_examples_of_a_skill_only(tmp_path: Path) -> None:
    pairs = [{"question": f"Spell {town}.", "answer": " ".join(town)} for town in TOWNS]
    assert lint(skill(tmp_path, pairs)) == []
    assert lint(skill(tmp_path, [pair | {"context": f"{pair['answer']} lies far off."} for pair in pairs])) == []
    (found,) = lint(
        skill(tmp_path, [pair | {"context": "A town."} if at > 1 else pair for at, pair in enumerate(pairs)])
    )
    assert (found.code, found.place.line) == ("mixed-contexts", 5)
    assert found.message == "has no context, as 2 of the 5 seed examples"


def test_attribution_and_its_licence(tmp_path: Path) -> None:
    assert [(w.code, w.place.line) for w in knowledge(tmp_path, credit=None)] == [("no-attribution", 1)]
    assert [w.code for w in knowledge(tmp_path, credit="Title: Towns\n")] == ["no-licence"]
    assert knowledge(tmp_path, credit="Public domain\n") == []
    unfilled = "Title of work:\nLicense of the work:\nCreator names:\n"  # the form of `ilab taxonomy new`
    assert [w.code for w in knowledge(tmp_path, credit=unfilled)] == ["no-licence"]
    assert knowledge(tmp_path, credit=unfilled.replace("work:\nC", "work: CC-BY-4.0\nC")) == []


def test_near_copies_among_skills_count_their_context(tmp_path: Path) -> None:
    same = {"question": "Shorten this text to one line.", "answer": "One line."}
    contexts = [f"{town} {' '.join(random.Random(town).choices(TOWNS, k=9))} {n} {n}x" for n, town in enumerate(TOWNS)]
    assert lint(skill(tmp_path, [{**same, "context": context} for context in contexts])) == []
    shouted = [{**same, "context": context} for context in [*contexts[:4], contexts[0].upper() + "!"]]
    found = lint(skill(tmp_path, shouted))
    assert [(warning.code, warning.message) for warning in found] == [
        ("near-duplicate", "says nearly the same as the example at line 5")
    ]


def test_a_held_out_question_that_is_taught(tmp_path: Path) -> None:
    knowledge(tmp_path)
    held = tmp_path / "knowledge" / "towns" / "eval.yaml"

    def leaks(question: str, context: str = "") -> list[str]:
        item = {"split": "test", "question": question, "answer": "south", **({"context": context} if context else {})}
        held.write_text(yaml.safe_dump({"version": 1, "items": [item]}))
        return [warning.message for warning in lint(read(tmp_path)) if warning.code == "leak"]

    assert leaks("Where is the sea?") == []
    assert leaks("which way does the harbour of  Vellsay face") == [
        "the question is held out in the eval.yaml of this leaf"
    ]
    assert len(leaks("Oh, which way does the harbour of Vellsay face?")) == 1, "nearly the same is the same"
    skill(tmp_path, [{"question": f"Spell {town}.", "answer": " ".join(town)} for town in TOWNS])
    assert leaks("Spell Brakke.") == ["the question is held out in the eval.yaml of knowledge/towns"]
    assert leaks("Oh please, spell Brakke.") == []
    skill(tmp_path, [{"question": "Sum up.", "answer": town, "context": f"{town} lies far off."} for town in TOWNS])
    assert leaks("Sum up.", "Something else.") == []
    assert len(leaks("Sum up.", "Brakke lies far off!")) == 1


def test_a_document_pattern_that_fits_nothing(tmp_path: Path) -> None:
    knowledge(tmp_path)
    leaves = read(tmp_path)
    assert lint(leaves, {"knowledge/towns": {"towns.md": ["knowledge/towns/towns.md"]}}) == []
    found = lint(leaves, {"knowledge/towns": {"towns.md": []}})
    assert [(warning.code, warning.message) for warning in found] == [("no-document", "`towns.md` fits no file")]
    assert "path: towns.md" in (tmp_path / found[0].place.file).read_text().splitlines()[found[0].place.line - 1]


def test_files_passed_over_become_warnings(tmp_path: Path) -> None:
    knowledge(tmp_path)
    (tmp_path / "knowledge" / "b: c").mkdir()
    (tmp_path / "knowledge" / "b: c" / "qna.yml").write_text("")
    found = passed_over(find_layout(tmp_path).warnings)
    assert [(warning.place.file, warning.message) for warning in found] == [
        ("knowledge/b: c/qna.yml", "must be named qna.yaml, not read")
    ]


def test_near_copies_are_those_that_a_full_comparison_finds() -> None:
    """Against the plain definition, on sets small enough to compare all with all."""
    chance = random.Random(5)
    texts = []
    for _ in range(150):
        base = chance.sample(range(60), chance.randint(1, 14))
        texts.append(frozenset(str(word) for word in base))
        texts.append(frozenset(str(word) for word in [*base[1:], chance.randrange(60)]))
        texts.append(frozenset(str(word) for word in [*base, chance.randrange(60)]))
    index = NearCopies(texts)
    hits = 0
    for at, text in enumerate(texts):
        near = [one for one in range(at) if len(text & texts[one]) / len(text | texts[one]) >= NEAR]
        assert index.find(text, before=at) == (near[0] if near else None)
        hits += bool(near)
    assert 30 < hits < 300


def test_words() -> None:
    assert words("Größe, it's 3.5 km — 東京 2x!") == ["grösse", "it", "s", "3", "5", "km", "東", "京", "2x"]


def test_a_leaf_of_thousands_of_alike_examples_is_no_burden(tmp_path: Path) -> None:
    """Comparisons are bounded: 3,000 texts that share all their words but one are 3,000 x 200, not 4.5 million."""
    common = frozenset(f"w{number}" for number in range(4))
    index = NearCopies(common | {f"own{number}"} for number in range(3000))
    compared = itertools.count()

    class Counted(frozenset[str]):
        def __and__(self, other: object) -> frozenset[str]:
            next(compared)
            return frozenset(self).__and__(other)  # type: ignore[operator]

    assert index.find(Counted(common | {"other"})) is None
    assert next(compared) <= 200


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="needs ../shared")
def test_the_public_taxonomy_has_few_warnings() -> None:
    found = lint(read(PUBLIC))
    assert {warning.code for warning in found} == {"no-attribution", "near-duplicate"}
    assert [str(w.place) for w in found if w.code == "near-duplicate"] == [
        "compositional_skills/linguistics/synonyms/qna.yaml:16:5"
    ]


def test_the_quickstart_has_no_warning() -> None:
    assert lint(read(ROOT / "examples" / "quickstart" / "taxonomy")) == []


@pytest.mark.parametrize(
    "text", ["a@" * 50_000, "+1 " * 50_000, "AB12 " * 50_000, "(1" * 50_000, "1-1-" * 50_000, "." * 99_999 + "@"]
)
def test_hostile_texts_take_no_longer_than_others(text: str) -> None:
    """Patterns are bounded: 100,000 signs of almost-matches end within the work of some thousand words."""
    began = time.process_time()
    list(_personal(Place(file="f", line=1), "context", text))
    assert time.process_time() - began < 5
