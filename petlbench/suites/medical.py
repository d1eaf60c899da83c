"""Medical images with very little data: the classification tasks of DKA (arXiv 2602.18888).

Three data sets (chest X-rays, breast ultrasound, skin lesions), of whose training part a share is
trained on. `<root>/<dataset>/<class>/*`, or `<root>/<dataset>/{train,test}/<class>/*` where they
are divided already; `<root>/<dataset>/patients.csv` (`file,patient`, paths relative to it) keeps
each patient on one side.

The rule is that of the released scripts (github.com/misswayguy/DKA, MIT, data/*.py): of every class
int(0.8 n) images for training, the rest for testing; of the former max(1, int(share n)), drawn
anew for each of five folds, all tested on the same images. Their split files are not published
and their scripts draw from files in the order in which a disk lists them, so that *these are not
the images that made the published numbers*. Here files are sorted by path as bytes and drawn with
`numpy.random.RandomState`: 42 for the test set (see `data/labelled.py`), the run's seed for the
fold. A fold's smaller shares are part of its larger ones. At 100 % every fold has all images.

Shares: 0.63 %, 1.25 % and 100 % are those of the tables that could be seen. 6.25 %, 12.5 % and
25 % are worked out: the scripts take 0.5, 1, 5, 10, 20 and 80 % of all images, of which 80 % are
for training. The paper itself could not be read.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from petlbench.data import class_folders, labelled, tables
from petlbench.data.labelled import Labelled, shuffled, stay
from petlbench.data.split import Split
from petlbench.errors import UsageError
from petlbench.task import Suite, Task

SHARES = ("0.63", "1.25", "6.25", "12.5", "25", "100")  # percent of the training part

# Dataset -> class folder -> (what the class is, images). The numbers of COVID are those of a Kaggle
# data set with these folders (prashant268, "Chest X-ray (Covid-19 & Pneumonia)"); which one the
# paper used is not told, and they and those of ISIC 2019 were not verified. BUSI: Al-Dhabyani et
# al., 2020 (from a data card). Only estimates of duration rest on them.
DATASETS = {
    "covid": {
        "COVID19": ("COVID-19 pneumonia", 576),
        "NORMAL": ("normal lungs", 1_583),
        "PNEUMONIA": ("pneumonia", 4_273),
    },
    "busi": {
        "benign": ("benign breast tumour", 437),
        "malignant": ("malignant breast tumour", 210),
        "normal": ("normal breast", 133),
    },
    "isic2019": {
        "AK": ("actinic keratosis", 867),
        "BCC": ("basal cell carcinoma", 3_323),
        "BKL": ("benign keratosis", 2_624),
        "DF": ("dermatofibroma", 239),
        "MEL": ("melanoma", 4_522),
        "NV": ("melanocytic nevus", 12_875),
        "SCC": ("squamous cell carcinoma", 628),
        "VASC": ("vascular lesion", 253),
    },
}
MASKS = "*_mask*.png"  # of BUSI, beside its images: benign (1)_mask.png, benign (4)_mask_1.png
IMAGES = {"covid": "chest X-rays", "busi": "breast ultrasound", "isic2019": "dermoscopy"}


def _read(root: Path | None, dataset: str) -> Labelled:
    if root is None:
        raise UsageError(
            "this suite reads images from disk: give --data-root DIR or set PETLBENCH_DATA."
        )
    base, classes = root / dataset, tuple(DATASETS[dataset])
    if not base.is_dir():
        raise UsageError(
            f"no folder {base}: put the images of {dataset} into {base / classes[0]} and so on "
            f"(classes: {', '.join(classes)})."
        )
    data = class_folders.read(base, ignore=MASKS)
    if data.classes != classes:
        raise UsageError(
            f"{base} has the class folders {', '.join(data.classes)}; "
            f"they must be called {', '.join(classes)}."
        )
    if "val" in data.splits:
        raise UsageError(f"{base / 'val'} is not used here: move its images into {base / 'train'}.")
    patients = base / "patients.csv"
    return _with_patients(data, patients) if patients.is_file() else data


def _with_patients(data: Labelled, file: Path) -> Labelled:
    """The same images, each with its patient."""
    patient: dict[str, str] = {}
    problems = []
    for number, row in tables.rows(file, ("file", "patient")):
        known = patient.setdefault(row["file"], row["patient"])
        if known != row["patient"]:
            problems.append(f"line {number}: {row['file']} is of {row['patient']!r} and {known!r}")
    problems += [f"it does not tell the patient of {p}" for p in data.paths if p not in patient]
    labelled.refuse(file, problems)
    groups = [patient[path] for path in data.paths]
    if data.splits:
        labelled.keep_apart(data.base, "patient", data.splits, groups, data.paths)
    return replace(data, groups=groups)


def _sample(data: Labelled, share: float, fold: int, training: list[int]) -> list[int]:
    """max(1, int(share n)) of the n training images of each class, ascending."""
    classes = shuffled(data, training, fold)
    return sorted(index for mine in classes for index in mine[: _count(len(mine), share)])


def _count(images: int, share: float) -> int:
    return max(1, int(images * share))


def _open_split(task: Task, split: str, root: Path | None, seed: int) -> Split:
    dataset, _, percent = task.name.partition("@")
    data = _read(root, dataset)
    sample = partial(_sample, data, float(percent) / 100, seed)
    describe = {"share": f"{percent} % of the training part", "fold": seed}
    return labelled.open_split(data, split, sample, {} if split == "test" else describe)


def _task(dataset: str, percent: str) -> Task:
    counts = [images for _, images in DATASETS[dataset].values()]
    part = [stay(images, labelled.TRAINING) for images in counts]
    chosen = [_count(images, float(percent) / 100) for images in part]
    train = sum(stay(images, labelled.TRAIN) for images in chosen)
    return Task(
        f"{dataset}@{percent}",
        f"{percent} %",
        len(counts),
        {
            "train": train,
            "val": sum(chosen) - train,
            "trainval": sum(chosen),
            "test": sum(counts) - sum(part),
        },
        f"{IMAGES[dataset]}, {percent} % of the training images",
        class_names=tuple(name for name, _ in DATASETS[dataset].values()),
    )


SUITE = Suite(
    name="medical",
    description="chest X-rays, breast ultrasound and skin lesions with 0.63 to 100 % of the images",
    protocol="medical-dka",
    # Theirs is torchvision's ViT-B/16 of ImageNet-1k, which timm has not; this one's own
    # normalisation is the mean = std = 0.5 that they use, and suite vtab-1k starts from it too.
    backbone="vit_base_patch16_224.orig_in21k",
    open_split=_open_split,
    needs_data_root=True,
    report=("balanced_accuracy", "macro_f1", "auroc"),
    tasks=tuple(_task(dataset, percent) for percent in SHARES for dataset in DATASETS),
)
