"""sft as a whole on two-layer models: what is learnt, what a kill leaves, what the exported model says."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.llamacpp import Llama
from tests.model_toys import WORDS, larger_vocabulary, line, write_model, write_tokenizer
from tests.test_training_run import killed_at, losses
from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.prepare_tokenizer import prepare_tokenizer
from zhllama.conversation.read_conversations import accepted_rows, read_conversations, training_fault
from zhllama.conversation.template import template_for
from zhllama.manifest import read_manifest
from zhllama.model.chain import resolve_chain
from zhllama.model.load import load_transformers_tokenizer, open_model
from zhllama.resources import shipped
from zhllama.training.lora import add_adapters
from zhllama.training.options import Lora
from zhllama.training.packed_blocks import examples
from zhllama.training.packing import TokenizedSample, pack_samples
from zhllama.training.sft import ChatTuningJob
from zhllama.training.trainable_rows import arrange_rows, make_rows_trainable
from zhllama.training.validation import collate
from zhllama.vocab.any_tokenizer import load_any_tokenizer as load_vocabulary

COMMON = ("--max-length", 320, "--batch", 8, "--micro-batch", 4, "--lr", 0.01, "--log-every", 1, "--save-every", 3,
          "--precision", "fp32")  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZHLLAMA_CACHE", str(tmp_path_factory.getbasetemp() / "blocks"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


ALPACA = [
    {"instruction": f"{one}和{other}？", "input": "", "output": f"{one}不是{other}。"}
    for one in WORDS
    for other in WORDS
    if one != other
]


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A folder with a model, rows to tune it on, and a few to measure."""
    write_model(tmp_path / "base")
    write_rows(tmp_path / "rows.jsonl", ALPACA[20:220])
    write_rows(tmp_path / "few.jsonl", ALPACA[:10])
    return tmp_path


def sft(model: str, out: str, *more: object) -> tuple[object, ...]:
    data = () if "--data" in more else ("--data", "rows.jsonl")
    few = () if "--eval-data" in more else ("--eval-data", "few.jsonl")
    return ("sft", "--model", model, "--out", out, *data, *few, *COMMON, *more)


def done(folder: Path, *arguments: object) -> dict[str, Any]:
    """Figures of a command that must go well."""
    told = line(folder, *arguments)
    assert told.code == 0, told.err
    figures: dict[str, Any] = read_manifest(folder / str(arguments[arguments.index("--out") + 1]))["figures"]
    return figures


def test_from_a_pretrained_run_to_an_exported_model(ground: Path) -> None:
    """Published in little: rows that grew, [PAD] after them, every projection and both matrices, answers alone."""
    write_tokenizer(larger_vocabulary(), ground / "tok")
    text = shipped("corpora", "sample", "zh_essay.txt").read_text(encoding="utf-8")
    (ground / "zh.txt").write_text(text, encoding="utf-8")
    done(
        ground, "pretrain", "--stage", 1, "--model", "base", "--tokenizer", "tok", "--text", "zh=zh.txt", "--eval-text", "zh=zh.txt", "--block-size", 64,
        "--batch", 4, "--micro-batch", 4, "--steps", 2, "--precision", "fp32", "--out", "one",
    )  # fmt: skip
    figures = done(ground, *sft("one", "two", "--steps", 8))
    bits = figures["answers_bits_per_character"]
    assert bits["after"] < bits["before"] and figures["rows"] == 668 and figures["samples"] == 200
    assert figures["n_old"] == 600
    assert read_manifest(ground / "two")["parents"] == [str(ground / "one")]
    adapter = load_file(ground / "two" / "adapter" / "adapter_model.safetensors")
    layers = {name.split(".")[-3] for name in adapter}
    assert layers == {f"{p}_proj" for p in ("q", "k", "v", "o", "gate", "up", "down")}
    rows = load_file(ground / "two" / "rows.safetensors")
    assert rows["input_ids"].tolist() == rows["output_ids"].tolist() == list(range(668))
    before = open_model(ground / "one").model.get_input_embeddings().weight
    grown = load_file(ground / "two" / "grown" / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(grown[:667], before)

    done(ground, "export", "two", "--out", "out")
    tokenizer = load_transformers_tokenizer(ground / "out")
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("[PAD]", 667)
    assert tokenizer.chat_template == (ground / "two" / "tokenizer" / "chat_template.jinja").read_text(
        "utf-8"
    )
    encoder = ConversationEncoder(tokenizer, template_for("own", tokenizer))
    for row in accepted_rows(read_conversations(ground / "rows.jsonl", training_fault), []):
        encoder.prove(row)
    told = line(ground, "eval", "two", "out", "--text", "zh.txt", "--limit", 300, "--json")
    first, second = json.loads(told.out)["texts"]
    assert first["bits_per_byte"] == pytest.approx(second["bits_per_byte"], rel=1e-5)
    page = (ground / "two" / "report.html").read_text(encoding="utf-8")
    assert re.search(r"answers<.*bits per character", page) and "<svg" in page


def test_only_answers_and_their_ends_are_labels(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every label of every block, put back into text, is an answer of the file with its end."""
    seen: list[Any] = []
    blocks = ChatTuningJob.blocks
    monkeypatch.setattr(ChatTuningJob, "blocks", lambda *given: (seen.append(blocks(*given)), seen[-1])[1])
    write_rows(ground / "chat.jsonl", [{"conversations": [
        {"from": "human", "value": "问"}, {"from": "gpt", "value": "答一。"}, {"from": "human", "value": "再问"},
        {"from": "gpt", "value": "答二！"}]}] * 4)  # fmt: skip
    done(ground, *sft("base", "run", "--data", "chat.jsonl", "--steps", 1))
    (made,) = seen[0]
    tokenizer = load_transformers_tokenizer(ground / "run" / "tokenizer")
    told = [
        tokenizer.decode(block["labels"][block["labels"] >= 0])
        for block in (made[n] for n in range(len(made)))
    ]
    assert "".join(told) == "答一。</s>答二！</s>" * 4


@pytest.mark.parametrize("tied", [False, True])
def test_packed_gradients_are_those_of_single_samples(ground: Path, tied: bool) -> None:
    """In one batch of full blocks, and one sample after another: the same loss, the same gradients."""
    base = write_model(ground / "other", tied=tied, rows=700)
    prepare_tokenizer(ground / "base", "alpaca", ground / "tokenizer")
    tokenizer = load_transformers_tokenizer(ground / "tokenizer")
    encoder = ConversationEncoder(tokenizer, template_for("own", tokenizer))
    samples = []
    for row in list(accepted_rows(read_conversations(ground / "rows.jsonl", training_fault), []))[:12]:
        made = encoder.encode(row)
        samples.append(TokenizedSample(np.array(made.ids, np.int32), np.array(made.mask), 1, 1))

    def gradients(batches: list[list[TokenizedSample]], alone: bool) -> tuple[float, dict[str, torch.Tensor]]:
        torch.manual_seed(0)
        model = open_model(base, dtype=torch.float32).model.requires_grad_(False)
        trained = add_adapters(model, Lora(dropout=0.0, modules=("q_proj", "down_proj")))
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        make_rows_trainable(model, arrange_rows(range(700), 700))
        count, total = int(sum(sample.answers.sum() for sample in samples)), 0.0
        for some in batches:
            for packed in pack_samples(some, 512, 2, one_per_block=alone):
                loss = trained(**collate(examples(packed)), num_items_in_batch=count).loss
                loss.backward()
                total += float(loss.detach())
        return total, {n: p.grad.clone() for n, p in trained.named_parameters() if p.grad is not None}

    together, packed = gradients([samples], alone=False)
    apart, single = gradients([[sample] for sample in samples], alone=True)
    assert together == pytest.approx(apart, rel=1e-6) and packed.keys() == single.keys() and len(packed) > 8
    for name, gradient in packed.items():
        assert torch.allclose(gradient, single[name], atol=1e-6, rtol=1e-4), name


@pytest.mark.slow  # pretrain's own is in every run
def test_killed_anywhere_a_run_ends_with_the_same_bytes(ground: Path) -> None:
    settings = ("--steps", 10, "--eval-every", 100)
    done(ground, *sft("base", "whole", *settings))
    arguments = sft("base", "killed", *settings, "--resume")
    kills = [
        killed_at(ground, arguments, ground / "killed", *when) for when in ((2, 0), (6, 0.02), (9, 0.03))
    ]
    assert kills[0] and sum(kills) >= 2
    done(ground, *arguments)
    for name in ("rows.safetensors", "adapter/adapter_model.safetensors"):
        assert (ground / "killed" / name).read_bytes() == (ground / "whole" / name).read_bytes(), name
    assert losses(ground / "killed") == losses(ground / "whole")


def test_bloom_takes_each_sample_alone(ground: Path) -> None:
    """BELLE's kind: it separates no documents, and a batch is only as long as its longest sample."""
    write_model(ground / "bloom", kind="bloom", tied=True)
    told = line(ground, *sft("bloom", "run", "--steps", 6, "--lora-rank", 4))
    assert (
        told.code == 0
        and "bloom: documents of one block would see each other, so each has a block of its own" in told.err
    )
    bits = read_manifest(ground / "run")["figures"]["answers_bits_per_character"]
    assert bits["after"] < bits["before"]
    layers = {n.split(".")[-3] for n in load_file(ground / "run" / "adapter" / "adapter_model.safetensors")}
    assert layers == {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}
    done(ground, "export", "run", "--out", "out")
    assert open_model(ground / "out").tokenizer.chat_template


def test_everything_trained_is_a_whole_model(ground: Path) -> None:
    figures = done(ground, *sft("base", "run", "--full", "--steps", 4, "--lr", 0.001))
    assert figures["trained_percent"] == 100.0 and figures["trained"] == figures["parameters"]
    assert resolve_chain(ground / "run").base == ground / "run" / "tuned"
    assert not (ground / "run" / "grown").exists() and not (ground / "run" / "adapter").exists()
    before, after = (load_file(ground / f / "model.safetensors") for f in ("base", "run/tuned"))
    assert before.keys() == after.keys()
    assert all(not torch.equal(after[name][: len(t)], t) for name, t in before.items())
    done(ground, *sft("run", "again", "--full", "--steps", 1, "--lr", 0.001))
    first = read_manifest(ground / "again")["figures"]["answers_bits_per_character"]["before"]
    assert first == pytest.approx(figures["answers_bits_per_character"]["after"], abs=1e-4)


def test_a_template_brings_its_tokens_their_rows_and_its_end(ground: Path) -> None:
    done(ground, *sft("base", "run", "--template", "chatml", "--steps", 2))
    opened = open_model(ground / "run")
    ids = opened.tokenizer.convert_tokens_to_ids(["[PAD]", "<|im_start|>", "<|im_end|>"])
    assert ids == [600, 601, 602] and opened.model.get_input_embeddings().weight.shape[0] == 603
    assert opened.model.generation_config.eos_token_id == [602, 2]
    done(ground, "export", "run", "--out", "out")
    settings = json.loads((ground / "out" / "generation_config.json").read_text(encoding="utf-8"))
    assert settings["eos_token_id"] == [602, 2] and settings["pad_token_id"] == 600
    told = line(ground, *sft("base", "none", "--template", "chatml", "--rows", "none", "--steps", 2))
    assert (
        told.code == 1
        and "--rows none: leaves the new rows of <|im_start|>, <|im_end|> untrained" in told.err
    )


@pytest.mark.parametrize(
    "template",
    ["alpaca", "chatml", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vicuna", "llama3"))],
)
def test_llamacpp_answers_as_transformers(ground: Path, template: str) -> None:
    """Under the stored template: the same prompt, to the id, and the same greedy answer with its end."""
    done(
        ground, *sft("base", "run", "--template", template, "--steps", 30, "--batch", 16, "--eval-every", 100)
    )
    done(ground, "export", "run", "--gguf", "f16", "--out", "out")
    llama = Llama(ground / "out" / "model-f16.gguf")
    opened = open_model(ground / "out", dtype=torch.float16)
    model, tokenizer = opened.model.float(), opened.tokenizer
    ends, decode = model.generation_config.eos_token_id, load_vocabulary(ground / "out").decode
    for said in (["上海和中国？"], ["中国和上海？", "中国不是上海。", "大学生和时候？"]):
        messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        made = model.generate(ids, max_new_tokens=24, do_sample=False, attention_mask=torch.ones_like(ids))[
            0, ids.shape[1] :
        ]
        ended = int(made[-1]) in (ends if isinstance(ends, list) else [ends])
        wanted = decode((made[:-1] if ended else made).tolist())
        asked = {"messages": messages, "temperature": 0, "max_tokens": 24, "cache_prompt": False}
        request = Request(f"{llama.server.listening_address}/v1/chat/completions", json.dumps(asked).encode(),
                          {"Content-Type": "application/json"})  # fmt: skip
        with urlopen(request, timeout=60) as answer:
            told = json.load(answer)
        assert told["usage"]["prompt_tokens"] == ids.shape[1]
        assert told["usage"]["completion_tokens"] == len(made)
        # Broken bytes, which a toy writes, llama.cpp shows as one sign, SentencePiece as several, the last ones one not at all.
        content = told["choices"][0]["message"]["content"]
        shown, due = (
            re.sub("\ufffd+", "\ufffd", text).rstrip("\ufffd").strip() for text in (content, wanted)
        )
        assert shown == due
        assert told["choices"][0]["finish_reason"] == ("stop" if ended else "length")


def test_rows_that_are_left_out_are_counted_and_written(ground: Path) -> None:
    long = {"instruction": "问", "output": "答" * 400}
    turns = [{"from": who, "value": "说" * 30} for who in ("human", "gpt") * 3]
    write_rows(
        ground / "mixed.jsonl",
        [*ALPACA[:30], {"instruction": "问"}, long, {"conversations": turns}, {"input": 1}],
    )
    told = line(ground, *sft("base", "run", "--data", "mixed.jsonl", "--steps", 1))
    assert told.code == 1, told.err
    assert (
        "mixed.jsonl:31: has no answer at its end. 1 more rows are bad. Correct them, or give --skip-bad"
        in told.err
    )
    assert "zhllama: mixed.jsonl:34: input: input should be a valid string" in told.err
    assert not (ground / "run").exists()
    figures = done(ground, *sft("base", "run", "--data", "mixed.jsonl", "--steps", 1, "--skip-bad"))
    assert (figures["samples"], figures["rejected"], figures["shortened"]) == (31, 3, 1)
    left = [
        json.loads(row)
        for row in (ground / "run" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["where"].rpartition(":")[2] for row in left] == ["31", "34", "32"]
    assert left[2]["reason"].startswith("too long: ")


def test_sources_by_weight_and_one_percent_for_validation(ground: Path) -> None:
    write_rows(ground / "other.jsonl", ALPACA[300:500])
    arguments = (
        "sft",
        "--model",
        "base",
        "--out",
        "run",
        *COMMON,
        "--data",
        "rows.jsonl:3",
        "--data",
        "other.jsonl",
        "--steps",
        2,
    )
    figures = done(ground, *arguments)
    assert (figures["samples"], figures["validation_samples"]) == (396, 4)
    assert figures["answers_bits_per_byte"]["before"] > 0


@pytest.mark.parametrize(
    ("content", "arguments", "wanted"),
    [
        ("", (), "data.json: is empty"),
        ("[]", (), "data.json: contains no rows"),
        ('{"text": "x"}\n', (), "data.json:1: has none of the fields conversations"),
        ('{"instruction": "x", "output": "</s>"}', (), "data.json:1: a turn of the assistant contains the special token </s>"),
        ('{"conversations": [{"from": "robot", "value": "x"}]}', (), "data.json:1: unknown role 'robot'; known are"),
        ('{"instruction": "x", "output": ""}', ("--skip-bad",), "leaves no sample to train on: data.json:1: has no answer"),
        (None, (), "data.json: no such file"),
        (None, ("--data", "few.jsonl:0"), "--data: the weight 0 of few.jsonl is not above zero"),
        (None, ("--data", "few.jsonl", "--max-length", 1024), "--max-length: is 1,024 and the model was made for 512"),
        (None, ("--data", "few.jsonl", "--max-length", 16), "leaves no sample to train on: few.jsonl:1: too long: "),
        (None, ("--data", "few.jsonl", "--template", "own"), "template own: is not there: the tokenizer has no chat_template"),
        (None, ("--data", "few.jsonl", "--template", "llama"), "--template: 'llama' is not known"),
        (None, ("--data", "few.jsonl", "--full", "--rows", "none"), "--full: trains everything"),
        (None, ("--data", "few.jsonl", "--lora-module", "query"), "no linear layer 'query'"),
        (None, ("--data", "few.jsonl", "--eval-data", "none.jsonl"), "none.jsonl: no such file"),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_leave_nothing(
    ground: Path, content: str | None, arguments: tuple[object, ...], wanted: str
) -> None:
    if content is not None:
        (ground / "data.json").write_text(content, encoding="utf-8")
    data = () if "--data" in arguments else ("--data", "data.json")
    told = line(ground, *sft("base", "run", *data, "--steps", 1, *arguments))
    assert told.code == 1 and wanted in told.err.splitlines()[-1], told.err
    assert not (ground / "run").exists()


def test_an_adapter_on_another_base_is_refused(ground: Path) -> None:
    prepare_tokenizer(ground / "base", "alpaca", ground / "base")
    write_model(ground / "base", rows=601, tokenizer=False)
    done(ground, *sft("base", "run", "--rows", "none", "--steps", 1))
    assert resolve_chain(ground / "run").base == ground / "base"
    weights = load_file(ground / "base" / "model.safetensors")
    wider = {n: torch.cat([t, t], -1) if "q_proj" in n else t for n, t in weights.items()}
    save_file(wider, ground / "base" / "model.safetensors", metadata={"format": "pt"})
    told = line(ground, "export", "run", "--out", "out")
    assert told.code == 1 and "was trained on another model" in told.err and told.err.count("\n") == 1


def test_a_plan_without_a_model_or_data(ground: Path) -> None:
    told = line(ground, "sft", "--config", "chinese-alpaca-7b", "--dry-run")
    assert "429,211,648 of 6,905,483,264 parameters, 6.22 %" in told.out and "16 x A100" in told.out
    told = line(ground, "sft", "--model", "base", "--template", "chatml", "--full", "--dry-run", "--json")
    assert json.loads(told.out)["trained"] == json.loads(told.out)["parameters"]
    told = line(ground, "sft", "--dry-run")
    assert told.code == 1 and "--model: is missing" in told.err
    assert not (ground / "run").exists()


def test_what_rows_and_models_bring_is_used_and_reported(ground: Path) -> None:
    """A model's own template is the default; unused fields, rows left out, the first and the last step are reported."""
    prepare_tokenizer(ground / "base", "chatml", ground / "base")
    write_model(ground / "base", rows=603, tokenizer=False)
    rows = [
        *({**row, "hint": "x", "id": n} for n, row in enumerate(ALPACA[:20])),
        {**ALPACA[20], "label": False}, {**ALPACA[21], "weight": 0},
    ]  # fmt: skip
    write_rows(ground / "mixed.jsonl", rows)
    told = line(ground, *sft("base", "run", "--data", "mixed.jsonl", "--steps", 3, "--log-every", 100))
    assert told.code == 0, told.err
    assert "template: the model's own chat_template, by default" in told.err
    assert "mixed.jsonl: the field 'hint' of 20 rows is not used" in " ".join(told.err.split())
    figures = read_manifest(ground / "run")["figures"]
    assert (figures["template"], figures["samples"], figures["rejected"]) == ("own", 20, 2)
    assert figures["unused_fields"] == [{"file": "mixed.jsonl", "field": "hint", "rows": 20}]
    lines = (ground / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [row["step"] for row in map(json.loads, lines) if "loss" in row] == [1, 3]
    left = (ground / "run" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["reason"] for row in left] == [
        "is marked as a bad answer (label: false)", "is marked as not to be trained on (weight: 0)",
    ]  # fmt: skip
    write_model(ground / "plain")
    told = line(ground, *sft("plain", "other", "--steps", 1))
    assert told.code == 0 and "template: alpaca, by default" in told.err
