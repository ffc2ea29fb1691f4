"""Compares the settings, added tokens and templates of a base's folder and an extended folder, both as transformers loads them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from zhllama.characters import chinese
from zhllama.pretrained import open_tokenizer
from zhllama.vocab.folder_settings import SETTINGS, FolderSettings
from zhllama.vocab.tokenizer_json import without_limits
from zhllama.vocab.vocabulary import Vocabulary

TOKENS, LINES = 40, 64  # of the base that are put into texts, and lines of each text that they are put into
_CONTENT = "We said: 3 + 4 = 7, <b>\n"
_CONVERSATIONS = (
    [("user", _CONTENT)],
    [("system", _CONTENT), ("user", _CONTENT), ("assistant", _CONTENT), ("user", "And\n\nthen?")],
)
_FRAMES = (
    "one{0}two",
    "one {0} two",
    "{0}two",
    "{0} two",
    "one\n{0}\ntwo",
    "{0}{0}two",
    "[x]{0}  1,234 people",
)


@dataclass
class CarriedOver:
    """How many tokens, settings, conversations and texts with special tokens were compared, and what differs.

    `differences` break the promise; `notes` say where the base's folder was not read as AutoTokenizer does.
    """

    tokens: int = 0
    settings: int = 0
    conversations: int = 0
    texts: int = 0
    texts_differ: int = 0
    not_comparable: int = (
        0  # texts whose plain parts the base's class tokenizes differently than the base's vocabulary
    )
    differences: list[str] = field(default_factory=list)
    examples: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class SampledLines:
    """Passes texts on, and keeps the first lines without Chinese of each."""

    def __init__(self, texts: Mapping[str, Iterable[str]]) -> None:
        self.lines: list[str] = []
        self.texts = {label: self._passed_on(lines) for label, lines in texts.items()}

    def _passed_on(self, lines: Iterable[str]) -> Iterator[str]:
        count = 0
        for line in lines:
            if count < LINES and line.strip() and len(line) < 400 and chinese.search(line) is None:
                self.lines.append(line)
                count += 1
            yield line


def compare_folders(
    folder: Path, base: Vocabulary, new_id: Mapping[int, int], lines: Sequence[str] = ()
) -> CarriedOver | None:
    """Compare `folder` with the folder that `base` was read from; None where that names nothing.

    `new_id` maps each remaining id of the base. `lines` are text without Chinese, into which special tokens are put.
    """
    settings = base.settings
    if settings is None:
        return None
    old, new = settings.tokenizer, open_tokenizer(folder)
    for tokenizer in (old, new):
        if hasattr(tokenizer, "_tokenizer"):
            without_limits(tokenizer._tokenizer)  # with the dropout that a file can store, ids are random
    result = CarriedOver(notes=list(_notes(settings, base)))
    added = {str(token) for token in new.added_tokens_decoder.values()} - {
        t.content for t in settings.tokens.values()
    }
    result.differences += _token_differences(settings, new, new_id, result)
    result.differences += _setting_differences(old, new, added, result)
    texts = [*_texts(settings, lines), *_conversations(old, new, result)]
    for text in texts:
        _compare_text(text, base, settings, new, new_id, result)
    if result.not_comparable:
        name = type(old).__name__
        result.notes.append(
            f"in {result.not_comparable:,} more texts {name} itself does not tokenize plain text as the vocabulary does"
        )
    return result


def _notes(settings: FolderSettings, base: Vocabulary) -> Iterator[str]:
    if settings.reread is not None:
        yield f"the base: {settings.reread}"
    if settings.declared:
        text, id = next(iter(settings.declared.items()))
        count = len(settings.declared)
        yield f"the base's files give {count:,} tokens other ids than AutoTokenizer does, as {text} {id:,}"
    gaps = (
        base.size - len(base.entries) + sum(t.startswith("<unused_") for t in map(base.display, base.entries))
    )
    if gaps:
        yield f"{gaps:,} ids before {base.size:,} belong to no token and are left alone"


def _token_differences(
    settings: FolderSettings, new: Any, new_id: Mapping[int, int], result: CarriedOver
) -> Iterator[str]:
    decoder = new.added_tokens_decoder
    for id, token in settings.tokens.items():
        result.tokens += 1
        there = decoder.get(new_id.get(id))
        if there is None or there.content != token.content:
            found = new.convert_tokens_to_ids(token.content)
            yield f"{token.content} has the id {found} and not {new_id.get(id)}"
            continue
        for flag in ("special", "lstrip", "rstrip", "single_word", "normalized"):
            if getattr(there, flag) != getattr(token, flag):
                yield f"{token.content} has {flag}={getattr(there, flag)}"


def _setting_differences(old: Any, new: Any, added: set[str], result: CarriedOver) -> Iterator[str]:
    # What is put around a text is compared on texts: beside a tokenizer.json transformers 5.23 ignores add_bos_token.
    for name in SETTINGS:
        result.settings += 1
        if getattr(old, name, None) != getattr(new, name, None):
            yield f"{name} is {getattr(new, name, None)!r} and not {getattr(old, name, None)!r}"
    before, after = old.special_tokens_map, new.special_tokens_map
    for role in before.keys() | after.keys():
        result.settings += 1
        is_pad = role == "pad_token" and (after.get(role) in added or before.get(role) is None)
        if before.get(role) != after.get(role) and not is_pad:
            yield f"{role} is {after.get(role)!r} and not {before.get(role)!r}"
    lost = set(old.all_special_tokens) - set(new.all_special_tokens)
    if lost:
        yield f"{min(lost)} is no longer a special token"
    result.settings += 1
    if _templates(old) != _templates(new):
        yield "the chat template is another one"


def _templates(tokenizer: Any) -> dict[str, str]:
    template = tokenizer.chat_template
    return {} if template is None else dict(template) if isinstance(template, dict) else {"default": template}


def _conversations(old: Any, new: Any, result: CarriedOver) -> Iterator[str]:
    """The conversations that the base's templates render; how the new folder renders them is compared at once."""
    from zhllama.conversation.sandboxed_templates import (
        Exceeds,
        Fails,
        renderer,
    )  # foreign code, so a child runs it

    for (name, template), turns in product(_templates(old).items(), _CONVERSATIONS):
        messages = [{"role": role, "content": content} for role, content in turns]
        rendered = []
        for tokenizer in (old, new):
            jinja = _templates(tokenizer).get(name, template)
            try:
                rendered.append(renderer.render(jinja, messages, tokenizer.special_tokens_map, True))
            except (Exceeds, Fails) as error:
                rendered.append(f"{type(error).__name__}: {error}")
        result.conversations += 1
        if rendered[0] != rendered[1]:
            result.differences.append(f"a conversation is rendered differently by the template {name!r}")
        yield rendered[0]


def _texts(settings: FolderSettings, lines: Sequence[str]) -> Iterator[str]:
    tokens = [token.content for token in settings.tokens.values()]
    tokens = [t for t in tokens if chinese.search(t) is None]
    chosen = tokens if len(tokens) <= TOKENS else [*tokens[: TOKENS // 2], *tokens[-TOKENS // 2 :]]
    for token, frame in product(chosen, _FRAMES):
        yield frame.format(token)
    for number, line in enumerate(lines if chosen else ()):
        middle = len(line) // 2
        yield f"{line[:middle]}{chosen[number % len(chosen)]}{line[middle:]}"


def _compare_text(
    text: str,
    base: Vocabulary,
    settings: FolderSettings,
    new: Any,
    new_id: Mapping[int, int],
    result: CarriedOver,
) -> None:
    old = settings.tokenizer
    before = [new_id.get(id) for id in old(text).input_ids]
    if None in before:
        return  # it contains a pruned piece
    after = list(new(text).input_ids)
    if before != after and not _class_agrees(text, base, settings):
        result.not_comparable += 1
        return
    result.texts += 1
    if before != after:
        result.texts_differ += 1
        if len(result.examples) < 10:
            shown = {"base": " ".join(old.tokenize(text))[:200], "merged": " ".join(new.tokenize(text))[:200]}
            result.examples.append({"text": text[:200], **shown})


def _class_agrees(text: str, base: Vocabulary, settings: FolderSettings) -> bool:
    """Whether the base's class tokenizes the text between special tokens as its vocabulary does.

    LlamaTokenizer (transformers 5.23) drops a space at the start and ranks LLaMA's runs of spaces too high.
    """
    tokens = "|".join(re.escape(token.content) for token in settings.tokens.values())
    parts = [part for part in (re.split(tokens, text) if tokens else [text]) if part]
    by_class = [list(settings.tokenizer(part, add_special_tokens=False).input_ids) for part in parts]
    return by_class == base.encode(parts)
