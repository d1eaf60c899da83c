"""Image-text retrieval: four remote-sensing data sets, and Flickr30k and COCO.

`<root>/<task>/` holds the released caption files, in any of the formats of `data/captions.py`, and
the images. Nothing is split here; which images are tested is what the files say. RSICD and RSITMD
are tested on the same images by AMFMN, PE-RSITR (Yuan et al., arXiv:2308.12509) and HarMA (Huang,
arXiv:2404.18253), in different orders. PE-RSITR tests UCM-Captions on images 81 to 90 and on the
last ten of every later class of a hundred.

"trainval" is all that is not tested: the 9,828, 4,291 and 1,890 images that PE-RSITR trains on.
RSITMD's released precomp files have no captions for four of them, which are left out.
"""

from __future__ import annotations

from pathlib import Path

from petlbench.data import captions
from petlbench.data.split import Split
from petlbench.task import Suite, Task


def _task(
    name: str, group: str, train: int, val: int, test: int, description: str, *aliases: str
) -> Task:
    """Sizes are not enforced: files differ in what they call val, and records hold true counts."""
    return Task(
        name=name,
        group=group,
        classes=0,
        sizes={"train": train, "val": val, "trainval": train + val, "test": test},
        description=description,
        aliases=aliases,
        problem="retrieval",
        metric="mean_recall",
    )


def _open_split(task: Task, split: str, root: Path | None, seed: int) -> Split:
    return captions.open_split(root, task.name, split)


SUITE = Suite(
    name="retrieval",
    description="image-text retrieval with both towers of CLIP, from images and caption files",
    protocol="retrieval-harma",
    backbone="clip:ViT-B-32.openai",
    open_split=_open_split,
    ranking="mean of tasks",
    report=("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10"),
    needs_data_root=True,
    # without those that need a grid of patches, which a text has not
    methods=("zero_shot", "linear", "bitfit", "adapter", "adaptformer", "lora", "full"),
    tasks=(
        _task("rsicd", "Remote sensing", 8_734, 1_094, 1_093, "RSICD, 5 captions per image"),
        _task("rsitmd", "Remote sensing", 3_435, 856, 452, "RSITMD, 5 captions per image"),
        # the first two sizes are from memory: no file that has them was at hand
        _task("ucm", "Remote sensing", 1_680, 210, 210, "UCM-Captions", "ucm_captions"),
        # all three are from memory, and no published result of a method here is known
        _task("sydney", "Remote sensing", 497, 58, 58, "Sydney-Captions", "sydney_captions"),
        # Karpathy's splits; sizes are from memory too
        _task("flickr30k", "Natural", 29_000, 1_014, 1_000, "Flickr30k, Karpathy's split"),
        _task("coco", "Natural", 113_287, 5_000, 5_000, "COCO, Karpathy's split", "mscoco"),
    ),
)
