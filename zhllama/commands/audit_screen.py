"""Prints an audit."""

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

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


def draw(screen: Console, found: Audit, name: str, base: str) -> None:
    """Print what was promised and kept, what was found beside it, and what the extension gained."""
    title = Text.assemble((name, "bold"), f"  {found.size:,} pieces, against {base}, {found.base_size:,}")
    screen.print(
        Panel(Group(_promises(found), _findings(found), _texts(found), _sentence(found)), title=title)
    )


def _promises(found: Audit) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for promise in found.promises:
        mark = Text("✓", "bold green") if promise.kept else Text("✗", "bold red")
        table.add_row(mark, Text(promise.name, "bold"), Text(promise.detail))
    return table


def _findings(found: Audit) -> Table:
    """What the recipe does not promise, told all the same."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    promised = {p.name for p in found.promises}
    if "no English drift" not in promised:
        told = (
            f"{found.drift.differ:,} of {found.drift.lines:,} lines without Chinese are tokenized differently"
        )
        table.add_row("English drift", told + _first(found.drift))
    if found.kind == "byte-level":
        table.add_row(
            "parts of characters", f"{found.fragments:,} of the added tokens, on the way to whole ones"
        )
    if "no dead pieces" not in promised:
        shown = f", as {' '.join(found.dead[:4])}" if found.dead else ""
        told = f"{len(found.dead):,} of {found.added:,} added pieces can never occur"
        table.add_row("dead pieces", told + shown)
    if found.kind == "sentencepiece" and "exact fast tokenizer" not in promised:
        differ, texts = found.parity.differ + found.fuzz.differ, found.parity.lines + found.fuzz.lines
        told = (
            f"none can be exact: {found.why_no_fast_tokenizer}"
            if found.why_no_fast_tokenizer
            else f"{differ:,} of {texts:,} texts differ"
        )
        table.add_row("tokenizer.json", told)
    covered = "   ".join(f"{_CHARSETS[name]} {n:,}/{of:,}" for name, (n, of) in found.charsets.items())
    table.add_row("single pieces", covered)
    table.add_row("duplicates", " ".join(found.duplicates[:SPECIALS]) or "none")
    more = f" and {len(found.specials) - SPECIALS:,} more" if len(found.specials) > SPECIALS else ""
    table.add_row("specials", " ".join(found.specials[:SPECIALS]) + more)
    return table


def _texts(found: Audit) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("text", "tokens", "characters per token", "gain", "byte tokens"):
        table.add_column(heading, justify="left" if heading in ("text", "gain") else "right", no_wrap=True)
    for label, text in found.texts.items():
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


def _sentence(found: Audit) -> Group:
    return Group(*(Text.assemble((f"{len(cut):>3} tokens  ", "dim"), _cut(cut)) for cut in found.sentence))


def _cut(pieces: list[str]) -> Text:
    text = Text()
    for number, piece in enumerate(pieces):
        text.append(piece.replace(SPACE, "▁"), _SHADES[number % 2])
    return text


def _first(tally: LineTally) -> str:
    return f", as {tally.examples[0]['base']} → {tally.examples[0]['merged']}" if tally.examples else ""
