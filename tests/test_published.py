"""What papers printed: that it was carried over whole, and which of their means do not add up."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CLI
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import petlbench
from petlbench import published
from petlbench.errors import UsageError
from petlbench.method import builtin
from petlbench.published import block, rows
from petlbench.task import load_suite, suites

ROOT = Path(petlbench.__file__).parents[1]
FACTS = ROOT.parent / "shared" / "facts"
TAGS = published.TAGS
needs_facts = pytest.mark.skipif(not FACTS.is_dir(), reason="the shared folder is not here")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return published.load()


def test_every_number_has_a_name_and_a_source(frame: pd.DataFrame) -> None:
    assert len(frame) == 3650  # as README.md says
    assert not frame.duplicated(["experiment", "label", "task", "metric"]).any()
    assert frame["percent"].between(0, 100).all()
    assert not (frame["params_millions"] < 0).any()
    for column in ("source", "source_id", "table", "backbone", "suite", "method", "label", *TAGS):
        assert frame[column].ne("").all(), column
    assert set(frame["kind"]) == {"task", "group mean", *published.MEANS}
    assert frame["experiment"].nunique() == len(
        (ROOT / "petlbench/published/experiments.csv").read_text().splitlines()[1:]
    )


def test_tags_come_from_short_lists(frame: pd.DataFrame) -> None:
    assert set(frame["normalisation"]) == {"imagenet", "half", "none", "unknown"}
    assert set(frame["selection"]) == {"last", "best-on-test", "unknown"}
    images = {"noah-jpeg", "noah-lists", "tfds", "torchvision", "unknown"}
    assert set(frame["image_source"]) == images
    for name in ("epochs", "seeds"):
        assert all(text == "unknown" or text.isdecimal() for text in frame[name])


def test_names_are_those_of_petlbench(frame: pd.DataFrame) -> None:
    ours = {name for name in frame["method"] if name.islower() and "-" not in name}
    assert {"convpass", "fact_tk", "vpt", "lora_shared", "zero_shot"} <= ours <= set(builtin())
    for suite, part in frame[frame["suite"].isin(suites())].groupby("suite"):
        groups = published.groups(str(suite))
        tasks = {task for members in groups.values() for task in members}
        assert set(part["task"][part["kind"] == "task"]) <= tasks
        assert set(part["task"][part["kind"] == "group mean"]) <= set(groups)


def test_a_full_row_of_vtab_has_every_task(frame: pd.DataFrame) -> None:
    tasks = {task.name for task in load_suite("vtab-1k").tasks}
    some = frame[(frame["suite"] == "vtab-1k") & (frame["kind"] == "task")]
    found = some.groupby(["experiment", "label"])["task"].agg(set)
    assert len(found) > 80
    assert all(each == tasks for each in found)


@needs_facts
def test_nothing_was_lost_or_changed_on_the_way(frame: pd.DataFrame) -> None:
    with (FACTS / "published.csv").open(encoding="utf-8") as file:
        facts = [row for row in csv.DictReader(file)]
    other_units = ("KB_per_task", "performance_parameter_tradeoff")
    kept = Counter(
        (float(row["value"]), row["params_m"]) for row in facts if row["metric"] not in other_units
    )
    ours = frame[frame["source_id"] != "arXiv:2406.06820"]  # read from a plot, not in the facts
    sizes = ours["params_millions"].map(lambda size: "" if np.isnan(size) else size)
    mine = Counter(zip(ours["printed"].astype(float), sizes, strict=True))
    assert mine == Counter(
        {(v, float(size) if size else ""): n for (v, size), n in _merged(kept).items()}
    )
    stored = {row["value"] for row in facts if row["metric"] == "KB_per_task"}
    notes = " ".join(frame["note"])
    assert all(f"{size} KB per task" in notes for size in stored)


def _merged(counts: Counter[tuple[float, str]]) -> Counter[tuple[float, str]]:
    """0.0 and 0.000000 are one size."""
    merged: Counter[tuple[float, str]] = Counter()
    for (value, size), count in counts.items():
        merged[value, str(float(size)) if size else ""] += count
    return merged


@needs_facts
def test_means_that_are_not_printed_are_those_computed_elsewhere() -> None:
    theirs = pd.read_csv(FACTS / "osu_vtab1k_per_task.csv")
    theirs = theirs[theirs["method"] == "convpass"].set_index("checkpoint")
    ours = {
        row.tags["selection"]: row
        for row in rows.of(published.select("vtab-1k", "convpass", source="unifying-study"))
    }
    for tag, name in (("last", "final-epoch"), ("best-on-test", "best-epoch-on-test")):
        for mean, column in (
            *(("mean of groups", "mean_of_groups"), ("mean of tasks", "mean_of_19")),
            *(("Natural", "natural"), ("Structured", "structured")),
        ):
            value = ours[tag].recomputed[mean, "accuracy"]
            assert value == pytest.approx(theirs.loc[name, column], abs=0.006)


# Errata


def test_only_the_errata_differ_from_what_is_printed(frame: pd.DataFrame) -> None:
    changed = frame[frame["percent"] != frame["printed"].astype(float)]
    found = {
        (row.source_id, row.label, row.task): (row.printed, row.percent)
        for row in changed.itertuples()
    }
    assert found == {
        ("arXiv:2206.04673", "Full", "oxford_flowers102"): ("87.2", 97.2),
        ("arXiv:2308.12509", "AMFMN-soft", "rsicd"): ("16.02", 16.16),
        ("arXiv:2308.12509", "AdaptFormer", "rsitmd"): ("34.81", 34.51),
        ("arXiv:2308.12509", "Cross-Modal Adapter", "ucm"): ("53.62", 53.35),
    }
    assert changed["note"].str.startswith("printed").all()


def test_the_tasks_of_repadapter_in_pace_are_ssf(frame: pd.DataFrame) -> None:
    pace = frame[(frame["source"].str.contains("PACE")) & (frame["label"] == "RepAdapter")]
    assert pace.groupby("method")["task"].count().to_dict() == {"ssf": 19, "repadapter": 1}
    (mean,) = pace[pace["method"] == "repadapter"].itertuples()
    assert (mean.task, mean.percent) == ("mean of groups", 76.1)
    dyt = published.select("vtab-1k", "ssf", source="dyt").set_index("task")["percent"]
    tasks = pace[pace["method"] == "ssf"].set_index("task")["percent"]
    assert (tasks == dyt[tasks.index]).all()


def test_the_directions_of_retrieval_are_not_swapped() -> None:
    ucm = published.select("retrieval", "convpass", "ucm").set_index("metric")["percent"]
    assert (ucm["i2t_r1"], ucm["t2i_r1"]) == (16.46, 14.24)


def test_elevation_of_norb_has_nine_classes() -> None:
    (task,) = load_suite("vtab-1k").select(["smallnorb_ele"])
    assert task.classes == 9


def test_fact_without_a_variant_is_the_one_that_has_its_values(frame: pd.DataFrame) -> None:
    labels = ("FacT (variant not stated)", "FacT-TK(r<=32)")
    one, other = (
        frame[(frame["label"] == label) & (frame["kind"] == "task")].set_index("task")["percent"]
        for label in labels
    )
    assert len(one) == 19
    assert (one == other[one.index]).all()


# Means


IMPOSSIBLE = {  # (label, mean, printed): also after the errata
    ("Linear", "Natural", 68.9),
    ("LoRA", "mean of groups", 74.5),
    ("LoRA", "Structured", 60.5),
    ("LoRAmul+VPTadd", "8 shots", 73.2),
    ("VPT", "mean of tasks", 34.7),
    ("Full", "mean of tasks", 85.9),
}
CORRECTED = {
    ("Full", "mean of groups", 68.9),
    ("RepAdapter", "mean of groups", 76.1),
    ("AMFMN-soft", "rsicd", 16.02),
    ("AdaptFormer", "rsitmd", 34.81),
    ("Cross-Modal Adapter", "ucm", 53.62),
}


def test_the_means_that_do_not_follow_from_their_parts() -> None:
    """Pinned: another one would be a slip of ours."""
    as_printed, corrected = published.mismatches(), published.mismatches(corrected=True)
    assert (len(as_printed), len(corrected)) == (55, 51)
    impossible = [m for m in as_printed if not m.explained]
    left = [m for m in corrected if not m.explained]
    assert (len(impossible), len(left)) == (14, 9)  # LoRA's are repeated by later papers
    assert {(m.label, m.mean, m.printed) for m in left} == IMPOSSIBLE
    assert {(m.label, m.mean, m.printed) for m in impossible} == IMPOSSIBLE | CORRECTED
    (norm,) = [m for m in impossible if m.label == "Full" and m.suite == "vtab-1k"]
    assert norm.recomputed == pytest.approx(68.49, abs=0.005)
    assert norm.gap == pytest.approx(0.41, abs=0.005)


def test_most_means_follow_from_their_parts(frame: pd.DataFrame) -> None:
    """An independent count, with pandas, of one kind: 19 tasks, three groups."""
    vtab = frame[(frame["suite"] == "vtab-1k") & (frame["metric"] == "accuracy")]
    wide = vtab.pivot_table(
        index=["source", "table", "label"], columns="task", values="percent", aggfunc="first"
    )
    wide = wide[wide["mean of groups"].notna()]
    groups = published.groups("vtab-1k")
    means = sum(wide[list(members)].mean(axis=1, skipna=False) for members in groups.values()) / 3
    off = (wide["mean of groups"] - means).abs().dropna()
    assert len(off) == 40
    assert (off > 0.1 + 1e-9).sum() == 4  # LoRA in three papers, and the copied row of PACE


def test_a_slip_in_one_cell_is_seen(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    slipped = frame.copy()
    where = (slipped["experiment"] == "convpass/table-1") & (slipped["label"] == "Convpass")
    cell = slipped.index[where & (slipped["task"] == "svhn")][0]
    slipped.loc[cell, "percent"] += 10
    monkeypatch.setattr(published, "load", lambda: slipped)
    found = {(m.table, m.label, m.mean) for m in published.mismatches(corrected=True)}
    assert {("Table 1", "Convpass", "mean of groups"), ("Figure 4", "Convpass", "Natural")} <= found


@given(st.lists(st.floats(0, 100), min_size=6, max_size=6))
def test_recomputed_means_are_means(values: list[float]) -> None:
    groups = {"one": ("a", "b"), "two": ("c",), "three": ("d", "e", "f")}
    scores = dict(zip([(task, "accuracy") for task in "abcdef"], values, strict=True))

    def mean(name: str) -> float:
        return published.recompute(name, "accuracy", scores, groups)

    parts = [float(np.mean(values[:2])), values[2], float(np.mean(values[3:]))]
    assert mean("mean of tasks") == pytest.approx(np.mean(values))
    assert [mean(name) for name in groups] == pytest.approx(parts)
    assert mean("mean of groups") == pytest.approx(np.mean(parts))
    del scores["c", "accuracy"]
    assert np.isnan(mean("mean of groups"))
    assert np.isnan(mean("two"))
    of_groups = dict(zip([(name, "accuracy") for name in groups], parts, strict=True))
    found = published.recompute("mean of groups", "accuracy", of_groups, groups)
    assert found == pytest.approx(np.mean(parts))


# Choosing


def test_select_by_name_alias_and_source() -> None:
    assert set(published.select("vtab-1k", task="cifar100")["task"]) == {"cifar"}
    by_label = published.select("vtab-1k", "lora")
    assert {"lora_shared"} <= set(by_label["method"])
    assert set(by_label["label"]) == {"LoRA"}
    one, other = (published.select(source=name) for name in ("fact", "arXiv:2212.03145"))
    assert len(one) == len(other) == 335


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"method": "konvpass"}, "Did you mean convpass"),
        ({"suite": "vtab"}, "Did you mean vtab-1k"),
        ({"source": "fakt"}, "Did you mean fact"),
        ({"suite": "vtab-1k", "task": "cifra"}, "Did you mean cifar"),
        ({"suite": "fgvc", "method": "dtl"}, "dtl is published in: vtab-1k"),
    ],
)
def test_what_is_not_there_is_told(asked: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        published.select(**asked)


# Rows and tables


def test_repeated_rows_are_read_once_and_belong_to_their_origin() -> None:
    found = [row for row in rows.of(published.select("vtab-1k", "vpt")) if "VPT" in row.source]
    (vpt,) = found
    assert vpt.source_id == "arXiv:2203.12119"
    assert {"Table 1 of convpass", "Table 1 of noah", "VTAB table of v-petl"} <= set(vpt.tables)
    assert vpt.tags["selection"] == "last"
    assert vpt.printed["cifar", "accuracy"] == 78.8
    assert vpt.params_millions in (0.53, 0.567)


def test_cells_say_what_is_recomputed_and_what_does_not_follow() -> None:
    text = block.markdown(rows.of(published.select("vtab-1k", "lora_shared", source="noah")))
    assert "74.5†" in text
    text = block.markdown(rows.of(published.select("vtab-1k", "convpass", source="convpass")))
    assert "76.6 |" in text
    assert "74.4*" in text or "74.5*" in text
    assert "* Not printed" in text


def test_the_block_beside_a_board_is_of_its_suite_and_methods() -> None:
    found = block.beside("vtab-1k", ["convpass", "lora(rank=4)", "fact_tk@abcdef"])
    assert {row.method for row in found} == {"convpass", "fact_tk"}
    assert {row.suite for row in found} == {"vtab-1k"}
    assert {"Swin-B", "ViT-B/16"} <= {row.backbone for row in found}
    text = block.to_markdown("vtab-1k", ["convpass"])
    assert text.startswith("Published numbers")
    assert "| mean of groups | mean of tasks | Natural |" in text
    assert "caltech101" not in text
    assert "No published number" in block.to_markdown("mini", ["convpass"])
    console = Console(width=120, record=True, quiet=True)
    block.to_table("vtab-1k", ["convpass"], console)
    block.to_table("mini", ["convpass"], console)


@pytest.mark.parametrize("width", [45, 60, 1000])
def test_a_narrow_screen_shows_whose_numbers_these_are(width: int) -> None:
    rows = block.beside("vtab-1k", ["convpass"])
    console = Console(width=width, record=True, file=io.StringIO())
    block.show(rows, console)
    told = console.export_text()
    body = told.split("Published numbers")[0]
    assert "…" not in told and max(map(len, body.splitlines())) <= width
    header = next(line for line in body.splitlines() if "method" in line).split()
    assert header[:3] == ["method", "backbone", "source"]
    assert all(row.backbone in body for row in rows)
    assert ("a wider terminal" in told) == (width < 1000)


def test_the_command(cli: CLI, tmp_path: Path) -> None:
    def shown(*arguments: str) -> str:
        outcome = cli("published", *arguments)
        assert outcome.code == 0
        return outcome.out

    assert "vtab-1k" in shown()
    table = shown("--suite", "vtab-1k", "--method", "convpass", "--task", "cifar")
    assert "72.3" in table
    assert "[1] Jie and Deng 2022" in table
    assert "best-on-test" in table
    file = tmp_path / "numbers.csv"
    shown("--suite", "fgvc", "-o", str(file))
    assert len(pd.read_csv(file)) == 144
    assert shown("--method", "dtl", "--format", "markdown").count("| dtl ") == 1
    shown("--method", "dtl", "-o", str(tmp_path / "dtl.txt"))
    assert "published · vtab-1k" in (tmp_path / "dtl.txt").read_text()
    cli("published", "--format", "cvs").refused("Did you mean csv")
    cli("published", "-o", "numbers.json").refused("end it in .txt, .csv, .md")


def test_the_command_needs_no_torch() -> None:
    code = (
        "import sys; from petlbench.cli import main; main(['published', '--method', 'dtl']); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
