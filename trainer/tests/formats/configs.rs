//! Configs with a wrong size, a missing key, or a key that would change the computation are refused, and the message
//! names the key.

use std::fs;

use trainer::{InputNorm, Sae, SaeFormat};

use crate::spoil::{copy, edit, refused, refused_with, rewrite};

#[test]
fn numbers_that_are_none_and_wrong_sizes_are_named() {
    let (_dir, folder) = copy("gemma-scope-res");
    rewrite(&folder.join("params.npz"), |name, mut bytes| {
        if name == "b_dec.npy" {
            let last = bytes.len() - 4;
            bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        Some(bytes)
    });
    assert!(refused(&folder).contains("finite numbers in b_dec, found NaN at index 9"), "{}", refused(&folder));

    let (_dir, folder) = copy("dictionary-learning-AutoEncoderTopK");
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let with = |from: &str, to: &str| {
        fs::write(folder.join("config.json"), config.replace(from, to)).unwrap();
        refused(&folder)
    };
    assert!(
        with("\"dict_size\": 24", "\"dict_size\": 25").contains("encoder.weight of shape [25, 10], found [24, 10]")
    );
    assert!(with("\"k\": 4", "\"k\": 5").contains("k 5, as config.json has it, found 4"));
    assert!(with("AutoEncoderTopK", "CrossCoder").contains("`CrossCoder`"));
}

#[test]
fn a_config_that_lacks_k_or_has_none_of_any_use_is_named() {
    let message = refused_with("sparsify-sae", "cfg.json", "\"k\": 4, ", "");
    assert!(
        message.contains("cfg.json: expected `k`, the active latents per token, found no such key. Add"),
        "{message}"
    );
    for (name, file, key) in [
        ("sparsify-sae", "cfg.json", "\"k\": "),
        ("saelens-topk", "cfg.json", "\"k\": "),
        ("llamascopium-topk", "config.json", "\"top_k\": "),
    ] {
        let message = refused_with(name, file, &format!("{key}4"), &format!("{key}0"));
        assert!(
            message.contains(&format!("{file}: expected k from 1 to d_sae = 24, found k = 0")),
            "{name}: {message}"
        );
    }
    let (_dir, folder) = copy("dictionary-learning-AutoEncoderTopK");
    edit(&folder.join("config.json"), "\"k\": 4", "\"k\": null");
    rewrite(&folder.join("ae.pt"), |_, bytes| Some(if bytes == 4i32.to_le_bytes() { vec![0; 4] } else { bytes }));
    let message = refused(&folder);
    assert!(message.contains("ae.pt: expected k of 1 or more, found 0"), "{message}");
}

#[test]
fn a_value_of_another_type_is_named_by_file_and_key() {
    for (name, file, from, to, expected) in [
        ("saelens-topk", "cfg.json", "\"d_sae\": 24", "\"d_sae\": \"24\"", "d_sae: invalid type: string \"24\""),
        ("saelens-topk", "cfg.json", "\"context_size\": 64", "\"context_size\": []", "context_size: invalid type"),
        ("saelens-legacy", "cfg.json", "\"d_in\": 10", "\"d_in\": -10", "d_in: invalid value: integer `-10`"),
        (
            "sparsify-sae",
            "cfg.json",
            "\"transcode\": false",
            "\"transcode\": 0",
            "transcode: invalid type: integer `0`",
        ),
        (
            "dictionary-learning-AutoEncoder",
            "config.json",
            "\"dict_size\": 24",
            "\"dict_size\": 2.5",
            "dict_size: invalid",
        ),
        (
            "dictionary-learning-AutoEncoder",
            "config.json",
            "\"ctx_len\": 64",
            "\"ctx_len\": \"64\"",
            "ctx_len: invalid type",
        ),
        (
            "dictionary-learning-AutoEncoder",
            "config.json",
            "\"ctx_len\": 64",
            "\"io\": [\"in\"]",
            "io: invalid type: sequence",
        ),
        ("llamascopium-relu", "config.json", "\"act_fn\": \"relu\"", "\"act_fn\": 1", "act_fn: invalid type: integer"),
        (
            "gemma-scope-2-res",
            "config.json",
            "\"affine_connection\": false",
            "\"affine_connection\": {}",
            "affine_conn",
        ),
        ("llama-scope", "hyperparams.json", "{\"in\": 5.0, \"out\": 5.0}", "7", "expected a JSON object"),
    ] {
        let message = refused_with(name, file, from, to);
        assert!(message.contains(file) && message.contains(expected), "{name}: {message}");
        assert!(!message.contains("struct "), "{message}");
    }
    let message = refused_with("llamascopium-relu", "config.json", "\"act_fn\": \"relu\"", "\"act_fn\": \"BatchTopK\"");
    assert!(
        message.contains("config.json: expected act_fn `relu`, `jumprelu` or `topk`, found `BatchTopK`"),
        "{message}"
    );
}

#[test]
fn keys_of_saelens_that_change_the_computation_are_refused_and_those_of_training_are_not() {
    let with =
        |key: &str| refused_with("saelens-jumprelu", "cfg.json", "\"d_in\": 10", &format!("\"d_in\": 10, {key}"));
    // A key of `metadata` or of an older version is none of the top level.
    for key in ["center_writing_weights", "hook_name", "seqpos_slice", "activation_fn"] {
        let message = with(&format!("\"{key}\": true"));
        assert!(message.contains(&format!("unknown field `{key}`")), "{message}");
    }
    let message = with("\"sigmoid_gate\": true");
    assert!(message.contains("cfg.json") && message.contains("unknown field `sigmoid_gate`"), "{message}");
    let in_metadata = |key: &str| {
        let to = format!("\"metadata\": {{\"{key}\": 3, ");
        refused_with("saelens-jumprelu", "cfg.json", "\"metadata\": {", &to)
    };
    for key in ["hook_head_index", "hook_head_index_out"] {
        let message = in_metadata(key);
        assert!(
            message.contains(&format!("expected metadata.{key} `null`")) && message.contains("found `3`"),
            "{message}"
        );
    }
    let legacy = ("\"hook_point_head_index\": null", "\"hook_point_head_index\": 3");
    let message = refused_with("saelens-legacy", "cfg.json", legacy.0, legacy.1);
    assert!(message.contains("metadata.hook_head_index `null`"), "{message}");
    let reshaped = ("\"reshape_activations\": \"none\"", "\"reshape_activations\": \"hook_q\"");
    assert!(
        refused_with("saelens-jumprelu", "cfg.json", reshaped.0, reshaped.1).contains("reshape_activations `none`")
    );

    let (_dir, folder) = copy("saelens-jumprelu");
    let plain = Sae::load(&folder).unwrap();
    // SAELens' jumprelu does not have the second of these keys, and ignores it.
    let keys = "\"d_in\": 10, \"l0_coefficient\": 2.0, \"rescale_acts_by_decoder_norm\": true, \"d_head\": null";
    edit(&folder.join("cfg.json"), "\"d_in\": 10", keys);
    edit(&folder.join("cfg.json"), "\"metadata\": {", "\"metadata\": {\"final_l0\": 4.5, ");
    assert_eq!(Sae::load(&folder).unwrap(), plain);
}

/// A copy of `name` with more keys in the metadata of its `cfg.json`, loaded.
fn with_metadata(name: &str, keys: &str) -> Result<Sae, String> {
    let (_dir, folder) = copy(name);
    edit(&folder.join("cfg.json"), "\"metadata\": {", &format!("\"metadata\": {{{keys}, "));
    Sae::load(&folder).map_err(|error| error.to_string())
}

#[test]
fn a_model_that_transformer_lens_changed_is_honored_or_refused() {
    let kwargs = |name: &str, kwargs: &str| {
        let keys = format!("\"model_from_pretrained_kwargs\": {{{kwargs}}}");
        with_metadata(name, &keys).map(|sae| (sae.config().input_norm, sae.config().notes.clone()))
    };
    let centered = "\"center_writing_weights\": true";
    assert_eq!(kwargs("saelens-jumprelu", centered), Ok((InputNorm::Centered, vec![])));
    assert_eq!(kwargs("saelens-jumprelu", "\"center_writing_weights\": false"), Ok((InputNorm::None, vec![])));
    // A layer norm takes the mean off by itself.
    assert!(matches!(kwargs("saelens-layer-norm", centered), Ok((InputNorm::LayerNorm { .. }, _))));
    assert!(kwargs("saelens-constant-norm", centered).unwrap_err().contains("`false` with the input norm"));
    // It reads what the norm before the MLP gives, and predicts what is added to the stream.
    let message = kwargs("saelens-jumprelu-transcoder", centered).unwrap_err();
    assert!(message.contains("center_writing_weights `false` for a transcoder to the residual stream"), "{message}");
    let message = kwargs("saelens-jumprelu-transcoder", "\"fold_ln\": true").unwrap_err();
    assert!(message.contains("model_from_pretrained_kwargs.fold_ln `false` at this hook point"), "{message}");
    // In the residual stream, folding changes nothing.
    let folded = "\"fold_ln\": true, \"fold_value_biases\": true, \"center_unembed\": true, \"dtype\": \"float16\"";
    assert_eq!(kwargs("saelens-jumprelu", folded), Ok((InputNorm::None, vec![])));
    // Only a Boolean is on or off.
    for (key, value) in [("center_writing_weights", "\"true\""), ("fold_ln", "1"), ("fold_value_biases", "[]")] {
        let message = kwargs("saelens-jumprelu", &format!("\"{key}\": {value}")).unwrap_err();
        assert!(message.contains("cfg.json") && message.contains(&format!("found {key}: invalid type")), "{message}");
    }
    assert_eq!(kwargs("saelens-jumprelu", "\"fold_ln\": null"), Ok((InputNorm::None, vec![])));
    let message = with_metadata("saelens-jumprelu", "\"model_from_pretrained_kwargs\": [\"fold_ln\"]").unwrap_err();
    assert!(message.contains("model_from_pretrained_kwargs: invalid type: sequence"), "{message}");
    let (_, notes) = kwargs("saelens-jumprelu", "\"checkpoint_index\": 7, \"n_heads\": 3").unwrap();
    let [checkpoint, unknown] = &notes[..] else { panic!("{notes:?}") };
    assert!(checkpoint.contains("`checkpoint_index` 7: it was trained on this checkpoint"), "{checkpoint}");
    assert!(unknown.contains("`n_heads` 3: refract does not know this setting"), "{unknown}");
}

#[test]
fn a_centered_sae_is_written_as_one() {
    let centered =
        with_metadata("saelens-jumprelu", "\"model_from_pretrained_kwargs\": {\"center_writing_weights\": true}");
    let (centered, dir) = (centered.unwrap(), tempfile::tempdir().unwrap());
    centered.save(dir.path()).unwrap();
    assert_eq!(Sae::load(dir.path()).unwrap(), centered);
    for format in SaeFormat::ALL.into_iter().filter(|format| *format != SaeFormat::SaeLens) {
        assert!(centered.save_as(format, dir.path()).is_err(), "{format}");
    }
}

#[test]
fn what_an_sae_was_trained_on_is_kept_or_said() {
    let notes = |keys: &str| with_metadata("saelens-jumprelu", keys).unwrap().config().notes.clone();
    assert_eq!(notes("\"seqpos_slice\": [null], \"exclude_special_tokens\": false, \"own_words\": \"x\""), [""; 0]);
    let [note] = &notes("\"seqpos_slice\": [5, -5]")[..] else { panic!("one note") };
    assert!(note.contains("`seqpos_slice` [5,-5]: it was trained on these positions of a context only"), "{note}");
    let [note] = &notes("\"exclude_special_tokens\": true")[..] else { panic!("one note") };
    assert!(note.contains("`exclude_special_tokens` true: it was trained without special tokens"), "{note}");

    let (_dir, folder) = copy("saelens-legacy");
    edit(&folder.join("cfg.json"), "\"d_in\": 10", "\"d_in\": 10, \"sigmoid_gate\": 2, \"lr\": 0.1");
    let notes = Sae::load(&folder).unwrap().config().notes.clone();
    assert!(notes.iter().any(|note| note.contains("`sigmoid_gate` 2: refract does not know")), "{notes:?}");
    assert!(!notes.iter().any(|note| note.contains("`lr`")), "{notes:?}");

    let (_dir, folder) = copy("dictionary-learning-AutoEncoderTopK");
    edit(
        &folder.join("config.json"),
        "\"ctx_len\": 64",
        "\"ctx_len\": 64, \"remove_bos\": true, \"max_activation\": 3",
    );
    let notes = Sae::load(&folder).unwrap().config().notes.clone();
    assert!(notes.iter().any(|note| note.contains("`remove_bos` true: it was trained without BOS")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("`max_activation` 3: refract does not know")), "{notes:?}");
    edit(&folder.join("config.json"), "\"ctx_len\": 64", "\"ctx_len\": 64, \"io\": \"in_and_out\"");
    assert!(refused(&folder).contains("buffer.io `in` or `out`, found `in_and_out`"), "{}", refused(&folder));

    let (_dir, folder) = copy("llamascopium-relu");
    edit(&folder.join("config.json"), "\"d_model\"", "\"use_glu_decoder\": true, \"d_model\"");
    let notes = Sae::load(&folder).unwrap().config().notes.clone();
    assert!(notes.iter().any(|note| note.contains("`use_glu_decoder` true: refract does not know")), "{notes:?}");
}

#[test]
fn a_transcoder_that_subtracts_b_dec_is_refused() {
    let from = ("\"apply_b_dec_to_input\": false", "\"apply_b_dec_to_input\": true");
    let message = refused_with("saelens-jumprelu-transcoder", "cfg.json", from.0, from.1);
    assert!(message.contains("a transcoder that does not subtract b_dec from its input, found one that does"));
}

#[test]
fn activations_scaled_to_a_mean_norm_need_the_factor() {
    let from = ("\"normalize_activations\": \"none\"", "\"normalize_activations\": \"expected_average_only_in\"");
    let message = refused_with("saelens-jumprelu", "cfg.json", from.0, from.1);
    assert!(message.contains("a factor above 0 in activation_scaler.json or activations_store_state"), "{message}");
}
