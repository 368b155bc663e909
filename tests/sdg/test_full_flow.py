"""The shipped flows ``full`` and ``llama`` on the quickstart's leaves, against a scripted teacher over HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ilab.config import Endpoint
from ilab.core.memo import Memo
from ilab.data import Chunk, Document, Leaf, Rejected, Sample, digest_text
from ilab.documents.chunk import chunk as cut
from ilab.documents.chunk import estimate_tokens
from ilab.documents.stage import ANSWER_TOKENS, PROMPT_TOKENS
from ilab.errors import ServiceError
from ilab.models.openai import OpenAIModel
from ilab.sdg.flow import FILES, load_flow, shipped
from ilab.sdg.generate import Generated, Job, expected, generate, starts_of
from ilab.taxonomy.read import read_taxonomy
from ilab.testing.lab_teacher import UNTRUE, answer_lab_prompts
from ilab.testing.teacher import Script, Teacher, serve

TAXONOMY = Path(__file__).parents[2] / "examples" / "quickstart" / "taxonomy"
FLOWS = ("full", "llama")
SCALE = 2
NOT_KNOWN = {
    "The passage does not say.",
    "That is not stated in the passage.",
    "The passage gives no answer to this question.",
    "I cannot tell from the passage.",
    "This is not known from the given text.",
    "The text does not mention that, so I do not know.",
}
Run = Callable[..., Generated]


@pytest.fixture(scope="module")
def leaves() -> tuple[Leaf, ...]:
    return read_taxonomy(TAXONOMY).leaves


@pytest.fixture(scope="module")
def chunks(leaves: tuple[Leaf, ...]) -> list[Chunk]:
    found = []
    for leaf in leaves:
        for path in sorted((TAXONOMY / leaf.path).glob("*.md")):
            text = path.read_text(encoding="utf-8")
            document = Document(id=digest_text(text), leaf=leaf.path, source=path.name, title="", text=text)
            found += cut(document, 300)
    return found


@pytest.fixture
def run(
    make_job: Callable[..., Job], memos_in: Callable[[Path], Callable[[str], Memo]], tmp_path: Path
) -> Callable[..., Generated]:
    """Generates with a server of its own; a new memo for each call of the fixture's value."""
    runs = iter(range(100))

    def go(teacher: Teacher, flow: str, *, in_flight: int = 32, **fields: Any) -> Generated:
        client = OpenAIModel(Endpoint(url=teacher.url, in_flight=in_flight, timeout=20.0), backoff=0.02)
        memo = memos_in(tmp_path / f"memo-{next(runs)}")
        job = make_job(
            flow=load_flow(flow), scale_factor=SCALE, teacher=client, in_flight=in_flight, memo=memo, **fields
        )
        return generate(job)

    return go


@pytest.fixture(scope="module")
def sample_of() -> Callable[[Generated, str], list[Sample]]:
    """The samples whose id has a step of this name, such as ``write-1``."""

    def find(made: Generated, block: str) -> list[Sample]:
        return [sample for sample in made.samples if f"/{block}-" in sample.id]

    return find


def refused(made: Generated, block: str) -> list[Rejected]:
    return [entry for entry in made.rejected if entry.block == block]


def by_kind(leaves: tuple[Leaf, ...], kind: str) -> list[Leaf]:
    return [leaf for leaf in leaves if leaf.kind == kind]


@pytest.mark.parametrize("name", FLOWS)
def test_every_leaf_gets_samples_and_every_judge_refuses_what_is_wrong(
    run: Run, leaves: tuple[Leaf, ...], chunks: list[Chunk], name: str
) -> None:
    with serve(script=answer_lab_prompts) as teacher:
        made = run(teacher, name, leaves=leaves, chunks=chunks)
    flow = load_flow(name)
    assert set(flow.flows) == set(FILES)
    assert {sample.leaf for sample in made.samples} == {leaf.path for leaf in leaves}
    judges = {
        block.name
        for found in flow.flows.values()
        for branch in found.branches
        for block in branch.blocks
        if block.type == "judge"
    }
    refusals = Counter(entry.block for entry in made.rejected)
    assert judges <= set(refusals), f"never refused anything: {judges - set(refusals)}"
    for entry in made.rejected:
        if entry.block in judges:
            score, _, why = entry.reason.partition(" is below 0.70: ")
            assert score[-4:] in ("0.00", "0.50") and len(why.partition(": ")[2]) > 5  # what the judge said
            assert entry.row["verdict"]
    said = " ".join(message.content for sample in made.samples for message in sample.messages)
    assert UNTRUE not in said
    assert all(v.accepted for sample in made.samples for v in sample.origin.verdicts)


@pytest.mark.parametrize("name", FLOWS)
def test_pairs_come_from_the_passage_and_some_show_it(
    run: Run, leaves: tuple[Leaf, ...], chunks: list[Chunk], sample_of: Callable[..., list[Sample]], name: str
) -> None:
    with serve(script=answer_lab_prompts) as teacher:
        made = run(teacher, name, leaves=by_kind(leaves, "knowledge"), chunks=chunks)
    texts = {chunk.id: chunk.text for chunk in chunks}
    pairs = sample_of(made, "write")
    assert len(pairs) > len(texts)
    for sample in pairs:
        assert sample.answer in texts[sample.origin.chunk or ""]
        assert sample.origin.block == "write"
        assert {"faithful", "stands-alone"} <= {verdict.block for verdict in sample.origin.verdicts}
    shown = [sample for sample in pairs if texts[sample.origin.chunk or ""] in sample.question]
    assert 0.1 < len(shown) / len(pairs) < 0.4
    whole = [sample for sample in made.samples if sample.train_on == "all"]
    assert {sample.origin.chunk for sample in whole} == set(texts)
    retold = sample_of(made, "retold")
    assert retold
    for sample in retold:
        assert sample.question.endswith(texts[sample.origin.chunk or ""])
        assert sample.origin.block in ("correct", "summarise", "tell", "list", "cut")


@pytest.mark.parametrize("name", FLOWS)
def test_what_the_passage_does_not_say_is_answered_so(
    run: Run, leaves: tuple[Leaf, ...], chunks: list[Chunk], sample_of: Callable[..., list[Sample]], name: str
) -> None:
    with serve(script=answer_lab_prompts) as teacher:
        made = run(teacher, name, leaves=by_kind(leaves, "knowledge"), chunks=chunks)
    texts = {chunk.id: chunk.text for chunk in chunks}
    rows = sample_of(made, "ask-open")
    assert len({sample.leaf for sample in rows}) == 2
    assert len({sample.answer for sample in rows}) > 3
    for sample in rows:
        assert sample.answer in NOT_KNOWN
        question, _, passage = sample.question.partition("\n")
        assert question.startswith("Who sang of") and passage == texts[sample.origin.chunk or ""]
        assert "unanswered" in [verdict.block for verdict in sample.origin.verdicts]
    answered = [entry for entry in refused(made, "unanswered") if entry.row["question"].startswith("What is known")]
    assert answered and all("the passage answers it" in entry.reason for entry in answered)


@pytest.mark.parametrize("name", FLOWS)
def test_what_depends_on_the_chunk_alone_is_asked_once_for_it(
    run: Run, leaves: tuple[Leaf, ...], chunks: list[Chunk], name: str
) -> None:
    with serve(script=answer_lab_prompts) as teacher:
        made = run(teacher, name, leaves=by_kind(leaves, "knowledge"), chunks=chunks)
    prompts = [body["messages"][-1]["content"] for body in teacher.calls]
    for tag in ("CORRECTED", "SUMMARY") if name == "full" else ("DETAILED", "FACTS", "EXTRACT"):
        asked = [prompt for prompt in prompts if f"[/{tag}]" in prompt]
        assert len(asked) == len(set(asked)) == len({chunk.text for chunk in chunks})
    assert made.counts["calls"] == len(teacher.calls)


@pytest.mark.parametrize("name", FLOWS)
def test_forecasts_are_never_too_low(run: Run, leaves: tuple[Leaf, ...], chunks: list[Chunk], name: str) -> None:
    with serve(script=answer_lab_prompts) as teacher:
        run(teacher, name, leaves=leaves, chunks=chunks)
    most = expected(starts_of(leaves, chunks, load_flow(name)), SCALE)["calls"]
    assert 0.4 * most < len(teacher.calls) <= most


@pytest.mark.parametrize("name", FLOWS)
def test_the_scale_factor_is_the_number_of_samples_per_seed_example(
    run: Run, leaves: tuple[Leaf, ...], chunks: list[Chunk], name: str
) -> None:
    """Rows into the first judge or out of the writer, before anything is refused."""
    with serve(script=answer_lab_prompts) as teacher:
        made = run(teacher, name, leaves=leaves, chunks=chunks)
    blocks = made.card["blocks"]
    seeds = {kind: sum(len(leaf.seeds) for leaf in by_kind(leaves, kind)) for kind in ("grounded", "freeform")}
    own = {leaf.path: [c for c in chunks if c.leaf == leaf.path] for leaf in by_kind(leaves, "knowledge")}
    drawn = sum(len(own[leaf.path]) * len(leaf.seeds) for leaf in by_kind(leaves, "knowledge"))
    assert blocks["knowledge/write"]["in"] == blocks["knowledge/write"]["out"] == SCALE * drawn
    assert blocks["knowledge/ask-open"]["out"] == SCALE * len(chunks)
    for kind in ("grounded", "freeform"):
        writers = [block for block in ("ask", "write") if f"{kind}/{block}" in blocks]
        assert blocks[f"{kind}/{writers[0]}"]["out"] == SCALE * seeds[kind]


@pytest.mark.parametrize("name", FLOWS)
def test_the_number_of_requests_in_flight_changes_nothing(
    run: Run, leaves: tuple[Leaf, ...], chunks: list[Chunk], name: str
) -> None:
    made = []
    for in_flight in (1, 48):
        with serve(script=answer_lab_prompts) as teacher:
            made.append(run(teacher, name, in_flight=in_flight, leaves=leaves, chunks=chunks[:6] + chunks[-6:]))
    one, many = made
    assert [sample.model_dump_json() for sample in one.samples] == [s.model_dump_json() for s in many.samples]
    assert [entry.model_dump_json() for entry in one.rejected] == [e.model_dump_json() for e in many.rejected]
    assert one.card == many.card and one.counts["calls"] == many.counts["calls"]


def but(**answers: str) -> Script:
    """The scripted teacher, which answers otherwise where the prompt holds a text (``_`` for blanks)."""

    def script(body: dict[str, Any]) -> str:
        prompt = body["messages"][-1]["content"]
        for text, answer in answers.items():
            if text.replace("_", " ") in prompt:
                return answer
        return answer_lab_prompts(body)

    return script


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("kind", ["freeform", "grounded"])
def test_a_leaf_without_an_accepted_sample_fails_and_names_the_judge(
    run: Run, leaves: tuple[Leaf, ...], name: str, kind: str
) -> None:
    harsh = but(right_in_the_main="[WHY]\nthe form is another one\n[/WHY]\n[SCORE]\n1\n[/SCORE]")
    with serve(script=harsh) as teacher, pytest.raises(ServiceError) as caught:
        run(teacher, name, leaves=by_kind(leaves, kind), chunks=[])
    assert "by block 'good-pair'" in caught.value.message
    assert "not well done: 0.00 is below 0.70: 1: the form is another one" in caught.value.message


def test_the_quality_threshold_decides_over_middling_scores(
    run: Run, leaves: tuple[Leaf, ...], chunks: list[Chunk], sample_of: Callable[..., list[Sample]]
) -> None:
    """A 2 of 1 to 3 is worth 0.5, below the 0.7 that a run asks for when nothing is said."""
    middling = but(supports_an_answer="[WHY]\nonly a part of it\n[/WHY]\n[SCORE]\n2\n[/SCORE]")
    with serve(script=middling) as teacher:
        made = run(teacher, "full", leaves=by_kind(leaves, "knowledge")[:1], chunks=chunks)
    assert not sample_of(made, "write")
    faithful = refused(made, "faithful")
    assert faithful and {entry.row["score"] for entry in faithful} == {0.5}
    assert all("0.50 is below 0.70: 2: only a part of it" in entry.reason for entry in faithful)
    with serve(script=middling) as teacher:
        lenient = run(teacher, "full", leaves=by_kind(leaves, "knowledge")[:1], chunks=chunks, quality=0.5)
    assert sample_of(lenient, "write")


@pytest.mark.parametrize("name", FLOWS)
def test_passages_alone_do_not_hide_a_teacher_that_answers_nonsense(
    run: Run, leaves: tuple[Leaf, ...], chunks: list[Chunk], name: str
) -> None:
    with serve(script=lambda body: "nonsense") as teacher, pytest.raises(ServiceError) as caught:
        run(teacher, name, leaves=by_kind(leaves, "knowledge")[:1], chunks=chunks)
    assert "no sample of the leaf" in caught.value.message


def test_a_corrected_copy_is_a_source_and_a_sample_only_where_something_was_mended(
    run: Run,
    make_leaf: Callable[..., Leaf],
    make_chunk: Callable[..., Chunk],
    sample_of: Callable[..., list[Sample]],
) -> None:
    clean = "The keepers of the lamp receive the oil in barrels. The lamp burns in the night. The night is long there."
    path = "knowledge/towers"
    rough = make_chunk(path, clean.replace("receive the", "recieve teh"))
    with serve(script=answer_lab_prompts) as teacher:
        made = run(teacher, "full", leaves=[make_leaf(path)], chunks=[rough, make_chunk(path, "A lamp. " + clean)])
    [copy] = [sample for sample in made.samples if sample.id.endswith("/retold-corrected")]
    assert copy.answer == clean and rough.text in copy.question
    assert [entry.reason.partition(":")[0] for entry in refused(made, "changed")] == ["nothing to correct"]
    # The script's judge goes by the letter: what the passage spells otherwise is not in it.
    assert not [s for s in sample_of(made, "write") if s.origin.chunk == rough.id and "receive the" in s.answer]
    texts = [body["messages"][-1]["content"] for body in teacher.calls if "Take the form" in str(body)]
    assert any(rough.text in text for text in texts) and any(clean in text.split("Now write")[1] for text in texts)


@pytest.mark.parametrize("name", shipped())
def test_prompts_and_answers_fit_the_room_that_chunks_leave_them(name: str) -> None:
    """Chunks are cut so that the longest seed example, a template and an answer of these sizes fit beside them."""
    for flow in load_flow(name).flows.values():
        for block in (block for branch in flow.branches for block in branch.blocks if block.calls_teacher):
            text = "".join(str(getattr(block, field)) for field in block.files)
            assert estimate_tokens(text) <= PROMPT_TOKENS, block.name
            assert getattr(block, "max_tokens", 0) <= ANSWER_TOKENS, block.name


@pytest.mark.parametrize("name", ["full", "llama"])
def test_every_call_is_for_one_record(name: str) -> None:
    """Else the scale factor would not be the number of samples, and forecasts would be too low."""
    for flow in load_flow(name).flows.values():
        asking = [block for branch in flow.branches for block in branch.blocks if block.type == "llm"]
        assert asking and {str(block.at_most) for block in asking} == {"1"}
