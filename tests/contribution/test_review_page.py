"""The comment under a pull request: what it says, and that nothing in it acts as anything but text."""

from markdown_it import MarkdownIt

from ilab.data import Flag, Leaf, Message, Origin, Place, QuestionAnswer, Rejected, Sample, SeedExample
from ilab.errors import InputError
from ilab.review import MARK, MOST, Look, Review, Touched, facts, render
from ilab.taxonomy.lint import LintWarning

AT = Place(file="knowledge/a/qna.yaml", line=3, column=5)
HOSTILE = (
    "@maintainer ```\n<img src=x onerror=alert(1)> | [click](https://evil.example) ![x](https://evil.example/a.png)"
)


def leaf(path: str = "knowledge/a") -> Leaf:
    pair = QuestionAnswer(question="What?", answer="That.", place=AT)
    seeds = (SeedExample(context="c", pairs=(pair, pair, pair), place=AT),) * 5
    return Leaf(path=path, kind="knowledge", version=3, created_by="t", seeds=seeds, digest="d", place=AT)


def sample(question: str = "How deep?", answer: str = "Nine metres.") -> Sample:
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    origin = Origin(leaf="knowledge/a", leaf_digest="d", flow="simple", block="write")
    return Sample(id="knowledge/a#1/q", leaf="knowledge/a", messages=messages, origin=origin)


def review(**more: object) -> Review:
    values: dict[str, object] = {
        "base": "origin/main",
        "commit": "0" * 40,
        "touched": (Touched("knowledge/a/qna.yaml", "new", leaf()),),
        "deleted": (),
        "errors": (),
        "warnings": (),
        "look": Look(),
        "currency": "EUR",
    }
    return Review(**{**values, **more})  # type: ignore[arg-type]


def test_leaves_cost_samples_and_notes_are_told() -> None:
    forecast = {"calls": 1200.0, "tokens": 500_000.0, "cost": 3.2}
    rejected = Rejected(id="knowledge/a#2", leaf="knowledge/a", block="judge", reason="not faithful", row={})
    seen = Look(forecast, 12, (), (sample(),), (rejected,), 4, "the flow `simple`", ("A note.",))
    page = render(review(look=seen, deleted=("knowledge/b/qna.yaml",)))
    assert page.startswith(MARK)
    for told in (
        "2 leaves touched, no errors",
        "| `knowledge/a` | new | knowledge | 5 | 15 | – |",
        "| `knowledge/b/qna.yaml` | deleted |",
        "**1,200 calls**",
        "500,000 tokens, about 3.20 EUR",
        "12 document chunks",
        "A note.",
        "1 sample accepted, 1 refused, with 4 teacher calls",
        "Q: How deep?\nA: Nine metres.",
        "knowledge/a#2: not faithful",
    ):
        assert told in page, told


def test_errors_come_first_with_their_places() -> None:
    error = InputError("`contxt` is not a known key", where="knowledge/a/qna.yaml:7:5", hint="did you mean `context`?")
    page = render(review(touched=(Touched("knowledge/a/qna.yaml", "changed", None),), errors=(error,)))
    assert "## 1 error to mend before this can be merged" in page
    assert "`knowledge/a/qna.yaml:7:5`" in page
    assert "cannot be read" in page


def test_nothing_touched_is_said() -> None:
    page = render(review(touched=()))
    assert "No leaf is touched" in page
    assert "origin/main" in page


def test_what_contributors_write_is_only_text() -> None:
    warning = LintWarning(AT, "no-question", HOSTILE, HOSTILE)
    flag = Flag(kind="instruction", source=HOSTILE, place="line 1", excerpt=HOSTILE, action="kept")
    refused = Rejected(id=HOSTILE, leaf="knowledge/a", block="b", reason=HOSTILE, row={})
    seen = Look({}, 1, (flag,), (sample(HOSTILE, HOSTILE),), (refused,), 0, "the flow", ())
    hostile = Touched(f"knowledge/{HOSTILE}/qna.yaml", "new", leaf(f"knowledge/{HOSTILE}"), (HOSTILE,))
    page = render(review(touched=(hostile,), warnings=(warning,), errors=(InputError(HOSTILE),), look=seen))
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
    outside = html
    for tag in ("code", "pre"):
        parts = outside.split(f"<{tag}")
        outside = parts[0] + "".join(part.split(f"</{tag}>", 1)[-1] for part in parts[1:])
    assert "<img" not in html.replace("&lt;img", "")
    assert "<a " not in html
    assert "@maintainer" not in outside
    assert html.count("<details>") == html.count("</details>") == 2


def test_a_long_review_fits_into_a_comment_and_closes_its_fences() -> None:
    samples = tuple(
        sample(f"question {n} " + "x" * 3000).model_copy(update={"leaf": f"knowledge/{n}"}) for n in range(60)
    )
    page = render(review(look=Look(samples=samples)))
    assert MOST - 5000 < len(page) < 65_000
    assert page.count("```") % 2 == 0


def test_json_says_the_same() -> None:
    told = facts(review(look=Look({"calls": 3.0}, 1, (), (sample(),))))
    assert told["leaves"][0]["path"] == "knowledge/a"
    assert told["forecast"] == {"calls": 3.0}
    assert told["preview"]["samples"][0]["id"] == "knowledge/a#1/q"
