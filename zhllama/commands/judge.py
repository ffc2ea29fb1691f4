"""The command `judge`, which compares the answers of models."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Column, Table

from zhllama.commands.declare import command
from zhllama.commands.llm_requests import ask_all, say_spent, warn_of_end
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    LineOptions,
    Out,
    Resume,
    check_torch,
    headings,
    print_json,
    progress,
    say,
    screen,
    warn,
)
from zhllama.commands.translation import translated
from zhllama.errors import OptionError
from zhllama.evaluation.options import JudgeOptions
from zhllama.io.files import json_lines, to_json
from zhllama.llm.options import ModelServerOptions
from zhllama.options import recorded
from zhllama.run import Run
from zhllama.run_folder import MANIFEST

if TYPE_CHECKING:
    from zhllama.evaluation.judging import Judging, Pair
    from zhllama.evaluation.questions import Answers, Question
    from zhllama.evaluation.results import Results
    from zhllama.evaluation.win_rates import ContestantScores, Duel
    from zhllama.llm.client import Client
    from zhllama.llm.rounds import Rounds


@command
def judge(
    options: JudgeOptions,
    reading: LineOptions,
    server: ModelServerOptions,
    out: Out,
    config: Config = None,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Judge models' answers by a model behind a server, by a reward model, and against reference answers.

    Without --base-url no server is queried: the report has ROUGE over Chinese tokens and exact match, and rewards with
    --reward.
    """
    from zhllama.evaluation.judging import pairs_of
    from zhllama.evaluation.questions import collect_questions, read_answers, read_questions
    from zhllama.evaluation.reference_metrics import agreement
    from zhllama.evaluation.results import Results
    from zhllama.evaluation.rewards import reward_duels
    from zhllama.generation.outputs import JOURNAL
    from zhllama.llm.journal import Journal
    from zhllama.pages.judging import judging_page

    start, seed, reward = time.monotonic(), options.seed, options.reward
    if reward:
        check_torch("--reward")
    contestants = [read_answers(place) for place in options.answers]
    questions = collect_questions(
        contestants, read_questions(options.questions) if options.questions else None
    )
    names = [contestant.name for contestant in contestants]
    pairs = pairs_of(names, options.baseline)
    uses_server = bool(server.base_url or server.model)
    has_references = any(question.reference for question in questions)
    if not uses_server and not reward and not has_references:
        raise OptionError(
            "base_url", "is missing, and no question has a reference", "Give the judge's server"
        )
    inputs = [contestant.path for contestant in contestants]
    inputs += [options.questions] if options.questions else []
    inputs += [reward / MANIFEST] if reward else []
    judging = _judging(options, server.api, questions, contestants, pairs) if uses_server else None
    connection = server.connection(server.model) if uses_server else None
    spending = server.spending(server.model)
    rewards = _rewards(reward, questions, contestants) if reward else []
    for contestant in contestants:
        if empty := sum(not text for text in contestant.texts.values()):
            warn(f"{contestant.path}: {empty:,} of {len(contestant.texts):,} answers are empty.")
    settings = recorded(options, server)
    with Run(out, "judge", settings, inputs, force=force, resume=resume, seed=seed) as run:
        finished, server_figures = True, dict[str, Any]()
        if judging is not None and connection is not None:
            with Journal(out / JOURNAL) as journal:
                finished, server_figures = ask_all(
                    run,
                    judging,
                    journal,
                    connection,
                    spending,
                    server,
                    seed,
                    partial(_watched, judging),
                )
        agreements = []
        if has_references:
            with progress("references", len(contestants) * len(questions), "answers") as bar:
                agreements = [agreement(contestant, questions, bar) for contestant in contestants]
        results = Results(
            questions,
            contestants,
            server.model,
            judging.duels() if judging else (),
            judging.scores() if judging else (),
            rewards=rewards,
            reward_duels=reward_duels(rewards, pairs),
            agreements=agreements,
            rows=judging.rows() if judging else (),
        )
        spent = spending.figures() if judging else {}
        result = {**results.figures(), **spent, **server_figures, "finished": finished}
        result["seconds"] = round(time.monotonic() - start, 2)
        run.write("verdicts.jsonl", json_lines(results.rows))
        run.write("results.json", to_json(results.figures()))
        run.write("report.html", judging_page(f"{out.name} · zhllama judge", results, spent or None, seed))
        if finished:
            run.finish(result)
    if not finished:
        warn_of_end(server)
    print_json({"out": str(out), **result}) if as_json else _show(out, results, spent)


def _judging(
    options: JudgeOptions,
    api: Literal["chat", "completion"],
    questions: Sequence["Question"],
    contestants: Sequence["Answers"],
    pairs: Sequence["Pair"],
) -> "Judging":
    """The method of judging, with its prompts checked."""
    from zhllama.evaluation.judging import Pairwise, Scoring
    from zhllama.llm.prompts import Prompts
    from zhllama.resources import shipped

    mode = options.mode or ("pair" if len(contestants) > 1 else "score")
    if mode == "pair" and len(contestants) < 2:
        raise OptionError("mode pair", "needs two contestants", "Give `answers` twice, or `mode` score")
    prompts = Prompts(options.prompts or shipped("prompts_zh"), api)
    prompts.check("judge" if mode == "pair" else "judge_score")
    sampling = {"temperature": options.temperature, "max_tokens": options.reply_tokens}
    method = Pairwise if mode == "pair" else Scoring
    return method(prompts, questions, contestants, sampling, options.references, pairs)


def _rewards(
    run: Path, questions: Sequence["Question"], contestants: Sequence["Answers"]
) -> list["ContestantScores"]:
    from zhllama.evaluation.rewards import rewards
    from zhllama.training.reward import RewardModel

    with progress("reward", len(contestants) * len(questions), "answers") as bar:
        bar.note("loading the model")
        model = RewardModel(run)
        bar.note("")
        return [rewards(contestant, questions, model, bar) for contestant in contestants]


@contextmanager
def _watched(judging: "Judging", rounds: "Rounds", client: "Client | None") -> Iterator[None]:
    """Show tokens, cost and requests in flight next to a progress bar on stderr."""
    with progress("judge", judging.total, "verdicts") as bar:

        def step() -> None:
            spending = rounds.spending
            cost = "" if spending.cost is None else f", cost {spending.cost:.4f}"
            in_flight = (
                f", in flight {client.in_flight} / {client.limit}, 429s {client.rate_limited}"
                if client
                else ""
            )
            bar()
            bar.note(f"{spending.tokens:,} tokens{cost}{in_flight}")

        judging.watch = step
        yield


def _show(out: Path, results: "Results", spent: Mapping[str, Any]) -> None:
    _show_duels("win rate", results.duels)
    _show_duels("by rewards", results.reward_duels)
    for title, contestants in (("score", results.scores), ("reward", results.rewards)):
        if contestants:
            table = Table(
                *headings("", f"{title} [95 %]", "judged", "unreadable", "missing"), box=None, pad_edge=False
            )
            for scores in contestants:
                missing = sum(scores.missing.values())
                table.add_row(
                    scores.name,
                    scores.mean.text(),
                    *(f"{count:,}" for count in (len(scores.values), scores.unreadable, missing)),
                )
            screen.print(table)
    if results.agreements:
        # Intervals stay whole in 80 columns.
        names = (Column(name, no_wrap=True) for name in headings("ROUGE-1", "ROUGE-2", "ROUGE-L", "exact"))
        table = Table("", *names, box=None, padding=(0, 1, 0, 0))
        for agreement in results.agreements:
            means = agreement.means()
            shown = (mean.text().replace(" [", "\n[") for mean in means.values())
            count = translated(f"{means['exact'].questions:,} references")
            table.add_row(f"{agreement.name}\n{count}", *shown)
        screen.print(table)
    if spent:
        say_spent(spent)
    say(str(out / "report.html"))


def _show_duels(title: str, duels: Sequence["Duel"]) -> None:
    """Print each duel under a line with both names, which may be long: so its figures fit 80 columns."""
    names = headings(f"{title} [95 %]", "wins", "ties", "losses", "orders disagree", "unreadable", "missing")
    for duel in duels:
        screen.print(f"{duel.left} {translated('against')} {duel.right}", style="bold", soft_wrap=True)
        table = Table(*(Column(name, no_wrap=True) for name in names), box=None, padding=(0, 1, 0, 0))
        tally = duel.tally
        counts = (tally.wins, tally.ties, tally.losses, duel.disagreements, duel.unreadable, sum(duel.missing.values()))  # fmt: skip
        table.add_row(tally.rate.text(percent=True), *(f"{count:,}" for count in counts))
        screen.print(table)
