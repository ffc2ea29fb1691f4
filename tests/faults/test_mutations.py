"""Whole commands over mutated files: refused in one line that names the file, or done; never a crash, a hang or a silent difference.

Each case is made again by `python -m tests.faults.mutated_commands` with the arguments that its failure prints.
"""

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT
from tests.faults.mutated_commands import Case, Harness, Outcome
from tests.faults.mutated_world import COMMANDS, Mutable, write_tokenizers
from tests.faults.mutations import PACKED, mutate
from tests.model_toys import CHINESE, ENGLISH, base_vocabulary, line, write_tokenizer
from zhllama.errors import InputError
from zhllama.pretrained import refuse_generation_code
from zhllama.run import Run
from zhllama.vocab.tokenizer_config import read_settings

# The quick commands, most of a tenth of a second, and those that alone read a format.
SAMPLED = (
    "merge-vocab, model", "merge-vocab, bytes", "merge-vocab, recipe", "audit", "pack", "pack, texts", "pack, run", "grow", "grow, shards",
    "pretrain, plan", "export", "sharegpt clean", "sharegpt split", "sharegpt split, packed", "sharegpt split, run", "lineage", "run",
)  # fmt: skip


def sweep(*arguments: str) -> None:
    """The harness in a process of its own, since forking wants no threads of other tests."""
    command = [sys.executable, "-m", "tests.faults.mutated_commands", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=ROOT)
    assert done.returncode == 0 and " 0 at fault" in done.stdout.splitlines()[-1], done.stdout + done.stderr


@pytest.mark.slow  # making its world takes half of its minute
def test_a_sample() -> None:
    names = [word for name in SAMPLED for word in ("--command", name)]
    sweep("--seed", "15", "--runs", "120", *names)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_two_thousand(seed: int) -> None:
    sweep("--seed", str(seed), "--runs", "2000")


def agree(*arguments: str) -> None:
    """The verdicts of commands that read the same file, in a process of its own."""
    command = [sys.executable, "-m", "tests.faults.agreement", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=ROOT)
    assert done.returncode == 0 and " 0 with different verdicts" in done.stdout.splitlines()[-1], (
        done.stdout + done.stderr
    )


@pytest.mark.slow  # its world takes a minute, and the sample above finds nearly the same
def test_commands_agree_on_a_sample() -> None:
    quick = ("rows", "sentencepiece", "texts, a.txt", "texts, a.jsonl", "texts, a.parquet", "texts, b.txt.gz")
    agree("--seed", "15", "--runs", "12", *(word for name in quick for word in ("--group", name)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_commands_agree(seed: int) -> None:
    agree("--seed", str(seed), "--runs", "250")


@pytest.mark.parametrize(
    "name",
    ["a.json", "a.jsonl", "a.yaml", "a.txt", "a.txt.gz", "a.json.xz", "a.jsonl.zst", "a.txt.bz2", "a.model"],
)
def test_a_mutation_differs_and_is_made_again_by_its_seed(name: str) -> None:
    content = b'{"a": [1, 2, {"b": "\xe4\xb8\xad"}], "c": null}\n' if ".json" in name else b"a: 1\nb: c\n"
    pack = PACKED[Path(name).suffix][1] if Path(name).suffix in PACKED else bytes
    whole = pack(content)
    for seed in range(200):
        mutated, told = mutate(whole, name, Random(seed))
        assert mutated != whole and told
        assert (mutated, told) == mutate(whole, name, Random(seed))


OURS = "zhllama: base/config.json: is broken. Mend it.\n"


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (Outcome(0, "", "", 1, {"out/a": "1"}), ""),
        (Outcome(1, "", OURS, 1, {}), ""),
        (Outcome(2, "", "usage", 1, {}), ""),
        (Outcome(0, "", "", 1, {"out/a": "2"}), "silent difference in out/a"),
        (Outcome(0, "", "", 1, {}), "silent difference in out/a"),
        (Outcome(1, "", "zhllama: internal error: KeyError\n", 1, {}), "internal error"),
        (Outcome(1, "", f"Traceback\n{OURS}", 1, {}), "Traceback"),
        (Outcome(1, "", "zhllama: other: is broken. Mend it.\n", 1, {}), "the error does not name the file"),
        (Outcome(1, "", f"{OURS}more\n", 1, {}), "the last line is no error of ours"),
        (Outcome(-9, "", "", 1, {}), "exit code -9"),
        (Outcome(-24, "", "", 20, {}), "hang"),
        (Outcome(-14, "", "", 1, {}), "hang"),
    ],
)  # fmt: skip
def test_faults_are_told(tmp_path: Path, outcome: Outcome, fault: str) -> None:
    (tmp_path / "run").mkdir()
    recorded = {"inputs": [{"path": str(tmp_path / "base" / "config.json")}]}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(recorded), encoding="utf-8")
    command = Mutable(("export", "run"), ("base/*",), ("run",))
    harness = Harness(tmp_path)
    harness.expected["export"], harness.volatile["export"] = Outcome(0, "", "", 1, {"out/a": "1"}), set()
    found = harness.faults(
        Case(0, 0, "export", command, "base/config.json", "bit 1 of byte 2 flipped"), outcome
    )
    assert found == ([fault] if fault else [])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("special_tokens_map.json", '{"eos_token": ["<|end|>"]}'),
        ("special_tokens_map.json", "{eos_token"),
        ("special_tokens_map.json", "[" * 9999),
        ("special_tokens_map.json", "[]"),
        ("special_tokens_map.json", "\x00"),
        ("special_tokens_map.json", '{"pad_token": {"content": 1}}'),
        ("special_tokens_map.json", '{"additional_special_tokens": [[1]]}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"7": {"content": 5}}}'),
        ("tokenizer_config.json", '{"extra_special_tokens": 5}'),
        ("tokenizer_config.json", '{"unk_token": 3}'),
    ],
)
def test_a_damaged_file_beside_a_base_is_named_by_its_folder(tmp_path: Path, name: str, content: str) -> None:
    write_tokenizer(base_vocabulary(), tmp_path / "base")
    (tmp_path / "text.txt").write_text(f"{CHINESE}\n{ENGLISH}\n", encoding="utf-8")
    (tmp_path / "words.txt").write_text("中国\n历史\n", encoding="utf-8")
    write_tokenizers(tmp_path)
    (tmp_path / "byte" / name).write_text(content, encoding="utf-8")
    words = (*COMMANDS["merge-vocab, bytes"].words, "--out", "merged")
    told = line(tmp_path, *words)
    last = told.err.splitlines()[-1]
    assert told.code == 1 and last.startswith("zhllama: byte") and "internal error" not in last, told
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize(
    "token",
    ["-1", "1.5", "true", "[]", '["</s>"]', "{}", '{"content": 3}', '{"content": null}', '{"a": "b"}', "0"],
)
def test_a_special_token_that_is_no_text_is_refused(tmp_path: Path, name: str, token: str) -> None:
    (tmp_path / name).write_text(f'{{"eos_token": {token}}}', encoding="utf-8")
    with pytest.raises(InputError, match=f"{name}: names .* as its eos_token, which is not the text"):
        read_settings(tmp_path)
    for good in ("null", '"</s>"', '""', '{"content": "</s>", "lstrip": false}'):
        (tmp_path / name).write_text(f'{{"eos_token": {good}}}', encoding="utf-8")
        assert read_settings(tmp_path).keys() == {"eos_token"}


@pytest.mark.parametrize("half", [r"\ud800", r"中\udfff", r"\udc00\ud800", r"\ud83d ", r"a\ude00"])
def test_half_a_surrogate_pair_is_refused_with_its_line(tmp_path: Path, half: str) -> None:
    write_tokenizer(base_vocabulary(), tmp_path / "base")
    (tmp_path / "a.jsonl").write_text(f'{{"text": "{CHINESE}"}}\n{{"text": "{half}"}}\n', encoding="utf-8")
    for words in (
        ("pack", "--tokenizer", "base", "--block-size", "8"),
        (
            "train-vocab",
            "--size",
            "900",
        ),  # `report` only counts, and replaces the half (tests/test_report.py)
    ):
        text = ("a.jsonl",) if words[0] == "train-vocab" else ("--text", "a.jsonl")
        told = line(tmp_path, *words, *text, "--out", "out")
        last = told.err.splitlines()[-1]
        assert told.code == 1 and "a.jsonl:2: contains a lone surrogate" in last, told


def test_a_config_changed_after_its_run_was_finished_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Run(run, "gen-zh", {"n": 4, "seed": 0}) as made:
        made.write("journal.jsonl", "")
        made.finish()
    config = (run / "config.yaml").read_text(encoding="utf-8")
    for other in ("n: 5", "n: x", "n: []", "n: null"):
        (run / "config.yaml").write_text(config.replace("n: 4", other), encoding="utf-8")
        told = line(tmp_path, "refilter", "run", "--out", "out")
        assert told.code == 1 and "config.yaml: changed since its run wrote it" in told.err, told


@pytest.mark.parametrize("key", ["bos_token_id", "eos_token_id", "pad_token_id"])
@pytest.mark.parametrize("value", ["/dev/zero", "1", 0.5, True, {"a": 1}, ["2"], [[2]], [2, None, "x"]])
def test_token_ids_of_a_generation_config_are_checked(key: str, value: object) -> None:
    model = SimpleNamespace(generation_config=SimpleNamespace(**{key: value}))
    with pytest.raises(InputError, match=f"folder: sets {key}"):
        refuse_generation_code(model, "folder")
    for good in (None, 0, 2, -1, [2, 5]):
        refuse_generation_code(SimpleNamespace(generation_config=SimpleNamespace(**{key: good})), "folder")


def test_every_format_is_sampled() -> None:
    reads = " ".join(read for name in SAMPLED for read in COMMANDS[name].reads)
    for part in (
        "texts/*",
        "base/*",
        "byte/*",
        ".model",
        "zh/*",
        ".yaml",
        "talks.jsonl.*",
        "trained/*/*",
        "generated/*",
        "sharded/*",
    ):
        assert part in reads, part
