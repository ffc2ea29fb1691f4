"""Finds the tensors that are a model's embedding matrix and its LM head."""

from dataclasses import dataclass

from zhllama.errors import InputError
from zhllama.model.load import read_model_config
from zhllama.model.weight_files import Weights
from zhllama.pretrained import build_causal


@dataclass(frozen=True)
class EmbeddingNames:
    """The stored names of the embedding and the head; `output` is None for a tied head.

    `copy` names a second, equal copy of a tied embedding, which some checkpoints contain.
    """

    input: str
    output: str | None
    copy: str | None = None


def find_matrices(weights: Weights) -> EmbeddingNames:
    """Find the embedding and the head with the model class, built on the meta device.

    Errors: InputError for a model without either, and for a head with a bias.
    """
    import torch

    config = read_model_config(weights.folder)
    try:
        with torch.device("meta"):
            model = build_causal(config)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            weights.folder, f"is not a causal language model ({reason})", "Name another model"
        ) from error
    head = model.get_output_embeddings()
    if head is None or getattr(head, "bias", None) is not None:
        raise InputError(
            weights.folder, "has no head, or a head with a bias", "Name a model of another architecture"
        )
    names = {module: f"{name}.weight" for name, module in model.named_modules()}
    embedding = _stored_name(weights, names[model.get_input_embeddings()], model.base_model_prefix)
    output = _stored_name(weights, names[head], model.base_model_prefix)
    if embedding is None or (output is None and not config.tie_word_embeddings):
        raise InputError(
            weights.folder, "lacks its embedding or its head among the weights", "Download the model again"
        )
    if output is not None and config.tie_word_embeddings:
        # transformers ties two stored matrices only if they are equal
        same = torch.equal(weights.tensor(embedding), weights.tensor(output))
        return EmbeddingNames(embedding, None, output) if same else EmbeddingNames(embedding, output)
    return EmbeddingNames(embedding, output)


def _stored_name(weights: Weights, name: str, prefix: str) -> str | None:
    """A parameter's name in the files; some checkpoints (BLOOM's) were saved without the outermost module."""
    candidates = (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}")
    return next((c for c in candidates if c in weights.tensors), None)
