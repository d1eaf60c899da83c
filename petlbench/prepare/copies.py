"""Take VTAB-1K folders that somebody else prepared, as they are: checked, and labelled as such.

NOAH's layout (data/vtab-source/get_vtab1k.py of ZhangYuanhan-AI/NOAH): data/lists.py reads it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from petlbench.data import lists
from petlbench.errors import UsageError
from petlbench.prepare import archives
from petlbench.prepare.downloads import Progress
from petlbench.prepare.originals import Outcome, finish, there, told, whole
from petlbench.prepare.verify import Pictures, Report, layout, look
from petlbench.task import Task

HUB = re.compile(r"hf:([\w.-]+/[\w.-]+)@([0-9a-f]{40})")
JPEG = b"\xff\xd8\xff"


def take(
    tasks: Sequence[Task], source: str, root: Path, *, force: bool = False, progress: Progress
) -> Outcome:
    """Copy each task from `source` into `root/<task>`, if all its images are sound.

    `source`: a folder or an archive (archives.py) that holds task folders, itself or up to two
    folders deep; or `hf:OWNER/NAME@COMMIT`, a data set of the Hugging Face hub. Raises UsageError
    if it cannot be opened; what is wrong with a task is told by the outcome.
    """
    name = source if source.startswith("hf:") else Path(source).name
    outcome = Outcome()
    todo = [task for task in tasks if force or not there(task, root, name, outcome)]
    if not todo:
        return outcome
    root.mkdir(parents=True, exist_ok=True)
    with _opened(source, root, progress) as (base, sha256, copy):
        origin = {"name": name} | ({"sha256": sha256} if sha256 else {})
        for task in todo:
            with told(outcome, task):
                _take(task, base, source, root, origin, copy, progress)
    return outcome


Copy = Callable[[Path, Path], object]


def _take(
    task: Task,
    base: Path,
    source: str,
    root: Path,
    origin: dict[str, str],
    copy: Copy,
    progress: Progress,
) -> None:
    folder = _find(base, task, source)
    report, seen, files, lineages = Report(), dict[str, Pictures](), set[Path](), set[str]()
    for split in task.sizes:
        try:
            opened = lists.open_split(folder.parent, folder.name, split, task.classes)
        except UsageError as error:
            report.problems.append(str(error))
            continue
        files |= set(opened.files)
        lineages.add(lists.lineage(folder, opened.files))
        missing = [file for file in opened.files if not file.is_file()]
        if missing:
            report.problems.append(f"{split}: {len(missing)} images are missing: {missing[0]}")
            continue
        seen[split] = look(opened, f"{task.name} {split}", report, progress)
    problems = report.problems + layout(task, seen)
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems)
        raise UsageError(f"the copy is not taken:\n{shown}".replace(str(base), source))
    noah = lineages == {"noah-jpeg"} and all(map(_is_jpeg, files))
    with whole(root, task.name) as target:
        for done, file in enumerate(sorted(files), start=1):
            place = target / file.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            copy(file, place)
            progress(f"{task.name} copying", done, len(files))
        for name in (*(f"{split}.txt" for split in task.sizes), "classes.txt"):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)
        finish(target, task, "noah-jpeg" if noah else "unknown", origin, seen)


def _is_jpeg(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(JPEG)) == JPEG


def _find(base: Path, task: Task, source: str) -> Path:
    """The task's folder. Raises UsageError if there is none, or more than one."""
    names = (task.name, *task.aliases)
    patterns = [f"{up}{name}/test.txt" for name in names for up in ("", "*/", "*/*/")]
    found = sorted({file.parent for pattern in patterns for file in base.glob(pattern)})
    if not found:
        raise UsageError(f"{source} has no folder {' or '.join(names)} with test.txt in it.")
    if len(found) > 1:
        raise UsageError(
            f"{source} has it more than once: {', '.join(map(str, found))}".replace(
                str(base), source
            )
        )
    return found[0]


@contextmanager
def _opened(source: str, root: Path, progress: Progress) -> Iterator[tuple[Path, str, Copy]]:
    """The folder that holds the tasks, the SHA-256 of the archive, and how files are taken."""
    if source.startswith("hf:"):
        base = _snapshot(source)
        packed = [] if any(base.glob("**/test.txt")) else _archives(base)
    else:
        base = Path(source).expanduser()
        packed = [] if base.is_dir() else [base]
        if not base.exists():
            raise UsageError(f"--from {source}: there is no such folder or archive.")
    if not packed:
        yield base, "", shutil.copyfile
        return
    if len(packed) > 1:
        names = ", ".join(file.name for file in packed)
        raise UsageError(f"{source} has several archives: get one and give its path: {names}")
    fresh = root / f".{packed[0].name}.extracted"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        progress(f"extracting {packed[0].name}", 0, 1)
        archives.extract(packed[0], fresh)
        progress(f"extracting {packed[0].name}", 1, 1)
        with packed[0].open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        yield fresh, sha256, os.replace
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _archives(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if archives.is_archive(file))


def _snapshot(source: str) -> Path:
    parts = HUB.fullmatch(source)
    if parts is None:
        raise UsageError(
            f"--from {source}: write hf:OWNER/NAME@COMMIT with all 40 digits of the commit; a "
            "branch or a tag can change."
        )
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(parts[1], repo_type="dataset", revision=parts[2])
    except Exception as error:  # the hub's, and those of whatever it talks to the network with
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"{source} cannot be had from the hub: {reason}\nThe same command goes on from there."
        ) from error
    return Path(folder)
