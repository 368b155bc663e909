"""Every setting of InstructLab's configuration files, and what it is here.

A row is one of three: it *becomes* settings of ours; it is an *option* of a command, or has no meaning, and says so.
``default`` is what InstructLab took without it; a setting that only repeats it needs no mention where it has no
counterpart. Settings of file versions 0.x that 1.0.0 has no more are at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

GROUPS = frozenset({"chat", "evaluate", "general", "generate", "metadata", "rag", "serve", "train", "list", "download"})
DATA, MODELS = "<data>", "<models>"  # ~/.local/share/instructlab and ~/.cache/instructlab/models
GRANITE = f"{MODELS}/granite-7b-lab-Q4_K_M.gguf"
MISTRAL = f"{MODELS}/mistral-7b-instruct-v0.2.Q4_K_M.gguf"
JUDGE = "prometheus-eval/prometheus-8x7b-v2.0"

Read = Callable[[Any], Mapping[str, Any]]  # a value as settings of ours; empty where it has no meaning


def _nothing(_: Any) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Row:
    """``read`` gives settings of ours; where it gives none and the value is not ``default``, ``instead`` says why.

    Values in ``skip`` say nothing new and are not read.
    """

    read: Read = _nothing
    default: Any = None
    instead: str = ""
    skip: tuple[Any, ...] = ()


def _to(*targets: str) -> Row:
    return Row(lambda value: dict.fromkeys(targets, value))


def _given(target: str, *skip: Any) -> Row:
    """The value, unless it is what InstructLab took anyway."""
    return Row(lambda value: {target: value}, skip=skip)


def _option(command: str, default: Any = None) -> Row:
    return Row(default=default, instead=f"give it with the command: ilab {command}")


def _none(why: str, default: Any = None) -> Row:
    return Row(default=default, instead=why)


def _device(value: Any) -> Mapping[str, Any]:
    return {"where.device": value} if str(value).split(":")[0] in ("cpu", "cuda", "mps") else {}


def _rank(value: Any) -> Mapping[str, Any]:
    rank = isinstance(value, int) and value > 0
    return {"parameters.train_method": "lora", "parameters.train_lora_rank": value} if rank else {}


ARGUMENTS: Mapping[str, tuple[str, ...]] = {  # of train.additional_args: what each is here
    "learning_rate": ("parameters.train_learning_rate",),
    "random_seed": ("parameters.train_seed",),
    "lora_alpha": ("parameters.train_lora_alpha",),
    "lora_dropout": ("parameters.train_lora_dropout",),
    "warmup_steps": ("parameters.train_num_warmup_steps_phase_1", "parameters.train_num_warmup_steps_phase_2"),
}
ARGUMENTS_LEFT: Mapping[str, tuple[Any, str]] = {  # those without a counterpart: InstructLab's default, and why
    **{
        name: (default, "several machines meet by where.train.nodes and where.train.master")
        for name, default in (
            ("node_rank", 0),
            ("nnodes", 1),
            ("rdzv_id", 123),
            ("rdzv_endpoint", "127.0.0.1:12222"),
        )
    },
    "deepspeed_cpu_offload_optimizer_ratio": (1, "to save memory: train_optimizer=adamw_8bit"),
    "deepspeed_cpu_offload_optimizer_pin_memory": (False, "to save memory: train_optimizer=adamw_8bit"),
    "use_dolomite": (False, "the planner packs samples or not, and the loss is the same"),
}


def _extra(value: Any) -> Mapping[str, Any]:
    """``train.additional_args``: those that are settings here."""
    if not isinstance(value, Mapping):
        return {}
    found = {
        target: item for name, item in value.items() if item is not None for target in ARGUMENTS.get(str(name), ())
    }
    targets = value.get("lora_target_modules")
    if isinstance(targets, list) and targets:
        found["parameters.train_lora_targets"] = ",".join(map(str, targets))
    return found


SERVED = "a teacher is a server here: where.teacher.url (a local model can be served with: ilab model serve)"
RAG = "retrieval is not there yet"
JUDGED = "a judge is a server here: where.judge.url, with the model's name in eval_judge_model"
KEPT = "results are kept in the store; to write them elsewhere give --output-dir to the command"

ROWS: dict[str, Row] = {
    "version": Row(),
    # -- chat
    "chat.context": _option("model chat --system TEXT", "default"),
    "chat.logs_dir": _option("model chat --session FILE, which keeps a conversation", f"{DATA}/chatlogs"),
    "chat.max_tokens": _option("model chat --max-tokens N"),
    "chat.model": _given("models.default", GRANITE),
    "chat.session": _option("model chat --session FILE"),
    "chat.temperature": _option("model chat --temperature X", 1.0),
    "chat.vi_mode": _none("lines are edited as the terminal does it", False),
    "chat.visible_overflow": _none("long answers always scroll", True),
    # -- evaluate
    "evaluate.base_branch": _option("model evaluate --base-branch REF"),
    "evaluate.base_model": _option("model evaluate --base-model DIR", "instructlab/granite-7b-lab"),
    "evaluate.branch": _option("model evaluate --branch REF"),
    "evaluate.dk_bench.input_questions": _option("model evaluate --input-questions FILE"),
    "evaluate.dk_bench.judge_model": _none(JUDGED, "gpt-4o"),
    "evaluate.dk_bench.output_dir": _none(KEPT, f"{DATA}/internal/eval_data/dk_bench"),
    "evaluate.dk_bench.output_file_formats": _option("model evaluate --output-file-formats LIST", "jsonl"),
    "evaluate.gpus": _none("one device answers; which one: where.device"),
    "evaluate.mmlu.batch_size": _given("where.evaluate.batch"),
    "evaluate.mmlu.few_shots": _option("model evaluate --few-shots N", 5),
    "evaluate.mmlu_branch.tasks_dir": _option("model evaluate --tasks-dir DIR", f"{DATA}/datasets"),
    "evaluate.model": _option("model evaluate --model DIR"),
    "evaluate.mt_bench.judge_model": _none(JUDGED, JUDGE),
    "evaluate.mt_bench.max_workers": _none("requests in flight are where.judge.in_flight", "auto"),
    "evaluate.mt_bench.output_dir": _none(KEPT, f"{DATA}/internal/eval_data/mt_bench"),
    "evaluate.mt_bench_branch.judge_model": _none(JUDGED, JUDGE),
    "evaluate.mt_bench_branch.output_dir": _none(KEPT, f"{DATA}/internal/eval_data/mt_bench_branch"),
    "evaluate.mt_bench_branch.taxonomy_path": _option("model evaluate --taxonomy-path DIR", f"{DATA}/taxonomy"),
    "evaluate.system_prompt": _option("model evaluate --system-prompt TEXT"),
    "evaluate.temperature": _option("model evaluate --temperature X", 0.0),
    # -- general
    "general.debug_level": _none("for tracebacks and debug messages: ilab -v", 0),
    "general.log_format": _none(
        "events are in events.jsonl of every run", "%(levelname)s %(asctime)s %(name)s:%(lineno)d: %(message)s"
    ),
    "general.log_level": _none("for tracebacks and debug messages: ilab -v", "INFO"),
    "general.student_model_id": _none("it names no entry of `models` with a path"),
    "general.teacher_model_id": _none("it names no entry of `models` with a path"),
    "general.use_legacy_tmpl": Row(
        lambda value: {"parameters.train_chat_template": "instructlab"} if value is True else {}, default=False
    ),
    # -- generate
    "generate.batch_size": Row(lambda value: {"parameters.sdg_batch_size": max(value, 1)} if _whole(value) else {}),
    "generate.chunk_word_count": _to("parameters.chunk_word_count"),
    "generate.max_num_tokens": _none("a flow's blocks say max_tokens; give your own folder with --pipeline", 4096),
    "generate.model": _none("nobody read it; the teacher is generate.teacher.model_path", MISTRAL),
    "generate.num_cpus": _to("parameters.sdg_num_workers"),
    "generate.num_instructions": _option("data generate --num-instructions N", -1),
    "generate.output_dir": _option("data generate --output-dir DIR", f"{DATA}/datasets"),
    "generate.pipeline": _to("parameters.sdg_pipeline"),
    "generate.sdg_scale_factor": _to("parameters.sdg_scale_factor"),
    "generate.taxonomy_base": _to("parameters.taxonomy_base"),
    "generate.taxonomy_path": _to("parameters.sdg_repo_url"),
    "generate.teacher.backend": _none(SERVED),
    "generate.teacher.chat_template": _none("the server knows its template; for plain prompts: sdg_teacher_family"),
    "generate.teacher.llama_cpp.gpu_layers": _none(SERVED, -1),
    "generate.teacher.llama_cpp.llm_family": _given("parameters.sdg_teacher_family", ""),
    "generate.teacher.llama_cpp.max_ctx_size": _given("parameters.server_ctx_size", 4096),
    "generate.teacher.model_path": _given("models.teacher", MISTRAL),
    "generate.teacher.server.backend_type": _none(SERVED, ""),
    "generate.teacher.server.current_max_ctx_size": _none(SERVED, 4096),
    "generate.teacher.server.host": _none(SERVED, "127.0.0.1"),
    "generate.teacher.server.port": _none(SERVED, 8000),
    "generate.teacher.vllm.gpus": _none(SERVED),
    "generate.teacher.vllm.llm_family": _given("parameters.sdg_teacher_family", ""),
    "generate.teacher.vllm.max_startup_attempts": _none(SERVED, 120),
    "generate.teacher.vllm.vllm_args": _none(SERVED, []),
    # -- metadata of a profile
    **{
        f"metadata.{name}": _none("the machine is looked at, and matched by its memory: ilab system info")
        for name in ("cpu_info", "gpu_count", "gpu_family", "gpu_manufacturer", "gpu_sku")
    },
    "models": Row(default=[]),  # read with general.*_model_id
    # -- rag
    "rag.convert.output_dir": _option("documents convert --output DIR", f"{DATA}/converted_documents"),
    "rag.convert.taxonomy_base": _none("InstructLab read generate.taxonomy_base", "origin/main"),
    "rag.convert.taxonomy_path": _none("InstructLab read generate.taxonomy_path", f"{DATA}/taxonomy"),
    "rag.document_store.collection_name": _none(RAG, "ilab"),
    "rag.document_store.uri": _none(RAG, f"{DATA}/embeddings.db"),
    "rag.embedding_model.embedding_model_path": _given(
        "models.embedder", f"{MODELS}/ibm-granite/granite-embedding-125m-english"
    ),
    "rag.enabled": _none("InstructLab did not read it either", False),
    "rag.retriever.top_k": _none(RAG, 3),
    # -- serve
    "serve.backend": _option("model serve"),
    "serve.chat_template": _option("model serve"),
    "serve.llama_cpp.gpu_layers": _option("model serve", -1),
    "serve.llama_cpp.llm_family": _option("model serve", ""),
    "serve.llama_cpp.max_ctx_size": _option("model serve", 4096),
    "serve.model_path": _given("models.default", GRANITE),
    "serve.server.backend_type": _none("it was written by the server for itself", ""),
    "serve.server.current_max_ctx_size": _none("it was written by the server for itself", 4096),
    "serve.server.host": _option("model serve --host ADDRESS", "127.0.0.1"),
    "serve.server.port": _option("model serve --port N", 8000),
    "serve.vllm.gpus": _option("model serve"),
    "serve.vllm.llm_family": _option("model serve", ""),
    "serve.vllm.max_startup_attempts": _option("model serve", 120),
    "serve.vllm.vllm_args": _option("model serve", []),
    # -- train
    "train.additional_args": Row(_extra, default={}, instead="give them as options: ilab model train --help"),
    "train.checkpoint_at_epoch": Row(
        lambda value: {"parameters.output_checkpoint_frequency": 1} if value is True else {},
        instead="candidates are saved after every epoch: output_checkpoint_frequency",
    ),
    "train.ckpt_output_dir": _option("model train --ckpt-output-dir DIR", f"{DATA}/checkpoints"),
    "train.data_output_dir": _none("tokenised data lies beside the run's state in the store", f"{DATA}/internal"),
    "train.data_path": _option("model train --data-path FILE", f"{DATA}/datasets"),
    "train.deepspeed_cpu_offload_optimizer": _none("to save memory: train_optimizer=adamw_8bit", False),
    "train.device": Row(_device, instead="devices are auto, cpu, cuda and mps: where.device"),
    "train.disable_flash_attn": _none("attention is torch's own", False),
    "train.distributed_backend": _none("several devices share the model by FSDP2", "fsdp"),
    "train.effective_batch_size": _option("model train --effective-batch-size N", 64),
    "train.fsdp_cpu_offload_optimizer": _none("to save memory: train_optimizer=adamw_8bit", False),
    "train.is_padding_free": _none("the planner packs samples or not, and the loss is the same", False),
    "train.lora_quantize_dtype": _option("model train --method qlora", "nf4"),
    "train.lora_rank": Row(_rank, default=0, instead="a rank is a whole number above 0"),
    "train.max_batch_len": _to("parameters.train_max_batch_len"),
    "train.max_seq_len": _to("parameters.train_sequence_length"),
    "train.model_path": _to("parameters.sdg_base_model"),
    "train.nproc_per_node": _to("where.train.processes"),
    "train.num_epochs": _option("model train --num-epochs N", 10),
    "train.phased_base_dir": _option("model train --phased-base-dir DIR", f"{DATA}/phased"),
    "train.phased_mt_bench_judge": _none(JUDGED, f"{MODELS}/{JUDGE}"),
    "train.phased_phase1_effective_batch_size": _to("parameters.train_effective_batch_size_phase_1"),
    "train.phased_phase1_learning_rate": _to("parameters.train_learning_rate_phase_1"),
    "train.phased_phase1_num_epochs": _to("parameters.train_epochs_phase_1"),
    "train.phased_phase1_samples_per_save": _given("parameters.train_save_samples", 0),
    "train.phased_phase2_effective_batch_size": _to("parameters.train_effective_batch_size_phase_2"),
    "train.phased_phase2_learning_rate": _to("parameters.train_learning_rate_phase_2"),
    "train.phased_phase2_num_epochs": _to("parameters.train_epochs_phase_2"),
    "train.phased_phase2_samples_per_save": _given("parameters.train_save_samples", 0),
    "train.pipeline": _option("model train --pipeline NAME", "full"),
    "train.save_samples": _option("model train --save-samples N", 250000),
    "train.training_journal": _none("the store knows which steps are done"),
    # -- of file versions 0.x
    "chat.greedy_mode": _none("answers are greedy unless --temperature says otherwise", False),
    "generate.port": _none(SERVED, 8000),
    "generate.prompt_file": _none("prompts stand in flows; give your own folder with --pipeline", "prompt.txt"),
    "generate.seed_file": _none("seed examples are those of the taxonomy", "seed_tasks.json"),
    "list.taxonomy_base": _to("parameters.taxonomy_base"),
    "list.taxonomy_path": _to("parameters.sdg_repo_url"),
    "download.filename": _option("model download --filename NAME"),
    "download.model_dir": _option("model download --model-dir DIR"),
    "download.release": _option("model download --release NAME"),
    "download.repository": _option("model download --repository NAME"),
    "general.model_family": _given("parameters.sdg_teacher_family", ""),
    "serve.gpu_layers": _option("model serve", -1),
    "serve.host_port": _option("model serve --host ADDRESS --port N", "127.0.0.1:8000"),
    "serve.max_ctx_size": _option("model serve", 4096),
    "train.num_instructions": _none("InstructLab did not read it either", -1),
}

OLDER: dict[str, Row] = {  # what a setting of 1.0.0 was in 0.x
    "generate.model": _to("models.teacher"),
}


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
