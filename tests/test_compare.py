"""Comparisons of methods: numbers against the records they come from, and every way to refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from scipy import stats

from petlbench import compare
from petlbench.compare import Ranks, Two
from petlbench.errors import UsageError
from petlbench.results import Results
from petlbench.statistics import many as rank_tests
from petlbench.statistics.judge import judge
from petlbench.statistics.paired import Difference
from petlbench.store import Record

CLI = Callable[..., Any]
GROUPS = {"cifar": "Natural", "dtd": "Natural", "eurosat": "Specialized"}


def scored(
    correct: Mapping[str, Mapping[str, Sequence[int]]], seeds: Sequence[int] = ()
) -> list[Record]:
    """Records of method -> task -> correct of 200, seed by seed."""
    count = max(len(each) for tasks in correct.values() for each in tasks.values())
    found = synthetic.records(list(correct), GROUPS, count)
    kept = []
    for record in found:
        spec = record["spec"]
        numbers = correct[spec["method"]["name"]].get(spec["task"], [])
        if spec["seed"] < len(numbers):
            right = numbers[spec["seed"]]
            test = {"correct": right, "total": 200, "metric": "accuracy"}
            kept.append(record | {"test": test | {"metrics": {"accuracy": right / 200}}})
    return kept


def failed(record: Record) -> Record:
    kept = {k: record[k] for k in ("schema", "key", "fingerprint", "spec", "started")}
    error = {"type": "RunError", "message": "the loss is not finite", "traceback": ""}
    return kept | {"status": "failed", "error": error, "environment": {}}


def scores(found: Sequence[Record], method: str, task: str) -> list[float]:
    return [
        record["test"]["metrics"]["accuracy"]
        for record in sorted(found, key=lambda record: record["spec"]["seed"])
        if (record["spec"]["method"]["name"], record["spec"]["task"]) == (method, task)
    ]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Record], Results]:
    """Four methods on three tasks with three seeds, and what they predicted."""
    found = synthetic.records(["linear", "lora", "convpass", "vpt"], GROUPS, 3)
    folder = synthetic.write(tmp_path_factory.mktemp("kept"), found)
    return found, synthetic.results(found, folder)


# --- two methods


def test_numbers_are_those_of_the_records(kept: tuple[list[Record], Results]) -> None:
    found, results = kept
    made = compare.two(results, "convpass", "linear")
    assert [each.task for each in made.tasks] == list(GROUPS)
    gaps = []
    for each in made.tasks:
        a, b = (np.array(scores(found, method, each.task)) for method in ("convpass", "linear"))
        assert (each.a, each.b) == pytest.approx((a.mean(), b.mean()))
        gaps.append(each.difference.mean)
        assert gaps[-1] == pytest.approx((a - b).mean())
        # at least as wide as seeds alone make it
        low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
        assert each.difference.low <= low and high <= each.difference.high
    assert made.here.mean == pytest.approx(((gaps[0] + gaps[1]) / 2 + gaps[2]) / 2)
    assert made.column == "mean of groups" and made.seeds == (0, 1, 2) and not made.counted
    assert made.wilcoxon is not None and made.wilcoxon.n == 3
    assert made.here.low < made.here.mean < made.here.high
    assert made.like_these is not None
    assert made.like_these.low < made.here.low and made.here.high < made.like_these.high
    assert made == compare.two(results, "convpass", "linear")


def test_the_other_way_round_is_the_opposite(kept: tuple[list[Record], Results]) -> None:
    one, other = (compare.two(kept[1], *pair) for pair in (("vpt", "lora"), ("lora", "vpt")))
    for x, y in ((one.here, other.here), (one.tasks[0].difference, other.tasks[0].difference)):
        assert (x.mean, x.low, x.high) == pytest.approx((-y.mean, -y.high, -y.low), abs=1e-9)
    assert one.improvement.probability == pytest.approx(1 - other.improvement.probability)
    assert one.tasks[1].agreement is not None and other.tasks[1].agreement is not None
    assert one.tasks[1].agreement.kappa == pytest.approx(other.tasks[1].agreement.kappa)


def test_errors_agree_as_predictions_do(kept: tuple[list[Record], Results]) -> None:
    from sklearn.metrics import cohen_kappa_score

    found, results = kept
    agreement = compare.two(results, "convpass", "lora").tasks[0].agreement
    kappas = []
    for seed in range(3):
        both = [
            synthetic.predictions(record)
            for record in found
            if record["spec"]["method"]["name"] in ("convpass", "lora")
            and record["spec"]["task"] == "cifar"
            and record["spec"]["seed"] == seed
        ]
        kappas.append(cohen_kappa_score(*(each["predictions"] == each["labels"] for each in both)))
    assert agreement is not None
    assert agreement.kappa == pytest.approx(np.mean(kappas))


def test_one_seed_has_mcnemar(tmp_path: Path) -> None:
    found = synthetic.records(["lora", "vpt"], {"cifar": "Natural"}, 1)
    results = synthetic.results(found, synthetic.write(tmp_path, found))
    (task,) = compare.two(results, "lora", "vpt").tasks
    right = [
        (lambda kept: kept["predictions"] == kept["labels"])(synthetic.predictions(record))
        for record in found
    ]
    only = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    assert task.mcnemar is not None
    assert [task.mcnemar.only_a, task.mcnemar.only_b] == only
    assert task.mcnemar.p_value == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue)


def test_retrieval_has_no_classes_to_agree_on(tmp_path: Path) -> None:
    found = synthetic.records(["lora", "vpt"], GROUPS, 1, retrieval=True)
    results = synthetic.results(found, synthetic.write(tmp_path, found))
    made = compare.two(results, "lora", "vpt")
    assert all(each.mcnemar is None and each.agreement is None for each in made.tasks)
    assert not made.counted
    assert "mean-of-groups mean recall" in made.conclusion


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        (
            [180, 176, 181],
            [120, 118, 119],
            "On synthetic's cifar (1 task, 3 seeds) lora is better than vpt by 30.0 points of "
            "accuracy (95% interval {} to {}, t over paired seeds and z over test examples, "
            "counted as binomial); one task says nothing of others.",
        ),
        (
            [120, 118, 119],
            [180, 176, 181],
            "On synthetic's cifar (1 task, 3 seeds) lora is worse than vpt by 30.0 points of "
            "accuracy (95% interval {} to {}, t over paired seeds and z over test examples, "
            "counted as binomial); one task says nothing of others.",
        ),
        (
            [120],
            [119],
            "On synthetic's cifar (1 task, 1 seed) the data cannot tell lora from vpt: +0.5 "
            "points of accuracy (95% interval {} to {}, z over test examples, counted as binomial, "
            "of one seed); one task says nothing of others.",
        ),
    ],
)
def test_sentences_of_one_task(a: list[int], b: list[int], sentence: str) -> None:
    results = synthetic.results(scored({"lora": {"cifar": a}, "vpt": {"cifar": b}}))
    made = compare.two(results, "lora", "vpt")
    assert made.here == made.tasks[0].difference
    x, y = np.array(a) / 200, np.array(b) / 200
    binomial = np.sqrt((x.mean() * (1 - x.mean()) + y.mean() * (1 - y.mean())) / 200)
    half = stats.norm.ppf(0.975) * binomial
    if len(a) > 1:
        half = np.hypot(half, stats.t.ppf(0.975, 2) * stats.sem(x - y))
    gap = x.mean() - y.mean()
    sign = -1 if "worse" in sentence else 1
    ends = [f"{100 * (sign * gap + side * half):.1f}".replace("-", "−") for side in (-1, 1)]
    assert made.conclusion == sentence.format(*ends)


@pytest.fixture(scope="module")
def pair() -> Two:
    tasks = {"cifar": [150, 152], "dtd": [140, 141], "eurosat": [160, 163]}
    other = {"cifar": [120, 121], "dtd": [110, 112], "eurosat": [130, 130]}
    return compare.two(synthetic.results(scored({"lora": tasks, "vpt": other})), "lora", "vpt")


HOW = "hierarchical bootstrap over seeds and test examples, counted as binomial"
TEST = "Wilcoxon signed-rank p = 0.25, n = 3"


@pytest.mark.parametrize(
    ("here", "there", "said"),
    [
        (
            (0.05, 0.04, 0.06),
            (0.05, 0.01, 0.09),
            "lora is better than vpt by 5.0 points of mean-of-groups accuracy (95% interval 4.0 to "
            f"6.0, {HOW}); over tasks like these it is better too (1.0 to 9.0; {TEST}).",
        ),
        (
            (0.05, 0.04, 0.06),
            (0.05, -0.01, 0.11),
            "lora is better than vpt by 5.0 points of mean-of-groups accuracy (95% interval 4.0 to "
            f"6.0, {HOW}); over tasks like these the data cannot tell (−1.0 to 11.0; {TEST}).",
        ),
        (
            (-0.05, -0.06, -0.04),
            (-0.05, -0.11, 0.01),
            "lora is worse than vpt by 5.0 points of mean-of-groups accuracy (95% interval 4.0 to "
            f"6.0, {HOW}); over tasks like these the data cannot tell (−1.0 to 11.0; {TEST}).",
        ),
        (
            (-0.05, -0.06, -0.04),
            (-0.05, -0.09, -0.01),
            "lora is worse than vpt by 5.0 points of mean-of-groups accuracy (95% interval 4.0 to "
            f"6.0, {HOW}); over tasks like these it is worse too (1.0 to 9.0; {TEST}).",
        ),
        (
            (-0.002, -0.01, 0.006),
            (-0.002, -0.02, 0.016),
            "the data cannot tell lora from vpt: −0.2 points of mean-of-groups accuracy (95% "
            f"interval −1.0 to 0.6, {HOW}); over tasks like these the data cannot tell either "
            f"(−2.0 to 1.6; {TEST}).",
        ),
        (
            (0.0, -0.01, 0.01),
            (0.002, 0.001, 0.003),
            "the data cannot tell lora from vpt: 0.0 points of mean-of-groups accuracy (95% "
            f"interval −1.0 to 1.0, {HOW}); over tasks like these lora is better (0.1 to 0.3; "
            f"{TEST}).",
        ),
        (
            (0.05, 0.04, 0.06),
            None,
            "lora is better than vpt by 5.0 points of mean-of-groups accuracy (95% interval 4.0 to "
            f"6.0, {HOW}); no group has two tasks to resample ({TEST}).",
        ),
        ((0.0, 0.0, 0.0), None, "lora and vpt are equal: no test score differs."),
    ],
)
def test_sentences_of_several_tasks(
    pair: Two, here: tuple[float, ...], there: tuple[float, ...] | None, said: str
) -> None:
    made = replace(
        pair, here=Difference(*here), like_these=None if there is None else Difference(*there)
    )
    assert made.conclusion == f"On synthetic (3 tasks, 2 seeds) {said}"


def test_a_sentence_of_fixed_tasks_says_nothing_of_others(pair: Two) -> None:
    made = replace(pair, like_these=None, wilcoxon=None)
    assert made.conclusion.endswith(f"{HOW}).")


def test_the_same_scores_are_equal_only_where_nothing_differs(tmp_path: Path) -> None:
    found = scored({"lora": {"cifar": [200]}, "vpt": {"cifar": [200]}})
    assert compare.two(synthetic.results(found), "lora", "vpt").here.verdict == "equal"
    found = scored({"lora": {"cifar": [150]}, "vpt": {"cifar": [150]}})
    assert compare.two(synthetic.results(found), "lora", "vpt").here.verdict == "cannot tell"


# --- what is missing


def test_other_tasks_are_refused_and_common_ones_can_be_asked_for() -> None:
    everything = {task: [150, 151] for task in GROUPS}
    fewer = {"cifar": [120, 122], "eurosat": [130, 131]}
    results = synthetic.results(scored({"lora": everything, "vpt": fewer}))
    for call in (
        lambda **how: compare.two(results, "lora", "vpt", **how),
        lambda **how: compare.two(results, "vpt", "lora", **how),
    ):
        with pytest.raises(UsageError, match=r"vpt lacks dtd \(not run\)(.|\n)*--common-tasks"):
            call()
        made = call(common_tasks=True)
        assert [each.task for each in made.tasks] == ["cifar", "eurosat"]
        assert made.notes[0] == "On cifar, eurosat alone; not on dtd."
        assert abs(made.here.mean) == pytest.approx((29.5 + 20) / 200 / 2)
        assert all(row.complete for row in made.board.rows)


def test_a_failed_run_empties_its_task() -> None:
    found = scored({name: {task: [150, 151] for task in GROUPS} for name in ("lora", "vpt")})
    broken = next(i for i, r in enumerate(found) if r["spec"]["method"]["name"] == "vpt")
    found[broken] = failed(found[broken])
    results = synthetic.results(found)
    with pytest.raises(UsageError, match=r"vpt lacks cifar seed 0 \(failed: RunError\)"):
        compare.two(results, "lora", "vpt")
    made = compare.two(results, "lora", "vpt", common_tasks=True)
    assert [each.task for each in made.tasks] == ["dtd", "eurosat"]


def test_no_task_in_common() -> None:
    results = synthetic.results(scored({"lora": {"cifar": [150]}, "vpt": {"dtd": [120]}}))
    with pytest.raises(UsageError, match="no task in common"):
        compare.two(results, "lora", "vpt", common_tasks=True)


def test_only_seeds_that_both_have_count() -> None:
    more = {task: [150, 160, 170] for task in GROUPS}
    results = synthetic.results(scored({"lora": more, "vpt": {task: [140] for task in GROUPS}}))
    made = compare.two(results, "lora", "vpt")
    assert made.seeds == (0,)
    assert made.here.mean == pytest.approx(10 / 200)
    assert made.notes[0] == "Only the seeds that both have, 0: lora has seed 1, 2 too."
    assert "(3 tasks, 1 seed)" in made.conclusion


def test_no_seed_in_common() -> None:
    found = scored({name: {task: [150, 151] for task in GROUPS} for name in ("lora", "vpt")})
    one = {"lora": 0, "vpt": 1}
    results = synthetic.results(
        [r for r in found if r["spec"]["seed"] == one[r["spec"]["method"]["name"]]]
    )
    with pytest.raises(UsageError, match=r"both methods: vpt has 1; lora has 0\. Run both"):
        compare.two(results, "lora", "vpt")


def test_the_group_that_ranks_must_be_there() -> None:
    found = scored({"lora": {t: [150] for t in GROUPS}, "vpt": {"cifar": [1], "dtd": [1]}})
    results = synthetic.results(found, ranking="Specialized")
    with pytest.raises(UsageError, match="the group Specialized ranks, and no common task is in"):
        compare.two(results, "lora", "vpt", common_tasks=True)


def test_versions_of_a_file_keep_their_names() -> None:
    found = scored({"lora": {t: [150] for t in GROUPS}, "vpt": {t: [120] for t in GROUPS}})
    for i, source in enumerate(("a" * 64, "b" * 64)):
        for record in synthetic.records(["mine"], GROUPS, 1):
            method = record["spec"]["method"] | {"source": source}
            key = f"{i}{record['key'][1:]}"
            found.append(record | {"key": key, "spec": record["spec"] | {"method": method}})
    results = synthetic.results(found)
    made = compare.two(results, "mine@bbbbbb", "lora")
    assert {row.method for row in made.board.rows} == {"mine@bbbbbb", "lora"}
    assert compare.two(results, "mine@bbbbbb", "mine@aaaaaa").here.verdict == "cannot tell"


def test_sets_beside_the_tasks_own_count_as_tasks(tmp_path: Path) -> None:
    found = synthetic.records(["lora", "vpt"], {"cifar": "Natural"}, 2)
    for record in found:
        right = 100 if record["spec"]["method"]["name"] == "lora" else 80
        test = {"correct": right, "total": 200, "metrics": {"accuracy": right / 200}}
        more = {"metric": "accuracy", "group": "Shifted", "data": "d" * 64}
        record["targets"] = {"sketch": test | more}
    made = compare.two(synthetic.results(found, synthetic.write(tmp_path, found)), "lora", "vpt")
    assert [each.task for each in made.tasks] == ["cifar", "sketch"]
    assert made.tasks[1].difference.mean == pytest.approx(0.1)
    assert made.tasks[0].agreement is not None and made.tasks[1].agreement is None


# --- several methods


def test_several_methods_are_ranked_and_grouped(kept: tuple[list[Record], Results]) -> None:
    made = compare.many(kept[1])
    assert list(made.means) == sorted(made.means, reverse=True)
    order = {row.method: row for row in made.board.rows}
    table = np.array([[order[m].tasks[t].mean for t in GROUPS] for m in made.methods])
    assert made.ranks is not None
    assert made.ranks.average == pytest.approx(tuple(rank_tests.average_ranks(table)))
    assert np.array(made.ranks.p_values) == pytest.approx(rank_tests.pairwise_wilcoxon(table))
    assert made.ranks.friedman == rank_tests.friedman(table)
    expected = 2.569 * np.sqrt(4 * 5 / (6 * 3))  # Demšar 2006, table 5
    assert made.ranks.critical_difference == pytest.approx(expected, abs=2e-3)
    assert made.letters[0].startswith("a")
    assert all(
        low < mean < high for mean, (low, high) in zip(made.means, made.intervals, strict=True)
    )
    assert "3 tasks can never give Wilcoxon's test a p-value below 0.25" in made.notes[0]


def test_rank_groups_are_those_of_the_board() -> None:
    """Of few seeds and many pairs, which is where all pairs at once are harder to tell apart."""
    results = synthetic.results(synthetic.records(8, 3, 2))
    of_board = [row.letters for row in judge(results).board.rows]
    assert compare.many(results).letters == tuple(of_board)


def test_a_sentence_of_many(kept: tuple[list[Record], Results]) -> None:
    values = ((1, 0.2, 0.3, 0.01), (0.2, 1, 0.4, 0.5), (0.3, 0.4, 1, 0.6), (0.01, 0.5, 0.6, 1))
    ranks = Ranks((1, 2, 3, 4), 2.7, rank_tests.Friedman(7.4, 9.25, 0.0115, 4, 3), values)
    made = replace(
        compare.many(kept[1]),
        methods=("a", "b", "c", "d"),
        letters=("a", "ab", "ac", "b"),
        means=(0.71234, 0.7, 0.69, 0.5),
        intervals=((0.7, 0.72),) * 4,
        ranks=ranks,
    )
    assert made.conclusion == (
        "On synthetic (3 tasks, 3 seeds) a has the best mean-of-groups accuracy of 4 methods, "
        "71.2% (95% interval 70.0 to 72.0), and cannot be told from b and c (hierarchical "
        "bootstrap over seeds and test examples, 95% for all pairs at once); over tasks like these "
        "ranks differ (Friedman F(3, 6) = 9.25, p = 0.0115, n = 3), and Wilcoxon signed-rank tests "
        "with Holm's correction tell 1 of 6 pairs apart."
    )
    alone = replace(made, letters=("a", "b", "b", "b")).conclusion
    assert "and can be told from all 3 others (" in alone
    same = replace(ranks, friedman=rank_tests.Friedman(9.0, None, 0.03, 4, 3))
    told = replace(made, ranks=same).conclusion
    assert "(Friedman chi-squared(3) = 9, p = 0.03, n = 3)" in told
    fixed = replace(made, ranks=None).conclusion
    assert fixed.endswith("95% for all pairs at once).")


def test_one_task_has_no_rank_tests() -> None:
    found = scored({m: {"cifar": [n, n + 3]} for m, n in (("lora", 150), ("vpt", 140), ("ssf", 9))})
    made = compare.many(synthetic.results(found))
    assert made.ranks is made.letters_like_these is None
    assert made.conclusion.endswith("; one task says nothing of others.")


def test_all_are_those_that_are_ranked() -> None:
    full = {task: [150, 151] for task in GROUPS}
    found = scored({"lora": full, "vpt": full, "ssf": full, "dora": {"cifar": [100, 101]}})
    results = synthetic.results(found)
    made = compare.many(results)
    assert set(made.methods) == {"lora", "vpt", "ssf"}
    assert made.notes[0] == "dora is not compared: dtd (not run), eurosat (not run)."
    assert set(compare.many(results, common_tasks=True).methods) == {"lora", "vpt", "ssf", "dora"}
    with pytest.raises(UsageError, match="dora lacks dtd"):
        compare.many(results, ["lora", "vpt", "dora"])
    with pytest.raises(UsageError, match=r"too few methods to rank \(lora, vpt\)"):
        compare.many(results, ["lora", "vpt", "lora"])


# --- the command


END = "n = 3, 2 tied tasks left out)."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return synthetic.write(tmp_path / "results", synthetic.records(["lora", "vpt", "ssf"], 5, 2))


def test_two_methods_end_in_a_sentence(cli: CLI, folder: Path) -> None:
    done = cli("compare", "lora", "vpt", "--results", folder)
    assert done.code == 0 and done.err == ""
    last = " ".join(done.out.split("\n\n")[-1].split())
    assert last.startswith("On synthetic (5 tasks, 2 seeds) ") and last.endswith(END)
    for word in ("kappa", "vote of lora", "Params", "on tasks like these", "Probability of impr"):
        assert word in done.out
    fixed = cli("compare", "lora", "vpt", "--results", folder, "--fixed-tasks").out
    assert "like these" not in fixed and "Wilcoxon" not in fixed


def test_all_methods_end_in_a_sentence(cli: CLI, folder: Path) -> None:
    done = cli("compare", "--results", folder)
    assert done.code == 0 and done.err == ""
    assert "p-values of 3 pairs" in done.out and "rank group" in done.out
    assert " ".join(done.out.split()).endswith("tell 0 of 3 pairs apart.")


def test_too_few_to_rank(cli: CLI, tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "two", synthetic.records(["lora", "vpt"], 1, 1))
    cli("compare", "--results", folder).refused("(lora, vpt)", "petlbench compare A B")
    folder = synthetic.write(tmp_path / "one", synthetic.records(["lora"], 1, 1))
    cli("compare", "--results", folder).refused("too few methods to rank (lora)")


def test_formats(cli: CLI, folder: Path, tmp_path: Path) -> None:
    told = json.loads(cli("compare", "lora", "vpt", "--results", folder, "--format", "json").out)
    assert told["a"] == "lora" and len(told["tasks"]) == 5
    assert told["conclusion"].startswith("On synthetic")
    told = json.loads(cli("compare", "--results", folder, "--format", "json").out)
    assert len(told["ranks"]["p_values"]) == 3
    for file in ("a.md", "a.txt", "a.json"):
        done = cli("compare", "lora", "vpt", "--results", folder, "-o", tmp_path / file)
        assert done.out == f"wrote {tmp_path / file}\n"
    page = (tmp_path / "a.md").read_text()
    assert re.search(r"^\| task \| lora \| vpt \| difference \|", page, re.MULTILINE)
    assert page.rstrip().endswith(END)
    assert "\x1b" not in (tmp_path / "a.txt").read_text()
    cli("compare", "--results", folder, "-o", tmp_path / "a.csv").refused("end it in .txt, .md")
    cli("compare", "--results", folder, "--format", "tabel").refused("Did you mean table")
    wrong = ("--format", "json", "-o", tmp_path / "a.md")
    cli("compare", "--results", folder, *wrong).refused("ends in .json")


def test_a_table_too_wide_is_said_to_be(
    cli: CLI, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    told = " ".join(cli("compare", "--results", folder).out.split())
    assert "--format markdown has it." in told and told.endswith("pairs apart.")


def test_a_narrow_screen_keeps_the_main_table_and_drops_its_numbers(
    cli: CLI, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    told = cli("compare", "lora", "vpt", "--results", folder).out
    assert "Columns left out: vpt, lora; --format markdown has them." in " ".join(told.split())
    header = told[: told.index("───")].split()
    assert {"task", "difference", "interval"} < set(header) and "vpt" not in header
    assert "…" not in told and told.index("difference") < told.index("costs")


def test_bad_input(cli: CLI, folder: Path, tmp_path: Path) -> None:
    at = ("--results", folder)
    cli("compare", "lora", *at).refused("lora with what?", "petlbench compare lora METHOD")
    cli("compare", "lora", "vtp", *at).refused("unknown method 'vtp'", "Did you mean vpt?")
    cli("compare", "lora", "lora", *at).refused("lora is compared with itself")
    cli("compare", "lora", "vpt", "--suite", "synthetc", *at).refused("Did you mean synthetic?")
    cli("compare", "lora", "vpt", "--metric", "acuracy", *at).refused("Did you mean accuracy?")
    cli("compare", "lora", "vpt", "--results", tmp_path / "none").refused("no results in")


def test_several_comparisons_are_not_mixed(cli: CLI, tmp_path: Path) -> None:
    for suite in ("one", "two"):
        found = synthetic.records(["lora", "vpt"], 2, 1, suite=suite)
        synthetic.write(tmp_path / suite, found)
    at = ("compare", "lora", "vpt", "--results", tmp_path)
    cli(*at).refused("2 comparisons, which must not share a table", "--fingerprint")
    assert cli(*at, "--suite", "two").code == 0
    key = synthetic.records(1, 1, 1, suite="one")[0]["fingerprint"]
    assert cli(*at, "--fingerprint", key).code == 0


def test_predictions_that_are_not_kept_are_told(cli: CLI, tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path, synthetic.records(["lora", "vpt"], 2, 1), keep=False)
    done = cli("compare", "lora", "vpt", "--results", folder)
    assert done.code == 0
    assert "Predictions are not kept" in done.out and "kappa" not in done.out


def _break(folder: Path, change: Callable[[Path, dict[str, Any]], None]) -> None:
    made = [json.loads(file.read_text()) for file in sorted((folder / "records").glob("*.json"))]
    key = next(each["key"] for each in made if each["spec"]["method"]["name"] == "lora")
    file = folder / "artifacts" / f"{key}.predictions.npz"
    with np.load(file) as arrays:
        change(file, dict(arrays))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda file, _: file.write_bytes(file.read_bytes()[:200]), "cannot be read"),
        (lambda file, _: file.write_bytes(b""), "cannot be read"),
        (
            lambda file, kept: np.savez(file, **kept | {"predictions": kept["predictions"] * 0}),
            "one of the two was edited",
        ),
        (lambda file, kept: np.savez(file, predictions=kept["predictions"]), "not hold"),
        (lambda file, kept: np.savez(file, labels=kept["labels"]), "not hold"),
        (
            lambda file, kept: np.savez(file, **{k: np.tile(v, 2) for k, v in kept.items()}),
            "does not hold predictions and labels of the 200 test examples",
        ),
        (
            lambda file, kept: np.savez(file, **{k: v[::-1] for k, v in kept.items()}),
            "are of other test examples of",
        ),
    ],
)
def test_predictions_that_do_not_belong(
    cli: CLI, folder: Path, change: Callable[[Path, dict[str, Any]], None], told: str
) -> None:
    _break(folder, change)
    cli("compare", "lora", "vpt", "--results", folder).refused(told)
