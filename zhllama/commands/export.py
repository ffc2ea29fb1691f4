"""The command `export`, which merges a chain of runs into one plain model."""

from dataclasses import asdict

from zhllama.commands.declare import command
from zhllama.commands.shared import AsJson, Config, Force, Out, check_torch, print_json, progress, say, warn
from zhllama.model.options import ExportOptions
from zhllama.options import recorded
from zhllama.resources import shipped
from zhllama.run import Run

PROOF = (("zh_news.txt", 500), ("en_essay.txt", 600), ("code_python.txt", 200))  # characters of each


@command
def export(
    options: ExportOptions,
    out: Out,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Merge everything that a chain of runs trained into one plain model, and prove that its outputs are equal."""
    check_torch("export", *([] if options.gguf is None else ["gguf"]))
    from zhllama.inference.modelfile import modelfile
    from zhllama.lineage import model_steps
    from zhllama.model.chain import chain_files, resolve_chain
    from zhllama.model.export import merge_chain, prove_export, write_generation_config
    from zhllama.model.gguf_export import write_gguf
    from zhllama.model.gguf_proof import prove_gguf
    from zhllama.model.load import load_transformers_tokenizer
    from zhllama.model.model_card import card_facts, model_card

    chain = resolve_chain(options.run)
    with (
        Run(out, "export", recorded(options), chain_files(chain), force) as run,
        progress("folding", None, "share") as bar,
    ):
        changed = merge_chain(chain, run.out)
        write_generation_config(run.out)
        bar.stage("comparing logits with the run")
        texts = [shipped("corpora", "sample", name).read_text(encoding="utf-8")[:n] for name, n in PROOF]
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
        run.write("README.md", model_card(out.resolve().name, card_facts(chain), proof, chat, file))
        run.finish(figures)
    if as_json:
        print_json({"out": str(out), **figures})
        return
    steps = " → ".join(model_steps(chain))
    say(
        f"{out}: {steps}, folded into one model; logits differ "
        f"by {proof.difference:.1e} relative to their size (at most {proof.limit:.0e}), the same next token after "
        f"{100 * proof.agree:.1f} % of {proof.tokens} tokens"
    )
