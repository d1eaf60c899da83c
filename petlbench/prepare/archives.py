"""Extract archives that strangers packed: whole or not at all, and nothing outside the target."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from petlbench.errors import UsageError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
RATIO = 100  # an archive of images hardly shrinks; one that grows more than this is a bomb
FLOOR = 100 * 2**20  # bytes: small archives of text may
HEADER = 512  # bytes that every member counts for, even an empty one
CHUNK = 2**20  # bytes in memory at a time; a tar's header that is longer is none
# Of others zipfile unpacks all that a chunk holds at once, which can be a million times as much.
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
UNPACK: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
CORRUPT: tuple[type[Exception], ...] = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    # zipfile: of a method that it does not know, and of a member without a name
    *(EOFError, ValueError, RuntimeError, IndexError),
)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    folder: bool
    plain: bool
    """Whether it is a file or a folder: no link, no device, not encrypted, of a known packing."""
    source: Any


def is_archive(file: Path) -> bool:
    return file.name.lower().endswith(SUFFIXES)


def extract(archive: Path, target: Path) -> None:
    """Extract `archive` into the new folder `target`, which does not remain after an error.

    Raises UsageError, naming the archive, if it is corrupt or truncated, if a member has an
    absolute path, a `..`, a name that differs from another's only in case or in how accents are
    written, is a link, a device or encrypted, or if all together are more than `RATIO` times the
    archive.
    """
    if not is_archive(archive):
        raise UsageError(f"{archive} is no archive that can be read: {', '.join(SUFFIXES)}.")
    target.mkdir(parents=True)
    try:
        _extract(archive, target)
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        # bz2 and gzip raise OSError without a number where the data are wrong
        numberless = isinstance(error, OSError) and error.errno is None
        if numberless or isinstance(error, CORRUPT):
            raise UsageError(
                f"{archive} is corrupt or was not downloaded whole: {error}. Download it again."
            ) from error
        if isinstance(error, OSError):
            raise UsageError(f"cannot extract {archive} into {target}: {error}") from error
        raise


def _extract(archive: Path, target: Path) -> None:
    limit = _limit(archive)
    total, seen = 0, dict[str, tuple[str, bool]]()
    opened = _zip if archive.name.lower().endswith(".zip") else _tar
    with opened(archive) as (members, open_member):
        for member in members:
            path = _inside(archive, member)
            total += max(member.size, HEADER)
            if total > limit:
                raise _bomb(archive)
            if not path.parts:
                continue  # "./"
            _once(archive, path, member.folder, seen)
            place = target.joinpath(*path.parts)
            if member.folder:
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with open_member(member.source) as source, place.open("xb") as stream:
                shutil.copyfileobj(source, stream, CHUNK)
                if stream.tell() != member.size:
                    raise EOFError(f"{member.name} ends early")


def refuse_bomb(file: Path) -> None:
    """Raise UsageError if the members of a zip (`.npz` and `.pth` are) grow more than they may.

    `zipfile` reads no more of a member than the size that is looked at here, if it is `PACKED` as
    theirs are. Raises BadZipFile.
    """
    with zipfile.ZipFile(file) as opened:
        members = opened.infolist()
    if any(info.compress_type not in PACKED for info in members):
        raise zipfile.BadZipFile("it is packed by another method than deflate")
    if sum(info.file_size for info in members) > _limit(file):
        raise _bomb(file)


def _limit(archive: Path) -> int:
    """Bytes that an archive of its size may grow to."""
    return max(FLOOR, RATIO * archive.stat().st_size)


def _bomb(archive: Path) -> UsageError:
    return UsageError(f"{archive} is refused: it would grow to more than {RATIO} times its size.")


def _inside(archive: Path, member: _Member) -> PurePosixPath:
    """The member's path, if it stays inside the folder that it is extracted into."""
    path, windows = PurePosixPath(member.name), PureWindowsPath(member.name)
    escapes = path.is_absolute() or ".." in path.parts or windows.drive or "\\" in member.name
    if escapes or "\0" in member.name:
        raise UsageError(f"{archive} is refused: its member {member.name!r} is not a safe path.")
    if not member.plain:
        raise UsageError(
            f"{archive} is refused: its member {member.name!r} is neither a file nor a folder, "
            "is encrypted, or is packed by another method than deflate."
        )
    return path


def _once(
    archive: Path, path: PurePosixPath, folder: bool, seen: dict[str, tuple[str, bool]]
) -> None:
    """Refuse two members that are one file, also where capitals and ways to write é do not count.

    `seen`: small letters -> name and whether it is a folder, which alone may come again.
    """
    for part in (*list(path.parents)[-2::-1], path):
        this = str(part), folder or part != path
        folded = unicodedata.normalize("NFC", this[0].casefold())
        known = seen.get(folded)
        if known is not None and not (known == this and this[1]):
            raise UsageError(
                f"{archive} is refused: {known[0]!r} and {this[0]!r} in it would be one file."
            )
        seen[folded] = this


@contextmanager
def _zip(archive: Path) -> Iterator[tuple[Iterator[_Member], Any]]:
    with zipfile.ZipFile(archive) as opened:
        yield (_zip_member(info) for info in opened.infolist()), opened.open


def _zip_member(info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where it was not packed on Unix
    plain = kind in (0, stat.S_IFREG, stat.S_IFDIR) and not info.flag_bits & 1
    plain &= info.compress_type in PACKED
    return _Member(info.filename, info.file_size, info.is_dir(), plain, info)


@contextmanager
def _tar(archive: Path) -> Iterator[tuple[Iterator[_Member], Any]]:
    with archive.open("rb") as file:
        start = file.read(8)
    unpack = next((how for mark, how in UNPACK.items() if start.startswith(mark)), open)
    with (
        unpack(archive, "rb") as stream,
        tarfile.open(
            fileobj=_Bounded(archive, stream),  # type: ignore[call-overload]
            mode="r:",
        ) as opened,
    ):

        def members() -> Iterator[_Member]:
            for info in opened:
                plain = info.isreg() or info.isdir()
                yield _Member(info.name, info.size, info.isdir(), plain, info)
            _require_end(opened)

        yield members(), opened.extractfile


class _Bounded:
    """What is unpacked, no further than it may grow, and never much at a time."""

    def __init__(self, archive: Path, stream: IO[bytes]) -> None:
        self.archive, self.stream, self.limit = archive, stream, _limit(archive)
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= CHUNK:  # tarfile reads a header whole, as long as that says it is
            raise UsageError(f"{self.archive} is refused: a header in it has {size:,} bytes.")
        content = self.stream.read(size)
        if self.tell() > self.limit:
            raise _bomb(self.archive)
        return content

    def seek(self, place: int) -> None:
        if place > self.limit:
            raise _bomb(self.archive)
        self.stream.seek(place)


def _require_end(opened: tarfile.TarFile) -> None:
    """A tar ends with zeros (tarfile takes any end for it), and compressed ones with a checksum."""
    stream: IO[bytes] = opened.fileobj  # type: ignore[assignment]  # it is open
    stream.seek(opened.offset)
    if stream.read(HEADER) != b"\0" * HEADER:
        raise EOFError("it has no end")
    while stream.read(CHUNK):
        pass
