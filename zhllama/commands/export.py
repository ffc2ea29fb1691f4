"""The command `export`, which merges a chain of runs, or published adapters, into one plain model."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from zhllama.commands.declare import command
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    Out,
    check_torch,
    headings,
    print_json,
    progress,
    say,
    screen,
    warn,
)
from zhllama.errors import OptionError
from zhllama.extras import program
from zhllama.hub_name import HubName, default_hub
from zhllama.model.options import ExportOptions
from zhllama.model.push import check_export, check_push, files_to_push, push
from zhllama.options import recorded
from zhllama.resources import shipped
from zhllama.run import Run

WORSE = 1.5  # times the base's bits per byte of English text: what no published adapter comes near, and a wrong base does
PROOF = (("zh_news.txt", 500), ("en_essay.txt", 600), ("code_python.txt", 200))  # characters of each


@command
def export(
    options: ExportOptions,
    out: Out,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Merge what a chain of runs trained, or published adapters, into one plain model, and prove that its outputs are equal."""
    name = _checked_push(options)
    if name is not None and options.run is None and options.model is None and not options.adapter:
        check_export(out)
        pushed = _push(name, out, options.push_now, as_json)
        if as_json:
            print_json({"out": str(out), **pushed})
        return
    check_torch("export", *([] if options.gguf is None else ["gguf"]))
    from zhllama.inference.modelfile import modelfile
    from zhllama.lineage import model_steps
    from zhllama.model.chain import chain_files, resolve_chain
    from zhllama.model.export import merge_chain, prove_export, write_generation_config
    from zhllama.model.gguf_export import write_gguf
    from zhllama.model.gguf_proof import prove_gguf
    from zhllama.model.load import load_transformers_tokenizer
    from zhllama.model.model_card import card_facts, model_card

    texts = [shipped("corpora", "sample", name).read_text(encoding="utf-8")[:n] for name, n in PROOF]
    if options.adapter or options.model is not None:
        _export_adapters(options, name, out, force, as_json, texts)
        return
    if options.run is None:
        raise OptionError("RUN", "is missing", "Name a run, or give --model and --adapter")
    chain = resolve_chain(options.run)
    with (
        Run(out, "export", recorded(options), chain_files(chain), force) as run,
        progress("folding", None, "share") as bar,
    ):
        changed = merge_chain(chain, run.out)
        write_generation_config(run.out)
        bar.stage("comparing logits with the run")
        proof = prove_export(chain, run.out, texts, changed)
        figures = asdict(proof)
        if options.gguf is not None:
            bar.stage("writing the GGUF file")
            path = run.out / f"model-{options.gguf}.gguf"
            write_gguf(run.out, path, options.gguf)
            bar.stage("comparing llama.cpp with transformers")
            gguf_proof = prove_gguf(run.out, path, texts, options.gguf)
            if gguf_proof is None:
                warn("the GGUF file was not tried in llama.cpp: the package xllamacpp is not installed")
            else:
                figures |= asdict(gguf_proof)
        tokenizer = load_transformers_tokenizer(run.out)
        file = None if options.gguf is None else path.name
        if file is not None:
            run.write("Modelfile", modelfile(file, tokenizer))
        chat = bool(tokenizer.chat_template)
        title = out.resolve().name if name is None else name.id
        run.write("README.md", model_card(title, card_facts(chain), proof, chat, file))
        run.finish(figures)
    if as_json:
        print_json({"out": str(out), **figures, **_push(name, out, options.push_now, as_json)})
        return
    steps = " → ".join(model_steps(chain))
    say(
        f"{out}: {steps}, folded into one model; logits differ "
        f"by {proof.difference:.1e} relative to their size (at most {proof.limit:.0e}), the same next token after "
        f"{100 * proof.agree:.1f} % of {proof.tokens} tokens"
    )
    _push(name, out, options.push_now, as_json)


def _checked_push(options: ExportOptions) -> HubName | None:
    """The repository to push to, checked before any work, or None."""
    if options.push is None and options.push_now:
        raise OptionError("push_now", "needs the repository", "Give --push OWNER/NAME")
    return None if options.push is None else check_push(options.push, options.push_now)


def _push(name: HubName | None, out: Path, now: bool, as_json: bool) -> dict[str, Any]:
    """Upload a finished export, or without `now` tell what would be uploaded. The figures of it."""
    if name is None:
        return {}
    files = files_to_push(out)
    if now:
        push(name, out, files)
    figures = {"hub": name.hub, "repository": name.id, "files": dict(files), "sent": now}
    if as_json:
        return {"push": figures}
    table = Table(*headings("file", "bytes"), box=None, padding=(0, 2, 0, 0))
    for file, size in files.items():
        table.add_row(file, f"{size:,}")
    screen.print(table)
    if now:
        say(f"Uploaded to {name.page}: {len(files)} files, {sum(files.values()):,} bytes")
        return {}
    given = name.id if name.hub == default_hub() else f"{name.hub}:{name.id}"
    words = ["export", "--push", given, "--push-now", "--out", str(out)]
    command = " ".join((program(), shlex.join(words)))
    say(
        f"Nothing was sent: {len(files)} files, {sum(files.values()):,} bytes would be uploaded to {name.page}. Upload by: {command}"
    )
    return {}


def _export_adapters(
    options: ExportOptions, name: HubName | None, out: Path, force: bool, as_json: bool, texts: list[str]
) -> None:
    """Fold published adapters into their base."""
    from zhllama.model.chain import local_folder, model_files
    from zhllama.model.export import write_generation_config
    from zhllama.model.foreign_adapters import fold, plan_fold, prove_fold

    if options.run is not None:
        raise OptionError(
            "adapter", f"is for a base, and {options.run} is a run", "Give --model BASE instead"
        )
    if options.model is None or not options.adapter:
        raise OptionError(
            "adapter", "needs a base, and a base an adapter", "Give --model BASE --adapter FOLDER"
        )
    if options.gguf is not None:
        raise OptionError("gguf", "is not written together with adapters", "Export the result again")
    base = local_folder(options.model)
    plan = plan_fold(base, options.adapter, options.tokenizer)
    inputs = [
        *model_files(base),
        *(p for a in plan.adapters for p in sorted(a.folder.iterdir()) if p.is_file()),
    ]
    with (
        Run(out, "export", recorded(options), inputs, force) as run,
        progress("folding", None, "share") as bar,
    ):
        changed = fold(plan, run.out)
        write_generation_config(run.out)
        bar.stage("comparing logits with PEFT")
        proof = prove_fold(plan, run.out, texts, changed)
        before, after = (_bits_per_byte(folder, texts[1]) for folder in (base, run.out))
        if not after <= WORSE * before:
            warn(
                f"the model has {after:.2f} bits per byte on English text and its base {before:.2f}: the adapters were "
                f"trained on another base, or are in another order"
            )
        figures: dict[str, Any] = asdict(proof) | {
            "rows": plan.rows, "bits_per_byte_of_base": before, "bits_per_byte": after
        }  # fmt: skip
        run.finish(figures)
    if as_json:
        print_json({"out": str(out), **figures, **_push(name, out, options.push_now, as_json)})
        return
    say(
        f"{out}: {len(plan.adapters)} adapter{'s' * (len(plan.adapters) != 1)} folded into {base.name}, {plan.rows:,} rows; "
        f"logits differ from PEFT's merge by {proof.difference:.1e} relative to their size (at most {proof.limit:.0e}); "
        f"{after:.3f} bits per byte on English text, its base {before:.3f}"
    )
    _push(name, out, options.push_now, as_json)


def _bits_per_byte(folder: Path, text: str) -> float:
    """Bits per byte of a text under a plain model."""
    from zhllama.evaluation.bits_per_byte import measure_bits
    from zhllama.model.load import load_base
    from zhllama.vocab.any_tokenizer import load_any_tokenizer

    return float(measure_bits(load_base(folder).eval(), load_any_tokenizer(folder), text).per_byte)
