"""Lists are read strictly; decoded images are cached once, and never stale."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, features
from torchvision import transforms

from petlbench import home
from petlbench.data import cache, lists
from petlbench.data.cache import Geometry
from petlbench.data.split import Split
from petlbench.errors import RunError, UsageError

MakeTask = Callable[..., Path]
SMALL = {"train": 5, "test": 3}


@pytest.fixture
def root(tmp_path: Path, make_task: MakeTask) -> Path:
    """A data root with the small task `t` of 10 classes."""
    make_task(tmp_path / "data", "t", SMALL)
    return tmp_path / "data"


def open_train(root: Path) -> Split:
    return lists.open_split(root, "t", "train", classes=10, expected=5)


def cached_files(kind: str = "*[!s].npy") -> list[Path]:
    """By default the arrays of images, without the .hashes.npy beside them."""
    return sorted(home.cache_folder().glob(kind))


# Lists


def test_a_list_is_read(root: Path) -> None:
    split = open_train(root)
    assert (split.name, len(split), split.labels.tolist()) == ("train", 5, [0, 1, 2, 3, 4])
    assert split.labels.dtype == np.int64
    image = split.read(0)
    assert (image.mode, image.size) == ("RGB", (8, 8))


names = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.sampled_from(" .-_é"),
    min_size=1,
    max_size=12,
).map(lambda text: f"i{text}.png".replace("/", "_"))


@given(st.lists(st.tuples(names, st.integers(0, 9)), min_size=1, max_size=20))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_list_comes_back(tmp_path: Path, items: list[tuple[str, int]]) -> None:
    (tmp_path / "t").mkdir(exist_ok=True)
    file = tmp_path / "t" / "train.txt"
    file.write_text("".join(f"images/{name} {label}\n" for name, label in items), "utf-8")
    split = lists.open_split(tmp_path, "t", "train", classes=10)
    assert split.labels.tolist() == [label for _, label in items]
    for index, (name, _) in enumerate(items):
        with pytest.raises(RunError) as raised:
            split.read(index)  # no such image: the message tells which path was read
        assert str(tmp_path / "t" / "images" / name) in str(raised.value)
    # the identity of the split depends on names, labels and their order
    again = lists.open_split(tmp_path, "t", "train", classes=10)
    assert again.members == split.members
    file.write_text("".join(f"images/{n} {label}\n" for n, label in [*items, ("x", 0)]), "utf-8")
    assert lists.open_split(tmp_path, "t", "train", classes=10).members != split.members


@pytest.mark.parametrize("text", ["a.png 1\r\nb c.png 2\r\n", "\n a.png 1 \n\n\tb c.png 2\n\n"])
def test_blank_lines_and_line_ends_do_not_matter(root: Path, text: str) -> None:
    (root / "t" / "train.txt").write_bytes(b"a.png 1\nb c.png 2")
    plain = lists.open_split(root, "t", "train", classes=10)
    (root / "t" / "train.txt").write_bytes(text.encode())
    split = lists.open_split(root, "t", "train", classes=10)
    assert split.labels.tolist() == [1, 2]
    assert split.members == plain.members


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png", "line 3: 'a.png' is not 'relative/path label'."),
        ("a.png one", "is not 'relative/path label'."),
        ("a.png\t1", "is not 'relative/path label'."),
        ("a.png,1", "is not 'relative/path label'."),
        ("a.png 1.0", "is not 'relative/path label'."),
        ("a.png +1", "is not 'relative/path label'."),
        ("a.png 1_0", "is not 'relative/path label'."),
        ("a.png ١", "is not 'relative/path label'."),
        ("a.png 99999999999999999999", "is not 'relative/path label'."),
        ("7", "is not 'relative/path label'."),
        ("a.png 10", "line 3: 'a.png 10': the label must be in 0..9."),
        ("a.png -1", "the label must be in 0..9."),
        ("/etc/a.png 1", "the path must stay inside"),
        ("../a.png 1", "the path must stay inside"),
        ("images/../../a.png 1", "the path must stay inside"),
    ],
)
def test_a_bad_line_is_named(root: Path, line: str, message: str) -> None:
    file = root / "t" / "train.txt"
    file.write_text(f"images/00.png 0\n\n{line}\nimages/01.png 1\n")
    with pytest.raises(UsageError) as raised:
        open_train(root)
    assert f"{file}, line 3: " in str(raised.value)
    assert message in str(raised.value)


def test_a_very_long_line_is_shortened(root: Path) -> None:
    (root / "t" / "train.txt").write_text("x" * 100_000)
    with pytest.raises(UsageError) as raised:
        open_train(root)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "train.txt lists no images."),
        (b"\n \n", "train.txt lists no images."),
        (b"a.png 1\n", "train.txt lists 1 images; 5 are expected."),
        (b"\xff\xfe\x00\x01", "cannot be read as a list of images"),
    ],
)
def test_a_bad_list_is_named(root: Path, content: bytes, message: str) -> None:
    (root / "t" / "train.txt").write_bytes(content)
    with pytest.raises(UsageError) as raised:
        open_train(root)
    assert message in str(raised.value) and str(root) in str(raised.value)


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(UsageError, match="--data-root"):
        lists.open_split(None, "t", "train", classes=10)
    with pytest.raises(UsageError) as raised:
        lists.open_split(root, "u", "train", classes=10)
    assert str(raised.value) == f"no folder {root / 'u'}"
    with pytest.raises(UsageError) as raised:
        lists.open_split(root, "t", "val", classes=10)
    assert str(raised.value) == f"no list file {root / 't' / 'val.txt'}"


@pytest.mark.parametrize("resize", ["bicubic", "bicubic-torch"])
def test_a_missing_or_corrupt_image_is_named(root: Path, resize: str) -> None:
    split, image = open_train(root), root / "t" / "images" / "02 of 20.png"
    whole = image.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not an image"):
        image.write_bytes(content)
        with pytest.raises(RunError) as raised:
            cache.load(split, Geometry(8, resize))
        assert str(image) in str(raised.value)
    image.unlink()
    with pytest.raises(RunError) as raised:
        cache.load(split, Geometry(8, resize))
    assert f"cannot read image {image}: No such file" in str(raised.value)
    assert cached_files("*") == cached_files("*.lock")  # nothing half-written


def test_a_decompression_bomb_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(RunError, match="refusing image"):
        open_train(root).read(0)


@pytest.mark.parametrize("resize", ["bicubic", "bicubic-torch"])
def test_a_jpeg_of_many_pixels_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, resize: str
) -> None:
    file = root / "t" / "images" / "large.jpg"
    photo(30, 30).save(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(RunError) as raised:
        cache.load(listed(root, [file]), Geometry(8, resize))
    assert f"refusing image {file}: " in str(raised.value)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_image_becomes_rgb(root: Path, mode: str) -> None:
    split, image = open_train(root), root / "t" / "images" / "00 of 20.png"
    Image.new(mode, (5, 7)).save(image, "TIFF" if mode == "CMYK" else "PNG")
    assert cache.load(split, Geometry(8, "bicubic")).pixels.shape == (5, 3, 8, 8)


# Cache


@pytest.mark.parametrize("resize", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [5, 8, 17])
def test_pixels_are_those_of_pil(root: Path, size: int, resize: str) -> None:
    images = cache.load(open_train(root), Geometry(size, resize))
    assert images.pixels.shape == (5, 3, size, size) and images.pixels.dtype == np.uint8
    for index, pixels in enumerate(images.pixels):
        with Image.open(root / "t" / "images" / f"{index:02} of 20.png") as image:
            rule = Image.Resampling[resize.upper()]
            expected = np.asarray(image.convert("RGB").resize((size, size), rule))
        assert np.array_equal(pixels.transpose(1, 2, 0), expected)
    assert images.labels.tolist() == [0, 1, 2, 3, 4]


def photo(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth colours and some noise, which is what photographs look like to a resampler."""
    noise = np.random.default_rng(seed)
    colours = Image.fromarray(noise.integers(0, 256, (4, 5, 3), np.uint8))
    smooth = np.asarray(colours.resize((width, height), Image.Resampling.BICUBIC))
    pixels = smooth + noise.normal(0, 8, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def every_kind(folder: Path) -> Iterator[Path]:
    """Image files of every format, mode and oddity that data sets hold."""
    orientation = Image.Exif()
    orientation[0x112] = 6  # a viewer would turn it
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        ("PNG", "P", {"transparency": 7}),
        ("PNG", "RGB", {"transparency": (1, 2, 3)}),
        *(("JPEG", mode, {"quality": 90}) for mode in ("L", "RGB", "CMYK")),
        *(("JPEG", "RGB", {"subsampling": kind}) for kind in ("4:4:4", "4:2:2", "4:2:0")),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "RGB", {"exif": orientation}),
        ("GIF", "P", {"save_all": True, "append_images": [photo(20, 20, 9)]}),
        ("MPO", "RGB", {"save_all": True, "append_images": [photo(20, 20, 9)]}),
        ("BMP", "RGB", {}),
        ("TIFF", "CMYK", {}),
    ]
    if features.check("webp"):
        kinds += [("WEBP", mode, {"lossless": True}) for mode in ("RGB", "RGBA")]
    for seed, (form, mode, options) in enumerate(kinds):
        image = photo(20 + seed, 60 - 2 * seed, seed)
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 201)
        elif mode in ("LA", "RGBA"):
            image = image.convert(mode)
            image.putalpha(photo(image.height, image.width, 99).convert("L"))
        file = folder / f"{seed:02}.{form.lower()}"
        image.convert(mode).save(file, form, **options)
        yield file


def plain(image: Image.Image) -> Image.Image:
    """RGB as Pillow converts it, but for 16-bit grey, which it would clip at 255."""
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    return image.convert("RGB")


def listed(root: Path, files: list[Path]) -> Split:
    """A split of these files."""
    lines = [f"{file.relative_to(root / 't')} {i % 10}\n" for i, file in enumerate(files)]
    (root / "t" / "train.txt").write_text("".join(lines))
    return lists.open_split(root, "t", "train", classes=10)


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("resize", ["bicubic", "bilinear"])
def test_every_format_is_what_a_plain_pil_loop_reads(root: Path, resize: str, threads: int) -> None:
    files = list(every_kind(root / "t" / "images"))
    expected = []
    for file in files:
        with Image.open(file) as image:
            resized = plain(image).resize((24, 24), Image.Resampling[resize.upper()])
        expected.append(np.asarray(resized).transpose(2, 0, 1))
    assert np.array_equal(
        cache.load(listed(root, files), Geometry(24, resize), threads=threads).pixels,
        np.stack(expected),
    )


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_torch_resampling_starts_from_the_same_pixels(root: Path, threads: int) -> None:
    files = list(every_kind(root / "t" / "images"))
    expected = []
    for file in files:
        with Image.open(file) as image:
            expected.append(plain(image))
    assert np.array_equal(
        cache.load(listed(root, files), Geometry(24, "bicubic-torch"), threads=threads).pixels,
        through_the_cache(expected, 24, "bicubic-torch").transpose(0, 3, 1, 2),
    )


Floats = NDArray[np.float64]


def cubic(t: Floats) -> Floats:
    """Keys' kernel with a = -1/2."""
    near, far = (1.5 * t - 2.5) * t * t + 1, ((2.5 - 0.5 * t) * t - 4) * t + 2
    return np.where(t < 1, near, np.where(t < 2, far, 0))


def weights(source: int, target: int, rule: str) -> Floats:
    """(target, source): the kernel, as wide as a target pixel where the image shrinks."""
    step = source / target
    centres = (np.arange(target) + 0.5) * step
    distances = np.abs(np.arange(source) + 0.5 - centres[:, None]) / max(step, 1)
    kernel = cubic(distances) if rule == "bicubic" else np.clip(1 - distances, 0, None)
    return kernel / kernel.sum(1, keepdims=True)


def resampled(pixels: NDArray[np.uint8], size: int, rule: str) -> Floats:
    """(H, W, 3) -> (size, size, 3), each row and then each column, rounded after both."""
    height, width, _ = pixels.shape
    rows = np.rint(np.einsum("xw,hwc->hxc", weights(width, size, rule), pixels)).clip(0, 255)
    return np.rint(np.einsum("yh,hxc->yxc", weights(height, size, rule), rows)).clip(0, 255)


def through_the_cache(images: list[Image.Image], size: int, resize: str) -> NDArray[np.int64]:
    """(N, size, size, 3)"""
    split = Split(
        name="train",
        labels=np.zeros(len(images), np.int64),
        members="",
        version=lambda: str(time.perf_counter_ns()),
        read=images.__getitem__,
        describe={},
    )
    pixels = cache.load(split, Geometry(size, resize)).pixels
    return pixels.transpose(0, 2, 3, 1).astype(np.int64)


@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["bicubic", "bilinear"]),
)
@example((375, 500), 224, 0, "bicubic")
@example((500, 375), 224, 0, "bilinear")
@hypothesis_settings(max_examples=50, deadline=None)
def test_torch_resampling_is_its_formula(
    shape: tuple[int, int], size: int, seed: int, rule: str
) -> None:
    """In float64, on noise: no neighbouring pixels of a photograph differ as much."""
    noise = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    (pixels,) = through_the_cache([Image.fromarray(noise)], size, f"{rule}-torch")
    assert np.abs(pixels - resampled(noise, size, rule)).max() <= 2


@pytest.mark.parametrize("size", [48, 224])
@pytest.mark.parametrize("rule", ["bicubic", "bilinear"])
def test_torch_resampling_is_close_to_that_of_pil(rule: str, size: int) -> None:
    shapes = [(375, 500), (500, 375), (64, 64), (32, 32), (100, 300), (300, 100)]
    images = [photo(*shape, seed) for seed, shape in enumerate(shapes)]
    theirs = through_the_cache(images, size, rule)
    ours = through_the_cache(images, size, f"{rule}-torch")
    difference = np.abs(ours - theirs)
    assert difference.max() <= 2 and (difference > 0).mean() <= 0.1


@pytest.mark.parametrize("rule", ["bicubic", "bilinear"])
def test_an_image_of_the_right_size_is_not_resized(rule: str) -> None:
    image = photo(16, 16)
    (pixels,) = through_the_cache([image], 16, f"{rule}-torch")
    assert np.array_equal(pixels, np.asarray(image))


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.integers(1, 30),
    st.integers(0, 12),
    st.booleans(),
    st.sampled_from(["bicubic", "bilinear"]),
)
@example((375, 500), 224, 32, True, "bicubic")
@example((500, 333), 224, 32, False, "bicubic")
@example((9, 58), 7, 0, True, "bilinear")
@hypothesis_settings(max_examples=100, deadline=None)
def test_a_crop_is_that_of_torchvision(
    shape: tuple[int, int], size: int, border: int, keep_aspect: bool, resize: str
) -> None:
    """Resize to both sides or to the shorter one, then CenterCrop: the same pixels."""
    image, resize_to = photo(*shape), size + border
    rule = transforms.InterpolationMode[resize.upper()]
    to = resize_to if keep_aspect else (resize_to, resize_to)
    both = transforms.Compose([transforms.Resize(to, rule), transforms.CenterCrop(size)])
    expected = np.asarray(both(image))
    geometry = Geometry(size, resize, resize_to, keep_aspect)
    assert np.array_equal(in_memory([image], geometry), expected[None].transpose(0, 3, 1, 2))
    torched = in_memory([image], dataclasses.replace(geometry, resize=f"{resize}-torch"))
    rounding = np.abs(torched[0].transpose(1, 2, 0).astype(int) - expected)
    # rows or columns first: each is rounded and clipped in between
    assert rounding.mean() < 1 and rounding.max() <= 16


@pytest.mark.parametrize("resize", ["bicubic-torch", "bilinear-torch"])
@pytest.mark.parametrize("keep_aspect", [False, True])
def test_a_crop_after_torch_s_resampling_is_that_of_torchvision_on_tensors(
    resize: str, keep_aspect: bool
) -> None:
    rule = transforms.InterpolationMode[resize.removesuffix("-torch").upper()]
    for shape in [(50, 70), (70, 50), (31, 64), (64, 64), (20, 90), (24, 24)]:
        image = photo(*shape)
        to = 24 if keep_aspect else (24, 24)
        both = transforms.Compose([transforms.Resize(to, rule), transforms.CenterCrop(17)])
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        found = in_memory([image], Geometry(17, resize, 24, keep_aspect))
        # torchvision interpolates in float32 and rounds
        assert np.abs(found[0].astype(int) - both(pixels).numpy()).max() <= 1


def in_memory(images: list[Image.Image], geometry: Geometry) -> NDArray[np.uint8]:
    labels = np.zeros(len(images), np.int64)
    split = Split("train", labels, "", lambda: "", images.__getitem__, {})
    return cache.decode(split, geometry)


def test_the_rules_of_a_protocol_say_the_geometry() -> None:
    rules = {"image_size": 224, "resize": "bicubic"}
    assert Geometry.of(rules) == Geometry(224, "bicubic")
    cropped = rules | {"resize_to": 256, "keep_aspect": True}
    assert Geometry.of(cropped) == Geometry(224, "bicubic", 256, True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((224, "bicubic", 223), "protocol.resize_to = 223 is smaller than protocol.image_size = 2"),
        ((224, "bicubic", 0, True), "--set protocol.resize_to=224"),
    ],
)
def test_a_geometry_without_an_image_is_refused(values: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        Geometry(*values)


def test_every_geometry_has_its_file(root: Path) -> None:
    split = open_train(root)
    geometries = [
        Geometry(8, "bicubic"),
        Geometry(8, "bicubic-torch"),
        Geometry(8, "bicubic", 8),
        Geometry(8, "bicubic", 9),
        Geometry(8, "bicubic", 9, True),
    ]
    for count, geometry in enumerate(geometries, start=1):
        assert not cache.file_of(split, geometry).exists()
        pixels = cache.load(split, geometry).pixels
        assert cache.file_of(split, geometry).exists() and len(cached_files()) == count
        assert np.array_equal(pixels, cache.decode(split, geometry))


# Digests


def test_digests_are_those_of_the_pixels_and_stay(root: Path) -> None:
    split, decoded = counting(open_train(root))
    first = cache.load(split, Geometry(8, "bicubic", 10))
    again = cache.load(split, Geometry(8, "bicubic", 10))
    assert len(decoded) == 5
    for images in (first, again):
        assert images.digests.shape == (5,)
        assert images.digests.tolist() == [
            hashlib.blake2b(pixels.tobytes(), digest_size=16).digest() for pixels in images.pixels
        ]


@pytest.mark.parametrize(
    "content", [None, b"", b"x", np.zeros(4, "V16"), np.zeros(5, "V8"), np.zeros((5, 16), np.uint8)]
)
def test_damaged_digests_are_built_again(root: Path, content: Any) -> None:
    split, decoded = counting(open_train(root))
    expected = cache.load(split, Geometry(8, "bicubic")).digests.tolist()
    (file,) = cached_files("*.hashes.npy")
    if content is None:
        file.unlink()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, content)
    assert cache.load(split, Geometry(8, "bicubic")).digests.tolist() == expected
    assert len(decoded) == 10


def test_the_sha256_is_of_pixels_and_labels_as_ever(root: Path) -> None:
    """Records of earlier versions hold it."""
    images = cache.load(open_train(root), Geometry(8, "bicubic"))
    pixels = hashlib.sha256(images.pixels.tobytes()).hexdigest()
    expected = hashlib.sha256(pixels.encode() + images.labels.tobytes()).hexdigest()
    assert images.sha256 == expected


@given(st.lists(st.integers(0, 9), max_size=12), st.lists(st.integers(0, 9), max_size=12))
def test_overlap_is_found(train: list[int], test: list[int]) -> None:
    def images(numbers: list[int]) -> cache.Images:
        hashed = [hashlib.blake2b(bytes([n]), digest_size=16).digest() for n in numbers]
        digests = np.frombuffer(b"".join(hashed), "V16")
        return cache.Images(np.zeros((0, 3, 1, 1), np.uint8), np.zeros(0, int), "", {}, digests)

    found = cache.overlap(images(train), images(test))
    assert found.dtype == np.int64
    assert found.tolist() == [i for i, number in enumerate(test) if number in train]


def test_a_copy_under_another_name_and_format_is_an_overlap(root: Path) -> None:
    """And one stored with loss, or mirrored, is not."""
    folder = root / "t" / "images"
    with Image.open(folder / "01 of 20.png") as image:
        image.save(folder / "copy.bmp")
        image.save(folder / "lossy.jpg", quality=60)
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirrored.png")
    kinds = ["lossy.jpg", "copy.bmp", "mirrored.png", "03 of 20.png", "15 of 20.png"]
    (root / "t" / "test.txt").write_text("".join(f"images/{name} 0\n" for name in kinds))
    test = lists.open_split(root, "t", "test", classes=10)
    geometry = Geometry(12, "bicubic")
    found = cache.overlap(cache.load(open_train(root), geometry), cache.load(test, geometry))
    assert found.tolist() == [1, 3]


# Building


def counting(split: Split) -> tuple[Split, list[int]]:
    """The split, and the list of the indices that are decoded."""
    decoded: list[int] = []

    def read(index: int) -> Any:
        decoded.append(index)
        return split.read(index)

    return dataclasses.replace(split, read=read), decoded


def test_images_are_decoded_once(root: Path) -> None:
    split, decoded = counting(open_train(root))
    steps: list[tuple[int, int]] = []
    first = cache.load(
        split, Geometry(8, "bicubic"), lambda done, total: steps.append((done, total))
    )
    again = cache.load(
        split, Geometry(8, "bicubic"), lambda done, total: steps.append((done, total))
    )
    assert sorted(decoded) == [0, 1, 2, 3, 4]
    assert steps == [(i, 5) for i in range(1, 6)]
    assert np.array_equal(first.pixels, again.pixels) and first.sha256 == again.sha256
    assert len(cached_files()) == 1
    cache.load(split, Geometry(9, "bicubic"))
    cache.load(split, Geometry(8, "bilinear"))
    assert len(cached_files()) == 3


def many(root: Path, make_task: MakeTask, count: int = 60) -> Split:
    """A split of many images."""
    make_task(root, "many", {"train": count})
    return lists.open_split(root, "many", "train", classes=10)


@pytest.mark.parametrize("resize", ["bicubic", "bicubic-torch"])
def test_order_and_digest_do_not_depend_on_the_threads(
    tmp_path: Path, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, resize: str
) -> None:
    split = many(tmp_path, make_task)

    def read(index: int) -> Any:
        time.sleep(0.003 * (index % 4 == 0))  # others overtake it
        return split.read(index)

    digests = set()
    for threads in (0, 1, 2, 7):
        monkeypatch.setenv("PETLBENCH_CACHE", str(tmp_path / f"cache{threads}"))
        steps: list[int] = []
        loaded = cache.load(
            dataclasses.replace(split, read=read),
            Geometry(12, resize),
            lambda done, total, steps=steps: steps.append(done),  # type: ignore[misc]
            threads,
        )
        assert steps == list(range(1, 61))
        digests.add(loaded.sha256)
        assert [loaded.pixels[i].tolist() for i in range(0, 60, 20)] == [
            loaded.pixels[0].tolist()
        ] * 3
    assert len(digests) == 1


def test_images_are_decoded_side_by_side_and_not_far_ahead(
    tmp_path: Path, make_task: MakeTask
) -> None:
    split, decoded = counting(many(tmp_path, make_task))
    names: set[str] = set()
    meet = threading.Barrier(3, timeout=60)  # passes only if three images are read at once

    def read(index: int) -> Any:
        if index < 3:
            meet.wait()
        names.add(threading.current_thread().name)
        return split.read(index)

    ahead: list[int] = []
    cache.load(
        dataclasses.replace(split, read=read),
        Geometry(8, "bicubic"),
        lambda done, total: ahead.append(len(decoded) - done),
        threads=3,
    )
    assert len(names) == 3 and max(ahead) <= 4 * 3


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def threads_of_torch() -> list[int]:
    """Here and in a thread that begins now."""
    found = [torch.get_num_threads()]
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    return found


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("resize", ["bicubic", "bicubic-torch"])
def test_the_threads_of_torch_are_left_alone(root: Path, resize: str) -> None:
    cache.load(open_train(root), Geometry(12, resize))
    assert threads_of_torch() == [3, 3]
    (root / "t" / "images" / "03 of 20.png").write_bytes(b"")
    with pytest.raises(RunError):
        cache.load(open_train(root), Geometry(12, resize))
    assert threads_of_torch() == [3, 3]


def test_the_first_bad_image_is_named(tmp_path: Path, make_task: MakeTask) -> None:
    """The first of the list, whichever is met first."""
    split = many(tmp_path, make_task)
    for name in ("11", "14"):
        (tmp_path / "many" / "images" / f"{name} of 20.png").write_bytes(b"")

    def read(index: int) -> Any:
        time.sleep(0.1 * (index == 11))
        return split.read(index)

    with pytest.raises(RunError, match="11 of 20"):
        cache.load(dataclasses.replace(split, read=read), Geometry(8, "bicubic"), threads=4)


@pytest.mark.parametrize("where", ["reading", "progress"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.usefixtures("three_threads")
def test_an_interrupted_build_leaves_nothing(
    tmp_path: Path, make_task: MakeTask, error: type[BaseException], where: str
) -> None:
    split, decoded = counting(many(tmp_path, make_task))

    def read(index: int) -> Any:
        if where == "reading" and index == 20:
            raise error
        return split.read(index)

    def progress(done: int, total: int) -> None:
        if where == "progress" and done == 20:
            raise error

    with pytest.raises(error):
        cache.load(
            dataclasses.replace(split, read=read), Geometry(8, "bicubic"), progress, threads=2
        )
    assert len(decoded) < 60 and threads_of_torch() == [3, 3]
    assert cached_files("*") == cached_files("*.lock")  # nothing half-written
    assert cache.load(split, Geometry(8, "bicubic")).pixels.any(axis=(1, 2, 3)).all()


def test_ctrl_c_ends_a_build_at_once(root: Path) -> None:
    code = (
        "import sys, time, dataclasses\n"
        "from pathlib import Path\n"
        "from petlbench.data import cache, lists\n"
        "split = lists.open_split(Path(sys.argv[1]), 't', 'train', classes=10)\n"
        "def read(i):\n"
        "    print('reading', i, flush=True)\n"
        "    time.sleep(1)\n"
        "    return split.read(i)\n"
        "slow, geometry = dataclasses.replace(split, read=read), cache.Geometry(8, 'bicubic')\n"
        "cache.load(slow, geometry, threads=1)\n"
    )
    command = [sys.executable, "-c", code, str(listed_often(root, 1000))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "reading 0\n"
    process.send_signal(signal.SIGINT)
    output, message = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in message and len(output.splitlines()) <= 2
    assert cached_files("*") == cached_files("*.lock")  # nothing half-written


def listed_often(root: Path, times: int) -> Path:
    """The root, its list `times` as long."""
    file = root / "t" / "train.txt"
    file.write_text(file.read_text() * times)
    return root


def test_writing_to_the_array_does_not_change_the_cache(root: Path) -> None:
    first = cache.load(open_train(root), Geometry(8, "bicubic"))
    before = cached_files()[0].read_bytes()
    first.pixels[:] = 0
    del first
    assert cached_files()[0].read_bytes() == before
    assert cache.load(open_train(root), Geometry(8, "bicubic")).pixels.any()


def test_the_digest_tells_pixels_and_labels(root: Path) -> None:
    split = open_train(root)
    first = cache.load(split, Geometry(8, "bicubic"))
    relabelled = dataclasses.replace(split, labels=split.labels[::-1].copy())
    assert cache.load(relabelled, Geometry(8, "bicubic")).sha256 != first.sha256
    assert cache.load(split, Geometry(9, "bicubic")).sha256 != first.sha256


@pytest.mark.parametrize("restore", [False, True], ids=["new mtime", "same size, old mtime"])
@pytest.mark.parametrize("how", ["write", "replace"])
def test_a_changed_image_is_decoded_again(root: Path, how: str, restore: bool) -> None:
    split, image = open_train(root), root / "t" / "images" / "03 of 20.png"
    first = cache.load(split, Geometry(8, "bicubic"))
    stat, size = image.stat(), image.stat().st_size
    time.sleep(0.02)  # the clock of the file system is coarse
    target = image if how == "write" else image.with_suffix(".new")
    Image.new("RGB", (8, 8), (1, 2, 3)).save(target, "BMP")
    if restore:
        content = target.read_bytes()
        target.write_bytes(content + b"\0" * (size - len(content)))
    target.replace(image)
    if restore:
        assert image.stat().st_size == size
        os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = cache.load(split, Geometry(8, "bicubic"))
    assert again.pixels[3, :, 0, 0].tolist() == [1, 2, 3]
    assert again.sha256 != first.sha256
    assert np.array_equal(again.pixels[:3], first.pixels[:3])


def test_the_same_files_in_another_folder_are_another_split(
    tmp_path: Path, root: Path, make_task: MakeTask
) -> None:
    cache.load(open_train(root), Geometry(8, "bicubic"))
    make_task(tmp_path / "other", "t", SMALL)
    cache.load(open_train(tmp_path / "other"), Geometry(8, "bicubic"))
    assert len(cached_files()) == 2


@pytest.mark.parametrize("length", [0, 1, 10, 200, -1])
def test_a_truncated_file_is_built_again(root: Path, length: int) -> None:
    first = cache.load(open_train(root), Geometry(8, "bicubic"))
    expected = first.pixels.copy()
    del first
    (file,) = cached_files()
    file.write_bytes(file.read_bytes()[:length])
    again = cache.load(open_train(root), Geometry(8, "bicubic"))
    assert np.array_equal(again.pixels, expected)


@pytest.mark.parametrize("content", [None, "", "{", "{}", "[]", "3"])
def test_a_damaged_description_is_built_again(root: Path, content: str | None) -> None:
    first = cache.load(open_train(root), Geometry(8, "bicubic"))
    (sidecar,) = cached_files("*.json")
    if content is None:
        sidecar.unlink()
    else:
        sidecar.write_text(content)
    assert cache.load(open_train(root), Geometry(8, "bicubic")).sha256 == first.sha256
    assert "sha256" in home.recall(sidecar)


@pytest.mark.parametrize("array", [np.zeros((5, 3, 8, 7), np.uint8), np.zeros((5, 3, 8, 8))])
def test_a_foreign_array_is_built_again(root: Path, array: Any) -> None:
    expected = cache.load(open_train(root), Geometry(8, "bicubic")).pixels.copy()
    np.save(cached_files()[0], array)
    assert np.array_equal(cache.load(open_train(root), Geometry(8, "bicubic")).pixels, expected)


def test_leftovers_of_a_crash_are_harmless(root: Path) -> None:
    code = (
        "import os, sys, dataclasses\n"
        "from pathlib import Path\n"
        "from petlbench.data import cache, lists\n"
        "split = lists.open_split(Path(sys.argv[1]), 't', 'train', classes=10)\n"
        "read = lambda i: os._exit(9) if i == 3 else split.read(i)\n"
        "cache.load(dataclasses.replace(split, read=read), cache.Geometry(8, 'bicubic'))\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(root)], timeout=60)
    assert result.returncode == 9
    assert cached_files("*.partial") and not cached_files()
    images = cache.load(open_train(root), Geometry(8, "bicubic"))
    assert images.pixels.any(axis=(1, 2, 3)).all()


def test_two_processes_build_one_file(root: Path) -> None:
    code = (
        "import sys, time, dataclasses\n"
        "from pathlib import Path\n"
        "from petlbench.data import cache, lists\n"
        "split = lists.open_split(Path(sys.argv[1]), 't', 'train', classes=10)\n"
        "def read(i):\n"
        "    print('decoded', i, flush=True)\n"
        "    time.sleep(0.1)\n"
        "    return split.read(i)\n"
        "images = cache.load(dataclasses.replace(split, read=read), cache.Geometry(8, 'bicubic'))\n"
        "print(images.sha256)\n"
    )
    command = [sys.executable, "-c", code, str(root)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert "".join(outputs).count("decoded") == 5
    assert outputs[0].split()[-1] == outputs[1].split()[-1]
    assert len(cached_files()) == 1 and not cached_files("*.partial")


def test_a_full_disk_is_met_before_decoding(root: Path) -> None:
    """A sparse file would meet it while a page is written back: SIGBUS, without a word."""
    split = open_train(root)
    sparse: list[bool] = []

    def read(index: int) -> Any:
        for file in cached_files("*.partial"):
            stat = file.stat()
            sparse.append(stat.st_blocks * 512 < stat.st_size)
        return split.read(index)

    cache.load(dataclasses.replace(split, read=read), Geometry(128, "bicubic"))
    assert not any(sparse)


def test_a_cache_that_cannot_be_written_is_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PETLBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UsageError, match=r"the image cache .*file/cache cannot be used: .*PETLBE"):
        cache.load(open_train(root), Geometry(8, "bicubic"))


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("PETLBENCH_CACHE", "~/elsewhere")
    assert home.cache_folder() == Path("/home/someone/elsewhere")
    monkeypatch.delenv("PETLBENCH_CACHE")
    assert home.cache_folder() == Path("/home/someone/.cache/petlbench")
