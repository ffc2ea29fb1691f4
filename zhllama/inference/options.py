"""The options of a conversation in the terminal."""

from dataclasses import dataclass

from zhllama.model.options import AdapterOptions
from zhllama.options import option, required


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """The prompt, and how answers are sampled."""

    prompt: str | None = option(None, "Send this one prompt and leave.", flags=("--prompt", "-p"))
    system: str = option("", "System prompt.")
    temperature: float = option(0.7, "0: greedy decoding.")
    top_p: float = option(0.9, "Sample from the likeliest tokens with this total probability.")
    max_tokens: int = option(512, "Tokens of an answer, at most.")
    seed: int | None = option(None, "Seed that makes answers repeatable.")
    greedy: bool = option(False, "Always the likeliest token.")


@dataclass(frozen=True, kw_only=True)
class ChatModelOptions(AdapterOptions):
    """A model with its adapters, and its chat template."""

    model: str = required("Folder, hub name, run of zhllama, or a .gguf file.", positional=True)
    template: str | None = option(None, "alpaca, vicuna, chatml or llama3, in place of the model's own.")


@dataclass(frozen=True, kw_only=True)
class ListenOptions:
    """Where a server listens, and by which names it is called."""

    host: str = option("127.0.0.1", "0.0.0.0 lets others in.")
    port: int = option(8000, "Port of the API; 0: any free one.", minimum=0, maximum=65535)
    allow_host: tuple[str, ...] = option(
        (), "Another name by which clients reach this machine, such as that of a proxy."
    )


@dataclass(frozen=True, kw_only=True)
class ServeOptions(ListenOptions):
    """Where the API and the page listen."""

    web: bool = option(False, "Open a chat page too.")
    web_port: int = option(7860, "Port of the page; 0: any free one.", minimum=0, maximum=65535)
