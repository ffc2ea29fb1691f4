"""Questions, and the answers that models gave to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from zhllama.errors import InputError, OptionError
from zhllama.generation.tasks import Task, Text
from zhllama.io.rows import checked, read_rows

ANSWERS = "answers.jsonl"
GIVE_QUESTIONS = "Give one JSON object a line: {id, instruction, input?, category?, reference?}"
GIVE_ANSWERS = "Give files that zhllama answer wrote, or lines of {id, instruction, input?, answer}"


@dataclass(frozen=True)
class Question:
    """What is asked; `reference` is a right answer, empty where there is none."""

    id: str
    task: Task
    category: str = ""
    reference: str = ""

    @property
    def text(self) -> str:
        """The question as a user puts it: the input on a line of its own behind the instruction, as in tuning."""
        return f"{self.task.instruction}\n{self.task.input}".strip()

    def row(self) -> dict[str, Any]:
        """As files of questions and answers hold it."""
        task = self.task
        row = {"id": self.id, "instruction": task.instruction, "input": task.input}
        return row | {k: v for k in ("category", "reference") if (v := getattr(self, k))}


@dataclass(frozen=True)
class Answers:
    """One contestant's answers, by the id of the question."""

    name: str
    path: Path
    questions: Mapping[str, Question]  # as its file tells them
    texts: Mapping[str, str]


class _Instance(BaseModel):
    input: str = ""
    output: str = ""


class _QuestionRow(BaseModel):
    instruction: Text
    input: str | None = None
    category: str | None = None
    reference: str | None = None
    output: str | None = None
    instances: list[_Instance] | None = None
    id: str | int | None = None


class _AnswerRow(BaseModel):
    id: str | int | None = None
    instruction: str | None = None
    input: str | None = None
    category: str | None = None
    reference: str | None = None
    answer: str | None = None
    output: str | None = None


def read_questions(path: Path) -> list[Question]:
    """Questions of a file: our own, rows in Alpaca's form or seed tasks, whose outputs are the references.

    Without ids they are numbered from 0. Errors: InputError with file and line.
    """
    found: dict[str, Question] = {}
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        given = checked(_QuestionRow, row, where)
        first = given.instances[0] if given.instances else _Instance()
        question = Question(
            _name(given.id, len(found)),
            Task(given.instruction, (given.input or first.input).strip()),
            (given.category or "").strip(),
            (given.reference or given.output or first.output).strip(),
        )
        _add(found, question.id, question, where)
    if not found:
        raise InputError(path, "holds no question", GIVE_QUESTIONS)
    return list(found.values())


def read_answers(given: str) -> Answers:
    """The answers of `FILE`, `RUN` (a folder of zhllama answer) or `NAME=FILE`.

    The name is that of the file without its ending, or of the folder. A row of Alpaca's form answers with its output.
    Errors: InputError with file and line.
    """
    name, path = _named(given)
    questions: dict[str, Question] = {}
    texts: dict[str, str] = {}
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        one = checked(_AnswerRow, row, where)
        text = one.output if one.answer is None else one.answer
        if text is None:
            raise InputError(where, "answer: field required", GIVE_ANSWERS)
        id = _name(one.id, len(texts))
        _add(texts, id, text.strip(), where)
        reference = one.reference or (one.output if one.answer is not None else None)
        task = Task((one.instruction or "").strip(), (one.input or "").strip())
        questions[id] = Question(id, task, (one.category or "").strip(), (reference or "").strip())
    if not texts:
        raise InputError(path, "holds no answer", GIVE_ANSWERS)
    return Answers(name, path, questions, texts)


def asked_of(contestants: Sequence[Answers], given: Sequence[Question] | None = None) -> list[Question]:
    """The questions that are judged: those given, else all that any contestant's file tells, in the order of first sight.

    Errors: OptionError for two contestants of one name; InputError where an id stands for two questions, where nobody
    tells the question, or where no contestant answers any.
    """
    names = [c.name for c in contestants]
    for name in names:
        if names.count(name) > 1:
            raise OptionError("answers", f"has two files called {name!r}", "Name them: `answers` NAME=FILE")
    found = {question.id: question for question in given or ()}
    for contestant in contestants:
        for told in contestant.questions.values():
            if (known := found.get(told.id)) is None:
                if given is None and told.task.instruction:
                    found[told.id] = told
                continue
            if told.task.instruction and told.task != known.task:
                what = f"asks another question under the id {told.id!r} than the others"
                raise InputError(contestant.path, what, "Answer the same questions")
            if given is None:
                found[told.id] = _joined(known, told)
    if not any(id in found for c in contestants for id in c.texts):
        what = "has no id of --questions" if given else "tells no instruction beside its answers"
        raise InputError(contestants[0].path, what, "Give the file of questions that it answers")
    return list(found.values())


def _joined(known: Question, told: Question) -> Question:
    """What either of two files tells of a question beside its text."""
    return replace(
        known, category=known.category or told.category, reference=known.reference or told.reference
    )


def _named(given: str) -> tuple[str, Path]:
    name, equals, rest = given.partition("=")
    if not equals or Path(given).exists():
        name, rest = "", given
    path = Path(rest)
    if path.is_dir():
        path = path / ANSWERS
    # `zhllama answer` calls every file alike: its folder tells more.
    own = path.resolve().parent.name if path.name == ANSWERS else path.name.partition(".")[0]
    return name or own or path.name, path


def _name(id: str | int | None, number: int) -> str:
    return str(number) if id is None else str(id)


def _add(found: dict[str, Any], id: str, value: Any, where: str) -> None:
    if id in found:
        raise InputError(where, f"uses the id {id!r} again", "Give every row an id of its own, or none any")
    found[id] = value
