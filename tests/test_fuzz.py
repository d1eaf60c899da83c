"""Readers under mutated input: a valid result, or an error that is told, and nothing else."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import safetensors.numpy
import synthetic
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petlbench import leaderboard, presets, protocol, request, weights
from petlbench.adapted import _opened as open_stored
from petlbench.data import captions, json_lists, lists, manifest, tables
from petlbench.errors import RunError, UsageError
from petlbench.merge import merge
from petlbench.prepare import archives
from petlbench.store import read_file, read_lines

quick = settings(max_examples=60, suppress_health_check=list(HealthCheck))


@contextmanager
def told() -> Iterator[None]:
    """Whatever is wrong is told as an error for people, which can be printed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UsageError, RunError) as error:
        assert str(error).encode("utf-8", "backslashreplace")


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Some bytes changed, and perhaps a piece cut out, doubled or put in."""
    changed = bytearray(content)
    places = st.integers(0, len(changed) - 1)
    for place, value in draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        changed[place] = value
    first, last = sorted(draw(st.tuples(places, places)))
    piece = draw(
        st.sampled_from(
            [changed[first:last], b"", *(() if last - first > 64 else (changed[first:last] * 2,))]
        )
    )
    extra = draw(st.one_of(st.just(b""), st.binary(max_size=8)))
    return bytes(changed[:first] + piece + extra + changed[last:])


odd = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    st.sampled_from(["../a", "/a", "a\0b", "\ud800", "a" * 300, "", 10**30, -1, 0, 1e308]),
    *(st.builds(list), st.builds(dict), st.builds(lambda: {"a": {"b": [[]]}})),
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value within a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


@st.composite
def edited(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with some of its values gone, or replaced by odd ones."""
    changed = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(changed))
        if not found:
            break
        inside, key = draw(st.sampled_from(found))
        if draw(st.booleans()):
            inside[key] = draw(odd)
        else:
            del inside[key]
    return changed


def variants(value: Any) -> st.SearchStrategy[bytes]:
    """Of a JSON file: other values, other bytes."""
    text = json.dumps(value)
    return st.one_of(edited(value).map(lambda v: json.dumps(v).encode()), mutated(text.encode()))


@contextmanager
def file_of(content: bytes, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        yield file


def fuzz(content: bytes, name: str, read: Callable[[Path], object]) -> None:
    with file_of(content, name) as file, told():
        read(file)


# -- texts ----------------------------------------------------------------------------------------


@quick
@given(mutated(b"images/0.png 1\nimages/two words.png 3\n\nimages/2.png 0\n"))
def test_lists(content: bytes) -> None:
    fuzz(content, "test.txt", lambda file: lists.read(file, file.parent, "test", 4).version())


@quick
@given(mutated(b'path,label,split,group\na.png,x,train,1\n"b,.png",y,test,2\nc.png,x,val,3\n'))
def test_tables(content: bytes) -> None:
    def read(file: Path) -> None:
        for name in ("a.png", "b,.png", "c.png"):
            (file.parent / name).touch()
        tables.read(file)

    fuzz(content, "x.csv", read)


@quick
@given(variants({"a.jpg": 1, "b/c.jpg": 2, "d.jpg": 1}))
def test_json_lists(content: bytes) -> None:
    def read(file: Path) -> None:
        json_lists.open_split(file.parent, file.parent, "train", ["train"], 2).version()

    fuzz(content, "train.json", read)


IMAGES = [
    {"filename": f"{i}.jpg", "imgid": i, "split": split, "sentences": [{"raw": f"a dog {i}"}] * 2}
    for i, split in enumerate(("train", "test", "val", "restval"))
]
ENTRIES = [{"image": f"{i}.jpg", "caption": f"a dog {i}", "image_id": i} for i in range(3)]
CAPTIONS = {
    "x/dataset.json": {"images": IMAGES},
    "x/x_train.json": ENTRIES,
}


@pytest.mark.parametrize("name", CAPTIONS)
@quick
@given(data=st.data())
def test_captions(name: str, data: st.DataObject) -> None:
    def read(file: Path) -> None:
        for i in range(4):
            (file.parent / f"{i}.jpg").touch()
        captions.open_split(file.parent.parent, "x", "train")

    fuzz(data.draw(variants(CAPTIONS[name])), name, read)


@quick
@given(mutated("".join(f"ein Hund läuft {i}\n" for i in range(10)).encode()))
def test_precomp_captions(content: bytes) -> None:
    def read(file: Path) -> None:
        (file.parent / "train_filename.txt").write_text("a.jpg\nb.jpg\n")
        for name in ("a.jpg", "b.jpg"):
            (file.parent / name).touch()
        captions.open_split(file.parent.parent, "x", "train")

    fuzz(content, "x/train_caps.txt", read)


MANIFEST = {
    "schema": 1,
    "task": "cifar",
    "lineage": "lossless",
    "source": {"name": "x", "url": "y"},
    "splits": {"test": {"count": 1, "pixels": "ab"}, "train800": {"count": 2, "pixels": "cd"}},
}


@quick
@given(variants(MANIFEST))
def test_manifests(content: bytes) -> None:
    fuzz(content, "manifest.json", lambda file: manifest.read(file.parent))


PLAN = b"""suite = "mini"
methods = ["linear", {name = "lora", rank = 4}]
tasks = ["digits"]
seeds = 2
[settings.protocol]
epochs = 3
learning_rate = 1e-3
search_weight_decay = [0.1, 0.2]
"""
PRESET = b"""source = "here"
chosen = "by hand"
[mini]
digits = {scale = 0.1}
fashion = {scale = 1}
"""
PROTOCOL = b"""description = "mine"
epochs = 5
warmup_epochs = 1
learning_rate = 1e-3
optimizer = "adamw"
drop_last = true
presets = ["a", "b"]
"""


@quick
@given(mutated(PLAN))
def test_plans(content: bytes) -> None:
    fuzz(content, "plan.toml", lambda file: request.from_file(file, {}))


@quick
@given(mutated(PROTOCOL))
def test_protocols(content: bytes) -> None:
    fuzz(content, "mine.toml", lambda file: protocol.load(str(file)).rules())


@quick
@given(mutated(PRESET))
def test_presets(content: bytes) -> None:
    def read(file: Path) -> None:
        preset = presets.load(str(file))
        assert preset.summary
        preset.of("mini", ["digits"])

    fuzz(content, "convpass.mine.toml", read)


# -- records --------------------------------------------------------------------------------------

RECORDS = synthetic.records(["lora"], 1, 1, images=20, search=2, peek=True)


@settings(quick, max_examples=150)
@given(variants(RECORDS[0]))
def test_records(content: bytes) -> None:
    with file_of(content, f"{RECORDS[0]['key']}.json") as file:
        record, why = read_file(file)
        assert (record is None) == bool(why)
        if record is not None:  # what is read can be counted
            leaderboard.rank([record])


@quick
@given(mutated("".join(f"{json.dumps(r)}\n" for r in synthetic.records(2, 1, 1)).encode()))
def test_records_in_lines(content: bytes) -> None:
    with file_of(content, "records.jsonl") as file:
        for record, why in read_lines(file):
            assert (record is None) == bool(why)
        with told():
            merge([file], file.parent / "all")


# -- binary files ---------------------------------------------------------------------------------

PICTURES = {
    kind: hostile.saved(hostile.picture(8), kind)
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
}


@pytest.mark.parametrize("kind", PICTURES)
@quick
@given(data=st.data())
def test_images(kind: str, data: st.DataObject) -> None:
    def read(file: Path) -> None:
        image = lists.of_files("test", [file], [0], "").read(0)
        assert image.mode == "RGB" and min(image.size) > 0

    fuzz(data.draw(mutated(PICTURES[kind])), "image", read)


PACKED = {
    ".zip": hostile.zipped({"a/b.txt": b"12" * 50, "c": b"3"}),
    ".tar": hostile.tarred("a/b.txt", b"12" * 50, mode="w")[:2048],
    ".tar.gz": hostile.tarred("a/b.txt", b"12" * 50),
    ".tar.xz": hostile.tarred("a/b.txt", b"12" * 50, mode="w:xz"),
    ".tar.bz2": hostile.tarred("a/b.txt", b"12" * 50, mode="w:bz2"),
}


@pytest.mark.parametrize("suffix", PACKED)
@quick
@given(data=st.data())
def test_archives(suffix: str, data: st.DataObject) -> None:
    with file_of(data.draw(mutated(PACKED[suffix])), f"in/x{suffix}") as file:
        target = file.parent.parent / "deep" / "out"
        with told():
            archives.extract(file, target)
        files = {path for path in file.parent.parent.rglob("*") if path.is_file()}
        assert all(path == file or target in path.parents for path in files)


STATE = {"a.weight": np.ones((2, 3), np.float32), "a.bias": np.zeros(2, np.float32)}


def _torch() -> bytes:
    import io

    stream = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in STATE.items()}, stream)
    return stream.getvalue()


GOOGLE = {"cls": np.zeros((1, 1, 3)), "embedding/kernel": np.zeros((2, 2, 3, 3))}
CHECKPOINTS = {
    ".safetensors": safetensors.numpy.save(STATE),
    ".pth": _torch(),
    ".npz": hostile.npz(**GOOGLE),
}


@pytest.mark.parametrize("suffix", CHECKPOINTS)
@quick
@given(data=st.data())
def test_checkpoints(suffix: str, data: st.DataObject) -> None:
    model = torch.nn.Module()
    model.a = torch.nn.Linear(3, 2)
    model.embed_dim = 3
    content = data.draw(mutated(CHECKPOINTS[suffix]))
    fuzz(content, f"x{suffix}", lambda file: weights.load_checkpoint(model, file))


STORED = safetensors.numpy.save(STATE, {"spec": json.dumps(RECORDS[0]["spec"])})


@quick
@given(mutated(STORED))
def test_trained_weights(content: bytes) -> None:
    def read(file: Path) -> None:
        with open_stored(file) as (stored, _):
            for name in stored.keys():  # noqa: SIM118
                stored.get_tensor(name)

    fuzz(content, "x.safetensors", read)


@quick
@given(mutated(hostile.npz(**synthetic.predictions(RECORDS[0]))))
def test_predictions(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        results = synthetic.results(RECORDS, synthetic.write(Path(folder), RECORDS))
        key = RECORDS[0]["key"]
        (results.store.artifacts / f"{key}.predictions.npz").write_bytes(content)
        with told():
            found = results.predictions(key, RECORDS[0]["spec"]["task"])
            assert found is not None and len(found["labels"]) == 20


# -- guided by coverage ---------------------------------------------------------------------------

SEEDS = {  # in the order of coverage_guided.READERS
    "list": b"images/0.png 1\n",
    "json-list": b'{"a.jpg": 1, "b.jpg": 2}',
    "table": b"path,label\na.png,0\nb.png,1\n",
    "manifest": json.dumps(MANIFEST).encode(),
    "captions": json.dumps(CAPTIONS["x/dataset.json"]).encode(),
    "record": json.dumps(RECORDS[0]).encode(),
    **{suffix: PACKED[suffix] for suffix in (".zip", ".tar", ".tar.gz")},
    "png": PICTURES["PNG"],
}


def test_guided_by_coverage(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    for index, (name, content) in enumerate(SEEDS.items()):
        (tmp_path / name).write_bytes(bytes([index]) + content)
    script = Path(__file__).with_name("coverage_guided.py")
    options = ["-max_total_time=4", "-rss_limit_mb=0", f"-artifact_prefix={tmp_path}/crash-"]
    done = subprocess.run(
        [sys.executable, str(script), *options, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0 and "Done " in done.stderr, done.stderr[-3000:]
