//! The keys of `config.json`, completed: an absent key means the default of transformers' configuration class for that
//! model type. `tests/fixtures/config/make_config.py` asks those classes; a test of `families.rs` compares.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// Keys that say "none" with null: no window, no cap, as many key-value heads as query heads. For all other keys null
/// means absent.
const NULL_IS_A_VALUE: [&str; 4] =
    ["sliding_window", "attn_logit_softcapping", "final_logit_softcapping", "num_key_value_heads"];

/// GPT-2's classes know some keys under two names; transformers takes the second if a file has both.
const SYNONYMS: [(&str, &str); 4] = [
    ("n_embd", "hidden_size"),
    ("n_layer", "num_hidden_layers"),
    ("n_head", "num_attention_heads"),
    ("n_positions", "max_position_embeddings"),
];

/// Fills in what a file leaves out, and checks that a key which has a default has a value of the same kind.
pub(super) fn complete(path: &Path, model_type: &str, keys: &mut Map<String, Value>) -> Result<()> {
    keys.retain(|key, value| !value.is_null() || NULL_IS_A_VALUE.contains(&key.as_str()));
    if model_type == "gpt2" {
        for (key, synonym) in SYNONYMS {
            if let Some(value) = keys.remove(synonym) {
                keys.insert(key.to_string(), value);
            }
        }
    }
    let Value::Object(defaults) = defaults(model_type) else { return Ok(()) };
    for (key, default) in defaults {
        let Some(value) = keys.get(&key) else {
            keys.insert(key, default);
            continue;
        };
        let (is_right, kind) = match &default {
            Value::Bool(_) => (value.is_boolean(), "true or false"),
            Value::String(_) => (value.is_string(), "a text"),
            Value::Number(number) if number.is_u64() => (value.is_u64() || value.is_null(), "a whole number"),
            _ => (value.is_number() || value.is_null(), "a number"),
        };
        if !is_right {
            let hint = "Mend it, or get it again from the source of the model";
            return Err(Error::malformed(path, format!("`{key}` to be {kind}"), value.to_string(), hint));
        }
    }
    Ok(())
}

/// A real number here may be written as a whole number in a file, but not the other way round.
fn defaults(model_type: &str) -> Value {
    match model_type {
        "llama" => json!({
            "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "intermediate_size": 11008,
            "vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "hidden_act": "silu",
            "rope_theta": 10000.0, "tie_word_embeddings": false,
        }),
        "mistral" => json!({
            "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
            "intermediate_size": 14336, "vocab_size": 32000, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6,
            "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": false, "sliding_window": 4096,
        }),
        "qwen2" => json!({
            "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 32,
            "intermediate_size": 22016, "vocab_size": 151936, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
            "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": false, "sliding_window": 4096,
            "use_sliding_window": false, "max_window_layers": 28,
        }),
        "qwen3" => json!({
            "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 32,
            "head_dim": 128, "intermediate_size": 22016, "vocab_size": 151936, "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": false,
            "sliding_window": 4096, "use_sliding_window": false, "max_window_layers": 28,
        }),
        "gemma" => json!({
            "num_hidden_layers": 28, "hidden_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 16,
            "head_dim": 256, "intermediate_size": 24576, "vocab_size": 256000, "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh", "rope_theta": 10000.0,
            "tie_word_embeddings": true,
        }),
        "gemma2" => json!({
            "num_hidden_layers": 26, "hidden_size": 2304, "num_attention_heads": 8, "num_key_value_heads": 4,
            "head_dim": 256, "intermediate_size": 9216, "vocab_size": 256000, "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh", "rope_theta": 10000.0,
            "tie_word_embeddings": true, "query_pre_attn_scalar": 256.0, "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0, "sliding_window": 4096,
        }),
        "gemma3_text" => json!({
            "num_hidden_layers": 26, "hidden_size": 2304, "num_attention_heads": 8, "num_key_value_heads": 4,
            "head_dim": 256, "intermediate_size": 9216, "vocab_size": 262208, "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh", "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0, "tie_word_embeddings": true, "query_pre_attn_scalar": 256.0,
            "sliding_window": 4096, "sliding_window_pattern": 6,
        }),
        "gpt2" => json!({
            "n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 1024,
            "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "scale_attn_weights": true,
            "scale_attn_by_inverse_layer_idx": false, "tie_word_embeddings": true,
        }),
        "gpt_neox" => json!({
            "num_hidden_layers": 44, "hidden_size": 6144, "num_attention_heads": 64, "intermediate_size": 24576,
            "vocab_size": 50432, "max_position_embeddings": 2048, "layer_norm_eps": 1e-5, "hidden_act": "gelu",
            "rotary_pct": 0.25, "rotary_emb_base": 10000.0, "use_parallel_residual": true,
            "tie_word_embeddings": false,
        }),
        "phi3" => json!({
            "num_hidden_layers": 32, "hidden_size": 3072, "num_attention_heads": 32, "intermediate_size": 8192,
            "vocab_size": 32064, "max_position_embeddings": 4096, "original_max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": false,
        }),
        "olmo2" => json!({
            "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "intermediate_size": 11008,
            "vocab_size": 50304, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "hidden_act": "silu",
            "rope_theta": 10000.0, "tie_word_embeddings": false,
        }),
        _ => Value::Null,
    }
}
