"""Serves a text with several models in turn, in transformers and in llama.cpp, or computes what that would cost."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from zhllama.errors import InputError, MissingPackage, ZhllamaError
from zhllama.evaluation.options import ServingOptions
from zhllama.evaluation.serving import EngineFigures, Passage, ServingEngine, measure_engine, passages
from zhllama.evaluation.serving_arithmetic import ServingCost, serving_cost
from zhllama.model.chain import Chain, resolve_chain
from zhllama.vocab.any_tokenizer import AnyTokenizer, load_any_tokenizer


@dataclass(frozen=True)
class ServedModel:
    """What does not depend on the engine; `context` in tokens, None without a limit, `bits` per character of the text."""

    model: str
    tokens_per_character: float
    context: int | None
    bits: float | None = None

    @property
    def context_characters(self) -> float | None:
        """Characters that fit into the context."""
        return None if self.context is None else self.context / self.tokens_per_character


@dataclass(frozen=True)
class ServingFigures:
    """All models on one text: measured in engines, or by arithmetic for a shape."""

    text: str
    models: tuple[ServedModel, ...]
    reply_characters: int
    rounds: int
    engines: tuple[EngineFigures, ...] = ()
    shape: str | None = None
    costs: tuple[ServingCost, ...] = ()
    threads: int | None = None
    gguf: str | None = None

    def cache_megabytes(self) -> dict[str, list[float]]:
        """Megabytes of keys and values for 1,000 characters of each model, by engine."""
        result = {
            engine.engine: [
                cache * model.tokens_per_character / 1e3
                for cache, model in zip(engine.cache_bytes, self.models, strict=True)
            ]
            for engine in self.engines
        }
        if self.costs:
            first = self.costs[0].prompt_characters
            result["arithmetic"] = [
                cost.cache_bytes / 1e3 for cost in self.costs if cost.prompt_characters == first
            ]
        return result

    def figures(self) -> dict[str, Any]:
        """Plain values for JSON."""
        models = [
            {**asdict(model), "context_characters": model.context_characters}
            | {"cache_megabytes": {name: values[n] for name, values in self.cache_megabytes().items()}}
            for n, model in enumerate(self.models)
        ]
        return {
            "basis": "measured" if self.shape is None else "arithmetic", "text": self.text, "shape": self.shape,
            "reply_characters": self.reply_characters, "rounds": self.rounds, "threads": self.threads,
            "gguf": self.gguf, "models": models,
            "speeds": [{"engine": e.engine, **asdict(speed)} for e in self.engines for speed in e.speeds],
            "costs": [asdict(cost) for cost in self.costs],
        }  # fmt: skip


def replies(models: int, options: ServingOptions) -> int:
    """How many replies one engine writes, those that are not counted included."""
    return models * len(options.prompt) * (options.rounds + 1)


def measure_serving(
    named: Mapping[str, Chain],
    text: tuple[str, str],  # its name and its content
    options: ServingOptions,
    bits: Sequence[float | None],
    stage: Callable[[str], None],  # called with the engine's name
    advance: Callable[[], None],  # called after each reply
    skip: Callable[[str], None],  # called with the reason for which llama.cpp is left out
) -> ServingFigures:
    """Measure every model in every engine; all models are in memory at once.

    Errors: those of opening the models, of `passages`, and of llama.cpp if it was asked for by name.
    """
    import torch

    from zhllama.inference.transformers_chat_model import context_of
    from zhllama.model.load import read_model_config

    names, chains = list(named), list(named.values())
    tokenizers = [load_any_tokenizer(chain.tokenizer) for chain in chains]
    configs = [read_model_config(chain.base) for chain in chains]
    of_model = [
        passages(
            tokenizer,
            _begin(config),
            text[1],
            options.prompt,
            options.reply,
            options.rounds,
            context_of(config),
        )
        for tokenizer, config in zip(tokenizers, configs, strict=True)
    ]
    models = tuple(
        ServedModel(name, tokens_per_character(tokenizer, text[1]), context_of(config), one)
        for name, tokenizer, config, one in zip(names, tokenizers, configs, bits, strict=True)
    )
    engines: list[EngineFigures] = []
    if options.engine != "llamacpp":
        stage("transformers")
        engines.append(measure_engine("transformers", names, _opened(chains), of_model, advance))
    if options.engine != "transformers":
        stage("llama.cpp")
        try:
            engines.append(_in_llamacpp(names, chains, of_model, options, advance))
        except (InputError, MissingPackage) as error:
            if options.engine is not None:
                raise
            skip(error.text())
    return ServingFigures(
        text[0], models, options.reply, options.rounds, tuple(engines), threads=torch.get_num_threads(),
        gguf=options.gguf if any(engine.engine == "llama.cpp" for engine in engines) else None,
    )  # fmt: skip


def _opened(chains: Sequence[Chain]) -> list[ServingEngine]:
    from zhllama.evaluation.serving_engines import TransformersEngine
    from zhllama.inference.transformers_chat_model import dtype_here
    from zhllama.model.load import open_model

    return [TransformersEngine(open_model(chain, dtype=dtype_here()).model) for chain in chains]


def _in_llamacpp(
    names: Sequence[str],
    chains: Sequence[Chain],
    of_model: Sequence[Sequence[Sequence[Passage]]],
    options: ServingOptions,
    advance: Callable[[], None],
) -> EngineFigures:
    import torch

    from zhllama.evaluation.serving_engines import llamacpp_engine

    longest = max(len(p.prompt) + len(p.reply) for model in of_model for rounds in model for p in rounds)
    with ExitStack() as stack:
        engines = [
            stack.enter_context(llamacpp_engine(chain, options.gguf, longest + 1, torch.get_num_threads()))
            for chain in chains
        ]
        return measure_engine("llama.cpp", names, engines, of_model, advance)


def serving_costs(names: Sequence[str], text: tuple[str, str], options: ServingOptions) -> ServingFigures:
    """The costs of a model of the shape with the vocabulary of each model or tokenizer, by arithmetic."""
    from zhllama.inference.transformers_chat_model import context_of
    from zhllama.training.model_info import read_shape
    from zhllama.training.model_shape import shape_of

    config = read_shape(None, options.shape)
    shape, context = shape_of(config), context_of(config)
    tokenizers = [_tokenizer(name) for name in names]
    models = tuple(
        ServedModel(name, tokens_per_character(tokenizer, text[1]), context)
        for name, tokenizer in zip(names, tokenizers, strict=True)
    )
    costs: list[ServingCost] = []
    for prompt in options.prompt:
        first = None
        for model, tokenizer in zip(models, tokenizers, strict=True):
            cost = serving_cost(model.model, shape, tokenizer.size, model.tokens_per_character, prompt, first)
            first = first or cost
            costs.append(cost)
    return ServingFigures(
        text[0], models, options.reply, options.rounds, shape=options.shape, costs=tuple(costs)
    )


def tokens_per_character(tokenizer: AnyTokenizer, text: str) -> float:
    """Tokens of a text over its characters."""
    (ids,) = tokenizer.encode([text])
    return len(ids) / len(text)


def _tokenizer(name: str) -> AnyTokenizer:
    """The tokenizer of a model, of a run, or the one that the name itself is."""
    try:
        return load_any_tokenizer(name)
    except ZhllamaError:
        return load_any_tokenizer(resolve_chain(name).tokenizer)


def _begin(config: Any) -> int | None:
    """The id before a prompt: BOS where the model has one."""
    id = getattr(config, "bos_token_id", None)
    return id if isinstance(id, int) else None
