"""Reads tasks written as JSON: one list, one object around a list, JSON Lines, in code fences, after a sentence."""

import json
import re
from collections.abc import Iterator
from typing import Any

from zhllama.generation.reply_remarks import normalize_empty
from zhllama.generation.reply_words import WORDS, Role
from zhllama.generation.tasks import Task, Unreadable

_KEYS = "|".join(sorted(map(re.escape, [*WORDS, "tasks", "data", "items", "examples", "任务列表", "任務列表"]), key=len, reverse=True))  # fmt: skip
_START = re.compile(rf'[\[{{]\s{{0,40}}(?:\{{\s{{0,40}})?"(?:{_KEYS})[ _]?\d{{0,4}}"\s{{0,8}}:|^[ \t]{{0,16}}(?:\[\s{{0,40}}\{{|\{{\s{{0,40}}["}}])', re.IGNORECASE | re.MULTILINE)  # fmt: skip
_WRAPPER = re.compile(r'\{\s{0,40}"[^"\n]{1,20}"\s{0,8}:\s{0,40}\[')
_NEXT = re.compile(r"\}\s{0,40},?\s{0,40}(?=\{)")
# Keys beside the fields of a task that say something about the task and may be dropped.
_ATTRIBUTES = re.compile(
    r"id|no\.?|number|index|num|type|task_?type|category|topic|domain|difficulty|title|name|tags?|lang(?:uage)?"
    r"|编号|編號|序号|序號|类型|類型|任务类型|类别|類別|分类|分類|领域|領域|主题|主題|难度|難度|标题|標題|语言|is_classification",
    re.IGNORECASE,
)
# \frac and \times with one backslash are valid JSON for other characters.
_LOST_BACKSLASH = re.compile(r"[\x00-\x08\x0b-\x1f]|\t(?:imes|ext|heta|riangle|frac|an\b|au\b)")


def json_start(text: str) -> int | None:
    """Where JSON with tasks starts in a reply; None if there is none."""
    match = _START.search(text)
    return None if match is None else match.start()


def read_json(text: str, start: int) -> Iterator[tuple[int, list[Task | Unreadable]]]:
    """The end of every object, and its tasks, also in JSON that is cut off; other objects as Unreadable."""
    # Models write line breaks inside strings, which `strict` forbids.
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_unique)
    position, wrapped = start, False
    while (position := text.find("{", position)) >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            # An incomplete object contains tasks only if it is a wrapper such as {"tasks": [.
            if not wrapped and (wrapper := _WRAPPER.match(text, position)):
                position, wrapped = wrapper.end(), True
                continue
            following = _NEXT.search(text, position + 1)
            if following is None:
                yield position, [Unreadable(text[position:], "half JSON")]
                return
            yield following.end(), [Unreadable(text[position : following.end()], "half JSON")]
            position = following.end()
            continue
        position = end
        yield end, list(_entries(value))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        row[""] = "a key occurs twice"
    return row


def _entries(value: Any) -> Iterator[Task | Unreadable]:
    """The tasks of an object: itself, or those in it where it has no field of a task."""
    pending = [value]
    while pending:
        entry = pending.pop()
        if isinstance(entry, list):
            pending += reversed(entry)
        elif isinstance(entry, dict) and (nested := _nested(entry)):
            pending += reversed(nested)
        else:
            yield _task(entry)


def _nested(entry: dict[str, Any]) -> list[Any]:
    """The values of an object around tasks: a list of objects, or objects under numbers."""
    if any(isinstance(value, str) and _role(key) for key, value in entry.items()):
        return []
    lists = [value for value in entry.values() if isinstance(value, list)]
    if len(lists) == 1:
        return lists[0] or [None]
    values = list(entry.values())
    return values if values and all(isinstance(value, dict) for value in values) else []


def _role(key: str) -> Role | None:
    return WORDS.get(re.sub(r"[\s_]*\d{1,4}$", "", key.strip()).lower())


def _task(entry: Any) -> Task | Unreadable:
    text = json.dumps(entry, ensure_ascii=False)
    if not isinstance(entry, dict):
        return Unreadable(text, "no instruction or no output")
    fields: dict[Role, str] = {}
    reason = ""
    # 任务 is the instruction unless there is 指令.
    strong = any(
        _role(key) == "instruction" and key.strip().lower() in ("instruction", "指令") for key in entry
    )
    for key, value in entry.items():
        role = _role(key)
        if role == "instruction" and strong and key.strip().lower() not in ("instruction", "指令"):
            role = None
            if not isinstance(value, int) and key.strip().lower() not in ("task", "任务", "任務"):
                reason = reason or f"unknown field {key!r}"
        elif role is None and key and not _ATTRIBUTES.fullmatch(key.strip()) and value not in (None, "", []):
            reason = reason or f"unknown field {key!r}"
        if key == "":
            reason = "a key occurs twice"
        if role is None or role == "label":
            continue
        if role == "input" and value in (None, [], {}):
            value = ""
        if not isinstance(value, str):
            reason = reason or ("no instruction or no output" if role != "input" else "input is not text")
        elif role in fields:
            reason = reason or f"two fields for the {role}"
        else:
            fields[role] = value
    if not reason and not (fields.get("instruction", "").strip() and fields.get("output", "").strip()):
        reason = "no instruction or no output"
    joined = "\n".join(fields.values())
    if not reason and (_LOST_BACKSLASH.search(joined) or any("\ud800" <= c <= "\udfff" for c in joined)):
        reason = "a wrong escape in JSON"
    if reason:
        return Unreadable(text, reason)
    return Task(fields["instruction"].strip(), normalize_empty(fields.get("input", "")), fields["output"].strip())  # fmt: skip
