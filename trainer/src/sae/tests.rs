//! Tests of an SAE in use: each architecture against its formula, and parts that do not fit together.

use harvester::HookPoint;

use super::*;
use crate::{kernels::plain, sae::input_norm::InputNorm};

/// Random weights.
pub(crate) fn example(architecture: Architecture, d_in: usize, d_sae: usize) -> Sae {
    let positive = |seed| plain::random(d_sae, seed).iter().map(|t| t.abs()).collect();
    let nonlinearity = match architecture {
        Architecture::Standard => Nonlinearity::Standard,
        Architecture::TopK => Nonlinearity::TopK { k: 4 },
        Architecture::JumpRelu => Nonlinearity::JumpRelu { threshold: positive(5) },
        Architecture::Gated => Nonlinearity::Gated { r_mag: plain::random(d_sae, 6), b_mag: plain::random(d_sae, 7) },
        Architecture::Dense => Nonlinearity::Dense,
    };
    let config = SaeConfig {
        hook_points: HookPoints::Autoencoder(Some(HookPoint::resid_post(3))),
        model_name: "tiny".into(),
        ctx_len: Some(256),
        dataset: "made up".into(),
        ..SaeConfig::new(d_in, d_sae)
    };
    let weights = SaeWeights {
        w_enc: plain::random(d_sae * d_in, 1),
        b_enc: plain::random(d_sae, 2),
        nonlinearity,
        w_dec: plain::random(d_sae * d_in, 3),
        b_dec: plain::random(d_in, 4),
        w_skip: None,
    };
    Sae::new(config, weights).expect("parts that fit together")
}

/// The same after `change`.
pub(crate) fn changed(sae: &Sae, change: impl FnOnce(&mut SaeConfig, &mut SaeWeights)) -> Result<Sae> {
    let (mut config, mut weights) = sae.clone().into_parts();
    change(&mut config, &mut weights);
    Sae::new(config, weights)
}

#[test]
fn a_row_is_encoded_and_decoded_alike_alone_and_in_a_batch() {
    for architecture in Architecture::ALL {
        for (norm, skip) in [(InputNorm::None, true), (InputNorm::LayerNorm { eps: 1e-5 }, false)] {
            let sae = changed(&example(architecture, 24, 100), |config, weights| {
                config.input_norm = norm;
                weights.w_skip = skip.then(|| plain::random(24 * 24, 8));
            });
            let sae = sae.expect("an SAE");
            let x = plain::random(1500 * 24, 9); // more than a tile
            let (all, x_hat) = sae.reconstruct(&x).expect("whole rows");
            for row in [0, 700, 1023, 1024, 1499] {
                let (one, one_hat) = sae.reconstruct(&x[row * 24..(row + 1) * 24]).expect("one row");
                assert_eq!(one.row(0), all.row(row), "{architecture}, row {row}");
                assert_eq!(one_hat, x_hat[row * 24..(row + 1) * 24]);
            }
        }
    }
}

#[test]
fn some_latents_are_encoded_to_the_bits_that_all_of_them_give() {
    // The last one is deep enough for the product to add in several blocks.
    for (d_in, d_sae) in [(24, 100), (64, 700), (1100, 300)] {
        for architecture in Architecture::ALL {
            let sae = example(architecture, d_in, d_sae);
            for n in [1, 2, 5, 1030] {
                let x = plain::random(n * d_in, 9);
                let all = sae.encode(&x).expect("whole rows");
                let every_third: Vec<u32> = (0..d_sae as u32).rev().step_by(3).collect();
                for latents in [&[][..], &[7], &[99, 3, 3, 50], &every_third] {
                    let some = sae.encode_latents(&x, latents).expect("latents of the SAE");
                    let mut expected = all.clone();
                    expected.retain(|entry| latents.contains(&all.latents[entry]));
                    assert_eq!(some, expected, "{architecture}, {n} rows of {d_in}, {} latents", latents.len());
                }
            }
        }
    }
}

#[test]
fn a_latent_that_it_does_not_have_is_refused() {
    let message = example(Architecture::TopK, 8, 20).encode_latents(&[0.0; 8], &[3, 20]);
    assert_eq!(message.map_err(|error| error.to_string()), Err("latent: expected below 20, found 20".into()));
}

#[test]
fn jumprelu_keeps_what_exceeds_its_threshold() {
    let sae = example(Architecture::JumpRelu, 8, 20);
    let x = plain::random(8, 9);
    let acts = sae.encode(&x).expect("one row");
    let SaeWeights { b_enc, b_dec, nonlinearity: Nonlinearity::JumpRelu { threshold }, .. } = sae.weights() else {
        panic!("jumprelu has thresholds")
    };
    for latent in 0..20 {
        let pre: f32 = b_enc[latent] + (0..8).map(|i| (x[i] - b_dec[i]) * sae.encoder_row(latent)[i]).sum::<f32>();
        let expected = if pre > threshold[latent] { pre } else { 0.0 };
        assert!((acts.get(0, latent as u32) - expected).abs() < 1e-5);
    }
}

#[test]
fn half_a_row_is_refused() {
    let message = example(Architecture::TopK, 8, 20).encode(&[0.0; 12]).map_err(|error| error.to_string());
    assert_eq!(message, Err("activations to encode: expected whole rows of d_in = 8 values, found 12 values".into()));
}

#[test]
fn parts_that_do_not_fit_together_are_refused() {
    let sae = example(Architecture::JumpRelu, 8, 20);
    let refused = |change: fn(&mut SaeConfig, &mut SaeWeights), expected: &str| {
        let message = changed(&sae, change).map_err(|error| error.to_string()).err();
        assert!(message.as_ref().is_some_and(|message| message.contains(expected)), "{expected}: {message:?}");
    };
    refused(|_, weights| weights.w_dec.truncate(159), "160 values of W_dec, found 159");
    refused(|_, weights| weights.b_dec[3] = f32::NAN, "finite numbers in b_dec, found NaN at index 3");
    refused(
        |_, weights| weights.nonlinearity = Nonlinearity::JumpRelu { threshold: vec![0.0; 19] },
        "20 values of threshold, found 19",
    );
    refused(|_, weights| weights.nonlinearity = Nonlinearity::TopK { k: 21 }, "k from 1 to d_sae = 20, found k = 21");
    refused(|config, _| config.d_sae = 0, "0 values of W_enc");
    refused(
        |config, weights| {
            config.d_out = 6;
            weights.w_dec.truncate(20 * 6);
            weights.b_dec.truncate(6);
        },
        "d_out = d_in = 8 of an SAE that is not a transcoder, found d_out = 6",
    );
    refused(
        |config, _| config.hook_points = HookPoints::Transcoder { from: None, to: None },
        "a transcoder that does not subtract b_dec",
    );
    refused(
        |config, weights| {
            config.input_norm = InputNorm::ConstantNorm;
            weights.w_skip = Some(vec![0.0; 64]);
        },
        "skip connection of raw activations, found constant norm",
    );
    refused(
        |config, _| config.hook_points = HookPoints::Crosscoder(vec![(HookPoint::Embed, 3), (HookPoint::Embed, 4)]),
        "columns of d_in = 8 values together, found 7",
    );
}
