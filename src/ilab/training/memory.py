"""The memory that training holds on each device, in closed form.

The terms follow the loop: what the method holds, what autograd keeps of a micro-batch for the backward pass (read off
transformers' layers; the tests compare it with what autograd really keeps), the logits of one chunk, and what other
devices lend for a moment. Bytes throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ilab.config import TrainWhere
from ilab.training.architecture import Architecture, Linear
from ilab.training.settings import TrainSettings

FOUR_BITS = 0.5 + 1 / 64 + 4 / (64 * 256)  # bytes of an NF4 weight, its scales quantised too (arXiv 2305.14314)
EIGHT_BITS = 1 + 4 / 256  # bytes of a moment in eight bits with its scales (arXiv 2110.02861)
CHUNK = 4096  # positions whose logits exist at once, as in ilab.training.loss
FILE_BYTES = 64 << 20  # of a state, as in ilab.training.state
HOLES = {True: 1.6, False: 2.4}  # on a CPU: glibc's heap with what lies free between tensors (all weights; or a part)
PROCESS = {"cpu": 420 << 20, "cuda": 700 << 20}  # Python and PyTorch themselves; a CUDA context and its workspaces


@dataclass(frozen=True)
class Machine:
    """What it runs on. ``memory`` (of a device) and ``disk`` are free bytes, ``speed`` is tokens a second; or None.

    ``correction`` multiplies what a micro-batch holds: 1 by the closed form, else as it was measured.
    """

    device: str = "cpu"
    size: int = 1
    memory: int | None = None
    disk: int | None = None
    speed: float | None = None
    correction: float = 1.0

    @property
    def kind(self) -> str:
        return self.device.partition(":")[0]


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, at the moment when most are held.

    ``activations`` are what the backward pass needs of one micro-batch, ``logits`` what the loss needs, ``gathered``
    parameters of other devices that are here for a moment. ``saving`` is held while a state is written, when there are
    neither gradients nor activations: a file of it twice, on its way to the disk; memory of the host, so 0 on a GPU.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    gathered: int
    process: int
    saving: int

    @property
    def total(self) -> int:
        step = self.gradients + self.activations + self.logits + self.gathered
        return self.weights + self.optimizer + self.process + max(step, self.saving)


@dataclass(frozen=True)
class Load:
    """The largest micro-batch: tokens with padding, and of its longest row; ``packed``: samples share rows."""

    tokens: int
    row: int
    packed: bool


def trained_parameters(model: Architecture, settings: TrainSettings) -> int:
    """How many numbers the optimizer changes."""
    targets = model.targets(settings.lora_targets)
    if settings.method == "full":
        return model.parameters
    if settings.method == "osft":
        return model.layers * sum(_factors(one, settings) for one in targets)
    scales = sum(one.outs for one in targets) if settings.lora_variant == "dora" else 0
    return model.layers * (sum(settings.lora_rank * (one.outs + one.ins) for one in targets) + scales)


def memory_of(model: Architecture, settings: TrainSettings, load: Load, machine: Machine, where: TrainWhere) -> Memory:
    """On each of ``machine.size`` devices, with micro-batches of ``load``."""
    learned, size = trained_parameters(model, settings), machine.size
    moment = EIGHT_BITS if settings.optimizer == "adamw_8bit" else 4
    optimizer = int(2 * moment * learned) // size
    saved = frozen_beside(model, settings) + 4 * learned if settings.method == "osft" else 4 * learned
    kept = activations(model, settings, load, where.activation_checkpointing)
    kept *= HOLES[settings.method == "full"] if machine.kind == "cpu" else 1
    process = PROCESS.get(machine.kind, PROCESS["cpu"])
    return Memory(
        weights=int(_weights(model, settings, size)),
        gradients=4 * learned // size,
        optimizer=optimizer,
        activations=int(machine.correction * (kept + copies(model, settings))),
        logits=int(_logits(model, settings, load)),
        gathered=int(_gathered(model, settings, load, size)),
        process=process,
        saving=2 * min(saved // size + optimizer, FILE_BYTES) if machine.kind == "cpu" else 0,
    )


def activations(model: Architecture, settings: TrainSettings, load: Load, checkpointed: bool) -> float:
    """Bytes that autograd keeps of a forward pass for the backward pass; but for what the loss keeps."""
    low, frozen = settings.precision == "bf16", settings.method != "full"
    stream = 2 if low and settings.method in ("lora", "qlora") else 4  # bytes of a number between the layers
    layer = load.tokens * _per_token(model, settings, load.packed)
    if load.packed and model.masked:
        layer += load.row**2 * (2 if low else 4)  # the mask of each layer
    last = load.tokens * model.width * (4 if frozen else 10 if low else 12)  # before the output matrix
    if not checkpointed:
        return model.layers * layer + last
    return model.layers * load.tokens * model.width * stream + layer + last


def copies(model: Architecture, settings: TrainSettings) -> int:
    """Bytes of the matrices in bf16 beside those in fp32, from their first use until the backward pass."""
    if settings.precision == "fp32" or settings.method not in ("full", "osft"):
        return 0
    return 2 * (model.layers * sum(one.size for one in model.matrices) + model.embedding)


def _weights(model: Architecture, settings: TrainSettings, size: int) -> float:
    learned = 4 * trained_parameters(model, settings) / size
    width = 2 if settings.precision == "bf16" else 4
    if settings.method == "full":
        return learned
    if settings.method == "lora":
        return width * model.parameters / size + learned
    matrices = model.layers * sum(one.size for one in model.matrices)
    if settings.method == "qlora":
        return (FOUR_BITS * matrices + width * (model.parameters - matrices)) / size + learned
    changed = model.layers * sum(one.size for one in model.targets(settings.lora_targets))
    return 4 * (model.parameters - changed) / size + frozen_beside(model, settings) + learned


def frozen_beside(model: Architecture, settings: TrainSettings) -> int:
    """Bytes of OSFT's frozen parts, which every device holds whole."""
    found = 0
    for one in model.targets(settings.lora_targets):
        frozen = min(one.outs, one.ins) - _directions(one, settings)
        found += 4 * (one.size + frozen * (one.outs + one.ins))
    return model.layers * found


def _directions(one: Linear, settings: TrainSettings) -> int:
    return max(1, round(settings.osft_share * min(one.outs, one.ins)))


def _factors(one: Linear, settings: TrainSettings) -> int:
    count = _directions(one, settings)
    return count * (one.outs + one.ins + 1)


def _per_token(model: Architecture, settings: TrainSettings, packed: bool) -> float:
    """Bytes that one layer keeps of one token. In bf16, norms are computed in fp32 and every matrix gets a copy."""
    low, frozen = settings.precision == "bf16", settings.method != "full"
    number = 2 if low else 4
    targets = model.targets(settings.lora_targets)
    keys = model.queries if packed and model.masked else model.keys  # with a mask, repeated for each query head
    parts = model.queries if packed and not model.masked else 0  # attention of each sample, then put together
    norms = (2 if frozen else 4) * model.width * 4
    heads = (model.queries + model.keys) * (4 if frozen else 4 + number) if model.normed_heads else 0
    attention = (model.queries * 2 + keys * 2 + parts) * number  # queries, output; keys, values
    middle = 3 * model.feed_forward * number  # gate, its activation, up
    if settings.method in ("lora", "qlora"):
        return norms + heads + attention + middle + _adapter_inputs(model, settings, targets, number)
    inputs = (5 if low else 2) * model.width + model.feed_forward
    factors = 2 * sum(_directions(one, settings) for one in targets) if settings.method == "osft" else 0
    return norms + heads + attention + middle + (inputs + factors) * number


def _adapter_inputs(model: Architecture, settings: TrainSettings, targets: Sequence[Linear], number: int) -> float:
    """What adapters keep: their inputs (shared in fp32, one copy each in bf16), and the few numbers inside."""
    inside = settings.lora_rank * len(targets)
    if number == 2 or settings.lora_dropout:
        inputs = sum(one.ins for one in targets)
    else:
        names = {one.name for one in targets}
        shared = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
        inputs = sum(model.width for group in shared if names & set(group))
        inputs += model.feed_forward if "down_proj" in names else 0
    masks = sum(one.ins for one in targets) if settings.lora_dropout else 0
    scaled = 2 * sum(one.outs for one in targets) if settings.lora_variant == "dora" else 0
    return (inputs + inside + scaled) * number + masks


def _logits(model: Architecture, settings: TrainSettings, load: Load) -> float:
    """Logits, their softmax and the gradients of both, in fp32; in bf16 the logits themselves once more."""
    positions = min(load.tokens, CHUNK)
    return positions * model.vocabulary * (14 if settings.precision == "bf16" else 12)


def _gathered(model: Architecture, settings: TrainSettings, load: Load, size: int) -> float:
    """Two layers and what is outside of them, as FSDP2 brings them together; or one matrix out of four bits."""
    largest = max((one.size for one in model.matrices), default=0)
    alone = largest * (2 if settings.precision == "bf16" else 4) if settings.method == "qlora" else 0
    if size == 1:
        return alone
    width = 2 if settings.precision == "bf16" else 4
    here = 2 * model.layer + model.embedding + model.head
    gradients = (model.layer + model.embedding + model.head) * 4 if settings.method == "full" else 0
    return here * width + gradients + alone
