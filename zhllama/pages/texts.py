"""The texts of all pages in every language, read from `texts/*.yaml`."""

from functools import cache
from importlib.resources import files

import yaml

LANGUAGES = ("zh-Hans", "en")  # BCP 47; the first is shown where no script runs

Text = dict[str, str]  # by language


@cache
def page_texts() -> dict[str, Text]:
    """All texts by `FILE.KEY`, e.g. `training.loss`; placeholders are written `{name}`."""
    folder = files("zhllama.pages").joinpath("texts")
    return {
        f"{file.name.removesuffix('.yaml')}.{key}": text
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        for key, text in yaml.safe_load(file.read_text(encoding="utf-8")).items()
    }
