"""xllamacpp's server for one file, as a program: SETTINGS, the JSON of ``LlamaSettings`` and ``path``.

It ends with SIGINT or SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from ilab.models.llamacpp import KEY


def main(settings: dict[str, Any]) -> None:
    """Serve until told to stop."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = settings["path"]
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = settings["port"]
    parameters.n_ctx = settings["context"]
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = settings["threads"]
    parameters.n_gpu_layers = settings["gpu_layers"]
    parameters.cache_ram_mib = 0
    parameters.use_jinja = True
    parameters.ui = False
    if settings["alias"]:
        parameters.model_alias = {settings["alias"]}
    if settings["template"]:
        parameters.chat_template = Path(settings["template"]).read_text(encoding="utf-8")
    if os.environ.get(KEY):
        parameters.api_keys = [os.environ[KEY]]
    if settings["exact"]:
        # Keys, values and attention in 32 bits, or the differences would be those of the server.
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    server = xllamacpp.Server(parameters)
    over.wait()
    del server


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
