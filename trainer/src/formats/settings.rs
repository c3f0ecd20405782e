//! [`Rule`]: the treatment of each setting in the config of another tool's SAE. One table per tool has every key that a
//! version of the tool has written, so that no setting is dropped without a decision.
//!
//! | rule | what happens |
//! |---|---|
//! | `Computed` | it is part of what the SAE computes: honored, or refused if refract does not have the computation |
//! | `Origin` | it says what the SAE was trained on: kept, compared with the activations, or needed to place it |
//! | `Said` | it says that the SAE saw other activations than refract gives it: loading warns, unless it is off |
//! | `Record` | it steered the training or the program; the finished SAE does not depend on it: left out |
//!
//! A key in no table is refused in the configs of SAELens 6 and sparsify, which have few keys, and warned about in the
//! others.

use serde_json::{Map, Value};

use super::settings::Rule::{Computed, Origin, Record, Said};

/// The treatment of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Computed,
    Origin,
    /// Its meaning for the SAE, to follow "`key` VALUE: ".
    Said(&'static str),
    Record,
}

/// The settings of one tool.
pub(super) type Table = &'static [(Rule, &'static [&'static str])];

const POSITIONS: &str = "it was trained on these positions of a context only, and is used at all of them here";
const SPECIAL_TOKENS: &str = "it was trained without special tokens, which are not left out here";
const BOS_REMOVED: &str = "it was trained without BOS tokens; refract leaves out position 0 only";

/// SAELens: `cfg.json` of all versions, and `metadata` in those of version 6.
pub(super) const SAELENS: Table = &[
    (
        Computed,
        &[
            "d_in",
            "d_sae",
            "d_out",
            "architecture",
            "k",
            "rescale_acts_by_decoder_norm",
            "apply_b_dec_to_input",
            "normalize_activations",
            "reshape_activations",
            "activation_fn",
            "activation_fn_str",
            "activation_fn_kwargs",
            "metadata",
            // Ours only.
            "activation",
            "columns",
        ],
    ),
    (
        Origin,
        &[
            "hook_name",
            "hook_point",
            "hook_name_out",
            "hook_head_index",
            "hook_point_head_index",
            "hook_head_index_out",
            "model_name",
            "model_class_name",
            "model_from_pretrained_kwargs",
            "context_size",
            "prepend_bos",
            "dataset_path",
            "sae_lens_version",
        ],
    ),
    (Said(POSITIONS), &["seqpos_slice"]),
    (Said(SPECIAL_TOKENS), &["exclude_special_tokens"]),
    (
        Record,
        &[
            // Precision and device: refract computes in f32. Finetuned scales are tensors, which are checked.
            "dtype",
            "device",
            "finetuning_scaling_factor",
            // The data of the training.
            "sae_lens_training_version",
            "training_architecture",
            "training_architecture_details",
            "neuronpedia_id",
            "hf_hook_name",
            "hf_hook_name_out",
            "l0",
            "num_dead_features",
            "hook_eval",
            "hook_point_eval",
            "hook_layer",
            "hook_point_layer",
            "dataset_trust_remote_code",
            "is_dataset_tokenized",
            "streaming",
            "tokenizer_name",
            "sequence_separator_token",
            "disable_concat_sequences",
            "use_chat_formatting",
            "use_cached_activations",
            "cached_activations_path",
            "new_cached_activations_path",
            "activations_mixing_fraction",
            "model_kwargs",
            "training_tokens",
            "total_training_tokens",
            "total_training_samples",
            "finetuning_tokens",
            "finetuning_method",
            // The loss, the optimizer and the schedule.
            "l1_coefficient",
            "l1_warm_up_steps",
            "lp_norm",
            "l0_coefficient",
            "l0_warm_up_steps",
            "target_l0",
            "pre_act_loss_coefficient",
            "aux_loss_coefficient",
            "use_matryoshka_aux_loss",
            "matryoshka_widths",
            "mse_loss_normalization",
            "scale_sparsity_penalty_by_decoder_norm",
            "jumprelu_init_threshold",
            "jumprelu_bandwidth",
            "jumprelu_sparsity_loss_mode",
            "jumprelu_tanh_scale",
            "jumprelu_ste_to_input",
            "topk_threshold_lr",
            "use_sparse_activations",
            "use_ghost_grads",
            "ghost_grads_coefficient",
            "noise_scale",
            "lr",
            "lr_end",
            "lr_scheduler_name",
            "lr_warm_up_steps",
            "lr_decay_steps",
            "n_restart_cycles",
            "adam_beta1",
            "adam_beta2",
            "warm_up_steps",
            "train_batch_size",
            "train_batch_size_tokens",
            "train_batch_size_samples",
            "normalize_sae_decoder",
            "b_dec_init_method",
            "decoder_init_norm",
            "decoder_orthogonal_init",
            "decoder_heuristic_init",
            "decoder_heuristic_init_norm",
            "init_encoder_as_decoder_transpose",
            "expansion_factor",
            "seed",
            // The rest of the program.
            "from_pretrained_path",
            "store_batch_size",
            "store_batch_size_prompts",
            "n_batches_in_buffer",
            "n_batches_for_norm_estimate",
            "tokens_per_buffer",
            "prefetch_llm_batches",
            "feature_sampling_window",
            "feature_sampling_method",
            "feature_reinit_scale",
            "dead_feature_window",
            "dead_feature_threshold",
            "dead_feature_estimation_method",
            "resample_batches",
            "n_eval_batches",
            "n_eval_seqs",
            "eval_batch_size_prompts",
            "eval_every_n_wandb_logs",
            "act_store_device",
            "llm_device",
            "autocast",
            "autocast_lm",
            "autocast_sae",
            "compile_llm",
            "compile_sae",
            "llm_compilation_mode",
            "sae_compilation_mode",
            "logger",
            "log_to_wandb",
            "log_weights_to_wandb",
            "log_optimizer_state_to_wandb",
            "log_activations_store_to_wandb",
            "run_name",
            "wandb_id",
            "wandb_entity",
            "wandb_project",
            "wandb_log_frequency",
            "n_checkpoints",
            "checkpoint_path",
            "save_final_checkpoint",
            "output_path",
            "resume",
            "resume_from_checkpoint",
            "verbose",
        ],
    ),
];

/// SAELens' `model_from_pretrained_kwargs`, given to TransformerLens or transformers. Those that change the activations
/// are `Computed`.
pub(super) const MODEL_KWARGS: Table = &[
    (Computed, &["center_writing_weights", "fold_ln", "fold_value_biases", "refactor_factored_attn_matrices"]),
    (Said("it was trained on this checkpoint of the model"), &["revision", "checkpoint_index", "checkpoint_value"]),
    (
        Record,
        &[
            // Changes logits by a constant.
            "center_unembed",
            "dtype",
            "torch_dtype",
            "device",
            "device_map",
            "n_devices",
            "n_ctx",
            "first_n_layers",
            "move_to_device",
            "trust_remote_code",
            "attn_implementation",
            "local_files_only",
            "cache_dir",
            "token",
            "hf_model",
            "tokenizer",
            "default_padding_side",
            // `prepend_bos` of the config decides.
            "default_prepend_bos",
        ],
    ),
];

/// The buffer of dictionary_learning's `config.json`. Every key of its `trainer` that is not read is a record: the
/// class and the tensors say all that a dictionary computes.
pub(super) const DICTIONARY_LEARNING_BUFFER: Table = &[
    (Computed, &["io"]),
    (Origin, &["ctx_len", "d_submodule"]),
    (Said(BOS_REMOVED), &["remove_bos"]),
    (Record, &["n_ctxs", "refresh_batch_size", "out_batch_size", "device", "layer", "add_special_tokens"]),
];

/// Llamascopium and Language-Model-SAEs before it: `config.json` of all versions, and `hyperparams.json` of 2024.
pub(super) const LLAMASCOPIUM: Table = &[
    (
        Computed,
        &[
            "sae_type",
            "d_model",
            "d_sae",
            "expansion_factor",
            "use_decoder_bias",
            "apply_decoder_bias_to_pre_encoder",
            "act_fn",
            "top_k",
            "jump_relu_threshold",
            "norm_activation",
            "dataset_average_activation_norm",
            "sparsity_include_decoder_norm",
            "use_glu_encoder",
        ],
    ),
    (Origin, &["hook_point_in", "hook_point_out"]),
    (
        Record,
        &[
            "dtype",
            "device",
            "seed",
            "sae_pretrained_name_or_path",
            "strict_loading",
            "use_triton_kernel",
            "sparsity_threshold_for_triton_spmm_kernel",
            "sparsity_threshold_for_csr",
            "decode_with_csr",
            "jumprelu_threshold_window",
            "promote_act_fn_dtype",
            // Applied to the weights when they are saved.
            "force_unit_decoder_norm",
            "decoder_exactly_fixed_norm",
            "decoder_exactly_unit_norm",
            "remove_gradient_parallel_to_decoder_directions",
            "bias_init_method",
            "init_decoder_norm",
            "init_encoder_norm",
            "init_encoder_with_decoder_transpose",
            "init_encoder_with_decoder_transpose_factor",
            "lp",
            "l1_coefficient",
            "l1_coefficient_warmup_steps",
            "k_warmup_steps",
            "initial_k",
            "use_batch_norm_mse",
            "use_ghost_grads",
            "tp_size",
            "ddp_size",
        ],
    ),
];

/// The rule of a key, or `None` if the table lacks it.
pub(super) fn rule(table: Table, key: &str) -> Option<Rule> {
    table.iter().find(|(_, keys)| keys.contains(&key)).map(|(rule, _)| *rule)
}

/// The `settings` that refract neither computes nor checks, in words. Keys that `table` lacks are not among them: see
/// [`unknown`].
pub(super) fn said(settings: &Map<String, Value>, table: Table) -> Vec<String> {
    let said = |(key, value): (&String, &Value)| match rule(table, key) {
        Some(Said(why)) if !is_off(value) => Some(format!("`{key}` {value}: {why}")),
        _ => None,
    };
    settings.iter().filter_map(said).collect()
}

/// The keys of `settings` that `table` lacks, in words.
pub(super) fn unknown(settings: &Map<String, Value>, table: Table) -> Vec<String> {
    let unknown = settings.iter().filter(|(key, value)| !is_off(value) && rule(table, key).is_none());
    unknown
        .map(|(key, value)| format!("`{key}` {value}: refract does not know this setting, and leaves it out"))
        .collect()
}

/// True if a value switches its setting off: `null`, `false`, nothing, or the slice of everything.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.iter().all(Value::is_null),
        Value::Object(values) => values.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_has_one_rule() {
        for table in [SAELENS, MODEL_KWARGS, DICTIONARY_LEARNING_BUFFER, LLAMASCOPIUM] {
            let mut keys: Vec<_> = table.iter().flat_map(|(_, keys)| *keys).collect();
            let all = keys.len();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), all);
        }
    }

    #[test]
    fn settings_that_are_on_are_said_and_others_are_not() {
        let of = |value: Value| said(value.as_object().unwrap(), SAELENS);
        assert_eq!(of(json!({"seqpos_slice": [null], "exclude_special_tokens": false, "lr": 3})), [""; 0]);
        let notes = of(json!({"seqpos_slice": [5, -5], "exclude_special_tokens": [0, 1]})).join("\n");
        assert!(notes.contains("`seqpos_slice` [5,-5]: it was trained on these positions"), "{notes}");
        assert!(notes.contains("`exclude_special_tokens` [0,1]: it was trained without"), "{notes}");
        let more = json!({"zeta": true, "seed": 3, "eta": null});
        let [zeta] = &unknown(more.as_object().unwrap(), SAELENS)[..] else { panic!("one is unknown") };
        assert!(zeta.contains("`zeta` true: refract does not know"), "{zeta}");
    }
}
