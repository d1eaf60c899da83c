"""Every entry is BibTeX, every task has one, and what has none is told."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import CLI

from petlbench import api, cite, method
from petlbench.errors import UsageError
from petlbench.task import load_suite, suites
from petlbench.weights import BACKBONES

REQUIRED = {"title", "author", "year"}
VENUE = {
    "article": "journal",
    "inproceedings": "booktitle",
    "techreport": "institution",
    "misc": "howpublished",
}
OWN = {name: cite.constant(file) for name, file in method.builtin().items()}
OWN |= {family: cite.constant(file) for family, file in method.families().items()}


def parse(entry: str) -> tuple[str, str, dict[str, str]]:
    """Kind, key and fields; a second parser, stricter than the one that cuts entries out."""
    head = re.match(r"@(\w+)\{([A-Za-z0-9:_-]+),\s*", entry)
    assert head, entry
    place, fields = head.end(), {}
    while entry[place] != "}":
        name = re.compile(r"(\w+)\s*=\s*").match(entry, place)
        assert name, entry[place:]
        place = name.end()
        number = re.compile(r"\d+").match(entry, place)
        if number:
            value, place = number[0], number.end()
        else:
            assert entry[place] == "{", entry[place:]
            depth, start = 1, place + 1
            while depth:
                place += 1
                depth += {"{": 1, "}": -1}.get(entry[place], 0)
            value, place = entry[start:place], place + 1
        assert name[1] not in fields, name[1]
        fields[name[1].lower()] = value
        separator = re.compile(r"\s*,?\s*").match(entry, place)
        assert separator
        place = separator.end()
    assert place == len(entry) - 1
    return head[1].lower(), head[2], fields


def every_entry() -> list[Any]:
    texts = OWN | {"references": (Path(cite.__file__).parent / "references.bib").read_text()}
    return [
        pytest.param(key, entry, id=f"{source}-{key}")
        for source, text in texts.items()
        for key, entry in cite.entries(text or "", source).items()
    ]


@pytest.mark.parametrize(("key", "entry"), every_entry())
def test_entries_are_valid(key: str, entry: str) -> None:
    kind, parsed, fields = parse(entry)
    assert parsed == key
    assert fields.keys() >= REQUIRED
    if kind in VENUE:
        assert VENUE[kind] in fields or {"url", "doi", "eprint"} & fields.keys()
    assert re.fullmatch(r"(19|20)\d\d", fields["year"])
    assert all(value.strip() for value in fields.values())
    for author in " ".join(fields["author"].split()).split(" and "):
        assert author == "others" or "," in author or author.startswith("{"), author


def test_one_key_is_one_entry() -> None:
    found = dict(cite.references())
    for text in OWN.values():
        for key, entry in cite.entries(text or "", "").items():
            assert " ".join(found.setdefault(key, entry).split()) == " ".join(entry.split()), key
    text = (Path(cite.__file__).parent / "references.bib").read_text()
    assert text.count("\n@") == len(cite.references())


def test_every_suite_and_task_is_known_and_every_reference_used() -> None:
    assert {name: ["", *(task.name for task in load_suite(name).tasks)] for name in suites()} == {
        name: list(tasks) for name, tasks in cite.DATA.items()
    }
    used = {key for tasks in cite.DATA.values() for keys in tasks.values() for key in keys}
    used |= {key for _, keys in cite.BACKBONES for key in keys} | set(cite.LIBRARY)
    assert used == cite.references().keys()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("vit_mini", ["dosovitskiy2021image", "krizhevsky2009learning"]),
        ("vit_base_patch16_224.orig_in21k", ["dosovitskiy2021image", "deng2009imagenet"]),
        (
            "vit_base_patch16_224.augreg_in21k",
            ["dosovitskiy2021image", "steiner2022train", "deng2009imagenet"],
        ),
        (
            "vit_base_patch14_reg4_dinov2.lvd142m",
            ["dosovitskiy2021image", "oquab2024dinov2", "darcet2024vision"],
        ),
        (
            "vit_base_patch16_clip_quickgelu_224.openai",
            ["dosovitskiy2021image", "radford2021learning"],
        ),
        ("swin_base_patch4_window7_224.ms_in22k", ["liu2021swin", "deng2009imagenet"]),
        ("convnext_tiny.fb_in1k", ["liu2022convnet", "deng2009imagenet"]),
    ],
)
def test_backbones_by_name(name: str, keys: list[str]) -> None:
    found = cite.Citations()
    found.backbone(name)
    assert list(found.entries) == [*keys, "wightman2019timm"] and not found.missing


def test_every_listed_backbone_is_known() -> None:
    found = cite.Citations()
    for name in BACKBONES:
        found.backbone(name)
    assert found.missing == []
    found.backbone("resnet10t")
    assert found.missing == ["backbone resnet10t: no entry known"]


def test_what_has_been_run_is_cited_once(cli: CLI, small: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        method.builtin()["linear"].read_text().replace("BIBTEX", "OTHER")
    )
    methods = ["convpass", "convpass_attn", "./mine.py"]
    api.run(**small | {"methods": methods, "tasks": ["digits", "fashion_mnist"]})
    outcome = cli("cite")
    assert outcome.code == 0
    keys = list(cite.entries(outcome.out, ""))
    assert keys == [
        "jie2022convpass",
        "alpaydin1998optical",
        "pedregosa2011scikit",
        "xiao2017fashion",
        "dosovitskiy2021image",
        "krizhevsky2009learning",
        "wightman2019timm",
    ]
    assert outcome.out.count("@") == len(keys)
    assert "% method mine: a user's file" in outcome.out
    assert cli("cite", "results/small").out == outcome.out
    assert cli("cite", "-o", "all.bib", "results").code == 0
    assert (tmp_path / "all.bib").read_text() == outcome.out


def test_names_without_runs(cli: CLI, tmp_path: Path) -> None:
    words = ("--suite", "vtab-1k", "--tasks", "pets,svhn", "--backbone", "vit_mini")
    keys = list(cite.entries(cli("cite", "--methods", "convpass_attn", *words).out, ""))
    assert keys[:4] == ["jie2022convpass", "zhai2019large", "parkhi2012cats", "netzer2011reading"]
    (tmp_path / "mine.py").write_text('BIBTEX = """@misc{me, title = {T}}"""\n')
    assert cli("cite", "--methods", "./mine.py").out == "@misc{me, title = {T}}\n"
    (tmp_path / "mine.py").write_text('BIBTEX = ""  # nothing to cite\n')
    assert cli("cite", "--methods", "./mine.py").out == "% nothing to cite\n"
    (tmp_path / "mine.py").write_text("")
    assert cli("cite", "--methods", "./mine.py").out == "% method ./mine.py: no BIBTEX in mine.py\n"


def test_what_is_not_there_is_told(cli: CLI, tmp_path: Path) -> None:
    cli("cite").refused("no results in results")
    cli("cite", "--methods", "convpas").refused("Did you mean convpass")
    cli("cite", "--methods", "./no.py").refused("no method file")
    cli("cite", "--suite", "vtab").refused("unknown suite")
    cli("cite", "--tasks", "digits").refused("--suite")
    (tmp_path / "mine.py").write_text('BIBTEX = """@misc{me, title = {T}"""\n')
    with pytest.raises(UsageError, match="entry me do not close"):
        cite.Citations().method("./mine.py")


def test_it_needs_no_torch() -> None:
    code = (
        "import sys; from petlbench import cli\n"
        "try: cli.main(['cite', '--suite', 'vtab-1k', '--methods', 'convpass'])\n"
        "except SystemExit as end: assert not end.code and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
