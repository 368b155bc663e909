"""What lm-evaluation-harness says of tiny models and local tasks, written down once for the parity tests.

    pip install torch==2.13.0 "lm-eval[hf]==0.4.13"      # in an environment of its own
    OMP_NUM_THREADS=1 python tests/evaluation/lm_eval_dump.py

makes two random models (one whose tokenizer puts a beginning-of-text token first, one whose does not), a task of 24
multiple-choice items with a dev file of five shots, runs them by letters and by option texts, with 0 and 5 shots,
plain and through a chat template, and asks for single pairs at the edges (cut contexts, trailing blanks, no context).
The requests, log-likelihoods and scores go to lm_eval_dump.json beside this file. ``build`` needs no lm-eval: the tests
make the same models with it, and know them by the hash of their weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

RESULT = Path(__file__).with_suffix(".json")
SPECIAL = ("<|pad|>", "<|begin|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
MODELS = {"begins": 11, "bare": 12}  # name to seed; the tokenizer of the first puts <|begin|> before a text
WINDOW = 1024
NARROW = 48  # the window in which single pairs are asked for
THINGS = ["lock", "weir", "bridge", "tower", "mill", "quay", "lamp", "gate", "boat", "crane", "well", "barn"]
PLACES = ["Vellsay", "Elmsund", "Tavishall", "Harrowby", "Ostrey", "Penwick", "Größau", "Kalvø"]
MEASURES = ("wide", "deep", "long and heavy", "old")
SETTINGS = [(form, shots, chat) for form in ("letters", "texts") for shots in (0, 5) for chat in (False, True)]


def documents() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(items, shots): questions with four options each, and the place of the right one."""
    draw = random.Random(7)
    made = []
    for number in range(29):
        thing, place, measure = draw.choice(THINGS), draw.choice(PLACES), draw.choice(MEASURES)
        options = [f"{draw.randrange(3, 400)} {draw.choice(('feet', 'ells', 'years of age', 'm'))}" for _ in range(3)]
        options.append(draw.choice((f"as {measure} as the {draw.choice(THINGS)} of {draw.choice(PLACES)}", "unknown")))
        if number % 8 == 3:
            options[2] = options[0]  # a tie: the first counts
        question = f"How {measure} is the {thing} of {place}, which was built in {draw.randrange(1500, 1900)}?"
        made.append({"question": question, "options": options, "answer": draw.randrange(4)})
    return made[5:], made[:5]


def build(folder: Path, name: str) -> Path:
    """Write the model ``name`` to ``folder`` as a Hugging Face directory."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    items, shots = documents()
    tokenizer.train_from_iterator([f"{doc['question']} {' '.join(doc['options'])}" for doc in items + shots], trainer)
    begin = tokenizer.token_to_id("<|begin|>")
    if name == "begins":
        tokenizer.post_processor = processors.TemplateProcessing("<|begin|> $A", None, [("<|begin|>", begin)])
    torch.manual_seed(MODELS[name])
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=WINDOW,
        initializer_range=0.3,
        bos_token_id=begin,
        eos_token_id=tokenizer.token_to_id("<|end|>"),
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": WINDOW}
    (folder / "tokenizer_config.json").write_text(json.dumps({**named, **kind}))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def weights_hash(folder: Path) -> str:
    """SHA-256 of names and numbers of all weights."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(name.encode() + weights[name].numpy().tobytes())
    return total.hexdigest()


def edges() -> list[tuple[str, str]]:
    """(context, continuation) at the edges, for a window of ``NARROW`` tokens."""
    long = "The lamp of Ostrey is as old as the mill of Elmsund, and the quay is deep. " * 4
    return [
        ("Which port?", " Vellsay"),
        ("Which port? ", "Vellsay"),  # a blank at the end of the context
        ("Which port?  \n", "Vellsay"),
        ("Which port?", " V"),
        ("Which port?", " Vellsay and Elmsund, 14 feet deep and very long"),
        ("Which port?", " Vellsay and"),  # the beginning of another
        ("Which port?", " A"),
        ("Which port?", " B"),
        ("", "Vellsay"),
        ("", "<|begin|>Vellsay"),  # begins with the token that an empty context stands for
        ("<|begin|>Which port?", " Vellsay"),
        (long, " A"),  # cut on the left
        (long, " B"),
        (long, " as deep as the well of Penwick"),
        (long, " as deep"),
        *((("x " * count).strip(), " 7") for count in range(NARROW // 2 - 3, NARROW // 2 + 4)),  # just about full
        *((("x" * count), "y") for count in range(NARROW - 3, NARROW + 3)),
    ]


def write_task(folder: Path, form: str) -> str:
    items, shots = documents()
    for name, docs in (("test", items), ("dev", shots)):
        lines = "".join(json.dumps(doc, ensure_ascii=False) + "\n" for doc in docs)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    choice = '["A", "B", "C", "D"]' if form == "letters" else '"{{options}}"'
    listed = "".join(f"{letter}. {{{{options[{at}]}}}}\\n" for at, letter in enumerate("ABCD"))
    (folder / f"{form}.yaml").write_text(
        f"""task: {form}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/test.jsonl, dev: {folder}/dev.jsonl}}
output_type: multiple_choice
test_split: test
fewshot_split: dev
fewshot_config: {{sampler: first_n}}
doc_to_text: "{{{{question}}}}\\n{listed}Answer:"
doc_to_choice: {choice}
doc_to_target: "{{{{answer}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_bytes, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1}}
""",
        encoding="utf-8",
    )
    return form


def run(lm: Any, form: str, shots: int, chat: bool, tasks: Path) -> dict[str, Any]:
    """One run: scores, and for each item the prompt, the options as asked for, likelihoods and greedy flags."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = lm_eval.simple_evaluate(
        model=lm,
        tasks=[form],
        num_fewshot=shots,
        apply_chat_template=chat,
        task_manager=manager,
        bootstrap_iters=1,
        log_samples=True,
        random_seed=0,
        numpy_random_seed=0,
        torch_random_seed=0,
        fewshot_random_seed=0,
    )
    samples = sorted(found["samples"][form], key=lambda sample: sample["doc_id"])
    contexts = [sample["arguments"][0][0] for sample in samples]
    low, high = min(contexts), max(contexts)
    prefix = low[: next((at for at, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]
    results = {key.removesuffix(",none"): value for key, value in found["results"][form].items()}
    return {
        "form": form,
        "shots": shots,
        "chat": chat,
        "prefix": prefix,
        "scores": {name: results[name] for name in sorted(results) if name.startswith("acc")},
        "items": [
            {
                "id": sample["doc_id"],
                "context": sample["arguments"][0][0][len(prefix) :],
                "continuations": [continuation for _, continuation in sample["arguments"]],
                "likelihoods": [round(float(value[0]), 7) for value in sample["filtered_resps"]],
                "greedy": [bool(value[1]) for value in sample["filtered_resps"]],
                **{name: float(sample[name]) for name in ("acc", "acc_norm", "acc_bytes")},
            }
            for sample in samples
        ],
    }


def ask_edges(folder: Path) -> list[list[Any]]:
    """[context, continuation, likelihood, greedy] of every edge, and of two that are the model's own first choices."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1, max_length=NARROW)
    begun = [doc["question"][:cut].rstrip() for doc in documents()[0] for cut in (9, 20)]
    own = ((context, chosen(lm, context)) for context in begun)
    asked = edges() + [pair for pair in own if pair[1]][:2]
    found = lm.loglikelihood([Instance("loglikelihood", {}, pair, at) for at, pair in enumerate(asked)])
    return [[*pair, round(value, 7), greedy] for pair, (value, greedy) in zip(asked, found, strict=True)]


def chosen(lm: Any, context: str) -> str:
    """The longest text of at most four tokens that is the model's first choice and tokenised as it was chosen."""
    import torch

    given = lm.tok_encode(context)
    ids = list(given)
    for _ in range(4):
        ids.append(int(lm.model(torch.tensor([ids])).logits[0, -1].argmax()))
    for end in range(len(ids), len(given), -1):
        text = lm.tokenizer.decode(ids[len(given) : end])
        if text and lm.tok_encode(context + text) == ids[:end]:
            return str(text)
    return ""


def main() -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    import lm_eval
    import torch
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(1)
    dump: dict[str, Any] = {"lm_eval": lm_eval.__version__, "torch": torch.__version__.split("+")[0], "models": {}}
    for name in MODELS:
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["HF_DATASETS_CACHE"] = f"{scratch}/cache"
            tasks = Path(scratch, "tasks")
            tasks.mkdir()
            folder = build(Path(scratch, "model"), name)
            lm = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=8)
            runs = [run(lm, write_task(tasks, form), shots, chat, tasks) for form, shots, chat in SETTINGS]
            dump["models"][name] = {"weights": weights_hash(folder), "runs": runs, "edges": ask_edges(folder)}
    RESULT.write_text(json.dumps(dump, ensure_ascii=False, indent=None, separators=(",", ":")), encoding="utf-8")


if __name__ == "__main__":
    main()
