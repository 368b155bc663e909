"""Of data generation: taxonomy, documents, teacher, mixing."""

from __future__ import annotations

import re

from ilab.parameters.parameter import Parameter, not_negative, one_of, part, positive, share

FAMILIES = ("granite", "llama", "merlinite", "mistral", "mixtral", "qwen")  # those of ilab.models.family

DATA: tuple[Parameter, ...] = (
    Parameter("sdg_base_model", str, "", "model to fine-tune: `tiny`, or a Hugging Face directory", required=True),
    Parameter("sdg_repo_url", str, "", "taxonomy: a folder, one qna.yaml, or a git URL (URL@ref)", required=True),
    Parameter("sdg_repo_branch", str, "", "branch, tag or commit of sdg_repo_url; empty: the repository's own choice"),
    Parameter(
        "sdg_repo_pr",
        int,
        0,
        "number of a pull request to sdg_repo_url, whose head is taken; 0: none",
        valid=">= 0",
        check=not_negative,
    ),
    Parameter(
        "sdg_pipeline",
        str,
        "",
        "flow that makes the synthetic data: extractive, simple, full, llama, or a folder; empty: "
        "`simple` with a teacher, else `extractive`",
    ),
    Parameter("sdg_teacher_model", str, "", "name under which the endpoint serves the teacher"),
    Parameter(
        "sdg_teacher_family",
        str,
        "",
        "prompt format for a teacher that is asked by plain text; empty: its server knows it",
        valid=", ".join(FAMILIES),
        check=lambda value: value in ("", *FAMILIES),
    ),
    Parameter(
        "sdg_verifier_model",
        str,
        "",
        "name under which where.verifier serves a second teacher, for flows with the block `agreement`",
    ),
    Parameter("sdg_scale_factor", int, 30, "instructions to make per seed example", valid="> 0", check=positive),
    Parameter(
        "sdg_quality_threshold",
        float,
        0.7,
        "lowest score with which a judge lets a row pass",
        valid="0-1",
        check=share,
    ),
    Parameter(
        "sdg_near_duplicates",
        float,
        0.8,
        "similarity from which a teacher's pairs are near-duplicates, of which the first stays; 1 keeps all",
        valid="above 0, up to 1",
        check=lambda value: 0 < value <= 1,
    ),
    Parameter(
        "sdg_benchmarks",
        str,
        "",
        "files of questions that must not become samples: `PATH, NAME=PATH, PATH#QUESTION+ANSWER` (JSONL, CSV, "
        "Parquet)",
    ),
    Parameter(
        "sdg_max_tokens",
        int,
        None,
        "most tokens of one of the teacher's answers; empty: as the blocks of the flow say",
        valid="> 0",
        check=positive,
    ),
    Parameter("sdg_random_seed", int, 42, "seed of every choice in data generation and evaluation"),
    Parameter("sdg_batch_size", int, 16, "requests in flight per worker", "where", "> 0", positive, prod=32),
    Parameter("sdg_num_workers", int, 4, "concurrent workers towards the teacher", "where", "> 0", positive, prod=8),
    Parameter(
        "sdg_max_batch_len",
        int,
        None,
        "longest sample that data preparation keeps, in tokens; the lower of it and train_sequence_length holds",
        valid="> 0",
        check=positive,
    ),
    Parameter(
        "sdg_sample_size",
        float,
        None,
        "share of each leaf's questions that a phase takes, in place of mix_sampling_size",
        valid="above 0",
        check=positive,
    ),
    Parameter(
        "taxonomy_base",
        str,
        "empty",
        "build only the leaves that changed since this branch, tag or commit; `empty`: all of them",
    ),
    Parameter("chunk_tokens", int, 500, "most tokens of one document chunk", valid="> 0", check=positive),
    Parameter("chunk_word_count", int, None, "most words of one document chunk", valid="> 0", check=positive),
    Parameter(
        "chunk_tokenizer",
        str,
        "",
        "what counts chunk_tokens: a model's directory, or a tokenizer.json; empty: the base model's, else an estimate",
    ),
    Parameter(
        "server_ctx_size",
        int,
        None,
        "the teacher's context window in tokens; chunks are cut so that every request fits",
        valid="> 0",
        check=positive,
    ),
    Parameter(
        "document_policy",
        str,
        "warn",
        "what becomes of hidden and instruction-like text in documents: warn, drop or fail, or by source: "
        "`PATTERN=WORD, …, WORD`",
    ),
    Parameter(
        "document_converter",
        str,
        "builtin",
        "what reads PDF and DOCX: builtin, or docling (pip install 'ilab[docling]')",
        valid="builtin, docling",
        check=one_of("builtin", "docling"),
    ),
    Parameter("mix_question_variants", int, 1, "copies of each question, the first clean", valid="> 0", check=positive),
    Parameter(
        "mix_question_noise",
        float,
        0.0,
        "share of a copied question's words that is dropped or swapped",
        valid="0 up to, not including, 1",
        check=part,
    ),
    Parameter(
        "mix_replay",
        float,
        0.3,
        "share of phase 2's rows that come from phase 1 again",
        valid="0 up to, not including, 1",
        check=part,
    ),
    Parameter(
        "mix_sampling_size",
        str,
        "1.0",
        "how much of each leaf's questions a phase takes: a share as 0.5, or a count as 30",
        valid="share or count >= 0",
        check=lambda value: re.fullmatch(r"\d+(\.\d+)?", value) is not None,
    ),
    Parameter("mix_max_per_leaf", int, None, "most of a leaf's questions in a phase", valid="> 0", check=positive),
    Parameter(
        "mix_raft_distractors",
        int,
        0,
        "phase 2 asks the knowledge questions again among so many other passages (RAFT); 0: it does not",
        valid=">= 0",
        check=not_negative,
    ),
    Parameter(
        "mix_raft_oracle",
        float,
        0.8,
        "share of those questions whose own passage is among the passages",
        valid="0-1",
        check=share,
    ),
    Parameter(
        "sdg_mix_recipe", str, "", "recipe file: datasets made before that go into phase 2 (skills), and how much"
    ),
    Parameter("sdg_mix_recipe_knowledge", str, "", "the same for phase 1 (knowledge)"),
)
