//! Tensors that are missing, unknown, of another type or not finite are named as in their file.

use std::fs;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use trainer::Sae;

use crate::spoil::{change_tensor, copy, edit, refused, replaced, rewrite, write_safetensors, zip_with};

#[test]
fn tensors_that_are_missing_or_unknown_are_named() {
    let (_dir, folder) = copy("dictionary-learning-GatedAutoEncoder");
    let rename = |from: &[u8], to: &[u8]| {
        rewrite(&folder.join("ae.pt"), |name, bytes| {
            Some(if name.ends_with("data.pkl") { replaced(&bytes, from, to) } else { bytes })
        });
    };
    rename(b"mag_bias", b"mag_bent");
    let message = refused(&folder);
    assert!(message.contains("an array mag_bias") && message.contains("mag_bent"), "{message}");

    let (_dir, folder) = copy("gemma-scope-res");
    let path = folder.join("params.npz");
    rewrite(&path, |name, bytes| (name != "threshold.npy").then_some(bytes));
    assert!(refused(&folder).contains("an array threshold"));
    let (_dir, folder) = copy("gemma-scope-res");
    let extra = zip_with(&folder.join("params.npz"), "W_extra.npy", "b_dec.npy");
    assert!(extra.contains("also W_extra"), "{extra}");

    // A skip connection that the config does not mention.
    let (_dir, folder) = copy("sparsify-skip");
    let cfg = fs::read_to_string(folder.join("cfg.json")).unwrap();
    fs::write(folder.join("cfg.json"), cfg.replace("\"skip_connection\": true", "\"skip_connection\": false")).unwrap();
    let message = refused(&folder);
    assert!(message.contains("sae.safetensors") && message.contains("also W_skip"), "{message}");
    let cfg = cfg.replace("\"k\"", "\"k_of_another_time\"");
    fs::write(folder.join("cfg.json"), cfg).unwrap();
    assert!(refused(&folder).contains("k_of_another_time"));
}

#[test]
fn all_that_a_file_holds_is_named_where_a_tensor_is_missing() {
    let (_dir, folder) = copy("dictionary-learning-GatedAutoEncoder");
    edit(&folder.join("config.json"), "GatedAutoEncoder", "AutoEncoderTopK");
    let message = refused(&folder);
    let all = "found only decoder.weight, decoder_bias, encoder.weight, gate_bias, mag_bias, r_mag.";
    assert!(message.contains(all), "{message}");
    let (_dir, folder) = copy("openai-topk");
    let path = folder.join("3.pt");
    rewrite(&path, |name, bytes| {
        Some(if name.ends_with("data.pkl") { replaced(&bytes, b"pre_bias", b"pre_bent") } else { bytes })
    });
    let message = refused(&folder);
    assert!(
        message.contains("an array pre_bias, found only decoder.weight, encoder.weight, latent_bias,"),
        "{message}"
    );
    assert!(message.contains("activation (a string)"), "{message}");
}

#[test]
fn doubles_are_refused_with_what_to_do() {
    let (_dir, folder) = copy("saelens-standard");
    let path = folder.join("sae_weights.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let doubled = tensors.iter().map(|(name, tensor)| (name, tensor.shape().to_vec(), [tensor.data(); 2].concat()));
    let doubled: Vec<_> = doubled.collect();
    let views = doubled.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F64, shape.clone(), bytes).unwrap();
        (name, view)
    });
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let message = refused(&folder);
    assert!(message.contains("W_enc in F32, F16 or BF16, found F64. Save it again"), "{message}");
}

#[test]
fn numbers_that_are_none_are_named_as_the_file_names_them_before_they_are_folded() {
    for (name, file, tensor) in [
        ("saelens-topk-rescaled", "sae_weights.safetensors", "W_dec"),
        ("llamascopium-topk", "sae_weights.safetensors", "W_D"),
        ("llama-scope", "checkpoints/final.safetensors", "decoder.weight"),
        ("sparsify-skip", "sae.safetensors", "W_skip"),
        ("gemma-scope-2-affine", "params.safetensors", "affine_skip_connection"),
    ] {
        for value in [f32::NAN, f32::INFINITY] {
            let (_dir, folder) = copy(name);
            change_tensor(&folder.join(file), tensor, |bytes| bytes[4..8].copy_from_slice(&value.to_le_bytes()));
            let message = refused(&folder);
            let expected = format!("{file}: expected finite numbers in {tensor}, found {value} at index 1");
            assert!(message.contains(&expected), "{name}: {message}");
        }
    }
    let (_dir, folder) = copy("dictionary-learning-AutoEncoder");
    rewrite(&folder.join("ae.pt"), |_, mut bytes| {
        if bytes.len() == 10 * 24 * 4 {
            bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        Some(bytes)
    });
    let message = refused(&folder);
    assert!(message.contains("finite numbers in") && message.contains(".weight, found NaN at index 0"), "{message}");
}

#[test]
fn what_overflows_when_weights_are_folded_is_refused() {
    // A decoder row whose norm exceeds the largest float.
    let large = 1e30f32.to_le_bytes();
    let (_dir, folder) = copy("dictionary-learning-AutoEncoder");
    rewrite(&folder.join("ae.pt"), |_, mut bytes| {
        if bytes.len() == 10 * 24 * 4 {
            bytes[..4].copy_from_slice(&large);
        }
        Some(bytes)
    });
    let message = refused(&folder);
    assert!(message.contains("ae.pt") && message.contains("finite numbers in W_enc"), "{message}");
    for (name, decoder) in [("saelens-topk-rescaled", "W_dec"), ("llamascopium-topk", "W_D")] {
        let (_dir, folder) = copy(name);
        let path = folder.join("sae_weights.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let at = SafeTensors::deserialize(&bytes).unwrap().tensor(decoder).unwrap().data().as_ptr() as usize;
        let at = at - bytes.as_ptr() as usize;
        bytes[at..at + 4].copy_from_slice(&large);
        fs::write(&path, bytes).unwrap();
        let message = refused(&folder);
        assert!(message.contains("sae_weights") && message.contains("finite numbers in W_enc"), "{name}: {message}");
    }
}

#[test]
fn thresholds_that_are_no_numbers_are_refused_before_they_are_scaled() {
    let (_dir, folder) = copy("llamascopium-jumprelu");
    let path = folder.join("sae_weights.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for log in [f32::NAN, 100.0] {
        let spoiled = |(name, tensor): (&str, TensorView<'_>)| {
            let mut bytes = tensor.data().to_vec();
            if name.ends_with("log_jumprelu_threshold") {
                bytes[..4].copy_from_slice(&log.to_le_bytes());
            }
            (name.to_string(), tensor.shape().to_vec(), bytes)
        };
        write_safetensors(&path, &tensors.iter().map(spoiled).collect::<Vec<_>>());
        let name = if log.is_nan() { "activation_function.log_jumprelu_threshold" } else { "threshold" };
        let message = refused(&folder);
        assert!(message.contains(&format!("finite numbers in {name}, found")), "{log}: {message}");
    }
}

#[test]
fn a_threshold_that_was_never_set_is_refused() {
    let (_dir, folder) = copy("dictionary-learning-BatchTopKSAE");
    let path = folder.join("ae.pt");
    let set = 0.6f32.to_le_bytes();
    rewrite(&path, |_, bytes| Some(if bytes == set { (-1f32).to_le_bytes().to_vec() } else { bytes }));
    let message = refused(&folder);
    assert!(message.contains("threshold of 0 or more, found -1"), "{message}");
}

#[test]
fn parameters_of_a_module_are_tensors() {
    let (_dir, folder) = copy("dictionary-learning-AutoEncoder");
    let sae = Sae::load(&folder).unwrap();
    // `_rebuild_parameter(bias, True, OrderedDict())` instead of the first tensor, as pickle writes a Parameter.
    let (tensor, parameter) = (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n(");
    let as_parameter = |bytes: &[u8]| {
        let begun = replaced(bytes, tensor, &[&parameter[..], tensor].concat());
        replaced(&begun, b"Rq\x0d", b"Rq\x0d\x88h\x00)RtR")
    };
    rewrite(&folder.join("ae.pt"), |name, bytes| {
        Some(if name.ends_with("data.pkl") { as_parameter(&bytes) } else { bytes })
    });
    assert_eq!(Sae::load(&folder).unwrap(), sae);
}
