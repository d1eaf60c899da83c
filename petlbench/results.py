"""One comparison as it lies on disk: its board, the records behind it, and what they predicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench import leaderboard
from petlbench.errors import UsageError
from petlbench.leaderboard import Leaderboard, Record, Row
from petlbench.store import Store

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_OF_CLASSES = ("predictions", "labels")
_OF_QUERIES = ("text_rank_of_image", "image_rank_of_text")


@dataclass(frozen=True)
class Results:
    """What tables, statistics, plots and the report are made of."""

    board: Leaderboard
    records: Mapping[str, Record]  # key -> record, finished or failed
    store: Store

    def frame(self) -> pd.DataFrame:
        """The board, one row per method (see `petlbench leaderboard`)."""
        from petlbench.formats.csv import to_frame

        return to_frame([self.board])

    def of(self, row: Row) -> list[Record]:
        """The records that the cells of a row are means of, each run once, in the order of keys."""
        keys = sorted({key for cell in row.runs.values() for key in cell})
        return [self.records[key] for key in keys]

    def cell(self, key: str, task: str) -> Record:
        """A run's record as that of its test on `task`, where it was tested on several sets."""
        tested = leaderboard.tested(self.records[key])
        return next(each for each in tested if each["spec"]["task"] == task)

    def predictions(self, key: str, task: str) -> dict[str, NDArray[Any]] | None:
        """What a run said about the test set of `task`, by name; None if that was not kept.

        Of classification `predictions` and `labels`, both (N,); of retrieval the ranks of every
        query. A file that cannot be read, or is not of this test set, is a UsageError: it is not
        the same as none. Of several test sets the names begin with the task's, and a slash.
        """
        import numpy as np

        from petlbench.prepare import archives

        at = "" if self.records[key]["spec"]["task"] == task else f"{task}/"
        file = self.store.artifacts / f"{key}.predictions.npz"
        try:
            self.store.artifact(self.records[key], ".predictions.npz")
            archives.refuse_bomb(file)
            with np.load(file, allow_pickle=False) as arrays:
                names = [name for name in arrays.files if name.rpartition("/")[0] == at[:-1]]
                found = {name.removeprefix(at): arrays[name] for name in names}
        except FileNotFoundError:
            return None
        except UsageError as error:
            raise UsageError(f"{error} Move it away to go on without it.") from error
        except Exception as error:  # of corrupt bytes zipfile, zlib and NumPy raise anything
            raise UsageError(
                f"{file} cannot be read ({error}). Move it away to go on without it."
            ) from error
        if at and not found:  # versions before this one kept those of the first set alone
            return None
        test = self.cell(key, task)["test"]
        needed = _OF_CLASSES if "correct" in test else _OF_QUERIES
        sizes = {
            name: array.size
            for name, array in found.items()
            if array.ndim == 1 and array.dtype.kind in "iu"
        }
        if not sizes.keys() >= set(needed) or any(
            sizes[name] != test["total"] for name in needed if name != "image_rank_of_text"
        ):
            raise UsageError(
                f"{file} does not hold {' and '.join(needed)} of the {test['total']} test examples "
                "that its record tells of. Move it away to go on without it."
            )
        return found


def folders(folder: Path | str) -> list[Path]:
    """The results folders at or right below `folder`; refuses a place without any."""
    folder = Path(folder).expanduser()
    found = [each for each in (folder, *sorted(folder.glob("*/"))) if (each / "records").is_dir()]
    found = [each for each in found if any(each.glob("*/*.json"))]
    if not found:
        lines = sorted(folder.glob("**/records.jsonl"))
        if lines:
            raise UsageError(
                f"{folder} holds records in files only, such as {lines[0]}. Unpack them: "
                f"petlbench merge {lines[0]} --into DIR, then --results DIR."
            )
        raise UsageError(
            f"no results in {folder}: run something first (petlbench run), or say where they "
            "are: --results DIR."
        )
    return found


def load(folder: Path | str, metric: str | None = None) -> tuple[list[Results], list[str]]:
    """Every comparison at or right below `folder`, and a sentence for each file left out.

    `metric`: another one than the tasks' own.
    """
    found, problems = [], []
    for each in folders(folder):
        store = Store(each)
        records, trouble = store.load()
        problems += trouble
        found += comparisons(records, store, metric)
    return found, problems


def comparisons(
    records: Iterable[Record], store: Store, metric: str | None = None
) -> list[Results]:
    """Those that these records of `store` make, the one with most records first."""
    return [
        Results(
            leaderboard.rank(group, metric=metric, **view(group[0]["spec"]["suite"])),
            {record["key"]: record for record in group},
            store,
        )
        for group in leaderboard.comparable(records)
    ]


def view(suite: str) -> dict[str, Any]:
    """How a leaderboard of that suite is made: order of tasks, what ranks, further columns."""
    from petlbench.task import load_suite, suites

    if suite not in suites():
        return {}
    found = load_suite(suite)
    order = [name for t in found.tasks for name in (t.name, *(each.name for each in t.targets))]
    return {"task_order": order, "ranking": found.ranking, "report": found.report}
