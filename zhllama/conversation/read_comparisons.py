"""Reads ranked answers in every common format, as pairs of a better and a worse one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from zhllama.conversation.read_conversations import (
    LISTS,
    BadRow,
    dialogue,
    prompt_fault,
    read_each,
    refuse_marked,
    row_id,
    tools_of,
    with_system,
)
from zhllama.conversation.records import Comparison, Conversation, Turn
from zhllama.conversation.row_fields import RowFields, RowReading, is_empty, text_of_value
from zhllama.conversation.row_turns import ANSWERS, turns_of_list
from zhllama.errors import InputError
from zhllama.io.rows import MEND
from zhllama.io.text import Advance

# Beside the pairs, these repeat the better answer or rate the answers.
RATINGS = ("score_chosen", "score_rejected", "chosen_rating", "rejected_rating", "margin")
FORMS = (
    "user_input",
    "ranked_outputs",
    "chosen",
    "rejected_response",
    "rejected_messages",
    "output: [better, worse]",
)
OPENAI = {"preferred_output": "chosen", "non_preferred_output": "rejected"}
REJECTED = ("rejected", "rejected_response", "rejected_messages")
Pairs = list[tuple[str, str]]


def read_comparisons(
    path: Path, advance: Advance | None = None, reading: RowReading | None = None
) -> Iterator[Comparison | BadRow]:
    """Pairs of answers from ranked ones, every better one before every worse one of its row.

    Forms: `user_input` with `completion_a` (the better one) and `completion_b`, or with `responses_and_scores`
    (GPT-4-LLM's), gen-zh's comparisons.json, `ranked_outputs` best first, `chosen` and `rejected` as texts or messages
    with an instruction, a prompt or a conversation, OpenAI's `preferred_output`, ms-swift's `rejected_response`, and
    `output` as a list of a better and a worse answer. `reading` renames fields and counts those without a use. Errors: InputError for a file that
    cannot be read or has no rows.
    """
    reading = reading or RowReading()
    return read_each(path, lambda row, where: comparisons_of(row, where, reading), advance)


def comparisons_of(row: Any, where: str, reading: RowReading) -> list[Comparison]:
    """The pairs of one row. Errors: InputError as in `conversation_of`."""
    fields = reading.fields(_of_openai(row), where)
    for name in RATINGS:
        fields.take(name)
    prompt, pairs = _prompt_and_pairs(fields, where)
    pairs = [(better, worse) for better, worse in pairs if better != worse]
    question = Conversation(tuple(prompt), where, row_id(row), tools_of(fields))
    refuse_marked(fields, where)
    reason = prompt_fault(question)
    if reason is None and not pairs:
        reason = "has no answer that is better than another"
    if reason is None and not all(better and worse for better, worse in pairs):
        reason = "has an empty answer"
    if reason is not None:
        raise InputError(where, reason, MEND)
    fields.refuse_unsupported()
    reading.count(fields.unused())
    return [Comparison(question, better, worse) for better, worse in pairs]


def _of_openai(row: Any) -> Any:
    """A row of OpenAI's preference data under the names of others; any other row unchanged."""
    if not isinstance(row, dict) or not isinstance(row.get("input"), dict) or "preferred_output" not in row:
        return row
    rest = {name: value for name, value in row.items() if name not in ("input", *OPENAI)}
    return {**rest, **row["input"], **{ours: row.get(theirs) for theirs, ours in OPENAI.items()}}


def is_ranked(fields: RowFields) -> bool:
    """Whether a row has ranked answers, in one of the forms of `read_comparisons`."""
    name = fields.first(*ANSWERS)
    answers = None if name is None else fields.row[name]
    return fields.has("user_input", "ranked_outputs", "chosen", *REJECTED, *OPENAI) or (
        isinstance(answers, list) and len(answers) > 1 and all(isinstance(one, str) for one in answers)
    )


def _prompt_and_pairs(fields: RowFields, where: str) -> tuple[list[Turn], Pairs]:
    if fields.has("user_input"):
        return [Turn("user", fields.text("user_input") or "")], _scored(fields)
    if fields.has("ranked_outputs"):
        return _prompt(fields, where), _ranked(fields, "ranked_outputs")
    if fields.has("chosen"):
        return _chosen(fields, where)
    if fields.has(*REJECTED):
        return _after_conversation(fields, where)
    name = fields.first(*ANSWERS)
    if name is not None and isinstance(fields.json(name), list):
        return _prompt(fields, where), _ranked(fields, name)
    raise InputError(where, f"has none of the fields {', '.join(FORMS)}", MEND)


def _scored(fields: RowFields) -> Pairs:
    """GPT-4-LLM's two forms, and gen-zh's, whose `pairs` are those that both orders agreed on."""
    scored = [] if is_empty(fields.take("responses_and_scores")) else fields.items("responses_and_scores")
    if fields.has("pairs"):
        return [
            (_member_text(pair, f"pairs.{n}", "chosen"), _member_text(pair, f"pairs.{n}", "rejected"))
            for n, pair in enumerate(fields.items("pairs"))
        ]
    if fields.has("responses_and_scores"):
        answers = [
            (
                _member_text(one, f"responses_and_scores.{n}", "response"),
                _score(one, f"responses_and_scores.{n}"),
            )
            for n, one in enumerate(scored)
        ]
        return [(better, worse) for better, high in answers for worse, low in answers if high > low]
    better, worse = fields.text("completion_a"), fields.text("completion_b")
    if better is None or worse is None:
        raise InputError("", "has neither completion_a and completion_b nor responses_and_scores", MEND)
    return [(better, worse)]


def _member_text(value: Any, path: str, name: str) -> str:
    if not isinstance(value, dict) or value.get(name) is None:
        raise InputError("", f"{path}.{name}: field required", MEND)
    return text_of_value(value[name], f"{path}.{name}")


def _score(value: Any, path: str) -> float:
    try:
        return float(value["score"])
    except (KeyError, TypeError, ValueError):
        raise InputError("", f"{path}.score: input should be a valid number", MEND) from None


def _ranked(fields: RowFields, name: str) -> Pairs:
    """Every better answer of a list before every worse one."""
    texts = [text_of_value(one, f"{name}.{n}") for n, one in enumerate(fields.items(name))]
    return [(better, worse) for place, better in enumerate(texts) for worse in texts[place + 1 :]]


def _chosen(fields: RowFields, where: str) -> tuple[list[Turn], Pairs]:
    """The prompt and the pair, from texts or single turns, or from two conversations that differ in their last turn."""
    worse_name = fields.first(*REJECTED) or "rejected"
    if not fields.has(worse_name):
        raise InputError("", "rejected: field required", MEND)
    better, worse = _answer(fields, "chosen"), _answer(fields, worse_name)
    if isinstance(better, str) and isinstance(worse, str):
        return _prompt(fields, where), [(better, worse)]
    if isinstance(better, str) or isinstance(worse, str):
        raise InputError(where, "chosen and rejected are of different forms", MEND)
    if not better or not worse or {better[-1].role, worse[-1].role} != {"assistant"}:
        raise InputError(where, "chosen and rejected do not both end with an answer", MEND)
    if _as_context(better[:-1]) != _as_context(worse[:-1]):
        raise InputError(where, "chosen and rejected differ before their last turn", MEND)
    pair = (_text_of_answer(better[-1], "chosen"), _text_of_answer(worse[-1], worse_name))
    if not better[:-1]:
        return _prompt(fields, where), [pair]
    for name in ("prompt", *LISTS):  # which the two conversations repeat
        fields.take(name)
    return with_system(fields, better[:-1]), [pair]


def _answer(fields: RowFields, name: str) -> str | list[Turn]:
    """An answer as text or as one message, or the turns of a list of messages."""
    value = fields.json(name)
    if isinstance(value, dict):
        turns = turns_of_list([value], name, fields)
        if len(turns) != 1 or turns[0].role != "assistant":
            raise InputError("", f"{name}: is not an answer of the assistant", MEND)
        return _text_of_answer(turns[0], name)
    if isinstance(value, list) and not all(isinstance(one, str) for one in value):
        return turns_of_list(value, name, fields)
    return text_of_value(fields.take(name), name)


def _text_of_answer(turn: Turn, name: str) -> str:
    """The text of an answer with its thought. Errors: InputError for a tool call."""
    if turn.calls:
        raise InputError("", f"{name}: tool calls are not supported in ranked pairs", MEND)
    return f"<think>\n{turn.thought}\n</think>\n\n{turn.text}" if turn.thought else turn.text


def _after_conversation(fields: RowFields, where: str) -> tuple[list[Turn], Pairs]:
    """ms-swift's pairs: a whole conversation or a query with its response, and the rejected last answer or answers."""
    name = fields.first(*REJECTED) or ""
    turns = dialogue(fields, where)
    if not turns or turns[-1].role != "assistant":
        raise InputError("", f"has {name} without a better answer", MEND)
    better = _text_of_answer(turns[-1], "the last turn")
    value = fields.json(name)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return turns[:-1], [(better, text_of_value(one, f"{name}.{n}")) for n, one in enumerate(value)]
    worse = _answer(fields, name)
    if isinstance(worse, str):
        return turns[:-1], [(better, worse)]
    if (
        not worse
        or worse[-1].role != "assistant"
        or _as_context(worse[:-1]) not in ([], _as_context(turns[:-1]), _as_context(_dialogue_alone(turns)))
    ):
        raise InputError("", f"{name}: does not end with another last answer to the same prompt", MEND)
    return turns[:-1], [(better, _text_of_answer(worse[-1], name))]


def _as_context(turns: list[Turn]) -> list[Turn]:
    """The turns whether or not they are trained, which does not matter before the last one."""
    return [replace(turn, trained=True) for turn in turns]


def _dialogue_alone(turns: list[Turn]) -> list[Turn]:
    """The turns of a prompt without its system turn, which may be a field of the row."""
    return [turn for turn in turns[:-1] if turn.role != "system"]


def _prompt(fields: RowFields, where: str) -> list[Turn]:
    """The turns before the answers; an `output` beside chosen answers is counted as unused."""
    return dialogue(fields, where, answers=())
