"""Prints an audit."""

from typing import Literal

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from zhllama.commands.translation import translated
from zhllama.vocab.audit import Audit, LineTally
from zhllama.vocab.vocabulary import SPACE

SPECIALS = 8  # shown; Llama 3 has 256, DeepSeek more than a thousand
_SHADES = ("on #3b5f8a", "on #8a5a2b")
_CHARSETS = {
    "gb2312-1": "GB 2312 level 1",
    "gb2312-2": "GB 2312 level 2",
    "big5-1": "Big5 level 1",
    "big5-2": "Big5 level 2",
}


def draw(screen: Console, audit: Audit, name: str, base: str) -> None:
    """Print the promises, the other findings, the gain on each text, and a sentence before and after."""
    screen.print(
        Text.assemble(
            (name, "bold"), translated(f"  {audit.size:,} pieces, against {base}, {audit.base_size:,}")
        ),
        soft_wrap=True,
    )
    colors = screen.color_system is not None and not screen.no_color
    screen.print(Panel(Group(_promises(audit), _findings(audit), _texts(audit), _sentence(audit, colors))))


def _promises(audit: Audit) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for promise in audit.promises:
        mark = Text("✓", "bold green") if promise.kept else Text("✗", "bold red")
        table.add_row(mark, Text(translated(promise.name), "bold"), Text(translated(promise.detail)))
    return table


def _findings(audit: Audit) -> Table:
    """Findings on properties that the recipe does not promise."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    promised = {p.name for p in audit.promises}
    if "no English drift" not in promised:
        summary = (
            f"{audit.drift.differ:,} of {audit.drift.lines:,} lines without Chinese are tokenized differently"
        )
        table.add_row(translated("English drift"), translated(summary + _first(audit.drift)))
    if audit.kind == "byte-level":
        table.add_row(
            translated("parts of characters"),
            translated(f"{audit.fragments:,} of the added tokens, steps towards whole characters"),
        )
    if "no dead pieces" not in promised:
        shown = f", as {' '.join(audit.dead[:4])}" if audit.dead else ""
        summary = f"{len(audit.dead):,} of {audit.added:,} added pieces can never occur"
        table.add_row(translated("dead pieces"), translated(summary + shown))
    if audit.kind == "sentencepiece" and "exact fast tokenizer" not in promised:
        differ, texts = audit.parity.differ + audit.fuzz.differ, audit.parity.lines + audit.fuzz.lines
        summary = (
            f"none can be exact: {audit.why_no_fast_tokenizer}"
            if audit.why_no_fast_tokenizer
            else f"{differ:,} of {texts:,} texts differ"
        )
        table.add_row("tokenizer.json", translated(summary))
    sets = [f"{translated(_CHARSETS[name])} {n:,}/{of:,}" for name, (n, of) in audit.charsets.items()]
    rows = [
        "   ".join(two) for two in zip(sets[::2], sets[1::2], strict=True)
    ]  # four do not fit into 80 columns
    table.add_row(translated("single pieces"), "\n".join(rows))
    table.add_row(translated("duplicates"), " ".join(audit.duplicates[:SPECIALS]) or translated("none"))
    more = f" and {len(audit.specials) - SPECIALS:,} more" if len(audit.specials) > SPECIALS else ""
    table.add_row(translated("specials"), " ".join(audit.specials[:SPECIALS]) + translated(more))
    return table


def _texts(audit: Audit) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("text", "tokens", "characters per token", "gain", "byte tokens"):
        side: Literal["left", "right"] = "left" if heading in ("text", "gain") else "right"
        table.add_column(translated(heading), justify=side, no_wrap=True)
    for label, text in audit.texts.items():
        if not text.lines:
            continue
        before, after = text.characters / max(1, text.base_tokens), text.characters / max(1, text.tokens)
        share, was = text.bytes / max(1, text.tokens), text.base_bytes / max(1, text.base_tokens)
        gain = Text.assemble(f"{after / before:.2f} ", ("█" * min(16, round(after / before * 4)), "cyan"))
        table.add_row(
            label,
            f"{text.base_tokens:,} → {text.tokens:,}",
            f"{before:.3f} → {after:.3f}",
            gain,
            f"{was:.1%} → {share:.1%}",
        )
    return table


def _sentence(audit: Audit, colors: bool) -> Group:
    """The sentence before and after, its cuts shown by colors, or by spaces where there are none."""
    return Group(
        *(
            Text.assemble((translated(f"{len(pieces):>3} tokens  "), "dim"), _tokenized(pieces, colors))
            for pieces in audit.sentence
        )
    )


def _tokenized(pieces: list[str], colors: bool) -> Text:
    text = Text()
    for number, piece in enumerate(pieces):
        if number and not colors:
            text.append(" ")
        text.append(piece.replace(SPACE, "▁"), _SHADES[number % 2])
    return text


def _first(tally: LineTally) -> str:
    return f", as {tally.examples[0]['base']} → {tally.examples[0]['merged']}" if tally.examples else ""
