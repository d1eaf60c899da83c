"""Sweeps through submitit's own engines: what dies takes nothing along, and sweeps end."""

from __future__ import annotations

import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import CLI

from backends._sweeps import DIED, assert_same_bits, here, mortal, status
from petlbench import api, estimate, plan, request
from petlbench.backends import slurm
from petlbench.errors import UsageError
from petlbench.request import Request

pytest.importorskip("submitit")

LOCAL: dict[str, Any] = {"timeout_min": 5, "cluster": "local"}


@pytest.fixture
def sent(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments of a very short run that is sent to jobs."""
    monkeypatch.setattr(slurm, "POLL", 0.1)
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 1)
    settings = small["settings"] | {"protocol.precision": "fp32"}
    chosen = {"settings": settings, "attention": "explicit", "jobs": None}
    return small | chosen | {"backend": "slurm", "resources": LOCAL}


@pytest.mark.parametrize(("cluster", "seeds"), [("local", 3), ("debug", 1)])
def test_jobs_give_the_same_bits_as_this_machine(
    sent: dict[str, Any], cluster: str, seeds: int
) -> None:
    resources = {"timeout_min": 5, "cluster": cluster, "runs_per_job": 2}
    result = api.run(**sent | {"seeds": seeds, "resources": resources})
    assert (result.done, result.failed) == (seeds, 0)
    api.run(**here(sent, seeds=seeds, results="here"))
    assert_same_bits("results/small", "here", seeds)
    pickles = list(Path("results/small/jobs").glob("*/*_submitted.pkl"))
    assert len(pickles) == (2 if cluster == "local" else 0)  # two runs, and one


DIES = '''
import os, signal
from dataclasses import dataclass
from pathlib import Path
from petlbench.methods.linear import Linear as Base

@dataclass(frozen=True)
class Dies(Base):
    """Is killed in mid-run until the file `fixed` appears."""
    def attach(self, backbone):
        super().attach(backbone)
        here = Path(__file__)
        if not here.with_name("fixed").exists():
            if here.with_name("whole").exists():
                os.kill(os.getppid(), signal.SIGKILL)  # the job, not this run alone
            os.kill(os.getpid(), signal.SIGKILL)
'''


def test_a_run_that_is_killed_takes_no_neighbour_along(
    sent: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = sent | {"methods": ["bitfit", mortal(tmp_path, "run"), "linear"]}
    result = api.run(**request | {"resources": LOCAL | {"runs_per_job": 3}})
    assert (result.done, result.failed) == (2, 1)
    assert f"failed: dies on digits, seed 0: {DIED}" in capsys.readouterr().err
    assert status() == {"bitfit": "done", "dies": "failed", "linear": "done"}

    (tmp_path / "die").unlink()
    again = api.run(**here(request))  # another backend ends the sweep
    assert (again.done, again.failed) == (3, 0)
    assert set(status().values()) == {"done"}


def test_what_a_killed_job_left_is_told_and_done_by_the_next_command(
    sent: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = sent | {"methods": ["linear", mortal(tmp_path, "parent"), "bitfit"]}
    result = api.run(**request | {"resources": LOCAL | {"runs_per_job": 3}})
    assert (result.done, result.failed) == (1, 2)  # the one before it is recorded
    told = capsys.readouterr().err
    assert "failed: bitfit on digits, seed 0: its job ended before it was recorded; see " in told
    assert status() == {"linear": "done"}

    again = api.run(**request | {"resources": LOCAL | {"runs_per_job": 2}})
    assert (again.done, again.failed) == (3, 0)


PREEMPTED = '''
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
from petlbench.methods.linear import Linear as Base

@dataclass(frozen=True)
class Preempted(Base):
    """Its job is told to make room the first time, as SLURM does: with a signal to each process."""
    def attach(self, backbone):
        super().attach(backbone)
        with Path(__file__).with_name("starts").open("a+") as file:
            file.seek(0)
            first = not file.read()
            file.write("start ")
        if first:
            for process in (os.getpid(), os.getppid()):
                os.kill(process, signal.SIGTERM)
                os.kill(process, signal.SIGUSR2)
            time.sleep(120)
'''


def test_a_preempted_job_is_queued_again_and_goes_on(sent: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "preempted.py").write_text(PREEMPTED)
    request = sent | {"methods": ["linear", "./preempted.py"]}
    begin = time.monotonic()
    result = api.run(**request | {"resources": LOCAL | {"runs_per_job": 2}})
    assert (result.done, result.failed) == (2, 0)
    assert time.monotonic() - begin < 120  # the run was ended, not waited for
    assert (tmp_path / "starts").read_text() == "start start "
    (log,) = Path("results/small/jobs").glob("*/*.err")
    assert "Bypassing signal SIGTERM" in log.read_text()
    assert "Caught signal SIGUSR2" in log.read_text()


SBATCH = """#!/bin/sh
cp "$1" {folder}/sbatch.sh
echo "Submitted batch job 17"
"""


def test_sbatch_is_asked_for_an_array_with_these_resources(
    sent: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM itself is not here: only the script that it would be given."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in {"srun": "#!/bin/sh\n", "sbatch": SBATCH.format(folder=tmp_path)}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tools}:{Path(shutil.which('sh') or '').parent}")
    resources = {"timeout_min": 90, "mem_gb": 12, "gpus_per_node": 1, "slurm_partition": "long"}
    request = sent | {"seeds": 5, "jobs": 2, "resources": resources | {"runs_per_job": 2}}
    made = plan.make(Request(**request))
    monkeypatch.setattr("submitit.helpers.as_completed", lambda jobs, **_: iter(()))
    machine = made.machine
    list(slurm.run(lambda *_: None, made.specs, made.store, machine, made.request.resources))
    script = (tmp_path / "sbatch.sh").read_text()
    for line in ("array=0-2%2", "time=90", "mem=12GB", "gpus-per-node=1", "partition=long"):
        assert f"#SBATCH --{line}\n" in script


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"resources": {}}, r"--resource timeout_min=240"),
        ({"resources": {"clutser": "local"}}, r"unknown resource 'clutser'\. Did you mean cluster"),
        ({"resources": {"timeout_min": "abc"}}, r"timeout_min.*abc"),
        ({"resources": LOCAL | {"runs_per_job": 0}}, r"runs_per_job=0: it must be a whole number"),
        ({"device": "auto"}, r"say --device cuda or --device cpu"),
        ({"settings": {"protocol.precision": "auto"}}, r"say --precision bf16 or --precision fp32"),
        ({"backend": "slrum"}, r"unknown backend 'slrum'. Did you mean slurm\?"),
        ({"backend": "local"}, r"--resource timeout_min: on this machine say --jobs"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_runs(
    sent: dict[str, Any], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        plan.make(Request(**sent | changes))
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        ({"timeout_min": 5}, "srun(.|\n)*without SLURM: --resource cluster=local"),
        (LOCAL | {"slurm_partitoin": "long"}, "slurm_partitoin"),
        (LOCAL | {"mem_gb": "much"}, "mem_gb"),
        (LOCAL | {"cluster": "abacus"}, "abacus"),
    ],
)
def test_what_submitit_refuses_is_a_message(
    sent: dict[str, Any], resources: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/nowhere")
    with pytest.raises(UsageError, match=f"--backend slurm: (.|\n)*{told}"):
        api.run(**sent | {"resources": resources})


def test_jobs_of_this_machine_do_not_hear_ctrl_c() -> None:
    heard = signal.getsignal(signal.SIGINT)
    with slurm._deaf():
        told = [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGINT).name)"]
        assert subprocess.run(told, capture_output=True, text=True).stdout == "SIG_IGN\n"
    assert signal.getsignal(signal.SIGINT) is heard


def test_without_submitit_the_message_says_what_to_install(
    sent: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'petlbench\[slurm\]'"):
        Request(**sent)


SENT = ("--backend", "slurm", "--device", "cpu", "--precision", "fp32")


def test_resources_come_from_the_command_line(cli: CLI) -> None:
    given = ("--resource", "timeout_min=5", "--resource", "slurm_partition=gpu")
    found = cli("plan", *SENT, *given, small=True)
    assert found.code == 0, found.err
    assert "estimated time: known once runs are recorded" in found.out
    cli("plan", *SENT, "--resource", "timeout_min", small=True).refused("write it as NAME=VALUE")
    cli("plan", *SENT, small=True).refused("--resource timeout_min=240")


PLAN = """
backend = "slurm"
device = "cpu"

[resources]
timeout_min = 5
slurm_partition = "gpu"
"""


def test_resources_come_from_a_plan_file(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)

    def read(**changes: Any) -> Request:
        return request.from_file(tmp_path / "plan.toml", changes)

    assert (read().backend, read().resources) == (
        "slurm",
        {"timeout_min": 5, "slurm_partition": "gpu"},
    )
    more = read(resources={"timeout_min": 9})  # the command line wins
    assert more.resources == {"timeout_min": 9, "slurm_partition": "gpu"}
    assert read(backend="local").resources == {}
    (tmp_path / "plan.toml").write_text(PLAN.replace('backend = "slurm"', ""))
    assert read(backend="slurm").resources["timeout_min"] == 5


def test_other_machines_are_not_judged_by_this_one(sent: dict[str, Any]) -> None:
    made = plan.make(
        Request(**sent | {"device": "cuda", "attention": "auto", "seeds": 3, "threads": 4})
    )
    machine = made.machine
    assert (machine.device, machine.jobs, machine.threads) == ("cuda", 3, 4)
    assert (machine.attention, machine.workers) == ("fused", 4)
    assert estimate.wall_seconds(made, measure=True) == (None, "")
