"""advice.html: the curve and its costs on one self-contained page; the user's names are escaped."""

from collections.abc import Sequence
from html import escape

from zhllama.efficiency.advise import SEEN, Advice

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 380, 52, 36, 14, 40
HUES = 137.5  # degrees between neighbouring colours: the golden angle keeps any number of them apart


def page(advice: Advice, base: str) -> str:
    """The whole page."""
    title = f"扩充词表的建议 Advice: {escape(base)}"
    notes = "".join(f"<p>{escape(line)}</p>" for line in (advice.repaid, advice.caution) if line)
    lines = {"": [step.characters_per_token for step in advice.steps]} | {
        label: [step.domains[label] for step in advice.steps] for label in advice.steps[0].domains
    }
    added = [step.added for step in advice.steps]
    return (
        '<!doctype html>\n<html lang="zh-Hans"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
        f'<p class="word {advice.verdict}">{escape(advice.sentence)}</p>{notes}'
        "<section><h2>每词元字数 Characters per token</h2>"
        f"{curve(added, lines, advice.recommended.added)}{_legend([label for label in lines if label])}</section>"
        f"<section><h2>代价与所得 What each point costs and gains</h2>{_table(advice)}</section>"
        f"<footer>{advice.train_tokens:,.0f} training tokens; hidden {advice.model.hidden:,}, layers {advice.model.layers}; "
        f"seen: share of the new pieces that stand {SEEN} times in that text. zhllama, docs/advise.md</footer></body></html>\n"
    )


def curve(added: Sequence[int], lines: dict[str, list[float]], mark: int) -> str:
    """Lines over the number of added pieces; the one named "" is drawn thick, `mark` with a rule through it."""
    top = max(max(values) for values in lines.values()) * 1.05
    last = max(added[-1], 1)

    def x(pieces: float) -> float:
        return LEFT + pieces / last * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP)

    grid = "".join(
        f'<path class="grid" d="M{LEFT} {y(v):.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.1f}</text>'
        for v in (top * i / 5 for i in range(6))
    )
    ticks = "".join(
        f'<text x="{x(n):.1f}" y="{HEIGHT - 12}" text-anchor="middle">{n:,.0f}</text>'
        for n in (last * i / 4 for i in range(5))
    )
    drawn = "".join(
        f'<polyline class="{"all" if not label else "one"}" style="--h:{number * HUES:.0f}" points="'
        + " ".join(f"{x(n):.1f},{y(v):.1f}" for n, v in zip(added, values, strict=True))
        + f'"><title>{escape(label or "all")}</title></polyline>'
        for number, (label, values) in reversed(list(enumerate(lines.items())))
    )
    rule = f'<path class="mark" d="M{x(mark):.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="characters per token against added pieces">'
        f"{grid}{ticks}{rule}{drawn}</svg>"
    )


def _legend(labels: Sequence[str]) -> str:
    items = "".join(
        f'<li><i style="--h:{n * HUES:.0f}"></i>{escape(label)}</li>' for n, label in enumerate(labels, 1)
    )
    return f'<ul><li><i class="all"></i>全部 all</li>{items}</ul>'


def _table(advice: Advice) -> str:
    names = (
        "新增 added", "字/词元 chars/token", "省 saved", "再加 next 1,000", "参数 parameters", "内存 memory",
        "输出层 head", "计算 compute", "见到 seen",
    )  # fmt: skip
    rows = []
    for step in advice.steps:
        cells = (
            f"{step.added:,}",
            f"{step.characters_per_token:.3f}",
            f"{step.saved:.1%}",
            f"{step.next_saves:.2%}" if step is not advice.steps[-1] else "",
            f"{step.parameters / 1e6:,.1f} M",
            f"{step.memory_mb:,.0f} MB",
            f"{step.head_share:.1%}",
            f"{step.compute:.2f}",
            f"{step.seen:.0%}",
        )
        best = ' class="best"' if step.added == advice.recommended.added else ""
        rows.append(f"<tr{best}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


STYLE = """
:root{color-scheme:light dark;--ink:#1c1b19;--paper:#fbfaf7;--card:#fff;--line:#e3dfd6;--soft:#6d685e;--mark:#b8452f;--light:42%}
@media(prefers-color-scheme:dark){:root{--ink:#ece8df;--paper:#171614;--card:#201e1b;--line:#38342e;--soft:#a59e90;--mark:#e0745c;--light:66%}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1.5rem 1rem;background:var(--paper);color:var(--ink);font:16px/1.6 system-ui,"Noto Sans CJK SC","PingFang SC","Microsoft YaHei",sans-serif}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.05rem;margin:0 0 .6rem}footer{color:var(--soft);font-size:.85rem;margin-top:1rem}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:1rem;margin:1rem 0}
.word{font-size:1.15rem;font-weight:600;border-left:.35rem solid var(--soft);padding-left:.8rem}.word.yes{border-color:#3f8f5a}.word.no{border-color:var(--mark)}
svg{display:block;width:100%}svg text{font-size:12px;fill:var(--soft)}.grid{stroke:var(--line)}.mark{stroke:var(--mark);stroke-dasharray:4 4}
polyline{fill:none;stroke-width:1.5;stroke:hsl(var(--h) 45% var(--light))}polyline.all{stroke:var(--ink);stroke-width:3.5}
ul{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:.6rem 0 0;padding:0;font-size:.85rem}li{overflow-wrap:anywhere}
li i{display:inline-block;width:1.1rem;height:.25rem;margin-right:.4rem;vertical-align:middle;background:hsl(var(--h) 45% var(--light))}li i.all{background:var(--ink)}
@media(max-width:600px){svg text{font-size:20px}}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}th{font-weight:400;color:var(--soft)}
th,td{text-align:right;white-space:nowrap;padding:.15rem .6rem;border-bottom:1px solid var(--line)}tr.best td{font-weight:700;color:var(--mark)}
"""
