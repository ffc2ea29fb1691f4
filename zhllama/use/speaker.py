"""A model that transformers runs, as a speaker: its template, its end of turn, its answer piece by piece."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from zhllama.conversation.records import Turn
from zhllama.conversation.template import Template, refuse_lacking, template_for
from zhllama.errors import InputError
from zhllama.model.load import open_model
from zhllama.pretrained import refuse_generation_code
from zhllama.training.machine import has_amx
from zhllama.use.chat import Sampling
from zhllama.use.pieces import Pieces, spoken

CONTEXT = 2048  # tokens, for a model that names no limit: BLOOM has none, and was trained on so many
PLAIN = "alpaca"  # what a model without a template is asked by


@dataclass(frozen=True)
class TransformersSpeaker:
    """A causal language model, its tokenizer, and the template of its conversations, `assumed` where it has none."""

    model: Any
    tokenizer: Any
    template: Template
    context: int
    assumed: bool = False

    def count(self, turns: list[Turn]) -> int:
        return len(self._ids(turns))

    def answer(self, turns: list[Turn], sampling: Sampling, stop: Event) -> Iterator[str]:
        ids = torch.tensor([self._ids(turns)], device=self.model.device)
        ends = ends_of_answer(self.model.generation_config.eos_token_id, self.tokenizer, self.template)
        pad = self.tokenizer.pad_token_id
        sample = not sampling.greedy and sampling.temperature > 0
        chosen = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0} if sample else {}

        def work(say: Callable[[str], None]) -> None:
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            with torch.inference_mode():
                self.model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=sample,
                    max_new_tokens=sampling.max_tokens,
                    eos_token_id=ends,
                    pad_token_id=pad if pad is not None else ends[0],
                    streamer=_Saying(Pieces(self.tokenizer), say),
                    stopping_criteria=StoppingCriteriaList([_Stopped(stop)]),
                    **chosen,
                )

        return spoken(work, stop)

    def _ids(self, turns: list[Turn]) -> list[int]:
        text = self.template.render(self.tokenizer, turns, opened=True)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids


def ends_of_answer(named: int | list[int] | None, tokenizer: Any, template: Template) -> list[int]:
    """Ids that end an answer: those that the model names, the tokenizer's end of text, the template's end of turn."""
    ends = set(named) if isinstance(named, list) else {named}
    stop = tokenizer.convert_tokens_to_ids(template.stop) if template.stop else None
    return sorted(id for id in {*ends, tokenizer.eos_token_id, stop} if id is not None)


def find_template(tokenizer: Any, name: str | None) -> Template:
    """The template of a name, or the tokenizer's own, or Alpaca's where it has none.

    Errors: OptionError, InputError for one whose special tokens the tokenizer lacks.
    """
    own = tokenizer.chat_template
    if name in (None, "own") and isinstance(own, str):
        Template("own", own, "").try_out(tokenizer)
    if name in (None, "own") and isinstance(own, str) and own.strip():
        try:
            return template_for("own", tokenizer)
        except InputError:
            # One that writes no end is no use for training, and yet its model may know when to end.
            return Template("own", own, "")
    template = template_for(name or PLAIN, tokenizer)
    refuse_lacking(template, tokenizer, "Give the one it was trained with")
    return template


def open_speaker(model: str | Path, template: str | None = None) -> TransformersSpeaker:
    """A model or run, ready to talk, on the GPU where there is one. Errors: InputError, OptionError."""
    opened = open_model(model, dtype=dtype_here())
    refuse_generation_code(opened.model, model)
    if torch.cuda.is_available():
        opened.model.to("cuda")
    found = find_template(opened.tokenizer, template)
    assumed = template is None and found.name == PLAIN
    return TransformersSpeaker(
        opened.model, opened.tokenizer, found, context_of(opened.model.config), assumed
    )


def dtype_here() -> torch.dtype | None:
    """The type that a model runs in here: its own, or float32 on a processor without products of shorter types."""
    return None if torch.cuda.is_available() or has_amx() else torch.float32


def context_of(config: Any) -> int:
    """How many tokens a model can look at."""
    text = config.get_text_config()
    return int(getattr(text, "max_position_embeddings", None) or getattr(text, "seq_length", None) or CONTEXT)


class _Stopped(StoppingCriteria):
    def __init__(self, stop: Event) -> None:
        self._stop = stop

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._stop.is_set(), device=input_ids.device)


class _Saying(BaseStreamer):
    """Says text as it becomes whole; the prompt, which comes first, is left out."""

    def __init__(self, pieces: Pieces, say: Callable[[str], None]) -> None:
        self._pieces, self._say, self._begun = pieces, say, False

    def put(self, value: torch.Tensor) -> None:
        if self._begun:
            for id in value.tolist():
                self._say(self._pieces.put(id))
        self._begun = True

    def end(self) -> None:
        self._say(self._pieces.end())
