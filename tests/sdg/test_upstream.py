"""Pipelines in instructlab-sdg's form run as they are: own files of the same form, all thirteen block types."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ilab.data import Leaf
from ilab.errors import InputError, InputErrors
from ilab.models.chat import Request
from ilab.plugins import names
from ilab.sdg.flow import Flow, load_file, load_flow
from ilab.sdg.generate import Generated, Job, generate
from ilab.sdg.upstream_blocks import TYPES, as_jinja
from ilab.testing.scripted import ScriptedModel

KNOWLEDGE = r"""
version: "1.0"
blocks:
  - name: copy document
    type: DuplicateColumnsBlock
    config: {columns_map: {document: base_document}}
  - name: gen_short
    type: LLMBlock
    config:
      config_path: ../../configs/short.yaml
      output_cols: [short]
      gen_kwargs: {max_tokens: 300}
  - name: both
    type: FlattenColumnsBlock
    config: {var_cols: [short, base_document], value_name: text, var_name: dataset_type}
  - name: name_it
    type: RenameColumnsBlock
    config: {columns_map: {document: raw_document, text: document}}
  - name: gen_knowledge
    type: LLMBlock
    config:
      config_path: ../../configs/pairs.yaml
      output_cols: [question, response]
      parser_kwargs:
        parser_name: custom
        parsing_pattern: '\[Q\]\s*(.*?)\s*\[A\]\s*(.*?)\s*(?=\[Q\]|$)'
        parser_cleanup_tags: ["[END]"]
      gen_kwargs: {max_tokens: 2048}
    drop_duplicates: [question]
  - name: eval_faithful
    type: LLMBlock
    config: {config_path: ../../configs/judge.yaml, output_cols: [explanation, judgment]}
  - name: filter_faithful
    type: FilterByValueBlock
    config: {filter_column: judgment, filter_value: "YES", operation: eq}
    drop_columns: [judgment, explanation, __index_level_0__]
datamixing:
  auxiliary_instructions:
    short: [Sum it up., Make it short.]
"""
SKILLS = """
version: "1.0"
blocks:
  - name: gen_contexts
    type: LLMBlock
    config:
      config_path: prompts/context.yaml
      output_cols: [context]
      gen_kwargs: {temperature: 0.7, max_tokens: 500, n: 2, seed: 42}
    drop_duplicates: [context]
  - name: gen_questions
    type: LLMBlock
    config:
      config_path: prompts/questions.yaml
      output_cols: [question]
      batch_kwargs: {num_samples: 3}
    drop_duplicates: [question]
  - name: gen_responses
    type: LLMBlock
    config: {config_path: prompts/answer.yaml, output_cols: [response], model_prompt: ""}
  - name: eval_pair
    type: LLMBlock
    config: {config_path: prompts/score.yaml, output_cols: [evaluation, score]}
  - name: filter_pair
    type: FilterByValueBlock
    config: {filter_column: score, filter_value: 2.0, operation: ge, convert_dtype: float}
  - name: join
    type: CombineColumnsBlock
    config: {columns: [context, question], output_col: question}
"""
SIMPLE = """
version: "1.0"
blocks:
  - name: gen
    type: LLMBlock
    config:
      config_path: ask.yaml
      output_cols: [output]
      gen_kwargs: {temperature: 0.7, n: scaled}
    drop_duplicates: [output]
"""


def prompt(generation: str, *tags: tuple[str, str], **parts: str) -> str:
    starts, ends = [start for start, _ in tags], [end for _, end in tags]
    return json.dumps({**parts, "principles": None, "generation": generation, "start_tags": starts, "end_tags": ends})


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def knowledge(tmp_path: Path) -> Path:
    icl = "".join(f"{{{{icl_query_{n}}}}} = {{{{icl_response_{n}}}}}; " for n in (1, 2, 3))
    write(
        tmp_path,
        {
            "pipelines/mine/knowledge.yaml": KNOWLEDGE,
            "configs/short.yaml": prompt("SHORTEN {{document}}", ("", "")),
            "configs/pairs.yaml": prompt("ASK of {{domain}}: {{document}}", system="Teach.", introduction=icl),
            "configs/judge.yaml": prompt("JUDGE {{question}} {{response}}", ("[W]", "[/W]"), ("[V]", "[/V]")),
        },
    )
    return tmp_path / "pipelines" / "mine"


def teach(request: Request) -> str:
    """Two pairs for each text; the judge is against every answer with a 2."""
    text = request.messages[-1].content
    assert len(request.messages) == 1
    if "SHORTEN" in text:
        return "in short: " + text.split()[-1]
    if "JUDGE" in text:
        return f"[W]because[/W][V]{'No.' if 'answer 2' in text else 'Yes.'}[/V]"
    kind = "short" if "in short" in text else "long"
    return "".join(f"[Q] {kind} {n}? [A] answer {n} [END] " for n in (1, 2))


def run(make_job: Callable[..., Job], folder: Path, model: ScriptedModel, **fields: Any) -> Generated:
    return generate(make_job(flow=load_flow(folder), teacher=model, **fields))


def test_a_knowledge_pipeline_runs_unchanged(knowledge: Path, make_job: Callable[..., Job]) -> None:
    model = ScriptedModel(teach)
    made = run(make_job, knowledge, model)
    pairs = sorted({(s.question, s.answer) for s in made.samples if s.answer == "answer 1"})
    assert pairs == [("long 1?", "answer 1"), ("short 1?", "answer 1")]
    reasons = {(entry.block, entry.reason.partition(":")[0]) for entry in made.rejected}
    assert ("filter_faithful", "judgment is not eq YES") in reasons
    assert ("gen_knowledge-dedup", "duplicate") in reasons  # the same question of the other chunk and seed
    asked = [request.messages[0].content for request in model.requests if "ASK" in request.messages[0].content]
    assert asked[0].startswith(
        "Teach.\nWhat has a lamp? = a lens; What has a lamp? = a lens;"
    )  # one pair, taken in turn
    # One summary per chunk (at temperature 0), whatever the number of seed examples; one judgement per kept pair.
    assert sum("SHORTEN" in request.messages[0].content for request in model.requests) == 2
    origin = next(s.origin for s in made.samples if s.answer == "answer 1")
    assert (origin.flow, origin.block, origin.teacher) == ("mine", "gen_knowledge", "teacher")
    assert [verdict.block for verdict in origin.verdicts] == ["filter_faithful"]


def test_auxiliary_instructions_teach_the_texts_made_on_the_way(knowledge: Path, make_job: Callable[..., Job]) -> None:
    made = run(make_job, knowledge, ScriptedModel(teach))
    rows = [sample for sample in made.samples if sample.answer.startswith("in short")]
    assert len(rows) == 2  # one for each chunk, not for each seed example
    for sample in rows:
        document, _, instruction = sample.question.rpartition("\n\n")
        assert instruction in ("Sum it up.", "Make it short.")
        assert document.startswith("The tower number")
        assert (sample.origin.block, sample.origin.teacher) == ("auxiliary-gen_short", "teacher")
    again = run(make_job, knowledge, ScriptedModel(teach))
    assert [s.model_dump() for s in made.samples] == [s.model_dump() for s in again.samples]


@pytest.fixture
def grounded(tmp_path: Path) -> Path:
    return write(
        tmp_path / "skills",
        {
            "grounded_skills.yaml": SKILLS,
            "prompts/context.yaml": prompt("CONTEXT like {{seed_context}}", ("<c>", "</c>")),
            "prompts/questions.yaml": prompt("{{num_samples}} QUESTIONS of {{context}}", ("<q>", "</q>")),
            "prompts/answer.yaml": prompt("ANSWER {{question}} {{context}}", ("<a>", "</a>")),
            "prompts/score.yaml": prompt("SCORE {{question}} {{response}}", ("<e>", "</e>"), ("<s>", "</s>")),
        },
    )


def skill(request: Request) -> str:
    text = request.messages[0].content
    if text.startswith("CONTEXT"):
        return f"<c>seen {request.sampling.seed}</c>"
    if "QUESTIONS" in text:
        assert text.startswith("3 ")
        about = re.findall(r"seen \d+", text)[0]
        return "".join(f"<q>What of {about} in {n}?</q>" for n in range(3))
    if text.startswith("ANSWER"):
        return f"<a>said of {text[7:40]}</a>"
    return f"<e>fine</e><s>Score: {2 if 'in 1?' in text else 1 if 'in 2?' in text else 3}</s>"


def test_a_grounded_pipeline_runs_unchanged(
    grounded: Path, make_job: Callable[..., Job], make_leaf: Callable[..., Leaf]
) -> None:
    model = ScriptedModel(skill)
    made = run(make_job, grounded, model, leaves=[make_leaf("s/record", "grounded")], chunks=[])
    # 3 seeds x 2 contexts x 3 questions, of which the judge lets two pass.
    assert len(made.samples) == 12
    assert len(made.rejected) == 6
    for sample in made.samples:
        assert len(re.findall(r"seen \d+", sample.question)) == 2  # context, blank line, question that names it
        assert sample.question.count("\n\n") == 1
    contexts = [request for request in model.requests if request.messages[0].content.startswith("CONTEXT")]
    assert len({request.sampling.seed for request in contexts}) == 6
    assert {(request.sampling.temperature, request.sampling.max_tokens) for request in contexts} == {(0.7, 500)}
    notes = load_flow(grounded).flows["grounded"].notes
    assert notes == (
        "block 'gen_responses': model_prompt is left out: the server applies the model's own chat template",
    )


def test_the_flows_own_seed_is_not_the_runs(
    grounded: Path, make_job: Callable[..., Job], make_leaf: Callable[..., Leaf]
) -> None:
    seeds = []
    for seed in (1, 2):
        model = ScriptedModel(skill)
        job = make_job(flow=load_flow(grounded), teacher=model, leaves=[make_leaf("s/r", "grounded")], chunks=[])
        generate(replace(job, seed=seed))
        seeds.append([r.sampling.seed for r in model.requests if r.messages[0].content.startswith("CONTEXT")])
    assert seeds[1] == []  # drawn with the pipeline's seed 42: every answer is in the memo


def test_a_simple_pipeline_scales_and_splits_at_the_question_mark(
    tmp_path: Path, make_job: Callable[..., Job], make_leaf: Callable[..., Leaf]
) -> None:
    write(tmp_path, {"freeform_skills.yaml": SIMPLE, "ask.yaml": prompt("{{seed_question}}", ("", ""))})

    def answer(request: Request) -> str:
        seed = request.sampling.seed or 0
        return f"What is {seed}? It is {seed}. Is it? Yes." if seed % 3 else f"No question {seed}."

    made = run(
        make_job, tmp_path, ScriptedModel(answer), leaves=[make_leaf("s/c", "freeform")], chunks=[], scale_factor=5
    )
    assert len(made.samples) + len(made.rejected) == 3 * 5
    for sample in made.samples:
        number = sample.question.removeprefix("What is ").removesuffix("?")
        assert sample.answer == f"It is {number}. Is it? Yes."
    assert {entry.reason.partition(":")[0] for entry in made.rejected} == {"no question"}


ALL_TYPES = r"""
version: "1.0"
blocks:
  - {name: a, type: DuplicateColumnsBlock, config: {columns_map: {text: copy}}}
  - {name: b, type: SamplePopulatorBlock, config: {config_paths: [tones/dry.yaml, tones/warm.yaml], column_name: tone, post_fix: v2}}
  - {name: c, type: SelectorBlock, config: {choice_map: {dry: text, warm: copy}, choice_col: tone, output_col: chosen}}
  - {name: d, type: CombineColumnsBlock, config: {columns: [chosen, style], output_col: joined, separator: " / "}}
  - {name: e, type: RenameColumnsBlock, config: {columns_map: {joined: topic}}}
  - {name: f, type: SetToMajorityValueBlock, config: {col_name: lang}}
  - {name: g, type: LLMMessagesBlock, config: {input_col: chat, output_col: reply, gen_kwargs: {temperature: 0.1, max_tokens: 20}}}
  - name: h
    type: ConditionalLLMBlock
    config:
      config_paths: [[p.yaml, dry], [p.yaml, warm]]
      selector_column_name: tone
      output_cols: [thought]
      model_family: granite
  - {name: i, type: IterBlock, config: {num_iters: 2, block_type: LLMBlock, config_path: p.yaml, output_cols: [idea], gen_kwargs: {temperature: 1}}}
  - {name: j, type: FlattenColumnsBlock, config: {var_cols: [thought, idea], value_name: said, var_name: of}}
  - {name: k, type: FilterByValueBlock, config: {filter_column: of, filter_value: [idea, other], operation: contains}}
  - {name: l, type: LLMBlock, config: {config_path: p.yaml, output_cols: [last], model_id: other}}
"""


def test_every_block_type_becomes_blocks_of_ours(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "all.yaml": ALL_TYPES
            + "  - {name: m, type: LLMLogProbBlock, config: {config_path: p.yaml, output_cols: [lp]}}\n",
            "p.yaml": prompt("SAY {topic}", ("[S]", "[/S]")),  # single braces: a prompt from before 0.7
            "tones/dry_v2.yaml": "style: short",
            "tones/warm_v2.yaml": "style: kind",
        },
    )
    flow = load_file(tmp_path / "all.yaml")
    types = [block.type for block in flow.branches[0].blocks]
    assert types == [
        *("duplicate", "populate", "select", "combine", "rename", "majority", "messages", "conditional-llm"),
        *("repeat", "llm", "flatten", "filter", "llm", "logprobs"),
    ]
    assert len(TYPES) == 13
    assert set(TYPES) == set(re.findall(r"\w+Block\b", ALL_TYPES)) | {"LLMLogProbBlock"}
    assert set(types) <= set(names("ilab.blocks"))
    blocks = {block.name: block for block in flow.branches[0].blocks}
    assert blocks["h"].needs() == {"tone", "topic"}
    assert blocks["l"].model_dump()["model"] == "other"
    assert blocks["m"].adds() == {"lp", "lp_text"}
    assert flow.notes == ("block 'h': model_family is left out: the server applies the model's own chat template",)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("LLMBlock", "LLMBlok", 12, "did you mean 'LLMBlock'"),
        ("output_cols: [output]", "output_col: [output]", 13, "'output_cols' is missing"),
        ("gen_kwargs:", "gen_kwarg:", 16, "has no field 'gen_kwarg'"),
        ("config_path: ask.yaml", "config_path: none.yaml", 14, "cannot be read"),
        ("config_path: ask.yaml", "config_path: ../../../etc/passwd", 14, "outside the flow's folder"),
        ('version: "1.0"', 'version: "2.0"', 9, "newer than what can be read"),
        ('version: "1.0"', "version: one", 9, 'like "1.0"'),
        ("drop_duplicates", "drop_duplicate", 17, "unknown field 'drop_duplicate'"),
        ("temperature: 0.7", "temperature: 7", 13, "less than or equal to 2"),
        ("drop_duplicates: [output]", "drop_duplicates: [outptu]", 17, "needs the column 'outptu'"),
    ],
)
def test_faults_have_their_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    head = "#\n" * 7
    write(tmp_path, {"freeform_skills.yaml": head + SIMPLE.replace(old, new, 1), "ask.yaml": prompt("x", ("", ""))})
    with pytest.raises(InputError) as caught:
        load_flow(tmp_path)
    error = caught.value.errors[0] if isinstance(caught.value, InputErrors) else caught.value
    assert said in str(error)
    assert error.where == f"{tmp_path / 'freeform_skills.yaml'}:{line}"


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    broken = KNOWLEDGE.replace("FlattenColumnsBlock", "FlatBlock").replace(
        "columns_map: {document: b", "map: {document: b"
    )
    write(tmp_path, {"knowledge.yaml": broken})
    with pytest.raises(InputErrors) as caught:
        load_flow(tmp_path)
    assert len(caught.value.errors) == 5  # two misspelt, and three prompt files that are not there
    assert all(re.search(r"knowledge\.yaml:\d+$", error.where) for error in caught.value.errors)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("filter_value: 3, operation: ge, convert_dtype: int", {"value": 3.0, "operation": "ge", "default": 0.0}),
        ("filter_value: [3, 5], operation: gt, convert_dtype: float", {"value": 3.0, "operation": "gt"}),
        ("filter_value: [3, 5], operation: le, convert_dtype: float, default_value: 9", {"value": 5.0, "default": 9.0}),
        ("filter_value: [A, B], operation: eq", {"value": ["A", "B"], "operation": "in"}),
        ("filter_value: true, operation: eq, convert_dtype: bool", {"value": True, "operation": "eq"}),
    ],
)
def test_filters_mean_what_they_meant(tmp_path: Path, config: str, expected: dict[str, Any]) -> None:
    block = f"  - {{name: f, type: FilterByValueBlock, config: {{filter_column: c, {config}}}}}\n"
    write(tmp_path, {"f.yaml": f'version: "1.0"\nblocks:\n{block}'})
    flow: Flow = load_file(tmp_path / "f.yaml")
    made = flow.branches[0].blocks[0].model_dump(mode="json")
    assert {name: made[name] for name in expected} == expected


def test_prompts_of_older_versions_are_read() -> None:
    assert as_jinja("a {document} {x_1} {not this} {}") == "a {{ document }} {{ x_1 }} {not this} {}"
    assert as_jinja("{{document}} and {json}") == "{{document}} and {json}"


@pytest.mark.parametrize(
    ("file", "old", "new", "again"),
    [
        ("configs/judge.yaml", "JUDGE", "JUDGE well", {"JUDGE"}),
        ("configs/pairs.yaml", "ASK", "ASK now", {"ASK"}),  # the answers, and so what is judged, stay as they are
        ("pipelines/mine/knowledge.yaml", "max_tokens: 300", "max_tokens: 301", {"SHORTEN"}),
        ("pipelines/mine/knowledge.yaml", "# nothing", "# else", set()),
    ],
)
def test_an_edit_asks_again_for_exactly_what_it_touches(
    knowledge: Path, make_job: Callable[..., Job], file: str, old: str, new: str, again: set[str]
) -> None:
    (knowledge / "knowledge.yaml").write_text(KNOWLEDGE + "# nothing\n")
    run(make_job, knowledge, ScriptedModel(teach))
    edited = knowledge.parent.parent / file
    edited.write_text(edited.read_text().replace(old, new))
    model = ScriptedModel(teach)
    run(make_job, knowledge, model)
    asked = [request.messages[0].content for request in model.requests]
    kinds = {next(kind for kind in ("SHORTEN", "JUDGE", "ASK") if kind in text) for text in asked}
    assert kinds == again
