"""Filters of the page: a query selects row numbers by columns, decisions, nearness and text."""

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from zhllama.io.files import json_line
from zhllama.io.json import parse_row
from zhllama.review.row_index import KINDS, RowIndex

Status = Literal["", "undecided", "decided", "keep", "drop", "choice", "edited", "commented", "disagreed"]
Sort = Literal["", "shortest", "longest", "nearest"]
Numbers = npt.NDArray[np.int64]


class RowQuery(BaseModel):
    """What the page asks for; empty fields select every row. Lengths are in characters, nearness is a ROUGE-L F measure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    q: str = Field("", max_length=1000)
    status: Status = ""
    group: Literal["", "accepted", "rejected"] = ""
    kind: str = ""
    reason: str = ""
    flag: str = ""
    category: str = ""
    model: str = ""
    shortest: int | None = Field(None, ge=0)
    longest: int | None = Field(None, ge=0)
    near: float | None = Field(None, ge=0, le=1)
    sort: Sort = ""

    @property
    def needs_nearness(self) -> bool:
        return self.near is not None or self.sort == "nearest"


def select(
    index: RowIndex,
    query: RowQuery,
    with_status: Callable[[Status], Iterable[int]],
    nearness: npt.NDArray[np.float32],
) -> Numbers:
    """The numbers of the rows that a query selects, in its order.

    `with_status` gives the rows of a status, `nearness` the similarity of each row so far; rows after its end have 0.
    """
    columns = index.columns()
    count = len(columns["offset"])
    chosen = np.ones(count, bool)
    for column, names in (("reason", index.reasons), ("category", index.categories), ("model", index.models)):
        if name := getattr(query, column):
            number = names.find(name)
            chosen &= columns[column] == (-1 if number is None else number)
    if query.flag:
        number = index.flags.find(query.flag)
        chosen &= (columns["flags"] >> number) & 1 == 1 if number is not None else False
    if query.group:
        ours = [n for n, source in enumerate(index.sources) if source.group == query.group]
        chosen &= np.isin(columns["source"], ours)
    if query.kind:
        chosen &= columns["kind"] == (KINDS.index(query.kind) if query.kind in KINDS else -1)
    if query.shortest is not None:
        chosen &= columns["characters"] >= query.shortest
    if query.longest is not None:
        chosen &= columns["characters"] <= query.longest
    near = np.zeros(count, np.float32)
    near[: len(nearness)] = nearness[:count]
    if query.near is not None:
        chosen &= near >= query.near
    if query.status:
        chosen &= _mask(with_status(query.status), count)
    for term in query.q.split():
        chosen &= _mask(search(index, term), count)
    numbers = np.flatnonzero(chosen).astype(np.int64)
    if query.sort:
        values = near if query.sort == "nearest" else columns["characters"].astype(np.float32)
        keys = values[numbers] if query.sort == "shortest" else -values[numbers]
        numbers = numbers[np.argsort(keys, kind="stable")]
    return numbers


def _mask(numbers: Iterable[int], count: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(count, bool)
    listed = numbers if isinstance(numbers, np.ndarray) else np.fromiter(numbers, np.int64)
    mask[listed[listed < count]] = True
    return mask


def search(index: RowIndex, term: str) -> Iterable[int]:
    """The rows one of whose texts contains a term; Latin letters match in both cases.

    The snapshot is searched as bytes. A term of ASCII alone could match the name of a field, and so is compared with the
    row's values again.
    """
    content = index.contents()
    if content is None:
        return
    columns = index.columns()
    offsets, sizes = columns["offset"], columns["size"]
    try:
        written = json_line(term).strip()[1:-1].encode()
        pattern = re.compile(re.escape(written), re.IGNORECASE)
        position = 0
        while found := pattern.search(content, position):
            number = int(np.searchsorted(offsets, found.start(), "right")) - 1
            start, end = int(offsets[number]), int(offsets[number] + sizes[number])
            if not term.isascii() or _has_value(content[start:end], term):
                yield number
            position = end
    finally:
        content.close()


def _has_value(content: bytes, term: str) -> bool:
    waiting: list[Any] = [parse_row(content, any_number=True)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
        elif value is not None and term.lower() in str(value).lower():
            return True
    return False
