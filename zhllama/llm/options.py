"""The options of every command that queries a server, and the connection and the budget that follow from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zhllama.errors import OptionError
from zhllama.io.json import parse_row
from zhllama.llm.parameters import PARAMETERS
from zhllama.options import option

if TYPE_CHECKING:
    from zhllama.llm.connection import Connection
    from zhllama.llm.spending import Spending

SERVER = "Server"
EXAMPLE = """Give an object, such as '{"enable_thinking": false}'"""


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a server is queried, and how much may be spent. A run may be resumed with other servers and budgets."""

    base_url: tuple[str, ...] = option(
        (),
        "Server's URL, such as http://localhost:8000/v1; several share the load.",
        panel=SERVER,
        recorded=False,
    )
    api: Literal["chat", "completion"] = option("chat", "API by which the model is queried.", panel=SERVER)
    batch_api: bool = option(
        False,
        "Send each round through the provider's Batch API.",
        former=("--batch",),
        panel=SERVER,
        recorded=False,
    )
    key_env: str = option(
        "OPENAI_API_KEY", "Environment variable (or line of .env) with the key.", panel=SERVER, recorded=False
    )
    extra_body: str | None = option(
        None, """More fields for each request, as JSON, e.g. '{"enable_thinking": false}'.""", panel=SERVER
    )
    omit: tuple[str, ...] = option(
        (),
        "Sampling parameter that is not sent, such as top_p; repeatable.",
        metavar="NAME",
        panel=SERVER,
        recorded=False,
    )
    concurrency: int = option(
        32, "Requests in flight at most, over all servers.", panel=SERVER, recorded=False
    )
    timeout: float = option(120.0, "Seconds for one whole request.", panel=SERVER, recorded=False)
    token_budget: int | None = option(
        None,
        "Stop before the run has used more tokens.",
        above=0,
        former=("--max-tokens",),
        panel=SERVER,
        recorded=False,
    )
    max_cost: float | None = option(
        None, "Stop before the run has cost more.", above=0, panel=SERVER, recorded=False
    )
    prices: Path | None = option(
        None,
        "YAML table, per million tokens: `model: {input: 0.27, output: 1.10}`.",
        panel=SERVER,
        recorded=False,
    )

    trial: bool = option(
        False,
        "Send three calls, report what the run would cost, and stop; --resume keeps their replies.",
        panel=SERVER,
        recorded=False,
    )

    def __post_init__(self) -> None:
        if self.trial and self.batch_api:
            raise OptionError("trial", "cannot be sent as a batch", "Leave `batch_api` out for the trial")
        if self.concurrency < 1 or self.timeout <= 0:
            raise OptionError("concurrency", "and `timeout` are not both above 0", "Leave them out")
        for name in self.omit:
            if name not in PARAMETERS:
                raise OptionError(
                    f"omit {name}",
                    "is not a parameter that can be left out",
                    f"Choose from: {', '.join(PARAMETERS)}",
                )

    def connection(self, model: str) -> "Connection":
        """The servers to query for a model. Errors: OptionError."""
        from zhllama.llm.connection import Connection, read_api_key

        if not model:
            raise OptionError("model", "is missing", "Give the model's name on that server")
        if self.batch_api and len(self.base_url) > 1:
            raise OptionError(
                "batch_api", f"goes to one server and {len(self.base_url)} are named", "Give one `base_url`"
            )
        return Connection(
            self.base_url,
            model,
            read_api_key(self.key_env),
            self.api,
            self.concurrency,
            self.timeout,
            self._extra_fields(),
            self.omit,
            self.key_env,
        )

    def spending(self, model: str) -> "Spending":
        """The budget, nothing spent yet. Errors: OptionError, InputError."""
        from zhllama.llm.spending import Spending, read_price

        price = read_price(self.prices, model, self.batch_api) if self.prices else None
        return Spending(price, self.token_budget, self.max_cost)

    def _extra_fields(self) -> Mapping[str, Any]:
        try:
            fields = parse_row(self.extra_body or "{}")
        except ValueError as error:
            raise OptionError("extra_body", f"is not JSON ({error})", EXAMPLE) from error
        if not isinstance(fields, dict):
            raise OptionError(
                "extra_body", "is not a JSON object", EXAMPLE.replace("an object, such as", "one such as")
            )
        return fields


@dataclass(frozen=True, kw_only=True)
class ModelServerOptions(ServerOptions):
    """The same with the model's name."""

    model: str = option("", "The model's name on that server.", panel=SERVER)
