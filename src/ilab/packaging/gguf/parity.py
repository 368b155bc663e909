"""Does the file say what the model says? Three checks, and for each who answered for the file.

    weights   every tensor read back and compared, one at a time; needs no memory to speak of
    tokens    ids of fixed texts in many scripts, of the special tokens among words, of a rendered chat
    logits    of short texts, against the model in transformers, in 32 bits

llama.cpp answers for tokens and logits where it is installed; else ``ilab.models.gguf.reader`` does. The error of
logits is scale free: root mean square of the difference over that of the logits, both centred over the vocabulary (a
shift changes no probability). How far rounding moves a model depends on the model, so it is asked: its weights are
shaken by as much as the file rounded each of them, or llama.cpp rounds what it multiplies them with, and the file may
be off by ``SLACK`` times what that does. A tensor in the wrong
order, a lost multiplier or a wrong rotation moves the logits much further.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ilab.data import seed_from
from ilab.errors import InputError
from ilab.models.chat_template import ChatTemplate
from ilab.models.gguf.reader import File, read_model, read_tokenizer
from ilab.models.llamacpp import server_name
from ilab.packaging.gguf.llamacpp import LlamaServer
from ilab.packaging.gguf.quantisation import FileType
from ilab.packaging.gguf.texts import CONVERSATION, TEXTS
from ilab.packaging.gguf.weights import Weights

LONGEST = 48  # tokens of a text whose logits are compared
PROMPTS = 12  # texts whose logits are compared
SLACK = 3.0  # both roundings at once, and a sample of texts is small
EXACT = 1e-5  # relative; 32-bit sums in another order
RUINED = 0.7  # relative error beyond which nothing of the model is left to compare
BLOCK = 1 << 20  # weights
FLOOR = -60.0  # nats; below it a log-probability of 32 bits says nothing
OWN = "the file as ilab reads it"


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Check(Record):
    """One check: ``by`` whom the file was read, ``measured`` against ``limits`` (same names), what went wrong.
    ``skipped``: it could not run, and why."""

    name: Literal["weights", "tokens", "logits"]
    by: str = ""
    measured: dict[str, float] = {}
    limits: dict[str, float] = {}
    skipped: str = ""
    wrong: str = ""


class Parity(Record):
    """What is written beside the file. ``source`` maps the model's files to their digests, ``stored``
    each type of tensor in the file to how many there are."""

    file: str
    type: str
    digest: str
    bytes: int
    source: dict[str, str]
    checks: tuple[Check, ...]
    stored: dict[str, int]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not any(check.wrong for check in self.checks)


@dataclass(frozen=True)
class Subject:
    """What is asked of a file: ``texts`` as token ids, ``opening`` before every other text; the number of rows of the
    ``vocabulary``."""

    texts: Sequence[Sequence[int]]
    opening: str
    vocabulary: int
    threads: int


@dataclass(frozen=True)
class Reference:
    """What the model says of each text, and what it says with shaken weights: log-probabilities of 32 bits, an array
    (positions, vocabulary) per text."""

    said: Sequence[Any]
    shaken: Sequence[Any]


def tensor_errors(file: File, weights: Weights) -> dict[str, float]:
    """Relative root-mean-square error of every tensor of the file, by the model's name; infinite for other shapes."""
    import numpy as np

    errors = {}
    for tensor, values in file.tensors():
        if tensor not in weights.names:  # the divisors of the frequencies
            continue
        source = weights.read(tensor)
        if source.shape != values.shape:
            errors[tensor] = float("inf")
            continue
        flat, other = source.reshape(-1), values.reshape(-1)
        error = scale = 0.0
        for start in range(0, flat.size, BLOCK):  # in blocks: the sums need no second copy of a large tensor
            part = flat[start : start + BLOCK]
            gap = part - other[start : start + BLOCK]
            error += float(np.vdot(gap, gap))
            scale += float(np.vdot(part, part))
        errors[tensor] = math.sqrt(error / scale) if scale else math.sqrt(error)
    return errors


def check_weights(errors: Mapping[str, float], kind: FileType) -> Check:
    """The worst of ``tensor_errors`` against what the type allows."""
    name, worst = max(errors.items(), key=lambda entry: entry[1])
    wrong = "" if worst <= kind.rounding else f"{name} is off by {worst:.2g}, at most {kind.rounding:.2g} is allowed"
    measured = {"error": worst, "tensors": len(errors)}
    return Check(name="weights", by=OWN, measured=measured, limits={"error": kind.rounding}, wrong=wrong)


def check_tokens(folder: Path, encode: Callable[[str], Sequence[int]], by: str, opening: str) -> Check:
    """Ids by the model's tokenizer and by the file's. ``opening`` is put before each text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [opening + text for text in (*TEXTS, *_with_specials(tokenizer), *_chat(folder))]
    differ = []
    for text in texts:
        expected = list(tokenizer.encode(text, add_special_tokens=False).ids)
        found = list(encode(text))
        if found != expected:
            differ.append(_difference(tokenizer, text, expected, found))
    return Check(
        name="tokens",
        by=by,
        measured={"texts": len(texts), "different": len(differ)},
        limits={"different": 0},
        wrong=differ[0] if differ else "",
    )


def check_logits(reference: Reference, found: Sequence[Any], by: str) -> Check:
    """What the model and what the file says: log-probabilities, an array (positions, vocabulary) per text."""
    measured = _compare(reference.said, found)
    limit = min(RUINED, SLACK * _compare(reference.said, reference.shaken)["error"] + EXACT)
    error = measured["error"]
    wrong = "" if error <= limit else f"they are off by {error:.2g}, at most {limit:.2g} is allowed"
    return Check(name="logits", by=by, measured=measured, limits={"error": limit}, wrong=wrong)


def _compare(expected: Sequence[Any], found: Sequence[Any]) -> dict[str, float]:
    """``error`` as above, mean Kullback-Leibler ``divergence`` in nats, the ``largest_difference`` of two logits, the
    share of positions whose best token is the same."""
    import numpy as np

    error = scale = divergence = difference = 0.0
    count = same = 0
    for one, other in zip(expected, found, strict=True):
        p, q = (np.maximum(np.asarray(side, dtype=np.float64), FLOOR) for side in (one, other))
        centred, moved = (side - side.mean(axis=-1, keepdims=True) for side in (p, q))
        error += float(np.square(centred - moved).sum())
        scale += float(np.square(centred).sum())
        divergence += float((np.exp(p) * (p - q)).sum())
        difference = max(difference, float(np.abs(centred - moved).max()))
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
        count += p.shape[0]
    return {
        "error": float(np.sqrt(error / scale)) if scale else float(error > 0),
        "divergence": max(0.0, divergence / count),
        "largest_difference": difference,
        "same_best_token": same / count,
        "positions": count,
    }


def prompts(folder: Path, opening: str, context: int) -> list[list[int]]:
    """Token ids of the texts whose logits are compared: of different lengths, each at least two tokens long."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = [list(tokenizer.encode(opening + text, add_special_tokens=False).ids) for text in TEXTS]
    longest = min(LONGEST, context)
    return [ids[:longest] for ids in found if len(ids) > 1][:PROMPTS]


def logprobs(model: Any, texts: Sequence[Sequence[int]]) -> list[Any]:
    """Log-probabilities by a transformers model: an array (positions, vocabulary) of 32 bits per text."""
    import torch

    found = []
    with torch.inference_mode():
        for ids in texts:
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
            found.append(torch.log_softmax(logits.float(), dim=-1).numpy())
    return found


def ask_model(model: Any, texts: Sequence[Sequence[int]], errors: Mapping[str, float], kind: FileType) -> Reference:
    """What the model says, and says when every weight is off by its part of ``errors``, at least by the type's step.
    Its weights are spoilt by that."""
    import torch

    said = logprobs(model, texts)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            least = kind.step if weight.dim() > 1 else EXACT
            size = max(errors.get(name, 0.0), least) * weight.norm() / math.sqrt(weight.numel())
            generator = torch.Generator().manual_seed(seed_from(name, 0))
            weight.add_(torch.randn(weight.shape, generator=generator).mul_(size))
    return Reference(said, logprobs(model, texts))


def file_checks(path: Path, folder: Path, subject: Subject, reference: Reference | str) -> list[Check]:
    """The checks of tokens and logits. ``reference`` is what the model said, or why it could not be asked."""
    by = server_name()
    if by is None:
        file = File(path)
        checks = [check_tokens(folder, read_tokenizer(file), OWN, subject.opening)]
        if not isinstance(reference, str):
            checks.append(check_logits(reference, logprobs(read_model(file), subject.texts), f"transformers, {OWN}"))
    else:
        with LlamaServer(path, LONGEST + 8, subject.threads) as server:
            checks = [check_tokens(folder, server.tokens, by, subject.opening)]
            if not isinstance(reference, str):
                found = [server.logprobs(list(ids), subject.vocabulary)[None] for ids in subject.texts]
                last = Reference([rows[-1:] for rows in reference.said], [rows[-1:] for rows in reference.shaken])
                checks.append(check_logits(last, found, by))
    if isinstance(reference, str):
        checks.append(Check(name="logits", skipped=reference))
    return checks


def _with_specials(tokenizer: Any) -> list[str]:
    """Every special token between words, a few to a text; at most a hundred of them."""
    added = sorted(tokenizer.get_added_tokens_decoder().items())[:100]
    texts = [entry.content for _, entry in added]
    return [f"one{' two'.join(texts[at : at + 5])}three" for at in range(0, len(texts), 5)]


def _chat(folder: Path) -> list[str]:
    """A conversation as the chat template writes it; none where there is no template, or it refuses this one."""
    template = ChatTemplate.load(folder)
    if template.source is None:
        return []
    try:
        return [template.render(CONVERSATION, add_generation_prompt=True)]
    except InputError:
        return []


def _difference(tokenizer: Any, text: str, expected: Sequence[int], found: Sequence[int]) -> str:
    at = next(
        (n for n, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), min(len(expected), len(found))
    )
    shown = [[tokenizer.id_to_token(number) for number in ids[at : at + 3]] for ids in (expected, found)]
    return f"{text[:60]!r}: the model's tokens go on with {shown[0]}, the file's with {shown[1]}"
