"""The 25 checks that evaluation has to stand, and the tests that show them. Below are those without a better place.

 1  250 questions by letters, beside lm-eval: likelihoods within 1e-4, the same accuracy, the same standard error
        test_checks_parity::test_250_questions_have_the_likelihoods_verdicts_and_errors_of_lm_eval
        test_parity::test_every_request_has_the_likelihood_that_lm_eval_gives_it
 2  by option texts: acc, acc_norm, acc_bytes, and no other verdict
        test_checks_parity::test_250_questions_have_the_likelihoods_verdicts_and_errors_of_lm_eval
        test_parity::test_every_request_has_the_likelihood_that_lm_eval_gives_it
 3  five shots, the first of a dev file
        test_parity::test_every_request_has_the_likelihood_that_lm_eval_gives_it
        test_tasks_parity::test_mmlu_is_asked_in_the_same_strings
 4  prompts, character by character: letters or texts, 0 or 5 shots, plain or chat, with a system text or without
        test_checks_parity::test_prompts_are_the_strings_of_lm_eval_in_all_16_forms
        test_tasks_parity::test_mmlu_is_asked_in_the_same_strings
 5  batches of any size, contexts shared or not, prefixes cached or not: the same within 1e-4
        test_parity::test_batches_and_sharing_change_nothing
        test_likelihood::test_company_and_order_change_nothing
        test_leaf::test_likelihoods_are_those_of_the_model_alone
 6  cut and just full contexts, options of one token and of many, one that begins another, blanks, no context, BOS
        test_parity::test_the_edges
 7  greedy flags, and of equal options the first
        test_parity::test_the_edges
        test_parity::test_every_request_has_the_likelihood_that_lm_eval_gives_it
        test_mmlu::test_what_has_no_number_is_unscored_and_of_equals_the_first_wins
 8  instructlab-eval's MMLU-Branch of two leaves: its mean of leaves is our score, our micro mean is named as such
        test_checks_parity::test_leaves_of_instructlab_have_the_score_that_instructlab_gives_them
        test_checks_parity::test_our_leaves_have_the_same_score_when_instructlab_asks_them
 9  our exported tasks in lm-eval: our own score, and no question in its own prompt
        test_tasks_parity::test_our_items_score_the_same_here_and_as_tasks_there
        test_tasks_parity::test_tasks_are_asked_and_scored_as_the_harness_does
        test_checks_parity::test_five_shots_show_no_question_of_ours_its_own_answer
10  no prompt holds its own question twice, nor a question that is asked among its shots
        test_mmlu::test_no_prompt_holds_its_own_question_or_one_that_is_asked
        test_tasks::test_shots_of_the_same_file_never_hold_the_question
        test_parity::test_no_prompt_holds_its_own_question_twice
11  golds B and C alone, D alone, and after a permutation: the same text
        test_mmlu::test_the_teachers_letter_decides_not_the_position_that_was_stored
        test_mmlu::test_options_are_ordered_by_seed_and_id_alone_and_gold_stays_the_same_text
12  multiple choice as teachers write it: read, or counted as left out with a reason
        test_validate::test_multiple_choice_as_teachers_write_it
        test_mmlu::test_what_cannot_be_asked_is_counted_and_a_tiny_or_empty_leaf_stops_nothing
13  leaves of 0, 1 and 4 questions, all right and all wrong: a report, and no interval that is a point
        test_checks::test_tiny_and_unanimous_leaves_have_a_report_and_no_certainty
        test_mmlu::test_what_cannot_be_asked_is_counted_and_a_tiny_or_empty_leaf_stops_nothing
        test_compare::test_tiny_leaves_are_inconclusive
        test_statistics::test_wilson_equals_scipy
14  the same model twice: differences of exactly 0, nothing called a change
        test_simulation::test_the_same_model_twice_has_exactly_no_difference
        test_mt_bench_branch::test_the_same_model_twice_changes_nothing
        test_report_tables::test_a_report_against_itself_shows_no_change
15  1,000 pairs of equal models: in at most 5 % is any leaf called a change
        test_checks::test_of_1000_pairs_of_equal_models_five_percent_are_called_different_at_most
        test_simulation::test_nothing_is_called_a_change_in_more_than_five_percent_of_families
16  30 points more on one leaf of ten, 50 questions each: found four times in five, other leaves not named
        test_simulation::test_a_planted_effect_on_one_leaf_is_found_and_others_are_not_named
17  a model that knows the gold has 1.0, one that avoids it 0.0
        test_checks::test_a_head_that_leans_to_the_gold_scores_all_and_away_from_it_nothing
        test_mmlu::test_an_oracle_scores_all_and_its_opposite_nothing
        test_leaf::test_a_model_that_knows_the_gold
18  statistics beside scipy, the clustered standard error beside inspect_ai
        test_statistics::test_wilson_equals_scipy
        test_statistics::test_sign_flip_of_right_and_wrong_is_the_exact_mcnemar_test
        test_statistics::test_single_item_clusters_give_the_ordinary_standard_error_and_t_interval
        test_statistics::test_student_t_equals_scipy
        test_statistics::test_clustered_standard_error_is_the_sandwich_formula
        test_checks_parity::test_clustered_standard_errors_are_those_of_inspect_ai
19  a judge's reply: the last mark on the scale, else none
        test_judge_marks::test_mark
        test_judge_marks::test_never_off_the_scale
20  a judge that is silent, refuses, fails or says nothing: unscored, never a low mark
        test_judge::test_failures_are_unscored
        test_judge::test_faults_of_every_kind_change_no_mark
        test_mt_bench::test_failures_of_the_judge_are_unscored
        test_dk_bench::test_failures_poison_no_average
21  what is kept: another model, prompt, weights or number format misses; the same again hits, byte by byte
        test_leaf::test_a_question_is_asked_once_whatever_model_and_item_are_called
        test_leaf::test_other_numbers_are_another_model
        test_mmlu::test_a_stop_loses_at_most_what_was_under_way
        test_evaluate::test_mmlu_is_measured_and_written
22  the same again from nothing, with the same seed: the same bytes
        test_checks::test_the_same_again_from_nothing_is_the_same_bytes
        test_mt_bench::test_without_a_time_equal_results_are_equal_bytes
23  without any network
        test_checks::test_without_a_network_everything_is_the_same
24  1,000 options in at most 8 seconds of one processor, and half of what one row per option costs
        test_checks::test_1000_options_take_no_more_than_8_processor_seconds
        test_checks::test_sharing_halves_what_one_row_for_each_option_costs
25  the files that InstructLab's pipeline reads have their keys, also for what was skipped
        test_checks::test_the_pipelines_metrics_step_finds_its_keys_whatever_was_skipped
        test_mmlu::test_the_files_of_a_skipped_benchmark_have_every_key
        test_mt_bench_branch::test_base_and_candidate
        test_mt_bench::test_files_are_those_of_fastchat
"""

from __future__ import annotations

import ast
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

from ilab.cli.evaluate_result import write
from ilab.cli.evaluate_run import Outcome
from ilab.data import Score
from ilab.evaluation.benchmarks.choices import Choice, Form, Scorer, ask_choices, summarise
from ilab.evaluation.benchmarks.paired import branch_data, pipeline_files
from ilab.evaluation.benchmarks.result import Row
from ilab.evaluation.compare import IMPROVED, INCONCLUSIVE, REGRESSED, compare
from ilab.evaluation.gate import Rules, decide
from ilab.evaluation.report import View, render
from ilab.models.likelihood import Pair, encode_pair, score_all
from ilab.models.likelihood_local import LocalLikelihoods
from ilab.models.local import LocalModel
from ilab.testing.simulated import simulated_items, simulated_pair

sys.path.insert(0, str(Path(__file__).parent))

from asked import close, site
from everything import build, results
from lm_eval_checks import benchmark

TESTS = Path(__file__).resolve().parents[1]
ROWS = 40  # questions of the comparison with one row per option; 250 in full


# -- the list above --------------------------------------------------------------------------------------------------


def listed() -> dict[int, list[tuple[str, str]]]:
    """Check to the (file, test) that show it."""
    found: dict[int, list[tuple[str, str]]] = {}
    number = 0
    for line in (__doc__ or "").splitlines():
        if begun := re.match(r" ?(\d+)  \S", line):
            number = int(begun[1])
            found[number] = []
        elif shown := re.fullmatch(r" {8}(test_\w+)::(test_\w+)", line):
            found[number].append((shown[1], shown[2]))
    return found


def test_every_check_has_a_test_and_every_test_that_is_named_exists() -> None:
    assert list(listed()) == list(range(1, 26))
    assert (__doc__ or "").count("::") == sum(map(len, listed().values()))  # no line was passed over
    known: dict[str, set[str]] = {}
    for number, tests in listed().items():
        assert tests, f"check {number} has no test"
        for file, name in tests:
            if file not in known:
                [path] = TESTS.rglob(f"{file}.py")
                body = ast.parse(path.read_text(encoding="utf-8")).body
                known[file] = {node.name for node in body if isinstance(node, ast.FunctionDef)}
            assert name in known[file], f"check {number}: there is no {file}::{name}"


# -- 13, 15, 17: leaves and models at the ends -----------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_tiny_and_unanimous_leaves_have_a_report_and_no_certainty(count: int, value: float) -> None:
    items = simulated_items({"knowledge/tiny": count, "knowledge/sure": 30})
    scores = {
        model: [
            Score(item=one.id, leaf=one.leaf, model=model, kind=one.kind, cluster=one.cluster, value=value)
            for one in items
        ]
        for model in ("base", "tuned")
    }
    found = compare(scores, items)
    told = [score for every in scores.values() for score in every]
    gate = decide(found, told, items, threshold=0.8, metrics=["accuracy"], rules=Rules())
    page = render(View(title="t", pipeline="p", comparison=found, gate=gate, items=items, scores=scores))
    leaves = {leaf["name"]: leaf for leaf in found["leaves"]}
    assert set(leaves) == {"knowledge/sure"} | ({"knowledge/tiny"} if count else set())
    for name, leaf in leaves.items():
        low, high = leaf["models"]["tuned"]["low"], leaf["models"]["tuned"]["high"]
        wilson = stats.binomtest(int(value * leaf["n"]), leaf["n"]).proportion_ci(0.95, "wilson")
        assert (low, high) == (pytest.approx(wilson.low, abs=1e-6), pytest.approx(wilson.high, abs=1e-6))
        assert high - low > 0.1
        assert name.rsplit("/", 1)[1] in page
    assert count == 0 or leaves["knowledge/tiny"]["verdict"] == INCONCLUSIVE


@pytest.mark.long
def test_of_1000_pairs_of_equal_models_five_percent_are_called_different_at_most() -> None:
    items = simulated_items({f"knowledge/{number}": 20 for number in range(10)})
    draw, called = random.Random(15), 0
    for _ in range(1000):
        leaves = compare(simulated_pair(items, draw, {}, discordant=0.5), items)["leaves"]
        called += any(leaf["verdict"] in (IMPROVED, REGRESSED) for leaf in leaves)
    assert called <= stats.binom.ppf(0.999, 1000, 0.05)


@pytest.mark.parametrize(("lean", "expected"), [(1000.0, 1.0), (-1000.0, 0.0)])
def test_a_head_that_leans_to_the_gold_scores_all_and_away_from_it_nothing(
    tiny_model: Path, tmp_path: Path, lean: float, expected: float
) -> None:
    """Through prompts, tokens, the network and the choice; every gold is C, and its text alone holds a ``Q``."""
    model = LocalModel.load(tiny_model, "cpu", 1)
    head = model.network.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(head.out_features))
    for text in (" C", " Q"):
        head.bias.data[model.renderer.encode_text(text)[-1]] = lean
    choices = [
        Choice(id=f"q{n}", group="g", question=f"What is {n}?", options=("##", "%%", "QQ", "&&"), gold=2)
        for n in range(6)
    ]
    here = site(tmp_path)
    scorer = Scorer("leaning", model.renderer, lambda: LocalLikelihoods(model))
    rows = ask_choices(scorer, choices, {}, Form(shots=0, texts=True), {}, here)
    close(here)
    assert [row.score for row in rows] == [expected] * 6
    assert [float(row.details["text_correct"]) for row in rows] == [expected] * 6


# -- 22, 23: the same again, and without a network -------------------------------------------------------------------


def evaluated(folders: Sequence[Path], port: int = 0, *before: str) -> subprocess.CompletedProcess[str]:
    """All of evaluation on the projects in ``folders``, in a process of its own."""
    script = Path(__file__).with_name("everything.py")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    return subprocess.run(
        [*before, sys.executable, str(script), str(port), *map(str, folders)],
        env={**os.environ, **offline, **path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def twice(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two equal projects, each evaluated with a store of its own."""
    root = tmp_path_factory.mktemp("twice")
    folders = build(root / "one", tiny_model), build(root / "other", tiny_model)
    done = evaluated(folders)
    assert done.returncode == 0, done.stderr
    return folders


def test_the_same_again_from_nothing_is_the_same_bytes(twice: tuple[Path, Path]) -> None:
    first, second = map(results, twice)
    assert {"out/leaves/comparison.json", "out/branch/base.json", "out/mmlu/result.csv"} <= first.keys()
    assert first == second
    leaves = json.loads(first["out/leaves/result.json"])
    assert leaves["n"] == 22 and leaves["rows"] != json.loads(first["out/leaves/base.json"])["rows"]


def test_without_a_network_everything_is_the_same(twice: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> None:
    """Not even loopback is there: a listener that this process reaches is asked for first, and must be out of reach."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives nobody a namespace without a network")
    folder = build(tmp_path / "alone", tiny_model)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert "there is a network here" in evaluated([], port).stderr
        done = evaluated([folder], port, unshare, "-rn")
    assert done.returncode == 0, done.stderr
    assert results(folder) == results(twice[0])


# -- 24: speed -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """A random Llama of 4 layers × 256 and a vocabulary of 8,192, on one thread."""
    folder = tmp_path_factory.mktemp("large")
    benchmark().make_model(folder)
    return LocalModel.load(folder, "cpu", 1)


def shared(model: LocalModel, asked: Sequence[tuple[str, str]]) -> list[float]:
    likelihoods = LocalLikelihoods(model)
    return [one.total for one in score_all(likelihoods, [encode_pair(model.renderer, *pair) for pair in asked])]


@torch.inference_mode()
def apart(model: LocalModel, asked: Sequence[tuple[str, str]]) -> list[float]:
    """A row for each option, eight in a batch, the longest first; logits of all positions."""
    pairs: list[Pair] = [encode_pair(model.renderer, *pair) for pair in asked]
    order = sorted(range(len(pairs)), key=lambda at: -len(pairs[at].context + pairs[at].continuation))
    totals = [0.0] * len(pairs)
    for begin in range(0, len(order), 8):
        rows = [pairs[at].context + pairs[at].continuation for at in order[begin : begin + 8]]
        width = max(map(len, rows))
        logits = model.network(input_ids=torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])).logits
        logs = logits.log_softmax(-1)
        for line, (at, row) in enumerate(zip(order[begin : begin + 8], rows, strict=True)):
            start = len(pairs[at].context)
            totals[at] = sum(float(logs[line, place - 1, row[place]]) for place in range(start, len(row)))
    return totals


def seconds(act: Callable[[], list[float]]) -> tuple[float, list[float]]:
    """Processor time of the faster of two runs, and what came of it."""
    took = []
    for _ in range(2):
        began = time.process_time()
        values = act()
        took.append(time.process_time() - began)
    return min(took), values


def test_sharing_halves_what_one_row_for_each_option_costs(large: LocalModel) -> None:
    asked = benchmark().requests(ROWS, 0)
    slow, wanted = seconds(lambda: apart(large, asked))
    fast, found = seconds(lambda: shared(large, asked))
    assert found == pytest.approx(wanted, abs=1e-4)
    assert fast <= slow / 2


@pytest.mark.long
def test_1000_options_take_no_more_than_8_processor_seconds(large: LocalModel) -> None:
    asked = benchmark().requests(250, 0)
    took, found = seconds(lambda: shared(large, asked))
    assert len(found) == 1000 and took <= 8


# -- 25: files of the pipeline ---------------------------------------------------------------------------------------


def outcome(name: str) -> Outcome:
    rows = [Row(id=f"{n}", group="a", question="?", score=float(n % 2)) for n in range(4)]
    result = summarise(name, "tuned", rows, "how")
    return Outcome(name, result, files={f"{name}_data.json": branch_data(name, result)})


def metrics_step(folder: Path) -> dict[str, Any]:
    """What the pipeline's last step takes from the three files, and their reports."""
    found = {
        name: json.loads((folder / f"{name}_data.json").read_text()) for name in ("mmlu_branch", "mt_bench_branch")
    }
    ranked = json.loads((folder / "mt_bench_data.json").read_text())
    for data in found.values():
        assert {"report_title", "max_score", "model", "base_model"} <= data.keys()
        assert json.loads(data["summary"]).keys() == {"improvements", "regressions", "no_changes", "new"}
    assert {"judge_model", "error_rate"} <= found["mt_bench_branch"].keys() and isinstance(ranked["reports"], list)
    scores = {
        f"{name}_{role}": data[f"{role}_model_score"] for name, data in found.items() for role in ("trained", "base")
    }
    return {"best_model": ranked["best_model"], "best_score": ranked["best_score"], **scores}


def test_the_pipelines_metrics_step_finds_its_keys_whatever_was_skipped(
    twice: tuple[Path, Path], tmp_path: Path
) -> None:
    asked = metrics_step(twice[0] / "out" / "branch")  # knowledge alone, by the command itself
    assert asked["mmlu_branch_trained"] is not None and asked["mt_bench_branch_trained"] is None
    skills = tmp_path / "skills"
    written = write(outcome("mt_bench_branch"), skills)
    assert {path.name for path in written} >= pipeline_files().keys()
    found = metrics_step(skills)
    assert (found["mt_bench_branch_trained"], found["mmlu_branch_trained"], found["best_score"]) == (0.5, None, None)
    before = (skills / "mt_bench_branch_data.json").read_bytes()
    write(outcome("mmlu_branch"), skills)  # measured later, into the same folder: nothing is taken back
    assert (skills / "mt_bench_branch_data.json").read_bytes() == before
    assert metrics_step(skills)["mmlu_branch_trained"] == 0.5
    assert not pipeline_files().keys() & {
        path.name for path in write(Outcome("tasks", outcome("tasks").result), tmp_path)
    }
