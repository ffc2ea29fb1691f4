"""The Modelfile by which Ollama runs a GGUF file: the model's chat template in Ollama's own language, and the string that ends an answer.

Ollama does not run the Jinja template of a GGUF file. The template is taken apart by rendering conversations of marks, and the
result is used only if it gives the same text as the Jinja template on conversations with and without a system prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zhllama.conversation.records import Role, Turn
from zhllama.conversation.template import ChatTemplate, template_for
from zhllama.errors import InputError

SYSTEM, USER, ANSWER, NEXT = "«system»", "«user»", "«answer»", "«next»"
PROBES: tuple[tuple[tuple[Role, str], ...], ...] = (
    (("user", "你好"),),
    (("system", "用中文回答。"), ("user", "What is 1 + 1?")),
    (("user", "a\n\nb"), ("assistant", "c"), ("user", " d ")),
    (("system", "s"), ("user", "u"), ("assistant", "多行\n回答"), ("user", "v"), ("assistant", "w"), ("user", "x")),
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """What a chat template writes around the parts of a conversation; `default` where there is no system prompt."""

    before_system: str
    after_system: str
    default: str
    before_user: str
    after_user: str  # the opening of the answer included
    before_answer: str  # what follows that opening in an earlier turn
    after_answer: str

    def rendered(self, turns: Sequence[Turn]) -> str:
        """The prompt of the next answer, as Ollama renders `template`."""
        texts, rest = [self.default], list(turns)
        if rest[0].role == "system":
            texts = [self.before_system, rest.pop(0).text, self.after_system]
        for turn in rest:
            user = turn.role == "user"
            texts += [
                self.before_user if user else self.before_answer,
                turn.text,
                self.after_user if user else self.after_answer,
            ]
        return "".join(texts)

    def template(self) -> str:
        """The same in Go's template language."""
        before, after, default = map(_escaped, (self.before_system, self.after_system, self.default))
        user, mid = map(_escaped, (self.before_user, self.after_user))
        opening, answer = map(_escaped, (self.before_answer, self.after_answer))
        return (
            f"{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{{{{ else }}}}{default}{{{{ end }}}}"
            f'{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}{user}{{{{ .Content }}}}{mid}'
            f'{{{{ else if eq .Role "assistant" }}}}{opening}{{{{ .Content }}}}{answer}{{{{ end }}}}{{{{ end }}}}'
        )


def modelfile(gguf: str, tokenizer: Any) -> str:
    """The text of a Modelfile for the GGUF file of that name beside it."""
    lines = [f"FROM ./{gguf}"]
    try:
        template = template_for("own", tokenizer) if tokenizer.chat_template else None
    except InputError:  # it writes no special token after an answer
        template = None
    frame = None if template is None else frame_of(template, tokenizer)
    if template is not None and frame is not None:
        lines += [f'TEMPLATE """{frame.template()}"""', f"PARAMETER stop {_quoted(template.stop)}"]
    elif tokenizer.chat_template:
        lines.append(
            "# The chat template of this model cannot be written in Ollama's language: Ollama chooses one by itself."
        )
    return "\n".join(lines) + "\n"


def frame_of(template: ChatTemplate, tokenizer: Any) -> Frame | None:
    """Take a template apart; None where the parts do not give the template's own text, as with dates, tools or thoughts."""

    def prompt(turns: Sequence[Turn]) -> str:
        text = template.render(tokenizer, turns, opened=True)
        bos = getattr(tokenizer, "bos_token", None) or ""
        return text.removeprefix(bos)  # llama.cpp adds it itself

    try:
        head, after_user = prompt([Turn("user", USER)]).split(USER)
        before_system, rest = prompt([Turn("system", SYSTEM), Turn("user", USER)]).split(SYSTEM)
        between, _ = rest.split(USER)
        talk = prompt([Turn("user", USER), Turn("assistant", ANSWER), Turn("user", NEXT)])
        asked, answered = talk.split(ANSWER)
        after_answer, _ = answered.split(NEXT)
        opened = asked.split(USER)[1]
        if not opened.startswith(after_user):
            return None
        before_user = _common_end(head, between, after_answer)
        parts = (text.removesuffix(before_user) for text in (between, head, after_answer))
        after_system, default, end = parts
        before_answer = opened.removeprefix(after_user)
        frame = Frame(before_system, after_system, default, before_user, after_user, before_answer, end)
        probes = [[Turn(role, text) for role, text in probe] for probe in PROBES]
        same = all(frame.rendered(probe) == prompt(probe) for probe in probes)
    except (InputError, ValueError):  # the template refuses a conversation, or does not show each part once
        return None
    return frame if same and '"""' not in frame.template() else None


def _common_end(*texts: str) -> str:
    length = 0
    while all(len(text) > length for text in texts) and len({text[-length - 1] for text in texts}) == 1:
        length += 1
    return texts[0][len(texts[0]) - length :]


def _escaped(text: str) -> str:
    """Text in which Go's template language sees no action."""
    return text.replace("{{", '{{ "{{" }}')


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
