"""The wheel brings all that the package needs, and works where there is no checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as an installation would."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(out / "site")
    return out / "site"


def run(site: Path, *command: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(site), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=site, env=env, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_shipped_folders_are_found_in_the_wheel(site: Path) -> None:
    code = "from zhllama.resources import shipped as s; print(s('seeds_zh'), s('prompts_zh'), s('corpora', 'sample'), s('tasks_zh'))"
    for path in run(site, "-c", code).split():
        assert Path(path).is_relative_to(site) and any(Path(path).iterdir())


def test_it_ships_types_recipes_and_pages(site: Path) -> None:
    for name in ("py.typed", "recipes/chinese-llama-7b-stage1.yaml"):
        assert (site / "zhllama" / name).is_file()
    packed = {
        p.relative_to(site)
        for p in (site / "zhllama").rglob("*")
        if p.suffix in (".html", ".js", ".css", ".yaml")
    }
    assert packed >= {
        p.relative_to(ROOT)
        for p in (ROOT / "zhllama").rglob("*")
        if p.suffix in (".html", ".js", ".css", ".yaml")
    }


def test_the_main_job_runs_from_it(site: Path, tmp_path: Path) -> None:
    shown = run(
        site,
        "-m",
        "zhllama",
        "merge-vocab",
        "--recipe",
        "safe",
        "--fuzz",
        "100",
        "--out",
        str(tmp_path / "o"),
        "--json",
    )
    assert '"dead": 0' in shown
