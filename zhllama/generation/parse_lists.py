"""Parses a list of instructions, one per line, with numbers or bullets of any kind."""

from zhllama.generation.reply_checks import nested
from zhllama.generation.reply_grammar import ListItem, read_line, read_list_item
from zhllama.generation.reply_remarks import SPECIAL_TOKEN, THOUGHT_TAG, is_remark
from zhllama.generation.tasks import Unreadable


def parse_list(text: str, label_in_prompt: bool = False) -> list[str | Unreadable]:
    """The items of a list, with any numbers or bullets; empty if there is none.

    An item is one line. Other lines that follow it, unless they are a remark after the last item, make it unreadable.
    """
    lines = (f"1. {text.strip()}" if label_in_prompt else text).split("\n")
    read = [(line, read_list_item(line)) for line in lines]
    style = next((item.style for _, item in read if item is not None and item.text), None)
    items: list[tuple[ListItem, list[str]]] = []
    indent = next((item.indent for _, item in read if item is not None and item.style == style), 0)
    for line, item in read:
        if item is not None and item.style == style and item.text and item.indent <= indent:
            items.append((item, []))
        elif items:
            items[-1][1].append(line)
    inner = nested([int(item.number) if item.number.isdecimal() else None for item, _ in items])
    inner |= _restarted([item.number for item, _ in items])
    return [
        _list_item(item, following, index == len(items) - 1, index in inner)
        for index, (item, following) in enumerate(items)
    ]


def _restarted(numbers: list[str]) -> set[int]:
    """Positions of a list inside the last item: 9 10 1 2 gives those of 10, 1 and 2."""
    for position in range(len(numbers) - 1, 0, -1):
        before = numbers[position - 1]
        if numbers[position] == "1" and before.isdecimal() and before != "1":
            if str(int(before) + 1) in numbers[position:]:
                return set()  # `nested` finds those
            return set(range(position - 1, len(numbers)))
    return set()


def _list_item(item: ListItem, following: list[str], is_last: bool, is_nested: bool) -> str | Unreadable:
    text = item.text
    label = read_line(text)
    if label.kind == "label" and label.role == "instruction" and label.colon:
        text = label.value.strip()
    rest = "\n".join(following)
    whole = f"{item.text}\n{rest}".strip()
    if is_nested:
        return Unreadable(whole, "list inside a list")
    if rest.strip():
        after_blank = not following[0].strip() or read_line(following[0]).kind in ("separator", "fence")
        kinds = {read_line(line).kind for line in following}
        structural = kinds <= {"blank", "separator", "fence"}
        if not structural and not (is_last and after_blank and is_remark(rest.strip("-=#`* \n"))):
            return Unreadable(whole, "lines after the item")
    if text.startswith("**") and text.count("**") % 2:
        return Unreadable(whole, "open bold")
    if THOUGHT_TAG.search(text) or SPECIAL_TOKEN.search(text):
        return Unreadable(whole, "thought or special token inside the item")
    return text if text else Unreadable(whole, "no instruction")
