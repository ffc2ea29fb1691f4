"""From a run's options to its method: the same for a run, for its resumption, and for judging it again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from zhllama.corpus.filters import read_words
from zhllama.errors import OptionError
from zhllama.generation.filters import Rules
from zhllama.generation.methods import Alpaca, Method
from zhllama.generation.rewrite_and_rank import Rank, Rewrite
from zhllama.generation.self_instruct import SelfInstruct
from zhllama.generation.task_pool import TaskPool
from zhllama.generation.tasks import SeedTask, read_alpaca, read_seeds
from zhllama.llm.prompts import Prompts
from zhllama.resources import shipped

WANTED = 100


@dataclass(frozen=True)
class GenerationPlan:
    """Options resolved and files read; everything that can be wrong about them is refused here.

    `options` are those of `gen-zh`, as config.yaml holds them. Errors: OptionError, InputError.
    """

    options: Mapping[str, Any]
    rules: Rules
    prompts: Prompts
    seeds: list[SeedTask]
    given: list[SeedTask]
    inputs: tuple[Path, ...]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "GenerationPlan":
        name, n = options["method"], options.get("n")
        if n is not None and n < 1:
            raise OptionError(f"n {n}", "is not above 0", "Say how many tasks to keep")
        for option in ("answers", "reply_tokens"):
            if (value := options.get(option)) is not None and value < (2 if option == "answers" else 1):
                raise OptionError(f"{option} {value}", "is too small", "Leave it out")
        from_given = name in ("translate", "rank", "evolve")
        if from_given != bool(options.get("given")):
            raise OptionError(
                f"method {name}",
                "needs `given`" if from_given else "takes no `given`",
                "Give a file in Alpaca's form" if from_given else "Give `seeds`, or another `method`",
            )
        if options.get("structured") and (name != "alpaca" or options.get("api") != "chat"):
            raise OptionError("structured", "is for `method` alpaca and `api` chat alone", "Leave it out")
        own = [Path(p) for p in options.get("blacklist") or ()]
        lists = [shipped("prompts_zh", "blacklist.txt"), *own]
        seeds_file = Path(options.get("seeds") or shipped("seeds_zh", "seed_tasks.jsonl"))
        given_file = Path(options["given"]) if from_given else None
        folder = Path(options.get("prompts") or shipped("prompts_zh"))
        rules = Rules(
            **{f.name: options[f.name] for f in fields(Rules) if f.name in options and f.name not in LISTS},
            without=frozenset(options.get("without") or ()),
            blacklist=tuple(dict.fromkeys(word for _, words in read_words(lists) for word in words)),
        )
        plan = cls(
            options,
            rules,
            Prompts(folder, options["api"]),
            read_seeds(seeds_file) if given_file is None else [],
            read_alpaca(given_file)[:n] if given_file else [],
            (given_file or seeds_file, *own),
        )
        method = plan.method(lambda row: None)
        plan.prompts.check(*method.prompts_used())
        return plan

    def method(self, put_aside: Callable[[dict[str, Any]], None]) -> Method:
        """A fresh method, that has asked and folded nothing yet."""
        name, seed = self.options["method"], self.options["seed"]
        known = self.given if name == "evolve" else self.seeds
        wanted = len(self.given) or self.options.get("n") or WANTED
        shelf = TaskPool(self.rules, known, wanted, put_aside)
        given = {
            "temperature": self.options.get("temperature"),
            "top_p": self.options.get("top_p"),
            "max_tokens": self.options.get("reply_tokens"),
        }
        sampling = {key: value for key, value in given.items() if value is not None}
        if name == "alpaca":
            return Alpaca(shelf, self.prompts, seed, sampling, bool(self.options.get("structured")))
        if name == "self-instruct":
            return SelfInstruct(shelf, self.prompts, seed, sampling)
        if name == "rank":
            return Rank(shelf, self.prompts, self.given, sampling, self.options.get("answers") or 4)
        return Rewrite(shelf, self.prompts, seed, self.given, name, sampling)


LISTS = {"without", "blacklist"}
FILTER_OPTIONS = {f.name for f in fields(Rules)} | {"n"}
