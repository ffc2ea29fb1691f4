"""A chat model that transformers runs: its template, its end tokens and its streamed answer."""

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
from zhllama.io.processor import multiplies_bf16
from zhllama.model.load import open_model
from zhllama.pretrained import refuse_generation_code

# Tokens, for a model without a limit in its config, such as BLOOM, which was trained on this length.
CONTEXT = 2048
PLAIN = "alpaca"  # the template for a model without one


@dataclass(frozen=True)
class TransformersChatModel:
    """A causal language model, its tokenizer and its chat template; `assumed` marks a template that the model lacks."""

    model: Any
    tokenizer: Any
    template: ChatTemplate
    context: int
    assumed: bool = False
    schemas: ClassVar[bool] = False

    @cached_property
    def longest(self) -> int:
        """The number of characters of the longest token."""
        return max(map(len, self.tokenizer.get_vocab()))

    @cached_property
    def own(self) -> Sampling:
        """The sampling of the model's generation config, with OpenAI's defaults for missing values."""
        settings = self.model.generation_config
        values = {name: getattr(settings, name, None) for name in ("temperature", "top_p", "top_k")}
        present = {name: value for name, value in values.items() if value is not None}
        return Sampling(**{"temperature": 1.0, "top_p": 1.0, **present})

    def count(self, prompt: Prompt) -> int:
        return len(self._ids(prompt))

    def answer(self, turns: list[Turn], sampling: Sampling, stop: Event) -> Iterator[str]:
        return stream_from_thread(lambda emit: self.generate(turns, sampling, stop, emit), stop)

    def generate(self, prompt: Prompt, sampling: Sampling, stop: Event, emit: EmitText) -> GenerationResult:
        """Generate an answer and emit it in pieces; once `stop` is set, end before the next layer is computed."""
        ids = torch.tensor([self._ids(prompt)], device=self.model.device)
        ends = end_ids_of_answer(self.model.generation_config.eos_token_id, self.tokenizer, self.template)
        pad = self.tokenizer.pad_token_id
        sample = not sampling.greedy and sampling.temperature > 0
        sampling_options = (
            {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
            if sample
            else {}
        )
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        streamer = _EmittingStreamer(TokenStream(self.tokenizer), emit)
        with torch.inference_mode(), _interrupted_by(stop, self.model), suppress(_Interrupted):
            self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=sample,
                num_beams=1,  # a streamer supports no beams, whatever the model's generation config says
                num_return_sequences=1,
                max_new_tokens=sampling.max_tokens,
                eos_token_id=ends,
                pad_token_id=pad if pad is not None else ends[0],
                streamer=streamer,
                tokenizer=self.tokenizer,  # for `stop_strings` of its generation config
                logits_processor=LogitsProcessorList(penalty_processors(sampling, ids.shape[1])),
                **sampling_options,
            )
        ended = stop.is_set() or streamer.last in ends
        return GenerationResult("stop" if ended else "length", streamer.tokens)

    def _ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return list(self.tokenizer(prompt).input_ids)
        text = self.template.render(self.tokenizer, prompt, opened=True)
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)


def end_ids_of_answer(model_ids: int | list[int] | None, tokenizer: Any, template: ChatTemplate) -> list[int]:
    """The ids that end an answer: the model's end ids, the tokenizer's end token, and the template's stop token."""
    ends = set(model_ids) if isinstance(model_ids, list) else {model_ids}
    stop = tokenizer.convert_tokens_to_ids(template.stop) if template.stop else None
    return sorted(id for id in {*ends, tokenizer.eos_token_id, stop} if id is not None)


def find_template(tokenizer: Any, name: str | None) -> ChatTemplate:
    """The named template, or the tokenizer's own, or Alpaca's if it has none.

    Errors: OptionError, InputError for one whose special tokens the tokenizer lacks.
    """
    own = tokenizer.chat_template
    if name in (None, "own") and isinstance(own, str):
        ChatTemplate("own", own, "").try_out(tokenizer)
    if name in (None, "own") and isinstance(own, str) and own.strip():
        try:
            return template_for("own", tokenizer)
        except InputError:
            # A template without an end token cannot be trained with, but its model may still end its answers.
            return ChatTemplate("own", own, "")
    template = template_for(name or PLAIN, tokenizer)
    refuse_lacking(template, tokenizer, "Give the template that it was trained with")
    return template


def open_chat_model(model: str | Path, template: str | None = None) -> TransformersChatModel:
    """Open a model or run as a chat model, on the GPU if there is one. Errors: InputError, OptionError."""
    opened = open_model(model, dtype=dtype_here())
    refuse_generation_code(opened.model, model)
    if torch.cuda.is_available():
        opened.model.to("cuda")
    chat_template = find_template(opened.tokenizer, template)
    assumed = template is None and chat_template.name == PLAIN
    chat_model = TransformersChatModel(
        opened.model, opened.tokenizer, chat_template, context_of(opened.model.config), assumed
    )
    _try_generation(chat_model, model)
    return chat_model


def _try_generation(chat_model: TransformersChatModel, where: object) -> None:
    """Generate a token with the model's generation config, whose values transformers uses without checking their types.

    A temperature of 0 means greedy decoding, as in OpenAI's API, though transformers refuses it.
    Errors: InputError for settings that cannot be used.
    """
    first = chat_model.tokenizer.eos_token_id or 0
    ids = torch.tensor([[first]], device=chat_model.model.device)
    try:
        own = chat_model.own
        with torch.inference_mode(), torch.random.fork_rng():
            chat_model.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=own.temperature > 0,
                max_new_tokens=1,
                pad_token_id=first,
                tokenizer=chat_model.tokenizer,
            )
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        message = f"has a generation config that cannot be used ({reason})"
        raise InputError(where, message, "Correct generation_config.json") from error


def dtype_here() -> torch.dtype | None:
    """The dtype for inference on this machine: the stored one, or float32 on a CPU without fast bfloat16."""
    return None if torch.cuda.is_available() or multiplies_bf16() else torch.float32


def context_of(config: Any) -> int:
    """The context length of a model, in tokens."""
    text = config.get_text_config()
    return int(getattr(text, "max_position_embeddings", None) or getattr(text, "seq_length", None) or CONTEXT)


def penalty_processors(sampling: Sampling, prompt: int) -> list[LogitsProcessor]:
    """OpenAI's penalties and logit bias, if any is set; the first `prompt` tokens do not count for them."""
    active = sampling.presence_penalty or sampling.frequency_penalty or sampling.bias
    return [_Penalties(sampling, prompt)] if active else []


class _Penalties(LogitsProcessor):
    def __init__(self, sampling: Sampling, prompt: int) -> None:
        self._sampling, self._prompt = sampling, prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        answer = input_ids[0, self._prompt :]
        counts = torch.bincount(answer, minlength=scores.shape[1]).to(scores.dtype)
        scores = scores - self._sampling.frequency_penalty * counts
        scores = scores - self._sampling.presence_penalty * (counts > 0)
        for id, bias in self._sampling.bias.items():
            if id < scores.shape[1]:
                scores[:, id] += bias
        return scores


class _Interrupted(Exception):
    """Raised inside the model, between two layers."""


@contextmanager
def _interrupted_by(stop: Event, model: Any) -> Iterator[None]:
    """Raise _Interrupted before the next layer once `stop` is set, because one pass over a long prompt takes long."""

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


class _EmittingStreamer(BaseStreamer):
    """Emits text as soon as it is whole, without the prompt, which transformers puts first."""

    def __init__(self, pieces: TokenStream, emit: EmitText) -> None:
        self._pieces, self._emit, self._prompt_seen = pieces, emit, False
        self.tokens, self.last = 0, -1

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_seen:
            for id in value.tolist():
                self.tokens, self.last = self.tokens + 1, id
                self._emit(self._pieces.put(id))
        self._prompt_seen = True

    def end(self) -> None:
        self._emit(self._pieces.end())
