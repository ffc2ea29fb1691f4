"""Takes a screenshot of the first screen of a page, which is a file or the address of a served page.

python scripts/screenshot.py docs/examples/report.html docs/images/report.png
python scripts/screenshot.py http://127.0.0.1:8020/ docs/images/review-390.png --width 390 --height 780
"""

import argparse
import io
import shutil
from pathlib import Path


def screenshot(page: str, language: str = "en", width: int = 1200, height: int = 728) -> bytes:
    """A PNG of 256 colors in the browser's language; needs playwright, a chromium on the path, and Pillow."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium)
        tab = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="light", locale=language
        )
        tab.goto(page if "://" in page else Path(page).resolve().as_uri())
        tab.wait_for_load_state("networkidle")
        png = tab.screenshot()
        browser.close()
    smaller = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(
        smaller, "PNG", optimize=True
    )
    return smaller.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", help="file or URL")
    parser.add_argument("png", type=Path)
    parser.add_argument("--language", default="en", help="of the browser, such as zh-CN")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=728)
    args = parser.parse_args()
    args.png.write_bytes(screenshot(args.page, args.language, args.width, args.height))
