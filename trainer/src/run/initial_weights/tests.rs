//! Round trip: an SAE that is exported, used as initial weights and exported again is the same function.

use super::*;
use crate::{
    kernels::plain,
    run::export::{
        export,
        tests::{D_SAE, SCALES, WIDTHS, label, random_weights, resolved},
    },
    sae::tests::{changed, example},
};

const N: usize = 200;

fn standard(resolved: &Resolved) -> Standard {
    let n = resolved.widths.len();
    Standard { scales: SCALES[..n].to_vec(), mean: plain::random(resolved.widths.iter().sum(), 1) }
}

/// sum |a - b|^2 / sum |b|^2
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let differences = squares(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    differences / squares(&mut b.iter().map(|b| f64::from(*b)))
}

/// The exported SAE with the threshold that calibration would set.
fn exported(weights: Weights, resolved: &Resolved, threshold: f32) -> Sae {
    let mut sae = export(weights, &standard(resolved), resolved, label()).expect("an SAE");
    if resolved.config.architecture.is_batch_topk() {
        sae.set_threshold(threshold);
    }
    sae
}

fn assert_same_function(found: &Sae, expected: &Sae, what: &str) {
    let x: Vec<f32> = plain::random(N * expected.d_in(), 3).iter().map(|x| 4.0 * x + 1.0).collect();
    let ((acts, y), (found_acts, found_y)) =
        (expected.reconstruct(&x).expect("whole rows"), found.reconstruct(&x).expect("whole rows"));
    assert!(acts.n_active() > N, "{what}: too few are active to tell");
    assert_eq!(found_acts.latents, acts.latents, "{what}");
    assert!(distance(&found_y, &y).sqrt() < 1e-6, "{what}: {}", distance(&found_y, &y).sqrt());
}

fn assert_round_trip(trained: TrainArchitecture, skip: bool) {
    let resolved = resolved(trained, skip);
    let mut weights = random_weights(&resolved.step_config(), resolved.d_in);
    let blocks = weights.blocks.clone();
    weights.w_dec.chunks_exact_mut(weights.d_out).for_each(|row| normalize(row, &blocks));
    // A constant that a run gets from its data.
    if let Some(b_in) = &mut weights.b_in {
        b_in.copy_from_slice(&standard(&resolved).mean[..resolved.d_in]);
    }
    let sae = exported(weights, &resolved, 0.5);
    assert_eq!(misfit(&sae, &resolved), None, "{trained}");
    let again = exported(of(sae.clone(), &standard(&resolved), &resolved), &resolved, 0.5);
    assert_same_function(&again, &sae, trained.name());
}

#[test]
fn what_is_begun_from_is_what_was_exported() {
    TrainArchitecture::ALL.into_iter().for_each(|trained| assert_round_trip(trained, false));
    assert_round_trip(TrainArchitecture::Transcoder, true);
}

/// An SAE of another tool: decoder rows of any norm, `b_dec` not subtracted from the input.
#[test]
fn a_foreign_sae_is_brought_to_our_form_and_stays_the_same_function() {
    let pairs = [
        (TrainArchitecture::JumpRelu, Architecture::JumpRelu),
        (TrainArchitecture::Relu, Architecture::Standard),
        (TrainArchitecture::JumpRelu, Architecture::Standard),
        (TrainArchitecture::Gated, Architecture::Gated),
        (TrainArchitecture::Dense, Architecture::Dense),
    ];
    for (trained, architecture) in pairs {
        let resolved = resolved(trained, false);
        let sae = changed(&example(architecture, WIDTHS[0], D_SAE), |config, _| config.apply_b_dec_to_input = false);
        let sae = sae.expect("an SAE");
        let weights = of(sae.clone(), &standard(&resolved), &resolved);
        for row in weights.w_dec.chunks_exact(WIDTHS[0]) {
            assert!((norm_of_blocks(row, &[WIDTHS[0]]) - 1.0).abs() < 1e-5);
        }
        let mine = exported(weights, &resolved, 0.0);
        let x = plain::random(N * WIDTHS[0], 3);
        let (expected, found) = (sae.reconstruct(&x).expect("rows").1, mine.reconstruct(&x).expect("rows").1);
        assert!(distance(&found, &expected).sqrt() < 2e-6, "{trained} from {architecture}");
    }
}

#[test]
fn a_latent_without_a_direction_is_drawn_anew() {
    let resolved = resolved(TrainArchitecture::JumpRelu, false);
    let sae = changed(&example(Architecture::JumpRelu, WIDTHS[0], D_SAE), |_, weights| {
        weights.w_dec[3 * WIDTHS[0]..4 * WIDTHS[0]].fill(0.0);
    });
    let sae = sae.expect("an SAE");
    let drawn = Weights::random(D_SAE, vec![0.0; WIDTHS[0]], resolved.config.seed);
    let weights = of(sae.clone(), &standard(&resolved), &resolved);
    assert_eq!((weights.decoder_row(3), weights.encoder_row(3)), (drawn.decoder_row(3), drawn.encoder_row(3)));
    assert!(weights.b_enc[3] == 0.0 && weights.extra("threshold").expect("jumprelu has one")[3] > 0.0);
    assert_ne!(weights.decoder_row(4), drawn.decoder_row(4));

    let config = TrainConfig { init_from: Some("an SAE".into()), ..resolved.config.clone() };
    let resolved = Resolved { initial: Some(sae), ..resolved };
    let kept = initial_weights_kept(&config, &resolved).expect("a sentence");
    for part in
        ["thresholds of 40 latents", "moments start at zero", "; 1 latents without a direction get new random ones"]
    {
        assert!(kept.contains(part), "{kept}");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let refused = |trained, sae: &Sae| {
        misfit(sae, &resolved(trained, false)).map(|(expected, found)| expected + ", found " + &found)
    };
    let says = |found: Option<String>, what: &str| {
        assert!(found.as_ref().is_some_and(|text| text.contains(what)), "{found:?}")
    };
    let sae = |architecture| example(architecture, WIDTHS[0], D_SAE);
    assert_eq!(refused(TrainArchitecture::BatchTopK, &sae(Architecture::TopK)), None);
    assert_eq!(refused(TrainArchitecture::TopK, &sae(Architecture::JumpRelu)), None);
    says(
        refused(TrainArchitecture::JumpRelu, &sae(Architecture::TopK)),
        "one of jumprelu, standard, to continue as jumprelu",
    );
    says(refused(TrainArchitecture::Relu, &sae(Architecture::Gated)), "found gated");
    says(refused(TrainArchitecture::Transcoder, &sae(Architecture::JumpRelu)), "jumprelu transcoder");
    let wider = example(Architecture::TopK, WIDTHS[0], 50);
    says(refused(TrainArchitecture::TopK, &wider), "d_in 12, d_sae 40 (see `d_sae`), found d_in 12, d_sae 50");
    let normalizing = changed(&sae(Architecture::TopK), |config, _| config.input_norm = InputNorm::ConstantNorm);
    let normalizing = normalizing.expect("an SAE");
    says(refused(TrainArchitecture::TopK, &normalizing), "one that normalizes them (ConstantNorm)");
    let skipping = changed(&sae(Architecture::TopK), |_, weights| {
        weights.w_skip = Some(vec![0.0; WIDTHS[0] * WIDTHS[0]]);
    });
    says(refused(TrainArchitecture::TopK, &skipping.expect("an SAE")), "without a skip connection");
}
