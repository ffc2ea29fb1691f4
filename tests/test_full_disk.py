"""A disk that fills up while a model is grown or exported: one line, and nothing half is left, wherever it happens."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.model_toys import larger_vocabulary, line, write_model, write_run, write_tokenizer

FULL = r"No space left on device|requested and \d+ written"  # the latter as numpy says it
Disk = Callable[[int], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Makes small disks, of so many KiB."""
    made: list[Path] = []

    def make(size: int) -> Path:
        folder = tmp_path / f"disk-{size}"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("no right to mount a small tmpfs")
        made.append(folder)
        return folder

    yield make
    for folder in made:
        subprocess.run(["umount", folder], check=True)


def fills(tmp_path: Path, disk: Disk, *arguments: object) -> int:
    """Runs a command with --out on disks of all sizes up to one that holds its product; how many were too small."""
    for tried, size in enumerate((8, 60, 100, 150, 300, 500, 600, 700, 900, 1200, 1800, 4000)):
        folder = disk(size)
        told = line(tmp_path, *arguments, "--out", folder / "out")
        if told.code == 0:
            assert (folder / "out" / "manifest.json").is_file()
            return tried
        assert told.code == 1 and told.err.count("\n") == 1 and re.search(FULL, told.err), told.err
        assert told.err.startswith(f"zhllama: {folder}") and told.out == "", told.err
        assert not list(folder.iterdir()), [str(p) for p in folder.rglob("*")]
    raise AssertionError("it fits no disk")


@pytest.mark.parametrize("shard", ["1GB", "100KB"])
def test_grow(tmp_path: Path, disk: Disk, shard: str) -> None:
    write_model(tmp_path / "base", shard=shard)
    write_tokenizer(larger_vocabulary(), tmp_path / "tok")
    assert fills(tmp_path, disk, "grow", "--model", "base", "--tokenizer", "tok") >= 5


@pytest.mark.parametrize("more", [(), ("--gguf", "f16")])
def test_export(tmp_path: Path, disk: Disk, more: tuple[str, ...]) -> None:
    write_model(tmp_path / "base")
    write_run(tmp_path / "run", tmp_path / "base", new=range(500, 600), lora=True)
    assert fills(tmp_path, disk, "export", "run", *more) >= 5
