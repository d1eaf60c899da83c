"""Downloads: only by checksum, resumed where they broke off, archives extracted beside."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from petlbench.errors import UsageError
from petlbench.prepare import downloads
from petlbench.prepare.examples import Download
from prepare.test_originals import Fake, make

pytest.importorskip("pooch")


class Server:
    """Serves `content`; remembers the ranges it was asked for; can break off, or know no ranges."""

    def __init__(self) -> None:
        self.content, self.ranges = b"", list[str | None]()
        self.breaks_after, self.knows_ranges, self.status = 0, True, 0
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.ranges.append(asked)
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.knows_ranges else 0
        if self.status or begin >= len(self.content):
            handler.send_response(self.status or 416)
            handler.end_headers()
            return
        handler.send_response(206 if begin else 200)
        if begin:
            end = len(self.content)
            handler.send_header("Content-Range", f"bytes {begin}-{end - 1}/{end}")
        handler.send_header("Content-Length", str(len(self.content) - begin))
        handler.end_headers()
        handler.wfile.write(self.content[begin : begin + (self.breaks_after or len(self.content))])

    def download(self, file: str = "data.bin") -> Download:
        digest = hashlib.sha256(self.content).hexdigest()
        return Download(self.url + file, file, f"sha256:{digest}", len(self.content))


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    made.content = os.urandom(3_000_000)
    thread = threading.Thread(target=made.http.serve_forever, daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


def fetch(server: Server, folder: Path, download: Download | None = None) -> Path:
    return downloads.fetch(download or server.download(), folder, lambda *_: None)


def test_a_file_comes_once(tmp_path: Path, server: Server) -> None:
    told: list[tuple[str, int, int]] = []
    for _ in range(2):
        file = downloads.fetch(server.download(), tmp_path / "new", lambda *s: told.append(s))
        assert file == tmp_path / "new" / "data.bin" and file.read_bytes() == server.content
    assert server.ranges == [None]
    assert told[-1] == ("data.bin", 3_000_000, 3_000_000)
    assert [entry.name for entry in file.parent.iterdir()] == ["data.bin"]


def test_it_goes_on_where_it_broke_off(tmp_path: Path, server: Server) -> None:
    server.breaks_after = 1_200_000
    with pytest.raises(UsageError, match=r"cannot download .*data.bin: .*(?s:.*)is kept"):
        fetch(server, tmp_path)
    kept = (tmp_path / ".data.bin.partial").stat().st_size
    assert 0 < kept <= 1_200_000 and not (tmp_path / "data.bin").exists()
    server.breaks_after = 0
    assert fetch(server, tmp_path).read_bytes() == server.content
    assert server.ranges == [None, f"bytes={kept}-"]


def test_a_server_without_ranges_begins_anew(tmp_path: Path, server: Server) -> None:
    (tmp_path / ".data.bin.partial").write_bytes(b"x" * 100)
    server.knows_ranges = False
    assert fetch(server, tmp_path).read_bytes() == server.content


def test_what_is_there_is_too_long(tmp_path: Path, server: Server) -> None:
    (tmp_path / ".data.bin.partial").write_bytes(b"x" * 4_000_000)
    assert fetch(server, tmp_path).read_bytes() == server.content
    assert server.ranges == ["bytes=4000000-", None]


def test_an_error_of_the_server_does_not_cost_what_has_come(tmp_path: Path, server: Server) -> None:
    (tmp_path / ".data.bin.partial").write_bytes(server.content[:100])
    server.status = 503
    with pytest.raises(UsageError, match="503"):
        fetch(server, tmp_path)
    assert (tmp_path / ".data.bin.partial").read_bytes() == server.content[:100]


@pytest.mark.parametrize("before", [b"", b"y" * 1000])
def test_a_wrong_checksum_is_refused(tmp_path: Path, server: Server, before: bytes) -> None:
    if before:
        (tmp_path / ".data.bin.partial").write_bytes(before)
        download = server.download()
    else:
        download = Download(server.url + "data.bin", "data.bin", "sha256:" + "0" * 64, None)
    with pytest.raises(UsageError, match=r"what came from .* is refused: .*sha256:"):
        fetch(server, tmp_path, download)
    assert list(tmp_path.iterdir()) == []  # and the next try begins anew


def test_a_changed_file_is_replaced(tmp_path: Path, server: Server) -> None:
    (tmp_path / "data.bin").write_bytes(b"cut off")
    assert fetch(server, tmp_path).read_bytes() == server.content


def test_without_pooch(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(UsageError, match=r"pip install 'petlbench\[data\]'"):
        fetch(server, tmp_path)


def packed(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return stream.getvalue()


def test_prepare_gets_what_is_missing(tmp_path: Path, server: Server) -> None:
    server.content = packed("noise.bin")
    told_only = Download("http://127.0.0.1:9/never", "never", None, None)
    source = Fake(DOWNLOAD=(server.download("noise.zip"), told_only))
    outcome = make(tmp_path / "raw", tmp_path / "out", source, download=True)
    assert outcome.made == ["count", "shape"] and outcome.failed == {}
    names = sorted(entry.name for entry in (tmp_path / "raw" / "noise").iterdir())
    assert names == ["noise.bin", "noise.zip"]
    make(tmp_path / "raw", tmp_path / "again", source, download=True)
    assert server.ranges == [None]  # what is there is not asked for


def test_nothing_is_downloaded_unasked_or_without_checksum(tmp_path: Path, server: Server) -> None:
    server.content = packed("noise.bin")
    one = server.download("noise.zip")
    make(tmp_path / "raw", tmp_path / "out", Fake(DOWNLOAD=(one,)))
    unknown = Download(one.url, one.file, None, one.bytes)
    outcome = make(tmp_path / "raw", tmp_path / "out", Fake(DOWNLOAD=(unknown,)), download=True)
    assert server.ranges == [] and f"from {one.url}" in outcome.failed["count"]


def test_archives_may_share_folders(tmp_path: Path, server: Server) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("before")
    for names in (("a/one", "a/b/two"), ("a/b/three", "a/old")):
        server.content = packed(*names)
        downloads.get(Fake(DOWNLOAD=(server.download("x.zip"),)), tmp_path, lambda *_: None)
    found = {p.relative_to(tmp_path).as_posix(): p for p in tmp_path.rglob("*") if p.is_file()}
    assert set(found) == {"a/one", "a/b/two", "a/b/three", "a/old", "x.zip"}
    assert found["a/old"].read_text() == "a/old"


def test_a_bad_archive_is_named(tmp_path: Path, server: Server) -> None:
    server.content = packed("../noise.bin")
    source = Fake(DOWNLOAD=(server.download("noise.zip"),))
    outcome = make(tmp_path / "raw", tmp_path / "out", source, download=True)
    assert "noise.zip is refused" in outcome.failed["count"]
