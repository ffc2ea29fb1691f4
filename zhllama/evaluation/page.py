"""report.html of a judging run: win rates, intervals, and the judge's words, all escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from random import Random
from typing import Any

from zhllama.evaluation.reference_metrics import METRICS
from zhllama.evaluation.results import INTERVALS, Results
from zhllama.evaluation.win_rates import ContestantScores, Duel, Interval, VerdictTally, standings
from zhllama.generation.charts import bars
from zhllama.generation.page import document, section

EXAMPLES = 20
OPEN = 12  # categories, up to which they are shown without being asked for
EXPLAINED = (
    "胜率为 Wilson 得分区间，一局平手算半胜；平均值的区间由对问题重抽样（bootstrap，2,000 次）得出；置信水平都是 95%。"
    "两种次序都判同一方更好才算胜，其余都算平局。"
)
NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "exact": "完全一致 exact"}
RESULTS = {"win": "左胜 left wins", "tie": "平局 tie", "loss": "右胜 right wins", "unreadable": "读不出 unreadable"}  # fmt: skip


def page(title: str, results: Results, spent: Mapping[str, Any] | None, seed: int) -> str:
    """The report; `spent` tells the judge's replies, tokens and cost."""
    sections = [section("数字 Figures", _figures(results, spent))]
    if len(results.duels) > 1:
        rates = [(name, 100 * rate) for name, rate in standings(results.duels).items()]
        sections.append(section("总胜率 Win rate over all duels, %", bars(rates)))
    sections += [section(f"{d.left} 对 {d.right}", _duel(d)) for d in results.duels]
    sections += [section(f"{m.name}：得分 Scores, 1–10", _marks(m)) for m in results.scores]
    sections += [section(f"{m.name}：奖励 Rewards", _marks(m)) for m in results.rewards]
    sections += [section(f"{d.left} 对 {d.right}：奖励 By rewards", _duel(d)) for d in results.reward_duels]
    if results.agreements:
        sections.append(section("与参考答案比较 Beside the references", _agreements(results)))
    shown = Random(seed).sample(list(results.rows), min(EXAMPLES, len(results.rows)))
    if shown:
        examples = "".join(_example(row, results) for row in shown)
        sections.append(section(f"随机 {len(shown)} 例 Random examples", examples))
    return document(title, "".join(sections), STYLE)


def told(interval: Interval, percent: bool = False) -> str:
    """A mean with its interval, as people read it."""
    if interval.value is None or interval.low is None or interval.high is None:
        return "—"
    if percent:
        return f"{interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}]"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _figures(results: Results, spent: Mapping[str, Any] | None) -> str:
    facts = [
        ("评委 judge", results.judge or "—"),
        ("问题 questions", f"{len(results.questions):,}"),
        *((f"{c.name}：回答 answers", f"{len(c.texts):,}") for c in results.contestants),
    ]
    if spent is not None:
        cost = spent["cost"]
        facts += [
            ("回复 replies", f"{spent['replies']:,}"),
            ("词元 tokens", f"{spent['prompt_tokens']:,} + {spent['completion_tokens']:,}"),
            ("费用 cost", "—" if cost is None else f"{cost:,.4f}"),
        ]
    return _list(facts) + f"<p class=soft>{EXPLAINED}<br>{escape(INTERVALS)}</p>"


def _list(facts: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts) + "</dl>"


def _duel(duel: Duel) -> str:
    tally = duel.tally
    missing = ", ".join(f"{why} {count:,}" for why, count in duel.missing.items())
    facts = [
        (f"{duel.left} 的胜率 win rate", told(tally.rate, percent=True)),
        ("胜 / 平 / 负", f"{tally.wins:,} / {tally.ties:,} / {tally.losses:,}"),
        ("已判 judged", f"{tally.judged:,} / {duel.questions:,}"),
        ("读不出 unreadable", f"{duel.unreadable:,}"),
        ("缺 missing", f"{sum(duel.missing.values()):,}" + (f" ({missing})" if missing else "")),
        ("两种次序结论不同 orders disagree", f"{duel.disagreements:,}"),
        ("其中都偏向先出示的 for the first shown", f"{duel.for_first:,}"),
    ]
    categories = _table(
        ("类别 category", "胜 / 平 / 负", f"{duel.left} 的胜率"),
        [
            (name or "—", f"{t.wins} / {t.ties} / {t.losses}", told(t.rate, percent=True))
            for name, t in duel.by_category().items()
        ],
    )
    return _stack(tally) + _list(facts) + categories


def _stack(tally: VerdictTally) -> str:
    if not tally.judged:
        return ""
    parts = (("win", tally.wins), ("tie", tally.ties), ("loss", tally.losses))
    pieces = "".join(
        f'<i class="{kind}" style="width:{count / tally.judged:.2%}" title="{RESULTS[kind]} {count}"></i>'
        for kind, count in parts
        if count
    )
    return (
        f'<div class=stack role=img aria-label="{tally.wins} / {tally.ties} / {tally.losses}">{pieces}</div>'
    )


def _marks(marks: ContestantScores) -> str:
    missing = ", ".join(f"{why} {count:,}" for why, count in marks.missing.items())
    facts = [
        ("平均 mean", told(marks.mean)),
        ("已判 judged", f"{len(marks.values):,} / {marks.questions:,}"),
        ("读不出 unreadable", f"{marks.unreadable:,}"),
        ("缺 missing", f"{sum(marks.missing.values()):,}" + (f" ({missing})" if missing else "")),
    ]
    rows = [(name or "—", f"{m.questions}", told(m)) for name, m in marks.by_category().items()]
    return _list(facts) + _table(("类别 category", "题数", "平均"), rows)


def _agreements(results: Results) -> str:
    rows = []
    for agreement in results.agreements:
        means = agreement.means()
        rows.append((agreement.name, f"{means['exact'].questions:,}", *(told(means[m]) for m in METRICS)))
    return _table(("", "题数 questions", *(NAMES[m] for m in METRICS)), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    top = "".join(f"<th scope=col>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    grid = f"<table class=grid><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    if len(rows) > OPEN:
        grid = f"<details><summary>{escape(head[0])} ({len(rows)})</summary>{grid}</details>"
    return f"<div class=wide>{grid}</div>"


def _example(row: Mapping[str, Any], results: Results) -> str:
    question = next(q for q in results.questions if q.id == row["id"])
    texts = {c.name: c.texts.get(question.id, "—") for c in results.contestants}
    names = [row["of"]] if "of" in row else [row["left"], row["right"]]
    result = f"{row['score']}" if "of" in row else RESULTS.get(row["result"], row["result"])
    answers = "".join(f"<h4>{escape(name)}</h4><pre>{escape(texts[name])}</pre>" for name in names)
    verdicts = [(row["of"], row["said"])] if "of" in row else [(" → ".join(o["shown"]), o["said"]) for o in row["orders"]]  # fmt: skip
    said = "".join(f"<h4>{escape(order)}</h4><pre>{escape(text)}</pre>" for order, text in verdicts)
    return (
        f"<article><h3>{escape(question.text)}</h3><p><b>{escape(result)}</b></p>{answers}"
        f"<details><summary>评委的话 What the judge said</summary>{said}</details></article>"
    )


STYLE = """
.soft{color:var(--soft);font-size:.85rem}h4{margin:.6rem 0 0;color:var(--soft);font-size:.9rem}
.stack{display:flex;height:1rem;border-radius:.3rem;overflow:hidden;margin-bottom:.8rem}.stack i{display:block}.win{background:var(--bar)}.tie{background:var(--line)}.loss{background:var(--soft)}
.wide{overflow-x:auto}.grid{border-collapse:collapse;font-size:.9rem;margin-top:.8rem;width:100%}.grid th{text-align:left;font-weight:400;color:var(--soft)}
.grid td,.grid th{padding:.2rem .8rem .2rem 0;font-variant-numeric:tabular-nums;border-bottom:1px solid var(--line);white-space:nowrap}summary{cursor:pointer;color:var(--soft)}
"""
