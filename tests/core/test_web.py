"""The guarded HTTP client against real servers that misbehave."""

from __future__ import annotations

import gzip
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from web_server import Answer, Site, serve

from ilab.config import WebWhere
from ilab.core import web as web_module
from ilab.core.addresses import why_refused
from ilab.core.web import Reply, Web, fetch
from ilab.errors import IlabError, InputError, ServiceError, SetupError

OWN = WebWhere(private_hosts=("127.0.0.1",), timeout=5)
TEXT = {"Content-Type": "text/plain; charset=UTF-8"}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def site() -> Iterator[Site]:
    with serve({}) as served:
        yield served


@pytest.fixture
def web() -> Iterator[Web]:
    with Web(OWN) as client:
        yield client


def test_a_page_comes_with_its_media_and_charset(site: Site, web: Web) -> None:
    site.routes["/a"] = Answer("grün", headers={"Content-Type": "Text/HTML; Charset=UTF-8"})
    reply = web.get(f"{site.url}/a#part")
    assert (reply.status, reply.media, reply.charset, reply.body.decode()) == (200, "text/html", "utf-8", "grün")
    assert reply.url == f"{site.url}/a"


def test_requests_say_who_we_are_and_nothing_else(site: Site, web: Web) -> None:
    site.routes["/a"] = Answer("x", headers={"Set-Cookie": "id=1; Path=/"})
    web.get(f"{site.url}/a")
    web.get(f"{site.url}/a")
    sent = site.requests[1][1]
    assert sent["user-agent"].startswith("ilab/")
    assert not {"cookie", "referer", "authorization"} & set(sent)


def test_a_body_is_unpacked(site: Site, web: Web) -> None:
    site.routes["/a"] = Answer(gzip.compress(b"plain"), headers={**TEXT, "Content-Encoding": "gzip"})
    assert web.get(f"{site.url}/a").body == b"plain"


def test_validators_make_a_request_conditional(site: Site, web: Web) -> None:
    site.routes["/a"] = Answer("text", validate=True)
    first = web.get(f"{site.url}/a")
    again = web.get(f"{site.url}/a", etag=first.headers["etag"], modified="Sat, 21 Nov 2026 10:00:00 GMT")
    assert again.unchanged and not again.body
    assert site.requests[1][1]["if-modified-since"] == "Sat, 21 Nov 2026 10:00:00 GMT"


def test_other_media_are_not_read(site: Site, web: Web) -> None:
    site.routes["/a"] = Answer(b"x" * 1000, headers={"Content-Type": "image/png"})
    assert web.ask(f"{site.url}/a", media=("text/html",)).body == b""
    assert len(web.ask(f"{site.url}/a").body) == 1000


# Reasons by IANA's special-purpose address registries (IPv4 and IPv6), and where clouds keep credentials.
REFUSED = """127.0.0.1 127.255.0.1 0.0.0.0 0.1.2.3 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254
    100.64.0.1 100.100.100.200 192.0.0.192 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1
    255.255.255.255 192.88.99.1 168.63.129.16 :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1
    64:ff9b::a9fe:a9fe 64:ff9b:1::1 100::1 2001::1 2001:db8::1 2002:7f00:1:: 2002:a00:1::1 3fff::1 5f00::1 fc00::1
    fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1 4000::1""".split()  # noqa: SIM905


@pytest.mark.parametrize("address", REFUSED)
def test_special_addresses_are_refused(address: str) -> None:
    assert why_refused(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_are_not(address: str) -> None:
    assert not why_refused(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_this_machine_is_refused_however_it_is_spelled(site: Site, host: str) -> None:
    with Web(WebWhere()) as web, pytest.raises(InputError, match="no public address") as caught:
        web.get(f"http://{host}:{site.port}/")
    assert "private_hosts" in caught.value.hint
    assert site.requests == []


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest/meta-data/", "http://localhost:PORT/b", "http://[::1]/", "file:///etc/x"]
)
def test_redirects_are_checked_like_first_addresses(site: Site, web: Web, target: str) -> None:
    site.routes["/a"] = Answer(b"", 302, {"Location": target.replace("PORT", str(site.port))})
    site.routes["/b"] = Answer("secret")
    with pytest.raises(InputError):
        web.get(f"{site.url}/a")
    assert site.paths == ["/a"]


def resolver(monkeypatch: pytest.MonkeyPatch, answers: list[list[str]]) -> list[str]:
    """Names ending in .test get the next of ``answers``; returns the list of names asked for."""
    real, asked = socket.getaddrinfo, []

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if not str(host).endswith(".test"):
            return real(host, port, *args, **kwargs)
        asked.append(host)
        answer = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_that_changes_its_meaning_gains_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolver(monkeypatch, [["93.184.216.34"], ["127.0.0.1"]])
    with Web(WebWhere()) as web, pytest.raises(ServiceError, match=r"may not reach 93\.184\.216\.34"):
        web.get(f"http://rebind.test:{site.port}/")
    assert asked == ["rebind.test"]
    with Web(WebWhere()) as web, pytest.raises(InputError, match=r"rebind\.test is 127\.0\.0\.1"):
        web.get(f"http://rebind.test:{site.port}/")
    assert site.requests == []


def test_only_the_public_ones_of_several_addresses_are_tried(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, [["127.0.0.1", "93.184.216.34"]])
    with Web(WebWhere()) as web, pytest.raises(ServiceError, match=r"may not reach 93\.184\.216\.34"):
        web.get(f"http://both.test:{site.port}/")
    assert site.requests == []


def test_a_listed_name_may_be_private(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, [["127.0.0.1"]])
    site.routes["/"] = Answer("wiki")
    with Web(WebWhere(private_hosts=("Wiki.Test.",))) as web:
        assert web.get(f"http://wiki.test:{site.port}/").body == b"wiki"
    assert site.requests[0][1]["host"] == f"wiki.test:{site.port}"


@pytest.mark.parametrize("layers", [1, 2])
def test_a_bomb_does_not_go_off(site: Site, layers: int) -> None:
    bomb = b"\0" * 64 * 2**20
    for _ in range(layers):
        bomb = gzip.compress(bomb)
    site.routes["/"] = Answer(bomb, headers={"Content-Encoding": ", ".join(["gzip"] * layers)})
    with Web(OWN.model_copy(update={"max_bytes": 2**20})) as web:
        tracemalloc.start()
        try:
            with pytest.raises(InputError, match="larger than 1 MiB"):
                web.get(site.url)
            assert tracemalloc.get_traced_memory()[1] < 12 * 2**20
        finally:
            tracemalloc.stop()


def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    while True:
        handler.wfile.write(b"x" * 65536)


def test_a_body_without_end_is_cut(site: Site) -> None:
    site.routes |= {"/endless": endless, "/told": Answer(b"", headers={"Content-Length": "9" * 18})}
    with Web(OWN.model_copy(update={"max_bytes": 2**20})) as web:
        for path in ("/endless", "/told"):
            with pytest.raises(InputError, match="larger than 1 MiB"):
                web.get(site.url + path)


def dripping(what: str) -> Any:
    def route(handler: http.server.BaseHTTPRequestHandler) -> None:
        if what == "body":
            handler.send_response(200)
            handler.end_headers()
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        handler.close_connection = True
        for number in range(200):
            handler.wfile.write(b"x" if what == "body" else f"X-{number}: 1\r\n".encode())
            handler.wfile.flush()
            time.sleep(0.05)

    return route


@pytest.mark.parametrize("what", ["body", "headers"])
def test_a_byte_now_and_then_does_not_hold_us(site: Site, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(web_module, "TOTAL", 2)
    site.routes["/"] = dripping(what)
    with Web(OWN.model_copy(update={"timeout": 0.3})) as web, pytest.raises(ServiceError, match="too slowly") as caught:
        web.get(site.url)
    assert caught.value.retryable


def test_a_silent_server_is_given_up(site: Site) -> None:
    release = threading.Event()
    site.routes["/"] = lambda handler: release.wait(10) and None
    with Web(OWN.model_copy(update={"timeout": 0.2})) as web, pytest.raises(ServiceError, match=r"silent for 0\.2"):
        web.get(site.url)
    release.set()


def test_no_server_and_no_http_are_service_errors(web: Web) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def babble() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        with pytest.raises(ServiceError, match="does not speak HTTP"):
            web.get(f"http://127.0.0.1:{port}/")
        thread.join()
    with pytest.raises(ServiceError, match="cannot be reached") as caught:
        web.get(f"http://127.0.0.1:{port}/")
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, InputError), (410, InputError), (403, InputError), (418, InputError), (500, ServiceError)],
)
def test_statuses_say_who_has_to_act(site: Site, web: Web, status: int, kind: type[IlabError]) -> None:
    site.routes["/a"] = Answer("no", status)
    with pytest.raises(kind, match=str(status)) as caught:
        web.get(f"{site.url}/a")
    assert caught.value.where == f"{site.url}/a"
    assert web.ask(f"{site.url}/a").status == status


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_told(site: Site, web: Web, form: str) -> None:
    value = "90" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=91))
    site.routes["/"] = Answer("", 429, {"Retry-After": value})
    with pytest.raises(ServiceError) as caught:
        web.get(site.url)
    assert caught.value.retryable
    assert caught.value.hint in ("the server asks to wait 90 seconds", "the server asks to wait 91 seconds")
    assert Reply("", 503, {"retry-after": "soon"}).retry_after is None


def test_redirects_are_followed_up_to_ten(site: Site, web: Web) -> None:
    site.routes |= {f"/{n}": Answer("", 301, {"Location": f"../{n - 1}"}) for n in range(1, 12)}
    site.routes["/0"] = Answer("end")
    assert web.get(f"{site.url}/10").url == f"{site.url}/0"
    with pytest.raises(InputError, match="more than 10 times"):
        web.get(f"{site.url}/11")


def test_a_secure_page_does_not_lead_to_an_insecure_one() -> None:
    reply = Reply("https://example.org/a", 302, {"location": "http://example.org/b"})
    assert reply.location == "https://example.org/b"
    assert Reply("http://example.org/a", 302, {"location": "//other.example/b"}).location == "http://other.example/b"


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://example.org/", "file:///etc/passwd", "http:///a", "http://example.org:0/", "//example.org/"],
)
def test_what_is_no_web_address_is_refused(web: Web, url: str) -> None:
    with pytest.raises(InputError):
        web.get(url)


@pytest.mark.parametrize(
    "url", ["http://a:99999/", "http://a\x00b/", "javascript:x", "http://[::1", "http://a/" + "b" * 3000]
)
def test_addresses_in_bad_form_are_refused(web: Web, url: str) -> None:
    with pytest.raises(InputError):
        web.get(url)


def test_passwords_are_neither_sent_nor_shown(site: Site, web: Web) -> None:
    site.routes["/a"] = Answer("", 302, {"Location": f"http://me:hunter2@127.0.0.1:{site.port}/b"})
    for url in (f"http://me:hunter2@127.0.0.1:{site.port}/a", f"{site.url}/a", "ftp://me:hunter2@x/"):
        with pytest.raises(InputError) as caught:
            web.get(url)
        assert "hunter2" not in str(caught.value)
    assert site.paths == ["/a"]


def test_an_encoding_nobody_asked_for(site: Site, web: Web) -> None:
    site.routes["/"] = Answer(b"\x0b", headers={"Content-Encoding": "br"})
    with pytest.raises(ServiceError, match="nobody asked for: br"):
        web.get(site.url)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    names = ["-subj", "/CN=own", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, "-keyout", path, "-out"]
    subprocess.run([*command, path.with_suffix(".crt")], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


def test_certificates_are_verified(certificate: Path, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    own = OWN.model_copy(update={"private_hosts": ("127.0.0.1", "localhost")})
    trusting = own.model_copy(update={"ca_file": str(certificate.with_suffix(".crt"))})
    with serve({"/": Answer("safe")}, tls=context) as site:
        with Web(own) as web, pytest.raises(ServiceError, match="certificate is not trusted") as caught:
            web.get(site.url)
        assert "ca_file" in caught.value.hint
        assert not caught.value.retryable
        with Web(trusting) as web:
            assert web.get(site.url).body == b"safe"
            with pytest.raises(ServiceError, match=r"certificate is not trusted: .*localhost"):
                web.get(f"https://localhost:{site.port}/")
    for name in ("missing.pem", "junk.pem"):
        (tmp_path / "junk.pem").write_text("junk")
        with pytest.raises(SetupError, match="no certificates"):
            Web(own.model_copy(update={"ca_file": str(tmp_path / name)}))


def test_a_proxy_is_used_and_asked_for_public_names_only(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://me:hunter2@127.0.0.1:{site.port}")
    site.routes["http://docs.nowhere.invalid/a"] = Answer("by proxy")
    with Web(WebWhere()) as web:
        assert web.get("http://docs.nowhere.invalid/a").body == b"by proxy"
        assert site.requests[0][1]["proxy-authorization"].startswith("Basic ")
        for url in ("http://127.0.0.1/", "http://169.254.169.254/", "http://intranet/", "http://wiki.internal/"):
            with pytest.raises(InputError):
                web.get(url)
    assert site.paths == ["http://docs.nowhere.invalid/a"]
    monkeypatch.setenv("HTTP_PROXY", "socks5://me:hunter2@127.0.0.1:1")
    with Web(WebWhere()) as web, pytest.raises(SetupError, match="http and https proxies") as caught:
        web.get("http://docs.nowhere.invalid/a")
    assert "hunter2" not in str(caught.value)


def test_a_fetched_file_is_kept_and_asked_for_anew(site: Site, tmp_path: Path) -> None:
    site.routes["/a"] = Answer("one", headers=TEXT, validate=True)
    first = fetch(f"{site.url}/a", tmp_path, OWN)
    again = fetch(f"{site.url}/a#x", tmp_path, OWN)
    assert (first.path.read_bytes(), first.media, first.stale) == (b"one", "text/plain", False)
    assert first == again
    assert "if-none-match" in site.requests[1][1]
    site.routes["/a"] = Answer("two", headers=TEXT)
    changed = fetch(f"{site.url}/a", tmp_path, OWN)
    assert changed.path.read_bytes() == b"two"
    assert first.path.read_bytes() == b"one"  # whoever pinned it still has it


def test_a_copy_serves_while_the_server_does_not(site: Site, tmp_path: Path) -> None:
    site.routes |= {"/a": Answer("one", headers=TEXT), "/old": Answer("", 301, {"Location": "/a"})}
    assert fetch(f"{site.url}/old", tmp_path, OWN).url == f"{site.url}/a"
    site.routes["/a"] = Answer("", 503)
    stale = fetch(f"{site.url}/old", tmp_path, OWN)
    assert (stale.stale, stale.path.read_bytes(), stale.url) == (True, b"one", f"{site.url}/a")
    site.routes["/a"] = Answer("", 410)
    with pytest.raises(InputError, match="410"):
        fetch(f"{site.url}/old", tmp_path, OWN)
    with pytest.raises(ServiceError):
        fetch(f"http://127.0.0.1:{free_port()}/", tmp_path, OWN)


def test_a_damaged_cache_is_made_anew(site: Site, tmp_path: Path) -> None:
    site.routes["/a"] = Answer("one", headers=TEXT, validate=True)
    first = fetch(f"{site.url}/a", tmp_path, OWN)
    record = first.path.parent / "reply.json"
    for damage in ("{", "[]", json.dumps({"asked": "?"}), record.read_text().replace(first.path.name, "../../x")):
        record.write_text(damage)
        assert fetch(f"{site.url}/a", tmp_path, OWN).path.read_bytes() == b"one"
    first.path.unlink()
    assert fetch(f"{site.url}/a", tmp_path, OWN).path.read_bytes() == b"one"
    assert all("if-none-match" not in headers for _, headers in site.requests)
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
