"""The journal keeps every written record, even if its writer was killed."""

import os
from pathlib import Path

import pytest

from zhllama.errors import InputError
from zhllama.llm.journal import Journal
from zhllama.llm.requests import Reply, Request

TEXTS = ["写诗", "", "一行\n二行\u2028三行\u0085四行", '{"a": "b"}', "\x00\x1f", "😀" * 50]


def request(index: int, prompt: str = "问") -> Request:
    return Request(0, index, "tasks", prompt, {"shots": ["s1"]}, {"temperature": 1.0})


def filled(path: Path) -> bytes:
    with Journal(path) as journal:
        for index in reversed(range(len(TEXTS))):
            journal.append(
                request(index), Reply(text=TEXTS[index], finish="stop", model="m", prompt_tokens=3)
            )
    return path.read_bytes()


def test_records_are_read_in_request_order(tmp_path: Path) -> None:
    filled(tmp_path / "j")
    with Journal(tmp_path / "j") as journal:
        assert [(r.key, r.reply.text) for r in journal] == [((0, i), t) for i, t in enumerate(TEXTS)]
        assert journal.get((0, 99)) is None and (0, 3) in journal and len(journal) == len(TEXTS)
        assert (
            journal.append(request(6), Reply(text=None, refusal="no")).fingerprint
            == request(6).fingerprint
            != request(6, "别的").fingerprint
        )
    with Journal(tmp_path / "j", write=False) as journal:
        assert len(journal) == len(TEXTS) + 1


def test_an_incomplete_last_line_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "j"
    whole = filled(path)
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with Journal(path, write=False) as journal:
            assert len(journal) == sum(end <= cut for end in ends)
        assert path.stat().st_size == cut, "reading alone changes nothing"
    path.write_bytes(whole[: ends[1]] + b"\x00" * 500 + b"\n\x00\x00")
    with Journal(path) as journal:
        assert len(journal) == 2
        journal.append(request(9), Reply(text="好"))
    with Journal(path) as journal:
        assert len(journal) == 3
    assert path.read_bytes().startswith(whole[: ends[1]] + b'{"round":0,"index":9')


def test_a_broken_line_before_the_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    lines = filled(path).split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1][:20], *lines[2:]]))
    with pytest.raises(InputError, match=r"j:2: is broken, and complete records follow"):
        Journal(path)
    with pytest.raises(InputError, match="no such journal"):
        Journal(tmp_path / "none", write=False)


def test_a_pipe_in_the_place_of_a_journal_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal.jsonl")
    for write in (True, False):
        with pytest.raises(InputError, match="pipe"):
            Journal(tmp_path / "journal.jsonl", write=write)
