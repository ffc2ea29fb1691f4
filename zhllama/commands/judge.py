"""The command `judge`."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Column, Table

from zhllama.commands.llm_options import (
    STEERING,
    AskedThrough,
    BaseUrl,
    ByBatch,
    Concurrency,
    ExtraBody,
    KeyEnv,
    MaxCost,
    MaxTokens,
    Prices,
    ServerModel,
    Timeout,
    ask_all,
    connection_of,
    spending_of,
    warn_of_budget,
)
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    Out,
    Resume,
    Seed,
    print_json,
    progress,
    say,
    screen,
)
from zhllama.errors import OptionError
from zhllama.io.files import json_lines, to_json
from zhllama.run import Run
from zhllama.run_folder import MANIFEST

if TYPE_CHECKING:
    from zhllama.evaluation.judging import Judging, Pair
    from zhllama.evaluation.questions import Answers, Question
    from zhllama.evaluation.results import Results
    from zhllama.evaluation.win_rates import ContestantScores, Duel
    from zhllama.llm.client import Client
    from zhllama.llm.rounds import Rounds

Mode = Literal["pair", "score"]
References = Literal["exact", "all", "none"]
JUDGING = "Judging"


def judge(
    context: typer.Context,
    answers: Annotated[
        list[str],
        typer.Option(
            "--answers",
            "-a",
            help="FILE, folder of zhllama answer, or NAME=FILE; given once for each contestant.",
            show_default=False,
        ),
    ],
    out: Out,
    questions: Annotated[
        Path | None,
        typer.Option(
            help="Questions, with references and categories; else what the answers' files tell.",
            show_default=False,
        ),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="pair: two answers side by side, in both orders. score: each on its own, 1 to 10.",
            rich_help_panel=JUDGING,
            show_default="pair; score for one file",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Contestant that all others meet, by its name; else all meet all.",
            rich_help_panel=JUDGING,
            show_default=False,
        ),
    ] = None,
    references: Annotated[
        References,
        typer.Option(
            help="Reference answers that the judge sees. exact: in mathematics, code and reasoning, by category.",
            rich_help_panel=JUDGING,
        ),
    ] = "exact",
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Folder of prompts.", rich_help_panel=JUDGING, show_default="the shipped prompts_zh"
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Of the judge's replies.", rich_help_panel=JUDGING)
    ] = 0.0,
    reply_tokens: Annotated[
        int,
        typer.Option(
            help="Tokens of one reply at most; a judge that thinks needs more.", rich_help_panel=JUDGING
        ),
    ] = 1024,
    reward: Annotated[
        Path | None,
        typer.Option(
            help="Run of zhllama reward that scores each answer.",
            rich_help_panel=JUDGING,
            show_default=False,
        ),
    ] = None,
    base_url: BaseUrl = None,
    model: ServerModel = "",
    api: AskedThrough = "chat",
    batch: ByBatch = False,
    key_env: KeyEnv = "OPENAI_API_KEY",
    extra_body: ExtraBody = None,
    concurrency: Concurrency = 32,
    timeout: Timeout = 120.0,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    prices: Prices = None,
    seed: Seed = 0,
    config: Config = None,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Judge models' answers: by a model behind a server, by a reward model, and beside reference answers.

    Without --base-url nothing is asked: ROUGE over Chinese tokens and exact match stand alone, and rewards with --reward.
    """
    from zhllama.evaluation.judging import pairs_of
    from zhllama.evaluation.questions import collect_questions, read_answers, read_questions
    from zhllama.evaluation.reference_metrics import agreement
    from zhllama.evaluation.results import Results
    from zhllama.evaluation.rewards import reward_duels
    from zhllama.generation.outputs import JOURNAL
    from zhllama.llm.journal import Journal
    from zhllama.pages.judging import judging_page

    began = time.monotonic()
    contestants = [read_answers(given) for given in answers]
    asked = collect_questions(contestants, read_questions(questions) if questions else None)
    names = [contestant.name for contestant in contestants]
    pairs = pairs_of(names, baseline)
    asking = bool(base_url or model)
    if not asking and not reward and not any(question.reference for question in asked):
        raise OptionError(
            "--base-url", "is missing, and no question has a reference", "Give the judge's server"
        )
    made = {key: value for key, value in context.params.items() if key not in STEERING}
    inputs = [*(contestant.path for contestant in contestants), *([questions] if questions else [])]
    inputs += [reward / MANIFEST] if reward else []
    judging = _judging(context.params, asked, contestants, pairs) if asking else None
    connection = connection_of(context.params) if asking else None
    spending = spending_of(context.params)
    rewards = _rewards(reward, asked, contestants) if reward else []
    with Run(out, "judge", made, inputs, force=force, resume=resume, seed=seed) as run:
        whole, told = True, dict[str, Any]()
        if judging is not None and connection is not None:
            with Journal(out / JOURNAL) as journal:
                whole, told = ask_all(
                    run, judging, journal, connection, spending, batch, seed, partial(_watched, judging)
                )
        agreements = []
        if any(question.reference for question in asked):
            with progress("references", len(contestants) * len(asked), "answers") as bar:
                agreements = [agreement(contestant, asked, bar) for contestant in contestants]
        results = Results(
            asked,
            contestants,
            model,
            judging.duels() if judging else (),
            judging.scores() if judging else (),
            rewards=rewards,
            reward_duels=reward_duels(rewards, pairs),
            agreements=agreements,
            rows=judging.rows() if judging else (),
        )
        spent = spending.figures() if judging else {}
        result = {**results.figures(), **spent, **told, "finished": whole}
        result["seconds"] = round(time.monotonic() - began, 2)
        run.write("verdicts.jsonl", json_lines(results.rows))
        run.write("results.json", to_json(results.figures()))
        run.write("report.html", judging_page(f"{out.name} · zhllama judge", results, spent or None, seed))
        if whole:
            run.finish(result)
    if not whole:
        warn_of_budget()
    print_json({"out": str(out), **result}) if as_json else _show(out, results, spent)


def _judging(
    options: Mapping[str, Any],
    asked: Sequence["Question"],
    contestants: Sequence["Answers"],
    pairs: Sequence["Pair"],
) -> "Judging":
    """The way to judge, its prompts checked."""
    from zhllama.evaluation.judging import Pairwise, Scoring
    from zhllama.llm.prompts import Prompts
    from zhllama.resources import shipped

    mode = options["mode"] or ("pair" if len(contestants) > 1 else "score")
    if mode == "pair" and len(contestants) < 2:
        raise OptionError("--mode pair", "needs two contestants", "Give --answers twice, or --mode score")
    if options["reply_tokens"] < 1:
        raise OptionError(f"--reply-tokens {options['reply_tokens']}", "is below 1", "Leave it out")
    prompts = Prompts(Path(options["prompts"] or shipped("prompts_zh")), options["api"])
    prompts.check("judge" if mode == "pair" else "judge_score")
    sampling = {"temperature": options["temperature"], "max_tokens": options["reply_tokens"]}
    way = Pairwise if mode == "pair" else Scoring
    return way(prompts, asked, contestants, sampling, options["references"], pairs)


def _rewards(
    run: Path, asked: Sequence["Question"], contestants: Sequence["Answers"]
) -> list["ContestantScores"]:
    from zhllama.evaluation.rewards import rewards
    from zhllama.training.reward import RewardModel

    with progress("reward", len(contestants) * len(asked), "answers") as bar:
        bar.note("loading the model")
        model = RewardModel(run)
        bar.note("")
        return [rewards(contestant, asked, model, bar) for contestant in contestants]


@contextmanager
def _watched(judging: "Judging", rounds: "Rounds", client: "Client | None") -> Iterator[None]:
    """A bar on stderr that tells tokens, cost and calls under way."""
    with progress("judge", judging.total, "verdicts") as bar:

        def step() -> None:
            spending = rounds.spending
            cost = "" if spending.cost is None else f", cost {spending.cost:.4f}"
            flying = (
                f", in flight {client.in_flight} / {client.limit}, 429s {client.rate_limited}"
                if client
                else ""
            )
            bar()
            bar.note(f"{spending.tokens:,} tokens{cost}{flying}")

        judging.watch = step
        yield


def _show(out: Path, results: "Results", spent: Mapping[str, Any]) -> None:
    _show_duels("win rate", results.duels)
    _show_duels("by rewards", results.reward_duels)
    for title, marks in (("score", results.scores), ("reward", results.rewards)):
        if marks:
            drawn = Table("", f"{title} [95 %]", "judged", "unreadable", "missing", box=None)
            for m in marks:
                missing = sum(m.missing.values())
                drawn.add_row(
                    m.name,
                    m.mean.text(),
                    *(f"{count:,}" for count in (len(m.values), m.unreadable, missing)),
                )
            screen.print(drawn)
    if results.agreements:
        drawn = Table("", "references", "ROUGE-1", "ROUGE-2", "ROUGE-L", "exact", box=None)
        for agreement in results.agreements:
            means = agreement.means()
            shown = (mean.text().replace(" [", "\n[") for mean in means.values())
            drawn.add_row(agreement.name, f"{means['exact'].questions:,}", *shown)
        screen.print(drawn)
    if spent:
        cost = "" if spent["cost"] is None else f", cost {spent['cost']:.4f}"
        tokens = f"{spent['prompt_tokens']:,} + {spent['completion_tokens']:,} tokens"
        say(f"{spent['replies']:,} replies, {tokens}{cost}")
    say(str(out / "report.html"))


def _show_duels(title: str, duels: Sequence["Duel"]) -> None:
    if not duels:
        return
    rates = Column(f"{title} [95 %]", no_wrap=True)  # an interval is read as one, in 80 columns too
    drawn = Table("", "against", rates, "wins", "ties", "losses", "orders disagree", "unreadable", "missing", box=None, padding=(0, 1, 0, 0))  # fmt: skip
    for duel in duels:
        tally = duel.tally
        counts = (tally.wins, tally.ties, tally.losses, duel.disagreements, duel.unreadable, sum(duel.missing.values()))  # fmt: skip
        rate = tally.rate.text(percent=True)
        drawn.add_row(duel.left, duel.right, rate, *(f"{count:,}" for count in counts))
    screen.print(drawn)
