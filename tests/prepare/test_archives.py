"""Archives: what is extracted, and everything that is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petlbench.errors import UsageError
from petlbench.prepare import archives

FILES = {"a/one.txt": b"1" * 3000, "a/b/two words.txt": os.urandom(5000), "three": b""}
MODES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


def pack(folder: Path, suffix: str, files: dict[str, bytes] = FILES) -> Path:
    file = folder / f"data{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(file, MODES[suffix]) as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return file


def refused(file: Path, target: Path, *parts: str) -> None:
    """Refused naming the archive, and nothing of it remains, inside the target or beside it."""
    before = {path for path in target.parent.rglob("*")}
    with pytest.raises(UsageError) as raised:
        archives.extract(file, target)
    for part in (str(file), *parts):
        assert part in str(raised.value)
    assert {path for path in target.parent.rglob("*")} == before


@pytest.mark.parametrize("suffix", archives.SUFFIXES)
def test_files_come_out_as_they_went_in(tmp_path: Path, suffix: str) -> None:
    archives.extract(pack(tmp_path, suffix), tmp_path / "out")
    found = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert found == FILES


def test_folders_and_dots_are_members_too(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in (".", "./a", "./a/b", "a"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
    archives.extract(tmp_path / "x.tar", tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b").is_dir()


ESCAPES = ["../out.txt", "a/../../out.txt", "/tmp/out.txt", "C:/out.txt", "..\\out.txt", "a\\b"]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_path_that_escapes(tmp_path: Path, suffix: str, name: str) -> None:
    file = pack(tmp_path, suffix, {"fine": b"1", name: b"2"})
    refused(file, tmp_path / "deep" / "out", repr(name), "not a safe path")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_links_and_devices_of_a_tar(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("odd")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    refused(tmp_path / "x.tar", tmp_path / "out", "'odd'", "neither a file nor a folder")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_of_a_zip(tmp_path: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("odd")
        info.create_system, info.external_attr = 3, (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    refused(tmp_path / "x.zip", tmp_path / "out", "'odd'", "neither a file nor a folder")


def test_an_encrypted_member(tmp_path: Path) -> None:
    file = pack(tmp_path, ".zip", {"secret": b"1"})
    content = bytearray(file.read_bytes())
    content[6] |= 1  # flag bits of the local header, and of the directory
    content[content.index(b"PK\1\2") + 8] |= 1
    file.write_bytes(content)
    refused(file, tmp_path / "out", "'secret'", "encrypted")


@pytest.mark.parametrize(
    "names", [("I.png", "i.png"), ("A/one", "a/two"), ("a", "a/b"), ("a/b", "a"), ("é", "e\u0301")]
)
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_two_members_that_are_one_file(tmp_path: Path, suffix: str, names: tuple[str, str]) -> None:
    file = pack(tmp_path, suffix, dict.fromkeys(names, b"1"))
    refused(file, tmp_path / "out", "would be one file")


def test_a_member_that_comes_twice(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    refused(tmp_path / "x.tar", tmp_path / "out", "'a' and 'a'")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(archives, "FLOOR", 10_000)
    file = pack(tmp_path, suffix, {"zeros": b"\0" * 2_000_000})
    refused(file, tmp_path / "out", "100 times its size")


def test_a_bomb_of_empty_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FLOOR", 10_000)
    file = pack(tmp_path, ".tar.xz", {f"{i}": b"" for i in range(3000)})
    refused(file, tmp_path / "out", "100 times its size")


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_bomb_after_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, apart: bool
) -> None:
    """Behind the last member, in the same stream or in one that is joined to it."""
    monkeypatch.setattr(archives, "FLOOR", 100_000)
    file, zeros = pack(tmp_path, suffix), b"\0" * 3_000_000
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    unpack = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
    packed, kind = file.read_bytes(), file.suffix
    file.write_bytes(
        packed + compress[kind](zeros) if apart else compress[kind](unpack[kind](packed) + zeros)
    )
    refused(file, tmp_path / "out", "100 times its size")


def test_streams_that_are_joined_are_one_archive(tmp_path: Path) -> None:
    whole = pack(tmp_path, ".tar").read_bytes()
    file = tmp_path / "x.tar.gz"
    file.write_bytes(gzip.compress(whole[:700]) + gzip.compress(whole[700:]))
    archives.extract(file, tmp_path / "out")
    assert (tmp_path / "out" / "a" / "one.txt").read_bytes() == FILES["a/one.txt"]


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [3_000_000, 2**60, -1000])
def test_a_header_of_gigantic_size(tmp_path: Path, kind: bytes, size: int) -> None:
    """tarfile reads those whole into memory."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    with gzip.open(tmp_path / "x.tgz", "wb") as stream:
        stream.write(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 4_000_000)
    refused(tmp_path / "x.tgz", tmp_path / "out", "a header in it has")


def test_a_sparse_file_of_gigantic_size(tmp_path: Path) -> None:
    """Of a few bytes in the archive."""
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**60)}
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("holes")
        info.size, info.pax_headers = 512, pax
        archive.addfile(info, io.BytesIO(b"1\n0\n0\n".ljust(512, b"\0")))
    refused(tmp_path / "x.tar", tmp_path / "out", "100 times its size")


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_is_unpacked_at_once(tmp_path: Path, kind: int) -> None:
    """zipfile unpacks a whole chunk of these, whatever the size of the member is said to be."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w", kind) as archive:
        archive.writestr("a", b"\0" * 1000)
    refused(tmp_path / "x.zip", tmp_path / "out", "'a'", "another method than deflate")
    with pytest.raises(zipfile.BadZipFile, match="another method than deflate"):
        archives.refuse_bomb(tmp_path / "x.zip")


@pytest.mark.parametrize("told", [10, 2**20, 2**40])
def test_a_zip_that_lies_about_sizes(tmp_path: Path, told: int) -> None:
    file = pack(tmp_path, ".zip", {"a": b"1" * 1000})
    content = bytearray(file.read_bytes())
    place = content.index(b"PK\1\2")
    if told < 2**32:
        content[place + 24 : place + 28] = struct.pack("<I", told)
    else:  # zip64: a field of its own behind the name
        extra = struct.pack("<HHQ", 1, 8, told)
        content[place + 24 : place + 28] = b"\xff" * 4
        content[place + 30 : place + 32] = struct.pack("<H", len(extra))
        content[place + 47 : place + 47] = extra
        end = content.index(b"PK\5\6")
        content[end + 12 : end + 16] = struct.pack("<I", 47 + len(extra))
    file.write_bytes(content)
    refused(file, tmp_path / "out", "100 times" if told > 2**32 else "corrupt")


def test_a_zip_whose_members_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One content, named again and again: each counts."""
    monkeypatch.setattr(archives, "FLOOR", 10_000)
    file = pack(tmp_path, ".zip", {"00": b"\0" * 5_000})
    content = file.read_bytes()
    start, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    entries = [content[start : end - 2] + b"%02d" % i for i in range(99)]
    last = bytearray(content[end:])
    last[8:16] = struct.pack("<HHI", 99, 99, sum(map(len, entries)))
    file.write_bytes(content[:start] + b"".join(entries) + last)
    with zipfile.ZipFile(file) as opened:
        assert len(opened.namelist()) == 99
    with pytest.raises(UsageError, match=r"100 times its size|corrupt"):
        archives.extract(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", archives.SUFFIXES)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.9])
def test_a_truncated_archive(tmp_path: Path, suffix: str, keep: float) -> None:
    # content that does not shrink, so that the cut is not in the padding of the tar
    file = pack(tmp_path, suffix, {f"{i}": os.urandom(9_000) for i in range(9)})
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    refused(file, tmp_path / "out", "corrupt or was not downloaded whole")


def test_a_tar_cut_between_two_members(tmp_path: Path) -> None:
    """Which Python's tarfile takes for its end."""
    file = pack(tmp_path, ".tar", {"a": b"1" * 512, "b": b"2" * 512})
    file.write_bytes(file.read_bytes()[:1024])
    refused(file, tmp_path / "out", "it has no end")


@pytest.mark.parametrize("suffix", archives.SUFFIXES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, place: float, bit: int
) -> None:
    """Never another exception, never a file outside, and compressed content never differs."""
    folder = tmp_path_factory.mktemp("flip")
    file = pack(folder, suffix)
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    file.write_bytes(content)
    try:
        archives.extract(file, folder / "out")
    except UsageError as error:
        assert str(file) in str(error) and not (folder / "out").exists()
    assert {path.name for path in folder.iterdir()} <= {file.name, "out"}
    one = folder / "out" / "a" / "one.txt"
    if suffix != ".tar" and one.exists():  # a plain tar has no checksum of its content
        assert one.read_bytes() == FILES["a/one.txt"]


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "x.rar").write_bytes(b"")
    refused(tmp_path / "x.rar", tmp_path / "out", "no archive that can be read", ".tar.xz")
    for suffix in (".zip", ".tar"):
        (tmp_path / f"x{suffix}").write_bytes(b"<html>Quota exceeded</html>")
        refused(tmp_path / f"x{suffix}", tmp_path / "out", "corrupt")
    refused(tmp_path / "none.zip", tmp_path / "out", "No such file")


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    file = pack(tmp_path, ".tar")
    monkeypatch.setattr(archives.shutil, "copyfileobj", interrupt)
    with pytest.raises(KeyboardInterrupt):
        archives.extract(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()
