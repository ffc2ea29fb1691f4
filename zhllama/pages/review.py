"""The page of `zhllama review`, which asks the server that it comes from for rows and decisions."""

from zhllama.pages.render import embedded_json, render
from zhllama.pages.texts import page_texts

SCRIPTS = (
    "elements.js",
    *(f"review_{name}.js" for name in ("state", "list", "row", "filters", "dialogs", "page")),
)
LABELS = ("reason", "flag", "kind")  # of gen-zh, which its report labels too


def review_page(title: str) -> str:
    """The page; rows and decisions are fetched by its script."""
    labels = {key.removeprefix("generation."): text for key, text in page_texts().items() if _is_label(key)}
    return render("review", SCRIPTS, title=f"{title} · zhllama review", data=embedded_json({"title": title, "labels": labels}))  # fmt: skip


def _is_label(key: str) -> bool:
    return key.startswith(tuple(f"generation.{group}." for group in LABELS))
