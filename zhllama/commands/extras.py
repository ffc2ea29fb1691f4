"""The command `extras`, which lists the optional packages and how to install them here."""

from rich.table import Table

from zhllama.commands.shared import AsJson, headings, print_json, say, screen
from zhllama.commands.translation import translated
from zhllama.extras import extras as read_extras
from zhllama.extras import install_command

# What each extra is for; tests/test_extras.py holds the list against pyproject.toml.
PURPOSES = {
    "train": "pretrain, sft, grow, export, eval, chat",
    "corpus": "corpus fetch and clean, .parquet and .zst, near duplicates",
    "fast": "a compiled encoder",
    "gguf": "export --gguf",
    "llamacpp": "chat and serve with GGUF files, the proof of export --gguf",
    "demo": "demo, and merge-vocab without --base",
    "align": "reward, dpo, kto (with train)",
    "chat": "sharegpt clean: HTML to Markdown",
    "web": "serve --web (with train)",
    "serve": "serve (with train)",
    "eval": "eval --tasks (with train)",
    "ray": "corpus clean --executor ray",
    "modelscope": "models and datasets of ModelScope: modelscope:OWNER/NAME",
    "cuda": "--load-in-4bit, and a fused loss on GPUs",
}


def extras(as_json: AsJson = False) -> None:
    """List the optional packages, which of them are installed, and the command that installs the others here."""
    known = read_extras()
    if as_json:
        rows = {
            name: {
                "packages": dict(extra.packages),
                "missing": extra.missing,
                "install": install_command(name),
            }
            for name, extra in known.items()
        }
        print_json(rows)
        return
    table = Table(*headings("extra", "is for", "not installed"), box=None, padding=(0, 2, 0, 0))
    for name, purpose in PURPOSES.items():
        if name in known:
            table.add_row(name, translated(purpose), ", ".join(known[name].missing) or translated("nothing"))
    screen.print(table)
    incomplete = [name for name, extra in known.items() if extra.missing and name != "cuda"]
    if incomplete:
        say(f"Install by: {install_command(*incomplete)}")
