"""The model card of an exported model, in English and Chinese: YAML head, what was done and measured, how to load it, limits.

Nothing in it is a path of this machine: steps are told by their commands, texts by their labels, the base by its hub name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from zhllama.errors import InputError
from zhllama.hub_name import Hub, HubName, parse_hub_name
from zhllama.io.json import read_object
from zhllama.io.yaml import parse_yaml
from zhllama.lineage import MODEL_COMMANDS, Ancestor, lineage, oldest_first
from zhllama.manifest import read_manifest
from zhllama.model.chain import Chain
from zhllama.run_folder import MANIFEST

if TYPE_CHECKING:
    from zhllama.model.export import Proof

# A hub model in the caches of huggingface_hub and of ModelScope's client.
CACHED: Mapping[Hub, re.Pattern[str]] = {
    "huggingface": re.compile(r"models--([\w.-]+?)--([\w.-]+)"),
    "modelscope": re.compile(r"/models/([\w.-]+?)--([\w.-]+)/snapshots/"),
}
HEAD = re.compile(r"\A---\n(.*?\n)---\n", re.S)
LICENSE = ("license", "license_name", "license_link")
# What a step measured, in the words of both languages.
BITS = re.compile(r"(.+)_bits_per_character")
TOLD: Mapping[str, tuple[str, str]] = {
    "merge-vocab": ("vocabulary extended", "扩充词表"),
    "grow": ("rows added for the new tokens", "为新增词元添加行"),
    "pretrain": ("continued pre-training", "继续预训练"),
    "sft": ("supervised fine-tuning", "指令微调"),
    "reward": ("reward model", "奖励模型"),
    "dpo": ("preference tuning (DPO)", "偏好优化（DPO）"),
    "kto": ("preference tuning (KTO)", "偏好优化（KTO）"),
    "export": ("folded into one model", "合为一个模型"),
    "corpus fetch": ("text fetched", "下载文本"),
    "corpus clean": ("text cleaned", "清洗文本"),
    "gen-zh": ("instructions generated", "生成指令数据"),
}


@dataclass(frozen=True)
class CardStep:
    """A step that made the model: its command, its options and figures as its manifest has them."""

    command: str
    options: Mapping[str, Any]
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class CardFacts:
    """What a card tells: the base by hub name or None, its license, data sets by hub name, the steps, and the page of the base."""

    base: str | None
    license: Mapping[str, str]
    datasets: tuple[str, ...]
    steps: tuple[CardStep, ...]
    page: str = ""


@dataclass(frozen=True)
class AdapterCard:
    """What a card of an adapter tells: the hub name of its base or None, and the rows that the base must be given, or None."""

    base: str | None
    rows: int | None


def card_facts(chain: Chain) -> CardFacts:
    """Read the manifests behind a chain; what cannot be read any more is left out."""
    try:
        runs: Sequence[Ancestor] = oldest_first(lineage(chain.runs[-1] if chain.runs else chain.base))
        steps = [_step(run.folder) for run in runs]
    except (InputError, KeyError):
        steps = [_step(run) for run in (chain.base, *chain.runs) if (run / MANIFEST).is_file()]
    models = [
        str(step.options[key]) for step in steps for key in ("model", "base_model") if step.options.get(key)
    ]
    folders = [*(Path(name) for name in models), chain.base]
    names = [name for place in (*models, str(chain.base)) if (name := _known(place))]
    heads = [_head(folder) for folder in folders]
    configs = [folder / "config.json" for folder in folders if (folder / "config.json").is_file()]
    names += [name for path in configs if (name := _known(str(read_object(path).get("_name_or_path", ""))))]
    licensed = next((head for head in heads if head.get("license")), {})
    sources = (step.figures.get("source", {}).get("hub") for step in steps if step.command == "corpus fetch")
    return CardFacts(
        names[0].id if names else None,
        {key: str(licensed[key]) for key in LICENSE if licensed.get(key)},
        tuple(
            dict.fromkeys(name.id for hub in sources if hub and (name := parse_hub_name(hub, "huggingface")))
        ),
        tuple(step for step in steps if step.command in TOLD),
        names[0].page if names else "",
    )


def _step(folder: Path) -> CardStep:
    manifest = read_manifest(folder)
    return CardStep(manifest["command"], manifest.get("options", {}), manifest.get("figures", {}))


def _known(place: str) -> HubName | None:
    """The repository of a model: of a hub name, or of a folder in a hub's cache; None for other paths."""
    for hub, pattern in CACHED.items():
        if cached := pattern.search(place):
            return HubName(hub, f"{cached[1]}/{cached[2]}")
    return parse_hub_name(place)


def _head(folder: Path) -> dict[str, Any]:
    """The YAML head of a folder's own card; empty where it has none that can be read."""
    path = folder / "README.md"
    if not path.is_file():
        return {}
    found = HEAD.match(path.read_text(encoding="utf-8", errors="replace"))
    try:
        return parse_yaml(found[1], path) if found else {}
    except InputError:
        return {}


def model_card(
    name: str,
    facts: CardFacts,
    proof: "Proof",
    chat: bool,
    gguf: str | None = None,
    adapter: AdapterCard | None = None,
) -> str:
    """The card as Markdown, of a whole model or an adapter.

    `chat`: the tokenizer has a chat template; `gguf`: the name of the GGUF file beside it.
    """
    base = f"[{facts.base}]({facts.page})" if facts.base else None
    parts = [
        _yaml_head(facts, chat, gguf, adapter),
        f"# {name}",
        f"[中文](#中文)\n\n{base or 'A language model'}, with Chinese added by [zhllama](https://github.com/zhllama/zhllama).",
        "## What was done",
        _table(facts.steps, 0),
        f"The exported weights were compared with the training run on {proof.tokens} tokens: the RMS of the difference of the logits is "
        f"{proof.difference:.1e} of their RMS (allowed: {proof.limit:.0e}), and both rank the same next token first at {100 * proof.agree:.1f} % of the positions.",
        "Bits per character compare across vocabularies: lower is better. They were measured on text that was not trained on.",
        "## How to load it",
        _loading(name, chat, gguf, 0, adapter),
        "## Limits",
        "The model repeats the errors and prejudices of its base and of its training text, and it invents facts. Nothing was measured beyond "
        "the figures above. " + _license_note(facts, 0),
        '<a id="中文"></a>\n\n## 中文',
        f"{base or '一个语言模型'}，由[zhllama](https://github.com/zhllama/zhllama)补上了中文。",
        "### 做了什么",
        _table(facts.steps, 1),
        f"导出的权重在{proof.tokens}个词元上与训练结果比对：logits之差的均方根是logits均方根的{proof.difference:.1e}（上限{proof.limit:.0e}），"
        f"{100 * proof.agree:.1f} %的位置上，两者排在第一的下一个词元相同。",
        "每字符比特数可以跨词表比较，越低越好；所用文本没有参与训练。",
        "### 如何加载",
        _loading(name, chat, gguf, 1, adapter),
        "### 局限",
        "基座和训练文本中的错误与偏见，模型也会有；它还会编造事实。除上面的数字之外，没有做过其他测量。"
        + _license_note(facts, 1),
    ]
    return "\n\n".join(parts) + "\n"


def _yaml_head(facts: CardFacts, chat: bool, gguf: str | None, adapter: AdapterCard | None) -> str:
    tags = ["chinese", "zhllama", *(["conversational"] if chat else []), *(["gguf"] if gguf else [])]
    head: dict[str, Any] = {
        "language": ["zh", "en"],
        **facts.license,
        "library_name": "transformers" if adapter is None else "peft",
        "pipeline_tag": "text-generation",
        **({"base_model": facts.base} if facts.base else {}),
        **({"datasets": list(facts.datasets)} if facts.datasets else {}),
        "tags": tags,
    }
    return f"---\n{yaml.safe_dump(head, allow_unicode=True, sort_keys=False)}---"


def _table(steps: Iterable[CardStep], language: int) -> str:
    head = ("| step | command | data | figures |", "| 步骤 | 命令 | 数据 | 数字 |")[language]
    rows = [
        f"| {TOLD[step.command][language]} | `{_command(step)}` | {', '.join(_labels(step))} | {'; '.join(_figures(step, language))} |"
        for step in steps
    ]
    return "\n".join((head, "|---|---|---|---|", *rows))


def _command(step: CardStep) -> str:
    stage = step.options.get("stage")
    recipe = step.options.get("recipe")
    return step.command + (f" --stage {stage}" if stage else "") + (f" --recipe {recipe}" if recipe else "")


def _labels(step: CardStep) -> list[str]:
    """The labels of a step's texts, `zh` of `zh=PATH:9`, and the names of its data files without their folders."""
    if step.command == "corpus fetch":
        return [str(step.options.get("name", ""))]
    texts = step.options.get("text") if step.command == "pretrain" else None
    labels = [str(value).partition("=")[0] for value in texts or () if "=" in str(value)]
    files = step.options.get("data") or step.options.get("pairs") or ()
    return list(dict.fromkeys([*labels, *(Path(str(file)).name for file in files)]))


def _figures(step: CardStep, language: int) -> list[str]:
    """The figures of a step that a reader of a card asks for."""
    figures, told = step.figures, list[str]()
    if step.command == "merge-vocab":
        drift, dead = figures.get("drift"), figures.get("dead")
        told.append(
            (f"{figures.get('pieces', 0):,} pieces", f"共{figures.get('pieces', 0):,}个词表项")[language]
        )
        if isinstance(drift, Sequence) and len(drift) == 2:
            told.append(
                (
                    f"{drift[0]:,} of {drift[1]:,} lines without Chinese tokenized differently",
                    f"{drift[1]:,}行不含中文的文本中有{drift[0]:,}行切分改变",
                )[language]
            )
        if isinstance(dead, int):
            told.append((f"{dead:,} dead pieces", f"{dead:,}个不可达词表项")[language])
    for key, words in (
        ("n_new", ("{:,} new rows", "{:,}个新行")),
        ("documents", ("{:,} documents", "{:,}篇文本")),
        ("steps", ("{:,} steps", "{:,}步")),
        ("tokens", ("{:,} tokens", "{:,}个词元")),
    ):
        if isinstance(figures.get(key), int):
            told.append(words[language].format(figures[key]))
    if step.command in MODEL_COMMANDS and isinstance(figures.get("loss"), int | float):
        told.append(("loss", "损失")[language] + f" {figures['loss']:.4g}")
    for key, value in figures.items():
        if (found := BITS.fullmatch(key)) and isinstance(value, Mapping) and "before" in value:
            unit = ("bits per character", "每字符比特数")[language]
            told.append(f"{found[1]} {unit} {value['before']:.3f} → {value['after']:.3f}")
    return told


def _loading(name: str, chat: bool, gguf: str | None, language: int, adapter: AdapterCard | None) -> str:
    """Commands and code that load the model, with its name in place of a hub name."""
    asked = (
        'inputs = tokenizer.apply_chat_template([{"role": "user", "content": "介绍一下你自己。"}], add_generation_prompt=True, return_tensors="pt", return_dict=True)'
        if chat
        else 'inputs = tokenizer("人工智能是", return_tensors="pt")'
    )
    beside = ("beside this file", "本目录中的")[language]
    opened = (
        f'model = AutoModelForCausalLM.from_pretrained("{name}", dtype="auto")\n'
        if adapter is None
        else _opened_adapter(name, adapter)
    )
    parts = [
        "```python\n"
        f"{'' if adapter is None else 'from peft import PeftModel' + chr(10)}"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
        f"{opened}"
        f"{asked}\n"
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=128)[0]))\n"
        "```",
    ]
    if adapter is None:
        parts.append(f"```bash\nvllm serve {name}\n```")
    else:
        folding = ("Or fold it into a plain model:", "也可以合并成一个普通模型：")[language]
        parts.append(
            f"{folding}\n\n```bash\nzhllama export --model {adapter.base or 'BASE'} --adapter {name} --out plain\n```"
        )
    if gguf:
        parts.append(
            f"```bash\nllama-cli -m {gguf}            # llama.cpp\nollama create {name.lower()} -f Modelfile  # Ollama; Modelfile {beside}\n```"
        )
    return "\n\n".join(parts)


def _opened_adapter(name: str, adapter: AdapterCard) -> str:
    """Code that opens an adapter on its base, which has more rows first where the adapter has new ones."""
    rows = (
        "" if adapter.rows is None
        else f"model.resize_token_embeddings({adapter.rows}, mean_resizing=False)\n"
    )  # fmt: skip
    return (
        f'model = AutoModelForCausalLM.from_pretrained("{adapter.base or "BASE"}", dtype="auto")\n{rows}'
        f'model = PeftModel.from_pretrained(model, "{name}")\n'
    )


def _license_note(facts: CardFacts, language: int) -> str:
    if facts.license:
        return (
            "The license is that of the base; the licenses of the training texts apply to them.",
            "许可证与基座相同；训练文本各有自己的许可证。",
        )[language]
    return (
        "The license of the base applies; its files here do not name it.",
        "适用基座的许可证；手头的基座文件没有写明是哪一种。",
    )[language]
