"""Writes docs/reference/architectures.md and its Chinese version from the rows of architectures.py."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

STEPS = ("grow", "stage 1", "stage 2", "sft", "full", "export", "GGUF")
NOTHING = "nothing was trained"
BY_CONVERTER = ("converter", "untried")  # GGUF files of llama.cpp's converter
NAME = "architectures"


def write_pages(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write both pages; types that `rows` lack keep their rows of the page."""
    path = folder / f"{NAME}.md"
    kept = {row["type"]: row for row in read_page(path.read_text(encoding="utf-8"))} if path.exists() else {}
    rows = list((kept | {row["type"]: row for row in rows}).values())
    (folder / f"{NAME}.md").write_text(page(rows, ENGLISH), encoding="utf-8")
    (folder / f"{NAME}.zh.md").write_text(page(rows, CHINESE), encoding="utf-8")


def read_page(text: str) -> list[dict[str, Any]]:
    """The rows of the English page, with their refusals as the page has them."""
    reasons = dict(re.findall(r"^\| (\d+) \| `(.*)` \|$", text, re.M))
    rows: list[dict[str, Any]] = []
    table = text.partition("## The table")[2].partition("\n## ")[0]
    for line in table.strip().splitlines()[2:]:
        kind, *cells = line.strip("| ").split(" | ")
        row: dict[str, Any] = {"type": kind, "class": ""}
        for step, cell in zip(STEPS, cells, strict=False):
            row[step] = NOTHING if cell == "-" else reasons.get(cell.strip("[]"), cell)
        difference, *commit = cells[len(STEPS) :]
        row |= {} if difference == "-" else {"difference": float(difference)}
        rows.append(row | {"commit": commit[0] if commit else "-"})
    return rows + [
        {"type": kind, "cannot be built": why}
        for kind, why in re.findall(r"^- ([\w-]+): `(.*)`$", text, re.M)
    ]


def page(rows: list[dict[str, Any]], texts: dict[str, str]) -> str:
    """One page, with the sentences of one language."""
    rows = sorted(rows, key=lambda row: str(row["type"]))
    built = [row for row in rows if "class" in row]
    others = [row for row in rows if "class" not in row]
    reasons: dict[str, int] = {}
    lines = [
        f"| {row['type']} | "
        + " | ".join(_cell(row, step, reasons) for step in STEPS)
        + f" | {_difference(row)} | {row.get('commit', '-')} |"
        for row in built
    ]
    trained = [row for row in built if row["stage 1"] in ("ok", "plain")]
    worst = max((row["difference"] for row in built if "difference" in row), default=0.0)
    counts = {step: Counter(_kind(row[step]) for row in built) for step in STEPS}
    table = [
        f"| {step} | {counts[step]['ok']} | {counts[step]['plain']} | {counts[step]['refused']} |"
        for step in STEPS
    ]
    numbered = [f"| {number} | `{reason}` |" for reason, number in reasons.items()]
    missing = [f"\n- {row['type']}: `{_reason(row, _text(row))}`" for row in others]
    return texts["page"].format(
        mapping=len(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES), built=len(built), trained=len(trained), all=len(rows), worst=f"{worst:.0e}", counts="\n".join(table),
        rows="\n".join(lines), reasons="\n".join(numbered), others=len(others), missing="".join(missing),
    )  # fmt: skip


def _text(row: dict[str, Any]) -> str:
    return str(row.get("cannot be built") or row.get("failed"))


def _kind(cell: str) -> str:
    return "ok" if cell in BY_CONVERTER else cell if cell in ("ok", "plain") else "refused"


def _cell(row: dict[str, Any], step: str, reasons: dict[str, int]) -> str:
    cell = str(row[step])
    if cell in ("ok", "plain", *BY_CONVERTER):
        return cell
    if cell == NOTHING:
        return "-"
    return f"[{reasons.setdefault(_reason(row, cell), len(reasons) + 1)}]"


def _reason(row: dict[str, Any], line: str) -> str:
    """A refusal without what differs between types: folders, the type, tensors and layers."""
    line = re.sub(r"/tmp/\S+?/(?=\w+:)", "", line).replace("`", "'").replace("|", "/")
    line = re.sub(rf"\b{re.escape(str(row['type']))}\b", "TYPE", line)
    line = re.sub(
        r"has the type \w+,", "has the type TYPE,", line
    )  # that of the text model in one with vision
    line = re.sub(r"\b\w+(\.\w+)*\.(\d+)\.[\w.]*\w", "WEIGHT", line)
    return re.sub(r"^(grown|model|file|one|two|tuned|full|plain-\w+): ", "MODEL: ", line)


def _difference(row: dict[str, Any]) -> str:
    return f"{row['difference']:.0e}" if "difference" in row else "-"


ENGLISH = {
    "page": """# Architectures

Causal language models of transformers 5.23 are built at toy size with random weights, and put through zhllama's commands:

```bash
python scripts/experiments/architectures.py lines.jsonl
python scripts/experiments/architectures.py lines.jsonl --docs
```

The script walks transformers' mapping for causal language models, so a new architecture is tried without a change; it goes on where it was stopped, and takes names of types. So far {all} of the {mapping} types in the mapping
were tried: {built} could be built at toy size, and {trained} of these were trained.

- `ok`: done by zhllama's own embedding, head and loss. Training and export check themselves: see [pretrain](../pretrain.md) and [model](../model.md).
- `plain`: trained with whole matrices and transformers' own loss, because the model does more with its embedding or its head. Old rows stay frozen all the same.
- `converter`: the GGUF file was written by llama.cpp's own converter, with zhllama's vocabulary, and proved in llama.cpp. `untried`: the same, where the installed llama.cpp does not know the type. Other rows were walked without the converter; [model](../model.md#types-that-llamacpps-converter-writes) names more types that it writes.
- A number in brackets: refused in one line, which is listed below. A dash: nothing was trained that could be exported.

`export` stands for all runs that were trained: the merged model is compared with the run. `difference` is the largest relative difference of loss and gradients of the trained rows between zhllama and transformers,
on other ids than those of training's own check; the largest of all is {worst}, and 1e-4 is allowed. `commit` is that of the code that walked the row, where it is known.

| step | ok | plain | refused |
|---|---|---|---|
{counts}

## The table

| type | grow | stage 1 | stage 2 | sft | full | export | GGUF | difference | commit |
|---|---|---|---|---|---|---|---|---|---|
{rows}

## Why a step is refused

| number | line |
|---|---|
{reasons}

## What cannot be built

{others} of the types that were tried cannot be built by shrinking their default config.
{missing}
"""
}
CHINESE = {
    "page": """# 模型架构

把transformers 5.23的因果语言模型以随机权重构建成微型模型，再用zhllama的各条命令跑一遍：

```bash
python scripts/experiments/architectures.py lines.jsonl
python scripts/experiments/architectures.py lines.jsonl --docs
```

脚本遍历transformers的因果语言模型映射，因此无需改动就会尝试新的架构；中断之后会接着做，也可以指定类型的名称。目前已尝试映射中{mapping}种类型里的{all}种：其中{built}种可以构建成微型模型，{trained}种完成了训练。

- `ok`：由zhllama自己的嵌入、输出层和损失完成。训练和导出都会自行核对，见[预训练](../pretrain.zh.md)和[模型](../model.zh.md)。
- `plain`：用完整的矩阵和transformers自己的损失训练，因为模型对嵌入或输出层另有处理。旧行同样保持冻结。
- `converter`：GGUF文件由llama.cpp自己的转换脚本写出，词表由zhllama写，并在llama.cpp中验证。`untried`：同上，但已安装的llama.cpp还不认识该类型。其余各行在没有转换脚本的环境中测得；它能写的更多类型见[model](../model.zh.md#types-that-llamacpps-converter-writes)。
- 方括号中的数字：以一行文字拒绝，内容列在下面。短横线：没有训练出可以导出的结果。

`export`代表所有训练过的运行：合并后的模型会与运行比较。`difference`是zhllama与transformers在损失和所训练行的梯度上的最大相对差异，所用的ID与训练自带的核对不同；其中最大的为{worst}，允许的上限为1e-4。`commit`是测得该行的代码所在的提交（已知时才有）。

| 步骤 | ok | plain | 拒绝 |
|---|---|---|---|
{counts}

<a id="the-table"></a>

## 表格

| 类型 | grow | 第一阶段 | 第二阶段 | sft | full | export | GGUF | 差异 | 提交 |
|---|---|---|---|---|---|---|---|---|---|
{rows}

<a id="why-a-step-is-refused"></a>

## 步骤被拒绝的原因

| 编号 | 提示 |
|---|---|
{reasons}

<a id="what-cannot-be-built"></a>

## 无法构建的类型

已尝试的类型中有{others}种无法通过缩小默认配置来构建。
{missing}
"""
}
