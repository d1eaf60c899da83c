"""What to cite for a set of runs, as BibTeX: methods, data sets, backbones.

A method's file says it itself, in a constant BIBTEX that is read without running the file. Data
sets and backbones are named here and written down in `references.bib`.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.machinery import PathFinder
from pathlib import Path

from petlbench import method
from petlbench.errors import UsageError, unknown
from petlbench.store import Record
from petlbench.task import load_suite
from petlbench.wording import visible

# Suite -> task -> keys; "" is the suite itself. Nothing to cite: rendered by petlbench.
DATA: dict[str, dict[str, tuple[str, ...]]] = {
    "mini": {
        "": (),
        "digits": ("alpaydin1998optical", "pedregosa2011scikit"),
        "fashion_mnist": ("xiao2017fashion",),
        "scene_count": (),
        "scene_location": (),
        "scene_orientation": (),
    },
    "vtab-1k": {
        "": ("zhai2019large",),
        "cifar": ("krizhevsky2009learning",),
        "caltech101": ("feifei2004learning",),
        "dtd": ("cimpoi2014describing",),
        "oxford_flowers102": ("nilsback2008automated",),
        "oxford_iiit_pet": ("parkhi2012cats",),
        "svhn": ("netzer2011reading",),
        "sun397": ("xiao2010sun",),
        "patch_camelyon": ("veeling2018rotation",),
        "eurosat": ("helber2019eurosat",),
        "resisc45": ("cheng2017remote",),
        "diabetic_retinopathy": ("kaggle2015retinopathy",),
        "clevr_count": ("johnson2017clevr",),
        "clevr_dist": ("johnson2017clevr",),
        "dmlab": ("beattie2016deepmind",),
        "kitti": ("geiger2013vision",),
        "dsprites_loc": ("matthey2017dsprites",),
        "dsprites_ori": ("matthey2017dsprites",),
        "smallnorb_azi": ("lecun2004learning",),
        "smallnorb_ele": ("lecun2004learning",),
    },
    "few-shot": {
        "": ("zhang2022neural", "zhou2022learning"),  # lists, and splits of three of the sets
    }
    | {
        f"{name}@{shots}": (key,)
        for shots in (1, 2, 4, 8, 16)
        for name, key in (
            ("fgvc_aircraft", "maji2013fine"),
            ("food101", "bossard2014food"),
            ("oxford_flowers102", "nilsback2008automated"),
            ("oxford_pets", "parkhi2012cats"),
            ("stanford_cars", "krause2013object"),
        )
    },
    "fgvc": {
        "": ("jia2022vpt",),
        "cub200": ("wah2011caltech",),
        "nabirds": ("vanhorn2015building",),
        "oxford_flowers": ("nilsback2008automated",),
        "stanford_dogs": ("khosla2011novel",),
        "stanford_cars": ("krause2013object",),
    },
    "domain-generalisation": {
        "": ("zhou2022learning", "zhang2022neural"),
        "imagenet": (
            *("deng2009imagenet", "recht2019imagenet", "wang2019learning"),
            *("hendrycks2021natural", "hendrycks2021many"),
        ),
    },
    "retrieval": {
        "": ("yuan2023parameter", "huang2024efficient"),  # the comparison, and the recipe
        "rsicd": ("lu2018exploring",),
        "rsitmd": ("yuan2022exploring",),
        "ucm": ("qu2016deep",),
        "sydney": ("qu2016deep",),
        "flickr30k": ("young2014image", "karpathy2015deep"),
        "coco": ("lin2014microsoft", "karpathy2015deep"),
    },
    "medical": {"": ("zhu2026dual",)}
    | {
        f"{name}@{percent}": keys
        for percent in ("0.63", "1.25", "6.25", "12.5", "25", "100")
        for name, keys in (
            ("covid", ("patel2020chest",)),
            ("busi", ("aldhabyani2020dataset",)),
            (
                "isic2019",
                ("tschandl2018ham10000", "codella2018skin", "combalia2019bcn20000"),
            ),
        )
    },
    "mini-retrieval": {"": (), "scene_captions": (), "relation_captions": ()},
    "folder": {"": ()},  # the user's own
}

# Every pattern found in a backbone's name adds its keys: architecture, then how it was trained.
BACKBONES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"^(vit_|deit|clip:ViT)", ("dosovitskiy2021image",)),
    (r"^vit_mini$", ("krizhevsky2009learning",)),  # what it was pre-trained on
    (r"^swin_", ("liu2021swin",)),
    (r"^convnext_", ("liu2022convnet",)),
    (r"^convnextv2_", ("woo2023convnext",)),
    (r"^deit_", ("touvron2021training",)),
    (r"^deit3_", ("touvron2022deit",)),
    (r"\.augreg", ("steiner2022train",)),
    (r"\.dino$", ("caron2021emerging",)),
    (r"\.mae$", ("he2022masked",)),
    (r"dinov2", ("oquab2024dinov2",)),
    (r"_reg\d+_", ("darcet2024vision",)),
    (r"clip", ("radford2021learning",)),
    (r"^clip:|laion|datacomp", ("ilharco2021openclip", "cherti2023reproducible")),
    (r"laion", ("schuhmann2022laion",)),
    (r"in(1k|12k|21k|22k)", ("deng2009imagenet",)),
)
LIBRARY = ("wightman2019timm",)


@dataclass
class Citations:
    """Entries by key, in the order in which they were asked for, and what has none."""

    entries: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def add(self, keys: Iterable[str]) -> None:
        known = references()
        for key in keys:
            self.entries.setdefault(key, known[key])

    def method(self, reference: str) -> None:
        file = file_of(reference)
        if file is None:
            raise unknown("method", reference, [*method.builtin(), *method.installed()])
        text = constant(file)
        for key, entry in entries(text or "", str(file)).items():
            self.entries.setdefault(key, entry)
        if text is None:
            self.missing.append(f"method {reference}: no BIBTEX in {file.name}")

    def tasks(self, suite: str, tasks: Sequence[str]) -> None:
        for task in ("", *tasks):
            if task in DATA.get(suite, {}):
                self.add(DATA[suite][task])
            else:
                self.missing.append(f"data {f'{suite} {task}'.strip()}: no entry known")

    def backbone(self, name: str) -> None:
        keys = [key for pattern, keys in BACKBONES if re.search(pattern, name) for key in keys]
        self.add(keys)
        if not keys:
            self.missing.append(f"backbone {name}: no entry known")
        if not name.startswith("clip:"):
            self.add(LIBRARY)

    def text(self) -> str:
        """BibTeX, which ignores what stands between entries up to an @: there the gaps are told."""
        told = [visible(line).replace("@", "(at)") for line in dict.fromkeys(self.missing)]
        comments = [f"% {' '.join(line.split())}" for line in told]
        return "\n\n".join([*self.entries.values(), *comments] or ["% nothing to cite"]) + "\n"


def of_records(found: Citations, records: Iterable[Record]) -> None:
    """Add what these runs rest on."""
    specs = [record["spec"] for record in records]
    for name, source in sorted(
        {(s["method"]["name"], s["method"]["source"]) for s in specs}, key=str
    ):
        # with a source it is not petlbench's own code, whatever it is called
        own = method.is_path(name) or (source and name in method.builtin())
        if own or file_of(name) is None:
            found.missing.append(f"method {name}: a user's file (--methods FILE reads its BIBTEX)")
        else:
            found.method(name)
    for suite in dict.fromkeys(spec["suite"] for spec in specs):
        run = {spec["task"] for spec in specs if spec["suite"] == suite}
        found.tasks(suite, [task for task in DATA.get(suite, run) if task in run])
    for backbone in sorted({spec["backbone"]["name"] for spec in specs}):
        found.backbone(backbone)


def of_suite(found: Citations, suite: str, tasks: list[str] | None) -> None:
    found.tasks(suite, [task.name for task in load_suite(suite).select(tasks)])


def file_of(reference: str) -> Path | None:
    """Where a method is written down; None if that is not known here. Nothing is imported."""
    if method.is_path(reference):
        path = Path(reference).expanduser()
        if not path.is_file():
            raise UsageError(f"no method file at {path}.")
        return path
    family, _, member = reference.partition(":")
    found = method.builtin().get(reference) or method.families().get(family)
    if found and member and member not in method.members(found):
        return None
    if found is None and (point := method.installed().get(reference)):
        found = _file_of_module(point.module)
    return found


def _file_of_module(name: str) -> Path | None:
    """Step by step, as finding a module of a package at once imports the package."""
    top, *below = name.split(".")
    spec = importlib.util.find_spec(top)
    for part in below:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(part, spec.submodule_search_locations)
    return Path(spec.origin) if spec and spec.origin else None


def constant(file: Path) -> str | None:
    """BIBTEX in a method's file, or in the method's file it is imported from; None without.

    Empty where there is nothing to cite.
    """
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "BIBTEX":
            return str(ast.literal_eval(node.value))
        if isinstance(node, ast.ImportFrom) and "BIBTEX" in {name.name for name in node.names}:
            other = method.builtin().get((node.module or "").rpartition(".")[2])
            return constant(other) if other else None
    return None


def references() -> dict[str, str]:
    """Key -> entry of `references.bib`."""
    file = resources.files("petlbench") / "references.bib"
    return entries(file.read_text(encoding="utf-8"), "references.bib")


def entries(text: str, where: str) -> dict[str, str]:
    """Key -> entry, cut out where its braces close."""
    found = {}
    for start in re.finditer(r"@\w+\s*\{\s*([^\s,{}]+)\s*,", text):
        depth = 0
        for end, character in enumerate(text[start.start() :], start.start() + 1):
            depth += {"{": 1, "}": -1}.get(character, 0)
            if character == "}" and depth == 0:
                found[start[1]] = text[start.start() : end]
                break
        else:
            raise UsageError(f"{where}: the braces of the BibTeX entry {start[1]} do not close.")
    return found
