"""Builds the generation method of a run from its options: for gen-zh, for --resume and for refilter."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from zhllama.corpus.filters import read_words
from zhllama.errors import OptionError
from zhllama.generation.alpaca import Alpaca
from zhllama.generation.filters import FilterOptions
from zhllama.generation.impossible_requests import read_acts
from zhllama.generation.methods import GenerationMethod
from zhllama.generation.rank import Rank
from zhllama.generation.rewrite import Rewrite
from zhllama.generation.self_instruct import SelfInstruct
from zhllama.generation.task_pool import TaskPool
from zhllama.generation.tasks import SeedTask, read_alpaca, read_seeds
from zhllama.llm.prompts import Prompts
from zhllama.resources import shipped

WANTED = 100


@dataclass(frozen=True)
class GenerationPlan:
    """Validated options with the files that they name.

    `options` are those of `gen-zh`, as config.yaml contains them. Errors: OptionError, InputError.
    """

    options: Mapping[str, Any]
    filters: FilterOptions
    prompts: Prompts
    seeds: list[SeedTask]
    input_tasks: list[SeedTask]  # of --given
    inputs: tuple[Path, ...]

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "GenerationPlan":
        """Validate the options and read the seeds, input tasks, blacklists and prompts."""
        method_name, n = options["method"], options.get("n")
        if n is not None and n < 1:
            raise OptionError(f"n {n}", "is not above 0", "Give the number of tasks to generate")
        for option in ("answers", "reply_tokens"):
            if (value := options.get(option)) is not None and value < (2 if option == "answers" else 1):
                raise OptionError(f"{option} {value}", "is too small", "Leave it out")
        needs_input_tasks = method_name in ("translate", "rank", "evolve")
        if needs_input_tasks != bool(options.get("given")):
            raise OptionError(
                f"method {method_name}",
                "needs `given`" if needs_input_tasks else "takes no `given`",
                "Give a file in Alpaca format" if needs_input_tasks else "Give `seeds`, or another `method`",
            )
        if options.get("structured") and (method_name != "alpaca" or options.get("api") != "chat"):
            raise OptionError("structured", "works with `method` alpaca and `api` chat only", "Leave it out")
        blacklists = [Path(path) for path in options.get("blacklist") or ()]
        seeds_file = Path(options.get("seeds") or shipped("seeds_zh", "seed_tasks.jsonl"))
        tasks_file = Path(options["given"]) if needs_input_tasks else None
        folder = Path(options.get("prompts") or shipped("prompts_zh"))
        filters = FilterOptions(
            **{
                field.name: options[field.name]
                for field in fields(FilterOptions)
                if field.name in options and field.name not in LISTS
            },
            without=frozenset(options.get("without") or ()),
            blacklist=tuple(dict.fromkeys(word for _, words in read_words(blacklists) for word in words)),
            acts=read_acts(shipped("prompts_zh", "blacklist.txt")),
        )
        plan = cls(
            options,
            filters,
            Prompts(folder, options["api"]),
            read_seeds(seeds_file) if tasks_file is None else [],
            read_alpaca(tasks_file)[:n] if tasks_file else [],
            (tasks_file or seeds_file, *blacklists),
        )
        method = plan.create_method(lambda row: None)
        plan.prompts.check(*method.prompts_used())
        return plan

    def create_method(self, write_reject: Callable[[dict[str, Any]], None]) -> GenerationMethod:
        """The generation method with an empty pool; `write_reject` receives each rejected row."""
        name, seed = self.options["method"], self.options["seed"]
        seeds = self.input_tasks if name == "evolve" else self.seeds
        wanted = len(self.input_tasks) or self.options.get("n") or WANTED
        pool = TaskPool(self.filters, seeds, wanted, write_reject)
        overrides = {
            "temperature": self.options.get("temperature"),
            "top_p": self.options.get("top_p"),
            "max_tokens": self.options.get("reply_tokens"),
        }
        sampling = {key: value for key, value in overrides.items() if value is not None}
        if name == "alpaca":
            return Alpaca(pool, self.prompts, seed, sampling, bool(self.options.get("structured")))
        if name == "self-instruct":
            return SelfInstruct(pool, self.prompts, seed, sampling)
        if name == "rank":
            return Rank(pool, self.prompts, self.input_tasks, sampling, self.options.get("answers") or 4)
        return Rewrite(pool, self.prompts, seed, self.input_tasks, name, sampling)


LISTS = {"without", "blacklist", "acts"}  # options that FilterOptions stores in other types
FILTER_OPTIONS = {field.name for field in fields(FilterOptions)} - {"acts"} | {"n"}
