"""The folder of an extended byte-level vocabulary: its tokenizer.json, and the settings that the base's folder has."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zhllama.io.files import read_whole, to_json
from zhllama.io.json import read_object
from zhllama.vocab.tokenizer_config import CONFIG, NAMED, TEMPLATE

CARRIED_OVER = (NAMED, TEMPLATE, "chat_template.json", "LICENSE", "NOTICE")


def transformers_files(
    content: str, source: Path, base_ids: Sequence[int] | None, pad: str | None
) -> dict[str, bytes]:
    """The files, by name, with which `AutoTokenizer.from_pretrained` gives the ids of the tokenizer.json `content`.

    `source` is the base's file; the settings in its folder are carried over. The class is one that takes tokenizer.json
    as it is: Qwen2Tokenizer and GPT2Tokenizer build a pattern of their own (transformers 5.23).
    """
    folder = source.parent
    files = {name: read_whole(folder / name) for name in CARRIED_OVER if (folder / name).is_file()}
    config = read_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    config = {k: v for k, v in config.items() if k not in ("auto_map", "tokenizer_file", "backend")}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if base_ids is not None and "added_tokens_decoder" in config:
        config["added_tokens_decoder"] = _renumbered(config["added_tokens_decoder"], base_ids)
    if pad is not None:
        config["pad_token"] = pad
        if NAMED in files:
            special_tokens = read_object(folder / NAMED) | {"pad_token": pad}
            files[NAMED] = to_json(special_tokens).encode()
    files[CONFIG] = to_json(config).encode()
    files["tokenizer.json"] = (content + "\n").encode()
    return files


def _renumbered(decoder: Mapping[str, Any], base_ids: Sequence[int]) -> dict[str, Any]:
    """The tokens that the config lists by id, under the ids that they have after pruning."""
    new_id = {id: new for new, id in enumerate(base_ids)}
    return {str(new_id[int(id)]): token for id, token in decoder.items()}
