"""Builds a small random model of any causal language model of transformers, by shrinking the sizes in its default config."""

from typing import Any

import torch

ROWS = 600
LARGEST = 7_000_000  # parameters of a toy; a larger one has a size that is not known here

# The small value of each size, by the names that configs have for it.
SIZES: dict[str, Any] = {}
for _value, _names in {
    64: "hidden_size n_embd d_model embed_dim embedding_size dim word_embed_proj_dim emb_dim model_dim"
    " attention_hidden_size dim_model width lru_width",
    2: "num_hidden_layers n_layer num_layers n_layers decoder_layers encoder_layers num_decoder_layers num_encoder_layers"
    " num_key_value_heads num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts num_kv_heads"
    " linear_num_key_heads moe_top_k num_nextn_predict_layers",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads num_experts"
    " num_local_experts n_routed_experts linear_num_value_heads moe_num_experts num_attn_heads",
    96: "intermediate_size ffn_dim n_inner decoder_ffn_dim encoder_ffn_dim ffn_hidden_size d_ff d_inner"
    " ffn_hidden_dim hidden_dim mlp_hidden_size dff",
    16: "head_dim kv_lora_rank v_head_dim linear_key_head_dim linear_value_head_dim attention_head_dim kv_channels"
    " global_head_dim mamba_d_head mamba_head_dim d_kv head_size key_head_dim value_head_dim hidden_size_per_layer_input"
    " latent_size index_head_dim o_lora_rank dim_att qk_nope_head_dim mamba_d_state ssm_state_size state_size mamba_state_size",
    24: "q_lora_rank",
    8: "qk_rope_head_dim time_step_rank mamba_num_heads mamba_n_heads index_n_heads",
    32: "moe_intermediate_size shared_expert_intermediate_size expert_hidden_size moe_shared_expert_intermediate_size"
    " shared_intermediate_size expert_ffn_hidden_size chunk_size mamba_chunk_size moe_latent_size index_topk"
    " conv_hidden_size",
    1: "n_group topk_group first_k_dense_replace n_groups mamba_n_groups n_shared_experts moe_layer_start_index",
    512: "max_position_embeddings n_positions n_ctx max_seq_len seq_length",
    ROWS: "vocab_size vocab_size_per_layer_input entity_vocab_size decoder_vocab_size",
}.items():
    SIZES |= dict.fromkeys(_names.split(), _value)
# Sizes of a family that follow from others.
OVERRIDES: dict[str, dict[str, Any]] = {
    "codegen": {"rotary_dim": 8},
    "gptj": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "dbrx": {
        "max_seq_len": 512,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "mamba2": {"num_heads": 8, "head_dim": 16, "expand": 2, "n_groups": 1},
    "zaya": {"num_experts_per_tok": 1},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_expand": 2},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "falcon_h1": {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_ssm": 128, "mamba_expand": 2},
    "granitemoehybrid": {
        "layer_types": ["linear_attention", "full_attention"],
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
    },
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "full_attention"],
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
    },
    "roc_bert": {"pronunciation_vocab_size": 60, "shape_vocab_size": 60},
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
    "reformer": {"is_decoder": True, "attn_layers": ["local", "local"], "axial_pos_embds": False},
    "glm4_moe_lite": {"layer_types": None},
    "bailing_hybrid": {"num_expert_group": 1},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3_text": {"num_hidden_layers": 6, "layer_types": None, "query_pre_attn_scalar": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"], "mamba_headdim": 16, "n_mamba_heads": 8},
}
NOT_TEXT = ("vision_config", "audio_config", "speech_config", "vq_config", "encoder_config")


def toy_config(model_type: str, **more: Any) -> Any:
    """The default config of a model type with small sizes."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    settings = {**_small(CONFIG_MAPPING[model_type]), **OVERRIDES.get(model_type, {}), **more}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 2}
    return CONFIG_MAPPING[model_type](**{**ids, **settings})


def _small(config_class: Any) -> dict[str, Any]:
    default = config_class()
    aliases = getattr(config_class, "attribute_map", {}) or {}
    settings: dict[str, Any] = {}
    for name, size in SIZES.items():
        value = _value_of(default, name)
        known = name in default.to_dict() and aliases.get(name, name) == name
        if known and ((isinstance(value, int) and not isinstance(value, bool) and value > 0) or (value is None and name in ("head_dim", "n_inner", "num_key_value_heads"))):  # fmt: skip
            settings[name] = size
    for name, part in (getattr(config_class, "sub_configs", None) or {}).items():
        if hasattr(part, "model_type") and name not in NOT_TEXT:
            settings[name] = _small(part)
    if (window := getattr(default, "sliding_window", None)) is not None:
        settings["sliding_window"] = min(window, 128)
    if (
        "kv_lora_rank" in settings and "num_key_value_heads" in settings
    ):  # latent attention has a key for each head
        settings["num_key_value_heads"] = settings.get("num_attention_heads", 4)
        settings.pop("head_dim", None)  # which follows from the parts of a key
    if "n_routed_experts" in settings:
        settings |= {name: 1 for name in ("n_group", "topk_group") if hasattr(default, name)}
    kinds = getattr(default, "layer_types", None)
    stored_as = aliases.get("layer_types", "layer_types")
    if isinstance(kinds, list) and not isinstance(getattr(config_class, stored_as, None), property):
        settings["layer_types"] = _first_two(kinds)
    return settings


def _value_of(config: Any, name: str) -> Any:
    """A setting of a config; None where it has none, or another one for each layer."""
    try:
        return getattr(config, name, None)
    except Exception:  # transformers' own type for settings that differ between layers
        return None


def _first_two(kinds: list[str]) -> list[str]:
    """The first two different kinds of layers, so that a toy of two layers has both."""
    different = list(dict.fromkeys(kinds))
    return (different * 2)[:2]


def toy_model(model_type: str) -> Any:
    """A random model of two layers. Errors: ValueError for one that is too large, any error of transformers."""
    from transformers import AutoModelForCausalLM

    config = toy_config(model_type)
    with torch.device("meta"):
        size = AutoModelForCausalLM.from_config(config, trust_remote_code=False).num_parameters()
    if size > LARGEST:
        raise ValueError(f"{size:,} parameters in the smallest size that is known")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2 and parameter.is_floating_point():
                parameter.normal_(0, 0.1)
        embedding = model.get_input_embeddings()
        if (
            getattr(embedding, "padding_idx", None) is not None
        ):  # which some types set to zero when they are opened
            embedding.weight[embedding.padding_idx] = 0
    return model
