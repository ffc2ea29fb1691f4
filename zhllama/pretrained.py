"""Opens configs, tokenizers, models and adapters with transformers and PEFT, without running code from their files.

No other module does this. A folder can name Python code in `auto_map`, compiled code on a hub in `attn_implementation`,
and other modules or models in an adapter's config. All are refused without the prompt that transformers would print.
Where a folder names code for a model type that transformers has, transformers' own class is used.
"""

import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from zhllama.errors import InputError, MissingPackage
from zhllama.io.files import is_present, require_regular_files
from zhllama.io.json import read_object
from zhllama.io.safetensors import read_header

# The first number of a parameter's name, behind the name of its list of layers.
LAYER = re.compile(r"(.*?\.)(\d+)\.")
CONFIG, TOKENIZER_CONFIG, ADAPTER_CONFIG = "config.json", "tokenizer_config.json", "adapter_config.json"
GENERATION_CONFIG = "generation_config.json"
# transformers' own values of these settings; any other value names a repository of compiled code on a hub.
IMPLEMENTATIONS = {
    "attn_implementation": (
        "eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4",
    ),
    "experts_implementation": ("eager", "batched_mm", "grouped_mm"),
}  # fmt: skip
# Fields of an adapter's config through which PEFT imports a module by its name or opens further adapters.
ADAPTER_CODE = ("megatron_config", "arrow_config")
# Generation settings for which transformers downloads code from a hub.
GENERATION_CODE = ("penalty_alpha", "dola_layers", "constraints", "force_words_ids")
# Generation settings that transformers takes as token ids without checking their type.
GENERATION_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def open_config(folder: Path) -> Any:
    """The transformers config of a folder.

    Errors: InputError for an unknown model type and one that needs its own code, MissingPackage, and any error of transformers.
    """
    try:
        from transformers import AutoConfig
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    except ImportError:
        raise MissingPackage(str(folder), "torch", "train") from None
    _never_ask()
    require_regular_files(folder)
    settings = _settings(folder / CONFIG)
    kind = settings.get("model_type")
    if kind not in CONFIG_MAPPING:
        if settings.get("auto_map"):
            reason = f"needs remote code for its model type {kind!r}, which is never run here"
            raise InputError(folder / CONFIG, reason, "Use a model type that transformers implements")
        reason = f"has the model type {kind!r}, which transformers does not know"
        raise InputError(folder / CONFIG, reason, "Update transformers")
    _refuse_kernels(settings, folder / CONFIG)
    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def config_of(settings: Mapping[str, Any], where: object) -> Any:
    """The transformers config from the contents of a config.json.

    Errors: InputError for one that names code on a hub, KeyError without a model type; any error of transformers.
    """
    from transformers import AutoConfig

    _refuse_kernels(settings, where)
    return AutoConfig.for_model(
        settings["model_type"], **{k: v for k, v in settings.items() if k != "model_type"}
    )


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder as transformers loads it, except that SentencePieceBackend decodes bytes as text.

    Errors: InputError for one that needs its own code, and for settings that are not valid JSON or whose length is not a
    number, which transformers accepts; any error of transformers.
    """
    from transformers import AutoTokenizer

    _never_ask()
    require_regular_files(folder)
    path = folder / TOKENIZER_CONFIG
    for name in ("special_tokens_map.json", "added_tokens.json"):
        if is_present(folder / name):
            read_object(folder / name, "Correct it, or remove it")
    settings = read_object(path, "Correct it") if is_present(path) else {}
    length = settings.get("model_max_length")
    if isinstance(length, bool) or not isinstance(length, int | float | None):
        message = f"has {ascii(length)[:40]} as its model_max_length, which is not a number"
        raise InputError(path, message, "Correct it")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except ValueError as error:
        if not settings.get("auto_map") or "trust_remote_code" not in str(error):
            raise
        reason = "names custom code for its tokenizer (auto_map), which is never run here"
        raise InputError(
            path, reason, "Use a tokenizer.json and a tokenizer_class of transformers"
        ) from error
    backend = getattr(tokenizer, "_tokenizer", None)
    if backend is not None:
        from zhllama.normalizer_panics import refuse_panic

        refuse_panic(backend, folder)
    if type(tokenizer).__name__ != "SentencePieceBackend":
        return tokenizer
    from zhllama.sentencepiece_backend import with_exact_decoder

    return with_exact_decoder(tokenizer)


def open_causal(folder: Path, config: Any, **loading: Any) -> Any:
    """The causal language model of a folder; with `output_loading_info` a pair of the model and the loading info.

    Errors: InputError for a folder with an adapter beside its weights; any error of transformers.
    """
    from transformers import AutoModelForCausalLM

    _never_ask()
    require_regular_files(folder)
    if is_present(folder / GENERATION_CONFIG):
        read_object(folder / GENERATION_CONFIG, "Correct it, or remove it")
    if is_present(folder / ADAPTER_CONFIG):
        # transformers would load it into the model silently, with everything that its config names.
        reason = "is an adapter beside a whole model, which transformers would silently load into it"
        raise InputError(folder / ADAPTER_CONFIG, reason, "Merge it into the model, or remove it")
    return AutoModelForCausalLM.from_pretrained(folder, config=config, trust_remote_code=False, **loading)


def open_gguf_config(path: Path) -> Any:
    """The transformers config of a GGUF file; any error of transformers."""
    from transformers import AutoConfig

    _never_ask()
    return AutoConfig.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)


def open_gguf(path: Path, config: Any, dtype: Any) -> Any:
    """The causal language model of a GGUF file, its weights converted to `dtype`, and the loading info.

    Nothing else in the file's folder may be a model's. Any error of transformers.
    """
    from transformers import AutoModelForCausalLM
    from transformers import modeling_gguf_pytorch_utils as reader
    from transformers.utils.quantization_config import GgufConfig

    _never_ask()
    # Its bar ignores `disable_progress_bar`; None shows it on a terminal only.
    bar = vars(reader)["tqdm"]
    vars(reader)["tqdm"] = bar if isinstance(bar, partial) else partial(bar, disable=None)
    return AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, config=config, dtype=dtype, trust_remote_code=False, output_loading_info=True,
        quantization_config=GgufConfig(dequantize=True),
    )  # fmt: skip


def build_causal(config: Any) -> Any:
    """A causal language model of a config with new weights. Errors: InputError for another kind of model, those of `_build`."""
    from transformers import AutoModelForCausalLM

    refuse_other_kinds(config, config.model_type)
    return _build(AutoModelForCausalLM, config)


def zeroed_row(config: Any) -> int | None:
    """The row of the embedding that transformers sets to zero whenever it opens a model of this config, as Youtu's padding row.

    The initialization of most types leaves weights alone that were loaded; it is tried on some.
    """
    import torch

    with torch.device("meta"):
        model = build_causal(config)
    row = getattr(model.get_input_embeddings(), "padding_idx", None)
    if row is None:
        return None
    loaded: Any = torch.nn.Embedding(row + 1, 1, padding_idx=row)
    torch.nn.init.ones_(loaded.weight)
    loaded.weight._is_hf_initialized = True
    model._init_weights(loaded)
    return None if loaded.weight[row].any() else int(row)


def refuse_other_kinds(config: Any, where: object) -> None:
    """Raise InputError for a model that is no causal language model; one with an encoder would be opened without it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = None
    if getattr(config, "is_encoder_decoder", False):
        kind = "is an encoder-decoder model"
    elif config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        kind = "is no causal language model in transformers"
    if kind is not None:
        raise InputError(where, kind, "Name a causal language model")


def build_scoring(config: Any) -> Any:
    """A model of a config with a scoring head and new weights; ValueError for an architecture without one."""
    from transformers import AutoModelForSequenceClassification

    return _build(AutoModelForSequenceClassification, config)


def _build(auto: Any, config: Any) -> Any:
    """Build a model; InputError for a padding token without a row, which some models refuse, any other error of transformers."""
    _never_ask()
    try:
        return auto.from_config(config, trust_remote_code=False)
    except AssertionError as error:
        text = config.get_text_config()
        if "padding_idx" not in str(error).lower():
            raise
        message = f"names id {text.pad_token_id} as pad_token_id, and has {text.vocab_size:,} rows"
        remedy = "Set pad_token_id in config.json to null, or to the id of a token that has a row"
        raise InputError(config.model_type, message, remedy) from error


def stored_names(model: Any, stored: Iterable[str]) -> dict[str, str]:
    """The parameter that transformers loads each stored tensor into, by the tensor's name.

    Tensors that transformers ignores are absent, and those that it converts: one part of several, or a transposed matrix.
    """
    return {key: name for key, name, whole in _renamed(model, stored) if whole}


def loaded_tensors(model: Any, stored: Iterable[str]) -> set[str]:
    """The stored tensors that transformers loads into a parameter, whole or as one part of it."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {key for key, name, _ in _renamed(model, stored) if name in parameters}


def unstored_parameters(model: Any, stored: Iterable[str]) -> list[str]:
    """The parameters for which no tensor is stored, neither whole nor in parts, nor for one that they are tied to."""
    reached = {name for _, name, _ in _renamed(model, stored)}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found = {id(parameters[name]) for name in reached if name in parameters}
    ignored = [
        re.compile(pattern) for pattern in getattr(model, "_keys_to_ignore_on_load_missing", None) or ()
    ]
    return [
        name
        for name, parameter in parameters.items()
        if id(parameter) not in found and not any(pattern.search(name) for pattern in ignored)
    ]


def uncounted_layer(model: Any, stored: Iterable[str]) -> str | None:
    """The first stored tensor of a layer beyond those that the config counts, which transformers would leave out in silence.

    Layers that predict further tokens, as DeepSeek's, are stored behind the others and left out rightly.
    """
    if getattr(model.config.get_text_config(), "num_nextn_predict_layers", None):
        return None
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    found = [match for name in model.state_dict() if (match := LAYER.match(name)) is not None]
    lists, layers = {match[1] for match in found}, {match[0] for match in found}
    for key in stored:
        for name in (key, f"{model.base_model_prefix}.{key}"):
            match = LAYER.match(name)
            beyond = match is not None and match[1] in lists and match[0] not in layers
            if beyond and not any(re.search(pattern, key) for pattern in ignored):
                return key
    return None


def renamed_layers(model: Any, layers: Iterable[str]) -> list[str]:
    """The layers whose weights transformers renames under the names that they have already.

    PEFT renames the tensors of adapters so too, and then does not find the layer, as for Laguna's `shared_experts`.
    """
    rename = _renaming(model)
    return [layer for layer in layers if rename(f"{layer}.weight")[0] != f"{layer}.weight"]


def _renamed(model: Any, stored: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
    """Each stored tensor, a parameter that it is loaded into, and whether it is that parameter as it is stored.

    Of a tensor that transformers splits into several parameters, each of these is given.
    """
    from transformers.core_model_loading import dot_natural_key

    state, rename = model.state_dict(), _renaming(model)
    for key in sorted(
        stored, key=dot_natural_key
    ):  # the order of transformers, on which some renamings depend
        name, converted, converters = rename(key)
        if name not in state and key in state:
            name, converted = key, None
        if name not in state:
            continue
        yield key, name, converted is None
        for target in () if converted is None else _further_targets(name, converted, converters):
            yield key, target, False


def _renaming(model: Any) -> Callable[[str], tuple[str, str | None, list[Any]]]:
    """transformers' renaming of stored names: the new name, the pattern of the converter that takes it, and all converters."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    state = model.state_dict()

    def rename(key: str) -> tuple[str, str | None, list[Any]]:
        return (
            *rename_source_key(key, renamings, converters, model.base_model_prefix, state),
            converters,
        )

    return rename


def _further_targets(name: str, source: str, converters: Iterable[Any]) -> Iterator[str]:
    """The other parameters that a converter makes of a tensor whose first one is `name`."""
    for converter in converters:
        first, *others = converter.target_patterns
        if source in converter.source_patterns and first in name:
            yield from (name.replace(first, other) for other in others)


def split_parameter(model: Any, name: str, values: Any) -> dict[str, Any]:
    """The tensors, by stored name, that transformers saves for one parameter: itself, or one tensor of each expert.

    Empty where transformers cannot convert it alone.
    """
    from transformers.core_model_loading import revert_weight_conversion

    try:
        return dict(revert_weight_conversion(model, {name: values}))
    except Exception:  # conversions of several parameters into one tensor fail anywhere in transformers
        return {}


def open_adapter(model: Any, folder: Path, name: str = "default") -> Any:
    """A PEFT model of `model` and the LoRA adapter in a folder; if `model` is a PEFT model already, the adapter is added.

    Errors: InputError for an adapter of another type and one that names code, MissingPackage; any error of PEFT.
    """
    try:
        from peft import PeftModel
    except ImportError:
        raise MissingPackage(str(folder), "peft", "train") from None
    require_regular_files(folder)
    path = folder / ADAPTER_CONFIG
    settings = _settings(path)
    if settings.get("peft_type") != "LORA":
        reason = f"is an adapter of type {settings.get('peft_type')!r}, not LORA"
        raise InputError(path, reason, "Merge it with the program that wrote it")
    if code := next((key for key in ADAPTER_CODE if settings.get(key)), None):
        reason = f"sets {code}, which would load code or models that it names"
        raise InputError(path, reason, "Merge it with the program that wrote it")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=name)
        else:
            model = PeftModel.from_pretrained(model, str(folder), adapter_name=name)
    for warning in told:
        _refuse_lost(folder, name, str(warning.message))
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return model


def _refuse_lost(folder: Path, adapter: str, warning: str) -> None:
    """Raise InputError where PEFT warns that a tensor is missing which the file has: it was renamed on its way into the model."""
    path = folder / "adapter_model.safetensors"
    if "missing adapter keys" not in warning or not path.is_file():
        return
    for key in read_header(path):
        stem, _, end = key.rpartition(".")
        if f"'{stem}.{adapter}.{end}'" in warning:
            message = f"contains {key}, which PEFT does not load into this type of model"
            raise InputError(
                folder, message, "Train adapters of other layers (`lora_module`), or update PEFT"
            )


def check_generation_ids(settings: Any, where: object) -> None:
    """Raise InputError for a generation config whose token ids are not ids, which transformers does not check."""
    for key in GENERATION_IDS:
        value = getattr(settings, key, None)
        ids = value if isinstance(value, list) else [value]
        if any(id is not None and (not isinstance(id, int) or isinstance(id, bool)) for id in ids):
            reason = f"sets {key} to {str(value)[:40]!r} in its generation config, which is not a token id"
            raise InputError(where, reason, f"Correct {key} in generation_config.json")


def refuse_generation_code(model: Any, where: object) -> None:
    """Raise InputError for a generation config that makes transformers download code, or whose token ids are not ids."""
    settings = model.generation_config
    check_generation_ids(settings, where)
    refused = [key for key in GENERATION_CODE if getattr(settings, key, None)]
    if (getattr(settings, "num_beam_groups", None) or 1) > 1:
        refused.append("num_beam_groups")
    if refused:
        reason = f"sets {refused[0]} in its generation config, for which transformers would download code from a hub; it is never run here"
        raise InputError(where, reason, f"Remove {refused[0]} from generation_config.json")


def _never_ask() -> None:
    """Make transformers refuse, instead of prompting, where a library opens something without `trust_remote_code`."""
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0


def _settings(path: Path) -> Mapping[str, Any]:
    """The object in a JSON file; empty if it cannot be read, which the library that opens it next reports."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _refuse_kernels(settings: Mapping[str, Any], where: object) -> None:
    for key, value in _foreign_implementations(settings):
        reason = f"names {value!r} as its {key}, code on a hub, which is never run here"
        raise InputError(where, reason, f"Remove {key} from the file")


def _foreign_implementations(settings: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Each (key, implementation) in a config or its parts that transformers does not have."""
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            setting = str(name).strip("_").removesuffix("_internal")
            yield from _foreign_implementations(value, setting if setting in IMPLEMENTATIONS else key)
    elif isinstance(settings, list):
        for value in settings:
            yield from _foreign_implementations(value, key)
    elif key and isinstance(settings, str) and settings not in IMPLEMENTATIONS[key]:
        yield key, settings
