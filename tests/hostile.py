"""Broken and hostile binary files, made when they are tested; the readable ones lie in corpus/.

Each dict: file name -> (its content, a part of what a person is told).
"""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from PIL import Image

Cases = dict[str, tuple[bytes, str]]

# -- images ---------------------------------------------------------------------------------------


def png(width: int, height: int, depth: int = 8, kind: int = 2, rows: bytes = b"") -> bytes:
    """A PNG that says what it is told to say; kind 0 is grey, 2 RGB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def picture(size: int = 16) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def images() -> Cases:
    whole = {kind: saved(picture(), kind) for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")}
    unknown, cannot = "cannot identify image file", "cannot decode image"
    cut = {
        f"cut-at-{keep}-percent.{kind.lower()}": (content[: len(content) * keep // 100], cannot)
        for kind, content in whole.items()
        for keep in (5, 60)
    }
    return cut | {
        "empty.png": (b"", unknown),
        "text.jpg": (b"this is no image", unknown),
        "page.jpg": (b"<!doctype html><title>404 Not Found</title>", unknown),
        "vector.png": (b'<svg xmlns="http://www.w3.org/2000/svg"><image/></svg>', unknown),
        "random.png": (np.random.default_rng(1).bytes(300), unknown),
        "zero-wide.png": (png(0, 8), unknown),
        "zero-high.png": (png(8, 0), unknown),
        "bomb.png": (png(60_000, 60_000), "refusing image"),
        "half-a-bomb.png": (png(12_000, 12_000), cannot),
        "no-pixels.png": (png(8, 8), cannot),
        "checksum.png": (whole["PNG"][:40] + b"\0\0\0\0" + whole["PNG"][44:], cannot),
        "32-bit.tiff": (saved(Image.new("I", (4, 4), 70_000), "TIFF"), "no known range"),
        "floats.tiff": (saved(Image.new("F", (4, 4), 0.5), "TIFF"), "no known range"),
    }


# -- archives -------------------------------------------------------------------------------------


def zipped(
    files: Mapping[str, bytes],
    alter: Callable[[zipfile.ZipInfo], None] | None = None,
    how: int = zipfile.ZIP_DEFLATED,
) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = how
            if alter:
                alter(info)
            archive.writestr(info, content)
    return stream.getvalue()


def tarred(name: str, content: bytes = b"", mode: str = "w:gz", **fields: Any) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for field, value in fields.items():
            setattr(info, field, value)
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def archives() -> Cases:
    fine = {"cifar/test.txt": b"images/0.png 1\n" * 200}
    zip_, tar = zipped(fine), tarred("cifar/test.txt", fine["cifar/test.txt"])
    zeros = b"\0" * 150 * 2**20
    unsafe, kind, corrupt = "is not a safe path", "neither a file nor a folder", "is corrupt"

    def link(info: zipfile.ZipInfo) -> None:
        info.create_system, info.external_attr = 3, 0o120777 << 16

    return {
        "goes-up.zip": (zipped({"../out.txt": b"1"}), unsafe),
        "goes-up.tgz": (tarred("a/../../out.txt"), unsafe),
        "absolute.zip": (zipped({"/etc/out.txt": b"1"}), unsafe),
        "absolute.tar": (tarred("/etc/out.txt", mode="w"), unsafe),
        "drive.zip": (zipped({"C:/out.txt": b"1"}), unsafe),
        "backslash.tgz": (tarred("a\\..\\..\\out.txt"), unsafe),
        "link.zip": (zipped({"a": b"/etc/passwd"}, link), kind),
        "link.tgz": (tarred("a", type=tarfile.SYMTYPE, linkname="/etc/passwd"), kind),
        "hard-link.tgz": (tarred("a", type=tarfile.LNKTYPE, linkname="../a"), kind),
        "device.tar": (tarred("a", mode="w", type=tarfile.CHRTYPE), kind),
        "pipe.tar": (tarred("a", mode="w", type=tarfile.FIFOTYPE), kind),
        "bomb.zip": (zipped({"zeros": zeros}), "100 times its size"),
        "bomb.tgz": (tarred("zeros", zeros), "100 times its size"),
        "packed-by-bzip2.zip": (zipped({"a": b"1"}, how=zipfile.ZIP_BZIP2), "than deflate"),
        "header-of-4-MB.tgz": (tarred("x", b"\0" * 2**22, type=tarfile.XHDTYPE), "a header in it"),
        "two-in-one.zip": (zipped({"a/B": b"1", "a/b": b"2"}), "would be one file"),
        "name-too-long.zip": (zipped({"a" * 300: b"1"}), "cannot extract"),
        "cut.zip": (zip_[: len(zip_) // 2], corrupt),
        "cut.tgz": (tar[: len(tar) // 2], corrupt),
        "no-end.tar": (tarred("a", b"1", mode="w")[:1024], corrupt),
        "empty.zip": (b"", corrupt),
        "empty.tar.xz": (b"", corrupt),
        "text.zip": (b"this is no archive", corrupt),
        "nameless.zip": (zipped({"": b"1"}), corrupt),
        "zip-in-tar.tar.bz2": (zip_, corrupt),
        "data.rar": (zip_, "is no archive that can be read"),
        "nothing-in-it.zip": (zipped({}), "has no folder cifar"),
        "no-task.zip": (zipped({"other/test.txt": b""}), "has no folder cifar"),
        "images-missing.zip": (zip_, "images are missing"),
    }


# -- arrays and checkpoints -----------------------------------------------------------------------


class Bomb:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('code of a data file was run')",)


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def npy(header: bytes, content: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def _zeros(name: str) -> bytes:
    """150 MiB of zeros in 150 KB."""
    return zipped({name: b"\0" * 150 * 2**20})


def predictions(total: int) -> Cases:
    """Of a test set of `total` images."""
    some = np.arange(total)
    whole, short = npz(predictions=some, labels=some), "does not hold predictions and labels"
    cannot = "cannot be read"
    huge = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1152921504606846975,), }"
    code = b"__import__('os').abort()"
    return {
        "empty": (b"", cannot),
        "text": (b"predictions", cannot),
        "cut": (whole[: len(whole) // 2], cannot),
        "end-changed": (whole[:60] + b"\xff" * 20 + whole[80:], cannot),
        "objects": (npz(predictions=np.array([Bomb()] * total), labels=some), cannot),
        "bomb": (_zeros("labels.npy"), "100 times its size"),
        "shape-too-large": (zipped({"predictions.npy": npy(huge)}), cannot),
        "code-in-header": (zipped({"predictions.npy": npy(code)}), cannot),
        "other-names": (npz(a=some, b=some), short),
        "one-short": (npz(predictions=some[1:], labels=some[1:]), short),
        "floats": (npz(predictions=some * 0.5, labels=some), short),
        "texts": (npz(predictions=some.astype(str), labels=some), short),
        "one-number": (npz(predictions=np.int64(3), labels=some), short),
        "two-dimensions": (npz(predictions=some[:, None], labels=some), short),
    }


def checkpoints(state: Mapping[str, Any]) -> Cases:
    """`state`: that of the model, as NumPy arrays."""
    import torch

    def pth(value: Any) -> bytes:
        stream = io.BytesIO()
        torch.save(value, stream)
        return stream.getvalue()

    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    first = next(iter(state))
    other = {**state, first: np.zeros((1, 2), np.float32)}
    missing = {name: array for name, array in state.items() if name != first}
    whole, torch_whole = safetensors.numpy.save(dict(state)), pth(tensors)
    cannot, misfit = "cannot be read as a checkpoint", "does not fit this backbone"
    header = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,9999999]}}'
    return {
        "empty.safetensors": (b"", cannot),
        "text.safetensors": (b"this is no checkpoint", cannot),
        "cut.safetensors": (whole[: len(whole) // 2], cannot),
        "header-too-long.safetensors": (struct.pack("<Q", 2**62) + whole[8:], cannot),
        "beyond-its-end.safetensors": (struct.pack("<Q", len(header)) + header, cannot),
        "one-missing.safetensors": (safetensors.numpy.save(missing), f"1 missing: {first}"),
        "one-more.safetensors": (
            safetensors.numpy.save({**state, "more": np.zeros(2)}),
            "1 unexpected: more",
        ),
        "other-shape.safetensors": (safetensors.numpy.save(other), misfit),
        "zip.safetensors": (torch_whole, cannot),
        "empty.pth": (b"", cannot),
        "cut.pth": (torch_whole[: len(torch_whole) // 2], cannot),
        "code.pth": (pth({"a": Bomb()}), cannot),
        "code-in-a-list.bin": (pth([Bomb()]), cannot),
        "tensor.pt": (pth(torch.zeros(3)), "does not hold a state dict"),
        "numbers.pt": (pth({"a": 1}), "does not hold a state dict of tensors"),
        "keys-are-numbers.pt": (pth({1: torch.zeros(2)}), "does not hold a state dict of tensors"),
        "bomb.pth": (_zeros("archive/data.pkl"), "100 times its size"),
        "empty.npz": (b"", "it is no .npz archive"),
        "cut.npz": (npz(**state)[:2000], "it is no .npz archive"),
        "timm-names.npz": (npz(**state), "is not a Google ViT checkpoint"),
        "code.npz": (npz(cls=np.array([Bomb()])), cannot),
        "bomb.npz": (_zeros("cls.npy"), "100 times its size"),
        "weights.ckpt": (torch_whole, "a checkpoint is one of .safetensors"),
    }


def stored(spec: str) -> Cases:
    """Trained weights as `petlbench export` writes them; `spec`: what such a file tells."""

    def file(metadata: dict[str, str] | None) -> bytes:
        return safetensors.numpy.save({"head.bias": np.zeros(2, np.float32)}, metadata)

    cannot = "cannot be read"
    return {
        "empty.safetensors": (b"", cannot),
        "text.safetensors": (b"this is no export", cannot),
        "no-spec.safetensors": (file(None), "it holds no spec"),
        "spec-is-text.safetensors": (file({"spec": "lora"}), cannot),
        "spec-is-a-list.safetensors": (file({"spec": "[]"}), cannot),
        "spec-is-empty.safetensors": (file({"spec": "{}"}), cannot),
        "spec-too-deep.safetensors": (file({"spec": "[" * 5000}), cannot),
        "method-is-text.safetensors": (file({"spec": '{"method": "lora"}'}), cannot),
        "spec-of-more.safetensors": (file({"spec": spec[:-1] + ', "more": 1}'}), "'more'"),
        "other-weights.safetensors": (file({"spec": spec}), "are of another model"),
    }
