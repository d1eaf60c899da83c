import pytest

from petlbench import recall, wording
from petlbench.problems import classification


@pytest.mark.parametrize(
    "name, written",
    [
        ("accuracy", "accuracy"),
        ("balanced_accuracy", "balanced accuracy"),
        ("macro_f1", "macro F1"),
        ("auroc", "AUROC"),
        ("quadratic_kappa", "quadratic-weighted kappa"),
        ("mean_recall", "mean recall"),
        ("t2i_r1", "T2I R@1"),
        ("i2t_r10", "I2T R@10"),
        ("the task's own metric", "the task's own metric"),
    ],
)
def test_metrics_are_written_as_papers_do(name: str, written: str) -> None:
    assert wording.metric(name) == written


def test_every_metric_has_a_name_of_its_own_without_underscores() -> None:
    names = [*classification.METRICS, *recall.METRICS]
    written = {wording.metric(name) for name in names}
    assert len(written) == len(set(names))
    assert not any("_" in name for name in written)


def test_one_is_singular() -> None:
    assert wording.count(1, "method") == "1 method"
    assert wording.count(0, "method") == "0 methods"
    assert wording.count(1900, "run") == "1,900 runs"
