"""Takes a screenshot of the first screen of a page: `python scripts/screenshot.py docs/examples/report.html docs/images/report.png`."""

import argparse
import io
import shutil
from pathlib import Path


def screenshot(page: Path, language: str = "en", width: int = 1200, height: int = 728) -> bytes:
    """A PNG of 256 colors in the browser's language; needs playwright, a chromium on the path, and Pillow."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium)
        tab = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="light", locale=language
        )
        tab.goto(page.resolve().as_uri())
        png = tab.screenshot()
        browser.close()
    smaller = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(
        smaller, "PNG", optimize=True
    )
    return smaller.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("png", type=Path)
    parser.add_argument("--language", default="en", help="of the browser, such as zh-CN")
    args = parser.parse_args()
    args.png.write_bytes(screenshot(args.page, args.language))
