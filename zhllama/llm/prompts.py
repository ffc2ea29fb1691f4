"""Prompts are Jinja files that users may change; a mistake in one is told by file and line, before anything is paid for."""

import json
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jinja2 import (
    FileSystemLoader,
    StrictUndefined,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
    nodes,
)
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from zhllama.errors import InputError
from zhllama.io.files import read_utf8

Api = Literal["chat", "completion"]
# What each prompt is given; the comment at the head of its file says the same in Chinese.
VARIABLES = {
    "tasks": {"api", "shots", "count", "structured"},
    "instructions": {"api", "shots", "count"},
    "classify": {"api", "instruction"},
    "instances_input_first": {"api", "instruction"},
    "instances_output_first": {"api", "instruction"},
    "translate": {"api", "task"},
    "answer": {"api", "task"},
    "rank": {"api", "task", "answers"},
    "judge": {"api", "task", "first", "second", "reference"},
    "judge_score": {"api", "task", "answer", "reference"},
    "deepen": {"api", "task", "way"},
    "widen": {"api", "task"},
}


@dataclass(frozen=True)
class Prompts:
    """The prompts of one folder for one kind of model.

    Errors: InputError with file and line for a missing file, a mistake of syntax, an unknown variable.
    """

    folder: Path
    api: Api = "chat"

    def __post_init__(self) -> None:
        environment = ImmutableSandboxedEnvironment(
            loader=FileSystemLoader(self.folder),
            undefined=StrictUndefined,
            trim_blocks=True,
            keep_trailing_newline=False,
        )
        # Jinja's own tojson escapes Chinese characters and <, and a model would copy the escapes.
        environment.filters["json"] = partial(json.dumps, ensure_ascii=False)
        object.__setattr__(self, "_environment", environment)

    def check(self, *names: str) -> None:
        """Refuse what would fail later: each named prompt is read and its variables are compared with those it gets."""
        for name in names:
            known = VARIABLES[name]
            if not self.path(name).exists():
                raise InputError(self.path(name), "no such prompt", "Copy it from prompts_zh")
            try:
                tree = self._jinja.parse(read_utf8(self.path(name)))
            except TemplateSyntaxError as error:
                raise self._mistake(name, error.lineno, error.message or "mistake of syntax") from error
            for unknown in sorted(find_undeclared_variables(tree) - known):
                line = next((n.lineno for n in tree.find_all(nodes.Name) if n.name == unknown), 1)
                raise self._mistake(
                    name, line, f"unknown variable {unknown!r}", f"Known are: {', '.join(sorted(known))}"
                )

    def render(self, name: str, **variables: Any) -> str:
        """The text of a prompt; a field that its variables do not have is an InputError, too."""
        try:
            text = self._jinja.get_template(f"{name}.jinja").render(api=self.api, **variables)
        except TemplateNotFound:
            raise InputError(self.path(name), "no such prompt", "Copy it from prompts_zh") from None
        except TemplateSyntaxError as error:
            raise self._mistake(name, error.lineno, error.message or "mistake of syntax") from error
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            lines = [
                f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(".jinja")
            ]
            raise self._mistake(name, (lines or [1])[-1] or 1, str(error)) from error
        return text.strip()

    def path(self, name: str) -> Path:
        """Where a prompt's file stands."""
        return self.folder / f"{name}.jinja"

    @property
    def _jinja(self) -> ImmutableSandboxedEnvironment:
        environment: ImmutableSandboxedEnvironment = self.__dict__["_environment"]
        return environment

    def _mistake(self, name: str, line: int, what: str, remedy: str = "Mend the prompt") -> InputError:
        return InputError(f"{self.path(name)}:{line}", what.rstrip("."), remedy)
