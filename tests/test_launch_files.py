"""The files of scripts/launch are read by the tools that they are for, and start commands that exist."""

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


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="no sbatch: apt-get install slurm-client")
def test_slurm_takes_its_options() -> None:
    told = subprocess.run(["sbatch", "--test-only", SLURM], capture_output=True, text=True, cwd=ROOT)
    assert "invalid" not in told.stderr.lower() and "unrecognized" not in told.stderr.lower(), told.stderr
