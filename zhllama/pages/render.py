"""Renders a page from its template: one self-contained file that can fetch nothing and runs no script but its own."""

import json
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from zhllama.pages.texts import LANGUAGES, page_texts


def render(template: str, scripts: tuple[str, ...] = (), **context: Any) -> str:
    """The page of a template; `scripts` are files of `static/` that run after the script of all pages, with its TEXTS.

    All of `context` is escaped.
    """
    script: str = static("switch.js")
    if scripts:
        prefix = f"{template}."
        texts = {
            key.removeprefix(prefix): text for key, text in page_texts().items() if key.startswith(prefix)
        }
        body = "\n".join([f"const TEXTS = {embedded_json(texts)};", *map(static, scripts)])
        script = f"{script}\n(() => {{\n{body}\n}})();"
    digest = b64encode(sha256(script.encode()).digest()).decode()
    page = _environment().get_template(f"{template}.html")
    return page.render(script=Markup(script), script_hash=f"sha256-{digest}", **context)


def text(key: str, **values: Any) -> Markup:
    """A text in every language, of which the style sheet shows one; `values` fill its placeholders and are escaped."""
    texts = page_texts()[key]
    return Markup("").join(
        Markup('<span class="l" lang="{}">{}</span>').format(
            language, Markup(texts[language]).format(**values)
        )
        for language in LANGUAGES
    )


def label(group: str, name: str) -> Markup:
    """The text of a name that comes from the data, e.g. a reason of rejection; the name itself if it has none."""
    key = f"{group}.{name}"
    return text(key) if key in page_texts() else escape(name)


def embedded_json(value: Any) -> Markup:
    """JSON that neither `</script>` nor `<!--` can end."""
    content = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(content.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def static(name: str) -> Markup:
    """A file of `static/`, to be embedded."""
    return Markup(files("zhllama.pages").joinpath("static", name).read_text(encoding="utf-8"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("zhllama.pages"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.globals.update(
        t=text,
        label=label,
        known=page_texts().__contains__,
        static=static,
        languages=LANGUAGES,
        language_name=page_texts()["common.language"].get,
    )
    environment.filters["number"] = lambda number: f"{number:,}"
    return environment
