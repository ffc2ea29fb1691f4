"""OpenAI's request bodies: every field is honored, or named in the refusal."""

import json
from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from zhllama.conversation.records import Turn
from zhllama.inference.chat import Sampling
from zhllama.inference.http_guard import Refusal

TOKENS = 1024  # of an answer, unless the client sets a number
STOPS = 16  # strings that end an answer
SCHEMA = 8192  # characters of a response_format: a list of 100,000 values keeps llama.cpp busy for minutes
BIASES = 300  # tokens of a logit_bias, as with OpenAI


class _StrictModel(BaseModel):
    """An object from a client: null means absent, unknown fields are refused, and strings are not converted to numbers."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("is not an object")
        for name in value:
            if name not in cls.model_fields and value[name] is not None:
                raise ValueError(f"has the unknown field {name[:60]!r}")
        return {name: field for name, field in value.items() if field is not None}


def _text_of(value: Any) -> Any:
    """A message's text, from a string or from parts of type text."""
    if not isinstance(value, list):
        return value
    texts = []
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError("has a part that is not of type text: this model reads text only")
        texts.append(part["text"])
    return "\n".join(texts)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _only(*allowed: Any) -> BeforeValidator:
    """Refuse all but some values: an unsupported field may be sent with its neutral value."""

    def check(value: Any) -> Any:
        if not any(value == choice and type(value) is type(choice) for choice in allowed):
            raise ValueError("is not supported by this server")
        return value

    return BeforeValidator(check)


def _checked_bias(value: dict[str, float]) -> dict[str, float]:
    if len(value) > BIASES:
        raise ValueError(f"has more than {BIASES} tokens")
    for id, bias in value.items():
        if not (id.isascii() and id.isdigit() and len(id) < 10) or not -100 <= bias <= 100:
            raise ValueError("is not an object of token ids with numbers from -100 to 100")
    return value


def _checked_format(value: dict[str, Any]) -> dict[str, Any]:
    if value.get("type") not in ("text", "json_object", "json_schema"):
        raise ValueError("has no type of text, json_object or json_schema")
    schema = value.get("json_schema")
    if value["type"] == "json_schema" and not (
        isinstance(schema, dict) and isinstance(schema.get("schema"), dict)
    ):
        raise ValueError("has no json_schema with a schema")
    if len(json.dumps(value)) > SCHEMA:
        raise ValueError(f"has a schema of more than {SCHEMA:,} characters")
    return value


class RequestMessage(_StrictModel):
    """One turn; `developer` is the newer name of `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_text_of)]


class StreamOptions(_StrictModel):
    include_usage: bool = False
    include_obfuscation: Annotated[Any, _only(False)] = None


class _Request(_StrictModel):
    model: str
    max_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256)]],
        FailFast(),
        Field(max_length=STOPS),
        BeforeValidator(_as_list),
    ] = []
    presence_penalty: float = Field(0, ge=-2, le=2)
    frequency_penalty: float = Field(0, ge=-2, le=2)
    logit_bias: Annotated[dict[str, float], AfterValidator(_checked_bias)] = {}
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: str | None = None  # accepted and ignored
    n: Annotated[Any, _only(1)] = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if "stream_options" in self.model_fields_set and not self.stream:
            raise ValueError("has stream_options without stream")
        return self

    def sampling(self, own: Sampling, room: int) -> Sampling:
        """The client's sampling options, with the model's defaults `own`, and at most `room` tokens."""
        return Sampling(
            temperature=own.temperature if self.temperature is None else self.temperature,
            top_p=own.top_p if self.top_p is None else self.top_p,
            max_tokens=min(self.max_answer_tokens(), room),
            seed=self.seed,
            greedy=self.temperature == 0,
            top_k=own.top_k,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            bias={int(id): bias for id, bias in self.logit_bias.items()},
            response_format=self.schema_to_follow(),
        )

    def max_answer_tokens(self) -> int:
        """The maximum number of answer tokens."""
        return self.max_tokens or TOKENS

    def schema_to_follow(self) -> dict[str, Any] | None:
        """The schema that the answer must follow, if any."""
        return None


class ChatRequest(_Request):
    """A body of /v1/chat/completions."""

    kind: ClassVar = "chat.completion"
    prompt_field: ClassVar = "messages"

    messages: Annotated[list[RequestMessage], FailFast(), Field(min_length=1)]
    max_completion_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    response_format: Annotated[dict[str, Any] | None, AfterValidator(_checked_format)] = None
    logprobs: Annotated[Any, _only(False)] = None
    top_logprobs: Annotated[Any, _only(0)] = None
    tools: Annotated[Any, _only([])] = None
    functions: Annotated[Any, _only([])] = None
    tool_choice: Annotated[Any, _only("none", "auto")] = None
    parallel_tool_calls: Annotated[Any, _only(True, False)] = None
    modalities: Annotated[Any, _only(["text"])] = None
    store: Annotated[Any, _only(False)] = None

    @property
    def prompt(self) -> list[Turn]:
        """The conversation."""
        return [
            Turn("system" if message.role == "developer" else message.role, message.content)
            for message in self.messages
        ]

    def max_answer_tokens(self) -> int:
        return self.max_completion_tokens or self.max_tokens or TOKENS

    def schema_to_follow(self) -> dict[str, Any] | None:
        return None if (self.response_format or {}).get("type") in (None, "text") else self.response_format

    def size(self) -> int:
        """The number of characters of the prompt."""
        return sum(len(message.content) for message in self.messages)


class CompletionRequest(_Request):
    """A body of /v1/completions."""

    kind: ClassVar = "text_completion"
    prompt_field: ClassVar = "prompt"

    prompt: str = Field(min_length=1)
    best_of: Annotated[Any, _only(1)] = None
    echo: Annotated[Any, _only(False)] = None
    logprobs: Annotated[Any, _only()] = None
    suffix: Annotated[Any, _only("")] = None

    def size(self) -> int:
        """The number of characters of the prompt."""
        return len(self.prompt)


AnyRequest = TypeVar("AnyRequest", ChatRequest, CompletionRequest)


def read_request(kind: type[AnyRequest], body: bytes, names: Collection[str]) -> AnyRequest:
    """A body as a request to one of the models `names`. Errors: Refusal, which names the field."""
    try:
        fields = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refusal(400, f"The body is not JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise Refusal(400, "The body is not a JSON object.")
    try:
        request = kind.model_validate(fields)
    except ValidationError as error:
        raise _refusal(error) from None
    if request.model not in names:
        message = f"There is no model {request.model[:100]!r}; this server has {', '.join(names)}."
        raise Refusal(404, message, "model", "model_not_found")
    return request


def _refusal(error: ValidationError) -> Refusal:
    """The refusal of the first fault, with the path to its field."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    unknown = message.partition("unknown field ")[2].strip("'")
    param = ".".join(filter(None, (where, unknown))) or None
    return Refusal(400, f"{where or 'The body'}: {message}.", param)
