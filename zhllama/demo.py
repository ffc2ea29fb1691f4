"""The demo's two-layer model, the note before each step, and a summary of what each step proved."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zhllama.errors import OutputError
from zhllama.training.checkpoint import whole_folder
from zhllama.vocab.fast_tokenizer import transformers_files
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.word_lists import base_file

WIDTH, LAYERS, HEADS = 64, 2, 4
PER_CHARACTER = "_bits_per_character"


def two_layer_model(folder: Path, seed: int = 0) -> Path:
    """Write a two-layer LLaMA with 4.2 million random parameters and the embedded 32,000-piece vocabulary."""
    if (folder / "config.json").is_file():
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(folder, "is not a folder of the demo", "Choose another `out`")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    base = SentencePieceVocabulary.read(base_file(None))
    config = LlamaConfig(
        vocab_size=len(base.pieces), hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=1024,
        bos_token_id=base.processor.bos_id(), eos_token_id=base.processor.eos_id(),
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with whole_folder(folder) as part:
        model.save_pretrained(part)
        for name, content in transformers_files(base).items():
            (part / name).write_bytes(content)
    return folder


STEP_NOTES: Mapping[str, str] = {
    "list": "A list of Chinese pieces, trained on the word list in jieba.",
    "vocab": "The list merged into the base by the safe recipe, with its proof.",
    "page": "The token counts of both vocabularies on the texts of corpora/sample, as a page.",
    "grown": "The two-layer model gets a row for each new piece: the mean of the rows of its old pieces.",
    "stage1": "Stage 1: only the new rows are trained.",
    "stage2": "Stage 2: LoRA and the new rows are trained.",
    "tuned": "Fine-tuning on the 175 Chinese tasks of seeds_zh and their 184 answers, 183 to train on and 1 for validation, with loss on the answers only.",
    "plain": "All trained weights merged into one plain model.",
    "chat": "One turn of chat. A two-layer model gives no sensible answer; the point is that it uses its template.",
}


def proofs(step: str, figures: Mapping[str, Any]) -> list[str]:
    """What a finished step proved, from its manifest's figures; nothing for a step without a proof."""
    match step:
        case "vocab":
            return [
                f"{figures['pieces']:,} pieces: {figures['drift'][0]} of {figures['drift'][1]} lines without Chinese are tokenized "
                f"differently, {figures['dead']} dead pieces, {'an' if figures['exact_fast_tokenizer'] else 'no'} exact tokenizer.json; "
                f"the paper's sentence {figures['sentence_tokens'][0]} -> {figures['sentence_tokens'][1]} tokens"
            ]
        case "stage1" | "stage2" | "tuned":
            return [
                _bits(name.removesuffix(PER_CHARACTER), value["before"], value["after"])
                for name, value in figures.items()
                if isinstance(value, Mapping) and "before" in value and name.endswith(PER_CHARACTER)
            ]
        case "plain":
            return [
                f"its logits differ from the run's by {figures['difference']:.1e} of their size, "
                f"the same next token after {figures['agree']:.1%} of {figures['tokens']} tokens"
            ]
    return []


def _bits(label: str, before: float, after: float) -> str:
    """Bits per character of a text by its label, or of the answers."""
    if label == "answers":
        return f"answers bits per character {before:.3f} -> {after:.3f}"
    return f"{label} bits per character {before:.3f} -> {after:.3f}"
