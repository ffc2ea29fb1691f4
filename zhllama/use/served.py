"""A model or run as a plain folder that a server can load: folded where it must be, with its template and its ends."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from zhllama.conversation.template import Template
from zhllama.errors import InputError
from zhllama.io.files import to_json
from zhllama.model.export import fold, generation_config
from zhllama.model.load import load_tokenizer, read_model_config, resolve_chain
from zhllama.use.speaker import PLAIN, context_of, ends_of_answer, find_template
from zhllama.vocab.tokenizer_config import TEMPLATE

GENERATION = "generation_config.json"


class Served(NamedTuple):
    """What is served: the name that clients call it by, and what is needed to count tokens as the server will.

    `folded` is the number of runs that were; `assumed` tells that the model has no template of its own.
    """

    name: str
    tokenizer: Any
    template: Template
    context: int
    folded: int
    assumed: bool


def served_name(model: str) -> str:
    """A name for clients out of a path or hub name: what a hub name may hold, nothing else."""
    last = (
        Path(model).expanduser().resolve().name
        if Path(model).expanduser().exists()
        else model.rpartition("/")[2]
    )
    return re.sub(r"[^\w.-]+|--+|\.\.+", "-", last, flags=re.ASCII).strip("-.") or "model"


def make_served(model: str, template: str | None, home: Path) -> Served:
    """Lay a model into the hub cache under `home`, where `transformers serve` finds it by its name and lists it.

    A run's rows and adapters are folded into copies of its base's weights; a plain model's files are linked. Whatever the
    model says of sampling stays, but it samples: otherwise the server would ignore the temperature it is asked for.
    Errors: InputError, OptionError, OutputError.
    """
    chain = resolve_chain(model)
    tokenizer = load_tokenizer(chain.tokenizer)
    if not tokenizer.is_fast:
        told = "has a tokenizer without tokenizer.json, and transformers serve cannot stream by it"
        raise InputError(model, told, "Talk with it by zhllama chat")
    found = find_template(tokenizer, template)
    name = served_name(model)
    cached = home / "hub" / f"models--{name}"
    folder = cached / "snapshots" / "local"
    folder.mkdir(parents=True)
    if chain.runs:
        fold(chain, folder)
    else:
        for path in chain.base.iterdir():
            if path.is_file():
                (folder / path.name).symlink_to(path.resolve())
    _rewrite(folder / TEMPLATE, found.jinja)
    generation_config(folder)
    said = json.loads((folder / GENERATION).read_text(encoding="utf-8"))
    ends = ends_of_answer(said.get("eos_token_id"), tokenizer, found)
    _rewrite(folder / GENERATION, to_json({**said, "do_sample": True, "eos_token_id": ends}))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("local", encoding="utf-8")
    context = context_of(read_model_config(folder))
    return Served(name, tokenizer, found, context, len(chain.runs), template is None and found.name == PLAIN)


def _rewrite(path: Path, text: str) -> None:
    """Write a file anew, never through a link into the model's own folder."""
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
