"""Zero-shot: nothing trains."""

from __future__ import annotations

from dataclasses import dataclass

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method

BIBTEX = """
@inproceedings{radford2021learning,
  title = {Learning Transferable Visual Models From Natural Language Supervision},
  author = {Radford, Alec and Kim, Jong Wook and Hallacy, Chris and Ramesh, Aditya and
            Goh, Gabriel and Agarwal, Sandhini and Sastry, Girish and Askell, Amanda and
            Mishkin, Pamela and Clark, Jack and Krueger, Gretchen and Sutskever, Ilya},
  booktitle = {ICML},
  year = {2021}
}
"""


@dataclass(frozen=True)
class ZeroShot(Method):
    """Zero-shot: nothing trains; a text tower says what the images are.

    Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML
    2021 (arXiv:2103.00020), section 3.1. The baseline of retrieval, and of classification with a
    head made from class names; where the head would be fresh it is refused.
    """

    merges = True  # nothing is added
    trains_head = False

    def require(self, shape: Shape) -> None:
        pass  # what classifies decides, and the task's problem asks

    def attach(self, backbone: Backbone) -> None:
        backbone.drop_path_off()

    def num_trainable(self, shape: Shape) -> int:
        return 0
