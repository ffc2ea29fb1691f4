"""The live screen of gen-zh: accepted tasks, rate, cost, and reasons for rejection."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from zhllama.commands.shared import notes
from zhllama.commands.translation import reason_shown, translated
from zhllama.generation.methods import GenerationMethod
from zhllama.llm.client import Client
from zhllama.llm.rounds import Rounds


@contextmanager
def live(method: GenerationMethod, rounds: Rounds, client: Client | None) -> Iterator[None]:
    """A picture of a run on stderr, drawn four times a second; quiet where stderr is no terminal."""
    if not notes.is_terminal:
        yield
        return
    began = time.monotonic()
    with Live(
        console=notes,
        transient=True,
        refresh_per_second=4,
        get_renderable=lambda: picture(method, rounds, client, time.monotonic() - began),
    ):
        yield


def picture(method: GenerationMethod, rounds: Rounds, client: Client | None, seconds: float) -> Group:
    """The state of the run after `seconds`."""
    pool, spending = method.pool, rounds.spending
    accepted, wanted = len(pool.accepted), pool.wanted
    rate = rounds.new_replies / seconds if seconds else 0.0
    # Replies of an earlier start took no time in this one, so the rate counts new replies only.
    left = (wanted - accepted) / (accepted / spending.replies * rate) if accepted and rate else None
    about = "~" if spending.estimated else ""  # the server reports no token counts, or false ones
    facts = Table.grid(padding=(0, 3))
    facts.add_row(
        translated(f"accepted {accepted:,} / {wanted:,}"),
        translated(f"rejected {pool.rejected:,}"),
        translated(f"{rate:.1f} replies/s"),
        "ETA —" if left is None else f"ETA {int(left) // 3600}:{int(left) // 60 % 60:02}:{int(left) % 60:02}",
    )
    facts.add_row(
        translated(f"tokens {about}{spending.tokens:,}"),
        translated("cost —" if spending.cost is None else f"cost {about}{spending.cost:.4f}"),
        translated(f"in flight {client.in_flight} / {client.limit}" if client else "batch"),
        translated(f"429s {client.rate_limited}  retries {client.retries}") if client else "",
    )
    reasons = "  ".join(
        f"{reason_shown(reason, named=False)} {count:,}" for reason, count in pool.reasons.most_common(8)
    )
    return Group(ProgressBar(total=wanted, completed=accepted), facts, Text(reasons, style="dim"))
