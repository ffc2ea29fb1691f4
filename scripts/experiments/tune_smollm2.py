"""Tunes SmolLM2-135M, with and without a larger vocabulary, on Chinese instructions, and writes its answers.

    python scripts/experiments/tune_smollm2.py --work /tmp/tune

The model is that of scripts/experiments/row_initializations.py, extended by 2,000 tokens with mean initialization. `alpaca`: 2,000
rows of sft_alpaca_zh_carbonz0, 40 more for validation. `oasst`: the multi-turn chat_oasst_zh_sharegpt, 8 for validation, starting
from the `alpaca` run with the template chatml. `--old` also tunes the model with its old vocabulary. Each run is `zhllama sft` and
is resumed if it was interrupted. Results: WORK/results.json and WORK/answers.md.
"""

import argparse
import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import torch  # noqa: E402
from row_initializations import continue_vocabulary, smollm2  # noqa: E402

from zhllama.conversation.read_conversations import accepted_rows, read_conversations, training_fault  # noqa: E402
from zhllama.conversation.records import Conversation  # noqa: E402
from zhllama.io.text import read_lines  # noqa: E402
from zhllama.manifest import read_manifest  # noqa: E402
from zhllama.model.grow import grow  # noqa: E402
from zhllama.model.load import open_model  # noqa: E402
from zhllama.run_folder import MANIFEST  # noqa: E402

ADDED = 2000
QUESTIONS = (
    "给出三个保持健康的建议。", "中国的首都是哪里？", "用一句话介绍人工智能。", "写一首关于春天的短诗。", "把下面的句子翻译成英文。\n我今天很高兴。",
    "列出三种水果。", "为什么天空是蓝色的？", "怎样学好一门外语？", "下面的句子是褒义还是贬义？\n他做事总是很认真。", "写一个关于猫的小故事的开头。",
)  # fmt: skip


def rows(path: Path) -> list[Conversation]:
    """The conversations of a file of the test data."""
    return list(accepted_rows(read_conversations(path, training_fault), []))


def write(path: Path, conversations: list[Conversation]) -> Path:
    """Write conversations as messages, one per line."""
    lines = [{"messages": [{"role": t.role, "content": t.text} for t in row.turns]} for row in conversations]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def tune(out: Path, model: Path, data: Path, validation: Path, steps: int, *more: str) -> dict[str, Any]:
    """The figures of one run of `zhllama sft`, which may be finished already."""
    if not (out / MANIFEST).is_file():
        command = [sys.executable, "-P", "-m", "zhllama", "sft", "--model", str(model), "--data", str(data), "--eval-data", str(validation),
                   "--out", str(out), "--steps", str(steps), "--resume", "--skip-bad", "--lora-dropout", "0",
                   "--eval-every", "100", "--save-every", "4", "--log-every", "1", *more]  # fmt: skip
        subprocess.run(command, check=True)
    figures: dict[str, Any] = read_manifest(out)["figures"]
    return figures


def answers(model: Path, questions: tuple[str, ...], length: int = 60) -> list[str]:
    """Greedy answers under the stored template."""
    opened = open_model(model, dtype=torch.float32)
    replies = []
    for question in questions:
        messages = [{"role": "user", "content": question}]
        ids = opened.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)  # fmt: skip
        with torch.inference_mode():
            output = opened.model.generate(**ids, max_new_tokens=length, do_sample=False)
        replies.append(
            opened.tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        )
    return replies


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--steps", type=int, default=24, help="of alpaca, 4 blocks of 512 tokens each")
    parser.add_argument("--chat-steps", type=int, default=8, help="of oasst, 2 blocks of 1,024 tokens each")
    parser.add_argument("--lr", default="1e-3")
    parser.add_argument("--old", action="store_true", help="tune with the old vocabulary too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    work: Path = args.work
    work.mkdir(parents=True, exist_ok=True)
    base = smollm2(work / "base")
    chinese = args.data / "text" / "zh_small.txt.xz"
    larger = continue_vocabulary(base, read_lines([chinese]), ADDED, work / f"tokenizer-{ADDED}")
    grown = work / f"grown-{ADDED}"
    if not (grown / "config.json").is_file():
        grow(base, larger, grown)
    alpaca = rows(args.data / "instructions" / "sft_alpaca_zh_carbonz0.jsonl.xz")
    chat = rows(args.data / "instructions" / "chat_oasst_zh_sharegpt.jsonl.xz")
    files = [write(work / f"{name}.jsonl", list(some)) for name, some in (
        ("alpaca", islice(alpaca, 2000)), ("alpaca-validation", islice(alpaca, 2000, 2040)),
        ("oasst", chat[8:]), ("oasst-validation", chat[:8]),
    )]  # fmt: skip
    short = ("--batch", "4", "--micro-batch", "4", "--lr", args.lr)
    long = (
        "--batch",
        "2",
        "--micro-batch",
        "2",
        "--lr",
        args.lr,
        "--max-length",
        "1024",
        "--template",
        "chatml",
    )
    results = {"alpaca": tune(work / "alpaca", grown, *files[:2], args.steps, *short)}
    results["oasst"] = tune(work / "oasst", work / "alpaca", *files[2:], args.chat_steps, *long)
    if args.old:
        results["alpaca-old"] = tune(work / "alpaca-old", base, *files[:2], args.steps, *short)
    (work / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False), encoding="utf-8")
    lines = []
    for name in results:
        lines.append(f"## {name}\n")
        for question, answer in zip(QUESTIONS, answers(work / name, QUESTIONS), strict=True):
            lines.append(f"- **{question!r}** {answer!r}")
    (work / "answers.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, figures in results.items():
        bits = {k: v for k, v in figures.items() if "_bits_per_" in k}
        print(name, figures["steps"], "steps", figures["tokens"], "positions", bits)


if __name__ == "__main__":
    main()
