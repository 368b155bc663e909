"""Who makes the vectors: hashed letters, a server, a model in a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from ilab.config import EmbedderWhere, Where
from ilab.errors import InputError, ServiceError, SetupError
from ilab.rag.embedder import LocalEmbedder, ServedEmbedder, embedder_of
from ilab.rag.hashed import HashedEmbedder
from ilab.rag.vectors import unit

TEXTS = ["The canal has locks.", "A mill grinds barley, rye and wheat for the whole long valley.", "", "locks"]
CPU = Where(device="cpu")


def test_hashed_vectors_are_the_same_everywhere() -> None:
    made = HashedEmbedder().documents(TEXTS)
    assert hashlib.sha256(np.round(made, 4).astype("<f4").tobytes()).hexdigest()[:16] == "46c22ad01cf99a96"
    assert np.allclose(np.linalg.norm(made, axis=1), [1, 1, 0, 1], atol=1e-6)
    assert np.array_equal(HashedEmbedder().documents(TEXTS[::-1])[::-1], made)


def test_words_in_other_forms_are_near() -> None:
    build, building, canal = HashedEmbedder().documents(["a rebuilt engine", "rebuilding engines", "canal tolls"])
    assert build @ building > 0.4 > 0.15 > build @ canal


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        unit(np.array([[np.nan, 1.0]], dtype=np.float32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers, as sentence-transformers writes one."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    words = sorted({word for text in TEXTS for word in text.lower().replace(".", "").replace(",", "").split()})
    vocabulary = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "query", ":", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    path = tmp_path_factory.mktemp("models") / "tiny-embedder"
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=24, pad_token_id=0, **size)
    BertModel(config).eval().save_pretrained(path)
    tokenizer.save(str(path / "tokenizer.json"))
    pooled(path, "mean")
    return path


def pooled(path: Path, how: str, **more: Any) -> None:
    kinds = ["models.Transformer", "models.Pooling", "models.Normalize"]
    modules = [
        {"idx": at, "name": str(at), "path": f"{at}_{kind.rpartition('.')[2]}" if at else "", "type": f"st.{kind}"}
        for at, kind in enumerate(kinds)
    ]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir(exist_ok=True)
    names = ("cls_token", "mean_tokens", "max_tokens")
    config = {f"pooling_mode_{name}": name.startswith(how) for name in names}
    (path / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 16, **config, **more}))


@pytest.mark.parametrize("how", ["mean", "cls"])
def test_a_models_vectors_are_those_of_its_layers(folder: Path, tmp_path: Path, how: str) -> None:
    """Against the network asked for one text at a time, without padding."""
    import torch
    from tokenizers import Tokenizer
    from transformers import BertModel

    path = Path(shutil.copytree(folder, tmp_path / "m"))
    pooled(path, how)
    network, tokenizer = BertModel.from_pretrained(path).eval(), Tokenizer.from_file(str(path / "tokenizer.json"))
    made = LocalEmbedder(path, CPU).documents(TEXTS)
    for text, row in zip(TEXTS, made, strict=True):
        with torch.inference_mode():
            hidden = network(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        expected = hidden[0] if how == "cls" else hidden.mean(0)
        assert np.allclose(row, (expected / expected.norm()).numpy(), atol=1e-5)
    assert np.abs(made[0] - made[1]).max() > 1e-3


def test_questions_and_documents_have_their_own_beginnings(folder: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(folder, tmp_path / "m"))
    plain = LocalEmbedder(path, CPU)
    before = plain.documents(["query : locks"]), plain.identity
    (path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "query : "}}))
    prompted = LocalEmbedder(path, CPU)
    assert np.allclose(prompted.queries(["locks"]), before[0], atol=1e-6)
    assert not np.allclose(prompted.documents(["locks"]), before[0], atol=1e-3)
    assert prompted.identity != before[1]


def test_a_text_beyond_the_models_length_is_cut(folder: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(folder, tmp_path / "m"))
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    long, short = LocalEmbedder(path, CPU).documents(["locks mill barley rye wheat", "locks mill barley"])
    assert np.allclose(long, short, atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: pooled(path, "max"), "pools its tokens in a way not known here: pooling_mode_max_tokens"),
        (lambda path: pooled(path, "mean", include_prompt=False), "pools its tokens in a way"),
        (
            lambda path: (path / "modules.json").write_text('[{"type": "x.Dense", "path": "2"}]'),
            "not known here: Dense",
        ),
        (lambda path: (path / "modules.json").write_text("{"), "no JSON"),
        (lambda path: (path / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda path: (path / "tokenizer.json").write_text("{}"), "cannot be read"),
        (lambda path: (path / "config.json").unlink(), "no Hugging Face model"),
    ],
)
def test_a_model_that_would_be_run_wrongly_is_refused(folder: Path, tmp_path: Path, spoil: Any, message: str) -> None:
    path = Path(shutil.copytree(folder, tmp_path / "m"))
    spoil(path)
    with pytest.raises(InputError, match=message):
        LocalEmbedder(path, CPU).documents(["x"])


class Served(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        data = [{"index": at, "embedding": [len(text) + 1, 1]} for at, text in enumerate(body["input"])]
        answer = json.dumps({"data": data}).encode()
        self.send_response(200 if body["model"] == "m" else 404)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Served) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_a_servers_vectors(url: str) -> None:
    where = Where(embedder=EmbedderWhere(url=url, model="m"))
    embedder = embedder_of("server:m", where)
    assert (embedder.identity, embedder.setting) == ("server:m", "server:m")
    rows = embedder.documents(["x" * length for length in range(70)])
    assert np.allclose(rows, unit(np.array([[n + 1, 1] for n in range(70)], dtype=np.float32)))
    with pytest.raises(ServiceError, match="refused \\(HTTP 404\\)") as wrong:
        ServedEmbedder(EmbedderWhere(url=url, model="other")).queries(["x"])
    assert wrong.value.hint.startswith("check where.embedder.url")
    with pytest.raises(SetupError, match="certificate cannot be used"):
        ServedEmbedder(EmbedderWhere(url=url, model="m", ca_file="/none.pem")).queries(["x"])


def test_a_setting_that_means_nothing_here(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no server is configured for the embedding model 'n'"):
        embedder_of("server:n", Where(embedder=EmbedderWhere(url=url, model="m")))
    with pytest.raises(InputError, match="no embedding model here"):
        embedder_of(str(tmp_path / "none"), CPU)


def test_a_key_is_given_by_reference() -> None:
    with pytest.raises(ValueError, match="by reference"):
        EmbedderWhere(url="http://h/v1", model="m", api_key="sk-secret")
    with pytest.raises(ValueError, match="password in it"):
        EmbedderWhere(url="http://me:pw@h/v1", model="m")
