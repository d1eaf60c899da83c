"""Curves are the recalls of the kept ranks; what is not kept, or no retrieval, is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch

from petlbench import plots, recall
from petlbench.errors import UsageError
from petlbench.plots._base import styled
from plots.drawing import assert_inside_and_apart, plain

KIND = "recall-curves"


def test_curves_pass_through_the_recalls_of_the_records(tmp_path: Path) -> None:
    found = synthetic.records(["lora"], 2, 3, retrieval=True)
    results = synthetic.results(found, synthetic.write(tmp_path, found))
    panels = plots.draw(KIND, results).axes
    assert [axes.get_title(loc="left") for axes in panels] == [
        "image to text (i2t)",
        "text to image (t2i)",
    ]
    for axes, way, candidates in zip(panels, ("i2t", "t2i"), (400, 200), strict=True):
        (line,) = axes.lines
        curve = dict(zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True))
        assert min(curve) == 1 and max(curve) == candidates and axes.get_xscale() == "log"
        assert (np.diff(list(curve.values())) >= 0).all()
        for k in recall.AT:
            seen = [record["test"]["metrics"][f"{way}_r{k}"] for record in found]
            assert curve[k] == pytest.approx(100 * np.mean(seen))


def test_means_are_over_seeds_within_each_task_first(tmp_path: Path) -> None:
    found = [r for r in synthetic.records(["lora"], 2, 2, retrieval=True) if r["spec"]["seed"] == 0]
    results = synthetic.results(found, synthetic.write(tmp_path, found))
    line = plots.draw(KIND, results).axes[0].lines[0]
    k = 37
    at = np.flatnonzero(np.asarray(line.get_xdata()) == k)
    assert len(at) == 1
    arrays = [synthetic.predictions(record) for record in found]
    each = [(ranks["text_rank_of_image"] < k).mean() for ranks in arrays]
    assert np.asarray(line.get_ydata())[at[0]] == pytest.approx(100 * np.mean(each))
    ranks = [
        torch.from_numpy(arrays[0][name]) for name in ("text_rank_of_image", "image_rank_of_text")
    ]
    assert recall.of_ranks(*ranks) == pytest.approx(found[0]["test"]["metrics"])


def test_methods_without_predictions_are_named(tmp_path: Path) -> None:
    found = synthetic.records(["lora", "vpt"], 2, 1, retrieval=True)
    results = synthetic.results(found, synthetic.write(tmp_path, found))
    lost = next(record for record in found if record["spec"]["method"]["name"] == "vpt")
    (results.store.artifacts / f"{lost['key']}.predictions.npz").unlink()
    figure = plots.draw(KIND, results)
    assert [len(axes.lines) for axes in figure.axes] == [1, 1]
    assert "Predictions are not kept, not drawn: vpt." in plain(figure)


def test_nothing_to_draw(tmp_path: Path) -> None:
    images = synthetic.results(synthetic.records(2, 2, 1))
    with pytest.raises(UsageError, match="petlbench run --suite mini-retrieval"):
        plots.draw(KIND, images)
    found = synthetic.records(2, 2, 1, retrieval=True)
    lost = synthetic.results(found, synthetic.write(tmp_path, found, keep=False))
    with pytest.raises(UsageError, match="is read from predictions"):
        plots.draw(KIND, lost)
    assert plots.candidates(KIND, [images, lost]) == [lost]


@pytest.mark.parametrize("methods", [5, 12, 32])
@pytest.mark.parametrize("style", ["screen", "paper"])
def test_texts_stay_apart(tmp_path: Path, methods: int, style: str) -> None:
    found = synthetic.records(methods, 2, 1, retrieval=True)
    results = synthetic.results(found, synthetic.write(tmp_path, found))
    with styled(style):
        assert_inside_and_apart(plots.draw(KIND, results, style=style))
