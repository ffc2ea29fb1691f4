"""The command `export`, which merges a chain of runs, or published adapters, into one plain model."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from zhllama.commands.translation import translated
from zhllama.errors import OptionError
from zhllama.extras import program
from zhllama.hub_name import HubName, default_hub
from zhllama.model.options import ExportOptions
from zhllama.model.push import check_export, check_push, files_to_push, push
from zhllama.options import recorded
from zhllama.run import Run

if TYPE_CHECKING:
    from zhllama.model.chain import Chain
    from zhllama.model.trained_elsewhere import RowChanges, TrainedElsewhere


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
    from zhllama.model.folded_models import proof_texts
    from zhllama.model.gguf_converted import check_writable
    from zhllama.model.gguf_proof import Untried, write_and_prove
    from zhllama.model.load import load_transformers_tokenizer
    from zhllama.model.model_card import card_facts, model_card

    if options.adapter:
        _export_adapters(options, name, out, force, as_json)
        return
    if (options.run is None) == (options.model is None):
        what = "is missing" if options.run is None else f"and --model {options.model} name two models"
        raise OptionError("RUN", what, "Name one run or model, or give --model and --adapter")
    chain = resolve_chain(options.run or str(options.model))
    texts = proof_texts()
    start = _compared(chain, options.trained_from, texts)
    if options.adapter_only:
        _export_as_adapter(options, chain, name, out, force, as_json, texts)
        return
    if options.gguf is not None:
        check_writable(chain.base, chain.tokenizer, options.gguf)  # before the work
    with (
        Run(out, "export", recorded(options), chain_files(chain), force) as run,
        progress("folding", None, "share") as bar,
    ):
        changed = merge_chain(chain, run.out)
        write_generation_config(run.out)
        bar.stage("comparing logits with the run")
        proof = prove_export(chain, run.out, texts, changed)
        figures = asdict(proof) | ({} if start is None else asdict(start))
        if options.gguf is not None:
            path = run.out / f"model-{options.gguf}.gguf"
            bar.at(0, 1)
            gguf_proof = write_and_prove(run.out, path, texts, options.gguf, bar, bar.stage)
            if isinstance(gguf_proof, Untried):
                warn(f"the GGUF file was not tried in llama.cpp: {gguf_proof.reason}")
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
    if start is not None:
        say(f"The vocabulary is that of {options.trained_from}{_added(start.added)}")
        _tell_rows(start.matrices)
    _push(name, out, options.push_now, as_json)


def _compared(chain: "Chain", before: str | None, texts: list[str]) -> "TrainedElsewhere | None":
    """What another program's training changed, or None where the model was trained here."""
    if before is None:
        return None
    if chain.runs:
        raise OptionError("trained_from", f"is for models, and {chain.runs[-1]} is a run", "Leave it out")
    from zhllama.model.chain import resolve_chain
    from zhllama.model.trained_elsewhere import compare_with_start
    from zhllama.training.model_info import old_rows_from_manifests

    start = resolve_chain(before)
    if start.runs:
        raise OptionError("trained_from", f"{before} is a run", "Export it first, as for that training")
    return compare_with_start(chain.base, start.base, old_rows_from_manifests(start), texts)


def _added(names: tuple[str, ...]) -> str:
    return f", and {', '.join(names[:4])}{', ...' * (len(names) > 4)}" if names else ""


def _tell_rows(matrices: "Sequence[RowChanges]") -> None:
    """Tell how many rows training changed, and warn where new rows stayed as they were made."""
    for one in matrices:
        rows = (
            f"{one.new_changed:,} of {one.new:,} new rows and {one.old_changed:,} of {one.old:,} old rows"
            if one.new
            else f"{one.old_changed:,} of {one.old:,} rows"
        )
        say(f"{translated(one.matrix)}: training changed {rows}")
        if one.new and not one.new_changed:
            warn(
                f"no new row of the {one.matrix} was trained: see docs/how-to/other-trainers.md for the settings that train it"
            )


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


def _export_as_adapter(
    options: ExportOptions, chain: "Chain", name: HubName | None, out: Path, force: bool, as_json: bool, texts: list[str]
) -> None:  # fmt: skip
    """Write the runs of a chain as one PEFT adapter."""
    from zhllama.model.adapter_export import plan_adapter, prove_adapter, write_adapter_folder
    from zhllama.model.chain import chain_files, model_files
    from zhllama.model.load import load_transformers_tokenizer
    from zhllama.model.model_card import AdapterCard, card_facts, model_card

    if options.gguf is not None:
        raise OptionError("gguf", "is a whole model, and `adapter_only` writes none", "Leave one of them out")
    plan = plan_adapter(chain)
    inputs = list(dict.fromkeys([*model_files(plan.base.folder), *chain_files(chain)]))
    with (
        Run(out, "export", recorded(options), inputs, force) as run,
        progress("writing the adapter", None, "share") as bar,
    ):
        write_adapter_folder(plan, run.out)
        bar.stage("comparing logits with the run")
        proof = prove_adapter(plan, run.out, texts)
        chat = bool(load_transformers_tokenizer(run.out).chat_template)
        title = out.resolve().name if name is None else name.id
        rows = plan.rows if plan.grows else None
        run.write(
            "README.md",
            model_card(title, card_facts(chain), proof, chat, adapter=AdapterCard(plan.hub_name, rows)),
        )
        figures: dict[str, Any] = asdict(proof) | {"rows": plan.rows, "grows": plan.grows, "base": plan.name}
        run.finish(figures)
    if as_json:
        print_json({"out": str(out), **figures, **_push(name, out, options.push_now, as_json)})
        return
    resized = f"; give the base {plan.rows:,} rows before PEFT opens it" if plan.grows else ""
    say(
        f"{out}: an adapter for {plan.name}{resized}; logits differ by {proof.difference:.1e} relative to their size "
        f"(at most {proof.limit:.0e}), the same next token after {100 * proof.agree:.1f} % of {proof.tokens} tokens"
    )
    _push(name, out, options.push_now, as_json)


def _export_adapters(
    options: ExportOptions, name: HubName | None, out: Path, force: bool, as_json: bool
) -> None:
    """Fold published adapters into their base."""
    from zhllama.model.chain import model_files, resolve_chain
    from zhllama.model.folded_models import adapter_files, fold_and_prove, plain_folder, proof_texts
    from zhllama.model.foreign_adapters import adapter_folder, plan_fold
    from zhllama.model.load import VOCABULARY_FILES
    from zhllama.model.trained_elsewhere import compare_rows, compare_vocabularies
    from zhllama.training.model_info import old_rows_from_manifests

    if options.run is not None:
        raise OptionError(
            "adapter", f"is for a base, and {options.run} is a run", "Give --model BASE instead"
        )
    if options.model is None:
        raise OptionError("adapter", "needs a base", "Give --model BASE --adapter FOLDER")
    if options.trained_from is not None:
        raise OptionError(
            "trained_from", "is for whole models; adapters name their base by --model", "Leave it out"
        )
    if options.adapter_only:
        raise OptionError("adapter_only", "is for a run", "Name a run instead of --model and --adapter")
    if options.gguf is not None:
        raise OptionError("gguf", "is not written together with adapters", "Export the result again")
    base = plain_folder(options.model)
    plan = plan_fold(base, [adapter_folder(adapter) for adapter in options.adapter], options.tokenizer)
    known = any((base / file).is_file() for file in VOCABULARY_FILES)
    if known and plan.tokenizer != base and not plan.grows:  # else the adapter brings its own vocabulary
        compare_vocabularies(plan.tokenizer, base, proof_texts())
    inputs = [*model_files(base), *(path for a in plan.adapters for path in adapter_files(a.folder))]
    with (
        Run(out, "export", recorded(options), inputs, force) as run,
        progress("folding", None, "share") as bar,
    ):
        folded = fold_and_prove(plan, run.out, bar.stage)
        if folded.warning is not None:
            warn(folded.warning)
        proof, before, after = folded.proof, folded.before, folded.after
        figures: dict[str, Any] = asdict(proof) | {
            "rows": plan.rows, "bits_per_byte_of_base": before, "bits_per_byte": after
        }  # fmt: skip
        changes = compare_rows(run.out, base, old_rows_from_manifests(resolve_chain(base)))
        figures["matrices"] = [asdict(one) for one in changes]
        run.finish(figures)
    if as_json:
        print_json({"out": str(out), **figures, **_push(name, out, options.push_now, as_json)})
        return
    say(
        f"{out}: {len(plan.adapters)} adapter{'s' * (len(plan.adapters) != 1)} folded into {base.name}, {plan.rows:,} rows; "
        f"logits differ from PEFT's merge by {proof.difference:.1e} relative to their size (at most {proof.limit:.0e}); "
        f"{after:.3f} bits per byte on English text, its base {before:.3f}"
    )
    _tell_rows(changes)
    _push(name, out, options.push_now, as_json)
