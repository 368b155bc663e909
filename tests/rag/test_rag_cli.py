"""``ilab rag``: what is printed, the exit codes, the files; the configuration of retrieval."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from ilab.cli.app import Options, main
from ilab.cli.rag_options import RAG_OPTIONS, retriever_for
from ilab.config import data_home, load
from ilab.errors import InputError, InputErrors

CANAL = "# Canal\n\nThe canal has 14 locks.\n\n## Tolls\n\nA barge pays nine crowns.\n"
QUICKSTART = Path(__file__).resolve().parents[2] / "examples/quickstart/taxonomy"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "canal.md").write_text(CANAL)
    (docs / "mill.html").write_text("<html><body><h1>Mill</h1><p>The mill grinds barley.</p></body></html>")
    return tmp_path


def ilab(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=True)


def told(*arguments: str) -> dict:  # type: ignore[type-arg]
    done = ilab("--json", *arguments)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout)) if done.stdout.startswith("{") else {"found": json.loads(done.stdout)}


def test_raw_documents_are_ingested_and_found(folder: Path) -> None:
    first = ilab("rag", "ingest", "--input-dir", "docs")
    assert first.exit_code == 0, first.output
    assert "documents: 2 new, 0 changed, 0 unchanged, 0 removed" in first.stdout
    assert "no embedding model: vectors are hashed letters" in first.stderr
    assert (data_home() / "embeddings.db").is_file()
    found = ilab("rag", "search", "How many locks are there?", "-k", "1")
    assert "[1] canal.md, Canal\n    The canal has 14 locks." in found.stdout
    assert found.stderr == ""
    (hit,) = told("rag", "search", "barley", "-k", "1")["found"]
    assert (hit["source"], hit["heading"], hit["span"]) == ("mill.html", ["Mill"], [8, 31])


def test_what_is_gone_is_removed_and_what_is_new_is_added(folder: Path) -> None:
    told("rag", "ingest", "--input-dir", "docs")
    (folder / "docs/mill.html").unlink()
    (folder / "docs/lock.txt").write_text("Lock keepers sleep at noon.\n")
    again = told("rag", "ingest", "--input-dir", "docs")
    assert (again["added"], again["removed"], again["unchanged"]) == (["lock.txt"], ["mill.html"], ["canal.md"])
    shown = told("rag", "info")["collections"]
    assert [one["source"] for one in shown[0]["documents"]] == ["canal.md", "lock.txt"]
    listed = ilab("rag", "info", "--document-store-collection-name", "ilab").stdout
    assert "ilab: 2 documents, 3 passages, embedder hashed" in listed
    assert "  canal.md: 2 passages, from " in listed


def test_a_document_that_cannot_be_read_fails_and_costs_nothing(folder: Path) -> None:
    told("rag", "ingest", "--input-dir", "docs")
    (folder / "docs/mill.html").write_bytes(b"%PDF-1.7 no web page")
    (folder / "docs/lock.md").write_text("Lock keepers sleep.\n")
    done = ilab("rag", "ingest", "--input-dir", "docs")
    assert isinstance(done.exception, InputErrors)
    assert done.exception.errors[0].where == "mill.html"
    shown = told("rag", "info")["collections"]
    assert [one["source"] for one in shown[0]["documents"]] == ["canal.md", "lock.md", "mill.html"]


def test_converted_documents_are_ingested_with_their_places(folder: Path) -> None:
    done = told("rag", "convert", "--input-dir", "docs")
    output = Path(done["folder"])
    assert len(done["files"]) == 2
    assert output == data_home() / "converted_documents"
    assert json.loads((output / done["files"][0]).read_text())["source"] == "canal.md"
    assert told("rag", "ingest")["added"] == ["canal.md", "mill.html"]
    (folder / "docs/mill.html").unlink()
    gone = told("rag", "convert", "--input-dir", "docs")
    assert len(gone["removed"]) == 1
    assert not (output / gone["removed"][0]).exists()
    assert told("rag", "ingest")["removed"] == ["mill.html"]


def test_a_folder_with_other_things_keeps_them(folder: Path) -> None:
    output = folder / "out"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    first = told("rag", "convert", "--input-dir", "docs", "--output-dir", "out")
    name = first["files"][0]
    (output / ".ilab-converted.json").unlink()
    done = ilab("rag", "convert", "--input-dir", "docs", "--output-dir", "out")
    assert isinstance(done.exception, InputError)
    assert done.exception.message == "this file was not written by `ilab rag convert`"
    assert (output / "notes.txt").read_text() == "mine"
    assert (output / name).exists()


def test_a_list_that_leads_elsewhere_removes_nothing_there(folder: Path) -> None:
    told("rag", "convert", "--input-dir", "docs", "--output-dir", "out")
    victim = folder / "victim.json"
    victim.write_text("{}")
    (folder / "out/.ilab-converted.json").write_text('{"format": 1, "files": ["../victim.json", "/etc/x", ".."]}')
    shutil.rmtree(folder / "docs")
    (folder / "docs").mkdir()
    (folder / "docs/new.md").write_text("# New\n\nNew.\n")
    told("rag", "convert", "--input-dir", "docs", "--output-dir", "out")
    assert victim.exists()


def test_the_documents_of_a_taxonomy_are_converted(folder: Path) -> None:
    done = told("rag", "convert", "--taxonomy-path", str(QUICKSTART), "--output-dir", "out")
    assert len(done["files"]) == 2
    assert len(told("rag", "ingest", "--input-dir", "out")["added"]) == 2
    (hit,) = told("rag", "search", "Which code stands for a stuck fan?", "-k", "1")["found"]
    assert hit["source"] == "knowledge/technology/devices/tavrin_kiln/tavrin_kiln.md"
    assert hit["heading"] == ["Tavrin Workshop Kiln", "Error codes"]
    nothing = ilab("rag", "convert")
    assert isinstance(nothing.exception, InputError)
    assert "--taxonomy-path DIR" in nothing.exception.hint


def test_documents_of_docling_are_to_be_converted_again(folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "old/a.json").write_text('{"schema_name": "DoclingDocument", "version": "1.0.0", "texts": []}')
    done = ilab("rag", "ingest", "--input-dir", "old")
    assert isinstance(done.exception, InputErrors)
    assert done.exception.errors[0].message == "this is a document of docling"
    assert "ilab rag convert" in done.exception.errors[0].hint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "x"), "there is no document store here"),
        (("info",), "there is no document store here"),
        (("ingest",), "nothing was built here yet"),
        (("ingest", "--input-dir", "none"), "there is no folder here"),
        (("ingest", "--input-dir", "docs", "--document-store-uri", "http://h/x"), "a document store is a file here"),
        (("ingest", "--input-dir", "docs", "--embedding-model-path", "none/such"), "there is no model 'none/such'"),
    ],
)
def test_what_is_missing_is_an_error_with_a_way_out(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = ilab("rag", *arguments)
    assert isinstance(done.exception, InputError), done.output
    assert message in done.exception.message
    assert done.exception.hint


def test_another_embedder_needs_the_collection_anew(folder: Path, tiny_model: Path) -> None:
    told("rag", "ingest", "--input-dir", "docs")
    other = ("--embedding-model-path", str(tiny_model))
    refused = ilab("rag", "search", "locks", *other)
    assert isinstance(refused.exception, InputError)
    assert "ilab rag ingest --anew" in refused.exception.hint
    assert isinstance(ilab("rag", "ingest", "--input-dir", "docs", *other).exception, InputError)
    made = told("rag", "ingest", "--input-dir", "docs", "--anew", *other)
    assert (made["embedder"], made["embedded"]) == (str(tiny_model), 3)
    assert (
        len(told("rag", "search", "locks", "-k", "2")["found"]) == 2
    )  # without naming it: the one that it was made with
    assert told("rag", "info")["collections"][0]["embedder"] == str(tiny_model)


def test_a_project_has_a_store_of_its_own_and_configures_it(folder: Path) -> None:
    (folder / "ilab.yaml").write_text("rag: {collection: mine, top_k: 1, chunk_tokens: 8}\n")
    made = told("rag", "ingest", "--input-dir", "docs")
    assert made["store"] == str(folder / ".ilab/embeddings.db")
    assert made["collection"] == "mine"
    assert len(told("rag", "search", "canal")["found"]) == 1
    assert len(told("rag", "search", "canal", "-k", "2")["found"]) == 2
    assert told("--set", "rag.store=other.db", "rag", "ingest", "--input-dir", "docs")["store"] == str(
        folder / "other.db"
    )


def test_chat_gets_a_retriever_only_where_it_is_asked_for(folder: Path) -> None:
    told("rag", "ingest", "--input-dir", "docs", "--document-store-uri", "s.db")
    options = Options(folder, (), None, as_json=False, verbose=False)
    given = {"rag": False, "store_uri": "s.db", "collection": None, "embedder": None, "top_k": 1}
    assert retriever_for(options, given) is None
    retriever = retriever_for(options, {**given, "rag": True})
    assert retriever is not None
    found = retriever.retrieve("How many locks?")
    assert (found.passages, found.citations) == (("> The canal has 14 locks.",), ("canal.md, Canal",))


def test_upstreams_options_of_chat_choose_the_retriever(folder: Path) -> None:
    told(
        "rag", "ingest", "--input-dir", "docs", "--document-store-uri", "s.db", "--document-store-collection-name", "c"
    )

    @click.command()
    @RAG_OPTIONS
    @click.pass_obj
    def chat(options: Options, /, **given: object) -> None:
        retriever = retriever_for(options, given)
        click.echo(retriever.retrieve("barley").citations if retriever else "none")

    options = Options(folder, (), None, as_json=False, verbose=False)
    store = ("--document-store-uri", "s.db", "--document-store-collection-name", "c")
    asked = ("--rag", *store, "--retriever-top-k", "1", "--retriever-embedding-model-path", "hashed")
    assert CliRunner().invoke(chat, asked, obj=options).stdout == "('mill.html, Mill',)\n"
    assert CliRunner().invoke(chat, (), obj=options).stdout == "none\n"
    wrong = CliRunner().invoke(chat, ("--rag", "--document-store-uri", "s.db"), obj=options)
    assert isinstance(wrong.exception, InputError)
    assert "collections here: c" in wrong.exception.hint


def test_a_model_that_fails_costs_no_collection(folder: Path) -> None:
    told("rag", "ingest", "--input-dir", "docs")
    (folder / "broken").mkdir()
    (folder / "broken/config.json").write_text("{}")
    failed = ilab("rag", "ingest", "--input-dir", "docs", "--anew", "--embedding-model-path", "broken")
    assert isinstance(failed.exception, InputError)
    assert told("rag", "search", "barley", "-k", "1")["found"][0]["source"] == "mill.html"


def test_settings_of_instructlab_are_taken_over(folder: Path) -> None:
    theirs = folder / "config.yaml"
    rag = "rag:\n  document_store: {uri: /d/e.db, collection_name: c}\n  retriever: {top_k: 5}\n"
    theirs.write_text(f"version: 1.0.0\n{rag}  convert: {{output_dir: /d/out}}\n")
    config = load(folder, user=theirs).config.rag
    assert (config.store, config.collection, config.top_k, config.converted) == ("/d/e.db", "c", 5, "/d/out")
    theirs.write_text("rag: {top_k: 7}\n")  # a file of ours
    loaded = load(folder, user=theirs)
    assert (loaded.config.rag.top_k, loaded.notes) == (7, ())
