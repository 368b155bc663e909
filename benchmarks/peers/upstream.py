"""instructlab-sdg: the job as a pipeline of LLM blocks.

It sends lists of 8 prompts, its default, from as many threads as keep the wanted number of prompts in flight. Its own
default of eight processes (``dataset_num_procs``) hangs, so none are used.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset
from instructlab.sdg import Pipeline, PipelineContext
from job import ASK, JUDGE, REPLY, Work, documents, jinja
from openai import OpenAI

BATCH = 8
STAGES = (("ask", ASK, "question"), ("reply", REPLY, "answer"), ("judge", JUDGE, "verdict"))


def run(url: str, work: Work) -> int:
    context = PipelineContext(
        OpenAI(base_url=url, api_key="none"),
        model_family="blank",
        model_id="teacher",
        dataset_num_procs=None,
        batch_size=BATCH,
        batch_num_workers=max(2, work.in_flight // BATCH),
    )
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline.from_file(context, str(write_pipeline(Path(folder))))
        return len(pipeline.generate(Dataset.from_dict({"document": documents(work.documents)})))


def write_pipeline(folder: Path) -> Path:
    blocks: list[dict[str, Any]] = []
    for name, prompt, found in STAGES:
        mark = found.upper()
        parts = {
            "system": None,
            "introduction": None,
            "principles": None,
            "examples": None,
            "generation": jinja(prompt),
        }
        config = {**parts, "start_tags": [f"[{mark}]"], "end_tags": [f"[/{mark}]"]}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
        given = {"config_path": f"{name}.yaml", "output_cols": [found], "gen_kwargs": {"max_tokens": 100}}
        blocks.append({"name": name, "type": "LLMBlock", "config": {**given, "model_prompt": ""}})
    kept = {"filter_column": "verdict", "filter_value": "YES", "operation": "eq"}
    blocks.append({"name": "keep", "type": "FilterByValueBlock", "config": kept})
    file = folder / "pipeline.yaml"
    file.write_text(yaml.safe_dump({"version": "1.0", "blocks": blocks}))
    return file
