"""How counts, metrics and the names that others gave are written where people read them."""

from __future__ import annotations

import re
import unicodedata

_METRICS = {
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "quadratic_kappa": "quadratic-weighted kappa",
}


def visible(text: str) -> str:
    r"""Every character as a sign that is seen: ESC as \x1b, a change of direction as \u202e.

    For text that is shown. On a screen such characters would move the cursor, colour and hide, on
    a page reorder what is read. Tabs, ends of lines and spaces of any width stay.
    """
    return text if text.isprintable() else "".join(map(_sign, text))


def _sign(sign: str) -> str:
    if sign.isprintable() or sign in "\t\n" or unicodedata.category(sign) == "Zs":
        return sign
    return sign.encode("unicode_escape").decode()


def count(number: int, noun: str) -> str:
    """Of 1 "1 task", of 1900 "1,900 tasks"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def metric(name: str) -> str:
    """As papers write it: of "auroc" "AUROC", of "t2i_r1" "T2I R@1"."""
    if recall := re.fullmatch(r"(i2t|t2i)_r(\d+)", name):
        return f"{recall[1].upper()} R@{recall[2]}"
    return _METRICS.get(name, name.replace("_", " "))
