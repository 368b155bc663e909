"""sdg_hub: the job as a flow of its own blocks."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from job import ASK, JUDGE, REPLY, Work, documents, jinja
from sdg_hub import Flow

STAGES = (("ask", ASK, ["document"], "question"), ("reply", REPLY, ["document", "question"], "answer"))
STAGES += (("judge", JUDGE, ["document", "question", "answer"], "verdict"),)


def run(url: str, work: Work) -> int:
    with tempfile.TemporaryDirectory() as folder:
        flow = Flow.from_yaml(str(write_flow(Path(folder))))
    flow.set_model_config(model="openai/teacher", api_base=url, api_key="none")
    return len(flow.generate(pd.DataFrame({"document": documents(work.documents)}), max_concurrency=work.in_flight))


def write_flow(folder: Path) -> Path:
    blocks: list[dict[str, Any]] = []
    for name, prompt, columns, found in STAGES:
        (folder / f"{name}.yaml").write_text(yaml.safe_dump([{"role": "user", "content": jinja(prompt)}]))
        blocks += [
            block(
                "PromptBuilderBlock", f"{name}_prompt", columns, f"{name}_messages", prompt_config_path=f"{name}.yaml"
            ),
            block("LLMChatBlock", f"{name}_call", f"{name}_messages", f"{name}_raw", async_mode=True, max_tokens=100),
            extract(name),
            tags(name, found),
        ]
    kept = {"filter_value": "YES", "operation": "eq"}
    blocks.append(
        {
            "block_type": "ColumnValueFilterBlock",
            "block_config": {"block_name": "keep", "input_cols": ["verdict"], **kept},
        }
    )
    metadata = {
        "name": "job",
        "id": "the-job-1",
        "version": "1.0.0",
        "author": "x",
        "recommended_models": {"default": "teacher"},
    }
    file = folder / "flow.yaml"
    file.write_text(yaml.safe_dump({"metadata": metadata, "blocks": blocks}))
    return file


def block(kind: str, name: str, columns: Any, found: Any, **more: Any) -> dict[str, Any]:
    return {
        "block_type": kind,
        "block_config": {"block_name": name, "input_cols": columns, "output_cols": found, **more},
    }


def extract(name: str) -> dict[str, Any]:
    config = {
        "block_name": f"{name}_text",
        "input_cols": f"{name}_raw",
        "extract_content": True,
        "field_prefix": f"{name}_",
    }
    return {"block_type": "LLMResponseExtractorBlock", "block_config": config}


def tags(name: str, found: str) -> dict[str, Any]:
    mark = found.upper()
    return block(
        "TagParserBlock", f"{name}_parse", f"{name}_content", [found], start_tags=[f"[{mark}]"], end_tags=[f"[/{mark}]"]
    )
