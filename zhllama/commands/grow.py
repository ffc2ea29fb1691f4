"""The command `grow`, which adds rows to a model for a larger vocabulary."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from zhllama.commands.declare import command
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    MaybeOut,
    Resume,
    TextOptions,
    check_torch,
    print_json,
    progress,
    say,
)
from zhllama.commands.training_screen import check_present, size_of
from zhllama.errors import OptionError
from zhllama.model.options import GrowOptions
from zhllama.options import recorded
from zhllama.run import Run

if TYPE_CHECKING:
    from zhllama.model.row_init_distilled import Distillation
    from zhllama.model.row_init_taught import Teaching

# The initializations that read an option; keep_old_rows and fit are checked by grow itself.
TAKEN_BY = {
    "vectors": ("focus",),
    "steps": ("distill", "taught"),
    "teach_layers": ("taught",),
    "text": ("fitted", "shared", "distill", "taught"),
}


@command
def grow(
    options: GrowOptions,
    reading: TextOptions,
    out: MaybeOut = None,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Add rows to a model for the ids of a larger vocabulary; old rows stay unchanged to the byte, unless --init shared or taught."""
    check_torch("grow")
    from zhllama.io.text import find_files, read_documents
    from zhllama.model.chain import local_folder, model_files
    from zhllama.model.grow import grow as grow_model
    from zhllama.model.row_init_distilled import Distillation
    from zhllama.model.row_init_taught import Teaching

    _check_what_init_takes(options, resume)
    files = find_files(options.text)
    distillation = Distillation(steps=options.steps or Distillation.steps, seed=options.seed)
    teaching = Teaching(options.teach_layers, options.steps or Teaching.steps, seed=options.seed)
    if options.dry_run:
        _show_cost(options, bool(files), distillation, teaching, as_json)
        return
    check_present({"out": "Give a folder for the model"}, {"out": out})
    assert out is not None
    folder = local_folder(options.model)
    inputs = [
        *model_files(folder),
        *_tokenizer_files(options.tokenizer),
        *([options.vectors] if options.vectors else []),
        *files,
    ]
    resumes = resume if options.init == "taught" else None
    with (
        Run(out, "grow", recorded(options, reading), inputs, force, resumes, options.seed) as run,
        progress("new rows", distillation.steps if options.init == "distill" else 1, "steps") as bar,
    ):
        grown = grow_model(
            folder,
            options.tokenizer,
            run.out,
            init=options.init,
            pad_rows_to=options.pad_rows_to,
            untie=options.untie,
            keep_old_rows=options.keep_old_rows,
            fit=options.fit,
            seed=options.seed,
            vectors=options.vectors,
            texts=list(read_documents(files, reading.field)),
            distillation=distillation,
            teaching=teaching,
            advance=bar,
            progress=bar,
        )
        run.finish(asdict(grown))
    if as_json:
        print_json({"out": str(out), **asdict(grown)})
        return
    spare = f" ({grown.spare_taken:,} in rows that belonged to no id)" if grown.spare_taken else ""
    say(
        f"{out}: {grown.n_old:,} old rows unchanged, {grown.n_new:,} new ones ({options.init}){spare}, {grown.rows:,} in all; "
        f"the LM head is {'tied' if grown.tied else 'untied'}"
    )
    if grown.untied:
        say(f"untied: the LM head has {grown.untied:,} more parameters")
    if grown.per_layer is not None:
        say(
            f"{grown.per_layer} has grown too: its new rows are means, and training leaves them so, unless with --full"
        )
    if grown.changed_head_rows:
        say(
            f"except {len(grown.changed_head_rows):,} old rows of the LM head, which now share their probability with new ones; "
            "manifest.json lists them"
        )
    if grown.boundary_error is not None:
        first, last = grown.boundary_error
        say(
            f"taught: where new tokens end, hidden states differ from the original ones by {last:.2f} of their variance ({first:.2f} before)"
        )
        if grown.changed_weights:
            say(
                f"except {len(grown.changed_weights):,} weights of the first {grown.taught_layers} layers; manifest.json lists them"
            )
        if grown.guard_text == "shipped":
            say("the given text has too little English: the shipped sample kept English as it was")
    if grown.fit_held_out is not None and grown.fit_kept is not None:
        _say_fit(grown.fit_kept, *grown.fit_held_out)
    if grown.english_bits_per_byte is not None:
        before, after = grown.english_bits_per_byte
        say(
            f"English: {before:.4f} bits per byte before, {after:.4f} with the new head ({100 * (after / before - 1):+.2f} %)"
        )


def _say_fit(kept: float, without: float, fitted: float) -> None:
    from zhllama.model.row_init_shared import GAIN

    if kept:
        say(
            f"fit: {fitted:.4f} bits per byte of held-out text with the new head, {without:.4f} without the fit"
        )
        if kept < 1:
            say(f"{100 * kept:g} % of the fit is kept: more would cost English over 0.5 %")
    elif fitted <= without * (1 - GAIN):
        say("the fit is left out: it would cost English over 0.5 %")
    else:
        say(
            f"the fit is left out: it must save {100 * GAIN:g} % of the bits of held-out text "
            f"({fitted:.4f} per byte with it, {without:.4f} without)"
        )


def _show_cost(
    options: GrowOptions, has_text: bool, distillation: "Distillation", teaching: "Teaching", as_json: bool
) -> None:
    from zhllama.model.grow import check_options
    from zhllama.model.growth_cost import growth_cost
    from zhllama.model.growth_plan import plan_growth

    plan = plan_growth(options.model, options.tokenizer, options.pad_rows_to, options.untie)
    check_options(
        plan, options.init, options.keep_old_rows, options.fit, has_text, options.vectors is not None
    )
    cost = growth_cost(plan, options.init, distillation, teaching)
    if as_json:
        print_json(asdict(cost))
        return
    say(
        f"{cost.n_old:,} old rows, {cost.n_new:,} new ones ({cost.init}), {cost.rows:,} in all; "
        f"the LM head is {'tied' if cost.tied else 'untied'}"
    )
    say(f"parameters: {cost.parameters:,}, {cost.parameters - cost.parameters_before:,} of them added")
    say(f"disk: {size_of(cost.disk)}, memory: about {size_of(cost.memory)}")
    if cost.steps:
        say(f"training of the initialization: {cost.steps:,} steps, {cost.learning:,} parameters")
    if cost.taught_layers:
        say(f"the first {cost.taught_layers} layers change")


def _check_what_init_takes(options: GrowOptions, resume: bool) -> None:
    """Refuse options that this `init` would ignore."""
    if resume and options.init != "taught":
        raise OptionError("resume", f"continues nothing with `init` {options.init}", "Leave it out")
    for name, inits in TAKEN_BY.items():
        given = getattr(options, name)
        if given not in (None, ()) and options.init not in inits:
            message = f"changes nothing with `init` {options.init}"
            raise OptionError(name, message, f"Leave it out, or give `init` {' or '.join(inits)}")


def _tokenizer_files(folder: Path) -> list[Path]:
    return sorted(
        folder / name
        for name in ("tokenizer.json", "tokenizer.model", "id_map.json")
        if (folder / name).is_file()
    )
