"""Methods are found by file name, by path and by entry point, and described completely."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from petlbench import check, method
from petlbench.errors import RunError, UsageError

MINE = '''\
"""A method of my own."""
from dataclasses import dataclass

from petlbench.method import Method, setting


@dataclass(frozen=True)
class Mine(Method):
    """Mine: trains the class token.

    Not published.
    """

    scale: float = setting(1.0, above=0)

    def attach(self, backbone):
        backbone.vit.norm.bias.requires_grad_(True)

    def num_trainable(self, shape):
        return shape.blocks[0].dim
'''


def write(file: Path, text: str = MINE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return write(tmp_path / "mine.py")


def test_built_in_methods_are_the_files() -> None:
    files = {p.stem for p in method.folder().glob("*.py")} - {"__init__"}
    families = {f"_{family}" for family in method.families()}
    assert method.builtin().keys() == files - families and families == {"_peft"}
    expected = "full linear bitfit vpt vpt_shallow adapter adaptformer lora convpass convpass_attn"
    assert files >= set(expected.split())


@pytest.mark.parametrize("name", method.builtin())
def test_each_is_described(name: str) -> None:
    spec = method.specify(name)
    assert (spec.name, spec.label, spec.source) == (name, name, None)
    assert spec.build() == method.load(name)()
    summary = method.summary(method.builtin()[name])
    assert summary and summary == (method.load(name).__doc__ or "").strip().splitlines()[0]


def test_settings_are_written_out_and_shown() -> None:
    spec = method.specify("lora", {"rank": 4})
    assert spec.label == "lora(rank=4)"
    assert spec.config == {"rank": 4, "alpha": 8.0, "dropout": 0.0}
    assert method.specify("lora", {"rank": 8}).label == "lora"
    assert method.specify("lora", {"alpha": 8}) == method.specify("lora")


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("lora", {"rnk": 4}, "unknown setting of lora 'rnk'. Did you mean rank?"),
        ("lora", {"rank": 0}, "lora.rank = 0 is out of range; it must be >= 1."),
        ("lora", {"rank": "4"}, "lora.rank = '4' must be of type int."),
        ("linear", {"rank": 4}, "linear has no settings; remove linear.rank."),
        ("convpas", {}, "unknown method 'convpas'. Did you mean convpass"),
        ("Lora", {}, "Did you mean lora"),
        ("zzzz", {}, "./mine.py"),
    ],
)
def test_bad_requests_are_refused(name: str, config: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        method.specify(name, config)
    assert message in str(raised.value)


def test_a_file_is_a_method(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = method.specify(str(mine), {"scale": 2})
    assert (spec.name, spec.label, spec.config) == ("mine", "mine(scale=2.0)", {"scale": 2.0})
    assert spec.reference == str(mine)
    assert type(spec.build()).__name__ == "Mine"
    monkeypatch.chdir(mine.parent)
    assert method.specify("./mine.py") == method.specify("mine.py") == method.specify(str(mine))


def test_bad_settings_name_the_file(mine: Path) -> None:
    with pytest.raises(UsageError, match=r"^mine\.scale = -1\.0 is out of range"):
        method.specify(str(mine), {"scale": -1.0})


def test_edited_code_is_another_method(mine: Path) -> None:
    before = method.specify(str(mine))
    assert method.specify(str(mine)) == before
    mine.write_text(MINE.replace("class token", "norm"))
    after = method.specify(str(mine))
    assert after.source != before.source
    after.build()  # the new code, not a cached module
    with pytest.raises(RunError, match="was edited since the run was planned"):
        before.build()


def test_a_file_of_the_same_name_does_not_shadow_the_built_in(tmp_path: Path) -> None:
    own = write(tmp_path / "lora.py")
    spec = method.specify(str(own))
    assert (spec.name, type(spec.build()).__name__) == ("lora", "Mine")
    assert spec.source is not None
    assert type(method.specify("lora").build()).__name__ == "LoRA"
    assert method.load("lora").__module__ == "petlbench.methods.lora"


def test_two_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    first = method.load(str(write(tmp_path / "a" / "mine.py")))
    second = method.load(str(write(tmp_path / "b" / "mine.py", MINE.replace("1.0", "3.0"))))
    assert (first().scale, second().scale) == (1.0, 3.0)  # type: ignore[attr-defined]


def test_the_path_of_a_built_in_is_the_built_in() -> None:
    spec = method.specify(str(method.builtin()["lora"]))
    assert type(spec.build()) is method.load("lora")
    assert spec.source is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must define exactly one Method subclass; found: none."),
        (MINE + MINE.partition("\n\n")[2].replace("Mine", "Other"), "found: Mine, Other."),
        ("def broken(:\n", "cannot be imported: SyntaxError"),
        ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("1 / 0\n", "cannot be imported: ZeroDivisionError"),
        (MINE.replace("@dataclass(frozen=True)\n", ""), "put @dataclass(frozen=True) above Mine."),
        (MINE.replace("(frozen=True)", ""), "cannot be imported: TypeError"),
        (MINE.replace("= setting(1.0, above=0)", ""), "scale"),
        (MINE.replace("setting(1.0, above=0)", "-1.0\n    rank: int = 2.5"), "mine.rank = 2.5"),
    ],
    ids=[
        "empty",
        "two",
        "syntax",
        "import",
        "raises",
        "undecorated",
        "unfrozen",
        "no-default",
        "bad-default",
    ],
)
def test_a_file_that_is_no_method_says_why(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path / "mine.py", text)
    with pytest.raises(UsageError) as raised:
        method.specify(str(file))
    assert message in str(raised.value)
    assert "mine" in str(raised.value)


@pytest.mark.parametrize("reference", ["./nothing.py", "no/such/folder/mine.py", "/", "./"])
def test_a_missing_file_is_named(reference: str) -> None:
    with pytest.raises(UsageError, match="no method file at /"):
        method.load(reference)


def test_a_file_that_is_not_python_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        method.load("./notes.txt")


def test_a_base_class_may_be_imported_into_a_file(tmp_path: Path) -> None:
    text = "from petlbench.methods.lora import LoRA, Method\n" + MINE.replace("(Method)", "(LoRA)")
    spec = method.specify(str(write(tmp_path / "mine.py", text)))
    assert spec.config.keys() == {"rank", "alpha", "dropout", "scale"}


def test_summary_does_not_run_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", MINE + "\nraise SystemExit\n")
    assert method.summary(file) == "Mine: trains the class token."
    assert method.summary(write(tmp_path / "bare.py", '"""Text.\n\nMore."""\n')) == "Text."
    assert method.summary(write(tmp_path / "empty.py", "")) == ""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that offers methods through entry points."""
    site = tmp_path / "site"
    write(site / "their_package_xyz.py", MINE)
    write(site / "their_broken_xyz.py", "import no_such_package\n")
    info = site / "their_package_xyz-1.0.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: their-package-xyz\nVersion: 1.0\n")
    write(
        info / "entry_points.txt",
        "[petlbench.methods]\n"
        "theirs = their_package_xyz:Mine\n"
        "theirs_module = their_package_xyz\n"
        "lora = their_package_xyz:Mine\n"
        "broken = their_broken_xyz:Mine\n"
        "absent = their_package_xyz:NotThere\n"
        "no_method = their_package_xyz:dataclass\n"
        "another_class = pathlib:Path\n",
    )
    monkeypatch.syspath_prepend(str(site))
    for name in [name for name in sys.modules if name.endswith("_xyz")]:
        monkeypatch.delitem(sys.modules, name)
    return site


@pytest.mark.parametrize("name", ["theirs", "theirs_module"])
def test_an_entry_point_is_a_method(package: Path, name: str) -> None:
    assert name in method.installed()
    spec = method.specify(name, {"scale": 3.0})
    assert (spec.name, spec.label) == (name, f"{name}(scale=3.0)")
    assert spec.source is not None
    assert type(spec.build()).__name__ == "Mine"


def test_an_entry_point_cannot_replace_a_built_in(package: Path) -> None:
    assert method.load("lora").__module__ == "petlbench.methods.lora"


def test_entry_points_are_suggested(package: Path) -> None:
    with pytest.raises(UsageError, match=r"Did you mean .*theirs"):
        method.load("theirz")


@pytest.mark.parametrize("name", ["broken", "absent", "no_method", "another_class"])
def test_a_broken_entry_point_says_which(package: Path, name: str) -> None:
    with pytest.raises(UsageError, match=name):
        method.specify(name)


def test_a_method_must_say_how_it_attaches() -> None:
    bare = method.Method()
    with pytest.raises(NotImplementedError, match="does not say how it attaches"):
        bare.attach(None)  # type: ignore[arg-type]
    shape = check.tiny("[cls] token").shape
    with pytest.raises(NotImplementedError, match="does not declare its parameter count"):
        bare.num_trainable(shape)
    assert bare.identity_at_init()


def test_listing_methods_does_not_import_torch() -> None:
    code = (
        "import sys; from petlbench import method\n"
        "[method.summary(file) for file in method.builtin().values()]; method.installed()\n"
        "[method.members(file) for file in method.families().values()]\n"
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
