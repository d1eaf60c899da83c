"""A finished run predicts what it predicted, bit for bit, and merges into a plain model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import CLI
from PIL import Image
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

import petlbench
from petlbench.adapted import image_files, load_adapted
from petlbench.data import cache
from petlbench.errors import RunError, UsageError
from petlbench.mini import ARCHITECTURE
from petlbench.results import folders
from petlbench.store import Record, Store
from petlbench.task import load_suite

METHODS = ["lora", "convpass", "vpt", "bitfit", "sct", "gps", "vqt", "compacter"]


def finished(small: dict[str, Any], **changes: Any) -> dict[str, Record]:
    """Method -> record, of one short run each."""
    petlbench.run(**small | {"methods": METHODS} | changes, progress=False)
    return {r["spec"]["method"]["name"]: r for r in Store(Path("results/small")).load()[0]}


def pixels_of_test(size: int = 16) -> torch.Tensor:
    suite = load_suite("mini")
    (task,) = suite.select(["digits"])
    return torch.from_numpy(
        cache.load(suite.open_split(task, "test", None, 0), cache.Geometry(size, "bicubic")).pixels
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_predictions_are_the_recorded_ones(
    small: dict[str, Any], checkpoint: Path, precision: str
) -> None:
    settings = small["settings"] | {"protocol.precision": precision}
    for record in finished(small, settings=settings).values():
        model = load_adapted(record, "results", checkpoint)
        file = Path("results/small/artifacts") / f"{record['key']}.predictions.npz"
        with np.load(file) as stored:
            again = model.logits(pixels_of_test()).argmax(1).numpy()
            np.testing.assert_array_equal(again, stored["predictions"])
            assert (again == stored["labels"]).sum() == record["test"]["correct"]


@pytest.mark.parametrize("method", ["lora", "bitfit"])
def test_merged_it_is_a_plain_checkpoint(
    small: dict[str, Any], checkpoint: Path, cli: CLI, method: str
) -> None:
    record = finished(small, methods=[method])[method]
    expected = load_adapted(record, "results", checkpoint).logits(pixels_of_test())
    done = cli(
        "export",
        "--run",
        record["key"],
        "--checkpoint",
        checkpoint,
        "--merge",
        "-o",
        "m.safetensors",
    )
    assert done.code == 0, done
    plain = VisionTransformer(img_size=16, num_classes=10, **ARCHITECTURE)  # type: ignore[arg-type]
    plain.load_state_dict(load_file("m.safetensors"), strict=True)
    pixels = (pixels_of_test().float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        logits = plain.eval()(pixels)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_timm_loads_the_export(cli: CLI) -> None:
    """The command that `export` prints works."""
    arguments = ["--tasks", "digits", "--methods", "lora", "--epochs", "1", "--results", "r"]
    arguments += ["--backbone", "test_vit", "--checkpoint", "random", "--image-size", "160"]
    settings = ["--set", "protocol.warmup_epochs=0", "--set", "protocol.batch_size=200"]
    assert cli("run", *arguments, *settings, "--device", "cpu").code == 0
    (record,) = Store(Path("r")).load()[0]
    done = cli(
        "export", "--run", record["key"][:8], "--results", "r", "--merge", "-o", "m.safetensors"
    )
    call = done.out.split("load it: ")[1]
    model = eval(call, {"timm": timm}).eval()  # our own printed line
    pixels = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    rules = record["spec"]["protocol"]
    mean, std = (torch.tensor(rules[n]).view(3, 1, 1) for n in ("mean", "std"))
    with torch.no_grad():
        logits = model((pixels.float() / 255 - mean) / std)
    expected = load_adapted(record, "r").logits(pixels)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


def test_predict(small: dict[str, Any], checkpoint: Path, cli: CLI) -> None:
    record = finished(small, methods=["convpass"])["convpass"]
    Path("images/below").mkdir(parents=True)
    for name, pixel in zip(("b.png", "below/a.jpg"), pixels_of_test(), strict=False):
        Image.fromarray(pixel.permute(1, 2, 0).numpy()).save(Path("images") / name)
    Path("images/notes.txt").write_text("no image")
    model = load_adapted(record["key"][:6], "results", checkpoint)
    found = model.predict(["images"])
    assert list(found["file"]) == ["images/b.png", "images/below/a.jpg"]
    assert found["class"][0] == model.logits(pixels_of_test()[:1]).argmax()
    assert (found["probability"] > 0.1).all() and (found["probability"] <= 1).all()
    arguments = ["--run", record["key"], "--checkpoint", checkpoint, "images"]
    assert cli("predict", *arguments).out.startswith("file,class,probability,name\nimages/b.png,")
    assert cli("predict", *arguments, "-o", "p.csv").code == 0
    assert Path("p.csv").read_text() == cli("predict", *arguments).out
    cli("predict", *arguments, "-o", "p.txt").refused("p.txt", ".csv")
    Path("images/broken.png").write_bytes(b"PNG")
    with pytest.raises(RunError, match=r"broken\.png"):
        model.predict(["images"])


def test_a_stored_file_is_enough(small: dict[str, Any], checkpoint: Path, cli: CLI) -> None:
    record = finished(small, methods=["lora"])["lora"]
    file = Path("results/small/artifacts") / f"{record['key']}.safetensors"
    done = cli("export", "--run", file, "--checkpoint", checkpoint, "-o", "given.safetensors")
    assert done.code == 0, done
    assert load_file("given.safetensors").keys() == load_file(file).keys()
    again = load_adapted("given.safetensors", checkpoint=checkpoint)
    expected = load_adapted(record, "results", checkpoint)
    torch.testing.assert_close(again.logits(pixels_of_test()), expected.logits(pixels_of_test()))


OWN = """
from dataclasses import dataclass
from torch import nn
from petlbench.method import Method

@dataclass(frozen=True)
class Own(Method):
    def attach(self, backbone):
        backbone.vit.norm.requires_grad_(True)

    def num_trainable(self, shape):
        return 2 * shape.num_features
"""


def test_a_method_of_ones_own(small: dict[str, Any], checkpoint: Path) -> None:
    Path("own.py").write_text(OWN)
    record = finished(small, methods=["./own.py"])["own"]
    with pytest.raises(UsageError, match=r"--method FILE\.py"):
        load_adapted(record, "results", checkpoint)
    load_adapted(record, "results", checkpoint, method="own.py")
    Path("own.py").write_text(OWN + "\n# edited\n")
    with pytest.raises(RunError, match="was edited since"):
        load_adapted(record, "results", checkpoint, method="own.py")


def test_what_a_careless_user_types(small: dict[str, Any], checkpoint: Path, cli: CLI) -> None:
    records = finished(small, methods=["lora", "convpass"], keep="all")
    key = records["lora"]["key"]
    near = key[:-1] + ("0" if key[-1] != "0" else "1")
    cli("predict", "--run", near, "x.png").refused("no file or folder x.png")
    Path("empty").mkdir()
    cli("predict", "--run", key, "empty").refused("no images in empty")
    Image.new("RGB", (9, 9)).save("x.png")
    cli("predict", "--run", near, "x.png").refused(f"Did you mean {key}")
    cli("predict", "--run", "", "x.png").refused("give more digits")
    cli("predict", "--run", key, "x.png").refused(
        "the run's vit_mini has the checkpoint", "--checkpoint"
    )
    arguments = ["--run", records["convpass"]["key"], "--checkpoint", checkpoint]
    cli("export", *arguments, "--merge").refused("convpass does not merge")
    cli("export", *arguments, "-o", "m.pth").refused("ends in .safetensors")
    cli("predict", "--run", "x.safetensors", "x.png").refused("no file x.safetensors")
    Path("x.safetensors").write_bytes(b"nonsense")
    cli("predict", "--run", "x.safetensors", "x.png").refused("x.safetensors cannot be read")
    cli("predict", "--run", checkpoint, "x.png").refused("it holds no spec")
    Path(f"results/small/artifacts/{key}.safetensors").unlink()
    cli("predict", "--run", key, "x.png").refused("were not kept", "--keep all")
    listed = cli("list", "runs").out
    assert (
        f"{key}  mini digits, lora, seed 0, vit_mini, 1 epochs, comparison " in listed
        and "(weights not kept)" in listed
    )
    assert not list(Path().glob("*.partial")) and not Path("m.pth").exists()


def test_the_spec_is_in_the_file(small: dict[str, Any]) -> None:
    from safetensors import safe_open

    record = finished(small, methods=["lora"])["lora"]
    file = folders("results")[0] / "artifacts" / f"{record['key']}.safetensors"
    with safe_open(file, framework="pt") as stored:
        told = json.loads(stored.metadata()["spec"])
    assert told.pop("class_names")[0] == "handwritten zero" and told == record["spec"]


def test_images_in_order() -> None:
    for name in ("b.PNG", "a.jpg", "c.txt"):
        Path(name).touch()
    assert [str(f) for f in image_files(["."])] == ["a.jpg", "b.PNG"]
    assert [str(f) for f in image_files(["c.txt", "b.PNG"])] == ["c.txt", "b.PNG"]
