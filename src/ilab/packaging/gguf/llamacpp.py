"""llama.cpp, where this machine has it: its quantiser, and its server for tokens and logits.

The server is found by :mod:`ilab.models.llamacpp`. The quantiser is ``llama-quantize`` on the PATH or the one in
llama-cpp-python. Each is found, never installed, and always another process.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from ilab.core.keeper import Child, free_port
from ilab.errors import SetupError
from ilab.models.llamacpp import LlamaSettings, server_command
from ilab.packaging.gguf.quantisation import FileType

START = 120.0  # seconds that the server may take to load the model
TAIL = 600  # characters of its log that an error shows
INSTALL = (
    "install llama.cpp so that {binary} is on the PATH (brew install llama.cpp, or a release from "
    "https://github.com/ggml-org/llama.cpp), or: pip install {package}"
)

SMALLER = "or take --type q4_0, q5_0 or q8_0, which need none"


def quantiser() -> list[str] | None:
    """The command of llama.cpp's quantiser, to be followed by file, new file, type and threads."""
    binary = shutil.which("llama-quantize")
    if binary:
        return [binary]
    if find_spec("llama_cpp") is not None:
        return [sys.executable, "-m", "ilab.packaging.gguf.binding"]
    return None


def need_quantiser(kind: FileType) -> list[str]:
    """``quantiser``. Raises ``SetupError`` where there is none."""
    command = quantiser()
    if command is None:
        raise SetupError(
            f"files of type {kind.name} are made by llama.cpp's quantiser, which this machine lacks",
            hint=f"{INSTALL.format(binary='llama-quantize', package='llama-cpp-python')}; {SMALLER}",
        )
    return command


def quantise(source: Path, target: Path, kind: FileType, threads: int) -> None:
    """Write ``source`` anew as ``kind``. Raises ``SetupError`` where llama.cpp cannot."""
    command = [*need_quantiser(kind), str(source), str(target), kind.name.upper(), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0 or not target.is_file():
        raise SetupError(
            f"llama.cpp's quantiser failed with {done.returncode}: {(done.stdout + done.stderr)[-TAIL:].strip()}",
            where=command[0],
            hint=f"try a newer llama.cpp; {SMALLER}",
        )


class LlamaServer:
    """llama.cpp serving one file on the loopback. A context manager; only where ``server_name`` is not None."""

    def __init__(self, path: Path, context: int, threads: int) -> None:
        self._path, self._context, self._threads = path, context, threads
        self._child: Child | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._http: Any = None
        self._letter: int | None = None

    def __enter__(self) -> LlamaServer:
        """Start it and wait until it answers. Raises ``SetupError`` with the end of its log where it does not."""
        import httpx2

        port = free_port()
        command = server_command(self._path, LlamaSettings(port, self._threads, self._context, exact=True))
        self._child = Child(command, self._log, grace=0.0)
        self._http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=START, trust_env=False)
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and self._child.code is None:
            try:
                if self._http.get("/health").status_code == 200:
                    return self
            except httpx2.TransportError:  # not listening yet
                pass
            time.sleep(0.1)
        log = self._tail()
        self.__exit__()
        raise SetupError(f"llama.cpp cannot serve the file: {log}", where=str(self._path))

    def __exit__(self, *_: object) -> None:
        if self._http is not None:
            self._http.close()
        if self._child is not None:
            self._child.stop()
        self._log.close()

    def tokens(self, text: str, around: bool = False) -> list[int]:
        """The ids of ``text``; special tokens are found in it, and with ``around`` put around it."""
        found = self._ask("/tokenize", {"content": text, "add_special": around, "parse_special": True})["tokens"]
        return [int(number) for number in found]

    def logprobs(self, ids: list[int], size: int) -> Any:
        """Log-probabilities (float32, ``size``) of the token that follows ``ids``, in nats."""
        import numpy as np

        # What is drawn does not matter, but the server tells nothing of a token that ends the text or is half a
        # character: so it is made to draw a letter. The probabilities are those before that.
        if self._letter is None:
            self._letter = self.tokens("a")[-1]
        asked = {
            "prompt": ids,
            "n_predict": 1,
            "n_probs": size,
            "temperature": 0.0,
            "logit_bias": [[self._letter, 1e4]],
            "cache_prompt": False,
        }
        first = self._ask("/completion", asked)["completion_probabilities"][0]["top_logprobs"]
        found = np.full(size, -np.inf, dtype=np.float32)
        for entry in first:
            found[entry["id"]] = -np.inf if entry["logprob"] is None else entry["logprob"]
        return found

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        import httpx2

        try:
            reply = self._http.post(path, json=body)
            reply.raise_for_status()
        except httpx2.HTTPError as error:
            raise SetupError(f"llama.cpp's server failed: {error}: {self._tail()}", where=str(self._path)) from error
        answer: dict[str, Any] = reply.json()
        return answer

    def _tail(self) -> str:
        size = self._log.seek(0, 2)
        self._log.seek(max(0, size - TAIL))
        return self._log.read().decode(errors="replace").strip()
