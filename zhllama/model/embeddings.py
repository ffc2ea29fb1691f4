"""Finds the tensors that are a model's embedding matrix and its LM head."""

from dataclasses import dataclass

from zhllama.errors import InputError
from zhllama.model.stored_model import StoredModel


@dataclass(frozen=True)
class EmbeddingNames:
    """The stored names of the embedding and the head; `output` is None for a tied head.

    `copy` names a second, equal copy of a tied embedding, which some checkpoints contain, and `biases` the bias of a head
    that has one, stored once or, as BERT's, also beside the head.
    """

    input: str
    output: str | None
    copy: str | None = None
    biases: tuple[str, ...] = ()


def find_matrices(stored: StoredModel) -> EmbeddingNames:
    """Find the embedding and the head; the stored weights decide whether they are tied, as in transformers.

    Errors: InputError for a model without either.
    """
    import torch

    weights, model = stored.weights, stored.model
    module, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None:
        raise InputError(weights.folder, "has no LM head", "Name a causal language model")
    paths = {id(module): name for name, module in model.named_modules()}
    embedding, output = (stored.names.get(f"{paths[id(m)]}.weight") for m in (module, head))
    bias = getattr(head, "bias", None)
    parameters = model.named_parameters(remove_duplicate=False)
    shared = [name for name, parameter in parameters if bias is not None and parameter is bias]
    biases = tuple(stored.names[name] for name in shared if name in stored.names)
    if head.weight is module.weight:  # tied by the config
        if embedding is None or output is None:
            embedding, output = embedding or output, None
        # transformers ties two stored matrices only if they are equal
        elif torch.equal(weights.tensor(embedding), weights.tensor(output)):
            return EmbeddingNames(embedding, None, output, biases)
    elif output is None:
        embedding = None
    if embedding is None:
        raise InputError(
            weights.folder, "lacks its embedding or its head among the weights", "Download the model again"
        )
    return EmbeddingNames(embedding, output, None, biases)
