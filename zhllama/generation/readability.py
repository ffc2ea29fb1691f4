"""Watches the share of unreadable replies: reports it during the run, and stops the run above a limit."""

from collections.abc import Callable
from pathlib import Path

from zhllama.errors import ZhllamaError
from zhllama.generation.methods import GenerationMethod
from zhllama.llm.journal import JournalRecord
from zhllama.llm.requests import Request

MIN_REPLIES = 32  # before which a share says little
REPORTED = 0.1  # share from which it is reported, and again after every doubling


class ReadabilityCheck:
    """A generation method whose rounds begin with this check.

    `limit`: share of candidates rejected as unreadable (reason "format") above which the run stops. It depends on the
    replies of earlier rounds alone, so that a resumed run stops at the same place, or goes on with a higher limit.
    """

    def __init__(
        self, method: GenerationMethod, limit: float, rejects: Path, warn: Callable[[str], None]
    ) -> None:
        self.method, self.limit, self.rejects, self.warn = method, limit, rejects, warn
        self._replies, self._next_report = 0, REPORTED

    def requests(self, round: int) -> list[Request]:
        """The requests of the method's round; ZhllamaError above the limit."""
        pool = self.method.pool
        unreadable, share = pool.reasons["format"], pool.reasons["format"] / max(pool.candidates, 1)
        if self._replies >= MIN_REPLIES and share > REPORTED:
            message = f"{unreadable:,} of {pool.candidates:,} candidates in {self._replies:,} replies cannot be read ({share:.0%})"
            if share > self.limit:
                remedy = f"See {self.rejects.name}, change the model or the prompts, or resume with a higher `max_unreadable`"
                raise ZhllamaError(self.rejects.parent, message, remedy)
            if share > self._next_report:
                self.warn(f"{message}: see {self.rejects}")
                self._next_report = 2 * share
        return self.method.requests(round)

    def expected_calls(self) -> int | None:
        """The calls that the method expects."""
        return self.method.expected_calls()

    def accept(self, record: JournalRecord) -> None:
        """Process one reply by the method."""
        self._replies += 1
        self.method.accept(record)
