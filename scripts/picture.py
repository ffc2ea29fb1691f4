"""A picture of the first screen of a page: `python scripts/picture.py docs/examples/report.html docs/images/report.png`."""

import argparse
import io
import shutil
from pathlib import Path


def picture(page: Path, width: int = 1200, height: int = 728) -> bytes:
    """A PNG of 256 colours; needs playwright, a chromium on the path, and Pillow."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found)
        shown = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        shown.goto(page.resolve().as_uri())
        taken = shown.screenshot()
        browser.close()
    made = io.BytesIO()
    Image.open(io.BytesIO(taken)).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(
        made, "PNG", optimize=True
    )
    return made.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("png", type=Path)
    given = parser.parse_args()
    given.png.write_bytes(picture(given.page))
