"""Are prepared images what they were, or, without a manifest, what the layout promises?"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from petlbench import protocol
from petlbench.data import ahead, digest, manifest
from petlbench.data.split import Split
from petlbench.errors import RunError, UsageError
from petlbench.prepare.downloads import Progress
from petlbench.task import Suite, Task

WHOLE, PARTS = "train800val200", ("train800", "val200")
NAMED = 5  # files that are named before "..."


@dataclass(frozen=True)
class Pictures:
    """What a split holds, in order."""

    labels: Sequence[int]
    digests: Sequence[str]
    """Of the decoded pixels; empty where an image cannot be decoded."""
    names: Sequence[str] = ()


@dataclass
class Report:
    """Problems: what is not as it must be. Notes: what one should know, and may be so."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    images: int = 0
    verdict: str = "all decoded, in the expected layout (no manifest says what they should be)"


def verify(suite: Suite, task: Task, root: Path | None, progress: Progress) -> Report:
    """Decode every image of a task and compare it with its manifest.

    Where there is none, the images must decode and, where the suite's layout says how many there
    are and that train800 and val200 are train800val200, that must be so. Images that are in a
    training and in the test split are a note: some data sets have them.
    """
    report, seen, files = Report(), dict[str, Pictures](), set[Path]()
    for split in task.sizes:
        try:
            opened = suite.open_split(task, split, root, 0)
        except (UsageError, RunError) as error:
            report.problems.append(f"{split}: {error}")
            continue
        seen[split] = look(opened, f"{task.name} {split}", report, progress)
        files.update(opened.files)
    report.images = len(files)  # some stand in several lists
    try:
        beside = manifest.read(root / task.name) if root else None
    except UsageError:
        return report  # said already, of every split
    if root and beside:
        report.verdict = f"all as prepared ({beside[0].lineage})"
        for split, said in beside[0].splits.items():
            if split in seen:
                file = root / task.name / f"{split}.digests"
                report.problems += _differences(split, seen[split], said, file)
    elif {WHOLE, *PARTS} <= task.sizes.keys():
        report.problems += layout(task, seen)
    else:
        report.notes += counts(task, seen)
    test = protocol.load(suite.protocol).test_split
    report.notes += _overlap(seen, test)
    return report


def look(split: Split, what: str, report: Report, progress: Progress) -> Pictures:
    """Decode all images; the first that cannot be decoded are a problem of the report."""
    names = [_short(file) for file in split.files] or [f"image {i}" for i in range(len(split))]

    def one(index: int) -> str | RunError:
        try:
            return digest.of_pixels(split.read(index))
        except RunError as error:
            return error

    found: list[str | RunError] = []
    for result in ahead.in_order(one, range(len(split))):
        found.append(result)
        progress(what, len(found), len(split))
    errors = [str(result) for result in found if isinstance(result, RunError)]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        report.problems.append(f"{split.name}: {errors[0]}{more}")
    digests = ["" if isinstance(result, RunError) else result for result in found]
    return Pictures(split.labels.tolist(), digests, names)


def layout(task: Task, seen: Mapping[str, Pictures]) -> list[str]:
    """What is wrong with the lists of a VTAB-1K task.

    The order of train800val200 is not compared: that of copies in use depends on who made them.
    """
    problems = counts(task, seen)
    if {WHOLE, *PARTS} <= seen.keys():
        parts = Counter(label for part in PARTS for label in seen[part].labels)
        whole = Counter(seen[WHOLE].labels)
        if parts != whole:
            label = min((parts - whole) + (whole - parts))
            problems.append(
                f"{WHOLE}: label {label} comes {whole[label]} times, and {parts[label]} times in "
                f"{' and '.join(PARTS)}; it must be these two together."
            )
        elif _contents(seen, PARTS) != _contents(seen, (WHOLE,)):
            problems.append(f"{WHOLE}: its images are not those of {' and '.join(PARTS)}.")
    return problems


def counts(task: Task, seen: Mapping[str, Pictures]) -> list[str]:
    """Splits of which more or fewer images are published."""
    return [
        f"{split}: {len(seen[split].labels):,} images; {size:,} are published."
        for split, size in task.sizes.items()
        if split in seen and len(seen[split].labels) != size
    ]


def _contents(seen: Mapping[str, Pictures], splits: Sequence[str]) -> Counter[tuple[str, int]]:
    pairs = (zip(seen[s].digests, seen[s].labels, strict=True) for s in splits)
    return Counter(pair for each in pairs for pair in each)


def _differences(split: str, seen: Pictures, said: Mapping[str, object], file: Path) -> list[str]:
    """How a split differs from what its manifest says, image by image where that is known."""
    text = digest.text(seen.digests, seen.labels)
    if hashlib.sha256(text.encode()).hexdigest() == said["pixels"]:
        return []
    if len(seen.labels) != said["count"]:
        return [f"{split}: {len(seen.labels):,} images; {said['count']:,} were prepared."]
    try:
        before = file.read_bytes()
    except OSError:
        before = b""
    if hashlib.sha256(before).hexdigest() != said["pixels"]:
        return [f"{split}: images or labels changed; which ones is lost, since {file} changed too."]
    lines = list(zip(seen.names, before.decode().splitlines(), text.splitlines(), strict=True))
    pixels = [name for name, old, new in lines if old.split(" ")[0] != new.split(" ")[0]]
    labels = [name for name, old, new in lines if old.split(" ")[1] != new.split(" ")[1]]
    return [
        f"{split}: {what} of {len(names)} of {len(lines):,} images changed: {_few(names)}"
        for what, names in (("the pixels", pixels), ("the labels", labels))
        if names
    ]


def _overlap(seen: Mapping[str, Pictures], test: str) -> list[str]:
    """Test images whose pixels are also those of a training image."""
    if test not in seen:
        return []
    trained = {
        pixels: name
        for split, pictures in seen.items()
        if split != test
        for pixels, name in zip(pictures.digests, pictures.names, strict=True)
    }
    shared = [
        f"{name} = {trained[pixels]}"
        for pixels, name in zip(seen[test].digests, seen[test].names, strict=True)
        if pixels and pixels in trained
    ]
    if not shared:
        return []
    return [f"{len(shared)} images of {test} are also training images: {_few(shared)}"]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _short(file: Path) -> str:
    """The end of a path, enough to find it in its data set."""
    return "/".join(file.parts[-3:])
