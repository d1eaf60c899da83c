"""Captions in three formats give the same splits; what is wrong with them is named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from petlbench.data import captions
from petlbench.errors import RunError, UsageError

Data = dict[str, list[tuple[str, list[str]]]]  # part -> images with their captions

LAYOUTS = ("precomp", "karpathy", "harma")


def data(**counts: int) -> Data:
    """Images with five captions each."""
    return {
        part: [
            (f"{part}_{i}.tif", [f"{part} image {i}, caption {c}." for c in range(5)])
            for i in range(count)
        ]
        for part, count in counts.items()
    }


def write(base: Path, layout: str, content: Data, images: str = "images") -> Path:
    """One task on disk, as that format is released."""
    WRITERS[layout](base, content)
    noise = np.random.default_rng(0)
    for items in content.values():
        for name, _ in items:
            file = base / images / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 256, (6, 9, 3), np.uint8)).save(file)
    return base


def precomp(base: Path, content: Data) -> None:
    """Names one a line for each image in training, for each caption in test."""
    base.mkdir(parents=True, exist_ok=True)
    for part, items in content.items():
        texts = [text for _, own in items for text in own]
        repeated = 5 if part == "test" else 1
        names = [name for name, _ in items for _ in range(repeated)]
        (base / f"{part}_caps.txt").write_text("".join(f"{t}\n" for t in texts), "utf-8")
        (base / f"{part}_filename.txt").write_text("".join(f"{n}\n" for n in names), "utf-8")


def karpathy(base: Path, content: Data) -> None:
    base.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    for part, items in content.items():
        for name, own in items:
            sentences = [
                {"raw": text, "tokens": text.split(), "imgid": len(images)} for text in own
            ]
            image = {"filename": name, "split": part, "imgid": len(images), "sentences": sentences}
            images.append(image)
    (base / f"dataset_{base.name}.json").write_text(json.dumps({"images": images, "dataset": "t"}))


def harma(base: Path, content: Data) -> None:
    base.mkdir(parents=True, exist_ok=True)
    for part, items in content.items():
        if part == "train":
            entries: list[dict[str, Any]] = [
                {"caption": text, "image": f"train/{name}", "image_id": number, "label": 0}
                for number, (name, own) in enumerate(items)
                for text in own
            ]
        else:
            entries = [{"image": f"{part}/{name}", "caption": own} for name, own in items]
        (base / f"{base.name}_{part}.json").write_text(json.dumps(entries))


WRITERS: dict[str, Callable[[Path, Data], None]] = {
    "precomp": precomp,
    "karpathy": karpathy,
    "harma": harma,
}


def refused(base: Path, *parts: str, split: str = "train") -> None:
    with pytest.raises(UsageError) as raised:
        captions.open_split(base.parent, base.name, split)
    for part in parts:
        assert part in str(raised.value), (part, str(raised.value))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_format_is_read(tmp_path: Path, layout: str) -> None:
    content = data(train=3, val=2, test=2)
    write(tmp_path / "t", layout, content)
    for split, parts in captions.SPLITS.items():
        opened = captions.open_split(tmp_path, "t", split)
        items = [item for part in parts for item in content[part]]
        assert opened.name == split and len(opened) == len(items)
        assert opened.labels.tolist() == list(range(len(items))) and opened.labels.dtype == np.int64
        assert list(opened.texts) == [text for _, own in items for text in own]
        assert opened.owners is not None and opened.owners.dtype == np.int64
        assert opened.owners.tolist() == [i for i in range(len(items)) for _ in range(5)]
        assert list(opened.files) == [tmp_path / "t" / "images" / name for name, _ in items]
        assert opened.describe == {
            "layout": f"captions, {layout}",
            "formats": [".tif"],
            "parts": list(parts),
            "captions": 5 * len(items),
            "left_out_without_captions": 0,
        }
        for index, (name, _) in enumerate(items):
            with Image.open(tmp_path / "t" / "images" / name) as image:
                assert np.array_equal(np.asarray(opened.read(index)), np.asarray(image))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_val_all_that_is_not_tested_is_train(tmp_path: Path, layout: str) -> None:
    write(tmp_path / "t", layout, data(train=3, test=2))
    opened = captions.open_split(tmp_path, "t", "trainval")
    assert opened.members == captions.open_split(tmp_path, "t", "train").members
    assert opened.describe["parts"] == ["train"]
    refused(tmp_path / "t", "no val images, only train, test", split="val")


def test_restval_is_training_data_and_filepath_a_folder(tmp_path: Path) -> None:
    """COCO: images of two folders, most of val2014 used to train."""
    images = [
        {"filepath": "val2014", "filename": "COCO_val2014_1.jpg", "split": "test"},
        {"filepath": "val2014", "filename": "COCO_val2014_2.jpg", "split": "restval"},
        {"filepath": "train2014", "filename": "COCO_train2014_1.jpg", "split": "train"},
    ]
    base = tmp_path / "coco"
    for number, image in enumerate(images):
        image |= {"cocoid": number, "sentences": [{"raw": f" a {number} \n"}] * (number + 1)}  # type: ignore[dict-item]
        file = base / image["filepath"] / image["filename"]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(file)
    (base / "dataset_coco.json").write_text(json.dumps({"images": images}))
    opened = captions.open_split(tmp_path, "coco", "train")
    names = ["val2014/COCO_val2014_2.jpg", "train2014/COCO_train2014_1.jpg"]
    assert list(opened.files) == [base / name for name in names]
    assert list(opened.texts) == ["a 1"] * 2 + ["a 2"] * 3
    assert opened.owners is not None and opened.owners.tolist() == [0, 0, 1, 1, 1]
    assert captions.open_split(tmp_path, "coco", "trainval").members == opened.members
    assert len(captions.open_split(tmp_path, "coco", "test")) == 1


@pytest.mark.parametrize("images", [".", "images", "imgs", "T_images", "t_images", "t-images"])
def test_folders_of_images(tmp_path: Path, images: str) -> None:
    write(tmp_path / "t", "precomp", data(train=2, test=1), images)
    file = captions.open_split(tmp_path, "t", "test").files[0]
    assert file == tmp_path / "t" / images / "test_0.tif"


def test_folders_in_names_are_used_where_they_are_there(tmp_path: Path) -> None:
    content = data(train=2, test=1)
    write(tmp_path / "t", "harma", content, "images/train")
    (tmp_path / "t" / "images" / "test").mkdir()
    test = tmp_path / "t" / "images" / "train" / "test_0.tif"
    test.rename(tmp_path / "t" / "images" / "test" / "test_0.tif")
    opened = captions.open_split(tmp_path, "t", "train")
    assert opened.files[0] == tmp_path / "t" / "images" / "train" / "train_0.tif"
    assert captions.open_split(tmp_path, "t", "test").files[0].parent.name == "test"


texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
sentences = st.lists(texts, min_size=1, max_size=3).map(" ".join)


@given(
    st.lists(st.lists(sentences, min_size=5, max_size=5), min_size=1, max_size=5),
    st.sampled_from(LAYOUTS),
)
@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
def test_any_captions_come_back(
    tmp_path_factory: pytest.TempPathFactory, own: list[list[str]], layout: str
) -> None:
    content: Data = {"test": [(f"{i}.png", each) for i, each in enumerate(own)]}
    base = write(tmp_path_factory.mktemp("any") / "t", layout, content)
    opened = captions.open_split(base.parent, "t", "test")
    assert list(opened.texts) == [text for each in own for text in each]
    # names, captions and their order are the identity of a split
    assert captions.open_split(base.parent, "t", "test").members == opened.members
    own[-1][-1] += "x"
    WRITERS[layout](base, content)
    assert captions.open_split(base.parent, "t", "test").members != opened.members


def test_the_identity_tells_whose_a_caption_is(tmp_path: Path) -> None:
    """The same names and captions, another image for one of them."""
    first: Data = {"test": [("a.png", ["x", "y"]), ("b.png", ["z"])]}
    other: Data = {"test": [("a.png", ["x"]), ("b.png", ["y", "z"])]}
    for folder, content in (("t", first), ("u", other)):
        write(tmp_path / folder, "karpathy", content)
    opened = [captions.open_split(tmp_path, folder, "test") for folder in ("t", "u")]
    assert list(opened[0].texts) == list(opened[1].texts)
    assert opened[0].members != opened[1].members


def test_a_new_image_changes_the_version(tmp_path: Path) -> None:
    write(tmp_path / "t", "precomp", data(train=2, test=1))
    opened = captions.open_split(tmp_path, "t", "test")
    before = opened.version()
    assert opened.version() == before
    Image.new("RGB", (3, 3)).save(opened.files[0])
    assert opened.version() != before


def test_training_images_without_any_caption_are_left_out_and_counted(tmp_path: Path) -> None:
    """Four of RSITMD's, in the released files: five empty lines each."""
    content = data(train=4, test=2)
    content["train"][1] = (content["train"][1][0], [""] * 5)
    content["train"][3] = (content["train"][3][0], [" "] * 5)
    base = write(tmp_path / "t", "precomp", content)
    opened = captions.open_split(tmp_path, "t", "train")
    assert [file.name for file in opened.files] == ["train_0.tif", "train_2.tif"]
    assert opened.texts[5] == "train image 2, caption 0."
    assert opened.owners is not None and opened.owners.tolist() == [0] * 5 + [1] * 5
    assert opened.describe["left_out_without_captions"] == 2
    # a single one that is empty is a mistake, and so is any in test
    content["train"][1] = (content["train"][1][0], ["a", "b", "", "d", "e"])
    precomp(base, content)
    refused(base, f"{base / 'train_caps.txt'}, line 8: the caption is empty")
    content["train"][1], content["test"][1] = ("a.tif", list("abcde")), ("b.tif", [""] * 5)
    precomp(base, content)
    refused(base, f"{base / 'test_caps.txt'}, line 6: the caption is empty", split="test")


# What is wrong is named


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    base = tmp_path / "rsicd"
    with pytest.raises(UsageError, match="--data-root"):
        captions.open_split(None, "rsicd", "test")
    refused(base, f"no folder {base}")
    base.mkdir()
    names = ("train_caps.txt", "test_filename.txt", "dataset*.json", "rsicd_test.json")
    refused(base, f"no captions in {base}", *names)
    precomp(base, data(train=2, test=1))
    refused(
        base, "rsicd has no split 'train800'; it has train, val, trainval, test", split="train800"
    )
    (base / "train_filename.txt").unlink()
    refused(base, f"no file {base / 'train_filename.txt'}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_images_are_counted(tmp_path: Path, layout: str) -> None:
    base = write(tmp_path / "t", layout, data(train=9, test=2))
    for number in (2, 4, 5, 8):
        (base / "images" / f"train_{number}.tif").unlink()
    refused(
        base,
        f"4 of 9 images of t's train are missing in {base / 'images'}: "
        "train_2.tif, train_4.tif, train_5.tif, ...",
        f"looked for in {base} and, inside it, images, imgs, T_images",
    )
    assert len(captions.open_split(tmp_path, "t", "test")) == 2


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    base = write(tmp_path / "t", "precomp", data(train=2, test=1))
    file = base / "images" / "test_0.tif"
    file.write_bytes(b"no image")
    with pytest.raises(RunError, match=re.escape(f"cannot decode image {file}")):
        captions.open_split(tmp_path, "t", "test").read(0)


def test_two_sets_of_captions_are_refused(tmp_path: Path) -> None:
    base = write(tmp_path / "t", "precomp", data(train=2, test=1))
    karpathy(base, data(train=2, test=1))
    refused(base, "more than once", "train_caps.txt", "dataset_t.json")
    for file in base.glob("*.txt"):
        file.unlink()
    (base / "dataset.json").write_text("{}")
    refused(base, "more than once (dataset.json, dataset_t.json)")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_in_two_parts_is_refused(tmp_path: Path, layout: str) -> None:
    content = data(train=3, test=2)
    content["test"][1] = content["train"][1]
    base = write(tmp_path / "t", layout, content)
    for split in ("train", "test"):
        refused(base, "image 'train_1.tif' is in train and in test", split=split)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_listed_twice_is_refused(tmp_path: Path, layout: str) -> None:
    content = data(train=3, test=3)
    content["test"][2] = content["test"][0]
    base = write(tmp_path / "t", layout, content)
    refused(base, "test_0.tif'", "first in" if layout != "harma" else "is there before")


@pytest.mark.parametrize(
    ("file", "text", "parts"),
    [
        ("train_caps.txt", "a\nb\nc\nd\ne\n", ["5 captions and train_filename.txt 2 names"]),
        ("train_caps.txt", "a\n" * 11, ["11 captions and train_filename.txt 2 names"]),
        ("train_caps.txt", "a\n" * 9 + "\n", ["train_caps.txt, line 10: the caption is empty"]),
        ("train_caps.txt", "", ["train_caps.txt is empty"]),
        ("train_filename.txt", "\n\n", ["train_filename.txt is empty"]),
        ("train_filename.txt", "a.tif\n\n", ["line 2: '' is not a relative path"]),
        ("train_filename.txt", "a.tif\n../b.tif\n", ["line 2: '../b.tif' is not a relative path"]),
        ("train_filename.txt", "/a.tif\nb.tif\n", ["line 1: '/a.tif' is not a relative path"]),
        ("train_filename.txt", "a.tif\na.tif\n", ["line 2: image 'a.tif' is twice in train"]),
        (
            "test_filename.txt",
            "test_0.tif\n" * 4 + "b.tif\n",
            ["line 1: 'test_0.tif' must be there"],
        ),
        ("test_filename.txt", "test_0.tif\n" * 4, ["5 captions and test_filename.txt 4 names"]),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, file: str, text: str, parts: list[str]) -> None:
    base = write(tmp_path / "t", "precomp", data(train=2, test=1))
    (base / file).write_text(text)
    refused(base, str(base), *parts)


def test_as_many_names_as_captions_need_not_be_fives(tmp_path: Path) -> None:
    base = write(tmp_path / "t", "precomp", data(train=2, test=1))
    (base / "test_caps.txt").write_text("a\n" * 7)
    (base / "test_filename.txt").write_text("test_0.tif\n" * 7)
    refused(base, "7 captions and test_filename.txt 7 names; 5 captions for each image")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_encoding_is_refused(tmp_path: Path, layout: str) -> None:
    base = write(tmp_path / "t", layout, data(train=2, test=1))
    name = {"precomp": "train_caps.txt", "karpathy": "dataset_t.json", "harma": "t_train.json"}
    file = base / name[layout]
    text = file.read_text().replace("train image 1", "tr\u00e4in image 1")
    file.write_bytes(text.encode("latin-1"))
    line = 6 if layout == "precomp" else 1
    refused(base, f"{file}, line {line} is not UTF-8", f"iconv -f latin1 -t utf8 {file.name}")
    file.write_bytes(text.encode("utf-8-sig"))  # a mark at the beginning does no harm
    assert captions.open_split(tmp_path, "t", "train").texts[5] == "tr\u00e4in image 1, caption 0."


@pytest.mark.parametrize("layout", ["karpathy", "harma"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('\n\n{"images": [}', ", line 3, column 13: Expecting value"),
        ("", ", line 1, column 1: Expecting value"),
        ("[" * 100_000, "is nested too deeply"),
        ("7", " is not of the form "),
        ("[]", " is not of the form "),
        ('{"images": []}', " is not of the form "),
    ],
)
def test_broken_json_is_named(tmp_path: Path, layout: str, text: str, message: str) -> None:
    base = write(tmp_path / "t", layout, data(train=1, test=1))
    file = base / ("dataset_t.json" if layout == "karpathy" else "t_train.json")
    file.write_text(text)
    refused(base, f"{file}", message)


def change(file: Path, index: int, **values: Any) -> None:
    """Change one entry; None removes a field."""
    content = json.loads(file.read_text())
    entries = content if isinstance(content, list) else content["images"]
    entry = entries[index]
    entry |= values
    entries[index] = {key: value for key, value in entry.items() if value is not None}
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"split": None}, "images[1] needs a text 'split'; it has None"),
        ({"split": "dev"}, "images[1]: split 'dev' is none of train, restval, val, test"),
        ({"filename": None}, "images[1] needs a text 'filename'"),
        ({"filename": 7}, "images[1] needs a text 'filename'; it has 7"),
        ({"filename": "../x.tif"}, "images[1]: '../x.tif' is not a relative path"),
        ({"filename": "a\\x.tif"}, "is not a relative path"),
        ({"filepath": "/etc"}, "images[1]: '/etc/train_1.tif' is not a relative path"),
        ({"filename": "train_0.tif"}, "images[1]: image 'train_0.tif' is twice in train"),
        ({"imgid": 0}, "images[1]: imgid 0 is that of"),
        ({"sentences": None}, "images[1] needs a list 'sentences' that is not empty"),
        ({"sentences": []}, "images[1] needs a list 'sentences' that is not empty"),
        ({"sentences": ["a"]}, "images[1].sentences[0] needs a text 'raw'"),
        ({"sentences": [{"raw": "a"}, {"raw": " "}]}, "sentences[1]: the caption is empty"),
        ({"sentences": [{"tokens": ["a"]}]}, "images[1].sentences[0] needs a text 'raw'"),
    ],
)
def test_bad_images_of_karpathy_are_named(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    base = write(tmp_path / "t", "karpathy", data(train=2, test=1))
    change(base / "dataset_t.json", 1, **values)
    refused(base, str(base / "dataset_t.json"), message)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("train", {"image": None}, "[1] needs a text 'image'"),
        ("train", {"image": "train/../../x.tif"}, "[1]: 'train/../../x.tif' is not a relative"),
        ("train", {"caption": ["a", "b"]}, "[1] needs a text 'caption'; it has ['a', 'b']"),
        ("train", {"caption": ""}, "[1]: the caption is empty"),
        ("train", {"image": "train/x.tif"}, "[1]: image_id 0 is that of train/train_0.tif already"),
        ("test", {"caption": "a"}, "[1] needs a list 'caption' that is not empty; it has 'a'"),
        ("test", {"caption": []}, "[1] needs a list 'caption' that is not empty"),
        ("test", {"caption": ["a", ""]}, "[1].caption[1]: the caption is empty"),
        ("test", {"caption": ["a", 7]}, "[1].caption[1]: a caption must be a text, not 7"),
        ("test", {"image": "test/test_0.tif"}, "[1]: 'test/test_0.tif' is there before"),
        ("test", {"image": "test/train_0.tif"}, "'train_0.tif' is in train and in test"),
    ],
)
def test_bad_entries_of_harma_are_named(
    tmp_path: Path, part: str, values: dict[str, Any], message: str
) -> None:
    base = write(tmp_path / "t", "harma", data(train=2, test=2))
    change(base / f"t_{part}.json", 1, **values)
    refused(base, str(base / f"t_{part}.json"), message)


def test_entries_that_are_no_objects_are_refused(tmp_path: Path) -> None:
    base = write(tmp_path / "t", "harma", data(train=2, test=2))
    (base / "t_train.json").write_text('["a", 1]')
    refused(base, "[0] needs a text 'image'; it has None")
