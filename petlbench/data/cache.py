"""Decode and resize every image once: a uint8 array on disk, shared by all runs and processes.

One `.npy` file per (split version, geometry), written whole and renamed into place, so a file that
exists is complete; memory-mapped, so that an epoch touches no image file. Beside it, a digest of
each image's pixels, by which the same image is found in two splits, and a description with the
checksums of both. Pixels are compared with theirs when the file is new or was touched since (its
stamp): that takes a second for each gigabyte, and nothing in the runs after.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import joblib
import numpy as np
import torch
from filelock import FileLock
from PIL import Image

from petlbench import home, protocol
from petlbench.data import ahead
from petlbench.data.split import Split
from petlbench.errors import RunError, UsageError
from petlbench.store import write_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

# Raise when the meaning of a cached array changes; 2: with digests, 3: 16-bit grey not clipped.
FORMAT = 3
DIGEST_BYTES = 16
# What these names mean never changes; "bicubic-torch" and "bilinear-torch" are torch's resampling,
# which is faster and always takes rows first (Pillow takes columns first in tall images).
PILLOW = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Geometry:
    """How an image becomes `size` x `size` px: resized and, where `resize_to` says so, cropped.

    Sizes in pixels. With `resize_to` 0 both sides become `size`, and nothing is cropped. Otherwise
    both sides become `resize_to` or, with `keep_aspect`, the shorter side does and the longer one
    follows in proportion; then the middle is cut out. Both round as torchvision's Resize and
    CenterCrop do. Raises UsageError for a rule that leaves no image of that size.
    """

    size: int
    resize: str
    resize_to: int = 0
    keep_aspect: bool = False

    def __post_init__(self) -> None:
        if self.resize_to and self.resize_to < self.size:
            raise UsageError(
                f"protocol.resize_to = {self.resize_to} is smaller than protocol.image_size = "
                f"{self.size}, which is cropped from it; raise it, or use 0 for no crop."
            )
        if self.keep_aspect and not self.resize_to:
            raise UsageError(
                "protocol.keep_aspect = true needs protocol.resize_to, the length of the shorter "
                f"side; for no border at all: --set protocol.resize_to={self.size}"
            )

    @classmethod
    def of(cls, rules: dict[str, Any]) -> Geometry:
        """The geometry of a protocol's rules; those that change nothing may be left out."""
        rules = protocol.neutral() | rules
        return cls(rules["image_size"], rules["resize"], rules["resize_to"], rules["keep_aspect"])

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the resize, before the crop."""
        if not self.keep_aspect:
            side = self.resize_to or self.size
            return side, side
        short, long = sorted((height, width))
        other = int(self.resize_to * long / short)
        return (other, self.resize_to) if height > width else (self.resize_to, other)

    def offsets(self, height: int, width: int) -> tuple[int, int]:
        """Top and left of the centre crop of an image of that size."""
        return round((height - self.size) / 2), round((width - self.size) / 2)


@dataclass(frozen=True)
class Images:
    """Decoded images (N, 3, S, S) uint8 RGB, labels (N,), and the SHA-256 of both."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    sha256: str
    source: dict[str, Any]  # where they come from, for the record
    digests: NDArray[np.void]  # (N,), 16 bytes: blake2b of the pixels of each image


def overlap(train: Images, test: Images) -> NDArray[np.int64]:
    """Indices, ascending, of the test images that are also training images.

    The same image means: exactly the same pixels once resized, whatever the file is called. A copy
    that was stored again with loss, cropped or mirrored is not found. Both of the same geometry.
    """
    known = set(train.digests.tolist())
    same = [index for index, digest in enumerate(test.digests.tolist()) if digest in known]
    return np.array(same, dtype=np.int64)


def require_usable() -> None:
    """Find out before a sweep, not in each of its runs. With images in it, it may be read-only."""
    folder = home.cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        if not any(folder.glob("*.npy")):
            raise _unusable(folder, error) from error


def _unusable(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        f"the image cache {folder} cannot be used: {error}. "
        "Point PETLBENCH_CACHE at a folder with space."
    )


def file_of(split: Split, geometry: Geometry) -> Path:
    """Where the images of `split` are cached, whether they are yet or not."""
    version = f"{FORMAT}\0{split.version()}\0{geometry.size}\0{geometry.resize}"
    if geometry.resize_to:
        version += f"\0{geometry.resize_to}\0{geometry.keep_aspect}"
    return home.cache_folder() / f"{hashlib.sha256(version.encode()).hexdigest()[:24]}.npy"


def load(
    split: Split,
    geometry: Geometry,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    threads: int = 0,
) -> Images:
    """The images of `split`, resized and cropped, from the cache or decoded into it.

    `threads` decode at the same time, 0 for one per usable core; the result does not depend on it.
    """
    file = file_of(split, geometry)
    folder = file.parent
    shape = (len(split), 3, geometry.size, geometry.size)
    try:
        opened = _open(file, shape)
        if opened is None:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_suffix(".lock")):  # the first one decodes, the others wait
                opened = _open(file, shape)
                if opened is None:
                    _build(file, split, geometry, on_progress, threads or joblib.cpu_count())
                    opened = _open(file, shape)
        if opened is None:
            raise OSError(errno.EIO, "what was written there reads as something else", str(file))
    except OSError as error:
        raise _unusable(folder, error) from error
    pixels, digests, digest = opened
    identity = hashlib.sha256(digest.encode() + split.labels.tobytes()).hexdigest()
    return Images(pixels, split.labels, identity, split.describe, digests)


def decode(split: Split, geometry: Geometry) -> NDArray[np.uint8]:
    """The images of `split`, (N, 3, S, S) uint8, without a cache."""
    contents = _contents(split, geometry, joblib.cpu_count())
    joined = bytearray().join([content for content, _ in contents])
    return np.frombuffer(joined, np.uint8).reshape(-1, 3, geometry.size, geometry.size)


def _beside(file: Path) -> tuple[Path, Path]:
    """Where the digests and the description of a cached array are."""
    return file.with_suffix(".hashes.npy"), file.with_suffix(".json")


def _open(
    file: Path, shape: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.void], str] | None:
    """The memory-mapped array, its digests and its SHA-256, or None if absent or damaged.

    Raises MemoryError where there is no room to map it.
    """
    hashes, sidecar = _beside(file)
    told, now = home.recall(sidecar), time.time()
    try:
        stamp = home.stamp(file.stat())
        # copy-on-write: torch wants writable memory, and the file must never change
        pixels = np.load(file, mmap_mode="c", allow_pickle=False)
        digests = np.load(hashes, mmap_mode="r", allow_pickle=False).copy()
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(f"no memory to map {file}") from error
        return None
    except RunError:  # it must not be opened yet (vault.py)
        raise
    except Exception:  # of a damaged header NumPy raises anything
        return None
    intact = told is not None and pixels.shape == shape and pixels.dtype == np.uint8
    intact &= pixels.flags.c_contiguous
    intact &= digests.shape == shape[:1] and digests.dtype == f"V{DIGEST_BYTES}"
    if not intact or _sha256(digests) != told["digests"]:
        return None
    if told["verified"] != stamp:
        if _sha256(pixels) != told["sha256"]:
            return None
        if home.settled(stamp, now):
            with contextlib.suppress(OSError):  # read-only or full: verified again the next time
                home.remember(sidecar, told | {"verified": stamp})
    return pixels, digests, told["sha256"]


def _sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(array.data).hexdigest()


def _build(
    file: Path,
    split: Split,
    geometry: Geometry,
    on_progress: Callable[[int, int], None],
    threads: int,
) -> None:
    for abandoned in file.parent.glob(f"{file.stem}*.partial"):  # by who held the lock and died
        abandoned.unlink()
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.stem, suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        shape = (len(split), 3, geometry.size, geometry.size)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        digest, digests = hashlib.sha256(), bytearray()
        with partial.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            with contextlib.closing(_contents(split, geometry, threads)) as contents:
                for done, (content, hashed) in enumerate(contents, start=1):
                    stream.write(content)
                    digest.update(content)
                    digests += hashed
                    on_progress(done, len(split))
            stream.flush()
            os.fsync(stream.fileno())
        partial.chmod(0o644)  # a cache may be shared
        hashes, sidecar = _beside(file)
        of_images = np.frombuffer(digests, f"V{DIGEST_BYTES}")
        np.save(buffer := io.BytesIO(), of_images)
        write_bytes(hashes, buffer.getvalue())
        told = {"sha256": digest.hexdigest(), "digests": _sha256(of_images), "verified": None}
        home.remember(sidecar, told | {"split": split.name, "source": split.describe})
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _contents(
    split: Split, geometry: Geometry, threads: int
) -> Generator[tuple[bytes, bytes], None, None]:
    """The pixels (3, S, S) uint8 of each image and their digest, in order."""

    def content(index: int) -> tuple[bytes, bytes]:
        pixels = resized(split.read(index), geometry)
        top, left = geometry.offsets(*pixels.shape[1:])
        cropped = pixels[:, top : top + geometry.size, left : left + geometry.size]
        raw = cropped.contiguous().numpy().tobytes()
        return raw, hashlib.blake2b(raw, digest_size=DIGEST_BYTES).digest()

    return in_order(content, len(split), threads)


def in_order(call: Callable[[int], T], count: int, threads: int) -> Generator[T, None, None]:
    """What `call` makes of each image 0..count-1, in order; one core for each image."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the pool's threads start with this
    try:
        yield from ahead.in_order(call, range(count), threads)
    finally:
        torch.set_num_threads(before)


def resized(image: Image.Image, geometry: Geometry) -> torch.Tensor:
    """An RGB image -> (3, H, W) uint8, resized, not cropped.

    Nearly all of it runs without the interpreter lock.
    """
    height, width = geometry.resized(image.height, image.width)
    if geometry.resize in PILLOW and image.size != (width, height):
        image = image.resize((width, height), PILLOW[geometry.resize])
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    if pixels.shape[1:] != (height, width):
        mode = geometry.resize.removesuffix("-torch")
        (pixels,) = torch.nn.functional.interpolate(
            pixels[None], (height, width), mode=mode, antialias=True
        )
    return pixels
