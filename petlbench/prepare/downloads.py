"""Files from the network, by checksum only; what has come of one is kept, and it goes on there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from petlbench.errors import UsageError
from petlbench.prepare import archives
from petlbench.prepare.examples import Download, Source

Progress = Callable[[str, int, int], None]
"""(what, done, total): called often, from one thread."""

TIMEOUT = 60  # seconds without a byte


def get(source: Source, raw: Path, progress: Progress) -> None:
    """Download what `source` gives a checksum for into `raw`, and extract archives there.

    Files that are there with that checksum are not downloaded again. Raises UsageError.
    """
    for download in source.DOWNLOAD:
        if download.checksum is None:
            continue
        file = fetch(download, raw, progress)
        if archives.is_archive(file):
            progress(f"extracting {file.name}", 0, 1)
            fresh = raw / f".{file.name}.extracted"
            shutil.rmtree(fresh, ignore_errors=True)
            archives.extract(file, fresh)
            _merge(fresh, raw)
            shutil.rmtree(fresh, ignore_errors=True)
            progress(f"extracting {file.name}", 1, 1)


def fetch(download: Download, folder: Path, progress: Progress) -> Path:
    """The file in `folder`, downloaded if it is not there with the right checksum."""
    try:
        import pooch
        import requests
    except ImportError as error:
        raise UsageError(
            "--download needs pooch, which is not installed: pip install 'petlbench[data]'"
        ) from error
    pooch.get_logger().setLevel("ERROR")  # all it has to say is said here
    partial = folder / f".{download.file}.partial"

    def resume(url: str, output: str, _: Any) -> None:
        _resume(url, partial, download.bytes or 0, lambda *n: progress(download.file, *n))
        os.replace(partial, output)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Path(
            pooch.retrieve(
                download.url, download.checksum, download.file, folder, downloader=resume
            )
        )
    except (requests.RequestException, OSError) as error:
        raise UsageError(
            f"cannot download {download.url}: {error}. What has come of it is kept: the same "
            f"command goes on. Or put it yourself at {folder / download.file}."
        ) from error
    except ValueError as error:  # of pooch, which has removed what it got
        raise UsageError(
            f"what came from {download.url} is refused: it does not have {download.checksum}. "
            f"Try again, or put the right file at {folder / download.file}."
        ) from error


def _resume(url: str, partial: Path, size: int, progress: Callable[[int, int], None]) -> None:
    """Complete `partial`, from where it ends if the server can do that."""
    import requests

    done = partial.stat().st_size if partial.exists() else 0
    if size and done == size:
        return
    # bytes as they are: a compressed answer could not go on in the middle
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416 and done:  # what is there is longer than the file
            partial.unlink()
            return _resume(url, partial, size, progress)
        answer.raise_for_status()
        goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        done = done if goes_on else 0
        total = done + int(answer.headers.get("Content-Length") or 0)
        with partial.open("ab" if goes_on else "wb") as stream:
            for chunk in answer.iter_content(2**20):
                stream.write(chunk)
                done += len(chunk)
                progress(done, max(total, done))


def _merge(source: Path, target: Path) -> None:
    """Move what is in `source` into `target`, replacing files: archives can share folders."""
    for entry in source.iterdir():
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            _merge(entry, place)
        else:
            os.replace(entry, place)
