"""Code that a model folder brings or names is never run, never asked about, and standard input is left alone."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.faults.world import COMMANDS, TRAINING
from tests.model_toys import Told, line, write_model, write_run
from zhllama.errors import InputError
from zhllama.inference.transformers_chat_model import open_chat_model
from zhllama.model.load import load_base, load_transformers_tokenizer, open_model, read_model_config
from zhllama.training.model_info import read_shape
from zhllama.vocab.reload import auto_tokenizer

# What opens files of others: a method of any transformers or PEFT class, and the libraries' own ways around it.
OPENING = {
    "from_pretrained",
    "from_config",
    "load_adapter",
    "get_class_from_dynamic_module",
    "HFLM",
    "pipeline",
}
MAP = {
    "AutoConfig": "evil.Config",
    "AutoModelForCausalLM": "evil.Model",
    "AutoModelForSequenceClassification": "evil.Model",
    "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"],
}
PLACES = ("evil.py", "custom_generate/generate.py", "modeling_llama.py", "sitecustomize.py", "yaml.py")


def change(path: Path, **changed: Any) -> None:
    raw = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**raw, **changed}), encoding="utf-8")


def poison(folder: Path, marker: Path, **config: Any) -> Path:
    """Put code that writes a marker into a model folder, and name it wherever transformers looks for such names."""
    for name in PLACES:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(marker)!r}, 'a').write({name!r})\n", encoding="utf-8")
    pipelines = {"text-generation": {"impl": "evil.Pipeline", "pt": ["AutoModelForCausalLM"]}}
    change(folder / "config.json", auto_map=MAP, custom_pipelines=pipelines, trust_remote_code=True, **config)
    change(folder / "tokenizer_config.json", auto_map=MAP, trust_remote_code=True)
    for name in ("generation_config.json", "processor_config.json", "preprocessor_config.json"):
        change(
            folder / name, auto_map={**MAP, "AutoProcessor": "evil.Processor"}, custom_generate=str(folder)
        )
    return folder


def asked(folder: Path, *words: str, said: str = "y\n", again: bool = True) -> tuple[Told, str]:
    """Run a command line in a child of ours with `said` on its standard input; also what it left there."""
    reading, writing = os.pipe()
    os.write(writing, said.encode())
    os.close(writing)
    told = folder / "told.json"
    told.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os.dup2(reading, 0)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 # pytest's own refuses to be read
        ended = line(folder, *words)
        told.write_text(json.dumps([ended.code, ended.out, ended.err]), encoding="utf-8")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    left = os.read(reading, 100).decode()
    os.close(reading)
    result = Told(*json.loads(told.read_text(encoding="utf-8")))
    if again and "Invalid thread pool" in result.err:  # torch's pool does not always outlive a fork
        return asked(folder, *words, said=said, again=False)
    return result, left


@pytest.fixture(scope="module")
def world(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world of all commands, its base and its larger tokenizer poisoned before the run `trained` is made of it."""
    folder = tmp_path_factory.mktemp("poisoned") / "world"
    shutil.copytree(world, folder)
    questions = folder / "questions.jsonl"
    questions.write_text('{"id": "1", "instruction": "中国？"}\n', encoding="utf-8")
    pairs = [{"prompt": "我们？", "chosen": "中国", "rejected": "上海"}] * 8
    (folder / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs), encoding="utf-8")
    poison(folder / "base", folder / "marker")
    change(folder / "bigger" / "tokenizer_config.json", auto_map=MAP)
    shutil.copy(folder / "base" / "evil.py", folder / "bigger" / "evil.py")
    shutil.rmtree(folder / "trained")
    told = line(folder, *COMMANDS["pretrain"].line(folder / "trained"))
    assert told.code == 0, told.err
    return folder


MORE = {
    "chat": ("chat", "base", "--prompt", "中国", "--max-tokens", "2"),
    "eval": ("eval", "base", "--text", "text.txt"),
    "audit": ("audit", "bigger", "--base", "base"),
    "advise": ("advise", "--base", "base", "--text", "text.txt"),
    "answer": ("answer", "base", "--questions", "questions.jsonl", "--reply-tokens", "2", "--out", "made"),
    "reward": ("reward", "--model", "base", "--pairs", "pairs.jsonl", "--max-length", "128", *TRAINING[:6], "--out", "made"),
    "dpo": ("dpo", "--model", "base", "--pairs", "pairs.jsonl", "--max-length", "128", *TRAINING[:6], "--out", "made"),
}  # fmt: skip
READING = {
    **{name: command.line(Path("made")) for name, command in COMMANDS.items() if {"base", "trained"} & {*command.words}},
    **MORE,
}  # fmt: skip


@pytest.mark.parametrize("name", READING)
def test_code_beside_a_known_type_is_left_alone(world: Path, name: str) -> None:
    shutil.rmtree(world / "made", ignore_errors=True)
    told, left = asked(world, *READING[name])
    assert told.code == 0, told.err
    assert left == "y\n", "standard input was read"
    assert not (world / "marker").exists()


@pytest.fixture(scope="module")
def unknown(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same world, its base now of a model type and a tokenizer class that only its own code has."""
    folder = tmp_path_factory.mktemp("unknown") / "world"
    shutil.copytree(world, folder)
    shutil.rmtree(folder / "trained")
    change(folder / "base" / "config.json", model_type="secret")
    change(folder / "base" / "tokenizer_config.json", tokenizer_class="SecretTokenizer")
    return folder


@pytest.mark.parametrize("name", [n for n in READING if "trained" not in READING[n]])
def test_a_type_that_needs_code_is_refused(unknown: Path, name: str) -> None:
    shutil.rmtree(unknown / "made", ignore_errors=True)
    told, left = asked(unknown, *READING[name])
    assert left == "y\n", "standard input was read"
    assert not (unknown / "marker").exists() and "internal error" not in told.err
    if told.code and name == "audit":  # its report says which settings it could not read, and why
        assert "✗  special and added tokens" in told.out and "never run here" in told.out
    elif told.code:
        assert told.err.count("\n") == 1 and "never run here" in told.err and "base/" in told.err
    else:  # these read the vocabulary's own file and no more
        assert name in ("merge-vocab", "report", "pack", "audit", "advise", "sharegpt split")


def test_the_first_line_of_a_conversation_is_a_message(world: Path) -> None:
    """As users start it; on the main of 2026-11-28 the `y` was taken as consent, and the model never got it."""
    ended = subprocess.run(
        [sys.executable, "-m", "zhllama", "chat", "base", "--greedy", "--max-tokens", "2"],
        cwd=world, input="y\n", capture_output=True, text=True, encoding="utf-8", timeout=120,
        env={**os.environ, "PYTHONSAFEPATH": "1", "NO_COLOR": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "run the custom code" not in ended.stdout + ended.stderr
    assert ended.stdout.strip(), "the message got no answer"
    assert not (world / "marker").exists()


def test_serve_opens_no_model_that_needs_code(unknown: Path) -> None:
    told, left = asked(unknown, "serve", "base", "--port", "0")
    assert (told.code, left) == (1, "y\n") and "never run here" in told.err


@pytest.mark.parametrize(
    "config",
    [
        {"attn_implementation": "stranger/kernel"},
        {"_attn_implementation": "stranger/kernel@main:attend"},
        {"_attn_implementation_internal": "paged|stranger/kernel"},
        {"attn_implementation": {"": "sdpa", "text_config": "stranger/kernel"}},
        {"text_config": {"attn_implementation": "stranger/kernel"}},
        {"parts": [{"attn_implementation": "stranger/kernel"}]},
        {"experts_implementation": "stranger/kernel"},
        {"experts_implementation": "sonicmoe"},
    ],
)
def test_compiled_code_on_a_hub_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = write_model(tmp_path / "base")
    change(folder / "config.json", **config)
    for opening in (read_model_config, load_base, lambda path: read_shape(None, str(path / "config.json"))):
        with pytest.raises(InputError, match=r"config\.json: names '.*never run here\. Remove \w+ from"):
            opening(folder)


def test_implementations_of_transformers_open(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "base")
    change(folder / "config.json", attn_implementation="eager")
    assert load_base(folder).config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"peft_type": "XLORA", "adapters": {"0": "stranger/lora"}}, "type 'XLORA'"),
        ({"peft_type": "SHADOW", "shadow_model": "stranger/model"}, "type 'SHADOW'"),
        ({"peft_type": "PROMPT_TUNING", "tokenizer_name_or_path": "stranger/model"}, "type 'PROMPT_TUNING'"),
        ({"peft_type": None}, "type None"),
        ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "sets megatron_config"),
        ({"arrow_config": {"arrow_expert_num": 2}}, "sets arrow_config"),
    ],
)  # fmt: skip
def test_adapters_that_name_code_or_models(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    base = write_model(tmp_path / "base")
    run = write_run(tmp_path / "run", base, lora=True)
    change(run / "adapter" / "adapter_config.json", **changed)
    with pytest.raises(InputError, match=told):
        open_model(run)


def test_an_adapter_says_nothing_of_its_base(tmp_path: Path) -> None:
    """`base_model_name_or_path` and `auto_mapping` are what PEFT would open; the base is the run's."""
    base = write_model(tmp_path / "base")
    run = write_run(tmp_path / "run", base, lora=True)
    mapping = {"base_model_class": "Evil", "parent_library": "evil"}
    changed = {"base_model_name_or_path": "stranger/model", "auto_mapping": mapping, "revision": "main"}
    change(run / "adapter" / "adapter_config.json", **changed)
    assert open_model(run).model.config.model_type == "llama"


def test_an_adapter_beside_a_model_is_refused(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    run = write_run(tmp_path / "run", base, lora=True)
    for path in (run / "adapter").iterdir():
        shutil.copy(path, base / path.name)
    with pytest.raises(InputError, match=r"adapter_config\.json: is an adapter beside a whole model"):
        load_base(base)


@pytest.mark.parametrize(
    "settings",
    [{"penalty_alpha": 0.6, "top_k": 4}, {"dola_layers": "high"}, {"num_beam_groups": 2, "num_beams": 4}],
)
def test_generation_that_fetches_code_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = write_model(tmp_path / "base")
    change(folder / "generation_config.json", **settings)
    with pytest.raises(InputError, match="for which transformers would download code from a hub"):
        open_chat_model(folder)


@pytest.mark.parametrize("named", [["evil.Tokenizer", None], [None, "evil.Tokenizer"], {"AutoTokenizer": "evil.T"},
                                   {"AutoTokenizer": ["stranger/code--evil.T", None]}, "evil", 7, [], {}, None])  # fmt: skip
def test_tokenizers_with_code(tmp_path: Path, named: Any) -> None:
    """Whatever an auto_map looks like, a tokenizer is opened by transformers' own class or refused in one line."""
    folder = poison(write_model(tmp_path / "base"), tmp_path / "marker")
    change(folder / "tokenizer_config.json", auto_map=named)
    for kind in (None, "SecretTokenizer"):
        change(folder / "tokenizer_config.json", tokenizer_class=kind or "PreTrainedTokenizerFast")
        for opening in (load_transformers_tokenizer, auto_tokenizer):
            try:
                assert opening(folder).encode("a")
            except InputError as error:
                assert "\n" not in str(error)
    assert not (tmp_path / "marker").exists()


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            named = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if named in OPENING:
                yield named, node


def test_every_opening_names_trust_remote_code() -> None:
    """In the package one module opens all; beside it only lm-eval's wrapper of an opened model. All refuse code."""
    found: list[tuple[str, str]] = []
    for path in (*(ROOT / "zhllama").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")):
        where = str(path.relative_to(ROOT))
        for named, call in calls(path):
            given = {word.arg: word.value for word in call.keywords}
            refused = given.get("trust_remote_code")
            peft = ast.unparse(call.func) in ("PeftModel.from_pretrained", "model.load_adapter")
            if peft:  # PEFT knows no such option; open_adapter checks what it would load
                assert where == "zhllama/pretrained.py"
            else:
                assert isinstance(refused, ast.Constant) and refused.value is False, (where, call.lineno)
            found.append((where, named))
    assert {where for where, _ in found if where.startswith("zhllama")} == {
        "zhllama/pretrained.py", "zhllama/evaluation/lm_eval_tasks.py",
    }  # fmt: skip
    assert len(found) >= 8, "the walk found less than there is"
