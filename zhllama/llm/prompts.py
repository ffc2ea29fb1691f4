"""Prompt templates: Jinja files that users may edit, checked before the first request is sent."""

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
# The variables of each prompt; the comment at the top of its file lists them in Chinese.
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
    """The prompts of one folder, for chat models or for completion models.

    Errors: InputError with file and line for a missing file, a syntax error or an unknown variable.
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
        """Parse the named prompts and compare their variables with those that `render` will get."""
        for name in names:
            variables = VARIABLES[name]
            if not self.path(name).exists():
                raise InputError(self.path(name), "no such prompt", "Copy it from prompts_zh")
            try:
                tree = self._jinja.parse(read_utf8(self.path(name)))
            except TemplateSyntaxError as error:
                raise self._error(name, error.lineno, error.message or "syntax error") from error
            for unknown in sorted(find_undeclared_variables(tree) - variables):
                line = next((n.lineno for n in tree.find_all(nodes.Name) if n.name == unknown), 1)
                raise self._error(
                    name, line, f"unknown variable {unknown!r}", f"Known are: {', '.join(sorted(variables))}"
                )

    def render(self, name: str, **variables: Any) -> str:
        """The text of a prompt. Errors: InputError with file and line, also for a missing attribute of a variable."""
        try:
            text = self._jinja.get_template(f"{name}.jinja").render(api=self.api, **variables)
        except TemplateNotFound:
            raise InputError(self.path(name), "no such prompt", "Copy it from prompts_zh") from None
        except TemplateSyntaxError as error:
            raise self._error(name, error.lineno, error.message or "syntax error") from error
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            lines = [
                f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(".jinja")
            ]
            raise self._error(name, (lines or [1])[-1] or 1, str(error)) from error
        return text.strip()

    def path(self, name: str) -> Path:
        """The file of a prompt."""
        return self.folder / f"{name}.jinja"

    @property
    def _jinja(self) -> ImmutableSandboxedEnvironment:
        environment: ImmutableSandboxedEnvironment = self.__dict__["_environment"]
        return environment

    def _error(self, name: str, line: int, what: str, remedy: str = "Fix the prompt") -> InputError:
        return InputError(f"{self.path(name)}:{line}", what.rstrip("."), remedy)
