"""Makes small real runs and takes screenshots of every page that zhllama writes or serves: wide and narrow, light and dark.

bash scripts/demo.sh                                # once: the runs whose pages take minutes to make
python scripts/screenshots.py runs/demo shots       # the other runs in shots/runs, and shots/PAGE-WIDTH-SCHEME.png

Prints what each page is, how tall it is, and how many pixels it is wider than the screen, which must be 0.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "corpora" / "sample"
SCREENS = ((1280, "light", "en-US"), (1280, "dark", "zh-TW"), (390, "light", "en-US"), (390, "dark", "zh-CN"))
QUESTIONS = (
    ("数学", "3乘以4是多少？", "12"),
    ("写作", "写一句关于春天的话。", "春天来了。"),
    ("问答", "水在几度结冰？", "0度"),
)


def zhllama(*words: object) -> None:
    """Run a command."""
    subprocess.run([sys.executable, "-m", "zhllama", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def started(*command: object) -> Iterator[str]:
    """A process that serves; yields the first lines that it prints up to an address or a port."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        assert process.stdout is not None
        told = ""
        while not re.search(r"^\d+$|page.*http\S+", told, re.M):
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{command[0]} ended: {told}")
            told += line
        yield told
    finally:
        process.kill()  # nothing of it is kept
        process.wait()


@contextmanager
def model_server() -> Iterator[str]:
    """The base URL of the server of the tests, which answers as a model would."""
    with started("-I", ROOT / "tests" / "fake_server.py", json.dumps({"messy": True})) as port:
        yield f"http://127.0.0.1:{port.strip()}/v1"


def runs(demo: Path, folder: Path) -> Mapping[str, Path]:
    """The files of all pages that are written, of runs that are made in `folder` where they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    questions = folder / "questions.jsonl"
    rows = [
        {"id": f"q{n}", "category": kind, "instruction": f"{text}（第{n}题）", "reference": right}
        for n in range(8)
        for kind, text, right in QUESTIONS[n % 3 : n % 3 + 1]
    ]
    questions.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    with model_server() as url:
        server = ("--base-url", url, "--model", "fake")
        steps: dict[str, tuple[object, ...]] = {
            "advice": ("advise", "--text", f"{SAMPLE}/zh_*.txt", "--most", 4000),
            "cleaning": ("corpus", "clean", SAMPLE, "--min-chars", 60),
            "generation": ("gen-zh", "--n", 60, *server),
            "answers-a": ("answer", "fake", "--questions", questions, "--base-url", url),
            "answers-b": ("answer", demo / "plain", "--questions", questions, "--reply-tokens", 24),
            "judging": (
                "judge",
                "--answers",
                folder / "answers-a",
                "--answers",
                folder / "answers-b",
                *server,
            ),
        }
        for name, words in steps.items():
            if not (folder / name / "manifest.json").is_file():
                shutil.rmtree(folder / name, ignore_errors=True)
                zhllama(*words, "--out", folder / name)
    return {
        "report": demo / "page" / "report.html",
        "training": demo / "stage2" / "report.html",
        "fine-tuning": demo / "tuned" / "report.html",
        "advice": folder / "advice" / "advice.html",
        **{name: folder / name / "report.html" for name in ("cleaning", "generation", "judging")},
    }


def take(addresses: Mapping[str, str], out: Path) -> None:
    """Write the screenshots of pages by their addresses; needs playwright and a chromium on the path."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, address in addresses.items():
            for width, scheme, locale in SCREENS:
                view = browser.new_page(
                    viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light", locale=locale
                )  # fmt: skip
                view.goto(address)
                view.wait_for_timeout(1500 if address.startswith("http") else 300)
                size = view.evaluate(
                    "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
                )
                view.screenshot(path=out / f"{name}-{width}-{scheme}.png", full_page=True)
                print(
                    f"{name:12} {width:5} {scheme:5} {locale}  height {size[1]:6,}  too wide by {size[0] - width}"
                )
                view.close()
        browser.close()


def main() -> None:
    """Make the runs, serve the pages that are served, and take all screenshots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("demo", type=Path, help="the folder of zhllama demo")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    out = args.out.resolve()
    files = runs(args.demo.resolve(), out / "runs")
    with ExitStack() as served:
        addresses = {name: path.as_uri() for name, path in files.items()}
        for name, command in {
            "review": ("review", out / "runs" / "generation", "--reviewer", "me", "--port", 0),
            "chat": ("serve", args.demo.resolve() / "plain", "--web", "--port", 0, "--web-port", 0),
        }.items():
            told = served.enter_context(started("-m", "zhllama", *command))
            found = re.search(r"page.*?(http\S+)", told)
            assert found is not None
            addresses[name] = found[1]
        take(addresses, out)


if __name__ == "__main__":
    main()
