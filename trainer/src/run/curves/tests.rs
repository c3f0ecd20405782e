//! The page is complete, loads nothing from other files, and shows the log without losing spikes.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, path::Path};

use harvester::{ArtifactRef, Family, Manifest, ModelIdentity};

use super::*;
use crate::TrainConfig;

fn manifest(source: &str) -> SaeManifest {
    let model = ModelIdentity {
        source: source.into(),
        relative: None,
        recorded: None,
        family: Family::Llama,
        sha256: "00".into(),
        tokenizer_sha256: "00".into(),
        n_layers: 2,
        d_model: 16,
        d_vocab: 2,
    };
    SaeManifest {
        format: SaeManifest::FORMAT.into(),
        version: 1,
        refract_version: "0.0.0".into(),
        run_id: "00".into(),
        complete: false,
        activations: ArtifactRef::new(Path::new("sae"), &Path::new("activations").into(), Some("00".into())),
        model: Some(model),
        recorded_points: (&TrainConfig::default()).into(),
        vectors: None,
        d_in: 16,
        d_sae: 32,
        held_out: 0..1,
        live_from: None,
        sink_norm: 100.0,
        bos: None,
        config: TrainConfig::default(),
        init_from: vec![],
        init_sparsity_coefficient: None,
        diverged: None,
        results: None,
    }
}

fn line(step: u64) -> MetricsLine {
    MetricsLine {
        step,
        tokens: 4096 * step,
        loss: 100.0 / step as f64,
        fvu: 1.0 / step as f64,
        held_out_fvu: step.is_multiple_of(10).then(|| 2.0 / step as f64),
        l0: 32.0,
        sparsity_loss: 0.0,
        sparsity_coefficient: 0.0,
        aux_loss: if step > 30 { 0.9 } else { 0.0 },
        dead: 0,
        lr: 1e-3,
        grad_norm: 1.0,
    }
}

/// The JSON data in the page.
fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn a_page_has_the_whole_log_and_asks_for_nothing_from_elsewhere() {
    let lines: Vec<_> = (1..=37).map(line).collect();
    let page = page(&manifest("model"), State::Training(Some(1234.4)), &lines);
    let data = data(&page);
    assert_eq!(data["curves"]["fvu"][0].as_array().unwrap().len(), 37);
    assert_eq!(data["curves"]["fvu"][1][2], 0.33333);
    assert_eq!(data["last"]["tokens"], 4096 * 37);
    assert_eq!(data["tokens_per_second"], 1234.0);
    let names: Vec<_> = data["curves"].as_object().unwrap().keys().cloned().collect();
    let expected = ["aux_loss", "dead", "fvu", "grad_norm", "held_out_fvu", "l0", "loss", "lr"];
    assert_eq!(
        names.iter().cloned().collect::<BTreeSet<_>>(),
        expected.map(String::from).into(),
        "those always 0 are left out"
    );
    assert_eq!(data["curves"]["held_out_fvu"], json!([[40960, 81920, 122_880], [0.2, 0.1, 0.066667]]));
    assert_eq!(data["curves"]["aux_loss"][0][0], 4096 * 31, "while no latent is dead there is none");
    assert_eq!(data["tokens"], 366 * 4096, "whole batches of 1.5 million");
    for absent in ["{{", "src=", "href=", "import ", "fetch(", "url("] {
        assert!(!page.contains(absent), "{absent}");
    }
    let addresses = page.matches("://").count();
    assert_eq!(
        addresses,
        page.matches("http://www.w3.org/2000/svg").count(),
        "only as an XML namespace, not as an address"
    );
}

#[test]
fn only_a_run_that_goes_on_reads_its_page_again() {
    let refreshes = |state| page(&manifest("model"), state, &[line(1)]).contains("http-equiv=\"refresh\"");
    assert!(refreshes(State::Training(None)));
    assert!(![State::Stopped("by hand"), State::Failed("NaN"), State::Finished].into_iter().any(refreshes));
}

#[test]
fn names_cannot_end_the_script() {
    let hostile = "</script><script>alert(1)</script>{{refresh}}";
    let page = page(&manifest(hostile), State::Failed("a < b"), &[]);
    assert_eq!(page.matches("</script>").count(), 2, "the data and the script");
    assert_eq!(data(&page)["manifest"]["source"], hostile);
    assert_eq!(data(&page)["note"], "a < b");
}

#[test]
fn a_long_curve_is_thinned_and_keeps_its_ends_and_spikes() {
    let mut values: Vec<f64> = (0..100_000).map(|i| f64::from(i % 97)).collect();
    (values[41_234], values[77_777]) = (1e6, -1e6);
    let kept = thinned(&values);
    assert!(kept.len() <= MOST_POINTS, "{}", kept.len());
    assert!(kept.is_sorted_by(|a, b| a < b));
    for place in [0, 41_234, 77_777, 99_999] {
        assert!(kept.contains(&place), "{place}");
    }
    assert_eq!(thinned(&values[..2000]).len(), 2000);
    assert_eq!(thinned(&[]), Vec::<usize>::new());
}

#[test]
fn the_page_is_written_at_once_and_then_now_and_then() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CURVES_FILE);
    let written = || data(&std::fs::read_to_string(&path).unwrap());
    let mut curves = Curves::new(dir.path(), manifest("model"));
    curves.refresh(&[]).unwrap();
    assert_eq!(written()["last"], Value::Null);
    curves.refresh(&[line(1)]).unwrap();
    assert_eq!(written()["last"], Value::Null, "not written again so soon");
    let cancelled = harvester::Error::Cancelled { place: "out".into() }.into();
    curves.stop(&[line(1)], &cancelled);
    assert_eq!((&written()["state"], &written()["last"]["step"]), (&"stopped".into(), &1.into()));
    curves.finish(&manifest("model"), &[line(1), line(2)]).unwrap();
    assert_eq!((&written()["state"], &written()["last"]["step"]), (&"finished".into(), &2.into()));
}
