"""Decode and resize every image once: a uint8 array on disk, shared by all runs and processes.

One `.npy` file per (split version, size, resize rule), written whole and renamed into place, so
a file that exists is complete; memory-mapped, so that an epoch touches no image file.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import torch
from filelock import FileLock
from PIL import Image

from petlbench.data.split import Split
from petlbench.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1  # raise when the meaning of a cached array changes
# What these names mean never changes; "bicubic-torch" and "bilinear-torch" are torch's resampling,
# which is faster and always takes rows first (Pillow takes columns first in tall images).
PILLOW = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Images:
    """Decoded images (N, 3, S, S) uint8 RGB, labels (N,), and the SHA-256 of both."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    sha256: str
    source: dict[str, Any]  # where they come from, for the record


def cache_folder() -> Path:
    folder = os.environ.get("PETLBENCH_CACHE") or "~/.cache/petlbench"
    return Path(folder).expanduser()


def require_writable() -> None:
    """Find out before a sweep, not in each of its runs."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        f"the image cache {folder} cannot be used: {error}. "
        "Point PETLBENCH_CACHE at a folder with space."
    )


def load(
    split: Split,
    size: int,
    resize: str,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    threads: int = 0,
) -> Images:
    """The images of `split` at `size` x `size` px, from the cache or decoded into it.

    `threads` decode at the same time, 0 for one per usable core; the result does not depend on it.
    """
    version = f"{FORMAT}\0{split.version()}\0{size}\0{resize}"
    key = hashlib.sha256(version.encode()).hexdigest()[:24]
    folder = cache_folder()
    file = folder / f"{key}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):  # the first one decodes, the others wait
            opened = _open(file, len(split), size)
            if opened is None:
                _build(file, split, size, resize, on_progress, threads or joblib.cpu_count())
                opened = _open(file, len(split), size)
            assert opened is not None
            pixels, digest = opened
    except OSError as error:
        raise _unusable(folder, error) from error
    identity = hashlib.sha256(digest.encode() + split.labels.tobytes()).hexdigest()
    return Images(pixels, split.labels, identity, split.describe)


def decode(split: Split, size: int, resize: str) -> NDArray[np.uint8]:
    """The images of `split`, (N, 3, S, S) uint8, without a cache."""
    contents = list(_contents(split, size, resize, joblib.cpu_count()))
    return np.frombuffer(bytearray().join(contents), np.uint8).reshape(-1, 3, size, size)


def _open(file: Path, count: int, size: int) -> tuple[NDArray[np.uint8], str] | None:
    """The memory-mapped array and its SHA-256, or None if it is absent or damaged."""
    try:
        # copy-on-write: torch wants writable memory, and the file must never change
        pixels = np.load(file, mmap_mode="c", allow_pickle=False)
        digest = str(json.loads(file.with_suffix(".json").read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    intact = pixels.shape == (count, 3, size, size) and pixels.dtype == np.uint8
    return (pixels, digest) if intact else None


def _build(
    file: Path,
    split: Split,
    size: int,
    resize: str,
    on_progress: Callable[[int, int], None],
    threads: int,
) -> None:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.stem, suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        shape = (len(split), 3, size, size)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        digest = hashlib.sha256()
        with partial.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            with closing(_contents(split, size, resize, threads)) as contents:
                for done, content in enumerate(contents, start=1):
                    stream.write(content)
                    digest.update(content)
                    on_progress(done, len(split))
            stream.flush()
            os.fsync(stream.fileno())
        partial.chmod(0o644)  # a cache may be shared
        description = {"sha256": digest.hexdigest(), "split": split.name, **split.describe}
        sidecar = partial.with_suffix(".json.partial")
        sidecar.write_text(json.dumps(description))
        os.replace(sidecar, file.with_suffix(".json"))
        os.replace(partial, file)
    finally:
        for leftover in (partial, partial.with_suffix(".json.partial")):
            leftover.unlink(missing_ok=True)


def _contents(split: Split, size: int, resize: str, threads: int) -> Generator[bytes, None, None]:
    """What `_content` makes of each image, in order; a few are ready ahead of the caller."""
    Image.preinit()
    Image.init()  # now: two threads that load formats at the same time can miss them
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads)
    try:
        torch.set_num_threads(1)  # the pool's threads start with this: one core for each image
        ahead: deque[Future[bytes]] = deque()
        for index in range(len(split)):
            ahead.append(pool.submit(_content, split, index, size, resize))
            if len(ahead) > 4 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:  # also after an error or Ctrl-C: what has been begun is finished, no more
        torch.set_num_threads(before)
        pool.shutdown(cancel_futures=True)


def _content(split: Split, index: int, size: int, resize: str) -> bytes:
    """One image, resized: (3, S, S) uint8. Nearly all of it runs without the interpreter lock."""
    image = split.read(index)
    if resize in PILLOW and image.size != (size, size):
        image = image.resize((size, size), PILLOW[resize])
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    if pixels.shape[1:] != (size, size):
        mode = resize.removesuffix("-torch")
        (pixels,) = torch.nn.functional.interpolate(
            pixels[None], (size, size), mode=mode, antialias=True
        )
    return pixels.contiguous().numpy().tobytes()
