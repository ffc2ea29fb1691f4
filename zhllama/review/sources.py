"""The files that a review opens: those of a run folder, accepted and rejected, or the files that are named."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zhllama.conversation.row_files import find_row_files
from zhllama.errors import InputError
from zhllama.evaluation.questions import Answers, read_answers, read_questions
from zhllama.manifest import check_outputs, read_config, read_manifest
from zhllama.run_folder import CONFIG, MANIFEST

Group = Literal["accepted", "rejected"]
VERDICTS, REVIEWED, REJECTED = "verdicts.jsonl", "reviewed.jsonl", "rejected.jsonl"
ACCEPTED = (REVIEWED, "instructions.jsonl", "conversations.jsonl", VERDICTS, "answers.jsonl")


@dataclass(frozen=True)
class ReviewSource:
    """One file of rows."""

    path: Path
    group: Group = "accepted"


def find_sources(data: Path) -> list[ReviewSource]:
    """The files of a run folder with its rejects, or the files that a path names.

    Errors: InputError for a path that does not exist, for a run without rows to review, and for one whose files changed.
    """
    data = data.expanduser()
    if not (data / CONFIG).is_file():
        found = find_row_files([data])
        if found.forms:
            raise InputError(
                data,
                "describes files whose rows are in a form of their own",
                "Name a data file itself, or convert it first",
            )
        return [ReviewSource(path) for path in found.files]
    if (data / MANIFEST).is_file():
        check_outputs([data], *ACCEPTED, REJECTED)
    accepted = next((data / name for name in ACCEPTED if (data / name).is_file()), None)
    if accepted is None:
        remedy = "Name a run of gen-zh, refilter, sharegpt, answer, judge or review, finished or resumed"
        raise InputError(data, f"has none of {', '.join(ACCEPTED)}", remedy)
    sources = [ReviewSource(accepted)]
    rejected = data / REJECTED
    if rejected.is_file() and rejected.stat().st_size:
        sources.append(ReviewSource(rejected, "rejected"))
    return sources


def unwrap(row: Any, group: Group) -> tuple[Any, str, str]:
    """The row itself, the reason for which it was rejected, and the detail of the reason."""
    if group == "accepted" or not isinstance(row, dict):
        return row, "", ""
    reason, detail = (str(row.get(name) or "") for name in ("reason", "detail"))
    if isinstance(row.get("row"), dict):
        return row["row"], reason, detail
    return {name: value for name, value in row.items() if name not in ("reason", "detail")}, reason, detail


@dataclass(frozen=True)
class JudgedTexts:
    """Questions and answers that verdicts are about, by id and by contestant."""

    questions: Mapping[str, str]
    answers: Mapping[str, Mapping[str, str]]


def judged_texts(data: Path) -> JudgedTexts:
    """The texts that the verdicts of a judging run are about. Errors: InputError where a file is gone or broken."""
    options = read_config(data)
    sources = [str(source) for source in options.get("answers", [])]
    paths = [_path_of(source) for source in sources]
    if (data / MANIFEST).is_file():  # where the paths are absolute
        paths = [Path(one["path"]) for one in read_manifest(data)["inputs"]][: len(sources)]
    contestants: list[Answers] = []
    for source, path in zip(sources, paths, strict=False):
        name = "" if Path(source).exists() else source.partition("=")[0] if "=" in source else ""
        contestants.append(read_answers(f"{name}={path}" if name else str(path)))
    questions = {question.id: question.text for one in contestants for question in one.questions.values()}
    if (given := options.get("questions")) and Path(given).is_file():
        questions |= {question.id: question.text for question in read_questions(Path(given))}
    return JudgedTexts(questions, {one.name: one.texts for one in contestants})


def _path_of(source: str) -> Path:
    _, equals, file = source.partition("=")
    return Path(file if equals and not Path(source).exists() else source)
