"""The files of scripts/launch are read by the tools that they are for, and start commands that exist."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.test_docs import parse

LAUNCH = ROOT / "scripts" / "launch"
SKY = LAUNCH / "pretrain.sky.yaml"
SLURM = LAUNCH / "pretrain.slurm"


@pytest.mark.parametrize("path", sorted(LAUNCH.glob("[!p]*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_configs(path: Path) -> None:
    config = pytest.importorskip("accelerate.commands.config.config_args")
    read = config.load_config_from_file(str(path))
    assert read.num_processes >= 1 and read.distributed_type.value in ("FSDP", "DEEPSPEED")
    head = path.read_text(encoding="utf-8").splitlines()[0]
    assert f"--config_file scripts/launch/{path.name} -m zhllama pretrain" in head


def test_the_skypilot_job_is_one_of_zhllama_with_all_paths_under_one_variable() -> None:
    job = yaml.safe_load(SKY.read_text(encoding="utf-8"))
    assert list(job["file_mounts"]) == ["${WORK}"]
    (line,) = [part for part in job["run"].replace("\\\n", " ").splitlines() if "zhllama pretrain" in part]
    words = shlex.split(line)
    given = words[words.index("zhllama") + 1 :]
    assert not [word for word in given if re.search(r"(?:^|=)/", word)], "a path that is not under $WORK"
    parse(tuple(word.replace("$WORK", "/w").replace("$MODEL", "m").replace("$RUN", "r") for word in given))


def test_skypilot_reads_its_job() -> None:
    sky = pytest.importorskip("sky", reason="no skypilot: pip install skypilot")
    task = sky.Task.from_yaml(str(SKY))
    assert list(task.storage_mounts) == [task.envs["WORK"]]
    assert {str(name) for use in task.resources for name in use.accelerators} == {"A100-80GB"}


def test_the_slurm_script_starts_a_command_of_zhllama() -> None:
    subprocess.run(["bash", "-n", SLURM], check=True)
    text = SLURM.read_text(encoding="utf-8")
    (example,) = re.findall(r"^# sbatch scripts/launch/pretrain.slurm (.+)$", text, re.M)
    parse(("pretrain", *shlex.split(example), "--resume"))


# What sbatch needs before it reads a script: a cluster, here without a controller.
CLUSTER = """ClusterName=none
SlurmctldHost=none(127.0.0.1)
SlurmctldPort=1
AuthType=auth/none
CryptoType=crypto/none
MessageTimeout=2
SlurmctldTimeout=2
GresTypes=gpu
NodeName=n
PartitionName=p Nodes=n Default=YES
"""


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="no sbatch: apt-get install slurm-client")
@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("--nodes", "--nodes", "Unable to contact slurm controller"),  # all options were read
        ("--nodes", "--nodez", "unrecognized option '--nodez"),
        ("--time=48:00:00", "--time=never", "Invalid --time specification"),
        ("--ntasks-per-node=1", "--ntasks-per-node=one", "Invalid"),
    ],
)
def test_slurm_reads_its_options(tmp_path: Path, right: str, wrong: str, told: str) -> None:
    """sbatch reads every #SBATCH line before it asks the controller, which is not there, for a place in the queue."""
    (tmp_path / "slurm.conf").write_text(CLUSTER, encoding="utf-8")
    text = SLURM.read_text(encoding="utf-8")
    assert right in text
    (tmp_path / "job.slurm").write_text(text.replace(right, wrong), encoding="utf-8")
    environment = {**os.environ, "SLURM_CONF": str(tmp_path / "slurm.conf")}
    command = ["sbatch", "--test-only", tmp_path / "job.slurm"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert told in done.stderr, done.stderr
