"""Finds the tensors that are a model's embedding matrix and its LM head."""

from copy import deepcopy
from dataclasses import dataclass

from zhllama.errors import InputError
from zhllama.model.stored_model import StoredModel
from zhllama.pretrained import build_causal, stored_names

PER_LAYER = ".embed_tokens_per_layer.weight"


@dataclass(frozen=True)
class EmbeddingNames:
    """The stored names of the embedding and the head; `output` is None for a tied head.

    `copy` names a second, equal copy of a tied embedding, which some checkpoints contain, and `biases` the bias of a head
    that has one, stored once or, as BERT's, also beside the head. `per_layer`: a further table of the vocabulary, of which
    Gemma 3n and Gemma 4 add a token's row to the input of each layer.
    """

    input: str
    output: str | None
    copy: str | None = None
    biases: tuple[str, ...] = ()
    per_layer: str | None = None


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
    parameters = list(model.named_parameters(remove_duplicate=False))
    if embedding is None:  # stored under another name of the same parameter, as ProphetNet's
        others = (n for n, p in parameters if p is module.weight and n != f"{paths[id(head)]}.weight")
        embedding = next((stored.names[name] for name in others if name in stored.names), None)
    shared = [name for name, parameter in parameters if bias is not None and parameter is bias]
    biases = tuple(stored.names[name] for name in shared if name in stored.names)
    table = next((stored.names[name] for name in stored.names if name.endswith(PER_LAYER)), None)
    if head.weight is module.weight:  # tied by the config
        if embedding is None or output is None:
            embedding, output = embedding or output, None
        # transformers ties two stored matrices only if they are equal
        elif torch.equal(weights.tensor(embedding), weights.tensor(output)):
            return EmbeddingNames(embedding, None, output, biases, table)
    elif output is None:
        embedding = None
    if embedding is None:
        raise InputError(
            weights.folder, "lacks its embedding or its head among the weights", "Download the model again"
        )
    return EmbeddingNames(embedding, output, None, biases, table)


def untied_names(stored: StoredModel, tied: EmbeddingNames) -> EmbeddingNames:
    """The names of the embedding and the head of a tied model once it is untied; one of them may not be stored yet.

    Errors: InputError for a model that transformers ties whatever its config says, or whose second matrix it would not load.
    """
    import torch

    model = stored.model
    paths = {id(module): name for name, module in model.named_modules()}
    modules = model.get_input_embeddings(), model.get_output_embeddings()
    embedding, head = (f"{paths[id(module)]}.weight" for module in modules)
    config = deepcopy(model.config)
    for part in (config, config.get_text_config()):
        part.tie_word_embeddings = False
    with torch.device("meta"):
        separate = build_causal(config)
    names = tied.input, tied.copy
    if tied.copy is None:
        missing = embedding if stored.names.get(head) == tied.input else head
        loaded = stored_names(separate, [*stored.weights.tensors, missing])
        names = (missing, tied.input) if missing == embedding else (tied.input, missing)
        if missing in stored.weights.tensors or loaded.get(missing) != missing:
            names = names[0], None
    if names[1] is None or separate.get_output_embeddings().weight is separate.get_input_embeddings().weight:
        message = "cannot have an LM head of its own in transformers"
        raise InputError(stored.folder, message, "Leave `untie` out")
    return EmbeddingNames(names[0], names[1], None, tied.biases, tied.per_layer)
