"""Extract archives that strangers packed: whole or not at all, and nothing outside the target."""

from __future__ import annotations

import lzma
import shutil
import stat
import struct
import tarfile
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
    """Whether it is a file or a folder: no link, no device, not encrypted."""
    source: Any


def is_archive(file: Path) -> bool:
    return file.name.lower().endswith(SUFFIXES)


def extract(archive: Path, target: Path) -> None:
    """Extract `archive` into the new folder `target`, which does not remain after an error.

    Raises UsageError, naming the archive, if it is corrupt or truncated, if a member has an
    absolute path, a `..`, a name that differs from another's only in case, is a link, a device
    or encrypted, or if all together are more than `RATIO` times the archive.
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
                shutil.copyfileobj(source, stream, 2**20)
                if stream.tell() != member.size:
                    raise EOFError(f"{member.name} ends early")


def refuse_bomb(file: Path) -> None:
    """Raise UsageError if the members of a zip (`.npz` and `.pth` are) grow more than they may.

    `zipfile` reads no more of a member than the size that is looked at here. Raises BadZipFile.
    """
    with zipfile.ZipFile(file) as opened:
        if sum(info.file_size for info in opened.infolist()) > _limit(file):
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
            "or is encrypted."
        )
    return path


def _once(
    archive: Path, path: PurePosixPath, folder: bool, seen: dict[str, tuple[str, bool]]
) -> None:
    """Refuse two members that are one file, also where capitals do not count.

    `seen`: small letters -> name and whether it is a folder, which alone may come again.
    """
    for part in (*list(path.parents)[-2::-1], path):
        this = str(part), folder or part != path
        known = seen.get(this[0].casefold())
        if known is not None and not (known == this and this[1]):
            raise UsageError(
                f"{archive} is refused: {known[0]!r} and {this[0]!r} in it would be one file."
            )
        seen[this[0].casefold()] = this


@contextmanager
def _zip(archive: Path) -> Iterator[tuple[Iterator[_Member], Any]]:
    with zipfile.ZipFile(archive) as opened:
        yield (_zip_member(info) for info in opened.infolist()), opened.open


def _zip_member(info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where it was not packed on Unix
    plain = kind in (0, stat.S_IFREG, stat.S_IFDIR) and not info.flag_bits & 1
    return _Member(info.filename, info.file_size, info.is_dir(), plain, info)


@contextmanager
def _tar(archive: Path) -> Iterator[tuple[Iterator[_Member], Any]]:
    with tarfile.open(archive, "r:*") as opened:

        def members() -> Iterator[_Member]:
            for info in opened:
                plain = info.isreg() or info.isdir()
                yield _Member(info.name, info.size, info.isdir(), plain, info)
            _require_end(opened)

        yield members(), opened.extractfile


def _require_end(opened: tarfile.TarFile) -> None:
    """A tar ends with zeros (tarfile takes any end for it), and compressed ones with a checksum."""
    stream: IO[bytes] = opened.fileobj  # type: ignore[assignment]  # it is open
    stream.seek(opened.offset)
    if stream.read(HEADER) != b"\0" * HEADER:
        raise EOFError("it has no end")
    while stream.read(2**20):
        pass
