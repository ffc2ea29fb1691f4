"""Toy models and texts for the training tests, seeded."""

from pathlib import Path
from typing import Any

import torch


def toy_config(vocabulary: int = 97, tied: bool = False, family: str = "llama", **changed: Any) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    settings = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": None, "bos_token_id": 1,
                "eos_token_id": 2}  # fmt: skip
    return CONFIG_MAPPING[family](vocab_size=vocabulary, tie_word_embeddings=tied, **{**settings, **changed})


def toy_model(vocabulary: int = 97, tied: bool = False, **changed: Any) -> Any:
    """Return a two-layer model, by default a LLaMA, with weights large enough that losses differ from a uniform guess."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    build: Any = AutoModelForCausalLM
    model = build.from_config(toy_config(vocabulary, tied, **changed))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.2)
    return model


def toy_batch(vocabulary: int = 97, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return three blocks of 40 tokens with several documents each; two end with filler."""
    import numpy as np

    from zhllama.training.packed_blocks import example

    rng = np.random.default_rng(seed)
    rows = [
        example(rng.integers(3, vocabulary, 40), np.array([0, 11, 12, 30]), used) for used in (40, 37, 30)
    ]
    return {name: torch.tensor(np.stack([row[name] for row in rows])) for name in rows[0]}


def write_text(path: Path, documents: list[str]) -> Path:
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return path
