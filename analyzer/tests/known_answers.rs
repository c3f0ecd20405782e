//! Evaluation with answers that are known in advance: an SAE that is the identity, one that is never active. The model is
//! a tiny random llama.

#![expect(clippy::unwrap_used, reason = "tests")]

mod tiny;

use analyzer::{Evaluation, EvaluationConfig, SaeSite, evaluate};
use harvester::{ActivationDataset, Corpus, CorpusOptions, HarvestConfig, HookPoint, Silent};
use trainer::{HookPoints, Sae, SaeConfig, SaeWeights};

use tiny::{D, at, identity, model, point, root, with};

fn evaluate_on_speeches(sae: &Sae) -> Evaluation {
    evaluate_at(at(sae, 1e9))
}

/// Two hook points with the same values.
fn before_and_after() -> [HookPoint; 2] {
    [HookPoint::resid_post(0), "blocks.1.hook_resid_pre".parse().unwrap()]
}

fn evaluate_at(site: SaeSite<'_>) -> Evaluation {
    let folder = tempfile::tempdir().unwrap();
    let corpus = Corpus::open(&[root().join("data/corpora/speeches.jsonl")], &CorpusOptions::default()).unwrap();
    let config = HarvestConfig {
        hook_points: [&[point()][..], &before_and_after()].concat(),
        ctx_len: 32,
        tokens: Some(2048),
        part_tokens: 1024,
        ..HarvestConfig::default()
    };
    harvester::harvest(&model(), &corpus, &config, folder.path(), &Silent).unwrap();
    let dataset = ActivationDataset::open(folder.path()).unwrap();
    evaluate(Some(&model()), site, &dataset, 40..64, &EvaluationConfig { ce_tokens: 128 }, &Silent).unwrap()
}

#[test]
fn the_identity_loses_nothing() {
    let found = evaluate_on_speeches(&identity(0.0));
    assert_eq!(found.reconstruction.tokens, 24 * 31); // 24 contexts without position 0
    let behavior = found.behavior.unwrap();
    assert_eq!(behavior.ce_tokens, 4 * 31); // 128 tokens are 4 contexts, whose last tokens have no next token
    assert!(found.reconstruction.fvu < 1e-12, "{found:?}");
    assert!((found.reconstruction.l0 - D as f64).abs() < 0.1, "one latent per dimension: {found:?}");
    assert_eq!(behavior.ce_loss_with_sae, behavior.ce_loss_without_sae);
    assert_eq!(behavior.kl, 0.0);
}

#[test]
fn an_sae_that_is_always_silent_is_the_ablation() {
    let found = evaluate_on_speeches(&identity(f32::MAX));
    assert_eq!((found.reconstruction.l0, found.reconstruction.frac_alive), (0.0, 0.0));
    assert!(found.reconstruction.fvu >= 1.0, "{found:?}"); // it predicts zero, which is not better than the mean
    let behavior = found.behavior.unwrap();
    assert_eq!(behavior.ce_loss_with_sae, behavior.ce_loss_with_ablation);
    assert!(behavior.kl > 0.0);
}

#[test]
fn a_transcoder_takes_the_place_of_what_it_predicts_where_the_pass_reaches_that_later() {
    let [before, after] = before_and_after();
    let from_to = |from, to, threshold| {
        let sae = with(identity(threshold), |config| {
            config.hook_points = HookPoints::Transcoder { from: Some(from), to: Some(to) };
            config.apply_b_dec_to_input = false;
        });
        evaluate_at(SaeSite { sae: &sae, hook_point: from, sink_norm: 1e9 })
    };
    let perfect = from_to(before, after, 0.0);
    assert!(perfect.reconstruction.fvu < 1e-12, "{perfect:?}");
    let behavior = perfect.behavior.unwrap();
    assert_eq!(behavior.ce_loss_with_sae, behavior.ce_loss_without_sae);
    assert!(behavior.ce_loss_with_ablation != behavior.ce_loss_without_sae);
    let silent = from_to(before, after, f32::MAX).behavior.unwrap();
    assert_eq!(silent.ce_loss_with_sae, silent.ce_loss_with_ablation);
    let backwards = from_to(after, before, 0.0);
    assert!(backwards.reconstruction.fvu < 1e-12 && backwards.behavior.is_none(), "{backwards:?}");
    let elsewhere = from_to(before, point(), 0.0);
    assert!(elsewhere.reconstruction.fvu > 0.01, "another layer is not the same: {elsewhere:?}");
}

#[test]
fn a_crosscoder_is_told_place_by_place() {
    // The identity on the first hook point, nothing active on the second.
    let (_, of_first) = identity(0.0).into_parts();
    let hook_points = HookPoints::Crosscoder(before_and_after().into_iter().map(|point| (point, D)).collect());
    let beside_zeros = |rows: &[f32]| rows.chunks(D).flat_map(|row| [row, &[0.0; D]].concat()).collect::<Vec<_>>();
    let weights = SaeWeights {
        w_enc: beside_zeros(&of_first.w_enc),
        w_dec: beside_zeros(&of_first.w_dec),
        b_dec: vec![0.0; 2 * D],
        ..of_first
    };
    let sae = Sae::new(SaeConfig { hook_points, ..SaeConfig::new(2 * D, 2 * D) }, weights).unwrap();
    let found = evaluate_at(SaeSite { sae: &sae, hook_point: before_and_after()[0], sink_norm: 1e9 });
    let [first, second] = found.fvu_by_hook_point[..] else { panic!("{found:?}") };
    assert_eq!([first.hook_point, second.hook_point], before_and_after());
    assert!(first.fvu < 1e-12 && second.fvu >= 1.0, "{found:?}");
    assert!((found.reconstruction.fvu - second.fvu / 2.0).abs() < 1e-9, "{found:?}");
    assert!(found.behavior.is_none());
}
