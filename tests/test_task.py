"""Suites and tasks are found by name and select what was asked for."""

from __future__ import annotations

import pytest

from petlbench import protocol, task
from petlbench.errors import UsageError

SUITES = task.suites()


def test_the_suites_are_the_files() -> None:
    assert {"mini", "vtab-1k"} <= set(SUITES)


@pytest.mark.parametrize("name", SUITES)
def test_declarations_are_consistent(name: str) -> None:
    suite = task.load_suite(name)
    assert suite.name == name and suite.description
    names = [t.name for t in suite.tasks] + [a for t in suite.tasks for a in t.aliases]
    assert len(names) == len(set(names))
    for each in suite.tasks:
        assert each.classes >= 2 or each.problem == "retrieval"
        assert each.group and min(each.sizes.values()) > 0
        assert each.sizes[protocol.load(suite.protocol).test_split]


def test_vtab_1k_is_complete() -> None:
    suite = task.load_suite("vtab-1k")
    groups = [t.group for t in suite.tasks]
    counts = [groups.count(g) for g in ("Natural", "Specialized", "Structured")]
    assert counts == [7, 4, 8]
    for each in suite.tasks:
        sizes = each.sizes
        assert (sizes["train800"], sizes["val200"], sizes["train800val200"]) == (800, 200, 1000)
    classes = {t.name: t.classes for t in suite.tasks}
    assert classes["cifar"] == 100 and classes["sun397"] == 397 and classes["patch_camelyon"] == 2


def test_selection_keeps_the_order_of_the_suite() -> None:
    suite = task.load_suite("vtab-1k")
    assert [t.name for t in suite.select(["dtd", "cifar100", "dtd"])] == ["cifar", "dtd"]
    assert suite.select(None) == list(suite.tasks)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifra", "unknown task of suite vtab-1k 'cifra'. Did you mean cifar?"),
        ("zzzzzz", "Known: caltech101, cifar, clevr_count"),
    ],
)
def test_unknown_tasks_are_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        task.load_suite("vtab-1k").select([name])
    assert message in str(raised.value)


def test_no_tasks_at_all_are_refused() -> None:
    with pytest.raises(UsageError, match="no tasks"):
        task.load_suite("mini").select([])


@pytest.mark.parametrize("name", ["vtab1k", "vtab_1k", "VTAB-1k"])
def test_unknown_suites_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"unknown suite '.*'\. Did you mean vtab-1k\?"):
        task.load_suite(name)


def test_a_suite_file_must_declare_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petlbench.suites.vtab_1k.SUITE", task.load_suite("mini"))
    with pytest.raises(UsageError, match=r"suites/vtab_1k\.py must define SUITE with name 'vtab"):
        task.load_suite("vtab-1k")
