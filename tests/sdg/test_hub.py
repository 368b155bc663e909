"""Flows in sdg_hub's form run: own files of the same form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ilab.errors import InputError, InputErrors
from ilab.models.chat import Request
from ilab.sdg.flow import load_file, load_flow
from ilab.sdg.generate import Job, generate
from ilab.sdg.hub import TYPES
from ilab.testing.scripted import ScriptedModel

FLOW = """\
metadata:
  name: Facts
  version: 2.0.0
  tags: [mine]
blocks:
- block_type: DuplicateColumnsBlock
  block_config: {block_name: copy, input_cols: {document: base_document}}
- block_type: PromptBuilderBlock
  block_config:
    block_name: ask_prompt
    input_cols: [document, domain, icl_query_1]
    output_cols: ask_messages
    prompt_config_path: prompts/ask.yaml
    format_as_messages: true
- block_type: LLMChatBlock
  block_config: {block_name: ask, input_cols: ask_messages, output_cols: raw, max_tokens: 99, temperature: 0.7, n: 2, async_mode: true}
- block_type: LLMResponseExtractorBlock
  block_config: {block_name: got, input_cols: raw, extract_content: true, expand_lists: true}
- block_type: TagParserBlock
  block_config:
    block_name: parse_ask
    input_cols: got_content
    output_cols: [question, response]
    start_tags: ["[Q]", "[A]"]
    end_tags: ["[/Q]", "[/A]"]
    parser_cleanup_tags: ["*"]
- block_type: PromptBuilderBlock
  block_config:
    block_name: judge_prompt
    input_cols: {base_document: text, response: answer}
    output_cols: judge_messages
    prompt_config_path: prompts/judge.yaml
- block_type: LLMChatBlock
  block_config: {block_name: judge, input_cols: judge_messages, output_cols: verdict_raw}
- block_type: LLMResponseExtractorBlock
  block_config: {block_name: verdict, input_cols: verdict_raw, field_prefix: v_}
- block_type: RegexParserBlock
  block_config: {block_name: parse_judge, input_cols: v_content, output_cols: [judgment], parsing_pattern: "is (\\\\w+)"}
- block_type: ColumnValueFilterBlock
  block_config: {block_name: keep, input_cols: [judgment], filter_value: "YES", operation: eq}
"""
ASK = [
    {"role": "system", "content": "Teach {{domain}}."},
    {"role": "user", "content": "{{icl_query_1}} ASK {{document}}"},
]
JUDGE = [{"role": "user", "content": "JUDGE {answer} by {text}"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "ask.yaml").write_text(json.dumps(ASK))
    (tmp_path / "prompts" / "judge.yaml").write_text(json.dumps(JUDGE))
    (tmp_path / "flow.yaml").write_text(FLOW)
    return tmp_path


def test_a_flow_runs_and_asks_again_where_it_cannot_read(folder: Path, make_job: Callable[..., Job]) -> None:
    def answer(request: Request) -> str:
        text = request.messages[-1].content
        if text.startswith("JUDGE"):
            return "It is no" if "odd" in text else "It is yes."
        seed = request.sampling.seed or 0
        assert request.messages[0].content == "Teach lamps."
        assert request.sampling.max_tokens == 99
        return (
            "I had rather not."
            if seed % 3 == 0
            else f"[Q]What is {seed}?[/Q][A]*{'odd' if seed % 2 else 'even'} {seed}*[/A]"
        )

    model = ScriptedModel(answer)
    flow = load_flow(folder)
    assert (flow.name, flow.flows["knowledge"].version) == ("Facts", 2)
    made = generate(make_job(flow=flow, teacher=model))
    assert len(made.samples) + len(made.rejected) == 2 * 2 * 2  # chunks, seed examples, draws
    assert {sample.answer.split()[0] for sample in made.samples} == {"even"}
    assert {entry.block for entry in made.rejected} == {"keep"}
    asks = [request for request in model.requests if not request.messages[-1].content.startswith("JUDGE")]
    assert len(asks) > 8  # some answers could not be read
    types = [block.type for block in flow.flows["knowledge"].branches[0].blocks]
    assert types == [
        *("expression", "duplicate", "conversation", "repeat", "messages"),
        *("conversation", "messages", "filter", "rename"),
    ]


def test_what_lies_between_stays_where_it_is_used(folder: Path) -> None:
    text = (
        FLOW
        + "- block_type: TextConcatBlock\n  block_config: {block_name: j, input_cols: [v_content, raw], output_cols: all}\n"
    )
    (folder / "flow.yaml").write_text(text)
    types = [block.type for block in load_flow(folder).flows["knowledge"].branches[0].blocks]
    assert types.count("parse") == 2
    assert types.count("duplicate") == 3


def test_the_other_blocks(folder: Path) -> None:
    blocks = [
        ("MeltColumnsBlock", {"input_cols": ["a", "b"], "output_cols": ["text", "kind"]}),
        ("JSONParserBlock", {"input_cols": "text", "output_cols": ["x"], "field_prefix": "p_", "drop_input": True}),
        ("JSONStructureBlock", {"input_cols": ["p_x", "kind"], "output_cols": "both"}),
        ("RenameColumnsBlock", {"input_cols": {"both": "data"}}),
        ("RowMultiplierBlock", {"num_samples": 3}),
        ("SamplerBlock", {"input_cols": "items", "output_cols": "some", "num_samples": 2, "random_seed": 1}),
        ("IndexBasedMapperBlock", {"choice_map": {"a": "data"}, "choice_cols": ["kind"], "output_cols": ["best"]}),
        ("UniformColumnValueSetter", {"input_cols": "lang"}),
        ("ColumnValueFilterBlock", {"input_cols": "kind", "filter_value": ["a", "b"], "operation": "in"}),
    ]
    listed = [
        {"block_type": type_, "block_config": {"block_name": f"b{number}", **config}}
        for number, (type_, config) in enumerate(blocks)
    ]
    (folder / "other.yaml").write_text(json.dumps({"metadata": {"name": "x"}, "blocks": listed}))
    made = load_file(folder / "other.yaml").branches[0].blocks
    types = [block.type for block in made]
    expected = ["flatten", "parse", "drop", "expression", "rename", "repeat", "sample", "select", "majority", "filter"]
    assert types == expected
    assert made[1].adds() == {"p_x"}
    assert {type_ for type_, _ in blocks} | {found for found in TYPES if f"block_type: {found}\n" in FLOW} == set(
        TYPES
    ) - {"TextConcatBlock"}


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("TagParserBlock", "TagParseBlock", 19, "did you mean 'TagParserBlock'"),
        ("TagParserBlock", "PythonInterpreterBlock", 19, "runs code or tools"),
        ("prompts/judge.yaml", "../../judge.yaml", 32, "outside the flow's folder"),
        ('end_tags: ["[/Q]", "[/A]"]', "end_tags: []", 24, "lists of the same length"),
        ("operation: eq", "operation: eqq", 40, "operation"),
        ("block_name: judge,", "name: judge,", 33, "block_name"),
    ],
)
def test_faults_have_their_line(folder: Path, old: str, new: str, line: int, said: str) -> None:
    (folder / "flow.yaml").write_text(FLOW.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_flow(folder)
    error = caught.value.errors[0] if isinstance(caught.value, InputErrors) else caught.value
    assert said in str(error)
    assert error.where == f"{folder / 'flow.yaml'}:{line}"
