"""write a finished run as one checkpoint"""

from __future__ import annotations

import argparse
from pathlib import Path

from petlbench.commands import _shared as shared

ORDER = 110


def add(parser: argparse.ArgumentParser) -> None:
    shared.add_adapted(parser)
    parser.add_argument(
        "--merge", action="store_true", help="a plain timm checkpoint (default: what was trained)"
    )
    shared.add_output(parser, "default: KEY[.merged].safetensors, here")


def run(options: argparse.Namespace) -> None:
    import timm

    from petlbench import adapted
    from petlbench.weights import EMBEDDED

    model = shared.load_adapted(options)
    default = f"{model.spec.key}{'.merged' if options.merge else ''}.safetensors"
    file = options.output or Path(default)
    adapted.export(model, file, options.merge)
    shared.say(f"wrote {file}")
    if not options.merge:
        shared.say(
            f"what was trained, without the backbone; use it: petlbench predict --run {file}"
        )
        return
    spec = model.spec
    size, name, classes = spec.rules["image_size"], spec.backbone.name, spec.classes
    if timm.is_model(name):
        shared.say(
            f"load it: timm.create_model({name!r}, checkpoint_path={str(file)!r}, "
            f"num_classes={classes}, img_size={size})"
        )
    elif name == EMBEDDED:
        shared.say(
            "load it: from timm.models import VisionTransformer; from safetensors.torch import "
            "load_file; from petlbench.mini import ARCHITECTURE; model = VisionTransformer("
            f"**ARCHITECTURE, num_classes={classes}, img_size={size}); "
            f"model.load_state_dict(load_file({str(file)!r}))"
        )
    else:
        shared.say(
            "it holds the state dict of the model by open_clip, and head.* of a trained head"
        )
