"""What is no evidence is named and left out; nothing in a file is fatal, and nothing is silent."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import synthetic
from conftest import CLI
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from petlbench import formats, results
from petlbench.errors import UsageError
from petlbench.merge import merge
from petlbench.record import problem
from petlbench.statistics.judge import judge
from petlbench.store import Store

RECORD = synthetic.records(methods=["lora"], tasks=1, seeds=1, search=2, peek=True)[0]
KEY = RECORD["key"]
Edit = Callable[[dict[str, Any]], Any]


def edited(edit: Edit) -> dict[str, Any]:
    made = copy.deepcopy(RECORD)
    edit(made)
    return made


def test_what_runs_write_is_fine() -> None:
    for made in (RECORD, *synthetic.records(methods=3, tasks=4, seeds=2, retrieval=True)):
        assert problem(json.loads(json.dumps(made)), made["key"]) == ""


EDITS: dict[str, tuple[Edit, str]] = {
    "more correct than there are": (
        lambda r: r["test"].update(correct=r["test"]["total"] + 1),
        "was edited: test has 201 of 200 correct",
    ),
    "another accuracy": (
        lambda r: r["test"]["metrics"].update(accuracy=0.999),
        "and an accuracy of 0.999",
    ),
    "NaN": (
        lambda r: r["test"]["metrics"].update(accuracy=float("nan")),
        "has test.metrics.accuracy = nan, which is not a number in [-1, 1]",
    ),
    "infinite": (lambda r: r.update(train_seconds=float("inf")), "has train_seconds = inf"),
    "beyond all scores": (lambda r: r["test"]["metrics"].update(macro_f1=1.5), "macro_f1 = 1.5"),
    "true is no number": (lambda r: r["parameters"].update(trainable=True), "trainable = True"),
    "a negative count": (lambda r: r.update(stored_bytes=-1), "has stored_bytes = -1"),
    "an astronomic count": (lambda r: r.update(stored_bytes=10**400), "stored_bytes = 1000"),
    "no images": (lambda r: r["test"].update(total=0, correct=0), "has test.total = 0"),
    "a list for an object": (lambda r: r.update(parameters=[]), "has parameters = []"),
    "text for an object, deeper": (
        lambda r: r["spec"]["method"].update(config="rank"),
        "has spec.method.config = 'rank', which is not a JSON object",
    ),
    "half a character": (lambda r: r["spec"].update(group="\ud800"), "which is not text"),
    "nothing where there must be something": (lambda r: r["data"].pop("test"), "lacks data.test"),
    "without its metric": (lambda r: r["test"].update(metric="mIoU"), "lacks test.metrics.mIoU"),
    "without any score": (
        lambda r: (r["test"].pop("correct"), r["test"].pop("metrics")),
        "lacks test.correct",
    ),
    "another task": (lambda r: r["spec"].update(task="dtd"), "its key is not that of its spec"),
    "another seed": (lambda r: r["spec"].update(seed=7), "its key is not that of its spec"),
    "another setting": (
        lambda r: r["spec"]["method"]["config"].update(rank=64),
        "its key is not that of its spec",
    ),
    "longer training": (
        lambda r: r["spec"]["protocol"].update(epochs=100),
        "its key is not that of its spec",
    ),
    "another fingerprint": (
        lambda r: r.update(fingerprint="f" * 12),
        "its fingerprint is not that of its spec",
    ),
    "another row": (lambda r: r["spec"]["method"].update(label="full"), "is no row of 'lora'"),
    "an older schema": (lambda r: r.update(schema=0), "has schema 0, this version reads 1"),
    "no schema": (lambda r: r.pop("schema"), "has schema None"),
    "a winner that never ran": (lambda r: r["search"].update(winner=9), "search.winner"),
    "a peek that is none": (lambda r: r["peek"].update(best=0.0), "was edited: peek.best is 0.0"),
    "an empty curve": (lambda r: r["peek"].update(curve=[]), "lacks accuracy in peek.curve"),
}


@pytest.mark.parametrize("kind", EDITS)
def test_an_edited_record_is_left_out_and_named(kind: str, tmp_path: Path) -> None:
    edit, why = EDITS[kind]
    others = synthetic.records(methods=["full"], tasks=1, seeds=1, search=2, peek=True)
    folder = synthetic.write(tmp_path / "results", others, keep=False)
    file = folder / "records" / f"{KEY}.json"
    file.write_text(json.dumps(edited(edit)))
    (found,), problems = results.load(folder)
    assert [row.method for row in found.board.rows] == ["full"]
    assert len(problems) == 1 and problems[0].startswith(f"{file} ")
    assert why in problems[0] and problems[0].endswith("it is left out.")
    assert Store(folder).read(KEY) is None  # and is run again


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '"\\ud800"', "NaN", "1e999"])
def test_what_is_no_record_is_left_out(text: str, tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "results", [RECORD], keep=False)
    (folder / "records" / "other.json").write_text(text)
    (found,), problems = results.load(folder)
    assert found.board.records == 1 and len(problems) == 1 and "other.json" in problems[0]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a record."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for name, part in parts:
        yield (*path, name)
        if isinstance(part, dict | list):
            yield from places(part, (*path, name))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, -1, "\ud800", 1e308, "done", "failed"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
REMOVED = object()


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with room for one more."""
    found = synthetic.records(methods=["lora", "full"], tasks=1, seeds=2, search=2, peek=True)
    folder = synthetic.write(tmp_path_factory.mktemp("fuzz") / "results", found)
    (folder / "records" / f"{KEY}.json").unlink()
    return folder


@given(st.sampled_from(list(places(RECORD))), st.just(REMOVED) | JSON)
@hypothesis_settings(max_examples=60, deadline=None)
def test_no_edit_is_fatal(others: Path, path: tuple[Any, ...], value: Any) -> None:
    """Whatever stands wherever in a record: a board, or an error for people; never a crash."""
    made = copy.deepcopy(RECORD)
    inner: Any = made
    for name in path[:-1]:
        inner = inner[name]
    if value is REMOVED:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    (others / "records" / f"{KEY}.json").write_text(json.dumps(made))
    into = others.parent / "merged"
    try:
        found, problems = results.load(others)
        assert sum(each.board.records for each in found) + len(problems) == 4
        judged = [judge(each) for each in found]
        for form in formats.names():
            formats.write(judged, form).encode()
        merge([others], into)
    except UsageError as error:
        assert str(error)
    finally:
        shutil.rmtree(into, ignore_errors=True)


# -- what a user may have ---------------------------------------------------------------------


def test_an_empty_folder(cli: CLI, tmp_path: Path) -> None:
    for folder in ("results", "results/mini/records"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        cli("leaderboard").refused("no results in results", "petlbench run")
        cli("merge", "results", "--into", "all").refused("results")
        assert not (tmp_path / "all").exists()


def test_nothing_that_can_be_read(cli: CLI, tmp_path: Path) -> None:
    synthetic.write(tmp_path / "results", [RECORD | {"schema": 0}], keep=False)
    done = cli("leaderboard")
    assert done.code == 2 and "has schema 0" in done.err and "none of the records" in done.err


@pytest.mark.parametrize("form", formats.names())
@pytest.mark.parametrize(("methods", "tasks", "seeds"), [(1, 1, 1), (1, 3, 2), (3, 2, 1)])
def test_little_is_enough_for_a_board(
    cli: CLI, tmp_path: Path, form: str, methods: int, tasks: int, seeds: int
) -> None:
    found = synthetic.records(methods=methods, tasks=tasks, seeds=seeds)
    synthetic.write(tmp_path / "results", found, keep=False)
    asked = ("--tasks-served", "3", "--efficiency", "ppt,pscp")
    done = cli("leaderboard", "--format", form, *asked)
    assert done.code == 0 and "linear" in done.out and "nan" not in done.out.lower()


def test_several_fingerprints_stay_apart(cli: CLI, tmp_path: Path) -> None:
    found = synthetic.records(methods=2, tasks=1, seeds=1)
    other = synthetic.records(methods=2, tasks=1, seeds=1, suite="another")
    synthetic.write(tmp_path / "results", found + other, keep=False)
    assert "Not ranked against each other" in cli("leaderboard").out
    boards = json.loads(cli("leaderboard", "--format", "json").out)
    assert len({board["fingerprint"] for board in boards}) == 2
    chosen = cli("leaderboard", "--format", "tidy", "--fingerprint", boards[0]["fingerprint"])
    assert boards[0]["fingerprint"] in chosen.out and boards[1]["fingerprint"] not in chosen.out
