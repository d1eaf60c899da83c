"""Malformed inputs: each is told in one message, exit code 2, and none gives a traceback.

The readable ones lie in corpus/<kind>/, with what a person is told in corpus/messages.toml; the
others are made by hostile.py.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import synthetic
from safetensors.numpy import load_file

from petlbench.data import lists
from petlbench.errors import RunError

CLI = Callable[..., Any]
CORPUS = Path(__file__).parent / "corpus"
MESSAGES: dict[str, dict[str, str]] = tomllib.loads((CORPUS / "messages.toml").read_text("utf-8"))
VIT = ["--backbone", "vit_mini", "--methods", "linear"]

Command = Callable[[Path, Path], list[str | Path]]
"""(the input, an empty folder) -> the command that reads it."""


def placed(file: Path, place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if file.is_dir() else shutil.copyfile)(file, place)
    return place


def of_list(file: Path, root: Path) -> list[str | Path]:
    placed(file, root / "cifar" / "train800val200.txt")
    return ["plan", "--suite", "vtab-1k", "--tasks", "cifar", "--data-root", root, *VIT]


def of_json_list(file: Path, root: Path) -> list[str | Path]:
    placed(file, root / "cub" / "train.json")
    (root / "cub" / "images").mkdir()
    return ["plan", "--suite", "fgvc", "--tasks", "cub200", "--data-root", root, *VIT]


def of_captions(file: Path, root: Path) -> list[str | Path]:
    placed(file, root / "rsicd" if file.is_dir() else root / "rsicd" / "dataset_rsicd.json")
    return ["plan", "--suite", "retrieval", "--tasks", "rsicd", "--data-root", root]


def of_table(file: Path, root: Path) -> list[str | Path]:
    for name in "abc":
        (root / f"{name}.png").touch()
    return ["plan", "--suite", "folder", "--data-root", placed(file, root / file.name), *VIT]


def of_plan(file: Path, root: Path) -> list[str | Path]:
    return ["plan", "--plan", file]


def of_protocol(file: Path, root: Path) -> list[str | Path]:
    return ["plan", "--protocol", file, "--methods", "linear"]


def of_preset(file: Path, root: Path) -> list[str | Path]:
    return ["plan", "--tasks", "digits", "--methods", "convpass", "--preset", file]


def of_manifest(file: Path, root: Path) -> list[str | Path]:
    folder = placed(file, root / "cifar" / "manifest.json").parent
    (folder / "train800val200.txt").write_text("images/0.png 1\n" * 1000)
    return ["plan", "--suite", "vtab-1k", "--tasks", "cifar", "--data-root", root, *VIT]


def of_record(file: Path, root: Path) -> list[str | Path]:
    try:
        key = json.loads(file.read_bytes())["key"]
    except (ValueError, TypeError, KeyError, RecursionError):
        key = file.stem
    placed(file, root / "records" / f"{key}.json")
    return ["merge", root, "--into", root / "all"]


def of_record_lines(file: Path, root: Path) -> list[str | Path]:
    return ["merge", file, "--into", root / "all"]


def of_method(file: Path, root: Path) -> list[str | Path]:
    return ["plan", "--tasks", "digits", "--methods", file]


COMMANDS: dict[str, Command] = {
    "lists": of_list,
    "json-lists": of_json_list,
    "captions": of_captions,
    "tables": of_table,
    "plans": of_plan,
    "protocols": of_protocol,
    "presets": of_preset,
    "manifests": of_manifest,
    "records": of_record,
    "record-lines": of_record_lines,
    "methods": of_method,
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, told in MESSAGES.items() for name in told]
)
def test_of_the_corpus(cli: CLI, tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / "root").mkdir()
    command = COMMANDS[kind](CORPUS / kind / name, tmp_path / "root")
    cli(*command).refused(MESSAGES[kind][name])


def test_the_corpus_is_large_and_every_input_in_it_has_a_message() -> None:
    there = {kind: {file.name for file in (CORPUS / kind).iterdir()} for kind in COMMANDS}
    assert there == {kind: set(told) for kind, told in MESSAGES.items()}
    assert sum(map(len, there.values())) >= 100
    files = [file for file in CORPUS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 500_000


def write(content: bytes, file: Path) -> Path:
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("name", ARCHIVES := hostile.archives())
def test_archives(cli: CLI, tmp_path: Path, name: str) -> None:
    content, told = ARCHIVES[name]
    file, root = write(content, tmp_path / name), tmp_path / "deep" / "root"
    what = ["vtab-1k", "--tasks", "cifar", "--data-root", root]
    cli("data", "prepare", *what, "--from", file).refused(told)
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert kept == [file]


@pytest.mark.parametrize("name", IMAGES := hostile.images())
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images(tmp_path: Path, name: str) -> None:
    content, told = IMAGES[name]
    file = write(content, tmp_path / name)
    with pytest.raises(RunError, match=rf"image {file}: ") as raised:
        lists.of_files("test", [file], [0], "").read(0)
    assert told in str(raised.value)


def test_a_broken_image_fails_a_run_and_not_the_sweep(cli: CLI, tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(5):
            hostile.picture().save(tmp_path / "pets" / name / f"{index}.png")
    bad = write(*(IMAGES["cut-at-60-percent.png"][0], tmp_path / "pets" / "dogs" / "2.png"))
    suite = ["--suite", "folder", "--data-root", tmp_path / "pets", "--tasks", "pets"]
    done = cli("run", *suite, "--backbone", "vit_mini", small=True)
    assert done.code == 1 and "Traceback" not in done.out + done.err
    assert f"cannot decode image {bad}" in done.out + done.err


GREY = (np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_contrast(tmp_path: Path, kind: str) -> None:
    from PIL import Image

    file = write(hostile.saved(Image.fromarray(GREY), kind), tmp_path / "grey")
    image = lists.of_files("test", [file], [0], "").read(0)
    assert image.mode == "RGB"
    assert (np.asarray(image) == (GREY // 256)[:, :, None]).all()


def test_16_bit_grey_and_16_bit_colours_are_read_alike(tmp_path: Path) -> None:
    colours = np.repeat(GREY[:, :, None], 3, axis=2).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in colours)
    file = write(hostile.png(8, 8, depth=16, kind=2, rows=rows), tmp_path / "colours.png")
    image = lists.of_files("test", [file], [0], "").read(0)
    assert (np.asarray(image) == (GREY // 256)[:, :, None]).all()


def test_unusual_images_that_can_be_read(tmp_path: Path) -> None:
    from PIL import Image

    plain = hostile.picture()
    clear = plain.quantize(8)
    clear.info["transparency"] = 0
    frames = [plain.quantize(8), Image.new("P", (16, 16))]
    files = {
        "palette.png": hostile.saved(plain.quantize(8), "PNG"),
        "transparent.png": hostile.saved(clear, "PNG"),
        "cmyk.jpg": hostile.saved(plain.convert("CMYK"), "JPEG"),
        "grey-alpha.png": hostile.saved(plain.convert("LA"), "PNG"),
        "one-bit.png": hostile.saved(plain.convert("1"), "PNG"),
        "animated.gif": hostile.saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
    }
    for name, content in files.items():
        image = lists.of_files("test", [write(content, tmp_path / name)], [0], "").read(0)
        assert (image.mode, image.size) == ("RGB", (16, 16)), name
    first = np.asarray(frames[0].convert("RGB"))
    assert (np.asarray(image) == first).all()  # of an animation, the first frame


PREDICTIONS = hostile.predictions(20)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_predictions(cli: CLI, tmp_path: Path, name: str) -> None:
    content, told = PREDICTIONS[name]
    found = synthetic.records(["lora", "linear"], 1, 1, images=20)
    folder = synthetic.write(tmp_path / "results", found)
    write(content, folder / "artifacts" / f"{found[0]['key']}.predictions.npz")
    cli("compare", "lora", "linear", "--results", folder).refused(told, "Move it away")


def test_checkpoints(cli: CLI, tmp_path: Path, checkpoint: Path) -> None:
    for name, (content, told) in hostile.checkpoints(load_file(checkpoint)).items():
        file = write(content, tmp_path / name)
        plan = ["plan", "--tasks", "digits", *VIT, "--image-size", "16", "--checkpoint", file]
        cli(*plan).refused(told, name)


def test_trained_weights(cli: CLI, tmp_path: Path) -> None:
    from petlbench import plan
    from petlbench.request import Request

    made = plan.make(Request(tasks=("digits",), methods=("linear",), seeds=1))
    picture = write(hostile.saved(hostile.picture(), "PNG"), tmp_path / "a.png")
    for name, (content, told) in hostile.stored(json.dumps(made.specs[0].as_dict())).items():
        cli("predict", "--run", write(content, tmp_path / name), picture).refused(told)
