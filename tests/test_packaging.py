"""The wheel holds what the package needs, and the README's promises are true."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from petlbench.check import check
from petlbench.method import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_folder_of_code_is_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / "petlbench").rglob("*.py")}
    names = {".".join(folder.parts) for folder in folders} | {"petlbench.methods"}
    assert names == set(declared["packages"])


def test_the_wheel_is_complete(tmp_path: Path) -> None:
    """Built from the sdist, so that both are."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    source = tmp_path / "source"
    leave = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "results", "__pycache__")
    shutil.copytree(ROOT, source, ignore=leave)
    done = subprocess.run([*command, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for file in (source / "methods").glob("*.py"):
        assert f"petlbench/methods/{file.name}" in names
    for folder in ("mini", "protocols", "suites", "data"):
        for file in (source / "petlbench" / folder).iterdir():
            assert f"petlbench/{folder}/{file.name}" in names, file
    for file in (source / "methods" / "presets").iterdir():
        assert f"petlbench/methods/presets/{file.name}" in names
    assert {"petlbench/py.typed", "petlbench/references.bib"} <= names
    shipped = [i.file_size for i in zipfile.ZipFile(wheel).infolist() if "/mini/" in i.filename]
    assert sum(shipped) < 8 * 2**20
    assert not any(name.startswith("methods/") for name in names)


def test_readme_names_the_two_commands() -> None:
    assert "pip install . && petlbench run" in README
    assert "pip install '.[test]' && pytest" in README


def test_the_readme_method_is_sound(tmp_path: Path) -> None:
    """The complete example of the README passes the contract as it stands there."""
    (code,) = re.findall(r"```python\n(# mine\.py\n.*?)```", README, flags=re.DOTALL)
    file = tmp_path / "mine.py"
    file.write_text(code)
    findings = list(check(load(str(file))()))
    assert findings
    assert [finding for finding in findings if not finding.holds] == []


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:|#)([^)]+)\)", README))
def test_readme_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link.partition("#")[0]).exists(), link
