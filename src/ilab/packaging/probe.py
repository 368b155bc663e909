"""The probe: what the evaluated model says to fixed texts, written down when it is packaged and asked again later.

``probe.json`` lies in the package. It holds digests of the files that make the model what it is, the chat template's
words and token ids for a fixed conversation, token ids of fixed texts in many scripts, and for some of them numbers:
the log-likelihood of the text, and the log-probabilities of the likeliest next tokens and of some others. Whoever
unpacks the package can ask the model again, here or on another machine, with these or newer libraries.

Numbers are compared as a whole: the root mean square of the differences over that of the recorded values. Sums in
another order move it by about the precision of the weights; a lost multiplier or a wrong rotation by far more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ilab.core.store import digest_file
from ilab.data import digest_text
from ilab.errors import InputError
from ilab.models.chat_template import ChatTemplate
from ilab.packaging.gguf.texts import CONVERSATION, TEXTS
from ilab.transfer.layout import PROBE

FORMAT = 1
LONGEST = 48  # tokens of a text that are asked
ASKED = 8  # texts with numbers
LIKELIEST = 8  # tokens of each
SPREAD = 24  # more tokens, evenly over the vocabulary
DIGITS = 5  # behind the point, of a log-probability in nats
LIMITS = {"float32": 1e-3, "float64": 1e-3}  # relative error, by the weights' type
COARSE = 3e-2  # of weights in 16 bits and less
PAPERS = frozenset({PROBE, "lineage.json", "evaluation.json", "gate.json", "bom.json"})  # what a package adds
_MODEL = (".safetensors", ".json", ".jinja", ".model")


class Said(BaseModel):
    """A text: its token ``ids``; ``likelihood`` is the sum of log-probabilities (nats) of all but the first, ``next`` a
    list of (token, log-probability) behind the last. None where the model was not asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    ids: tuple[int, ...]
    likelihood: float | None = None
    next: tuple[tuple[int, float], ...] = ()


class Probe(BaseModel):
    """What stands in ``probe.json``. ``files`` maps the model's files to SHA-256, ``template`` is the template's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    files: dict[str, str]
    template: str
    chat: Said | None
    dtype: str
    said: tuple[Said, ...]


class Parity(BaseModel):
    """How a model compares with a probe: ``checks`` maps a check to what was found, ``wrong`` to what is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checks: dict[str, str]
    wrong: dict[str, str]


def take_probe(model: Path, threads: int = 1) -> Probe:
    """Ask the model in ``model``. Raises ``InputError`` for one that cannot be loaded."""
    tokenizer = _tokenizer(model)
    template = ChatTemplate.load(model)
    said = [Said(text=text, ids=tuple(tokenizer.encode(text, add_special_tokens=False).ids)) for text in TEXTS]
    dtype, answers = _ask(model, [_asked(one.ids) for one in said if _askable(one.ids)][:ASKED], threads)
    numbers = iter(answers)
    full = []
    for one in said:
        answer = next(numbers, None) if _askable(one.ids) else None
        full.append(one.model_copy(update=_numbers(one.ids, answer)) if answer is not None else one)
    return Probe(
        files=_files(model),
        template=digest_text(template.source) if template.source is not None else "",
        chat=_chat(template, tokenizer),
        dtype=dtype,
        said=tuple(full),
    )


def read_probe(folder: Path) -> Probe:
    """The probe of an unpacked package. Raises ``InputError`` where there is none or it makes no sense."""
    file = folder / PROBE
    hint = "it was not packaged by this ilab; `ilab package verify --quick` checks its digests"
    try:
        return Probe.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError("this package holds no probe", where=str(file), hint=hint) from error
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise InputError("the probe of this package cannot be read", where=str(file), hint=hint) from error


def compare(recorded: Probe, model: Path, threads: int = 1) -> Parity:
    """Ask the model in ``model`` again. Raises ``InputError`` for one that cannot be loaded."""
    checks: dict[str, str] = {}
    wrong: dict[str, str] = {}
    found = _files(model)
    other = sorted(name for name in recorded.files.keys() | found.keys() if recorded.files.get(name) != found.get(name))
    told = f"{', '.join(other)}: not what was tested"
    _judge(checks, wrong, "files", f"{len(recorded.files)} files", not other, told)
    now = take_probe(model, threads)
    same = (recorded.template, recorded.chat) == (now.template, now.chat)
    _judge(checks, wrong, "template", ("the same words and tokens" if recorded.template else "none, as recorded"), same)
    texts = [one.text for one, again in zip(recorded.said, now.said, strict=False) if one.ids != again.ids]
    tokens = len(recorded.said) == len(now.said) and not texts
    told = f"{texts[0][:40]!r} differs" if texts else ""
    _judge(checks, wrong, "tokens", f"{len(recorded.said)} texts", tokens, told)
    error = _error(recorded.said, now.said)
    limit = LIMITS.get(recorded.dtype, COARSE)
    said = f"off by {error:.2g}, at most {limit:.2g} is allowed"
    _judge(checks, wrong, "logits", said, error <= limit, said)
    return Parity(checks=checks, wrong=wrong)


def _judge(checks: dict[str, str], wrong: dict[str, str], name: str, found: str, good: bool, bad: str = "") -> None:
    checks[name] = found
    if not good:
        wrong[name] = bad or "not what was recorded"


def _files(model: Path) -> dict[str, str]:
    """Digest of every file that makes the model what it is: weights, settings, tokenizer, template."""
    kept = (file for file in sorted(model.iterdir()) if file.is_file() and file.suffix in _MODEL)
    return {file.name: f"sha256:{digest_file(file)}" for file in kept if not _is_paper(file.name)}


def _is_paper(name: str) -> bool:
    return name in PAPERS or name.endswith(".parity.json")  # what was measured of a GGUF file beside the model


def _tokenizer(model: Path) -> Any:
    from tokenizers import Tokenizer

    file = model / "tokenizer.json"
    if not file.is_file():
        raise InputError("this model has no tokenizer.json", where=str(model), hint="give a Hugging Face directory")
    return Tokenizer.from_file(str(file))


def _chat(template: ChatTemplate, tokenizer: Any) -> Said | None:
    """The fixed conversation in the template's words; None where it has none, or refuses this one."""
    if template.source is None:
        return None
    try:
        text = template.render(CONVERSATION, add_generation_prompt=True)
    except InputError:
        return None
    return Said(text=text, ids=tuple(tokenizer.encode(text, add_special_tokens=False).ids))


def _askable(ids: Sequence[int]) -> bool:
    return len(ids) > 1


def _asked(ids: Sequence[int]) -> list[int]:
    return list(ids[:LONGEST])


def _ask(model: Path, texts: Sequence[list[int]], threads: int) -> tuple[str, list[Any]]:
    """The weights' type, and log-probabilities of each text, an array (positions, vocabulary) of 32 bits."""
    import torch

    from ilab.models.weights import load_weights
    from ilab.packaging.gguf.parity import logprobs

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        loaded = load_weights(model, "auto", "cpu")
        room = int(getattr(loaded.config, "max_position_embeddings", LONGEST))
        return str(loaded.dtype).removeprefix("torch."), logprobs(loaded, [ids[:room] for ids in texts])
    finally:
        torch.set_num_threads(before)


def _numbers(ids: Sequence[int], answer: Any) -> dict[str, Any]:
    import numpy as np

    if not np.isfinite(answer).all():
        raise InputError("the model answers with what is no number", hint="its weights are damaged; train it again")
    asked = ids[: answer.shape[0]]
    likelihood = float(sum(float(answer[at - 1, ids[at]]) for at in range(1, len(asked))))
    last = answer[-1].astype(np.float64)
    step = max(1, len(last) // SPREAD)
    best = np.argsort(-last, kind="stable")[:LIKELIEST].tolist()
    tokens = sorted({*best, *range(0, len(last), step)})
    return {
        "likelihood": round(likelihood, DIGITS),
        "next": tuple((int(token), round(float(last[token]), DIGITS)) for token in tokens),
    }


def _error(recorded: Sequence[Said], now: Sequence[Said]) -> float:
    """Relative root mean square error of all numbers. Which tokens are the likeliest may change where two are nearly
    equal, so tokens that only one side names are left out; infinite where nothing can be compared."""
    gap = scale = 0.0
    count = 0
    for one, other in zip(recorded, now, strict=False):
        pairs = [(one.likelihood, other.likelihood)]
        again = dict(other.next)
        pairs += [(value, again.get(token)) for token, value in one.next]
        for value, found in pairs:
            if value is None or found is None:
                continue
            gap += (value - found) ** 2
            scale += value**2
            count += 1
    return math.sqrt(gap / scale) if count and scale and math.isfinite(gap) else math.inf
