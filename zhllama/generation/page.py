"""report.html of a gen-zh run on one self-contained page; all text of a model is escaped."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from random import Random
from typing import Any

from zhllama.generation.charts import bars, sunburst
from zhllama.generation.task_pool import AcceptedTask
from zhllama.generation.verbs_and_nouns import histogram, kind, verbs_and_nouns

EXAMPLES = 20
SAMPLE = 2000  # instructions cut into words; 1.5 ms each
LENGTHS = (0, 10, 20, 40, 80, 160, 320, 640, 1280)
SCORES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def page(
    title: str, figures: Mapping[str, Any], kept: Sequence[AcceptedTask], nearest: Sequence[float], seed: int
) -> str:
    """The report; `nearest` are F measures of a sample to their nearest neighbours."""
    chance = Random(seed)
    sample = chance.sample(kept, min(SAMPLE, len(kept)))
    pairs = verbs_and_nouns(k.task.instruction for k in sample)
    kinds = Counter(kind(k.task.instruction) for k in kept)
    shown = chance.sample(kept, min(EXAMPLES, len(kept)))
    body = "".join(
        (
            section("数字 Figures", _figures(figures)),
            section("动词与名词 Verbs and nouns", sunburst(pairs) if pairs else "<p>—</p>"),
            section("类别 Kinds", bars(kinds.most_common())),
            section("落选原因 Reasons of rejection", bars(list(figures["reasons"].items()))),
            section("标记 Flags", bars(list(figures["flags"].items()))),
            section(
                "指令长度 Characters of instructions",
                bars(_bins([len(k.task.instruction) for k in kept], LENGTHS)),
            ),
            section(
                "输出长度 Characters of outputs", bars(_bins([len(k.task.output) for k in kept], LENGTHS))
            ),
            section("与最近者的相似度 ROUGE-L to the nearest", bars(_bins(nearest, SCORES))),
            section(f"随机 {len(shown)} 例 Random examples", "".join(map(_example, shown)) or "<p>—</p>"),
        )
    )
    return document(title, body)


def document(title: str, body: str, style: str = "") -> str:
    """A whole page around sections; `style` is added to that of all pages."""
    return (
        f'<!doctype html>\n<html lang="zh-Hans"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body><h1>{escape(title)}</h1><main>{body}</main></body></html>\n"
    )


def section(title: str, content: str) -> str:
    """One card of the page; `content` is HTML."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _figures(figures: Mapping[str, Any]) -> str:
    cost = figures["cost"]
    rows = [
        ("保留 kept", f"{figures['kept']:,} / {figures['wanted']:,}"),
        ("落选 rejected", f"{figures['rejected']:,}"),
        ("回复 replies", f"{figures['replies']:,}"),
        ("提示词元 prompt tokens", f"{figures['prompt_tokens']:,}"),
        ("回复词元 completion tokens", f"{figures['completion_tokens']:,}"),
        ("费用 cost", "—" if cost is None else f"{cost:,.4f}"),
        ("模型 model", ", ".join(name or "?" for name in figures["models"])),
    ]
    return (
        "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows) + "</dl>"
    )


def _bins(values: Sequence[float], edges: Sequence[float]) -> list[tuple[str, float]]:
    counts = histogram(values, edges)
    return [(f"{edge:g}+", count) for edge, count in zip(edges, counts, strict=True)] if values else []


def _example(kept: AcceptedTask) -> str:
    task = kept.task
    given = f"<pre class=given>{escape(task.input)}</pre>" if task.input else ""
    return f"<article><h3>{escape(task.instruction)}</h3>{given}<pre>{escape(task.output)}</pre></article>"


STYLE = """
:root{color-scheme:light dark;--ink:#1c1b19;--paper:#fbfaf7;--card:#fff;--line:#e3dfd6;--soft:#6d685e;--bar:#b8452f}
@media(prefers-color-scheme:dark){:root{--ink:#ece8df;--paper:#171614;--card:#201e1b;--line:#38342e;--soft:#a59e90;--bar:#e0745c}}
*{box-sizing:border-box}
body{overflow-wrap:anywhere;margin:0 auto;max-width:76rem;padding:2rem 1rem;background:var(--paper);color:var(--ink);font:16px/1.6 system-ui,"Noto Sans CJK SC","PingFang SC","Microsoft YaHei",sans-serif}
h1{font-size:1.6rem}h2{font-size:1.05rem;margin:0 0 .8rem}h3{font-size:1rem;margin:0 0 .4rem}
main{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:1rem;min-width:0}
section:last-child{grid-column:1/-1}
dl{display:grid;grid-template-columns:auto 1fr;gap:.2rem 1rem;margin:0}dt{color:var(--soft)}dd{margin:0;text-align:right;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.sunburst{width:100%;max-width:34rem;display:block;margin:auto}.sunburst text{font-size:12px;text-anchor:middle;dominant-baseline:central;fill:#1c1b19;pointer-events:none}.sunburst path{stroke:var(--card);stroke-width:1}
.bars{width:100%;border-collapse:collapse;font-size:.9rem}.bars th{text-align:left;font-weight:400;padding-right:.8rem;min-width:4rem;max-width:14rem}.bars td:last-child{text-align:right;padding-left:.6rem;font-variant-numeric:tabular-nums;white-space:nowrap}
.bar{width:100%;min-width:4rem}.bar i{display:block;height:.7rem;background:var(--bar);border-radius:.2rem;min-width:1px}
article{border-top:1px solid var(--line);padding:.8rem 0}pre{margin:.3rem 0;white-space:pre-wrap;overflow-wrap:anywhere;font:inherit;font-size:.92rem}.given{color:var(--soft);border-left:3px solid var(--line);padding-left:.8rem}
"""
