"""NeMo Data Designer: the job as three columns of text.

Its rows can neither multiply nor be filtered, so it gets 7/3 as many documents and makes as many calls, three a row.
"""

from __future__ import annotations

import os
import tempfile

os.environ["NEMO_TELEMETRY_ENABLED"] = "false"

import data_designer.config as dd
import pandas as pd
from data_designer.interface import DataDesigner
from job import ASK, JUDGE, REPLY, Work, documents, jinja


def expected(work: Work) -> tuple[int, int]:
    rows = work.calls // 3
    return rows, 3 * rows


def run(url: str, work: Work) -> int:
    rows, _ = expected(work)
    parameters = dd.ChatCompletionInferenceParams(max_tokens=100, max_parallel_requests=work.in_flight)
    model = dd.ModelConfig(
        alias="teacher", model="teacher", provider="local", inference_parameters=parameters, skip_health_check=True
    )
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    builder.with_seed_dataset(dd.DataFrameSeedSource(df=pd.DataFrame({"document": documents(rows)})))
    for name, prompt in (("question", ASK), ("answer", REPLY), ("verdict", JUDGE)):
        builder.add_column(dd.LLMTextColumnConfig(name=name, prompt=jinja(prompt), model_alias="teacher"))
    with tempfile.TemporaryDirectory() as folder:
        provider = dd.ModelProvider(name="local", endpoint=url, provider_type="openai", api_key="none")
        designer = DataDesigner(artifact_path=folder, model_providers=[provider], managed_assets_path=folder)
        designer.set_run_config(dd.RunConfig(max_in_flight_tasks=max(1024, 4 * work.in_flight)))
        return len(designer.create(builder, num_records=rows).load_dataset())
