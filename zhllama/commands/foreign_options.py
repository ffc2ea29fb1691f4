"""Names of options in other trainers: for each, the error about an unknown option names zhllama's own.

docs/how-to/options-of-other-trainers.md shows the same table.
"""

from collections.abc import Collection
from typing import Any

TRAINERS = ("LLaMA-Factory", "trl", "axolotl", "ms-swift")
# By our flag, without its hyphens: the names in each of TRAINERS, trl's with those of TrainingArguments and ModelConfig.
NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "model": (("model_name_or_path",), ("model_name_or_path",), ("base_model",), ("model",)),
    "tokenizer": ((), (), ("tokenizer_config",), ()),
    "data": (("dataset", "dataset_dir"), ("dataset_name",), ("datasets",), ("dataset",)),
    "text": (("dataset",), ("dataset_name",), ("pretraining_dataset", "datasets"), ("dataset",)),
    "eval-data": (("eval_dataset",), (), ("test_datasets",), ("val_dataset",)),
    "out": (("output_dir",), ("output_dir",), ("output_dir",), ("output_dir",)),
    "force": (("overwrite_output_dir",), ("overwrite_output_dir",), (), ()),
    "resume": (("resume_from_checkpoint",), ("resume_from_checkpoint",), ("resume_from_checkpoint", "auto_resume_from_checkpoints"), ("resume_from_checkpoint",)),
    "lr": (("learning_rate",), ("learning_rate",), ("learning_rate",), ("learning_rate",)),
    "epochs": (("num_train_epochs",), ("num_train_epochs",), ("num_epochs",), ("num_train_epochs",)),
    "steps": (("max_steps",), ("max_steps",), ("max_steps",), ("max_steps",)),
    "micro-batch": (("per_device_train_batch_size",), ("per_device_train_batch_size",), ("micro_batch_size",), ("per_device_train_batch_size",)),
    "batch": (("gradient_accumulation_steps",), ("gradient_accumulation_steps",), ("gradient_accumulation_steps",), ("gradient_accumulation_steps",)),
    "max-length": (("cutoff_len",), ("max_length", "max_seq_length"), ("sequence_len",), ("max_length",)),
    "block-size": (("cutoff_len",), ("max_length", "max_seq_length"), ("sequence_len",), ("max_length",)),
    "lora-rank": (("lora_rank",), ("lora_r",), ("lora_r",), ("lora_rank",)),
    "lora-alpha": (("lora_alpha",), ("lora_alpha",), ("lora_alpha",), ("lora_alpha",)),
    "lora-dropout": (("lora_dropout",), ("lora_dropout",), ("lora_dropout",), ("lora_dropout",)),
    "lora-module": (("lora_target",), ("lora_target_modules",), ("lora_target_modules",), ("target_modules",)),
    "full": (("finetuning_type",), ("use_peft",), ("adapter",), ("train_type", "tuner_type")),
    "load-in-4bit": (("quantization_bit",), ("load_in_4bit",), ("load_in_4bit",), ("quant_bits",)),
    "precision": (("bf16", "fp16"), ("bf16", "fp16", "torch_dtype", "dtype"), ("bf16", "fp16"), ("torch_dtype",)),
    "schedule": (("lr_scheduler_type",), ("lr_scheduler_type",), ("lr_scheduler",), ("lr_scheduler_type",)),
    "warmup": (("warmup_ratio", "warmup_steps"), ("warmup_ratio", "warmup_steps"), ("warmup_ratio", "warmup_steps"), ("warmup_ratio",)),
    "weight-decay": (("weight_decay",), ("weight_decay",), ("weight_decay",), ("weight_decay",)),
    "gradient-checkpointing": (("disable_gradient_checkpointing",), ("gradient_checkpointing",), ("gradient_checkpointing",), ("gradient_checkpointing",)),
    "attention": (("flash_attn",), ("attn_implementation",), ("flash_attention", "sdp_attention", "flex_attention"), ("attn_impl",)),
    "compile": (("torch_compile",), ("torch_compile",), ("torch_compile",), ("torch_compile",)),
    "log-every": (("logging_steps",), ("logging_steps",), ("logging_steps",), ("logging_steps",)),
    "save-every": (("save_steps",), ("save_steps",), ("save_steps", "saves_per_epoch"), ("save_steps",)),
    "eval-every": (("eval_steps",), ("eval_steps",), ("eval_steps", "evals_per_epoch"), ("eval_steps",)),
    "validation-share": (("val_size",), (), ("val_set_size",), ("split_dataset_ratio",)),
    "template": (("template",), ("chat_template_path",), ("chat_template",), ("template",)),
    "stream": (("streaming",), ("dataset_streaming",), ("streaming",), ("streaming",)),
    "cache": (("tokenized_path",), (), ("dataset_prepared_path",), ()),
    "beta": (("pref_beta",), ("beta",), ("rl_beta",), ("beta",)),
    "seed": (("seed",), ("seed",), ("seed",), ("seed",)),
    "adapter": (("adapter_name_or_path",), (), ("lora_model_dir",), ("adapters",)),
}  # fmt: skip
# Names in other places: transformers, PEFT, Megatron, tokenizer scripts, OpenAI clients.
ALSO: dict[str, tuple[str, ...]] = {
    "model": ("model_id_or_path", "model_name", "pretrained_model_name_or_path"),
    "tokenizer": ("tokenizer_name_or_path", "tokenizer_name", "tokenizer_path"),
    "data": ("train_dataset", "train_file", "data_path"),
    "text": ("train_file", "data_path"),
    "eval-text": ("eval_dataset", "validation_file"),
    "out": ("output_path", "save_dir", "output"),
    "epochs": ("num_epochs",),
    "steps": ("train_iters",),
    "micro-batch": ("batch_size", "train_micro_batch_size_per_gpu"),
    "batch": ("global_batch_size", "train_batch_size"),
    "block-size": ("seq_length",),
    "max-length": ("model_max_length", "max_seq_len"),
    "lora-rank": ("r", "rank"),
    "lora-module": ("lora_modules",),
    "log-every": ("log_interval",),
    "save-every": ("save_interval",),
    "eval-every": ("eval_interval",),
    "base-url": ("api_base", "openai_api_base", "endpoint"),
    "size": ("vocab_size", "vocabulary_size"),
    "zh": ("chinese_sp_model_file", "chinese_sp_model"),
    "base": ("llama_tokenizer_dir", "llama_tokenizer", "base_tokenizer"),
    "adapter": ("lora_model", "lora_path", "peft_model"),
    "gguf": ("outfile", "export_gguf"),
}


def our_options(name: str, flags: Collection[str]) -> list[str]:
    """Those of a command's `flags` that are called `name` elsewhere, or that differ from it in hyphens and underscores only."""
    key = name.lstrip("-").replace("-", "_").lower()
    called = [flag for flag, names in NAMES.items() if any(key in group for group in names)]
    called += [flag for flag, names in ALSO.items() if key in names]
    spelled = [flag.lstrip("-") for flag in flags if flag.lstrip("-").replace("-", "_") == key]
    return [flag for ours in dict.fromkeys((*spelled, *called)) if (flag := f"--{ours}") in flags]


def suggest(error: Any) -> None:
    """Make an error about an unknown option name ours, if the command has one of that meaning, or takes it without a name."""
    command = getattr(getattr(error, "ctx", None), "command", None)
    name = str(getattr(error, "option_name", "")).partition("=")[0]
    if command is None or not hasattr(error, "possibilities"):
        return
    flags = [flag for param in command.params if not getattr(param, "hidden", False) for flag in param.opts]
    if ours := our_options(name, flags):
        error.message, error.possibilities = (
            f"No such option: {name}. Did you mean {' or '.join(ours)}?",
            None,
        )
        return
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    shown = {p.name: p.metavar or p.name.upper() for p in arguments}
    key = name.lstrip("-").replace("-", "_").lower()
    if place := next((place for own, place in shown.items() if key in (own, place.lower())), None):
        given = f"{error.ctx.command_path} {place}"
        error.message, error.possibilities = (
            f"No such option: {name}. Give the value alone: {given}",
            None,
        )
