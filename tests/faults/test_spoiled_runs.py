"""What a run leaves, spoiled by the disk: cut off anywhere, emptied, a bit flipped, gone. The command that reads it gives
the right result, or one line that names what is spoiled; what it asks for then mends it."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.world import COMMANDS, Command, products
from tests.model_toys import Told, line
from tests.serving import served
from tests.test_gen_zh import gen_zh, imported
from zhllama.errors import InputError
from zhllama.manifest import check_outputs
from zhllama.model.chain import resolve_chain
from zhllama.run import Run
from zhllama.training import trainer
from zhllama.training.checkpoint import last_checkpoint
from zhllama.training.packed_blocks import PackedBlocks
from zhllama.training.reward import RewardModel
from zhllama.vocab.folder import base_of, recipe_of

__all__ = ["imported", "served"]
Spoil = Callable[[bytes], bytes | None]


def cut(share: float) -> Spoil:
    return lambda good: good[: int(len(good) * share)]


def flipped(seed: int) -> Spoil:
    """One bit, anywhere."""

    def flip(good: bytes) -> bytes:
        made, chance = bytearray(good), random.Random(seed)
        made[chance.randrange(len(made))] ^= 1 << chance.randrange(8)
        return bytes(made)

    return flip


WAYS: dict[str, Spoil] = {
    "gone": lambda good: None, "emptied": lambda good: b"", "cut in half": cut(0.5), "without its last byte": lambda good: good[:-1],
    "a bit": flipped(0), "longer": lambda good: good + b"\0",
}  # fmt: skip


def spoil(path: Path, way: Spoil) -> None:
    made = way(path.read_bytes())
    path.unlink()
    if made is not None:
        path.write_bytes(made)


def refused(told: Told, named: Path) -> bool:
    """Exit 1 with one last line of ours that names the file and says what to do; False where all went well."""
    if told.code == 0:
        return False
    last = told.err.splitlines()[-1]
    assert told.code == 1 and last.startswith("zhllama: ") and "internal error" not in last, told.err
    assert str(named) in last and last.count(". ") >= 1 and "Traceback" not in told.err, told.err
    return True


@pytest.fixture(scope="module")
def half(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training run that was stopped behind its checkpoint of step 4 of 6."""

    def stop(
        self: trainer.TrainingLog, arguments: object, state: object, *rest: object, **more: object
    ) -> None:
        if getattr(state, "global_step", 0) == 5:
            raise KeyboardInterrupt

    folder = tmp_path_factory.mktemp("half")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.TrainingLog, "on_step_end", stop, raising=False)
        told = line(world, *training(folder / "cache").line(folder / "run"))
    assert told.code == 130, told.err
    assert [p.name for p in (folder / "run" / "checkpoints").iterdir()] == ["checkpoint-4"]
    return folder


def training(cache: Path) -> Command:
    return Command((*COMMANDS["pretrain"].words, "--cache", str(cache)), resumes=True)


FILES = (
    "trained.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "sha256.json",
)


def check_folder(folder: Path, name: str, read: Callable[[], object], flips: int = 100) -> None:
    """Whatever befalls one file of a folder, reading the folder tells of it."""
    whole = (folder / name).read_bytes()
    for way in (*WAYS.values(), *map(cut, (0.01, 0.3, 0.99)), *map(flipped, range(flips))):
        spoil(folder / name, way)
        try:
            read()
        except InputError as error:
            assert str(folder) in str(error)
        else:  # only the end of its last line is gone, so that it says the same as before
            assert name == "sha256.json" and json.loads((folder / name).read_bytes()) == json.loads(whole)
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint(half: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(half / "run" / "checkpoints", tmp_path / "c")
    assert {p.name for p in (tmp_path / "c" / "checkpoint-4").iterdir()} >= set(FILES)
    check_folder(tmp_path / "c" / "checkpoint-4", name, lambda: last_checkpoint(tmp_path / "c"))


def test_resuming_from_a_spoiled_checkpoint(world: Path, half: Path, tmp_path: Path) -> None:
    again = training(half / "cache").again(tmp_path / "run")
    shutil.copytree(half / "run", tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "checkpoint-4" / "optimizer.pt"
    spoil(file, flipped(0))
    assert refused(line(world, *again), file)
    shutil.rmtree(file.parent)  # as the line says
    told = line(world, *again)
    assert told.code == 0, told.err
    assert products(tmp_path / "run") == products(world / "trained")


def test_a_config(world: Path, half: Path, tmp_path: Path) -> None:
    again = training(half / "cache").again(tmp_path / "run")
    shutil.copytree(half / "run", tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    whole = config.read_bytes()
    lines = [n + 1 for n, byte in enumerate(whole) if byte == 10][:-1]
    for at in (0, *lines[:: len(lines) // 3], len(whole) - 2):
        config.write_bytes(whole[:at])
        assert refused(line(world, *again), tmp_path / "run"), at
    config.unlink()
    assert refused(line(world, *again), tmp_path / "run")
    config.write_bytes(whole)
    assert line(world, *again).code == 0


@pytest.mark.parametrize("name", ["ids.bin", "starts.bin", "used.bin", "blocks.json", "sha256.json"])
def test_packed_blocks(half: Path, tmp_path: Path, name: str) -> None:
    (packed,) = (half / "cache").iterdir()
    shutil.copytree(packed, tmp_path / "packed")
    check_folder(tmp_path / "packed", name, lambda: PackedBlocks.open(tmp_path / "packed"))


def test_training_on_spoiled_blocks(world: Path, half: Path, tmp_path: Path) -> None:
    again = training(tmp_path / "cache")
    shutil.copytree(half / "cache", tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*/ids.bin")
    spoil(file, flipped(0))
    assert refused(line(world, *again.line(tmp_path / "run")), file)
    assert not (tmp_path / "run" / "checkpoints").exists()
    shutil.rmtree(file.parent)  # as the line says
    told = line(world, *again.line(tmp_path / "run", "--force"))
    assert told.code == 0, told.err
    assert products(tmp_path / "run") == products(world / "trained")


def positions(length: int, count: int) -> Iterator[int]:
    """Every place of a short file, `count` of a long one."""
    return iter(range(0, length, max(1, length // count)))


def manifests(world: Path, tmp_path: Path, cuts: int, flips: int) -> int:
    """Reads a manifest that was cut at so many places and flipped so often; how many were refused."""
    reference = tmp_path / "whole"
    assert line(world, "export", "trained", "--out", reference).code == 0
    shutil.copytree(world / "trained", tmp_path / "run")
    manifest = tmp_path / "run" / "manifest.json"
    whole = manifest.read_bytes()
    for at in positions(len(whole) - 1, cuts):
        manifest.write_bytes(whole[:at])
        for reader in (("lineage",), ("export", "--out", tmp_path / "out"), ("eval", "--text", "text.txt")):
            assert refused(line(world, reader[0], tmp_path / "run", *reader[1:]), tmp_path / "run"), at
        assert not (tmp_path / "out").exists()
    refusals = 0
    for seed in range(flips):
        manifest.write_bytes(flipped(seed)(whole) or b"")
        assert line(world, "lineage", tmp_path / "run").code in (0, 1)
        if refused(line(world, "export", tmp_path / "run", "--out", tmp_path / "out"), tmp_path / "run"):
            refusals += 1
        else:
            assert products(tmp_path / "out") == products(reference), seed
            shutil.rmtree(tmp_path / "out")
    return refusals


def test_a_manifest(world: Path, tmp_path: Path) -> None:
    manifests(world, tmp_path, cuts=5, flips=6)


@pytest.mark.slow
def test_a_manifest_cut_two_hundred_times(world: Path, tmp_path: Path) -> None:
    assert manifests(world, tmp_path, cuts=200, flips=60) > 0


def test_a_finished_run_whose_manifest_is_gone(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "trained", tmp_path / "run")
    (tmp_path / "run" / "manifest.json").unlink()
    assert refused(line(world, "export", tmp_path / "run", "--out", tmp_path / "out"), tmp_path / "run")
    told = line(world, *COMMANDS["pretrain"].again(tmp_path / "run"))
    assert told.code == 0, told.err
    assert products(tmp_path / "run") == products(world / "trained")


@pytest.mark.parametrize("left", ["config.yaml", ".replaced"])
def test_a_vocabulary_of_an_unfinished_run_has_no_recipe(tmp_path: Path, left: str) -> None:
    """The audit of one whose manifest was gone held it to fewer promises."""
    (tmp_path / left).touch()
    for read in (recipe_of, base_of):
        with pytest.raises(InputError, match=r"is an unfinished run: it has no manifest\.json"):
            read(tmp_path)
    (tmp_path / left).unlink()
    assert recipe_of(tmp_path) is None and base_of(tmp_path) is None


@pytest.mark.parametrize(
    "name", ["rows.safetensors", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"]
)
def test_what_a_run_learnt(world: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(world / "trained", tmp_path / "run")
    check_folder(tmp_path / "run", name, lambda: resolve_chain(tmp_path / "run"))
    spoil(tmp_path / "run" / name, flipped(0))
    assert refused(
        line(world, "export", tmp_path / "run", "--out", tmp_path / "out"), tmp_path / "run" / name
    )
    assert not (tmp_path / "out").exists()


def swap_two_ids(file: Path) -> None:
    """Still a tokenizer.json that every library loads, and another vocabulary."""
    held = json.loads(file.read_text(encoding="utf-8"))
    names = list(held["model"]["vocab"])
    left, right = names[300], names[301]
    vocab = held["model"]["vocab"]
    vocab[left], vocab[right] = vocab[right], vocab[left]
    file.write_text(json.dumps(held, ensure_ascii=False), encoding="utf-8")


def test_a_tokenizer_with_two_ids_swapped(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "trained", tmp_path / "run")
    file = tmp_path / "run" / "tokenizer" / "tokenizer.json"
    swap_two_ids(file)
    for reader in (
        ("export", tmp_path / "run", "--out", tmp_path / "out"),
        ("eval", tmp_path / "run", "--text", "text.txt"),
        ("sharegpt", "split", "talks.json", "--tokenizer", tmp_path / "run", "--out", tmp_path / "out"),
        ("pack", "--text", "text.txt", "--tokenizer", file.parent, "--out", tmp_path / "out"),
        ("report", file.parent, "--text", "text.txt", "--out", tmp_path / "out"),
    ):
        assert refused(line(world, *reader), file), reader
        assert not (tmp_path / "out").exists()


# What commands write, and a command that reads it.
READERS = {
    "train-vocab": (
        "zh.model",
        ("merge-vocab", "--base", "base", "--recipe", "safe", "--zh", "RUN/zh.model"),
    ),
    "merge-vocab": ("tokenizer.model", ("report", "RUN", "--text", "text.txt")),
    "merge-vocab, beside": ("tokenizer_config.json", ("grow", "--model", "base", "--tokenizer", "RUN")),
    "grow": ("model.safetensors", ("export", "RUN")),
    "grow, tokenizer": ("tokenizer.json", ("export", "RUN")),
    "corpus clean": ("documents/*.jsonl", ("pack", "--text", "RUN", "--tokenizer", "base")),
    "sharegpt clean": ("conversations.jsonl", ("sharegpt", "split", "RUN", "--tokenizer", "base")),
    "answer": ("answers.jsonl", ("judge", "--answers", "RUN")),
    "gen-zh": ("instructions.jsonl", ("sharegpt", "split", "RUN", "--tokenizer", "base")),
    "gen-zh, journal": ("journal.jsonl", ("refilter", "RUN")),
}


@pytest.mark.parametrize("name", READERS)
def test_whatever_a_run_wrote_is_checked_when_it_is_read(world: Path, tmp_path: Path, name: str) -> None:
    spoiled, reader = READERS[name]
    run, out = tmp_path / "run", tmp_path / "out"
    made = name.partition(",")[0]
    if made == "gen-zh":
        shutil.copytree(world / "generated", run)
    else:
        assert line(world, *COMMANDS[made].line(run)).code == 0
    (file,) = run.glob(spoiled)
    whole = file.read_bytes()
    words = [word.replace("RUN", str(run)) for word in reader]
    for way in (WAYS["gone"], WAYS["longer"], flipped(0), flipped(1)):
        spoil(file, way)
        told = line(world, *words, "--out", out)
        assert told.code == 1 and str(file) in told.err.splitlines()[-1], told.err
        assert "internal error" not in told.err and not out.exists()
        file.write_bytes(whole)


@pytest.mark.parametrize("name", ["reward", "tokenizer"])
def test_a_reward_model_is_checked_when_it_is_opened(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    with Run(run, "reward", {"base": "nowhere"}) as made:
        made.write("reward/adapter_config.json", "{}")
        made.write("tokenizer/tokenizer.json", "{}")
        made.finish()
    (file,) = (run / name).iterdir()
    spoil(file, flipped(0))
    with pytest.raises(InputError, match=f"{file.name}: changed since its run wrote it"):
        RewardModel(run)


def test_files_that_no_run_wrote_are_read_as_they_are(world: Path, tmp_path: Path) -> None:
    """A manifest.json of another program, and a file that a user put beside a run's own."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "manifest.json").write_text('{"outputs": ["text.txt"]}', encoding="utf-8")
    (tmp_path / "theirs" / "config.yaml").write_text("lr: 0.1", encoding="utf-8")
    shutil.copytree(world / "trained", tmp_path / "ours")
    for folder in ("theirs", "ours"):
        shutil.copyfile(world / "text.txt", tmp_path / folder / "text.txt")
        words = ("pack", "--text", tmp_path / folder / "text.txt", "--tokenizer", "base")
        told = line(world, *words, "--block-size", "64", "--out", tmp_path / f"{folder}-packed")
        assert told.code == 0, told.err


def test_large_outputs_are_compared_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhllama.run.HASHED_OUTPUT", 100)
    monkeypatch.setattr("zhllama.manifest.HASHED_OUTPUT", 100)
    with Run(tmp_path / "run", "demo", {}) as run:
        large, small = run.write("large", "x" * 101), run.write("small", "x" * 100)
        assert run.finish()["output_bytes"] == {"large": 101}
    check_outputs([tmp_path / "run"])
    large.write_text("y" * 101, encoding="utf-8")
    check_outputs([tmp_path / "run"])
    for file, content in ((large, "x" * 102), (small, "y" * 100)):
        whole = file.read_bytes()
        file.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=f"{file.name}: changed since its run wrote it"):
            check_outputs([tmp_path / "run"])
        file.write_bytes(whole)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server, and a gen-zh run that it answered whole."""
    started = served.__wrapped__() if hasattr(served, "__wrapped__") else served()  # type: ignore[call-arg, operator]
    url = next(started)(tasks=3, messy=True)
    out = tmp_path_factory.mktemp("generated") / "run"
    code, _, said = gen_zh(url, out, "--n", 40)
    assert code == 0, said
    yield url, out
    started.close()


DATA = ("instructions.json", "instructions.jsonl", "rejected.jsonl")


@pytest.mark.parametrize("at", [0.0, 0.02, 0.31, 0.77, 1.0])
def test_a_torn_journal_loses_its_last_row(generated: tuple[str, Path], tmp_path: Path, at: float) -> None:
    url, whole = generated
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "manifest.json").unlink()
    journal = run / "journal.jsonl"
    content = journal.read_bytes()
    journal.write_bytes(content[: round((len(content) - 1) * at)])
    code, _, said = gen_zh(url, run, "--n", 40, "--resume")
    assert code == 0, said
    assert all((run / name).read_bytes() == (whole / name).read_bytes() for name in DATA)
    kept = journal.read_bytes()
    ends = content.rfind(b"\n", 0, round((len(content) - 1) * at)) + 1
    assert kept.startswith(content[:ends]), "whole rows were paid for, and stay"


def test_a_journal_spoiled_in_the_middle_is_refused(generated: tuple[str, Path], tmp_path: Path) -> None:
    url, whole = generated
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "manifest.json").unlink()
    rows = (run / "journal.jsonl").read_bytes().split(b"\n")
    rows[1] = rows[1].replace(b'"print"', b'"pront"')
    (run / "journal.jsonl").write_bytes(b"\n".join(rows))
    code, _, said = gen_zh(url, run, "--n", 40, "--resume")
    assert code == 1 and f"{run}/journal.jsonl:2: is broken" in said.splitlines()[-1], said
