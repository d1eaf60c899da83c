"""The embedded offline suite: a small backbone, natural samples and rendered scenes."""

from __future__ import annotations

# Of the embedded backbone: arguments of timm's VisionTransformer.
ARCHITECTURE = {"patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4}

SIZES: dict[str, int] = {"train": 300, "val": 100, "test": 500}  # images of each task, by split
