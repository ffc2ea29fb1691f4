"""advice.html: characters per token and the costs of a vocabulary against the number of added pieces."""

from markupsafe import Markup

from zhllama.efficiency.advise import FEW_TOKENS, SEEN, TOO_LITTLE_TEXT, WORTH, Advice
from zhllama.efficiency.break_even import BreakEven, rounded
from zhllama.pages.charts import Curve, line_chart
from zhllama.pages.render import render, text


def advice_page(advice: Advice, base: str | None) -> str:
    """The page of the advice for a base named `base`; None is the embedded one."""
    added = [step.added for step in advice.steps]
    labels = list(advice.steps[0].domains)
    domains = [
        Curve(label, [(n, step.domains[label]) for n, step in zip(added, advice.steps, strict=True)], color)
        for color, label in enumerate(labels, 1)
    ]
    total = Curve(
        "",
        [(n, step.characters_per_token) for n, step in zip(added, advice.steps, strict=True)],
        0,
        strong=True,
    )
    return render(
        "advice",
        title=f"{base or 'LLaMA'} · zhllama advise",
        base=base,
        advice=advice,
        headline=_headline(advice),
        notes=_notes(advice),
        curves=[total, *domains],
        chart=line_chart([*domains, total], mark=advice.recommended.added, from_zero=True),
        seen_times=SEEN,
    )


def _headline(advice: Advice) -> Markup:
    best, now = advice.recommended, advice.steps[0].characters_per_token
    if advice.sentence == TOO_LITTLE_TEXT:
        return text("advice.late")
    if best.added == 0:
        return text("advice.nothing", now=f"{now:.2f}", worth=f"{WORTH:.1%}", seen=SEEN)
    figures = {"added": f"{best.added:,}", "now": f"{now:.2f}", "then": f"{best.characters_per_token:.2f}"}
    return text(f"advice.{advice.verdict}", **figures, saved=f"{best.saved:.0%}")


def _notes(advice: Advice) -> list[Markup]:
    notes = []
    # Chinese counts in units of 1e8.
    tokens = {"tokens": f"{advice.train_tokens / 1e9:g}", "tokens_yi": f"{advice.train_tokens / 1e8:g}"}
    if advice.repaid:
        assert advice.repaid_after is not None
        characters = {
            "characters": f"{advice.repaid_after / 1e9:.1f}",
            "characters_yi": f"{advice.repaid_after / 1e8:.0f}",
        }
        notes.append(text("advice.repaid", **tokens, **characters))
    extends = advice.verdict != "no" or advice.sentence == TOO_LITTLE_TEXT
    if advice.bits is None and extends:
        notes.append(text("advice.unmeasured"))
    if advice.break_even is not None and extends:
        notes.append(_quality(advice, advice.break_even))
    if advice.verdict != "no" and advice.train_tokens < FEW_TOKENS:
        notes.append(text("advice.few_tokens", **tokens))
    return notes


def _quality(advice: Advice, even: BreakEven) -> Markup:
    """After how much training text the extended base is as good as before, as in the caution of the command."""
    figures = {
        "bits": f"{advice.bits:g}",
        "low": rounded(even.low),
        "read": rounded(advice.train_tokens * advice.recommended.characters_per_token),
    }
    if even.about is None:
        return text("advice.beyond", **figures)
    if even.high is None:
        return text("advice.law_open", **figures, about=rounded(even.about))
    return text("advice.law", **figures, about=rounded(even.about), high=rounded(even.high))
