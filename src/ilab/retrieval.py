"""Retrieval for a project: which documents, which store, which embedder; put together of the stages.

    rag convert    folder or taxonomy ──▶ Documents ──▶ folder of JSON
    rag ingest     that folder, raw documents, or those of the last build ──▶ passages ──▶ store
    rag search, chat --rag, advise --measure                       question ──▶ retriever

The embedder is the one that a person names (``--embedding-model-path``, ``where.embedder``, ``models.embedder``), else
the one that the collection was made with, else the profile's where it was downloaded, else none: letters are hashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ilab.actions import where_of
from ilab.artifacts import Documents
from ilab.config import PROJECT_FILE, Loaded, data_home
from ilab.core.events import Emit
from ilab.core.git import server_of
from ilab.core.memo import Memo
from ilab.data import Document
from ilab.documents.chunk import chunk
from ilab.documents.collect import Reading, read_documents
from ilab.documents.converted_folder import is_converted, read_converted
from ilab.documents.export import find_inputs, read_inputs
from ilab.documents.locate import fitting, survey_documents
from ilab.documents.policy import Policy
from ilab.errors import IlabError, InputError
from ilab.inquiry import Results, last_results
from ilab.parameters import collect
from ilab.profiles import wanted
from ilab.rag.embedder import HASHED, SERVER, Embedder, embedder_of
from ilab.rag.ingest import Ingested, ingest
from ilab.rag.search import Retriever, check_embedder
from ilab.rag.store import Collection, Cut, DocumentStore
from ilab.taxonomy.locate import find_taxonomy, read_found
from ilab.transfer.shelf import model_at, not_here
from ilab.transfer.stores import open_store

CUTTING = 1  # raised when the same document may be cut in another way
NO_MODEL = (
    "no embedding model: vectors are hashed letters, which find words in other forms and know no meaning. For a model: "
    "ilab model download --repository {}, then --embedding-model-path {}"
)


@dataclass(frozen=True)
class Source:
    """Documents to ingest, where they are from, and what is wrong with those that are missing."""

    origin: str
    documents: Sequence[Document]
    problems: Sequence[IlabError] = ()


# -- where things lie -----------------------------------------------------------------------------------------------


def store_path(loaded: Loaded, uri: str | None = None) -> Path:
    """The store's file: ``uri`` (a path or ``file:`` address), else ``rag.store``, else the project's or the home's."""
    given = uri or loaded.config.rag.store
    if not given:
        return _home(loaded) / "embeddings.db"
    scheme, mark, rest = given.partition("://")
    if mark and scheme == "file":
        return Path(unquote("/" + rest.partition("/")[2]))
    if mark:
        hint = "give a file: --document-store-uri embeddings.db"
        raise InputError(f"a document store is a file here, not {scheme}", where=given, hint=hint)
    return loaded.path(given)


def converted_folder(loaded: Loaded) -> Path:
    """Where ``rag convert`` writes: ``rag.converted``, else the project's or the home's."""
    given = loaded.config.rag.converted
    return loaded.path(given) if given else _home(loaded) / "converted_documents"


def _home(loaded: Loaded) -> Path:
    return loaded.base / ".ilab" if (loaded.base / PROJECT_FILE).exists() else data_home()


# -- which documents ------------------------------------------------------------------------------------------------


def reading_of(loaded: Loaded, memo: Memo | None = None, emit: Emit | None = None) -> Reading:
    """How documents are read, as the parameters say."""
    values = {name: given.value for name, given in collect(loaded.parameters()).items()}
    return Reading(Policy.parse(values["document_policy"]), values["document_converter"], memo, emit)


def from_folder(loaded: Loaded, folder: Path, reading: Reading) -> Source:
    """The documents below ``folder``: those that ``rag convert`` wrote there, else all files that can be read."""
    need_folder(folder)
    origin = str(folder.resolve())
    files, problems = ([], []) if is_converted(folder) else find_inputs(["."], folder, where_of(loaded), loaded.base)
    if files:
        documents, faults = read_inputs(files, reading)
        return Source(origin, documents, faults)
    if not any(folder.glob("*.json")):
        for problem in problems:
            problem.where = str(folder)
        return Source(origin, [], problems)
    found, faults = read_converted(folder)
    return Source(origin, found, faults)


def need_folder(folder: Path) -> None:
    """Raises InputError where there is no folder."""
    if not folder.is_dir():
        raise InputError("there is no folder here", where=str(folder), hint="give one: --input-dir DIR")


def from_taxonomy(loaded: Loaded, path: Path | None, since: str | None, reading: Reading) -> Source:
    """The documents that a taxonomy's leaves refer to; of the project's own, or of the one at ``path``."""
    values = {name: given.value for name, given in collect(loaded.parameters()).items()}
    locator = str(path.absolute()) if path else values["sdg_repo_url"]
    if not locator:
        hint = "give a folder: --input-dir DIR, or a taxonomy: --taxonomy-path DIR"
        raise InputError("there is no project here, so it has no taxonomy", where=str(loaded.base), hint=hint)
    where = where_of(loaded)
    found = find_taxonomy(locator, loaded.base, where, since or values["taxonomy_base"], fitting)
    taxonomy, login = read_found(found), server_of((found.details or {}).get("address", ""))
    survey = survey_documents(taxonomy.leaves, taxonomy.root, where, base=loaded.base, login=login)
    documents, faults = read_documents(taxonomy.leaves, survey.found, reading)
    problems = [*survey.problems, *faults]
    if not documents and not problems:
        hint = "write a `document` into a qna.yaml, or give a folder: --input-dir DIR"
        raise InputError("no leaf of this taxonomy refers to a document", where=locator, hint=hint)
    return Source(locator, documents, problems)


def from_last_build(loaded: Loaded) -> Source:
    """The documents of the project's last build. Raises InputError where there are none."""
    store = open_store(loaded)
    documents = documents_of(last_results(store))
    if not documents:
        hint = "give a folder of documents: ilab rag ingest --input-dir DIR"
        raise InputError("the last build had no documents", where=str(loaded.store), hint=hint)
    return Source(f"the builds of {loaded.base}", documents)


def documents_of(results: Results) -> list[Document]:
    """The documents of a build; none where the store no longer has them."""
    record = results.of("documents")
    return Documents(results.store.contents(record)).documents() if record else []


def cut(documents: Sequence[Document], tokens: int) -> list[Cut]:
    """Passages of at most ``tokens`` (estimated), each document for itself; documents without any are left out."""
    made = [Cut(one, chunk(one, tokens), f"{CUTTING}/{tokens}") for one in documents]
    return [one for one in made if one.chunks]


# -- which embedder -------------------------------------------------------------------------------------------------


def choose_embedder(
    loaded: Loaded, given: str | None, collection: Collection | None, folder: Path
) -> tuple[Embedder, str]:
    """The embedder, and a line for people where they named none. ``given`` is read from ``folder`` on."""
    where = where_of(loaded)
    named = loaded.config.models.embedder
    if given:
        return embedder_of(_setting(given, folder), where), ""
    if loaded.config.where.embedder:
        return embedder_of(SERVER, where), ""
    if named:
        return embedder_of(_setting(named, loaded.base), where), ""
    if collection:
        return embedder_of(collection.made_with, where), ""
    model = wanted(loaded).get("embedder")
    path = model_at(model.repository, loaded.base) if model else None
    if path:
        return embedder_of(str(path), where), f"embedding model: {path}"
    name = model.repository if model else "OWNER/NAME"
    return embedder_of(HASHED, where), NO_MODEL.format(name, name)


def _setting(given: str, folder: Path) -> str:
    if given == HASHED or given.startswith(SERVER):
        return given
    path = model_at(given, folder)
    if path is None:
        raise not_here(given)
    return str(path.resolve())


# -- put together ---------------------------------------------------------------------------------------------------


def ingest_into(
    store: DocumentStore, name: str, source: Source, embedder: Embedder, tokens: int, emit: Emit, *, anew: bool = False
) -> Ingested:
    """Make collection ``name`` hold the documents of ``source``; with ``anew`` nothing but them.

    Raises InputError where another embedder made the collection.
    """
    collection = store.find(name)
    if collection is None or anew:
        embedder.queries([name])  # one that cannot be asked must cost nothing that is there
        if collection is not None:
            store.drop(collection)
        collection = store.make(name, embedder.identity, embedder.setting)
    check_embedder(store, collection, embedder)
    into, cuts = (store, collection, embedder), cut(source.documents, tokens)
    return ingest(into, source.origin, cuts, emit, complete=not source.problems)


def retriever(loaded: Loaded, uri: str | None, model: str | None, folder: Path = Path()) -> tuple[Retriever, str]:
    """A retriever over the configured collection, and a line for people (see :func:`choose_embedder`).

    Raises InputError where there is no store or collection, or where another embedder made it.
    """
    store = DocumentStore.open(store_path(loaded, uri))
    collection = store.need(loaded.config.rag.collection)
    embedder, note = choose_embedder(loaded, model, collection, folder)
    return Retriever(store, collection, embedder, loaded.config.rag.top_k), note
