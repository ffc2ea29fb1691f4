"""The folder of an extended tokenizer.json, and the settings that the base's folder has."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zhllama.io.files import is_present, read_whole, to_json
from zhllama.vocab.folder_settings import CARRIED_OVER, LEFT_BEHIND, AddedToken, FolderSettings
from zhllama.vocab.tokenizer_config import CONFIG, read_settings

CLASS = "PreTrainedTokenizerFast"  # takes tokenizer.json as it is; Qwen2Tokenizer and GPT2Tokenizer build a pattern of their own


def transformers_files(
    raw: Mapping[str, Any], source: Path, settings: FolderSettings | None, pad: str | None
) -> dict[str, bytes]:
    """The files, by name, with which `AutoTokenizer.from_pretrained` gives the ids of the parsed tokenizer.json `raw`.

    `source` is the base's file, beside which templates and licenses are looked for where it has no settings.
    """
    content = {"tokenizer.json": (json.dumps(raw, ensure_ascii=False) + "\n").encode()}
    if settings is None:
        folder = source.parent
        files = {name: read_whole(folder / name) for name in CARRIED_OVER if is_present(folder / name)}
        # A .tiktoken or tekken.json is not read by AutoTokenizer as we read it, but what stands beside it is meant for it.
        config = {
            k: v for k, v in read_settings(folder).items() if k not in (*LEFT_BEHIND, "added_tokens_decoder")
        }
        config |= {"tokenizer_class": CLASS} | ({"pad_token": pad} if pad is not None else {})
        return {**files, CONFIG: to_json(config).encode(), **content}
    tokens = {token["id"]: AddedToken.of(token) for token in raw["added_tokens"]}
    ids = {token.content: id for id, token in tokens.items()}
    return {**settings.with_all_tokens(tokens).written(ids.__getitem__, CLASS, pad), **content}
