"""Training images changed at random, each from its original and anew in every epoch.

What becomes of an image depends on (seed, epoch, index) alone: not on its batch, the number of
workers or what else draws random numbers. Nothing else notices either: the transforms of timm and
torchvision draw from the generators of `random`, NumPy and torch, which are put back afterwards.

A recipe is a function of a protocol's rules to a transform: RGB image -> (3, S, S) float32,
normalised with the rules' mean and std. Its name in `RECIPES` is `protocol.augmentation`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment, rand_augment_ops
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2  # type: ignore[import-untyped]

from petlbench import protocol
from petlbench.data import cache
from petlbench.data.split import Split
from petlbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

Transform = Callable[[Image.Image], Tensor]

KEPT_BYTES = 2**30  # decoded originals of one split that stay in memory
# Elsewhere workers would have to be sent the split, whose functions cannot be sent.
CAN_FORK = sys.platform.startswith("linux")
BICUBIC = v2.InterpolationMode.BICUBIC


# Recipes


def noah(rules: dict[str, Any]) -> Transform:
    """timm's ImageNet training, as NOAH's few-shot runs use it (timm 0.4.12; its default flags).

    Crops of 8-100% of the area, flips, RandAugment rand-m9-mstd0.5-inc1, random erasing of a
    quarter of the images. NOAH also passes --color-jitter 0.4, which timm leaves out, then as now,
    where there is RandAugment.
    """
    transform: Transform = create_transform(
        rules["image_size"],
        is_training=True,
        color_jitter=0.4,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
        re_count=1,
        mean=tuple(rules["mean"]),
        std=tuple(rules["std"]),
    )
    return transform


def crop_flip(rules: dict[str, Any]) -> Transform:
    """Resized as test images are, a random crop of it instead of the middle, flips (VPT's FGVC).

    Raises UsageError where the rules leave nothing to crop.
    """
    geometry = cache.Geometry.of(rules)
    if geometry.resize_to in (0, geometry.size) and not geometry.keep_aspect:
        raise UsageError(
            f"protocol.augmentation = 'crop-flip' crops {geometry.size} px (protocol.image_size) "
            f"from protocol.resize_to = {geometry.resize_to}, which must be larger."
        )
    return _in_turn(
        lambda image: cache.resized(image, geometry),
        v2.RandomCrop(geometry.size),
        v2.RandomHorizontalFlip(),
        *_normalised(rules),
    )


def resized_crop_flip(rules: dict[str, Any]) -> Transform:
    """Crops of 8-100% of the area, resized bicubically, and flips."""
    crop = v2.RandomResizedCrop(rules["image_size"], scale=(0.08, 1), interpolation=BICUBIC)
    return _in_turn(crop, v2.RandomHorizontalFlip(), v2.PILToTensor(), *_normalised(rules))


def harma(rules: dict[str, Any]) -> Transform:
    """Crops of 50-100% of the area, flips, two RandAugment operations of strength 7 of 10.

    As HarMA's released code trains retrieval (arXiv 2404.18253, dataset/__init__.py): ten
    operations, one of which does nothing, each drawn with replacement and done half of the time.
    The released code flips although captions say "left" and "right", and so does this. It draws
    with OpenCV; Pillow differs from it where an operation meets the border.
    """
    names = "AutoContrast Equalize Brightness Sharpness ShearX ShearY TranslateX TranslateY Rotate"
    options = {
        "translate_const": 10,  # pixels
        "img_mean": (128, 128, 128),  # what comes in from outside
        "interpolation": Image.Resampling.BILINEAR,
    }
    operations = rand_augment_ops(7, prob=0.5, hparams=options, transforms=names.split())
    crop = v2.RandomResizedCrop(rules["image_size"], scale=(0.5, 1), interpolation=BICUBIC)
    two = RandAugment([*operations, torch.nn.Identity()], num_layers=2)  # type: ignore[no-untyped-call]
    return _in_turn(crop, v2.RandomHorizontalFlip(), two, v2.PILToTensor(), *_normalised(rules))


def _in_turn(*steps: Callable[[Any], Any]) -> Transform:
    transform: Transform = v2.Compose(list(steps))
    return transform


def _normalised(rules: dict[str, Any]) -> list[Callable[[Tensor], Tensor]]:
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(rules["mean"], rules["std"])]


RECIPES: dict[str, Callable[[dict[str, Any]], Transform]] = {
    "noah": noah,
    "crop-flip": crop_flip,
    "resized-crop-flip": resized_crop_flip,
    "harma": harma,
}


# Images


class Augmented:
    """The training images of a split under a protocol's augmentation.

    All images are decoded once, as far as `kept_bytes` reach, and then again whenever needed.
    `workers` processes prepare batches ahead in `epoch`, on Linux; elsewhere it is done in turn.
    They hand batches over in shared memory (/dev/shm), of which a container needs two batches per
    worker. Not for several threads at the same time.

    Raises UsageError for rules without an augmentation, RunError naming the file that cannot be
    decoded.
    """

    def __init__(
        self,
        split: Split,
        rules: dict[str, Any],
        seed: int,
        workers: int = 0,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        recipe = RECIPES.get(rules["augmentation"])
        if recipe is None:
            raise unknown("augmentation", rules["augmentation"], RECIPES)
        self.split, self.seed = split, seed
        self.workers = workers if CAN_FORK else 0
        self._transform = recipe(rules)
        self._kept = _originals(split, kept_bytes, on_progress)

    def batch(self, epoch: int, indices: Sequence[int] | Tensor) -> Tensor:
        """The images of these indices as they are in that epoch: (B, 3, S, S) float32."""
        with _generators_put_back():
            return torch.stack([self._image(epoch, int(index)) for index in indices])

    def epoch(self, epoch: int, order: Sequence[int] | Tensor, batch_size: int) -> Iterator[Tensor]:
        """`batch` of every `batch_size` indices of `order`; the last one may be smaller."""
        indices = [int(index) for index in order]
        chosen = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
        yield from DataLoader(
            _Batches(self, epoch),
            sampler=chosen,
            batch_size=None,
            num_workers=self.workers,
            multiprocessing_context="fork" if self.workers else None,
            generator=torch.Generator(),  # else it draws a number from the global one
        )

    def _image(self, epoch: int, index: int) -> Tensor:
        if index < len(self._kept):
            image = Image.fromarray(self._kept[index])
        else:
            image = self.split.read(index)
        _seed(self.seed, epoch, index)
        return self._transform(image)


class _Batches(Dataset[Tensor]):
    """Lists of indices -> batches, for torch's loader."""

    def __init__(self, augmented: Augmented, epoch: int) -> None:
        self.augmented, self.epoch = augmented, epoch

    def __getitem__(self, indices: Sequence[int]) -> Tensor:
        return self.augmented.batch(self.epoch, indices)


def _originals(
    split: Split, room: int, on_progress: Callable[[int, int], None]
) -> list[NDArray[np.uint8]]:
    """The first images, (H, W, 3) uint8, as many as fit into `room` bytes."""
    kept: list[NDArray[np.uint8]] = []
    decode = lambda index: np.asarray(split.read(index))  # noqa: E731
    with closing(cache.in_order(decode, len(split), joblib.cpu_count())) as images:
        for done, pixels in enumerate(images, start=1):
            room -= pixels.nbytes
            if room < 0:
                break
            kept.append(pixels)
            on_progress(done, len(split))
    return kept


@contextmanager
def _generators_put_back() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _seed(*entropy: int) -> None:
    """Seed all that a transform may draw from; not torch.manual_seed, which seeds GPUs too."""
    words = np.random.SeedSequence(entropy).generate_state(3, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]) >> 32)  # takes 32 bits
    torch.default_generator.manual_seed(int(words[2]))


# Batches


def mix(
    images: Tensor,
    labels: Tensor,
    classes: int,
    rules: dict[str, Any],
    seed: int | Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix of a batch with its own reverse, and label smoothing; copies.

    Images (B, 3, H, W), of any float type, and labels (B,) int64 -> images and targets
    (B, classes) float32 that sum to 1. Where both alphas are positive, a batch gets either with
    probability 1/2 and one share for all, as timm's Mixup does in batch mode (mixup: arXiv
    1710.09412, CutMix: arXiv 1905.04899). A batch may have an odd size: the image in the middle
    stays as it is. `seed`, such as (seed, epoch, step), decides what is drawn.
    """
    rules = protocol.neutral() | rules
    mixup, cutmix, smoothing = (rules[name] for name in ("mixup", "cutmix", "label_smoothing"))
    targets = F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes
    if not mixup and not cutmix:
        return images, targets
    draw = np.random.default_rng(seed)
    cut = not mixup or (cutmix > 0 and draw.random() < 0.5)
    alpha = cutmix if cut else mixup
    share = float(draw.beta(alpha, alpha))  # of the image itself
    if cut:
        height, width = images.shape[-2:]
        rows, columns = (_interval(draw, length, share) for length in (height, width))
        mixed = images.clone()
        mixed[:, :, rows, columns] = images.flip(0)[:, :, rows, columns]
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = 1 - area / (height * width)
    else:
        mixed = images * share + images.flip(0) * (1 - share)
    return mixed, targets * share + targets.flip(0) * (1 - share)


def _interval(draw: np.random.Generator, length: int, share: float) -> slice:
    """One side of CutMix's box: centred anywhere, what is outside the image cut off.

    Half of it, rounded down, on either side, as in the release of CutMix and in timm 0.4.12, which
    NOAH used; newer timm adds a pixel to odd ones.
    """
    half = int(length * (1 - share) ** 0.5) // 2
    centre = int(draw.integers(length))
    return slice(max(centre - half, 0), min(centre + half, length))
