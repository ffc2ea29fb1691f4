"""Which of a model's tensors are its embedding and its head."""

from dataclasses import dataclass

from zhllama.errors import InputError
from zhllama.model.load import read_model_config
from zhllama.model.weight_files import Weights
from zhllama.pretrained import build_causal


@dataclass(frozen=True)
class EmbeddingNames:
    """The names, as stored, of the embedding and the head; `output` is None where the head is the embedding itself.

    `copy` names a second, equal copy of a tied embedding, which some checkpoints carry.
    """

    input: str
    output: str | None
    copy: str | None = None


def find_matrices(weights: Weights) -> EmbeddingNames:
    """Ask the model class, built without any memory, which of the stored tensors are its embedding and its head."""
    import torch

    config = read_model_config(weights.folder)
    try:
        with torch.device("meta"):
            model = build_causal(config)
    except Exception as error:
        told = " ".join(str(error).split())[:200]
        raise InputError(
            weights.folder, f"is no causal language model ({told})", "Name another model"
        ) from error
    head = model.get_output_embeddings()
    if head is None or getattr(head, "bias", None) is not None:
        raise InputError(weights.folder, "has no head, or one with a bias", "Name a model of another kind")
    names = {module: f"{name}.weight" for name, module in model.named_modules()}
    embedding = _stored_name(weights, names[model.get_input_embeddings()], model.base_model_prefix)
    output = _stored_name(weights, names[head], model.base_model_prefix)
    if embedding is None or (output is None and not config.tie_word_embeddings):
        raise InputError(
            weights.folder, "lacks its embedding or its head among the weights", "Fetch the model again"
        )
    if output is not None and config.tie_word_embeddings:
        # transformers ties them exactly where they are equal
        same = torch.equal(weights.tensor(embedding), weights.tensor(output))
        return EmbeddingNames(embedding, None, output) if same else EmbeddingNames(embedding, output)
    return EmbeddingNames(embedding, output)


def _stored_name(weights: Weights, name: str, prefix: str) -> str | None:
    """A parameter's name in the files: some checkpoints (BLOOM's) were saved from the model inside the head."""
    candidates = (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}")
    return next((c for c in candidates if c in weights.tensors), None)
