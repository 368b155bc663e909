"""Counting with a model's own tokenizer, against the tokenizer library's plain use and by hand."""

import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from ilab.errors import InputError
from ilab.models.tokens import counter

TEXTS = ["How many locks has the canal? It has 14 locks.", "Größe, café, 東京 🙂", "Note: lamp=red; count=37."]


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer that wraps, cuts and fills what it is given, as those of real models do."""
    folder = tmp_path_factory.mktemp("byte-level")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|end|>", "<|start|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|start|> $A <|end|>", special_tokens=[("<|end|>", 0), ("<|start|>", 1)]
    )
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_words_are_counted_as_a_word_tokenizer_would(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "kiln": 1}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    count = counter(tmp_path)
    assert [count(text) for text in ("", "Kiln", "the kiln, hot", "kiln " * 1000)] == [0, 1, 4, 1000]


def test_nothing_is_added_cut_or_filled(byte_level: Path) -> None:
    count = counter(byte_level)
    plain = Tokenizer.from_file(str(byte_level / "tokenizer.json"))
    plain.no_truncation()
    plain.no_padding()
    for text in [*TEXTS, "", "x" * 5000, "\n\n"]:
        assert count(text) == len(plain.encode(text).ids) - 2
    assert count("龍") == len("龍".encode()), "every byte is a token where the tokenizer knows no more of the word"
    assert count("a" * 100_000) > 8


def test_control_tokens_in_a_text_are_text(byte_level: Path) -> None:
    assert counter(byte_level)("<|end|>") > 1


def test_neither_torch_nor_transformers_is_imported(byte_level: Path) -> None:
    script = (
        "import sys, pathlib; from ilab.models.tokens import counter;"
        "assert 'tokenizers' not in sys.modules; n = counter(pathlib.Path(sys.argv[1]))('kiln');"
        "assert n > 0 and not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(byte_level)], check=True)


@pytest.mark.parametrize("content", [None, "", "{}", '{"model": 3}', "\ud83c"])
def test_what_is_no_tokenizer_is_told(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match="read") as error:
        counter(tmp_path)
    assert str(tmp_path) in error.value.where and error.value.hint


def test_a_sentencepiece_model_says_how_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(InputError, match="AutoTokenizer"):
        counter(tmp_path)
