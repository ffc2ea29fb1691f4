"""One small page of each kind, in a state that shows all of its parts."""

from pathlib import Path

from zhllama.corpus.stats import CleaningStats, StepStats
from zhllama.efficiency.advise import Advice, AdviceStep, AdvisedModel
from zhllama.efficiency.measure import MeasuredVocabulary
from zhllama.efficiency.report import LabelledText, report
from zhllama.evaluation.measure_serving import ServedModel, ServingFigures
from zhllama.evaluation.questions import Answers, Question
from zhllama.evaluation.reference_metrics import METRICS, Agreement
from zhllama.evaluation.results import Results
from zhllama.evaluation.serving import EngineFigures, ServingSpeed, Spread
from zhllama.evaluation.serving_arithmetic import ServingCost
from zhllama.evaluation.win_rates import ContestantScores, Duel
from zhllama.generation.task_pool import AcceptedTask, TaskOrigin
from zhllama.generation.tasks import Task
from zhllama.pages.advice import advice_page
from zhllama.pages.cleaning import cleaning_page
from zhllama.pages.generation import generation_page
from zhllama.pages.judging import judging_page
from zhllama.pages.report import report_page
from zhllama.pages.review import review_page
from zhllama.pages.serving import serving_page
from zhllama.pages.training import training_page
from zhllama.vocab.any_tokenizer import SentencePieceTokenizer

LONG = "a-name-without-any-place-to-break-it-that-is-longer-than-a-telephone-is-wide.safetensors"


def training() -> str:
    figures: dict[str, object] = {
        "trained": 409_207_000, "parameters": 6_889_000_000, "trained_percent": 5.94, "steps": 2000,
        "tokens": 2_621_440_000, "tokens_per_second": 41022.5, "memory_total_bytes": 31.2e9, "machine": LONG,
        "precision": "bf16", "zh_bits_per_character": {"before": 7.9, "after": 5.2},
        "training_seconds": 63_900.4, "peak_memory_bytes": 33.1e9,
        "new_rows": {
            "rows": 17_953, "never_met": 40, "hardly_met": 90, "met_fewer_than": 10,
            "by_times_met": [["0", 40], ["1–9", 50], ["1,000+", 17_863]], "least": [["国家", 0], [LONG, 3]],
        },
    }  # fmt: skip
    log: list[dict[str, object]] = [
        {"step": n, "loss": 3 + 100 / n, "learning_rate": 2e-5, "tokens_per_second": 41000.0 + n % 7}
        for n in range(10, 2001, 10)
    ]
    log += [
        {"step": n, "zh_bits_per_character": 7.9 - n / 1000, f"{LONG}_bits_per_byte": 2.0} for n in (0, 2000)
    ]
    return training_page(LONG, figures, log)


def advice() -> str:
    steps = tuple(
        AdviceStep(
            n,
            0.7 + n / 2e4,
            {LONG: 0.6 + n / 2e4, "新闻": 1.0},
            n / 4e4,
            0.01,
            n * 8192,
            n / 61,
            0.02,
            0.7,
            0.9,
        )
        for n in range(0, 13_000, 1000)
    )
    found = Advice(32_000, AdvisedModel(), 1.5e9, steps, steps[8], "yes", "Extending pays.", "", 3.2e9, 6.5)
    return advice_page(found, LONG)


def cleaning() -> str:
    lengths = {0: 3, 10: 200, 1000: 100_000}
    steps = [
        StepStats("decode", True, 1_000_000, 1, 0, 0, {}, {}, [], 0.1),
        StepStats("unicode", False, 1_000_000, 1, 0, 412, {}, {}, [[LONG, "第一行"]], 0.1),
        StepStats(
            "length", True, 1_000_000, 1, 83, 0, {"too short": 83}, lengths, [["too short", LONG, LONG]], 0.1
        ),
    ]
    return cleaning_page(CleaningStats(1_000_000, 999_917, 10**9, 10**9, 83, lengths, steps), LONG)


def generation() -> str:
    accepted = [
        AcceptedTask(Task(f"写一篇关于{topic}的文章", LONG, "好的。" * 50), TaskOrigin(0, n, 0, LONG))
        for n, topic in enumerate(("春天", "数学", "城市"))
    ]
    statistics = {
        "wanted": 3, "kept": 3, "rejected": 3, "reasons": {"too short": 2, LONG: 1}, "flags": {"was Traditional": 1},
        "replies": 4, "prompt_tokens": 5_000_000, "completion_tokens": 6_000_000, "cost": 0.5, "models": {LONG: 4},
    }  # fmt: skip
    return generation_page(LONG, statistics, accepted, [0.1, 0.65, 1.0], seed=0)


def judging() -> str:
    questions = [
        Question(f"q{n}", Task("请解释一个概念。", "", ""), LONG if n % 2 else "数学", "参考")
        for n in range(4)
    ]
    names = ("甲", LONG)
    contestants = [
        Answers(name, Path(name), {q.id: q for q in questions}, {q.id: "回答" for q in questions})
        for name in names
    ]
    categories = {q.id: q.category for q in questions}
    duel = Duel(*names, {"q0": "win", "q1": "tie", "q2": "loss"}, categories, 0, {"not asked": 1}, 1, 1)
    back = Duel(LONG, "甲", {"q0": "loss"}, categories)
    scores = [
        ContestantScores(name, {"q0": 3.0, "q1": 9.0}, categories, 1, {"no reply": 1}) for name in names
    ]
    orders = [{"shown": [*names], "said": f"{LONG}\n结论：[[A]]"}]
    rows = [{"id": "q0", "left": "甲", "right": LONG, "result": "win", "orders": orders}]
    agreements = [Agreement(name, {metric: [0.5, 0.7] for metric in METRICS}) for name in names]
    results = Results(questions, contestants, LONG, [duel, back], scores, scores, [duel], agreements, rows)
    return judging_page(
        LONG, results, {"replies": 8, "prompt_tokens": 40_000, "completion_tokens": 9_000, "cost": None}, 0
    )


def tokenizers(folder: Path) -> str:
    from tests.report_toys import base, merged

    (folder / "a.txt").write_text("好人一生平安。\n學習軟體。\nPeople.\n", encoding="utf-8")
    vocabularies = [
        MeasuredVocabulary("LLaMA", "", SentencePieceTokenizer(base())),
        MeasuredVocabulary(LONG, "", SentencePieceTokenizer(merged("safe"))),
    ]
    return report_page(report(vocabularies, [LabelledText(LONG, [folder / "a.txt"])], sentences=[LONG]))


def serving() -> str:
    names = ("小模型", LONG)
    spread = Spread(12.5, 10.0, 15.0)
    speeds = tuple(
        ServingSpeed(name, prompt, 1.8 * prompt, spread, spread, spread, *[spread if n else None] * 2)
        for prompt in (50, 800)
        for n, name in enumerate(names)
    )
    costs = tuple(ServingCost(name, 32_000, 50, 1.8, 3e9, 3e10, 9e5, 1.2, 1.3) for name in names)
    models = tuple(ServedModel(name, 1.8 - n, 8192, 6.1 + n) for n, name in enumerate(names))
    engines = tuple(
        EngineFigures(name, speeds, (46_080.0, 46_080.0)) for name in ("transformers", "llama.cpp")
    )
    return serving_page(ServingFigures(LONG, models, 50, 5, engines, LONG, costs, 2, "q8_0"))


def pages(folder: Path) -> dict[str, str]:
    """The HTML of each page by the name of its template."""
    return {
        "training": training(), "advice": advice(), "cleaning": cleaning(), "generation": generation(),
        "judging": judging(), "report": tokenizers(folder), "review": review_page(LONG), "serving": serving(),
    }  # fmt: skip
