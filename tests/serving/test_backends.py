"""Which backend serves what, and each of them end to end: through the command, over real sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import ilab
from ilab.chat.served import ServedTalker
from ilab.config import Endpoint
from ilab.config_where import ServeWhere, Where
from ilab.core.keeper import free_port
from ilab.core.pids import born
from ilab.data import Message
from ilab.errors import InputError, ServiceError, SetupError
from ilab.models.llamacpp import server_name
from ilab.models.local import LocalModel
from ilab.models.templates import TEMPLATES
from ilab.packaging.gguf.export import export_gguf
from ilab.serving import backend as backends
from ilab.serving import behind, external, vllm
from ilab.serving.backend import Job, choose
from ilab.serving.context_size import Fitted
from ilab.serving.readiness import answering, get
from ilab.serving.server import Server
from ilab.serving.temporary import temporary_server
from ilab.testing.loopback import serving

needs_llamacpp = pytest.mark.skipif(server_name() is None, reason="llama.cpp is not installed")
QUESTION = [Message(role="user", content="How many locks has the canal?")]
FAKE = '''
"""Stands in for vLLM: takes its command line, serves its addresses."""
import argparse, json, os, signal, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
parser = argparse.ArgumentParser()
for name in ("host", "model", "chat-template", "distributed-executor-backend"):
    parser.add_argument("--" + name)
parser.add_argument("--port", type=int)
parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
parser.add_argument("--served-model-name", nargs="+")
given = parser.parse_args()
if given.model.endswith("bad"):
    print("INFO loading", "ValueError: the KV cache has no room for 131072 tokens", sep="\\n", flush=True)
    sys.exit(1)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        key = os.environ.get("VLLM_API_KEY")
        if self.path.startswith("/v1") and key and self.headers.get("Authorization") != "Bearer " + key:
            return self.send_error(401)
        template = open(given.chat_template).read() if given.chat_template else None
        told = {"words": sys.argv[1:], "template": template, "pid": os.getpid()}
        names = [{"id": name} for name in given.served_model_name]
        body = json.dumps({"data": names} if self.path == "/v1/models" else told).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
def stop(*_):
    print("stopped in order", flush=True)
    sys.exit(0)
signal.signal(signal.SIGINT, stop)
print("INFO ready", flush=True)
ThreadingHTTPServer((given.host, given.port), Handler).serve_forever()
'''


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(ilab.__file__).parents[1]))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module vllm on the path."""
    package = tmp_path / "path" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "api_server.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'path'}:{os.environ['PYTHONPATH']}")
    return tmp_path


@pytest.fixture(scope="module")
def gguf(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    export_gguf(tiny_model, path, "f32")
    return path


def greedy(local: LocalModel, count: int) -> str:
    ids = list(local.generate(local.renderer.prompt_ids(QUESTION), count, stop_ids=local.renderer.stop_ids))
    return local.renderer.decode(ids)


def talk(url: str, count: int) -> str:
    return "".join(ServedTalker(Endpoint(url=url), max_tokens=count).stream(QUESTION))


@contextmanager
def served(*words: str, before: tuple[str, ...] = ()) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """``ilab model serve`` with ``words`` while the block runs: the process, and what it said until it was ready."""
    command = [sys.executable, "-m", "ilab", "--config", "DEFAULT", *before, "model", "serve", *words]
    said: list[str] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                said.append(line.rstrip())
                if "/docs" in line:
                    break
            yield process, said
        finally:
            process.kill()
            process.stderr.read()


def gone(pid: int) -> bool:
    """Whether the process ends within half a minute."""
    return any(born(pid) is None or time.sleep(0.1) for _ in range(300))


# --- which one


def test_which_one_serves_what(gguf: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ServeWhere()
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    monkeypatch.setattr(backends, "server_name", lambda: "llama-server")
    assert choose(gguf, plain)[0] == "llama-cpp"
    assert choose(tiny_model, plain)[0] == "transformers"
    assert choose(tiny_model, ServeWhere(gpus=2))[0] == "vllm"
    assert choose(tiny_model, ServeWhere(url="http://127.0.0.1:1/v1"))[0] == "external"
    assert choose(tiny_model, ServeWhere(url="http://127.0.0.1:1/v1", backend="transformers"))[0] == "transformers"
    with pytest.raises(InputError, match="this is a Hugging Face directory") as caught:
        choose(tiny_model, ServeWhere(backend="llama-cpp"))
    assert "ilab model convert" in caught.value.hint
    monkeypatch.setattr(backends, "server_name", lambda: None)
    chosen, why = choose(gguf, plain)
    assert chosen == "transformers"
    assert "slower" in why
    monkeypatch.setattr(backends, "find_spec", lambda name: object())
    monkeypatch.setattr(backends, "has_gpu", lambda: True)
    assert choose(tiny_model, plain)[0] == "vllm"


def test_a_torn_file_is_told_before_anything(gguf: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(gguf.read_bytes()[:5000])
    done = run("--model-path", str(torn))
    assert done.returncode == 2
    assert "torn" in done.stderr
    assert "ilab model download" in done.stderr


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ilab", "--config", "DEFAULT", "model", "serve", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# --- llama.cpp


@needs_llamacpp
def test_llamacpp_answers_as_the_model(gguf: Path, local: LocalModel, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with temporary_server(gguf, "mine", Where(device="cpu"), log=log) as url:
        assert answering(url) == ["mine"]
        # llama.cpp keeps back the end of an answer that is half a letter.
        count = next(count for count in range(16, 4, -1) if greedy(local, count)[-1].isalnum())
        assert talk(url, count) == greedy(local, count)
        base = url.removesuffix("/v1")
        assert b"InstructLab" in get(f"{base}/", 5)
        assert b'status="200"' in get(f"{base}/metrics", 5)
    assert "served by llama-cpp" in log.read_text()
    assert answering(url) == []


@needs_llamacpp
def test_its_context_is_kept_to(gguf: Path, tmp_path: Path) -> None:
    """llama.cpp rounds a context up to 256 tokens."""
    where = Where(device="cpu", serve=ServeWhere(max_ctx_size=40))
    with temporary_server(gguf, "mine", where, log=tmp_path / "log") as url:
        with pytest.raises(ServiceError, match="the context holds 40"):
            list(ServedTalker(Endpoint(url=url)).stream([Message(role="user", content="zq xj " * 20)]))
        assert len(talk(url, 500)) < 200


@needs_llamacpp
def test_killing_the_command_leaves_no_llamacpp(gguf: Path) -> None:
    with served("--model-path", str(gguf), "-p", "0", before=("-v",)) as (process, said):
        assert any("ilab.models.xllamacpp_server" in line or "llama-server" in line for line in said)
        children = [
            int(pid) for pid in subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(process.pid)]).split()
        ]
        [keeper] = [pid for pid in children if b"keeper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        [server] = subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(keeper)]).split()
        process.kill()
        assert gone(int(server))


@needs_llamacpp
def test_without_llamacpp_transformers_serves_it(gguf: Path, local: LocalModel, tmp_path: Path) -> None:
    where = Where(device="cpu", serve=ServeWhere(backend="transformers"))
    with temporary_server(gguf, "mine", where, log=tmp_path / "log") as url:
        assert talk(url, 8) == greedy(local, 8)


def test_llamacpp_that_is_not_here(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "server_name", lambda: None)
    with pytest.raises(SetupError, match="is not on this machine") as caught:
        behind.check(Job(gguf, ("m",)))
    assert "ilab[llamacpp]" in caught.value.hint


# --- vLLM


HEAD = ["--host", "127.0.0.1", "--port", "8000", "--model", "/m/foo", "--chat-template", "/t"]
NAMES = ["--served-model-name", "foo", "/m/foo"]
MP = ["--distributed-executor-backend", "mp"]


@pytest.mark.parametrize(
    ("settings", "extra", "expected"),
    [
        ({}, [], [*HEAD, *NAMES, *MP]),
        ({"gpus": 2}, [], [*HEAD, *NAMES, *MP, "--tensor-parallel-size", "2"]),
        (  # the line of the first InstructLab tutorials
            {"gpus": 2},
            ["--served-model-name", "teacher"],
            [*HEAD, *MP, "--tensor-parallel-size", "2", "--served-model-name", "teacher"],
        ),
        ({"gpus": 0}, [], [*HEAD, *NAMES, *MP]),
        ({"gpus": 2}, ["--tensor-parallel-size", "4"], [*HEAD, *NAMES, *MP, "--tensor-parallel-size", "4"]),
        ({"gpus": 2}, ["-tp=4"], [*HEAD, *NAMES, *MP, "-tp=4"]),
        (
            {"gpus": 8, "vllm_args": ["--tensor-parallel-size", "4"]},
            [],
            [*HEAD, *NAMES, *MP, "--tensor-parallel-size", "4", "--tensor-parallel-size", "8"],
        ),
        (
            {"vllm_args": ["--port=9"]},
            ["--distributed_executor_backend", "ray"],
            ["--host", "127.0.0.1", *HEAD[4:], *NAMES, "--port=9", "--distributed_executor_backend", "ray"],
        ),
        ({"max_ctx_size": 99}, [], [*HEAD, *NAMES, "--max-model-len", "99", *MP]),
        ({"tls_cert": "c", "tls_key": "k"}, [], [*HEAD, *NAMES, "--ssl-certfile", "c", "--ssl-keyfile", "k", *MP]),
    ],
)
def test_the_command_line(settings: dict[str, Any], extra: list[str], expected: list[str]) -> None:
    job = Job(Path("/m/foo"), ("foo", "/m/foo"), ServeWhere.model_validate(settings), extra=tuple(extra), key="secret")
    command = vllm.command_line(job, Path("/t"), Fitted())
    assert command == [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *expected]


def test_weights_of_bitsandbytes_are_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "bitsandbytes"}}))
    command = vllm.command_line(Job(tmp_path, ("m",)), None, Fitted())
    assert command[command.index("--quantization") :][:4] == [
        "--quantization",
        "bitsandbytes",
        "--load-format",
        "bitsandbytes",
    ]
    assert "--chat-template" not in command


def test_vllm_through_the_command(fake: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "k1")
    port, log = str(free_port()), fake / "serve.log"
    words = (
        "--model-path",
        str(tiny_model),
        "--backend",
        "vllm",
        "--gpus",
        "2",
        "-p",
        port,
        "--api-key",
        "env:THE_KEY",
    )
    more = ("--log-file", str(log), "--", "--served-model-name", "teacher")
    with served(*words, *more, before=("-v",)) as (process, said):
        url = f"http://127.0.0.1:{port}/v1"
        assert any("-m vllm.entrypoints.openai.api_server --host" in line for line in said)
        assert not any("k1" in line for line in said)
        assert answering(url, "k1") == ["teacher"]
        told = json.loads(get(f"http://127.0.0.1:{port}/told", 5))
        assert told["words"][-2:] == ["--served-model-name", "teacher"]
        assert told["template"] == (tiny_model / "chat_template.jinja").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert gone(told["pid"])
    assert log.read_text().splitlines()[-3] == "INFO ready"
    assert log.read_text().splitlines()[-1] == "stopped in order"
    assert not Path(told["words"][told["words"].index("--chat-template") + 1]).exists()


def test_why_vllm_did_not_start(fake: Path) -> None:
    bad = fake / "bad"
    bad.mkdir()
    (bad / "config.json").write_text("{}")
    done = run("--model-path", str(bad), "--backend", "vllm", "-p", str(free_port()))
    assert done.returncode == 3
    assert "ValueError: the KV cache has no room for 131072 tokens" in done.stderr
    assert "INFO loading" not in done.stderr
    assert "serve-" in done.stderr  # the log's path


def test_vllm_that_is_not_here(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="vLLM is not installed"):
        vllm.check(Job(tiny_model, ("m",)))


# --- a server that runs already, and ours


def test_a_server_that_runs_already(local: LocalModel) -> None:
    said: list[str] = []
    with serving(Server(local, "tiny").application()) as base:
        job = Job(Path(), ("",), ServeWhere(url=f"{base}/v1/"), say=said.append)
        external.check(job)
        assert external.serve(job) == 0
    assert said == [f"{base}/v1 serves tiny"]
    with pytest.raises(ServiceError, match="no server answers"):
        external.serve(job)
    with pytest.raises(InputError, match="no server is named"):
        external.check(Job(Path(), ("",), ServeWhere(backend="external")))


def test_ours_through_the_command(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    log = tmp_path / "logs" / "serve.log"
    log.parent.mkdir()
    log.write_text("before\n")
    words = ("--model-path", str(tiny_model), "-h", "127.0.0.1", "-p", "0", "--max-ctx-size", "25", "--gpus", "0")
    more = ("--chat-template", str(tmp_path / "own.jinja"), "--log-file", str(log), "--gpu-layers", "3")
    with served(*words, *more, "--backend", "transformers") as (process, said):
        url = next(word for word in said[-1].split() if word.startswith("http"))
        assert answering(url) == ["tiny", str(tiny_model)]
        with pytest.raises(ServiceError, match="the context holds 25"):
            list(ServedTalker(Endpoint(url=url)).stream([Message(role="user", content="zq xj " * 20)]))
        text = "\n".join(said)
        assert "Replacing chat template:\n{% for m in messages %}" in text
        assert text.index("Replacing") < text.index("serving tiny")
        assert "note: --gpu-layers does nothing for transformers" in text
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert log.read_text().startswith("before\nserved by transformers")


def test_templates_by_family(tiny_model: Path) -> None:
    from ilab.serving.template import template_for

    said: list[str] = []
    special = ("<|im_start|>", "<|im_end|>")
    assert template_for("auto", "", special, "qwen2", said.append) == TEMPLATES["chatml"].source
    assert said == [f"Replacing chat template:\n{TEMPLATES['chatml'].source}"]
    assert template_for("auto", "merlinite", (), "", said.append) == TEMPLATES["instructlab"].source
    assert template_for("auto", "", (), "unknown", said.append) is None
    assert "keeps its own" in said[-1]
    assert template_for("tokenizer", "", special, "qwen2", said.append) is None
    with pytest.raises(InputError, match="no family 'camel'"):
        template_for("auto", "camel", (), "", said.append)
    with pytest.raises(InputError, match=r"no chat template 'gone\.jinja'"):
        template_for("gone.jinja", "", (), "", said.append)


@pytest.mark.parametrize("name", ["transformers", "llama-cpp", "vllm"])
def test_a_template_that_is_not_there_is_told_before_a_model_is_loaded(name: str, fake: Path, gguf: Path) -> None:
    for given, said in (
        ({"chat_template": "gone.jinja"}, r"no chat template 'gone\.jinja'"),
        ({"chat_template": "auto", "model_family": "camel"}, "no family 'camel'"),
    ):
        with pytest.raises(InputError, match=said):
            backends.backend(name).check(Job(gguf, ("x",), ServeWhere(**given)))


def test_a_taken_port_through_the_command(tiny_model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run("--model-path", str(tiny_model), "-p", str(taken.getsockname()[1]), "--backend", "transformers")
    assert done.returncode == 3
    assert "error while attempting to bind on address " in done.stderr
    assert f"process {os.getpid()}" in done.stderr
    assert "add --port " in done.stderr


def test_words_for_nobody(tiny_model: Path) -> None:
    done = run("--model-path", str(tiny_model), "--backend", "transformers", "--", "--dtype", "half")
    assert done.returncode == 2
    assert "--dtype half: words behind -- go to vLLM alone" in done.stderr
