"""Hugging Face's config.json and our TransformerConfig, both ways; of transformers 4 and 5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aya_jax.config import UserError
from aya_jax.interop.architectures import ARCHITECTURES, COHERE2, LLAMA, architecture_of
from aya_jax.models.config import TransformerConfig

_MODEL_TYPES = {"CohereForCausalLM": "cohere", "Cohere2ForCausalLM": "cohere2", "LlamaForCausalLM": "llama"}
# What transformers takes where config.json says nothing.
_ROPE_THETA = {"CohereForCausalLM": 500_000.0, "Cohere2ForCausalLM": 10_000.0, "LlamaForCausalLM": 10_000.0}
_WINDOW = 4096
_PATTERN = 4


def read_config(fields: Mapping[str, Any], where: str) -> TransformerConfig:
    """The configuration of a model.

    Args:
      fields: of config.json.
      where: the file, for errors.

    Raises:
      UserError: the architecture is unknown, or a field asks for what this project's models do not compute.
    """
    architecture = _architecture(fields, where)
    ask = _Asker(fields, where)
    ask.must_be("hidden_act", "silu")
    for name in ("attention_bias", "mlp_bias"):
        ask.must_be(name, False)
    heads = ask.number("num_attention_heads")
    width = ask.number("hidden_size")
    shared = {
        "vocab_size": ask.number("vocab_size"),
        "embed_dim": width,
        "num_layers": ask.number("num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": fields.get("num_key_value_heads") or heads,
        "head_dim": fields.get("head_dim") or width // heads,
        "mlp_dim": ask.number("intermediate_size"),
        "max_sequence_length": fields.get("max_position_embeddings", 8192),
        "initializer_range": fields.get("initializer_range", 0.02),
        "tie_embeddings": fields.get("tie_word_embeddings", architecture != LLAMA),
    }
    shared |= _rope(fields, ask, architecture)
    if architecture == LLAMA:
        shared |= {"block": "sequential", "norm": "rms_norm", "rope_layout": "half"}
        return TransformerConfig(**shared, norm_eps=fields.get("rms_norm_eps", 1e-6))
    shared |= {"norm_eps": fields.get("layer_norm_eps", 1e-5), "logit_scale": fields.get("logit_scale", 0.0625)}
    if architecture == COHERE2:
        return TransformerConfig(**shared, **_windows(fields, ask, shared["num_layers"]))
    return TransformerConfig(**shared, qk_norm=bool(fields.get("use_qk_norm", False)))


def write_config(config: TransformerConfig, original: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """config.json of a model.

    Args:
      config: the model.
      original: fields to keep where the model does not decide them: token ids, names.
      dtype: of its tensors, as "bfloat16".

    Raises:
      UserError: no architecture computes this.
    """
    architecture = architecture_of(config)
    theta: dict[str, Any] = {"rope_theta": config.rope_theta}
    rope: dict[str, Any] = {"rope_type": "default"}
    if config.rope_scaling == "llama3":
        rope = {
            "rope_type": "llama3",
            "factor": config.rope_scaling_factor,
            "low_freq_factor": config.rope_low_frequency_factor,
            "high_freq_factor": config.rope_high_frequency_factor,
            "original_max_position_embeddings": config.rope_original_length,
        }
    fields = {
        **{name: value for name, value in original.items() if name not in ("torch_dtype", "dtype", "rope_scaling")},
        "architectures": [architecture],
        "model_type": _MODEL_TYPES[architecture],
        "dtype": dtype,
        "torch_dtype": dtype,
        "vocab_size": config.vocab_size,
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.mlp_dim,
        "max_position_embeddings": config.max_sequence_length,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        **theta,
        "rope_parameters": rope | theta,
    }
    if config.rope_scaling != "none":
        fields["rope_scaling"] = rope
    if architecture == LLAMA:
        return fields | _checked(config, {"rms_norm_eps": config.norm_eps, "mlp_bias": False}, _LLAMA_NEEDS)
    fields |= {"layer_norm_eps": config.norm_eps, "logit_scale": config.logit_scale}
    if architecture != COHERE2:
        return fields | _checked(config, {"use_qk_norm": config.qk_norm}, _COHERE_NEEDS)
    period = config.sliding_window_pattern
    if period is None:
        kinds = ["sliding_attention"] * config.num_layers
    else:
        kinds = (["sliding_attention"] * (period - 1) + ["full_attention"]) * (config.num_layers // period)
        fields["sliding_window_pattern"] = period
    windows = {"sliding_window": config.sliding_window, "layer_types": kinds}
    return fields | _checked(config, windows, _COHERE_NEEDS | {"qk_norm": (False,), "rope_on_full_layers": (False,)})


_COHERE_NEEDS = {"norm": ("layer_norm",), "rope_layout": ("interleaved",), "rope_scaling": ("none",)}
_LLAMA_NEEDS = {"norm": ("rms_norm",), "rope_layout": ("half",), "qk_norm": (False,), "logit_scale": (1.0,)}
_LLAMA_NEEDS |= {"sliding_window": (None,)}


def _checked(config: TransformerConfig, fields: dict[str, Any], needs: Mapping[str, tuple]) -> dict[str, Any]:
    for name, allowed in needs.items():
        value = getattr(config, name)
        # Without a pattern there are no full layers to rotate or not.
        if value not in allowed and not (name == "rope_on_full_layers" and config.sliding_window_pattern is None):
            raise UserError(
                f"TransformerConfig.{name} = {value!r}: {architecture_of(config)} computes "
                f"{' or '.join(map(repr, allowed))} alone; this model cannot be written for transformers"
            )
    return fields


class _Asker:
    """Reads fields and says which one is wrong."""

    def __init__(self, fields: Mapping[str, Any], where: str):
        self._fields, self._where = fields, where

    def number(self, name: str) -> int:
        value = self._fields.get(name)
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{self._where}: {name} = {value!r}: expected a positive whole number")
        return value

    def must_be(self, name: str, expected: Any) -> None:
        value = self._fields.get(name, expected)
        if value != expected:
            raise UserError(f"{self._where}: {name} = {value!r}: only {expected!r} is supported")

    def refuse(self, name: str, value: Any, reason: str) -> UserError:
        return UserError(f"{self._where}: {name} = {value!r}: {reason}")


def _architecture(fields: Mapping[str, Any], where: str) -> str:
    named = (fields.get("architectures") or [None])[0]
    by_type = {model_type: name for name, model_type in _MODEL_TYPES.items()}
    architecture = named or by_type.get(fields.get("model_type", ""))
    if architecture not in ARCHITECTURES:
        shown = architecture or fields.get("model_type")
        raise UserError(f"{where}: architecture {shown!r} is not known; there are {', '.join(ARCHITECTURES)}")
    return architecture


def _rope(fields: Mapping[str, Any], ask: _Asker, architecture: str) -> dict[str, Any]:
    parameters = dict(fields.get("rope_scaling") or {}) | dict(fields.get("rope_parameters") or {})
    theta = parameters.get("rope_theta", fields.get("rope_theta", _ROPE_THETA[architecture]))
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    rope: dict[str, Any] = {"rope_theta": float(theta)}
    if kind == "default":
        return rope
    if kind != "llama3" or architecture != LLAMA:
        raise ask.refuse("rope_type", kind, "only 'default', and for LlamaForCausalLM 'llama3', are supported")
    names: dict[str, tuple[str, Callable]] = {
        "rope_scaling_factor": ("factor", float),
        "rope_low_frequency_factor": ("low_freq_factor", float),
        "rope_high_frequency_factor": ("high_freq_factor", float),
        "rope_original_length": ("original_max_position_embeddings", int),
    }
    for ours, (theirs, kind_of) in names.items():
        if theirs not in parameters:
            raise ask.refuse("rope_parameters", parameters, f"{theirs} is missing")
        rope[ours] = kind_of(parameters[theirs])
    return rope | {"rope_scaling": "llama3"}


def _windows(fields: Mapping[str, Any], ask: _Asker, num_layers: int) -> dict[str, Any]:
    window = fields.get("sliding_window", _WINDOW)
    if fields.get("layer_types"):
        full = [kind == "full_attention" for kind in fields["layer_types"]]
        if len(full) != num_layers:
            raise ask.refuse("layer_types", fields["layer_types"], f"expected one for each of {num_layers} layers")
        period = full.index(True) + 1 if any(full) else None
    else:
        period = fields.get("sliding_window_pattern", _PATTERN)
        full = [(index + 1) % period == 0 for index in range(num_layers)]
    if period is None:
        return {"sliding_window": window}
    regular = period >= 2 and num_layers % period == 0
    if not regular or full != ([False] * (period - 1) + [True]) * (num_layers // period):
        raise ask.refuse(
            "layer_types", fields.get("layer_types"), "only a full layer after every n - 1 sliding ones is supported"
        )
    return {"sliding_window": window, "sliding_window_pattern": period, "rope_on_full_layers": False}
