"""The texts of all pages in every language, read from `texts/*.yaml`."""

from functools import cache
from pathlib import Path

from zhllama.io.yaml import read_yaml

LANGUAGES = ("zh-Hans", "zh-Hant", "en")  # BCP 47; the first is shown where no script runs

Text = dict[str, str]  # by language


@cache
def page_texts() -> dict[str, Text]:
    """All texts by `FILE.KEY`, e.g. `training.loss`; placeholders are written `{name}`."""
    return {
        f"{path.stem}.{key}": text
        for path in sorted(Path(__file__).with_name("texts").glob("*.yaml"))
        for key, text in read_yaml(path, "the texts of a page", "Reinstall zhllama").items()
    }
