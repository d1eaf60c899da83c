"""Make task folders: from original data sets, or from a copy that somebody else prepared.

A folder is made whole or not at all. It holds `images/`, a list per split (data/lists.py), what its
images are (`<split>.digests`, data/digest.py), `classes.txt` where the names are known, and
`manifest.json` (data/manifest.py). Every image from an original data set is stored as PNG, without
loss; `train800val200.txt` lists the files of `train800` and `val200`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from petlbench.data import ahead, digest, manifest
from petlbench.errors import RunError, UsageError
from petlbench.prepare import downloads
from petlbench.prepare.downloads import Progress
from petlbench.prepare.examples import Example, Source
from petlbench.prepare.verify import PARTS, WHOLE, Pictures
from petlbench.store import write_text
from petlbench.task import Task


@dataclass
class Outcome:
    """Names of tasks: made now, there already, and those that could not be made, with the why."""

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def prepare(
    tasks: Sequence[Task],
    sources: Mapping[str, Source],
    raw: Path,
    root: Path,
    *,
    download: bool = False,
    force: bool = False,
    progress: Progress,
) -> Outcome:
    """Make `root/<task>` for each task from `raw/<source>`; what is there already is left alone.

    `download` first gets what is missing and has a checksum; `force` makes everything anew. What
    is wrong with one task does not keep the others from being made.
    """
    outcome = Outcome()
    for name, source in sources.items():
        wanted = [task for task in tasks if task.name in source.TASKS]
        wanted = [task for task in wanted if force or not there(task, root, name, outcome)]
        if not wanted:
            continue
        origin = {"name": name, "title": source.TITLE, "url": source.HOMEPAGE}
        origin["licence"] = source.LICENCE
        try:
            progress(f"reading {name}", 0, 1)
            examples = _splits(source, raw / name, download, progress)
            progress(f"reading {name}", 1, 1)
        except (UsageError, RunError) as error:
            reason = "\n".join([str(error), *_instructions(source, raw / name, download)])
            outcome.failed |= {task.name: reason for task in wanted}
            continue
        for task in wanted:
            with told(outcome, task), whole(root, task.name) as folder:
                _write_class_names(folder, task, source)
                _write(folder, task, examples, origin, progress)
    made = {task for source in sources.values() for task in source.TASKS}
    for task in tasks:
        if task.name not in made:
            outcome.failed[task.name] = "it cannot be made from an original data set."
    return outcome


def _splits(
    source: Source, raw: Path, download: bool, progress: Progress
) -> dict[str, list[Example]]:
    try:
        return source.splits(raw)
    except UsageError:
        if not download or not any(one.checksum for one in source.DOWNLOAD):
            raise
    downloads.get(source, raw, progress)
    return source.splits(raw)


def _instructions(source: Source, raw: Path, download: bool) -> list[str]:
    """What to get and where to put it, and under which licence it is."""
    lines = [f"{source.TITLE} ({source.HOMEPAGE}, licence: {source.LICENCE}); {raw} must hold:"]
    lines += [f"  {need}" for need in source.NEEDS]
    for one in source.DOWNLOAD:
        size = f", {one.bytes:,} bytes" if one.bytes else ""
        how = " (--download gets it)" if one.checksum and not download else ""
        lines.append(f"  from {one.url}{size}{how}")
    return lines


@contextmanager
def told(outcome: Outcome, task: Task) -> Iterator[None]:
    """Write down how it went."""
    try:
        yield
        outcome.made.append(task.name)
    except (UsageError, RunError) as error:
        outcome.failed[task.name] = str(error)
    except OSError as error:  # a full disk, say
        outcome.failed[task.name] = f"cannot write: {error}"


def there(task: Task, root: Path, name: str, outcome: Outcome) -> bool:
    """Whether the task is made from `name` already, or something else has its place (a failure)."""
    folder = root / task.name
    _heal(root, task.name)
    if not folder.exists():
        return False
    try:
        beside = manifest.read(folder)
    except UsageError as error:
        outcome.failed[task.name] = str(error)
        return True
    if beside is not None and beside[0].source["name"] == name:
        outcome.kept.append(task.name)
        return True
    what = "was not made by petlbench"
    if beside is not None:
        what = f"was made from {beside[0].source['name']}"
    outcome.failed[task.name] = (
        f"{folder} is there and {what}. Choose another --data-root, or --force to replace it."
    )
    return True


@contextmanager
def whole(root: Path, name: str) -> Iterator[Path]:
    """A new folder to fill, which becomes `root/<name>` if nothing goes wrong meanwhile."""
    from filelock import FileLock

    root.mkdir(parents=True, exist_ok=True)
    partial, target, old = root / f".{name}.partial", root / name, root / f".{name}.old"
    with FileLock(root / f".{name}.lock"):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            if target.exists():
                os.replace(target, old)
            os.replace(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            _heal(root, name)


def _heal(root: Path, name: str) -> None:
    """Put back what was being replaced, if the new folder did not take its place; or remove it."""
    old, target = root / f".{name}.old", root / name
    if old.exists() and not target.exists():
        os.replace(old, target)
    shutil.rmtree(old, ignore_errors=True)


def _write(
    folder: Path,
    task: Task,
    examples: Mapping[str, Sequence[Example]],
    origin: Mapping[str, str],
    progress: Progress,
) -> None:
    members = {split: examples[split] for split in (*PARTS, "test")}
    for split, its in members.items():
        if len(its) != task.sizes[split]:
            raise UsageError(f"{split} has {len(its)} images; {task.sizes[split]} are expected.")
    made: dict[str, Pictures] = {}
    for split, its in members.items():
        labels = [_label(example, task) for example in its]
        names = [f"images/{split}/{index:06d}.png" for index in range(len(its))]
        (folder / "images" / split).mkdir(parents=True)
        work = [(example, folder / name) for example, name in zip(its, names, strict=True)]
        digests: list[str] = []
        for pixels in ahead.in_order(_store, work):
            digests.append(pixels)
            progress(f"{task.name} {split}", len(digests), len(its))
        made[split] = Pictures(labels, digests, names)
    members[WHOLE] = [example for part in PARTS for example in members[part]]
    made[WHOLE] = Pictures(
        [label for part in PARTS for label in made[part].labels],
        [pixels for part in PARTS for pixels in made[part].digests],
        [name for part in PARTS for name in made[part].names],
    )
    for split, pictures in made.items():
        lines = zip(pictures.names, pictures.labels, strict=True)
        write_text(folder / f"{split}.txt", "".join(f"{name} {label}\n" for name, label in lines))
    keys = {s: _sha256("\n".join(one.key for one in its)) for s, its in members.items()}
    finish(folder, task, "lossless", origin, made, keys)


def _write_class_names(folder: Path, task: Task, source: Source) -> None:
    """The suite's names, or those that the source's labels are made from, where it has them."""
    known = getattr(source, "CLASSES", ())
    names = task.class_names or (known if isinstance(known, tuple) else ())
    if len(names) == task.classes:
        text = "".join(f"{name.replace('_', ' ')}\n" for name in names)
        write_text(folder / "classes.txt", text)


def _store(item: tuple[Example, Path]) -> str:
    """Decode one image and write it; the digest of its pixels. Called from several threads."""
    example, file = item
    try:
        image = example.read()
        image = image if image.mode in ("L", "RGB") else image.convert("RGB")
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"cannot decode {example.origin}: {error}") from error
    image.info = {}  # pixels, and nothing that a reader might apply to them
    image.save(file)
    return digest.of_pixels(image)


def _label(example: Example, task: Task) -> int:
    label = example.labels[task.name]
    if not 0 <= label < task.classes:
        raise UsageError(f"{example.origin}: label {label} is not in 0..{task.classes - 1}.")
    return label


def finish(
    folder: Path,
    task: Task,
    lineage: str,
    origin: Mapping[str, str],
    pictures: Mapping[str, Pictures],
    keys: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the digests of every split, and last the manifest. `keys`: split -> SHA-256."""
    splits: dict[str, dict[str, int | str]] = {}
    for split in sorted(pictures):
        text = digest.text(pictures[split].digests, pictures[split].labels)
        write_text(folder / f"{split}.digests", text)
        splits[split] = {"count": len(pictures[split].labels), "pixels": _sha256(text)}
        if split in keys:
            splits[split]["keys"] = keys[split]
    made = manifest.Manifest(task.name, lineage, origin, splits)
    write_text(folder / manifest.NAME, made.text())


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
