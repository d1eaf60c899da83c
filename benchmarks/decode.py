"""How fast the image cache is built and read, against what decoding alone allows.

    python benchmarks/decode.py [--images 10000] [--repeats 1] [--folder DIR]

Writes JPEGs of 500x375 (smooth colours and noise, quality 90; 200 different ones, linked under
many names) in the VTAB-1K layout into a temporary folder of DIR and opens them as a run does.
Measured in turns, in one process, files warm: a plain Pillow loop; decoding on all cores with
nothing after it, which bounds any build; building the cache (decode, resize to 224 px, hash, write,
fsync). Then gathering random batches from the finished cache. About 1.5 MB of disk per ten images.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from petlbench.data import cache, lists
from petlbench.data.split import Split
from petlbench.experiment import processor

SIZE, BATCH, DIFFERENT = 224, 64, 200


def write_images(folder: Path, count: int) -> Path:
    """A data root with one task of one split."""
    task, noise = folder / "task", np.random.default_rng(0)
    (task / "images").mkdir(parents=True)
    paths = [f"images/{index:05}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        if index >= DIFFERENT:
            os.link(task / paths[index % DIFFERENT], task / path)
            continue
        colours = Image.fromarray(noise.integers(0, 256, (6, 8, 3), np.uint8))
        smooth = np.asarray(colours.resize((500, 375), Image.Resampling.BICUBIC))
        pixels = smooth + noise.normal(0, 8, smooth.shape)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(task / path, quality=90)
    (task / "train.txt").write_text("".join(f"{path} 0\n" for path in paths))
    return folder


def plain_loop(split: Split) -> None:
    """What anyone would write, one image after the other, kept in memory."""
    pixels = np.empty((len(split), 3, SIZE, SIZE), np.uint8)
    for index in range(len(split)):
        image = split.read(index).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        pixels[index] = np.asarray(image).transpose(2, 0, 1)


def decode_only(split: Split, threads: int) -> None:
    """Every core decodes and forgets; a share each, so that nobody waits for anybody."""

    def share(start: int) -> None:
        for index in range(start, len(split), threads):
            split.read(index)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(share, range(threads)))


def build(split: Split, resize: str, threads: int) -> cache.Images:
    with tempfile.TemporaryDirectory(dir=os.environ["PETLBENCH_CACHE"]) as empty:
        outer, os.environ["PETLBENCH_CACHE"] = os.environ["PETLBENCH_CACHE"], empty
        try:
            return cache.load(split, cache.Geometry(SIZE, resize), threads=threads)
        finally:  # the array stays readable for as long as it is mapped
            os.environ["PETLBENCH_CACHE"] = outer


def gather(pixels: NDArray[np.uint8], take: Callable[[torch.Tensor], object]) -> float:
    """Microseconds per image of random batches, every page of the file in memory."""
    for image in pixels:
        image.max()
    batches = torch.randperm(len(pixels)).split(BATCH)
    begin = time.perf_counter()
    for chosen in batches:
        take(chosen)
    return 1e6 * (time.perf_counter() - begin) / len(pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's")
    args = parser.parse_args()

    cores = joblib.cpu_count()
    print(f"{cores} cores of {processor()}; torch {torch.__version__}, Pillow {Image.__version__}")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        os.environ["PETLBENCH_CACHE"] = folder
        root = write_images(Path(folder) / "data", args.images)
        split = lists.open_split(root, "task", "train", classes=1)
        decode_only(split, cores)  # files into memory

        work: dict[str, Callable[[], object]] = {
            "plain Pillow loop, bicubic": lambda: plain_loop(split),
            f"decoding only, {cores} threads": lambda: decode_only(split, cores),
        }
        for resize in ("bicubic", "bicubic-torch"):
            for threads in sorted({1, cores}):
                name = f"cache, {resize}, {threads} thread{'s' * (threads > 1)}"
                work[name] = lambda resize=resize, threads=threads: build(split, resize, threads)
        seconds: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(args.repeats):
            for name, call in work.items():
                begin = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - begin)
        rates = {name: len(split) / statistics.median(took) for name, took in seconds.items()}
        naive, bound = list(rates.values())[:2]
        print(f"{'images/s':>40} {'x plain':>8} {'x decoding':>11}")
        for name, rate in rates.items():
            print(f"{name:>31} {rate:8.0f} {rate / naive:8.2f} {rate / bound:11.2f}")

        images = build(split, "bicubic", cores)
        pixels, tensor = images.pixels, torch.from_numpy(images.pixels)
        for name, take in {
            "array[batch]": lambda chosen: pixels[chosen.numpy()],
            "tensor[batch]": lambda chosen: tensor[chosen],
        }.items():
            print(f"reading, {name} of {BATCH}: {gather(pixels, take):.1f} us per image")
        theirs, ours = pixels[:DIFFERENT], build(split, "bicubic-torch", cores).pixels
        difference = np.abs(ours[:DIFFERENT].astype(np.int16) - theirs)
        print(
            f"bicubic-torch against bicubic: at most {difference.max()} of 255 apart, "
            f"{(difference > 0).mean():.2%} of the values differ"
        )


if __name__ == "__main__":
    main()
