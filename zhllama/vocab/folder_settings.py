"""What AutoTokenizer reads from a base's folder besides the vocabulary: added tokens, special tokens, settings, templates."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from zhllama.errors import InputError, ZhllamaError
from zhllama.io.files import is_present, read_whole, to_json
from zhllama.io.json import parse_row, read_object
from zhllama.pretrained import open_tokenizer
from zhllama.vocab.tokenizer_config import (
    ADDED,
    CONFIG,
    NAMED,
    TEMPLATE,
    VOCAB,
    VOCABULARIES,
    declared_tokens,
    read_settings,
)
from zhllama.vocab.vocabulary import SPACE

# How the text after a special token begins: as it is, with ▁ unless a space is there, or with one more ▁ in any case.
Inside = Literal["never", "always", "prepend"]

TEMPLATES = "additional_chat_templates"
CARRIED_OVER = (TEMPLATE, "chat_template.json", "LICENSE", "NOTICE")
# Paths and code of the base's folder mean nothing in another folder, and the class is always written.
LEFT_BEHIND = (
    "auto_map", "tokenizer_file", "vocab_file", "merges_file", "special_tokens_map_file", "name_or_path", "backend",
    "is_local", "local_files_only", "tokenizer_class", "additional_special_tokens",
)  # fmt: skip
# Settings that a tokenizer class defaults by itself, so that they must be written under another class.
SETTINGS = (
    "padding_side", "truncation_side", "model_max_length", "model_input_names",
    "clean_up_tokenization_spaces", "split_special_tokens",
)  # fmt: skip


@dataclass(frozen=True)
class AddedToken:
    """A token that is matched in text before it is tokenized, with its flags as in tokenizer.json."""

    content: str
    special: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "AddedToken":
        """The token of an entry of tokenizer.json."""
        return cls(**{key: value for key, value in entry.items() if key != "id"})

    def entry(self) -> dict[str, Any]:
        """The token as tokenizer_config.json and tokenizer.json write it, without its id."""
        return asdict(self)

    @property
    def plain(self) -> bool:
        """Whether it takes no characters beside its own and has no space, so that SentencePiece can match it too."""
        spaces = (
            " " in self.content or SPACE in self.content
        )  # SentencePiece would match ▁ where a text has a space
        return not (self.lstrip or self.rstrip or self.single_word or spaces)


@dataclass(frozen=True, eq=False)
class FolderSettings:
    """The settings of a tokenizer's folder.

    `tokenizer` is the transformers object, `tokens` are all added and special tokens by id, `processor` is the post-processor
    as in tokenizer.json. `reread` says why the folder was not read as AutoTokenizer does; `declared` are ids that its
    files state and AutoTokenizer gives to other tokens or to none.
    """

    folder: Path
    tokenizer: Any = field(repr=False)
    tokens: Mapping[int, AddedToken]
    config: Mapping[str, Any] = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)
    processor: Any = field(repr=False)
    declared: Mapping[str, int]
    inside: Inside = "never"
    prefix: bool = True
    reread: str | None = None

    @property
    def size(self) -> int:
        """One more than the last id of an added token, declared ones included; 0 without any."""
        return max([*self.tokens, *self.declared.values()], default=-1) + 1

    @property
    def pad(self) -> str | None:
        """The pad token."""
        return self.config.get("pad_token")

    def with_tokens(self, tokens: Mapping[int, AddedToken]) -> "FolderSettings":
        """The same with more tokens."""
        return replace(self, tokens={**self.tokens, **tokens})

    def with_all_tokens(self, tokens: Mapping[int, AddedToken]) -> "FolderSettings":
        """The same with these tokens in place of its own."""
        return replace(self, tokens=tokens)

    def written(self, id_of: Callable[[str], int], class_name: str, pad: str | None) -> dict[str, bytes]:
        """The files, by name, that carry the settings over to a folder whose tokens have the ids `id_of`."""
        tokens = {str(id_of(token.content)): token.entry() for token in self.tokens.values()}
        config = {**self.config, "tokenizer_class": class_name, "added_tokens_decoder": tokens}
        if pad is not None:
            config["pad_token"] = pad
        files = {**self.files, CONFIG: to_json(config).encode()}
        if NAMED in files and pad is not None:
            files[NAMED] = to_json(parse_row(files[NAMED]) | {"pad_token": pad}).encode()
        return files

    def written_processor(self, id_of: Callable[[str], int]) -> Any:
        """The post-processor as in tokenizer.json, with ids of the folder that is written."""
        return renumbered(self.processor, id_of)


def read_folder_settings(
    path: Path, plain_ids: Callable[[str], Sequence[int]] | None = None
) -> FolderSettings | None:
    """The settings in the folder of the vocabulary file `path`; None where it has no file with any.

    `plain_ids` gives SentencePiece's ids: a folder whose class drops the ▁ before a text is read as LlamaTokenizer.
    Errors: InputError where transformers cannot read the folder.
    """
    folder = path.parent
    if path.name not in VOCABULARIES:
        return None
    if path.name != VOCAB and not any(is_present(folder / name) for name in (CONFIG, NAMED, ADDED)):
        return None
    try:
        return _read(folder, path, plain_ids)
    except ZhllamaError:
        raise
    except Exception as error:  # settings of another type than transformers expects fail anywhere in it
        reason = " ".join(str(error).split())[:160]
        remedy = f"Check {CONFIG} and the files beside it"
        raise InputError(folder, f"has settings that transformers cannot use ({reason})", remedy) from error


def _read(folder: Path, path: Path, plain_ids: Callable[[str], Sequence[int]] | None) -> FolderSettings:
    tokenizer, reread = _opened(folder, path, plain_ids)
    raw = read_settings(folder)
    config = {key: value for key, value in raw.items() if key not in LEFT_BEHIND}
    config |= {name: getattr(tokenizer, name) for name in SETTINGS if hasattr(tokenizer, name)}
    roles = tokenizer.SPECIAL_TOKENS_ATTRIBUTES
    for role in roles:
        token = tokenizer._special_tokens_map.get(role)
        if token is None:
            config.pop(role, None)
        else:
            config[role] = str(token)
    config["extra_special_tokens"] = [str(token) for token in tokenizer.extra_special_tokens]
    if is_present(folder / TEMPLATE) or (folder / TEMPLATES).is_dir():
        config.pop("chat_template", None)
    tokens = {id: _token(token) for id, token in sorted(tokenizer.added_tokens_decoder.items())}
    actual = {token.content: id for id, token in tokens.items()}
    declared = {text: id for text, id in declared_tokens(folder).items() if actual.get(text) != id}
    backend = getattr(tokenizer, "_tokenizer", None)
    processor = None if backend is None else parse_row(backend.to_str())["post_processor"]
    if backend is not None:
        begin, end = (getattr(tokenizer, f"add_{side}_token", False) for side in ("bos", "eos"))
        config |= {"add_bos_token": bool(begin), "add_eos_token": bool(end)}
    prefix = raw.get("add_prefix_space") is not False or _prefixed(tokenizer)
    return FolderSettings(
        folder, tokenizer, tokens, config, _files(folder, config), processor, declared, _inside(tokenizer, tokens.values()),
        prefix, reread,
    )  # fmt: skip


def _opened(
    folder: Path, path: Path, plain_ids: Callable[[str], Sequence[int]] | None
) -> tuple[Any, str | None]:
    """The folder's tokenizer, and why it was not read as AutoTokenizer does."""
    try:
        tokenizer = open_tokenizer(folder)
    except Exception as error:  # foreign folders raise anything
        reason = " ".join(str(error).split())[:160]
        name = "LlamaTokenizer" if path.name == "tokenizer.model" else "PreTrainedTokenizerFast"
        try:
            return _opened_as(folder, name), f"AutoTokenizer refuses it ({reason}), so it was read as {name}"
        except Exception:
            if isinstance(error, ZhllamaError):
                raise error from None
            remedy = f"Check the files beside its {path.name}"
            raise InputError(folder, f"is not loaded by AutoTokenizer ({reason})", remedy) from error
    if plain_ids is None or _agrees(tokenizer, plain_ids):
        return tokenizer, None
    try:
        as_llama = _opened_as(folder, "LlamaTokenizer")
    except Exception:
        return tokenizer, None
    if not _agrees(as_llama, plain_ids):
        return tokenizer, None
    name = type(tokenizer).__name__
    return (
        as_llama,
        f"AutoTokenizer loads it as {name}, whose ids are not SentencePiece's, so it was read as LlamaTokenizer",
    )


def _opened_as(folder: Path, class_name: str) -> Any:
    """The tokenizer of the same files under another class, without code that they name."""
    with TemporaryDirectory() as place:
        for file in folder.iterdir():
            if file.suffix in (".json", ".model", ".jinja", ".txt") or file.name == TEMPLATES:
                Path(place, file.name).symlink_to(file.resolve())
        for name in (CONFIG, "config.json"):
            Path(place, name).unlink(missing_ok=True)
        config = read_object(folder / CONFIG) if is_present(folder / CONFIG) else {}
        config = {key: value for key, value in config.items() if key != "auto_map"} | {
            "tokenizer_class": class_name
        }
        Path(place, CONFIG).write_text(to_json(config), encoding="utf-8")
        return open_tokenizer(Path(place))


def _agrees(tokenizer: Any, plain_ids: Callable[[str], Sequence[int]]) -> bool:
    return list(tokenizer("one two", add_special_tokens=False).input_ids) == list(plain_ids("one two"))


def _prefixed(tokenizer: Any) -> bool:
    """Whether a text gets ▁ at its start; a class that drops it by mistake counts as one that does not."""
    tokens = tokenizer.tokenize("one")
    return bool(tokens) and tokens[0].startswith(SPACE)


def _inside(tokenizer: Any, tokens: Iterable[AddedToken]) -> Inside:
    """How the text after a special token begins, tried out on one."""
    special = next(
        (t.content for t in tokens if t.special and not (t.lstrip or t.rstrip or t.normalized)), None
    )
    if special is None or tokenizer.split_special_tokens:
        return "never"

    def after(text: str) -> str:
        tokenized = tokenizer.tokenize(f"one{special}{text}")
        return "".join(tokenized[tokenized.index(special) + 1 :]) if special in tokenized else text

    if not after("two").startswith(SPACE):
        return "never"
    return "prepend" if after(" two").startswith(SPACE * 2) else "always"


def _files(folder: Path, config: Mapping[str, Any]) -> dict[str, bytes]:
    """Templates, licenses and the map of special tokens, by name."""
    files = {name: read_whole(folder / name) for name in CARRIED_OVER if is_present(folder / name)}
    for file in sorted((folder / TEMPLATES).glob("*.jinja")):
        files[f"{TEMPLATES}/{file.name}"] = read_whole(file)
    if is_present(folder / NAMED):
        named = read_object(folder / NAMED)
        files[NAMED] = to_json(named | {key: config[key] for key in named if key in config}).encode()
    return files


def _token(token: Any) -> AddedToken:
    return AddedToken(
        token.content, token.special, token.lstrip, token.rstrip, token.single_word, token.normalized
    )


def renumbered(processor: Any, id_of: Callable[[str], int]) -> Any:
    """A post-processor as in tokenizer.json with other ids for the tokens that it puts around a text."""
    if not isinstance(processor, dict):
        return processor
    new = dict(processor)
    if "processors" in new:
        new["processors"] = [renumbered(part, id_of) for part in new["processors"]]
    if new.get("type") == "TemplateProcessing":
        special = new.get("special_tokens", {})
        new["special_tokens"] = {
            name: {**token, "ids": [id_of(text) for text in token["tokens"]]}
            for name, token in special.items()
        }
    for end in ("sep", "cls"):  # of BertProcessing and RobertaProcessing: [text, id]
        if isinstance(new.get(end), list):
            new[end] = [new[end][0], id_of(new[end][0])]
    return new
