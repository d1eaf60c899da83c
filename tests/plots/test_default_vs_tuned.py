"""Default, winner and test score are means of tasks."""

from __future__ import annotations

import numpy as np
import pytest

from plots.drawing import TASKS, drawn, made, marks, plain, search


def test_default_against_tuned() -> None:
    records = [
        made("lora", "a", "Natural", 0, 0.5, search=search(0.4, 0.7)),
        made("lora", "b", "Structured", 0, 0.7, search=search(0.6, 0.5)),
        made("vpt", "a", "Natural", 0, 0.9, search=search(None, 0.8)),
        made("vpt", "b", "Structured", 0, 0.9, search=search(0.7, 0.8)),
    ]
    figure = drawn("default-vs-tuned", records, TASKS)
    shown = marks(figure)
    assert list(shown) == ["vpt", "lora"]  # by the test score
    assert shown["lora"] == pytest.approx(
        {"default, validation": 50, "tuned, validation": 65, "tuned, test": 60}
    )
    assert np.isnan(shown["vpt"]["default, validation"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["–", "+15.0", "gain"]
    assert "The default setting failed on some task: vpt." in plain(figure)
