"""The folder of an extended byte-level vocabulary: its tokenizer.json, and what the base's folder holds beside it."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from tokenizers import Tokenizer as Inner

from zhllama.errors import InputError, ZhllamaError
from zhllama.io.files import read_whole, to_json
from zhllama.io.json import read_object
from zhllama.pretrained import open_tokenizer
from zhllama.vocab.byte_merge import ByteMerge
from zhllama.vocab.merge import PAD
from zhllama.vocab.settings import CONFIG, NAMED, TEMPLATE

CARRIED = (NAMED, TEMPLATE, "chat_template.json", "LICENSE", "NOTICE")


def transformers_files(merge: ByteMerge, source: Path) -> dict[str, bytes]:
    """The files, by name, with which `AutoTokenizer.from_pretrained` gives the ids of tokenizer.json.

    `source` is the base's file; what lies beside it is carried over. The class is one that takes tokenizer.json as it
    is: Qwen2Tokenizer and GPT2Tokenizer build a pattern of their own (transformers 5.23).
    """
    folder = source.parent
    files = {name: read_whole(folder / name) for name in CARRIED if (folder / name).is_file()}
    config = read_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    config = {k: v for k, v in config.items() if k not in ("auto_map", "tokenizer_file", "backend")}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if "added_tokens_decoder" in config:
        config["added_tokens_decoder"] = _moved(config["added_tokens_decoder"], merge)
    if PAD in merge.special:
        config["pad_token"] = PAD
        if NAMED in files:
            named = read_object(folder / NAMED) | {"pad_token": PAD}
            files[NAMED] = to_json(named).encode()
    files[CONFIG] = to_json(config).encode()
    files["tokenizer.json"] = (merge.model.content + "\n").encode()
    return files


def reloaded(files: Mapping[str, bytes], base: Path) -> Inner:
    """What AutoTokenizer makes of such files, reading no special token from a text; InputError names the base's folder."""
    with TemporaryDirectory(prefix="zhllama-") as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        return auto_tokenizer(Path(folder), base)


def auto_tokenizer(folder: Path, base: Path | None = None) -> Inner:
    """What AutoTokenizer makes of a folder, reading no special token from a text.

    `base` is the folder whose settings were carried over into `folder`, if any. Errors: InputError that names it, or `folder`.
    """
    try:
        inner = cast(Inner, open_tokenizer(folder)._tokenizer)
    except ZhllamaError:
        raise
    except Exception as error:  # whatever a folder that others made can hold
        told = " ".join(str(error).split())[:160]
        remedy = "Check the files beside its tokenizer.json"
        raise InputError(base or folder, f"is not loaded by AutoTokenizer ({told})", remedy) from error
    inner.encode_special_tokens = True
    return inner


def _moved(decoder: Mapping[str, Any], merge: ByteMerge) -> dict[str, Any]:
    """The tokens that the config lists by their ids, under the ids that they have now."""
    now = {was: id for id, was in enumerate(merge.kept)} if merge.dropped else None
    return {str(now[int(id)] if now else id): token for id, token in decoder.items()}
