"""Questions and models' answers, and the readers of their files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from zhllama.errors import InputError, OptionError
from zhllama.generation.tasks import Task, Text
from zhllama.io.rows import checked, read_rows

ANSWERS = "answers.jsonl"
GIVE_QUESTIONS = "Give one JSON object per line: {id, instruction, input?, category?, reference?}"
GIVE_ANSWERS = "Give files that zhllama answer wrote, or lines of {id, instruction, input?, answer}"


@dataclass(frozen=True)
class Question:
    """A question; `reference` is a correct answer, or empty."""

    id: str
    task: Task
    category: str = ""
    reference: str = ""

    @property
    def text(self) -> str:
        """The user's message: the instruction and, on the next line, the input, as in training."""
        return f"{self.task.instruction}\n{self.task.input}".strip()

    def row(self) -> dict[str, Any]:
        """The row of this question in files of questions and answers."""
        task = self.task
        row = {"id": self.id, "instruction": task.instruction, "input": task.input}
        return row | {key: value for key in ("category", "reference") if (value := getattr(self, key))}


@dataclass(frozen=True)
class Answers:
    """The answers of one contestant, by question id."""

    name: str
    path: Path
    questions: Mapping[str, Question]  # as far as its file contains them
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
    """Read questions from our own format, Alpaca format or seed tasks, whose outputs become the references.

    The default id is the row number, from 0. Errors: InputError with file and line.
    """
    questions: dict[str, Question] = {}
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        question_row = checked(_QuestionRow, row, where)
        first = question_row.instances[0] if question_row.instances else _Instance()
        question = Question(
            _row_id(question_row.id, len(questions)),
            Task(question_row.instruction, (question_row.input or first.input).strip()),
            (question_row.category or "").strip(),
            (question_row.reference or question_row.output or first.output).strip(),
        )
        _add(questions, question.id, question, where)
    if not questions:
        raise InputError(path, "contains no question", GIVE_QUESTIONS)
    return list(questions.values())


def read_answers(source: str) -> Answers:
    """Read answers from `FILE`, `RUN` (a folder of zhllama answer) or `NAME=FILE`.

    The default name is that of the folder, or of the file without its suffix. In Alpaca format the output is the answer.
    Errors: InputError with file and line.
    """
    name, path = _split_name(source)
    questions: dict[str, Question] = {}
    texts: dict[str, str] = {}
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        answer_row = checked(_AnswerRow, row, where)
        text = answer_row.output if answer_row.answer is None else answer_row.answer
        if text is None:
            raise InputError(where, "answer: field required", GIVE_ANSWERS)
        id = _row_id(answer_row.id, len(texts))
        _add(texts, id, text.strip(), where)
        reference = answer_row.reference or (answer_row.output if answer_row.answer is not None else None)
        task = Task((answer_row.instruction or "").strip(), (answer_row.input or "").strip())
        questions[id] = Question(id, task, (answer_row.category or "").strip(), (reference or "").strip())
    if not texts:
        raise InputError(path, "contains no answer", GIVE_ANSWERS)
    return Answers(name, path, questions, texts)


def collect_questions(
    contestants: Sequence[Answers], questions: Sequence[Question] | None = None
) -> list[Question]:
    """The questions to judge: `questions`, or else all questions in the contestants' files, in order.

    Errors: OptionError for two contestants of the same name; InputError if an id has two different questions, if no file
    contains the questions, or if no contestant answers any.
    """
    names = [c.name for c in contestants]
    for name in names:
        if names.count(name) > 1:
            raise OptionError("answers", f"has two files called {name!r}", "Name them: `answers` NAME=FILE")
    by_id = {question.id: question for question in questions or ()}
    origins: dict[str, object] = dict.fromkeys(by_id, "`questions`")
    for contestant in contestants:
        for question in contestant.questions.values():
            if (known := by_id.get(question.id)) is None:
                if questions is None and question.task.instruction:
                    by_id[question.id], origins[question.id] = question, contestant.path
                continue
            if question.task.instruction and question.task != known.task:
                problem = f"has a different question under the id {question.id!r} than {origins[question.id]}"
                raise InputError(contestant.path, problem, "Answer the same questions")
            if questions is None:
                by_id[question.id] = _merge(known, question)
    if not any(id in by_id for c in contestants for id in c.texts):
        problem = "has no id of `questions`" if questions else "contains answers without instructions"
        raise InputError(contestants[0].path, problem, "Give the file of questions that it answers")
    return list(by_id.values())


def _merge(known: Question, other: Question) -> Question:
    """The question with the category and reference of either file."""
    return replace(
        known, category=known.category or other.category, reference=known.reference or other.reference
    )


def _split_name(source: str) -> tuple[str, Path]:
    name, equals, file = source.partition("=")
    if not equals or Path(source).exists():
        name, file = "", source
    path = Path(file)
    if path.is_dir():
        path = path / ANSWERS
    # `zhllama answer` gives every file the same name, so the folder is used.
    default = path.resolve().parent.name if path.name == ANSWERS else path.name.partition(".")[0]
    return name or default or path.name, path


def _row_id(id: str | int | None, number: int) -> str:
    return str(number) if id is None else str(id)


def _add(rows: dict[str, Any], id: str, value: Any, where: str) -> None:
    if id in rows:
        raise InputError(where, f"uses the id {id!r} again", "Give every row a unique id, or no row an id")
    rows[id] = value
