"""EuroSAT, RESISC45, SUN397, DTD, Flowers and Pets: image files that are given as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from petlbench.errors import RunError, UsageError
from petlbench.prepare.sources import sun397
from prepare import fakes

FOLDERS = ("eurosat", "resisc45", "dtd", "oxford_flowers102", "oxford_iiit_pet", "clevr", "kitti")


@pytest.mark.parametrize("name", FOLDERS)
def test_pixels_are_the_files(name: str, faked: Any) -> None:
    source, raw = faked(name)
    for examples in source.splits(raw).values():
        for example in examples:
            with Image.open(example.origin) as image:
                assert (np.asarray(image.convert("RGB")) == np.asarray(example.read())).all()


@pytest.mark.parametrize("name", FOLDERS)
def test_an_undecodable_image_is_named_when_it_is_read(name: str, faked: Any) -> None:
    source, raw = faked(name)
    example = source.splits(raw)["test"][0]
    Path(example.origin).write_bytes(b"no image")
    with pytest.raises(RunError, match=r"cannot decode image .*" + Path(example.origin).name):
        example.read()


def test_labels_are_the_folders(faked: Any) -> None:
    for name in ("eurosat", "resisc45", "dtd"):
        source, raw = faked(name)
        for examples in source.splits(raw).values():
            for example in examples:
                assert source.CLASSES[example.labels[name]] == Path(example.origin).parent.name


def test_labels_of_flowers_are_looked_up_by_number(faked: Any) -> None:
    source, raw = faked("oxford_flowers102")
    splits = source.splits(raw)
    numbers = {s: sorted(int(e.key[6:11]) for e in examples) for s, examples in splits.items()}
    assert numbers == {
        "train800": list(range(1, 13)),
        "val200": list(range(13, 21)),
        "test": list(range(21, 31)),
    }
    for example in splits["test"]:
        assert example.labels["oxford_flowers102"] == (int(example.key[6:11]) - 1) * 3 % 102
    savemat(raw / "imagelabels.mat", {"labels": np.full((1, 30), 103)})
    with pytest.raises(UsageError, match=r"imagelabels\.mat has no label 1\.\.102 of image"):
        source.splits(raw)


def test_labels_of_pets_are_in_the_lists(faked: Any) -> None:
    source, raw = faked("oxford_iiit_pet")
    for example in source.splits(raw)["test"]:
        index = int(example.key.rpartition("_")[2].removesuffix(".jpg")) - 100
        assert example.labels["oxford_iiit_pet"] == index % 37
    for line in ("Abyssinian_1 38 1 1", "Abyssinian_1 1 1", "../x_1 1 1 1"):
        (raw / "annotations" / "test.txt").write_text(line)
        with pytest.raises(UsageError, match=r"test\.txt: .* is not 'name class species breed'"):
            source.splits(raw)


def test_lists_of_textures_stay_in_their_folder(faked: Any) -> None:
    source, raw = faked("dtd")
    file = raw / "dtd" / "labels" / "val1.txt"
    for line in ("banded/../../x.jpg", "sponge/sponge_0001.jpg", "banded"):
        file.write_text("\n".join([line, *file.read_text().splitlines()[1:]]))
        with pytest.raises(UsageError, match=r"val1\.txt: .* is not <texture>/<file>"):
            source.splits(raw)


@pytest.fixture
def sun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A raw folder with the images of three members."""
    keys = {"train": {"/a/abbey/sun_a.jpg": 0}, "validation": {"/c/cabin/outdoor/sun_b.jpg": 70}}
    keys["test"] = {"/z/zoo/sun_c.jpg": 396}
    monkeypatch.setattr(sun397, "members", lambda: keys)
    monkeypatch.setattr(sun397, "COUNTS", dict.fromkeys(keys, 1))
    for those in keys.values():
        for key in those:
            fakes.picture(tmp_path / "SUN397" / key[1:])
    return tmp_path


def test_sun397_needs_its_members_only(sun: Path) -> None:
    (sun / "SUN397" / "t" / "track" / "outdoor").mkdir(parents=True)
    (sun / "SUN397" / "t" / "track" / "outdoor" / "sun_aophkoiosslinihb.jpg").write_bytes(b"broken")
    splits = sun397.splits(sun)
    found = {split: [(e.key, e.labels) for e in examples] for split, examples in splits.items()}
    assert found == {
        "train800": [("/a/abbey/sun_a.jpg", {"sun397": 0})],
        "val200": [("/c/cabin/outdoor/sun_b.jpg", {"sun397": 70})],
        "test": [("/z/zoo/sun_c.jpg", {"sun397": 396})],
    }
    (sun / "SUN397" / "z" / "zoo" / "sun_c.jpg").unlink()
    with pytest.raises(UsageError, match=r"no image .*zoo/sun_c\.jpg"):
        sun397.splits(sun)
    with pytest.raises(UsageError, match=r"no .*nowhere/SUN397\. Get https://vision"):
        sun397.splits(sun / "nowhere")


def test_sun397_in_the_size_of_tfds(sun: Path) -> None:
    """Small ones keep their size, large ones have 120,000 pixels; whatever the file really is."""
    file = sun / "SUN397" / "z" / "zoo" / "sun_c.jpg"
    (example,) = sun397.splits(sun)["test"]
    for size, scaled in (((400, 300), (400, 300)), ((800, 600), (400, 300)), ((9, 7), (9, 7))):
        for kind, mode in (("JPEG", "RGB"), ("PNG", "RGBA"), ("GIF", "L"), ("BMP", "RGB")):
            Image.new(mode, size, 128 if mode == "L" else (200, 100, 50, 255)[: len(mode)]).save(
                file, kind
            )
            image = example.read()
            assert image.size == scaled and image.mode == "RGB"
            expected = (128,) * 3 if mode == "L" else (200, 100, 50)
            assert np.abs(np.asarray(image).astype(int) - expected).max() <= 3
    file.write_bytes(b"broken")
    with pytest.raises(RunError, match=r"sun_c\.jpg"):
        example.read()


def test_what_tfds_cannot_decode_is_no_member() -> None:
    names = {key.rpartition("/")[2] for keys in sun397.members().values() for key in keys}
    assert not names & {"sun_aophkoiosslinihb.jpg", "sun_bhenjvsvrtumjuri.jpg"}
    assert len(names) > 22_000
