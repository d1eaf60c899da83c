"""The table of methods in the README, measured from the code: `list methods --format markdown`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from pathlib import Path

from petlbench import method
from petlbench.backbone import Backbone, Conv, Linear, Norm, sites
from petlbench.check import MODELS, check, count_on_vit_b16, tiny
from petlbench.errors import UsageError

HEADER = ("method", "what it is", "where it attaches", "ViT-B/16", "merges", "claims held")
BEGIN, END = "<!-- methods:begin -->", "<!-- methods:end -->"
KINDS = {Linear: "linear layers", Conv: "convolutions", Norm: "LayerNorms"}


def to_markdown(names: Iterable[str]) -> str:
    """One row per built-in method, with its default settings."""
    lines = [HEADER, ("---", "---", "---", "--:", "---", "---"), *map(_row, names)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def insert(table: str, file: Path) -> str:
    """The text of `file` with the table between its two markers."""
    text = file.read_text(encoding="utf-8") if file.is_file() else f"{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"{file} has no lines {BEGIN} and {END} between which the table belongs.")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def _row(name: str) -> tuple[str, ...]:
    made = method.load(name)()
    count = f"{count_on_vit_b16(made):,}"
    return f"`{name}`", _what(made), where(made), count, _merges(made), _claims(made)


def _what(made: method.Method) -> str:
    """The summary, and the first paper that the docstring names."""
    doc = inspect.getdoc(type(made)) or ""
    summary = doc.split("\n", 1)[0].rstrip(".").replace("|", "\\|")
    paper = re.search(r"arXiv:(\d{4}\.\d{4,5})", doc)
    return f"{summary} ([{paper[1]}](https://arxiv.org/abs/{paper[1]}))" if paper else summary


def where(made: method.Method) -> str:
    """The sites in use, and the weights of the backbone that train, seen on a tiny ViT."""
    plain = tiny(next(iter(MODELS)))
    adapted = tiny(next(iter(MODELS)))
    head = type(adapted.head), adapted.shape.num_features
    made.attach(adapted)
    used: dict[str, dict[str, None]] = {}  # site -> owners
    for path, module in adapted.named_modules():
        if any(module is site and len(site) for site in sites(adapted)):
            owner, _, site = re.sub(r"^(vit\.)?(blocks\.\d+\.)?", "", path).rpartition(".")
            used.setdefault(site, {})[owner.replace("layer.", "")] = None
    told = [
        f"`{site}`" + (f" of {', '.join(owners)}" if any(owners) else "")
        for site, owners in used.items()
    ]
    if trained := _unfrozen(adapted, {name for name, _ in plain.named_parameters()}):
        told.append(f"trains {trained}")
    if (type(adapted.head), getattr(adapted.head, "in_features", None)) != head:
        told.append("another head")
    return "; ".join(told) or "the head only"


def _unfrozen(backbone: Backbone, own: set[str]) -> str:
    """What of the backbone's own parameters trains, by kind of layer."""
    names = [name for name in own if not name.startswith("head.")]
    trained = {name for name in names if backbone.get_parameter(name).requires_grad}
    if len(trained) == len(names):
        return "all weights"
    fields: dict[str, set[str]] = {}  # kind of layer -> weight, bias
    for name in trained:
        path, _, field = name.rpartition(".")
        kind = KINDS.get(type(backbone.get_submodule(path)), field)
        fields.setdefault(kind, set()).add(field)
    kinds: dict[str, list[str]] = {}  # the other way round
    for kind, of_kind in sorted(fields.items()):
        kinds.setdefault(" and ".join(sorted(of_kind, reverse=True)), []).append(kind)
    told = ", and ".join(f"{field} of {', '.join(layers)}" for field, layers in kinds.items())
    blocks = {block[0] for name in trained if (block := re.match(r"vit\.blocks\.\d+\.", name))}
    every = not told or len(blocks) == len(backbone.blocks)
    return told if every else f"{told} in {len(blocks)} of {len(backbone.blocks)} blocks"


def _merges(made: method.Method) -> str:
    return "yes" if made.merges else "no"


def _claims(made: method.Method) -> str:
    """How many of the claims that `petlbench check` measures were seen to hold, and where not."""
    findings = list(check(made))
    measured = [finding for finding in findings if not finding.refused]
    held = sum(finding.holds for finding in measured)
    models = len({finding.model for finding in measured})
    refused = [finding.model for finding in findings if finding.refused]
    text = f"{held} of {len(measured)} on {models} models"
    return text + (f"; not for {', '.join(refused)}" if refused else "")
