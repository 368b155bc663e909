"""``ilab data``: what is asked for, printed and written, and the exit codes."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ilab.allowance import Allowance
from ilab.amount import GROWTH, LEAST_RATE, ROUNDS, Ask, ask_again, ask_for, worth_asking
from ilab.artifacts import Dataset
from ilab.cli.app import main
from ilab.cli.data_options import REFUSED, TAKEN
from ilab.config import Endpoint
from ilab.core.files import write_json
from ilab.core.store import Store
from ilab.data import TrainingRow, digest_text
from ilab.errors import InputError, ServiceError, Stopped
from ilab.provenance import find_run
from ilab.testing.teacher import Teacher, answer_by_rule, serve

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
RECORD = "compositional_skills/grounded/logistics/delivery_record"


def ilab(store: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program itself, for what makes something."""
    command = [sys.executable, "-m", "ilab", "-C", str(QUICKSTART), "--store", str(store), "data", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def look(store: Path, *arguments: str) -> Result:
    done = CliRunner().invoke(main, ["-C", str(QUICKSTART), "--store", str(store), *arguments])
    assert done.exception is None or not isinstance(done.exception, (TypeError, KeyError, AttributeError)), done.output
    return done


def told(store: Path, *arguments: str) -> Any:
    done = look(store, "--json", *arguments)
    assert done.exception is None, done.exception
    return json.loads(done.stdout)


def somebody(body: dict[str, Any]) -> str:
    """A teacher that answers about every third prompt in a form that nobody can read, however often it is asked."""
    return "no" if int(digest_text(body["messages"][-1]["content"])[:8], 16) % 3 == 0 else answer_by_rule(body)


@pytest.fixture(scope="module")
def teacher() -> Iterator[Teacher]:
    with serve() as running:
        yield running


@pytest.fixture(scope="module")
def made(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store and a folder with what `data generate` made with a teacher."""
    store, out = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("out")
    done = ilab(
        store, "generate", "--endpoint-url", teacher.url, "--model", "teacher", "--pipeline", "simple",
        "--api-key", "no_api_key", "--num-instructions", "12", "--output-dir", str(out), "--num-cpus", "10",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "note: --num-cpus is not needed" in done.stderr
    assert "warning" not in done.stderr
    return store, out


def test_number_of_instructions_is_met_with_few_calls(made: tuple[Path, Path], teacher: Teacher) -> None:
    (train,) = made[1].glob("*/train_*.jsonl")
    assert len(train.read_text().splitlines()) == 12
    counts = find_run(Store(made[0])).record.counts
    assert counts["accepted"] == 12 == len(find_run(Store(made[0])).samples)
    assert counts["calls"] < 30  # and not one for each of the hundred passages and seed examples


def test_a_budget_that_ends_in_a_later_round_leaves_what_there_is(tmp_path: Path) -> None:
    with serve(somebody) as teacher:
        command = (
            "generate", "--endpoint-url", teacher.url, "--model", "teacher", "--pipeline", "simple", "--quiet",
            "--num-instructions", "12", "--output-dir", str(tmp_path / "out"),
        )  # fmt: skip
        first = ilab(tmp_path / "store", *command, "--budget", "25")
        assert first.returncode == 6, first.stderr
        assert re.search(r"note: \d+ of 12 instructions are accepted: asking for \d+ samples", first.stderr)
        assert "the budget of 25 calls is spent" in first.stderr and len(teacher.calls) == 25
        (train,) = (tmp_path / "out").glob("*/train_*.jsonl")
        assert 0 < len(train.read_text().splitlines()) == len(find_run(Store(tmp_path / "store")).samples) < 12
        assert ilab(tmp_path / "store", *command).returncode == 0
    assert len(find_run(Store(tmp_path / "store")).samples) == 12


def test_never_more_instructions_than_wanted_stand_in_the_store(tmp_path: Path) -> None:
    done = ilab(tmp_path, "--json", "generate", "--pipeline", "extractive", "--num-instructions", "3", "--quiet")
    assert done.returncode == 0, done.stderr
    run = find_run(Store(tmp_path))
    assert len(run.samples) == 3 and all(sample.train_on == "assistant" for sample in run.samples)
    surplus = {row.reason for row in run.rejected if row.block == "num-instructions"}
    assert surplus == {
        "over --num-instructions: 3 are wanted",
        "no instruction: a passage that is trained on whole",
    }
    assert sum(leaf["accepted"] for leaf in run.card["leaves"].values()) == 3
    assert "extractive (at most 3)" in ilab(tmp_path, "list").stdout


def test_fewer_instructions_than_wanted_are_a_warning_with_the_reason(tmp_path: Path) -> None:
    with serve(lambda body: answer_by_rule({**body, "seed": 1})) as teacher:  # always the same: duplicates
        done = ilab(
            tmp_path / "store", "generate", "--endpoint-url", teacher.url, "--model", "teacher",
            "--pipeline", "simple", "--num-instructions", "500", "--quiet", "--legacy", "--output-dir", str(tmp_path),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    warned = re.search(
        r"warning: (\d+) of 500 instructions were accepted: \d+ rows were refused \(.*duplicate", done.stderr
    )
    assert warned is not None, done.stderr
    (train,) = tmp_path.glob("train_teacher_*.jsonl")
    assert len(train.read_text().splitlines()) == int(warned[1]) < 500
    assert "  Q: " not in done.stdout


def test_list(made: tuple[Path, Path]) -> None:
    store, out = made
    found = told(store, "data", "list", str(out))
    newest = find_run(Store(store))
    assert found["runs"][0]["run"] == newest.record.key
    assert found["runs"][0]["teacher"] == "teacher"
    assert found["runs"][0]["accepted"] == len(newest.samples)
    (exported,) = found["exported"]
    assert (exported["run"], exported["samples"]) == (newest.record.key, 12)
    text = look(store, "data", "list").stdout
    assert newest.record.key[:8] in text and "simple (at most 12)" in text
    assert look(store, "data", "list", str(out / "nowhere")).exit_code != 0


def test_looking_makes_no_store(tmp_path: Path) -> None:
    for arguments in (("list",), ("show",), ("why", "x"), ("export", "--output", "f")):
        done = ilab(tmp_path / "none", *arguments)
        assert (done.returncode, "nothing has been generated yet" in done.stderr) == (2, True)
    assert not (tmp_path / "none").exists()


def test_show_filters(tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert ilab(store, "generate", "--sdg-scale-factor", "2").returncode == 0
    run = find_run(Store(store))
    everything = told(store, "data", "show", "--limit", "100000")
    assert everything["found"] == len(run.samples) + len(run.rejected) == len(everything["entries"])
    for arguments, wanted in (
        (("--verdict", "rejected"), {row.id for row in run.rejected}),
        (("--verdict", "accepted", "--leaf", "delivery_record"), {s.id for s in run.samples if s.leaf == RECORD}),
        (("--block", "recombine"), {s.id for s in run.samples if s.origin.block == "recombine"}),
        (("--grep", "KILN", "--leaf", "knowledge"), None),
    ):
        shown = told(store, "data", "show", run.record.key[:6], *arguments, "--limit", "100000")["entries"]
        if wanted is None:
            assert shown and all("kiln" in json.dumps(entry).casefold() for entry in shown)
            assert {entry["leaf"].split("/")[0] for entry in shown} == {"knowledge"}
        else:
            assert wanted and {entry["id"] for entry in shown} == wanted
    text = look(store, "data", "show", "--limit", "1").stdout
    assert text.count("Q: ") == 1 and "not shown (--limit)" in text
    for wrong in (("--leaf", "deliver_record"), ("--block", "recombin"), ("zzz",)):
        done = ilab(store, "show", *wrong)
        assert done.returncode == 2
        assert "did you mean" in done.stderr or "data list" in done.stderr


def test_why_of_a_sample_and_of_a_refused_row(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with serve(somebody) as teacher:
        done = ilab(
            store, "generate", "--endpoint-url", teacher.url, "--model", "teacher", "--pipeline", "simple",
            "--preview", "4",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = find_run(Store(store))
    sample = next(one for one in run.samples if one.leaf.startswith("knowledge"))
    story = told(store, "data", "why", sample.id)
    chunk = run.chunks[sample.leaf, sample.origin.chunk or ""]
    assert story["verdict"] == "accepted"
    assert re.fullmatch(rf"{sample.leaf}/qna.yaml:\d+:\d+", story["place"]) and story["from_seed"]
    assert story["document"]["passage"] == chunk.text and story["document"]["source"] == chunk.source
    assert "[PASSAGE]" in story["prompt"]["prompt"]
    assert (story["teacher"], story["block"]) == ("teacher", "write")
    assert story["usage"]["completion_tokens"] > 0 and story["sampling"]["temperature"] == 0.7
    assert story["reported"] == {"model": "teacher", "system_fingerprint": "scripted"}
    refused = next(row for row in run.rejected if row.block == "write")
    story = told(store, "data", "why", refused.id)
    assert (story["verdict"], story["reason"], story["answer"]) == ("rejected", refused.reason, "no")
    assert story["document"] is not None or not refused.leaf.startswith("knowledge")
    text = look(store, "data", "why", sample.id).stdout
    for word in (
        story["flow"],
        "template of the prompt",
        chunk.source,
        "temperature 0.7",
        sample.answer.split("\n")[0],
    ):
        assert word in text


def test_why_follows_a_sample_into_datasets_and_models(made: tuple[Path, Path], tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = find_run(Store(made[0]))
    for name in ("generate", "taxonomy", "documents"):
        (store.root / name).symlink_to(run.store.root / name)
    sample, other = run.samples[0], run.samples[1]
    fields = run.record.model_dump(mode="json")
    steps = {
        ("mix", "1"): {"samples": run.record.key},
        ("train", "2"): {"dataset": "1" * 32},
        ("select", "3"): {"candidates": "2" * 32},
        ("mix", "4"): {"samples": run.record.key, "measured": "3" * 32},  # holds the other sample alone
        ("train", "5"): {"dataset": "4" * 32},
        ("gate", "6"): {"evaluation": "3" * 32},
    }
    for (kind, digit), inputs in steps.items():
        folder = tmp_path / kind / (digit * 32)
        if kind == "mix":
            held = sample if digit == "1" else other
            row = TrainingRow(
                id=f"replay/{held.id}~2", leaf=held.leaf, source="skill", sample=held.id, messages=held.messages
            )
            Dataset(folder).write([row], {})
        record = {**fields, "type": kind, "step": f"step-{digit}", "key": digit * 32, "inputs": inputs}
        write_json(folder / "record.json", record)
    story = told(tmp_path, "data", "why", f"replay/{sample.id}~2")
    assert story["datasets"] == [{"step": "step-1", "key": "1" * 32, "rows": 1}]
    assert [model["step"] for model in story["models"]] == ["step-2", "step-3"]
    assert "step-1 (1 row," in look(tmp_path, "data", "why", sample.id).stdout


def test_why_takes_the_beginning_of_an_id(made: tuple[Path, Path]) -> None:
    run = find_run(Store(made[0]))
    ids = {entry.id for entry in run.entries()}
    sample = run.samples[-1]
    begun = next(sample.id[:end] for end in range(1, 999) if sum(one.startswith(sample.id[:end]) for one in ids) == 1)
    run_key = run.record.key[:8]
    assert told(made[0], "data", "why", begun, "--run", run_key)["id"] == sample.id
    assert look(made[0], "data", "why", begun[:-1], "--run", run_key).exit_code != 0
    assert ilab(made[0], "why", "nothing/like/it").returncode == 2


def test_a_terminal_gets_no_escape_sequences_of_a_teachers(tmp_path: Path) -> None:
    with serve(lambda body: "[QUESTION]\nq\x1b]0;owned\x07?\n[/QUESTION]\n[ANSWER]\n\x1b[2Ja\n[/ANSWER]") as teacher:
        done = ilab(
            tmp_path, "generate", "--endpoint-url", teacher.url, "--model", "teacher", "--pipeline", "simple",
            "--preview", "1",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert "owned" in done.stdout
    shown = ilab(tmp_path, "show").stdout
    story = ilab(tmp_path, "why", find_run(Store(tmp_path)).samples[0].id).stdout
    assert "owned" in shown and "owned" in story
    assert "\x1b" not in done.stdout + shown + story


def test_export_and_its_refusals(made: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "skills.json"
    facts = told(made[0], "data", "export", "--format", "sharegpt", "--kind", "grounded", "--output", str(file))
    rows = json.loads(file.read_text())
    assert facts["samples"] == len(rows) > 0
    assert all(row["id"].startswith(RECORD) for row in rows)
    again = ("export", "--format", "csv", "--output", str(file))
    assert "--force" in ilab(made[0], *again).stderr
    assert json.loads(file.read_text()) == rows
    assert ilab(made[0], *again, "--force").returncode == 0
    assert file.read_text().startswith("id,leaf,kind")
    assert ilab(made[0], "export", "--kind", "document", "--output", str(tmp_path / "x")).returncode == 2


def test_subset_is_the_same_every_time_and_its_head_is_a_smaller_one(made: tuple[Path, Path], tmp_path: Path) -> None:
    texts = []
    for name, size in (("a", "6"), ("b", "6"), ("c", "3")):
        facts = told(made[0], "data", "subset", "--size", size, "--output", str(tmp_path / name))
        assert facts["samples"] == int(size) and 0 < facts["coverage"] <= 1
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]
    assert texts[0].startswith(texts[2])


class Embeddings(BaseHTTPRequestHandler):
    """Embeds a text by its length, and answers out of order."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status = 200 if self.headers["authorization"] == "Bearer s3cret" else 401
        data = [{"index": index, "embedding": [1.0, len(text)]} for index, text in enumerate(body["input"])]
        answer = json.dumps({"data": data[::-1], "model": body["model"]}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        return


def test_embeddings_of_a_server(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ilab.models.embeddings import embed

    monkeypatch.setenv("EMBED_KEY", "s3cret")
    with ThreadingHTTPServer(("127.0.0.1", 0), Embeddings) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        texts = ["x" * length for length in range(150)]  # three requests
        assert embed(url, "m", texts, "env:EMBED_KEY") == [[1.0, float(length)] for length in range(150)]
        with pytest.raises(ServiceError, match="HTTP 401"):
            embed(url, "m", texts)
        arguments = ("--embeddings", url, "--embedding-model", "m", "--api-key", "env:EMBED_KEY")
        facts = told(made[0], "data", "subset", "--size", "50%", "--output", str(tmp_path / "f"), *arguments)
        assert facts["samples"] == len((tmp_path / "f").read_text().splitlines())
        server.shutdown()
    with pytest.raises(ServiceError, match="cannot be asked"):
        embed(url, "m", texts)


@pytest.mark.parametrize("option", sorted({*TAKEN, *REFUSED} - {"--num-cpus"}))
def test_options_without_effect_are_explained(option: str, tmp_path: Path) -> None:
    value = [] if option == "--enable-serving-output" else ["600"]
    arguments = [
        "-C",
        str(QUICKSTART),
        "--store",
        str(tmp_path),
        "data",
        "generate",
        option,
        *value,
        "--max-calls",
        "3",
    ]
    done = CliRunner().invoke(main, arguments)  # --max-calls without --preview ends it in any case
    told = f"{done.exception}{done.output}"
    assert (REFUSED | TAKEN)[option] in told
    assert ("has no meaning" in told) == (option in REFUSED)


@pytest.mark.parametrize(
    "arguments", [("--legacy",), ("--system-prompt", "x"), ("--preview", "1", "--num-instructions", "3")]
)
def test_options_that_do_not_go_together(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert ilab(tmp_path, "generate", *arguments).returncode == 2


@pytest.mark.parametrize("below", ["", "more"])
def test_a_file_in_place_of_the_folder_is_told_before_anything_is_asked(tmp_path: Path, below: str) -> None:
    (tmp_path / "out").touch()
    with serve() as teacher:
        done = ilab(
            tmp_path / "store", "generate", "--endpoint-url", teacher.url, "--model", "teacher", "--preview", "1",
            "--output-dir", str(tmp_path / "out" / below),
        )  # fmt: skip
    assert done.returncode == 2 and "this is a file; a folder is written into" in done.stderr, done.stderr
    assert teacher.calls == []


def test_a_dry_run_tells_calls_tokens_and_cost_of_every_leaf(tmp_path: Path) -> None:
    """From the prices in ilab.yaml to the answer, and what it says is what a run then takes."""
    shutil.copytree(QUICKSTART / "taxonomy", tmp_path / "taxonomy")
    with serve() as teacher:
        (tmp_path / "ilab.yaml").write_text(
            f"pipeline: quickstart\nparameters: {{sdg_repo_url: taxonomy, sdg_teacher_model: teacher, sdg_scale_factor: 2}}\n"
            f"where:\n  teacher: {{url: '{teacher.url}', price_read: 0.5, price_written: 2, currency: EUR}}\n"
        )

        def generate(*arguments: str, json_too: bool = True) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "ilab", *["--json"] * json_too, "-C", str(tmp_path), "data", "generate"]
            return subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)

        told = json.loads(generate("--dry-run").stdout)
        assert told["taxonomy"]["state"] == "reuse"
        whole, leaves = told["generate"], told["generate"]["leaves"]
        assert (whole["state"], whole["currency"], len(leaves)) == ("run", "EUR", 4)
        for name in ("calls", "tokens", "tokens_written", "cost"):
            assert sum(leaf[name] for leaf in leaves.values()) == pytest.approx(whole[name], abs=2)
        for leaf in (*leaves.values(), whole):
            read = leaf["tokens"] - leaf["tokens_written"]
            assert leaf["cost"] == pytest.approx((0.5 * read + 2 * leaf["tokens_written"]) / 1e6)
        text = generate("--dry-run", "--budget", "0.01", json_too=False)
        assert f"{whole['calls']} calls, {whole['tokens']:,} tokens, cost {whole['cost']:.4f} EUR" in text.stdout
        assert "cost (EUR)" in text.stdout and RECORD in text.stdout
        assert "the budget of 0.01 is less than that" in text.stderr
        few = json.loads(generate("--dry-run", "--preview", "1").stdout)["generate"]
        assert [leaf["rows"] for leaf in few["leaves"].values()] == [1, 1, 1, 1]
        assert few["calls"] == 4
        some = json.loads(generate("--dry-run", "--num-instructions", "5").stdout)["generate"]
        assert some["calls"] < whole["calls"] / 10
        assert teacher.calls == []
        made = json.loads(generate().stdout)
        assert made["counts"]["calls"] == whole["calls"] == len(teacher.calls)
        assert "leaves" not in json.loads(generate("--dry-run").stdout)["generate"]
        assert json.loads(generate("--dry-run").stdout)["generate"]["state"] == "reuse"


def test_a_dry_run_without_a_teacher_counts_rows(tmp_path: Path) -> None:
    done = ilab(tmp_path, "generate", "--dry-run")
    assert done.returncode == 0
    assert re.search(rf"{RECORD} +\d+\n", done.stdout)
    assert "calls" not in done.stdout and "tokens" not in done.stdout


def test_a_budget_is_a_hard_stop_and_the_work_goes_on(tmp_path: Path) -> None:
    with serve(latency=0.01) as teacher:
        options = (
            "generate",
            "--endpoint-url",
            teacher.url,
            "--model",
            "teacher",
            "--pipeline",
            "simple",
            "--preview",
            "2",
        )
        store, whole = tmp_path / "store", tmp_path / "whole"
        calls, seen = 0, []
        while (done := ilab(store, *options, "--budget", "3")).returncode == 6:
            calls += 3
            assert "the budget of 3 calls is spent: 3 calls" in done.stderr
            assert len(teacher.calls) == calls
            assert list(store.glob("generate/*/record.json")) == []  # what is not whole is no result
            said = re.search(r"so far: (\d+) samples, \d+ rows refused or not finished: (.+)", done.stderr)
            assert said is not None  # but it is paid for, and can be looked at
            so_far = [json.loads(line) for line in (Path(said[2]) / "samples.jsonl").read_text().splitlines()]
            assert len(so_far) == int(said[1]) and (Path(said[2]) / "rejected.jsonl").is_file()
            seen.append(len(so_far))
        assert done.returncode == 0, done.stderr
        assert seen == sorted(seen) and seen[-1] > 0
        paid = len(teacher.calls)
        assert calls < paid <= calls + 3
        assert ilab(whole, *options).returncode == 0
        assert len(teacher.calls) == 2 * paid
        leaves = ilab(tmp_path / "leaves", *options[:-2], "--budget", "3")  # most leaves get nothing of it
        assert leaves.returncode == 6 and "so far: " in leaves.stderr
    assert find_run(Store(store)).samples == find_run(Store(whole)).samples


def test_a_budget_in_money_counts_tokens_and_what_is_under_way() -> None:
    endpoint = Endpoint(url="http://x", price_read=1.0, price_written=10.0, currency="EUR")
    purse = Allowance.parse("0.01 eur", endpoint)
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}  # 0.002
    purse.take()
    purse.answered(usage)
    for _ in range(4):
        purse.take()
    purse.check()
    with pytest.raises(ServiceError):
        purse.take()
    with pytest.raises(Stopped, match=r"the budget of 0.01 EUR is spent: 5 calls, 0.002 EUR"):
        purse.check()
    for _ in range(4):
        purse.answered(usage)
    assert purse.spent == pytest.approx(0.01)


def test_a_budget_in_money_holds_with_many_requests_at_once(tmp_path: Path) -> None:
    with serve(latency=0.05) as teacher:
        prices = ("--set", "where.teacher.price_read=1000", "--set", "where.teacher.price_written=0")
        command = [sys.executable, "-m", "ilab", "-C", str(QUICKSTART), "--store", str(tmp_path), *prices, "data"]
        command += ["generate", "--endpoint-url", teacher.url, "--model", "teacher", "--pipeline", "simple", "--quiet"]
        command += ["--sdg-scale-factor", "1", "--budget", "8.00"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    spent = re.search(r"the budget of 8 USD is spent: (\d+) calls, ([\d.]+) USD", done.stderr)
    assert spent is not None, done.stderr
    dearest = 0.5  # dollars: no prompt has 500 words
    assert 8 - dearest <= float(spent[2]) <= 8
    assert len(teacher.calls) == int(spent[1]) > 5


def test_calls_that_fail_let_the_next_ones_go_on() -> None:
    purse = Allowance(cost=1.25, price_read=250_000, price_written=0, currency="EUR")
    made: list[str] = []

    async def call(name: str) -> None:
        await purse.room()
        try:
            purse.take()
        except ServiceError:
            made.append("refused")
            return
        made.append(name)
        await asyncio.sleep(0)
        if name == "bad":
            purse.failed()
        else:
            purse.answered({"prompt_tokens": 1})

    async def all_of_them() -> None:
        names = ["bad"] * 2 + ["paid"] * 20
        async with asyncio.timeout(10):
            await asyncio.gather(*(call(name) for name in names))

    asyncio.run(all_of_them())
    # Two that failed stay set aside at 0.25 each, so three are paid for.
    assert Counter(made) == {"bad": 2, "paid": 3, "refused": 17}


@pytest.mark.parametrize("text", ["", "-3", "many", "2.5 calls", "2.50", "3 USD", "1e9", "5 calls more"])
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(InputError):
        Allowance.parse(text, Endpoint(url="http://x"))
    assert Allowance.parse("500", None).calls == Allowance.parse("500 calls", None).calls == 500


def test_asks_grow_by_input_rows_and_then_by_samples() -> None:
    inputs = {"a": 2, "b": 10}
    assert [ask_for(count, inputs) for count in (1, 2, 3, 5, 11, 12, 13, 25)] == [
        Ask(1, 1), Ask(1, 1), Ask(2, 1), Ask(3, 1), Ask(9, 1), Ask(None, 1), Ask(None, 2), Ask(None, 3),
    ]  # fmt: skip
    for count in range(1, 60):
        asked = ask_for(count, inputs)
        assert asked.samples(inputs) >= count
        for accepted in (0, 1, count // 2, count - 1):
            assert ask_again(count, accepted, asked, inputs).samples(inputs) > asked.samples(inputs)


def test_what_a_teacher_repeats_is_not_asked_for_without_end() -> None:
    inputs, different = {"a": 10, "b": 10}, 150  # however often it is asked
    ask, before, asked = ask_for(1000, inputs), 0, []
    for _ in range(ROUNDS):
        asked.append(ask.samples(inputs))
        gained = min(asked[-1], different) - before
        if not worth_asking(gained, asked[-1] - sum(asked[-2:-1])):
            break
        before += gained
        ask = ask_again(1000, before, ask, inputs)
    assert asked == [1000, GROWTH * 1000]  # 1,000 / LEAST_RATE would be ten times as many
    assert not worth_asking(0, 1) and worth_asking(1, int(1 / LEAST_RATE)) and not worth_asking(1, 11)
