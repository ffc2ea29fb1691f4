"""Checks before training that `export` will be able to merge what the run trains."""

from dataclasses import replace

from zhllama.errors import InputError, OptionError
from zhllama.model.chain import Chain
from zhllama.model.export import adapted_layer, plan_merge
from zhllama.model.tokenizer_class import check_tokenizer_class
from zhllama.pretrained import renamed_layers
from zhllama.training.lora import adapted_modules
from zhllama.training.options import TrainingOptions


def check_exportable(chain: Chain, options: TrainingOptions) -> None:
    """Run export's checks on what a run of these options would train.

    Errors: InputError for a base, or an earlier run, that cannot be exported; OptionError for adapters and full training
    whose results could not be.
    """
    base = plan_merge(chain).base
    check_tokenizer_class(
        chain.tokenizer,
        base.model.config.model_type,
        "Give the model the tokenizer that it was published with",
    )
    if options.full and (parts := base.not_stored):
        message = f"cannot be exported for this model, whose files do not store {parts[0]} in a way that can be written again"
        raise OptionError("full", message, "Train adapters instead")
    if options.lora is None:
        return
    modules = adapted_modules(base.model.config, replace(options.lora, dropout=0.0))
    if lost := renamed_layers(base.model, modules):
        message = f"adds adapters to {lost[0]}, which PEFT would not load again into this type of model"
        raise OptionError("lora_module", message, "Leave it out")
    for module in modules:
        try:
            adapted_layer(module, base, chain.base)
        except InputError as error:
            name = module.removesuffix(".base_layer")
            message = f"adds adapters to {name}, which the files of the model do not store as one matrix"
            raise OptionError(
                "lora_module", f"{message}, so that export cannot merge them", "Leave it out"
            ) from error
    adapted_modules(base.model.config, options.lora)  # PEFT refuses dropout for some layers
