"""A transformers model as a chat model: its template, its end of turn, its streamed answer."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

import torch
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.streamers import BaseStreamer

from zhllama.conversation.records import Turn
from zhllama.conversation.template import ChatTemplate, refuse_lacking, template_for
from zhllama.errors import InputError
from zhllama.inference.chat import Sampling
from zhllama.inference.generation_queue import EmitText, GenerationResult, Prompt
from zhllama.inference.token_stream import TokenStream, stream_from_thread
from zhllama.model.load import open_model
from zhllama.pretrained import refuse_generation_code
from zhllama.training.hardware import has_amx

CONTEXT = 2048  # tokens, for a model that names no limit: BLOOM has none, and was trained on so many
PLAIN = "alpaca"  # what a model without a template is asked by


@dataclass(frozen=True)
class TransformersChatModel:
    """A causal language model, its tokenizer, and the template of its conversations, `assumed` where it has none."""

    model: Any
    tokenizer: Any
    template: ChatTemplate
    context: int
    assumed: bool = False
    schemas: ClassVar[bool] = False

    @cached_property
    def longest(self) -> int:
        """The most characters of a token."""
        return max(map(len, self.tokenizer.get_vocab()))

    @cached_property
    def own(self) -> Sampling:
        """The sampling that the model's generation config names, and OpenAI's defaults for the rest."""
        named = self.model.generation_config
        chosen = {name: getattr(named, name, None) for name in ("temperature", "top_p", "top_k")}
        given = {name: value for name, value in chosen.items() if value is not None}
        return Sampling(**{"temperature": 1.0, "top_p": 1.0, **given})

    def count(self, prompt: Prompt) -> int:
        return len(self._ids(prompt))

    def answer(self, turns: list[Turn], sampling: Sampling, stop: Event) -> Iterator[str]:
        return stream_from_thread(lambda say: self.generate(turns, sampling, stop, say), stop)

    def generate(self, prompt: Prompt, sampling: Sampling, stop: Event, say: EmitText) -> GenerationResult:
        """Say an answer piece by piece; once `stop` is set, end before the next layer is computed."""
        ids = torch.tensor([self._ids(prompt)], device=self.model.device)
        ends = end_ids_of_answer(self.model.generation_config.eos_token_id, self.tokenizer, self.template)
        pad = self.tokenizer.pad_token_id
        sample = not sampling.greedy and sampling.temperature > 0
        chosen = (
            {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
            if sample
            else {}
        )
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        saying = _Saying(TokenStream(self.tokenizer), say)
        with torch.inference_mode(), _interrupted_by(stop, self.model), suppress(_Interrupted):
            self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=sample,
                num_beams=1,  # a streamer takes no more, whatever the model's generation config says
                num_return_sequences=1,
                max_new_tokens=sampling.max_tokens,
                eos_token_id=ends,
                pad_token_id=pad if pad is not None else ends[0],
                streamer=saying,
                logits_processor=LogitsProcessorList(penalty_processors(sampling, ids.shape[1])),
                **chosen,
            )
        ended = stop.is_set() or saying.last in ends
        return GenerationResult("stop" if ended else "length", saying.tokens)

    def _ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return list(self.tokenizer(prompt).input_ids)
        text = self.template.render(self.tokenizer, prompt, opened=True)
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)


def end_ids_of_answer(named: int | list[int] | None, tokenizer: Any, template: ChatTemplate) -> list[int]:
    """Ids that end an answer: those that the model names, the tokenizer's end of text, the template's end of turn."""
    ends = set(named) if isinstance(named, list) else {named}
    stop = tokenizer.convert_tokens_to_ids(template.stop) if template.stop else None
    return sorted(id for id in {*ends, tokenizer.eos_token_id, stop} if id is not None)


def find_template(tokenizer: Any, name: str | None) -> ChatTemplate:
    """The template of a name, or the tokenizer's own, or Alpaca's where it has none.

    Errors: OptionError, InputError for one whose special tokens the tokenizer lacks.
    """
    own = tokenizer.chat_template
    if name in (None, "own") and isinstance(own, str):
        ChatTemplate("own", own, "").try_out(tokenizer)
    if name in (None, "own") and isinstance(own, str) and own.strip():
        try:
            return template_for("own", tokenizer)
        except InputError:
            # One that writes no end is no use for training, and yet its model may know when to end.
            return ChatTemplate("own", own, "")
    template = template_for(name or PLAIN, tokenizer)
    refuse_lacking(template, tokenizer, "Give the one it was trained with")
    return template


def open_chat_model(model: str | Path, template: str | None = None) -> TransformersChatModel:
    """A model or run, ready to talk, on the GPU where there is one. Errors: InputError, OptionError."""
    opened = open_model(model, dtype=dtype_here())
    refuse_generation_code(opened.model, model)
    if torch.cuda.is_available():
        opened.model.to("cuda")
    found = find_template(opened.tokenizer, template)
    assumed = template is None and found.name == PLAIN
    return TransformersChatModel(
        opened.model, opened.tokenizer, found, context_of(opened.model.config), assumed
    )


def dtype_here() -> torch.dtype | None:
    """The type that a model runs in here: its own, or float32 on a processor without products of shorter types."""
    return None if torch.cuda.is_available() or has_amx() else torch.float32


def context_of(config: Any) -> int:
    """How many tokens a model can look at."""
    text = config.get_text_config()
    return int(getattr(text, "max_position_embeddings", None) or getattr(text, "seq_length", None) or CONTEXT)


def penalty_processors(sampling: Sampling, prompt: int) -> list[LogitsProcessor]:
    """OpenAI's presence and frequency penalty and logit bias, where there are any; `prompt` tokens are not counted."""
    asked = sampling.presence_penalty or sampling.frequency_penalty or sampling.bias
    return [_Penalties(sampling, prompt)] if asked else []


class _Penalties(LogitsProcessor):
    def __init__(self, sampling: Sampling, prompt: int) -> None:
        self._sampling, self._prompt = sampling, prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        said = input_ids[0, self._prompt :]
        times = torch.bincount(said, minlength=scores.shape[1]).to(scores.dtype)
        scores = scores - self._sampling.frequency_penalty * times
        scores = scores - self._sampling.presence_penalty * (times > 0)
        for id, bias in self._sampling.bias.items():
            if id < scores.shape[1]:
                scores[:, id] += bias
        return scores


class _Interrupted(Exception):
    """Raised inside of the model, between two of its layers."""


@contextmanager
def _interrupted_by(stop: Event, model: Any) -> Iterator[None]:
    """Raise _Interrupted before the next layer once `stop` is set: a long prompt is one pass, not to be waited for."""

    def check(*_: Any) -> None:
        if stop.is_set():
            raise _Interrupted

    layers = [layer for part in model.modules() if isinstance(part, torch.nn.ModuleList) for layer in part]
    hooks = [part.register_forward_pre_hook(check) for part in (model, *layers)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Saying(BaseStreamer):
    """Says text as it becomes whole; the prompt, which comes first, is left out."""

    def __init__(self, pieces: TokenStream, say: EmitText) -> None:
        self._pieces, self._say, self._begun = pieces, say, False
        self.tokens, self.last = 0, -1

    def put(self, value: torch.Tensor) -> None:
        if self._begun:
            for id in value.tolist():
                self.tokens, self.last = self.tokens + 1, id
                self._say(self._pieces.put(id))
        self._begun = True

    def end(self) -> None:
        self._say(self._pieces.end())
