"""Where documents come from: folders, addresses, texts in the qna.yaml, and git as people have set it up."""

import base64
import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ilab.config import WebWhere, Where
from ilab.data import DocumentRef, Leaf, Place, QuestionAnswer, SeedExample
from ilab.documents.collect import collect
from ilab.documents.locate import find_documents, pinned_files, survey_documents
from ilab.errors import InputError, InputErrors, ServiceError

URL = "https://git.example/team/docs.git"


def leaf(*refs: DocumentRef, path: str = "knowledge/a") -> Leaf:
    place = Place(file=f"{path}/qna.yaml", line=1)
    seed = SeedExample(pairs=(QuestionAnswer(question="q", answer="a", place=place),), place=place)
    return Leaf(
        path=path, kind="knowledge", version=3, created_by="t", seeds=(seed,), documents=refs, digest="d", place=place
    )


def ref(*patterns: str, line: int = 7, **more: object) -> DocumentRef:
    place = Place(file="knowledge/a/qna.yaml", line=line, column=3)
    return DocumentRef.model_validate({"patterns": patterns, "place": place, **more})


def where(tmp_path: Path) -> Where:
    return Where(cache=str(tmp_path / "cache"), web=WebWhere(private_hosts=("127.0.0.1",), timeout=5))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def repository(folder: Path, files: dict[str, str], *extra: str) -> Path:
    """A git repository with one commit of ``files``; ``extra`` are arguments of one more git command before it."""
    write(folder, files)
    names = ("-c", "user.name=t", "-c", "user.email=t@example", "-c", "init.defaultBranch=main")
    for arguments in (("init", "--quiet"), ("add", "--all"), extra, ("commit", "--quiet", "-m", "c")):
        if arguments:
            subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True)
    return folder


def told(error: pytest.ExceptionInfo[InputErrors]) -> list[str]:
    return [str(problem) for problem in error.value.errors]


# Folders


def test_a_folder_stands_for_all_documents_below_it(tmp_path: Path) -> None:
    files = {
        "guide/a.md": "A",
        "guide/deep/er/b.txt": "B",
        "guide/deep/photo.png": "no",
        "guide/.crawl.json": "no",
        "guide/.x/hidden.md": "no",
        "qna.yaml": "no",
        "attribution.txt": "no",
        "c.md": "C",
    }
    root = write(tmp_path / "t/knowledge/a", files).parents[1]
    write(root, {"knowledge/b/other.md": "no"})
    for pattern in ("guide", "guide/", "./guide", "gui*"):
        leaves = [leaf(ref(pattern))]
        assert [document.text for document in collect(leaves, find_documents(leaves, root, where(tmp_path)))] == [
            "A\n",
            "B\n",
        ]
    leaves = [leaf(ref("."))]
    assert [document.text for document in collect(leaves, find_documents(leaves, root, where(tmp_path)))] == [
        "C\n",
        "A\n",
        "B\n",
    ]
    leaves = [leaf(ref("docs", repo=URL, commit="main"))]
    mirrored = Where.model_validate({"documents": {"mirrors": {URL: str(tmp_path / "m")}}})
    write(tmp_path / "m", {"docs/x/y.md": "Y", "docs/z.bin": ""})
    (file,) = pinned_files(find_documents(leaves, root, mirrored))
    assert file.source == f"{URL}@main:docs/x/y.md"


def test_a_folder_without_documents_is_told(tmp_path: Path) -> None:
    root = write(tmp_path / "t", {"knowledge/a/pictures/p.png": "x", "knowledge/a/qna.yaml": ""})
    with pytest.raises(InputErrors) as error:
        find_documents([leaf(ref("pictures"))], root, where(tmp_path))
    assert "`pictures` matches no file in the taxonomy" in told(error)[0]
    assert "there is no document there at all" in told(error)[0]


# Texts in the qna.yaml


def test_inline_text_is_a_document_named_by_its_place(tmp_path: Path) -> None:
    text = "# Kiln\n\nIt is hot.\n"
    leaves = [leaf(ref(text=text, line=12), ref(text="Second.", line=20), path="knowledge/a")]
    found = find_documents(leaves, tmp_path, where(tmp_path))
    one, two = collect(leaves, found)
    assert {one.source, two.source} == {"knowledge/a/qna.yaml:12:3", "knowledge/a/qna.yaml:20:3"}
    titles = {document.source: document.title for document in (one, two)}
    assert titles == {"knowledge/a/qna.yaml:12:3": "Kiln", "knowledge/a/qna.yaml:20:3": "a"}
    moved = [leaf(ref(text=text, line=14), ref(text="Second.", line=22))]
    assert find_documents(moved, tmp_path, where(tmp_path)).digest == found.digest
    assert [document.text for document in collect(moved, found)] == [one.text, two.text]  # a newer reading, same text
    other = [leaf(ref(text="Other.", line=12))]
    assert find_documents(other, tmp_path, where(tmp_path)).digest != found.digest
    with pytest.raises(InputErrors, match=r"2 errors") as error:
        collect(other, found)
    assert "qna.yaml:12:3: changed while the run was under way" in str(error.value)


def test_inline_text_that_is_no_unicode_is_told(tmp_path: Path) -> None:
    broken = ref().model_copy(update={"text": "caf\ud800"})  # as YAML's "caf\\ud800" would give it
    with pytest.raises(InputErrors) as error:
        find_documents([leaf(broken)], tmp_path, where(tmp_path))
    assert "knowledge/a/qna.yaml:7:3: the text is not valid Unicode at character 4" in told(error)[0]


# Addresses


@dataclass
class Site:
    """Answers by path: (status, content type, body). ``asked`` are the paths of all requests."""

    url: str = ""
    pages: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    answers = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.asked.append(self.path)
            status, media, body = answers.pages.get(self.path, (404, "text/html", b"gone"))
            self.send_response(status)
            if status in (301, 302):
                self.send_header("Location", body.decode())
            if media:
                self.send_header("Content-Type", media)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    answers.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield answers
    server.shutdown()
    server.server_close()
    thread.join()


def test_addresses_are_pinned_by_what_they_gave(tmp_path: Path, site: Site) -> None:
    site.pages = {
        "/guide?v=1": (200, "text/html; charset=utf-8", b"<h1>Guide</h1><p>Hot.</p>"),
        "/raw/notes.md": (200, "text/plain", b"# Notes\n\nWarm.\n"),
        "/plain": (200, "text/plain; charset=utf-8", b"Cold.\n"),
        "/typed.txt": (200, "text/markdown", b"# Typed\n"),
        "/moved": (302, "", b"/raw/notes.md"),
    }
    urls = tuple(site.url + path for path in (*site.pages, "/plain"))
    leaves = [leaf(ref(urls=urls)), leaf(ref(urls=urls[:1]), path="knowledge/b")]
    found = find_documents(leaves, tmp_path, where(tmp_path))
    assert len(site.asked) == 6, "each address once, and one redirect"
    suffixes = {file.source.removeprefix(site.url): Path(file.name).suffix for file in pinned_files(found)}
    assert suffixes == {
        "/guide?v=1": ".html",
        "/raw/notes.md": ".md",
        "/plain": ".txt",
        "/typed.txt": ".md",
        "/moved": ".md",
    }
    for file in pinned_files(found):
        assert hashlib.sha256(Path(file.path).read_bytes()).hexdigest() == file.sha256
    assert json.loads((found.details or {})["notes"]) == []
    again = find_documents(leaves, tmp_path, where(tmp_path))
    assert again == found
    site.pages["/plain"] = (200, "text/plain", b"Other.\n")
    assert find_documents(leaves, tmp_path, where(tmp_path)).digest != found.digest


def test_text_behind_an_address_becomes_a_document(tmp_path: Path, site: Site) -> None:
    site.pages = {"/raw/notes.md": (200, "text/plain", b"Warm.\n")}
    leaves = [leaf(ref(urls=(f"{site.url}/raw/notes.md",)))]
    (document,) = collect(leaves, find_documents(leaves, tmp_path, where(tmp_path)))
    assert (document.source, document.title, document.text) == (f"{site.url}/raw/notes.md", "notes", "Warm.\n")


def test_every_bad_address_is_told_at_its_reference(tmp_path: Path, site: Site) -> None:
    site.pages = {"/a.zip": (200, "application/zip", b"PK"), "/x": (200, "application/octet-stream", b"x")}
    urls = ("/none", "/a.zip", "/x")
    with pytest.raises(InputErrors) as error:
        find_documents(
            [leaf(ref(urls=tuple(site.url + path for path in urls)), ref("missing.md", line=9))],
            tmp_path,
            where(tmp_path),
        )
    lines = told(error)
    assert lines[0].startswith(f"knowledge/a/qna.yaml:7:3: {site.url}/none: there is nothing at this address (404)")
    assert f"{site.url}/a.zip: is of the kind application/zip, which is not read" in lines[1]
    assert f"{site.url}/x: is of the kind application/octet-stream" in lines[2]
    assert lines[3].startswith("knowledge/a/qna.yaml:9:3: `missing.md` matches no file")


def test_private_addresses_are_refused(tmp_path: Path, site: Site) -> None:
    guarded = Where(cache=str(tmp_path / "c"))
    with pytest.raises(InputErrors) as error:
        find_documents([leaf(ref(urls=(f"{site.url}/a.md",)))], tmp_path, guarded)
    assert "private_hosts" in str(error.value) and site.asked == []


def test_a_silent_server_gives_the_old_copy_or_one_error(tmp_path: Path, site: Site) -> None:
    site.pages = {"/a.md": (200, "text/markdown", b"A.\n")}
    old, new = f"{site.url}/a.md", f"{site.url}/new.md"
    before = find_documents([leaf(ref(urls=(old,)))], tmp_path, where(tmp_path))
    site.pages = dict.fromkeys(("/a.md", "/new.md", "/b.md"), (503, "", b""))
    stale = find_documents([leaf(ref(urls=(old,)))], tmp_path, where(tmp_path))
    assert stale.digest == before.digest
    assert json.loads((stale.details or {})["notes"]) == [
        f"{old} could not be reached; the copy from the last time is used"
    ]
    with pytest.raises(ServiceError, match="503") as error:
        find_documents([leaf(ref(urls=(new,)))], tmp_path, where(tmp_path))
    assert error.value.retryable and error.value.where == "knowledge/a/qna.yaml:7:3"
    site.asked.clear()
    survey = survey_documents([leaf(ref(urls=(new, f"{site.url}/b.md")))], tmp_path, where(tmp_path))
    assert site.asked == ["/new.md"], "a server that failed is not asked again in the same survey"
    assert [type(problem) for problem in survey.problems] == [ServiceError, ServiceError]
    assert "not asked: 127.0.0.1" in survey.problems[1].message


def test_one_bad_repository_is_told_at_every_reference_to_it(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    leaves = [leaf(ref("a.md", "b.md", repo=gone, commit="main"), ref("c.md", line=9, repo=gone, commit="main"))]
    problems = survey_documents(leaves, tmp_path, where(tmp_path)).problems
    assert [problem.where for problem in problems] == ["knowledge/a/qna.yaml:7:3", "knowledge/a/qna.yaml:9:3"]
    assert all(isinstance(problem, InputError) for problem in problems)


# Git as people have set it up


def test_a_submodule_is_told(tmp_path: Path) -> None:
    other = repository(tmp_path / "other", {"x.md": "x"})
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=other, capture_output=True, text=True, check=True).stdout
    modules = '[submodule "m"]\n\tpath = docs/other\n\turl = https://git.example/other.git\n'
    link = ("update-index", "--add", "--cacheinfo", f"160000,{head.strip()},docs/other")
    remote = repository(tmp_path / "remote", {"docs/a.md": "a", ".gitmodules": modules}, *link)
    for pattern in ("docs/other/x.md", "docs/other", "docs/other/*.md"):
        with pytest.raises(InputErrors, match="`docs/other` is a git submodule"):
            find_documents([leaf(ref(pattern, repo=str(remote), commit="main"))], tmp_path, where(tmp_path))
    assert find_documents([leaf(ref("docs/*.md", repo=str(remote), commit="main"))], tmp_path, where(tmp_path))


def test_files_in_git_lfs_do_not_stand_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with git-lfs: its filter would download; what is asked for is told to be a pointer."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    files = {"a.md": "A.", "big.pdf": pointer, ".gitattributes": "*.pdf filter=lfs -text\n"}
    remote = repository(tmp_path / "remote", files)
    write(tmp_path, {"gitconfig": '[filter "lfs"]\n\tsmudge = false\n\tprocess = false\n\trequired = true\n'})
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    leaves = [leaf(ref("a.md", repo=str(remote), commit="main"))]
    assert [document.text for document in collect(leaves, find_documents(leaves, tmp_path, where(tmp_path)))] == [
        "A.\n"
    ]
    with pytest.raises(InputErrors, match=r"big\.pdf: is a Git LFS pointer") as error:
        find_documents([leaf(ref("*.pdf", repo=str(remote), commit="main"))], tmp_path, where(tmp_path))
    assert "git lfs pull" in str(error.value)


def test_a_repository_that_is_plain_files_on_a_web_server(tmp_path: Path, site: Site) -> None:
    remote = repository(tmp_path / "remote", {"a.md": "A."})
    subprocess.run(["git", "update-server-info"], cwd=remote, check=True)
    for path in (remote / ".git").rglob("*"):
        if path.is_file():
            name = path.relative_to(remote / ".git").as_posix()
            site.pages[f"/docs.git/{name}"] = (200, "application/octet-stream", path.read_bytes())
            site.pages[f"/docs.git/{name}?service=git-upload-pack"] = (200, "text/plain", path.read_bytes())
    leaves = [leaf(ref("a.md", repo=f"{site.url}/docs.git", commit="main"))]
    assert [document.text for document in collect(leaves, find_documents(leaves, tmp_path, where(tmp_path)))] == [
        "A.\n"
    ]


@pytest.fixture
def private_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """git's own HTTP server behind a password; what it serves is ``remote`` below ``tmp_path``."""
    wanted = "Basic " + base64.b64encode(b"writer:s3cret-word").decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="docs"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            environment = os.environ | {
                "GIT_PROJECT_ROOT": str(tmp_path),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "REMOTE_USER": "writer",
            }
            done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(fields.pop("Status", "200")[:3]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_instead_of_and_credential_helpers_are_respected(
    tmp_path: Path, private_git: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(tmp_path / "remote", {"docs/a.md": "Private.\n"})
    helper = tmp_path / "helper.sh"
    helper.write_text("#!/bin/sh\ntest $1 = get && printf 'username=writer\\npassword=s3cret-word\\n'\nexit 0\n")
    helper.chmod(0o755)
    rewrite = f'[url "{private_git}/remote/.git"]\n\tinsteadOf = {URL}\n'
    write(tmp_path, {"gitconfig": f"{rewrite}[credential]\n\thelper = {helper}\n"})
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    leaves = [leaf(ref("docs/*.md", repo=URL, commit="main"))]
    found = find_documents(leaves, tmp_path, where(tmp_path))
    (document,) = collect(leaves, found)
    assert (document.text, document.source) == ("Private.\n", f"{URL}@main:docs/a.md")
    assert "s3cret" not in repr(found)
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept and all(b"s3cret" not in path.read_bytes() for path in kept)


def test_a_repository_that_wants_a_password_is_one_error_without_a_question(
    tmp_path: Path, private_git: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(tmp_path / "remote", {"a.md": "Private.\n"})
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for address in (f"{private_git}/remote/.git", private_git.replace("//", "//writer:wr0ng-word@") + "/remote/.git"):
        with pytest.raises(InputErrors) as error:
            find_documents([leaf(ref("a.md", repo=address, commit="main"))], tmp_path, where(tmp_path))
        assert "cannot fetch http://127.0.0.1" in str(error.value) and "wr0ng" not in str(error.value)
