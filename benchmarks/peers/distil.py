"""distilabel: the job as a pipeline of steps, each in a process of its own, with batches between them.

Batches hold as many rows as calls may be in flight. The start of its processes is part of what is measured.
No `from __future__ import annotations`: distilabel reads the annotations of its steps, which must not be texts.
"""

import os
import tempfile
from typing import Any

from datasets import Dataset
from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import StepInput, step
from distilabel.steps.tasks import TextGeneration
from distilabel.typing import StepOutput
from job import ASK, JUDGE, REPLY, Work, documents, jinja


def between(text: str | None, mark: str) -> list[str]:
    return [part.split(f"[/{mark}]")[0].strip() for part in (text or "").split(f"[{mark}]")[1:]]


@step(inputs=["document", "asked"], outputs=["document", "question"])
def take_questions(inputs: StepInput) -> StepOutput:
    yield [
        {"document": row["document"], "question": text} for row in inputs for text in between(row["asked"], "QUESTION")
    ]


@step(inputs=["document", "question", "replied"], outputs=["document", "question", "answer"])
def take_answers(inputs: StepInput) -> StepOutput:
    yield [
        {"document": row["document"], "question": row["question"], "answer": text}
        for row in inputs
        for text in between(row["replied"], "ANSWER")
    ]


@step(inputs=["document", "question", "answer", "judged"], outputs=["document", "question", "answer"])
def keep(inputs: StepInput) -> StepOutput:
    yield [row for row in inputs if between(row["judged"], "VERDICT") == ["YES"]]


def run(url: str, work: Work) -> int:
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    with tempfile.TemporaryDirectory() as folder, Pipeline(name="job", cache_dir=folder) as pipeline:

        def ask(name: str, prompt: str, columns: list[str], found: str) -> Any:
            return TextGeneration(
                name=name,
                llm=OpenAILLM(model="teacher", base_url=url, api_key="none", generation_kwargs={"max_new_tokens": 100}),
                template=jinja(prompt),
                columns=columns,
                input_batch_size=work.in_flight,
                output_mappings={"generation": found},
                add_raw_output=False,
                add_raw_input=False,
            )

        size = {"input_batch_size": work.in_flight}
        first = ask("ask", ASK, ["document"], "asked")
        second = ask("reply", REPLY, ["document", "question"], "replied")
        third = ask("judge", JUDGE, ["document", "question", "answer"], "judged")
        first >> take_questions(**size) >> second >> take_answers(**size) >> third >> keep(**size)
        made = pipeline.run(dataset=Dataset.from_dict({"document": documents(work.documents)}), use_cache=False)
        return len(made["default"]["train"])
