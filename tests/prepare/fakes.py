"""Tiny data sets in the on-disk formats of the originals, one function per source.

Each writes into its raw folder and returns how many images the splits of TFDS then have.
"""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

from petlbench.prepare import sources
from petlbench.prepare.sources import dsprites as dsprites_source
from petlbench.prepare.sources import dtd as dtd_source
from petlbench.prepare.sources import eurosat as eurosat_source
from petlbench.prepare.sources import patch_camelyon as pcam_source
from petlbench.prepare.sources import resisc45 as resisc45_source
from petlbench.prepare.sources import smallnorb as smallnorb_source
from petlbench.prepare.tfrecord import masked_crc32c

Counts = Mapping[str, int]


def noise(seed: int, *shape: int, dtype: type[np.generic] = np.uint8) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


def picture(file: Path, seed: int = 0, size: tuple[int, int] = (12, 9)) -> Path:
    """An image of (width, height), in the format that its suffix says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, size[1], size[0], 3)).save(file)
    return file


def cifar(raw: Path) -> Counts:
    folder = raw / "cifar-100-binary"
    folder.mkdir(parents=True)
    for split, count in (("train", 30), ("test", 9)):
        rows = noise(count, count, 2 + 3072)
        rows[:, 0], rows[:, 1] = np.arange(count) % 20, (np.arange(count) * 7) % 100
        rows.tofile(folder / f"{split}.bin")
    return {"train": 30, "test": 9}


def svhn(raw: Path) -> Counts:
    raw.mkdir(parents=True)
    for split, count in (("train", 30), ("test", 9)):
        digits = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]
        savemat(
            raw / f"{split}_32x32.mat",
            {"X": noise(count, 32, 32, 3, count), "y": digits},
            do_compression=True,
        )
    return {"train": 30, "test": 9}


def clevr(raw: Path) -> Counts:
    base = raw / "CLEVR_v1.0"
    for split, count in (("train", 30), ("val", 9)):
        scenes = []
        for index in range(count):
            name = f"CLEVR_{split}_{index:06d}.png"
            rgba = Image.fromarray(noise(index, 6, 8, 4))
            (base / "images" / split).mkdir(parents=True, exist_ok=True)
            rgba.save(base / "images" / split / name)
            depths = [7.3 + 0.4 * index + 0.1 * thing for thing in range(3 + index % 8)]
            things = [{"shape": "cube", "pixel_coords": [1, 2, depth]} for depth in depths]
            scenes.append({"image_filename": name, "image_index": index, "objects": things})
        (base / "scenes").mkdir(exist_ok=True)
        file = base / "scenes" / f"CLEVR_{split}_scenes.json"
        file.write_text(json.dumps({"info": {"split": split}, "scenes": scenes}))
    return {"train": 30, "validation": 9}


def sprites(count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images and classes of rows that are spread over the orders of the factors."""
    rows = np.arange(count) * (737_280 // count)
    classes = np.stack(
        [
            rows * 0,
            rows // 245_760,
            rows // 40_960 % 6,
            rows // 1024 % 40,
            rows // 32 % 32,
            rows % 32,
        ],
        axis=1,
    )
    return noise(count, count, 64, 64) % 2, classes


def dsprites(raw: Path) -> Counts:
    raw.mkdir(parents=True)
    images, classes = sprites(30)
    with h5py.File(raw / f"{dsprites_source.NAME}.hdf5", "w") as file:
        file.create_dataset("imgs", data=images, chunks=(7, 16, 16), compression="gzip")
        file.create_dataset("latents/classes", data=classes)
    return {"train": 30}


def dsprites_npz(raw: Path) -> Counts:
    """The other release; its metadata are pickled, and must never be loaded."""
    raw.mkdir(parents=True)
    images, classes = sprites(30)
    np.savez_compressed(
        raw / f"{dsprites_source.NAME}.npz",
        metadata=np.array({"title": "x"}, dtype=object),
        imgs=images,
        latents_classes=classes,
    )
    return {"train": 30}


def matrix(values: np.ndarray[Any, Any]) -> bytes:
    magic = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}[values.dtype.name]
    shape = (*values.shape, *(1,) * (3 - values.ndim))
    return struct.pack(f"<{2 + len(shape)}i", magic, values.ndim, *shape) + values.tobytes()


def smallnorb(raw: Path) -> Counts:
    raw.mkdir(parents=True)
    for stem in smallnorb_source.STEMS.values():
        rows = np.arange(30)
        info = np.stack([rows % 10, rows % 9, rows % 18 * 2, rows % 6], axis=1).astype(np.int32)
        (raw / f"{stem}-dat.mat").write_bytes(matrix(noise(len(stem), 30, 2, 96, 96)))
        (raw / f"{stem}-info.mat").write_bytes(matrix(info))
    return {"train": 30, "test": 30}


def patch_camelyon(raw: Path) -> Counts:
    raw.mkdir(parents=True)
    counts = {"train": 12, "validation": 7, "test": 9}
    for split, count in counts.items():
        stem = f"{pcam_source.STEM}{pcam_source.WORDS[split]}"
        with h5py.File(raw / f"{stem}_x.h5", "w") as file:
            file["x"] = noise(count, count, 96, 96, 3)
        with h5py.File(raw / f"{stem}_y.h5", "w") as file:
            file["y"] = (np.arange(count) % 2).astype(np.uint8).reshape(count, 1, 1, 1)
    return counts


def eurosat(raw: Path) -> Counts:
    for label, name in enumerate(eurosat_source.CLASSES):
        for number in (1, 2, 10):
            picture(raw / "2750" / name / f"{name}_{number}.jpg", 10 * label + number)
    return {"train": 30}


def resisc45(raw: Path) -> Counts:
    for label, name in enumerate(resisc45_source.CLASSES):
        picture(raw / "NWPU-RESISC45" / name / f"{name}_{label + 1:03d}.jpg", label)
    return {"train": 45}


def dtd(raw: Path) -> Counts:
    labels = raw / "dtd" / "labels"
    labels.mkdir(parents=True)
    for number, name in enumerate(("train1", "val1", "test1")):
        names = [f"{t}/{t}_{number:04d}.jpg" for t in dtd_source.CLASSES[number::6]]
        (labels / f"{name}.txt").write_text("\n".join(names) + "\n")
        for seed, path in enumerate(names):
            picture(raw / "dtd" / "images" / path, seed)
    return {"train": 8, "validation": 8, "test": 8}


def oxford_flowers102(raw: Path) -> Counts:
    for number in range(1, 31):
        picture(raw / "jpg" / f"image_{number:05d}.jpg", number)
    labels = (np.arange(30) * 3 % 102 + 1).astype(np.uint8)[None]
    savemat(raw / "imagelabels.mat", {"labels": labels})
    numbers = np.arange(1, 31, dtype=np.uint16)[None]
    sets = {"trnid": numbers[:, :12], "valid": numbers[:, 12:20], "tstid": numbers[:, 20:]}
    savemat(raw / "setid.mat", sets)
    return {"train": 12, "validation": 8, "test": 10}


def oxford_iiit_pet(raw: Path) -> Counts:
    breeds = ("Abyssinian", "american_bulldog", "Egyptian_Mau", "yorkshire_terrier")
    (raw / "annotations").mkdir(parents=True)
    for split, count in (("trainval", 30), ("test", 9)):
        text = ""
        for index in range(count):
            name = f"{breeds[index % 4]}_{index + 100 * (split == 'test')}"
            text += f"{name} {index % 37 + 1} {index % 2 + 1} {index % 12 + 1}\n"
            picture(raw / "images" / f"{name}.jpg", index)
        (raw / "annotations" / f"{split}.txt").write_text(text)
    return {"train": 30, "test": 9}


def kitti(raw: Path) -> Counts:
    """20 drives of two frames each; images are in another order than frames."""
    (raw / "mapping").mkdir(parents=True)
    (raw / "training" / "label_2").mkdir(parents=True)
    frames = [
        f"2011_09_26 2011_09_26_drive_{drive:04d}_sync {frame:010d}"
        for drive in range(20)
        for frame in range(2)
    ]
    (raw / "mapping" / "train_mapping.txt").write_text("\n".join(frames) + "\n")
    shuffled = np.random.default_rng(0).permutation(40) + 1
    (raw / "mapping" / "train_rand.txt").write_text(",".join(map(str, shuffled)) + "\n")
    for index in range(40):
        picture(raw / "training" / "image_2" / f"{index:06d}.png", index)
        thing = "{} 0.00 0 -1.57 10.0 20.0 30.0 40.0 1.5 1.6 4.0 0.1 1.6 {:.2f} -1.6\n"
        text = thing.format("DontCare", -1000) + thing.format("Pedestrian", 2)
        text += thing.format("Car", 3.0 + 2 * index) if index % 5 else ""
        (raw / "training" / "label_2" / f"{index:06d}.txt").write_text(text)
    return {"train": 32, "validation": 4, "test": 4}


def message(number: int, content: bytes) -> bytes:
    """A length-delimited field of the wire format."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        value, found = value >> 7, found + bytes([value & 127 | 128])
    return found + bytes([value])


def example(image: bytes, name: str, label: int) -> bytes:
    """tf.train.Example, serialised."""
    features = {
        "image": message(1, message(1, image)),
        "filename": message(1, message(1, name.encode())),
        "label": message(3, message(1, varint(label))),  # packed, as TensorFlow writes it
    }
    entries = [message(1, key.encode()) + message(2, value) for key, value in features.items()]
    return message(1, b"".join(message(1, entry) for entry in entries))


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    crcs = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
    return length + next(crcs) + data + next(crcs)


def dmlab(raw: Path) -> Counts:
    raw.mkdir(parents=True)
    counts = {"train": 12, "validation": 7, "test": 9}
    for split, count in counts.items():
        for shard in range(2):
            data = b""
            for index in range(shard, count, 2):
                buffer = io.BytesIO()
                Image.fromarray(noise(index, 9, 12, 3)).save(buffer, "JPEG")
                data += record(example(buffer.getvalue(), f"{split}_{index}.jpg", index % 6))
            (raw / f"dmlab-{split}.tfrecord-0000{shard}-of-00002").write_bytes(data)
    return counts


def eye(file: Path, seed: int = 0) -> None:
    """A round, textured thing on black."""
    y, x = np.ogrid[:90, :120]
    inside = np.hypot(y - 45, x - 60) < 40
    pixels = (noise(seed, 90, 120, 3) // 3 + 60) * inside[:, :, None]
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=95)


def diabetic_retinopathy(raw: Path) -> Counts:
    raw.mkdir(parents=True)
    with (raw / "trainLabels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "level"])
        for index in range(6):
            rows.writerow([f"{index}_left", index % 5])
            eye(raw / "train" / f"{index}_left.jpeg", index)
    with (raw / "retinopathy_solution.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "level", "Usage"])
        for index in range(7):
            rows.writerow([f"{index}_right", index % 5, "Public" if index % 3 else "Private"])
            eye(raw / "test" / f"{index}_right.jpeg", index)
    return {"train": 6, "validation": 4, "test": 3}


FAKES: dict[str, Callable[[Path], Counts]] = {
    fake.__name__: fake
    for fake in (
        *(cifar, svhn, clevr, dsprites, smallnorb, patch_camelyon, eurosat, resisc45, dtd),
        *(oxford_flowers102, oxford_iiit_pet, kitti, dmlab, diabetic_retinopathy),
    )
}

# Of the sources that slice one split: the same proportions of 30 or 45 images.
SLICES = {
    "cifar": {"train800": ("train", 0, 8), "val200": ("train", 27, 29), "test": ("test", 0, 99)},
    "svhn": {"train800": ("train", 0, 8), "val200": ("train", 27, 29), "test": ("test", 0, 99)},
    "clevr": {
        "train800": ("train", 0, 8),
        "val200": ("train", 27, 29),
        "test": ("validation", 0, 99),
    },
    "dsprites": {
        "train800": ("train", 0, 8),
        "val200": ("train", 24, 26),
        "test": ("train", 27, 30),
    },
    "smallnorb": {
        "train800": ("train", 0, 8),
        "val200": ("test", 0, 2),
        "test": ("test", 15, 99),
    },
    "eurosat": {
        "train800": ("train", 0, 8),
        "val200": ("train", 18, 20),
        "test": ("train", 24, 30),
    },
    "resisc45": {
        "train800": ("train", 0, 8),
        "val200": ("train", 27, 29),
        "test": ("train", 36, 45),
    },
    "oxford_iiit_pet": {
        "train800": ("train", 0, 8),
        "val200": ("train", 24, 26),
        "test": ("test", 0, 99),
    },
}


def sized(monkeypatch: Any, name: str, counts: Counts) -> Any:
    """The source, expecting as many images as the fake has."""
    source = sources()[name]
    monkeypatch.setattr(source, "COUNTS", counts)
    if name in SLICES:
        monkeypatch.setattr(source, "SLICES", SLICES[name])
    return source
