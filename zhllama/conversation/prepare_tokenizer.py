"""Prepares a tokenizer for chat: appends `[PAD]` and a template's special tokens after its last id, and stores the template."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zhllama.conversation.template import ChatTemplate, special_tokens, template_for
from zhllama.errors import InputError
from zhllama.io.files import is_present, read_whole, to_json, write_whole
from zhllama.io.json import as_object, parse_json, read_object
from zhllama.model.load import load_transformers_tokenizer
from zhllama.vocab.any_tokenizer import (
    JsonTokenizer,
    SentencePieceTokenizer,
    load_any_tokenizer,
    tokenizer_file,
)
from zhllama.vocab.fast_tokenizer import Specials, transformers_files, why_no_fast_tokenizer
from zhllama.vocab.json_vocabulary import special_token
from zhllama.vocab.sentencepiece_vocabulary import Piece, SentencePieceVocabulary, in_its_folder
from zhllama.vocab.tokenizer_config import CONFIG, TEMPLATE, named_token, read_settings
from zhllama.vocab.vocabulary import PAD

JSON = "tokenizer.json"


def prepare_tokenizer(source: Path, name: str | None, out: Path) -> ChatTemplate:
    """Write the tokenizer of the folder `source` to the folder `out` with the tokens of the named template.

    Without a name, the tokenizer's own template is used, or Alpaca's if it has none.
    A tokenizer without a pad token gets `[PAD]`, like the published one; existing ids stay. The template becomes its
    `chat_template`, and the token that ends answers becomes its end token.
    Errors: InputError for a tokenizer that cannot be extended, or whose own template writes no end token.
    """
    out.mkdir(parents=True, exist_ok=True)
    if name is None:
        name = "own" if load_transformers_tokenizer(source).chat_template else "alpaca"
    existing = load_any_tokenizer(source)
    if isinstance(existing, SentencePieceTokenizer):
        model = in_its_folder(existing.model, tokenizer_file(source))
        _sentencepiece(model, source, special_tokens(name), out)
    elif isinstance(existing, JsonTokenizer) and is_present(source / JSON):
        _json(existing, source, special_tokens(name), out)
    else:
        raise InputError(source, "contains neither tokenizer.model nor tokenizer.json", "Give another model")
    tokenizer = load_transformers_tokenizer(out, source)
    template = template_for(name, tokenizer)
    write_whole(out / TEMPLATE, template.jinja)
    settings = {key: value for key, value in read_settings(out).items() if key != "chat_template"}
    if tokenizer.eos_token != template.stop and name != "own":
        settings["eos_token"] = template.stop
    write_whole(out / CONFIG, to_json(settings))
    return template


def _sentencepiece(model: SentencePieceVocabulary, source: Path, tokens: Sequence[str], out: Path) -> None:
    """Extend a .model; where scores tie, as in the published one, `[PAD]` becomes a normal piece, as it was there."""
    settings = read_settings(source)
    _refuse_added(model, settings, source)
    pad = named_token(settings, "pad_token") or (PAD if PAD in model.ids else None)
    kind: Any = "control" if why_no_fast_tokenizer(model) is None else "normal"
    added = [] if pad in model.ids else [Piece(PAD, 0.0, kind)]
    controls = [Piece(token, 0.0, "control") for token in tokens if token not in model.ids]
    larger = model.extended([*added, *controls])
    specials = Specials(bos=settings.get("add_bos_token", True), pad=PAD if added else pad)
    files = transformers_files(larger, specials)
    config = as_object(parse_json(files[CONFIG], source / CONFIG), source / CONFIG)
    if tokens:
        config["added_tokens_decoder"] = config.get("added_tokens_decoder", {}) | {
            str(larger.ids[token]): {"content": token, "special": True, "normalized": False}
            for token in tokens
        }
    if is_present(source / TEMPLATE):
        files[TEMPLATE] = read_whole(source / TEMPLATE)
    elif "chat_template" in settings:
        config["chat_template"] = settings["chat_template"]
    for name, content in {**files, CONFIG: to_json(config).encode()}.items():
        write_whole(out / name, content)


def _refuse_added(model: SentencePieceVocabulary, settings: dict[str, Any], source: Path) -> None:
    added = settings.get("added_tokens_decoder", {})
    beyond = [id for id in added if int(id) >= len(model.pieces)]
    if beyond:
        reason = f"adds {len(beyond)} tokens to its tokenizer.model in {CONFIG}"
        raise InputError(
            source, reason, "Save it with a tokenizer.json that contains them, and remove the .model"
        )


def _json(existing: JsonTokenizer, source: Path, tokens: Sequence[str], out: Path) -> None:
    """Extend a tokenizer.json with special tokens."""
    settings = read_settings(source)
    raw = read_object(source / JSON)
    vocabulary = existing.inner.get_vocab(with_added_tokens=True)
    pad = named_token(settings, "pad_token")
    missing = [PAD] if pad not in vocabulary and PAD not in vocabulary else []
    missing += [token for token in tokens if token not in vocabulary]
    added = [special_token(existing.size + number, token) for number, token in enumerate(missing)]
    raw["added_tokens"] += added
    if pad not in vocabulary:
        settings["pad_token"] = PAD
    if "added_tokens_decoder" in settings:
        settings["added_tokens_decoder"] |= {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added
        }
    # Other classes rebuild the pre-tokenizer (transformers 5.23), and tokenize differently.
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if is_present(source / TEMPLATE):
        write_whole(out / TEMPLATE, read_whole(source / TEMPLATE))
    write_whole(out / JSON, json.dumps(raw, ensure_ascii=False))
    write_whole(out / CONFIG, to_json(settings))
