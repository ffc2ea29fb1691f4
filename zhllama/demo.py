"""The two-layer model of `zhllama demo`, and one sentence on what each step proved."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zhllama.errors import OutputError
from zhllama.training.checkpoint import whole_folder
from zhllama.vocab.fast_tokenizer import transformers_files
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.word_lists import base_file

WIDTH, LAYERS, HEADS = 64, 2, 4


def two_layer_model(folder: Path, seed: int = 0) -> Path:
    """A LLaMA of two layers and 4.2 million parameters with weights of chance, over the embedded 32,000 pieces."""
    if (folder / "config.json").is_file():
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(folder, "is not of the demo", "Choose another --out")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    base = SentencePieceVocabulary.read(base_file(None))
    config = LlamaConfig(
        vocab_size=len(base.pieces), hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=512,
        bos_token_id=base.processor.bos_id(), eos_token_id=base.processor.eos_id(),
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with whole_folder(folder) as part:
        model.save_pretrained(part)
        for name, content in transformers_files(base).items():
            (part / name).write_bytes(content)
    return folder


BEFORE: Mapping[str, str] = {
    "list": "A list of Chinese pieces, trained on the words that travel in jieba.",
    "vocab": "The list merged into the base without its harm, and the proof of it.",
    "page": "What both vocabularies cost, on the texts of corpora/sample, as a page.",
    "grown": "The two-layer model gets a row for each new piece: the mean of the rows of its old pieces.",
    "stage1": "Stage 1: only the new rows learn.",
    "stage2": "Stage 2: LoRA and the new rows learn.",
    "tuned": "Tuning on the 175 Chinese tasks of seeds_zh, loss on the answers alone.",
    "plain": "All that was learned, folded into one plain model.",
    "chat": "One turn with it. A two-layer model says nothing sensible; what counts is that it speaks by its template.",
}


def proved(step: str, figures: Mapping[str, Any]) -> str:
    """What a finished step of the demo has shown, from the figures of its manifest; empty where there is nothing to say."""
    match step:
        case "vocab":
            return (
                f"{figures['pieces']:,} pieces: {figures['drift'][0]} of {figures['drift'][1]} lines without Chinese cut "
                f"differently, {figures['dead']} dead pieces, exact tokenizer.json: {figures['exact_fast_tokenizer']}; "
                f"the paper's sentence {figures['sentence_tokens'][0]} -> {figures['sentence_tokens'][1]} tokens"
            )
        case "stage1" | "stage2" | "tuned":
            bits = [
                f"{name.replace('_', ' ')} {value['before']:.3f} -> {value['after']:.3f}"
                for name, value in figures.items()
                if isinstance(value, Mapping) and "before" in value and "per_character" in name
            ]
            return "; ".join(bits)
        case "plain":
            return (
                f"its logits differ from the run's by {figures['difference']:.1e} of their size, "
                f"the same next token after {figures['agree']:.1%} of {figures['tokens']} tokens"
            )
    return ""
