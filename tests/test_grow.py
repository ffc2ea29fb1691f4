"""Growing a model: old rows to the byte, other shards untouched, every kind of matrix found, little memory."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import sentencepiece_model_pb2 as proto

from tests.model_toys import (
    CHINESE,
    ENGLISH,
    base_vocabulary,
    config,
    larger_vocabulary,
    line,
    logits,
    write_model,
    write_tokenizer,
)
from zhllama.errors import InputError, OptionError
from zhllama.model import weight_files as weight_files
from zhllama.model.embeddings import find_matrices
from zhllama.model.grow import grow
from zhllama.model.growth_plan import plan_growth
from zhllama.model.load import open_model
from zhllama.model.stored_model import read_stored_model
from zhllama.model.weight_files import read_weights
from zhllama.vocab.sentencepiece_vocabulary import Piece, SentencePieceVocabulary

N_OLD = 600


@pytest.fixture
def larger(tmp_path: Path) -> Path:
    return write_tokenizer(larger_vocabulary(), tmp_path / "larger")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "bloom"])
def test_old_logits_stay_equal(
    tmp_path: Path, larger: Path, kind: str, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "qwen2":  # a toy vocabulary of SentencePiece's make, which is refused beside this type
        monkeypatch.setattr("zhllama.model.growth_plan.check_tokenizer_class", lambda *_: None)
    base = write_model(tmp_path / "base", kind, tied)
    grown = grow(base, larger, tmp_path / "out")
    assert (grown.n_old, grown.n_new, grown.tied) == (N_OLD, len(larger_vocabulary().pieces) - N_OLD, tied)
    ids = base_vocabulary().processor.encode(ENGLISH)
    before, after = logits(base, ids), logits(tmp_path / "out", ids)
    assert after.shape[1] == grown.rows == N_OLD + grown.n_new
    assert torch.equal(before, after[:, :N_OLD])


@pytest.mark.parametrize("tied", [False, True])
def test_every_tensor_but_the_matrices_is_equal_to_the_byte(tmp_path: Path, larger: Path, tied: bool) -> None:
    base = write_model(tmp_path / "base", tied=tied, dtype=torch.bfloat16)
    grow(base, larger, tmp_path / "out")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == torch.bfloat16
        assert torch.equal(after[name][: tensor.shape[0]], tensor), name


def test_untouched_shards_are_the_same_files(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base", shard="100KB")
    shards = read_weights(base).files
    grown = grow(base, larger, tmp_path / "out")
    assert len(shards) > 3 and len(grown.rewritten) == 2
    for name in shards:
        assert (base / name).samefile(tmp_path / "out" / name) == (name not in grown.rewritten)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index["metadata"]["total_size"] == sum(
        t.nbytes for s in shards for t in load_file(tmp_path / "out" / s).values()
    )
    open_model(tmp_path / "out")


@pytest.mark.parametrize("tied", [False, True])
def test_bin_weights(tmp_path: Path, larger: Path, tied: bool) -> None:
    base = write_model(tmp_path / "base", tied=tied)
    held = load_file(base / "model.safetensors")
    if tied:
        held["lm_head.weight"] = held["model.embed_tokens.weight"]  # as torch's own checkpoints hold it
    torch.save(held, base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    grown = grow(base, larger, tmp_path / "out")
    ids = base_vocabulary().processor.encode(ENGLISH)
    assert torch.equal(logits(base, ids), logits(tmp_path / "out", ids)[:, :N_OLD])
    made = torch.load(tmp_path / "out" / "pytorch_model.bin", weights_only=True)
    assert made["model.embed_tokens.weight"].shape[0] == made["lm_head.weight"].shape[0] == grown.rows


def test_a_tied_checkpoint_with_two_copies_stays_tied(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base", tied=True)
    held = load_file(base / "model.safetensors")
    save_file(
        {**held, "lm_head.weight": held["model.embed_tokens.weight"].clone()}, base / "model.safetensors"
    )
    assert grow(base, larger, tmp_path / "out", init="weighted").tied
    made = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(made["lm_head.weight"], made["model.embed_tokens.weight"])


def test_names_without_the_outer_prefix_as_blooms(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base", "bloom", tied=True)
    held = {k.removeprefix("transformer."): v for k, v in load_file(base / "model.safetensors").items()}
    save_file(held, base / "model.safetensors", metadata={"format": "pt"})
    assert find_matrices(read_stored_model(base)).input == "word_embeddings.weight"
    grow(base, larger, tmp_path / "out")
    ids = base_vocabulary().processor.encode(ENGLISH)
    assert torch.equal(logits(base, ids), logits(tmp_path / "out", ids)[:, :N_OLD])


def test_padded_rows_belong_to_no_id(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base")
    grown = grow(base, larger, tmp_path / "out", pad_rows_to=64)
    model, tokenizer = open_model(tmp_path / "out")
    assert grown.rows % 64 == 0 and grown.rows - grown.padding == len(tokenizer) == len(
        larger_vocabulary().pieces
    )
    assert model.config.vocab_size == model.get_input_embeddings().weight.shape[0] == grown.rows
    assert tokenizer(CHINESE, add_special_tokens=False).input_ids == larger_vocabulary().processor.encode(
        CHINESE
    )


def test_new_ids_take_the_spare_rows_of_a_padded_model(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base", rows=768)  # as Qwen's: more rows than ids
    grown = grow(base, larger, tmp_path / "out")
    assert (grown.n_old, grown.rows) == (N_OLD, 768)
    before, after = (load_file(f / "model.safetensors")["lm_head.weight"] for f in (base, tmp_path / "out"))
    end = N_OLD + grown.n_new
    assert torch.equal(before[:N_OLD], after[:N_OLD]) and torch.equal(before[end:], after[end:])
    assert not torch.equal(before[N_OLD:end], after[N_OLD:end])


def test_a_pruned_vocabulary_is_followed(tmp_path: Path) -> None:
    """Ids move, rows and special ids with them, and the same text gets the same logits."""
    base = write_model(tmp_path / "base", eos_token_id=2)
    pieces = base_vocabulary().pieces
    used = set(base_vocabulary().processor.encode(ENGLISH))
    kept = [i for i in range(N_OLD) if i < 300 or i in used or len(pieces[i].text) < 2]
    kept = [0, 2, 1, *kept[3:]]  # BOS and EOS change places
    content = _with_pieces([pieces[i] for i in kept])
    folder = write_tokenizer(SentencePieceVocabulary(content), tmp_path / "pruned")
    (folder / "id_map.json").write_text(json.dumps({"kept": kept}), encoding="utf-8")
    grown = grow(base, folder, tmp_path / "out")
    assert (grown.n_old, grown.n_new, grown.rows) == (len(kept), 0, len(kept))
    ids = base_vocabulary().processor.encode(ENGLISH)
    place = {was: now for now, was in enumerate(kept)}
    before, after = logits(base, ids), logits(tmp_path / "out", [place[i] for i in ids])
    assert torch.equal(before[:, kept], after)
    made = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert (made["bos_token_id"], made["eos_token_id"]) == (2, 1)
    assert not (tmp_path / "out" / "id_map.json").exists()


def _with_pieces(pieces: list[Piece]) -> bytes:
    message = proto.ModelProto.FromString(larger_vocabulary().content)
    held = {p.piece: p for p in message.pieces}
    chosen = [held[p.text] for p in pieces]
    made = proto.ModelProto.FromString(message.SerializeToString())
    del made.pieces[:]
    made.pieces.extend(chosen)
    return made.SerializeToString()


def _cut_off(base: Path, larger: Path) -> None:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _no_config(base: Path, larger: Path) -> None:
    (base / "config.json").unlink()


def _no_weights(base: Path, larger: Path) -> None:
    (base / "model.safetensors").unlink()


def _no_tokenizer(base: Path, larger: Path) -> None:
    for name in ("tokenizer.json", "tokenizer.model"):
        (base / name).unlink()


def _other_tokenizer(base: Path, larger: Path) -> None:
    pieces = list(larger_vocabulary().pieces)
    other = SentencePieceVocabulary(
        _with_pieces([*pieces[: N_OLD - 2], pieces[N_OLD - 1], pieces[N_OLD - 2]])
    )
    write_tokenizer(other, base)


def _smaller_tokenizer(base: Path, larger: Path) -> None:
    write_tokenizer(larger_vocabulary(), base)
    write_model(base, rows=len(larger_vocabulary().pieces), tokenizer=False)
    write_tokenizer(base_vocabulary(), larger)


def _beyond_the_rows(base: Path, larger: Path) -> None:
    write_tokenizer(larger_vocabulary(), base)


def _remote_code(base: Path, larger: Path) -> None:
    raw = json.loads((base / "config.json").read_text(encoding="utf-8"))
    raw |= {"model_type": "secret", "auto_map": {"AutoModelForCausalLM": "evil.Model"}}
    (base / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    (base / "evil.py").write_text("raise SystemExit('ran')", encoding="utf-8")


def _broken_map(base: Path, larger: Path) -> None:
    (larger / "id_map.json").write_text('{"kept": [0, 0]}', encoding="utf-8")


def _garbage(base: Path, larger: Path) -> None:
    (base / "model.safetensors").write_bytes(b"\xff" * 100)


def _a_file(base: Path, larger: Path) -> None:
    shutil.rmtree(larger)
    larger.write_bytes(larger_vocabulary().content)


def _run(base: Path, larger: Path) -> None:
    (base / "config.json").rename(base / "manifest.json")


@pytest.mark.parametrize(
    ("breaks", "told"),
    [
        (_cut_off, "is cut off"),
        (_no_config, "has no config.json"),
        (_no_weights, "contains no weights"),
        (_no_tokenizer, "contains none of tokenizer.model, tokenizer.json"),
        (_other_tokenizer, "does not fit the model: id 598 is"),
        (_smaller_tokenizer, "has 600 ids and the model's own vocabulary"),
        (_beyond_the_rows, "and only 600 rows"),
        (_remote_code, "needs remote code"),
        (_broken_map, "repeats an id"),
        (_garbage, "is cut off or not a safetensors file"),
        (_run, "is a run"),
        (_a_file, "is not a tokenizer folder"),
    ],
)
def test_what_does_not_fit_is_told(
    tmp_path: Path, larger: Path, breaks: Callable[[Path, Path], None], told: str
) -> None:
    base = write_model(tmp_path / "base")
    breaks(base, larger)
    with pytest.raises(InputError, match=told):
        grow(base, larger, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_options_that_make_no_sense(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base")
    with pytest.raises(OptionError, match="cannot be 0"):
        plan_growth(base, larger, pad_rows_to=0)
    with pytest.raises(OptionError, match="needs vectors"):
        grow(base, larger, tmp_path / "out", init="focus")
    with pytest.raises(OptionError, match="needs text"):
        grow(base, larger, tmp_path / "out", init="distill")


def test_the_command(tmp_path: Path, larger: Path) -> None:
    write_model(tmp_path / "base")
    done = line(tmp_path, "grow", "--model", "base", "--tokenizer", "larger", "--out", "out", "--json")
    assert done.code == 0, done.err
    figures = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["figures"]
    assert json.loads(done.out) == {"out": "out", **figures}
    again = line(tmp_path, "grow", "--model", "base", "--tokenizer", "larger", "--out", "out")
    assert (again.code, again.err) == (
        1,
        "zhllama: out: contains a finished run. Give --force to start over.\n",
    )
    wrong = line(tmp_path, "grow", "--model", "nobody/nothing", "--tokenizer", "larger", "--out", "new")
    assert wrong.code == 1 and wrong.err.count("\n") == 1 and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "kind, tied, untie",
    [("llama", False, False), ("llama", True, False), ("llama", True, True), ("bert", True, False)],
)
def test_a_dry_run_tells_what_is_then_written(
    tmp_path: Path, larger: Path, kind: str, tied: bool, untie: bool
) -> None:
    write_model(tmp_path / "base", kind, tied, **{"is_decoder": True} if kind == "bert" else {})
    given = ["grow", "--model", "base", "--tokenizer", "larger", *["--untie"] * untie, "--pad-rows-to", "64"]
    told = line(tmp_path, *given, "--dry-run", "--json")
    assert told.code == 0, told.err
    assert {path.name for path in tmp_path.iterdir()} == {"base", "larger"}
    cost = json.loads(told.out)
    assert line(tmp_path, *given, "--out", "out").code == 0
    stored = {n: t for file in (tmp_path / "out").glob("*.safetensors") for n, t in load_file(file).items()}
    assert cost["parameters"] == sum(tensor.numel() for tensor in stored.values())
    assert cost["disk"] == sum(tensor.nbytes for tensor in stored.values())
    before = read_weights(tmp_path / "base").tensors.values()
    assert cost["parameters_before"] == sum(math.prod(tensor.shape) for tensor in before)
    figures = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["figures"]
    assert {name: figures[name] for name in ("n_old", "n_new", "rows", "tied", "init")} == {
        name: cost[name] for name in ("n_old", "n_new", "rows", "tied", "init")
    }
    assert (cost["steps"], cost["taught_layers"], cost["learning"]) == (0, 0, 0)


def test_a_dry_run_of_taught_counts_what_learns(tmp_path: Path, larger: Path) -> None:
    write_model(tmp_path / "base")
    (tmp_path / "zh.txt").write_text(CHINESE, encoding="utf-8")
    given = ["grow", "--model", "base", "--tokenizer", "larger", "--init", "taught", "--teach-layers", "1"]
    told = line(tmp_path, *given, "--text", "zh.txt", "--steps", "7", "--dry-run", "--json")
    assert told.code == 0, told.err
    cost = json.loads(told.out)
    stored = read_weights(tmp_path / "base").tensors
    layer = sum(math.prod(t.shape) for name, t in stored.items() if ".layers.0." in name)
    width = stored["lm_head.weight"].shape[1]
    assert layer and cost["learning"] == layer + cost["n_new"] * width
    assert (cost["steps"], cost["taught_layers"]) == (7, 1)
    rows = line(tmp_path, *given[:-1], "0", "--text", "zh.txt", "--dry-run")
    assert rows.code == 0 and "120 steps" in rows.out and "layers change" not in rows.out


@pytest.mark.parametrize(
    "given, told",
    [
        (["--init", "shared"], "needs text"),
        (["--init", "focus"], "needs vectors"),
        (["--init", "mean", "--fit"], "--fit"),
        (["--init", "shared", "--text", "zh.txt"], "--untie"),
    ],
)
def test_a_dry_run_refuses_what_grow_refuses(
    tmp_path: Path, larger: Path, given: list[str], told: str
) -> None:
    write_model(tmp_path / "base", tied=True)
    (tmp_path / "zh.txt").write_text(CHINESE, encoding="utf-8")
    both = [line(tmp_path, "grow", "--model", "base", "--tokenizer", "larger", *given, *more) for more in (["--dry-run"], ["--out", "out"])]  # fmt: skip
    assert [done.code for done in both] == [1, 1] or [done.code for done in both] == [2, 2]
    assert both[0].err == both[1].err and told in both[0].err


BIG = """
import json, struct, sys
from pathlib import Path
from zhllama.model.grow import grow

def anonymous():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status", encoding="utf-8"))
    return int(lines["RssAnon"].split()[0]) / 1024

import threading
import torch, transformers
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
peak, stop = [anonymous()], threading.Event()
before = peak[0]
def watch():
    while not stop.wait(0.005):
        peak[0] = max(peak[0], anonymous())
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
grown = grow(Path("base"), Path("larger"), Path("out"))
stop.set(); watcher.join()
print(json.dumps({"mb": peak[0] - before, "rewritten": grown.rewritten, "rows": grown.rows}))
"""


@pytest.mark.slow
def test_memory_stays_under_the_matrices_and_a_shard(tmp_path: Path, larger: Path) -> None:
    """A 2 GB model of eight shards, its body in holes of the file system, grows in the memory of its two matrices."""
    base = tmp_path / "base"
    rows, width, layers = 32000, 1024, 39
    config(rows, hidden_size=width, intermediate_size=8192, num_hidden_layers=layers, dtype="bfloat16",
           num_attention_heads=8, num_key_value_heads=8).save_pretrained(base)  # fmt: skip
    write_tokenizer(base_vocabulary(), base)
    shards: list[dict[str, list[int]]] = [{"model.embed_tokens.weight": [rows, width]}]
    shards[0]["model.norm.weight"] = [width]
    for layer in range(layers):
        if layer % 6 == 0 and layer:
            shards.append({})
        for name, shape in (
            ("gate_proj", [8192, width]),
            ("up_proj", [8192, width]),
            ("down_proj", [width, 8192]),
        ):
            shards[-1][f"model.layers.{layer}.mlp.{name}.weight"] = shape
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shards[-1][f"model.layers.{layer}.self_attn.{name}.weight"] = [width, width]
        for name in ("input", "post_attention"):
            shards[-1][f"model.layers.{layer}.{name}_layernorm.weight"] = [width]
    shards[-1]["lm_head.weight"] = [rows, width]
    weight_map = {}
    for number, shard in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        header, at = {}, 0
        for name, shape in shard.items():
            end = at + 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
            at, weight_map[name] = end, file
        head = json.dumps(header).encode()
        with (base / file).open("wb") as out:
            out.write(len(head).to_bytes(8, "little") + head)
            out.truncate(8 + len(head) + at)
    size = sum((base / file).stat().st_size for file in set(weight_map.values()))
    assert size > 2e9
    (base / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": weight_map}), encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BIG)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["rows"] == rows and len(told["rewritten"]) == 2
    matrices, shard = 2 * 2 * rows * width / 2**20, size / len(shards) / 2**20
    assert told["mb"] < matrices + shard, told


def test_killed_half_way_is_no_model(tmp_path: Path, larger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config comes last: what a killed process leaves opens nowhere."""
    base = write_model(tmp_path / "base", shard="100KB")
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(weight_files, "_write_index", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        grow(base, larger, tmp_path / "out")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with pytest.raises(InputError, match="contains neither a model"):
        open_model(tmp_path / "out")


def test_a_tokenizer_that_transformers_replaces_beside_the_model(tmp_path: Path) -> None:
    """AutoTokenizer takes Qwen2Tokenizer beside a Qwen2 model, whatever class the folder names: other ids than SentencePiece's."""
    base = write_model(tmp_path / "base", "qwen2")
    larger = write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    with pytest.raises(InputError, match="tokenizes text differently beside a model of the type qwen2"):
        plan_growth(base, larger)


def test_a_bias_that_stands_beside_the_head(tmp_path: Path, larger: Path) -> None:
    """BERT's head shares its bias with a parameter of another name, which alone is stored."""
    base = write_model(tmp_path / "base", "bert", True, is_decoder=True)
    held = load_file(base / "model.safetensors")
    held["cls.predictions.bias"].normal_()
    save_file(held, base / "model.safetensors", metadata={"format": "pt"})
    grow(base, larger, tmp_path / "out")
    ids = base_vocabulary().processor.encode(ENGLISH)
    assert torch.equal(logits(base, ids), logits(tmp_path / "out", ids)[:, :N_OLD])
