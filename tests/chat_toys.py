"""A model that gives one answer to everything, so that what it says can be known: each token names the next one."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from tests.model_toys import base_vocabulary, config, larger_vocabulary, write_tokenizer
from zhllama.pretrained import open_tokenizer
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

# Cut into bytes by the base vocabulary, no two of them equal.
BY_BYTES = "中海题"
# Cut into pieces by the larger vocabulary, no two of them equal.
BY_PIECES = "我们今天没有时间研究历史"


def write_parrot(
    folder: Path,
    answer: str,
    template: str | None = None,
    endless: bool = False,
    vocabulary: SentencePieceVocabulary | None = None,
    **changed: Any,
) -> Path:
    """A two-layer LLaMA that says `answer` after a prompt that ends in a line end, then its end of text, or all again.

    Both layers add nothing, so the hidden state is the last token's embedding; its product with the head is largest at
    the row that holds the same vector, which is the next token's.
    """
    from transformers import AutoModelForCausalLM

    vocabulary = vocabulary or (base_vocabulary() if answer == BY_BYTES else larger_vocabulary())
    write_tokenizer(vocabulary, folder)
    tokenizer = open_tokenizer(folder)
    before = tokenizer("a\n", add_special_tokens=False).input_ids
    both = tokenizer(f"a\n{answer}", add_special_tokens=False).input_ids
    told = both[len(before) :]
    assert len({before[-1], *told}) == 1 + len(told), "a token may only have one next token"
    said = [before[-1], *told, told[0] if endless else tokenizer.eos_token_id]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(len(vocabulary.pieces), **changed))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        rows = torch.nn.functional.normalize(torch.randn(len(vocabulary.pieces), 64), dim=1)
        model.model.embed_tokens.weight.copy_(rows)
        model.lm_head.weight.zero_()
        for token, following in pairwise(said):
            model.lm_head.weight[following] += 20 * rows[token]
    model.save_pretrained(folder)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder
