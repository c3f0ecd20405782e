//! Training on a running model: the rows equal those of a harvest, and a run stopped at any point ends with the same
//! bytes.
#![expect(clippy::unwrap_used, reason = "tests")]

mod folder;
mod stop_at;

use std::{fs, path::Path, sync::Mutex};

use folder::{Files, assert_same, files, without_checkpoints};
use harvester::{
    ActivationDataset, Compute, ContextCursor, Corpus, CorpusOptions, HarvestConfig, HookPoint, LanguageModel,
    LiveModel, ModelSource, Monitor, Silent, StorageDtype, harvest,
};
use stop_at::{Stop, StopAt};
use trainer::{SaeManifest, SweepPlan, TrainArchitecture, TrainConfig, sweep, train, train_live};

const POINT: HookPoint = HookPoint::Embed;

fn model() -> LanguageModel {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama");
    LanguageModel::open(&ModelSource::Folder(path), Compute::F32, &Silent).unwrap()
}

/// 60 documents of different lengths.
fn corpus(folder: &Path) -> Corpus {
    let sentence = |i: usize| "the cat sat on the mat, and then 12 dogs came. ".repeat(i % 5 + 1) + &i.to_string();
    let lines: String = (0..60).map(|i| format!("{{\"text\": \"{}\"}}\n", sentence(i))).collect();
    let path = folder.join("corpus.jsonl");
    fs::write(&path, lines).unwrap();
    Corpus::open(&[path], &CorpusOptions::default()).unwrap()
}

fn harvest_config(tokens: Option<u64>) -> HarvestConfig {
    HarvestConfig {
        hook_points: vec![POINT],
        ctx_len: 16,
        batch: 3,
        tokens,
        part_tokens: 16 * 16,
        ..Default::default()
    }
}

/// About three passes over the corpus, with several blocks per pass; blocks end inside steps.
fn train_config() -> TrainConfig {
    TrainConfig {
        d_sae: Some(32),
        k: 3,
        tokens: 60 * 128,
        batch: 128,
        held_out_fraction: 0.05,
        dead_after_tokens: 1000,
        buffer_bytes: 700 * 48 * 2,
        checkpoint_every: 4,
        log_every: 5,
        ..TrainConfig::default()
    }
}

/// Fewer tokens than the corpus has, and a buffer with room for many more.
fn short_config() -> TrainConfig {
    TrainConfig { tokens: 5 * 128 + 1, buffer_bytes: 1 << 29, ..train_config() }
}

/// Every piece of work, in the order they began: its name, the amount done and the total.
#[derive(Default)]
struct Ledger {
    works: Mutex<Vec<(String, u64, u64)>>,
    /// Indices of those in progress, the innermost last.
    open: Mutex<Vec<usize>>,
    /// Stops the run after this amount of all work.
    stop_after: Option<u64>,
}

impl Ledger {
    /// Fillings of the shuffle buffer: the rows computed, and those wanted.
    fn fills(&self) -> Vec<(u64, u64)> {
        let works = self.works.lock().unwrap();
        let fills = works.iter().filter(|(what, ..)| what.starts_with("filling the shuffle buffer"));
        fills.map(|(_, done, total)| (*done, *total)).collect()
    }

    fn rows_computed(&self) -> u64 {
        self.fills().iter().map(|(done, _)| done).sum()
    }
}

impl Monitor for Ledger {
    fn start(&self, what: &str, total: u64, _unit: &str) {
        let mut works = self.works.lock().unwrap();
        self.open.lock().unwrap().push(works.len());
        works.push((what.to_string(), 0, total));
    }
    fn advance(&self, n: u64) {
        let innermost = *self.open.lock().unwrap().last().unwrap();
        self.works.lock().unwrap()[innermost].1 += n;
    }
    fn skip(&self, _n: u64) {}
    fn finish(&self) {
        self.open.lock().unwrap().pop();
    }
    fn cancelled(&self) -> bool {
        let done = self.works.lock().unwrap().iter().map(|(_, done, _)| done).sum::<u64>();
        self.stop_after.is_some_and(|end| done >= end)
    }
}

#[test]
fn the_buffer_is_no_larger_than_the_run_and_says_how_full_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, out) = (Ledger::default(), folder.path().join("sae"));
    train_live(&model(), corpus(folder.path()), &harvest_config(None), &short_config(), &out, &ledger).unwrap();
    let fills = ledger.fills();
    // The rows of five steps. Those on which densities are counted, one per token, come after them.
    assert_eq!(fills.len(), 2, "{fills:?}");
    assert_eq!(fills[0], (5 * 128, 5 * 128), "{fills:?}");
    // The forward pass that fills the buffer may compute up to 3 contexts of 16 rows more than the buffer asks for.
    let sample = 5 * 128 + 1;
    assert!(fills[1].1 <= sample && fills[1].1 + 48 > sample && fills[1].0 == fills[1].1, "{fills:?}");
}

#[test]
fn a_stopped_run_computes_no_row_again_unless_the_file_of_its_buffer_is_lost() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        ("whole", |_| ()),
        ("removed", |path| fs::remove_file(path).unwrap()),
        ("cut", |path| {
            fs::write(path, &fs::read(path).unwrap()[..fs::metadata(path).unwrap().len() as usize - 1]).unwrap()
        }),
        ("flipped", |path| {
            let mut bytes = fs::read(path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("without its hash", |path| fs::remove_file(path.with_extension("sha256")).unwrap()),
        ("no file at all", |path| fs::write(path, "").unwrap()),
    ];
    let config = TrainConfig { tokens: 20 * 128, checkpoint_every: 1000, ..train_config() };
    let harvest = HarvestConfig { dtype: StorageDtype::I8, ..harvest_config(None) };
    let run = |folder: &Path, ledger: &Ledger| {
        train_live(&model(), corpus(folder), &harvest, &config, &folder.join("sae"), ledger).map(drop)
    };
    let weights = |folder: &Path| fs::read(folder.join("sae/sae_weights.safetensors")).unwrap();
    let (folder, ledger) = (tempfile::tempdir().unwrap(), Ledger::default());
    run(folder.path(), &ledger).unwrap();
    let (whole, needed) = (weights(folder.path()), ledger.rows_computed());
    // Before the first step; in steps; while the buffer is filled for the second time, in the middle of a batch.
    for stop_after in [500, 1500, 2300] {
        for (damage, damaged) in damages {
            let folder = tempfile::tempdir().unwrap();
            let (before, after) = (Ledger { stop_after: Some(stop_after), ..Ledger::default() }, Ledger::default());
            run(folder.path(), &before).unwrap_err();
            let path = folder.path().join("sae/checkpoints/shuffle-buffer");
            damaged(&path);
            run(folder.path(), &after).unwrap();
            assert!(weights(folder.path()) == whole, "{damage}, stopped after {stop_after}");
            // The last forward pass that fills a buffer may compute more than the buffer asks for.
            let more = (before.rows_computed() + after.rows_computed()).saturating_sub(needed);
            assert_eq!(more == 0, damage == "whole", "{damage}, stopped after {stop_after}: {more} computed again");
            assert!(!path.exists() && !path.with_extension("sha256").exists());
        }
    }
}

#[test]
fn a_stream_has_the_rows_that_a_harvest_writes_from_any_place_on() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    harvest(&model(), &corpus(folder.path()), &harvest_config(None), &out, &Silent).unwrap();
    let dataset = ActivationDataset::open(&out).unwrap();
    let (mut tokens, mut written) = (vec![], vec![]);
    for group in &dataset.row_groups {
        let read = dataset.read(*group, POINT).unwrap();
        tokens.extend_from_slice(&read.rows.token);
        written.extend_from_slice(&read.values.to_f32());
    }
    let live = LiveModel::new(&model(), corpus(folder.path()), &harvest_config(None)).unwrap();
    let streamed = |from: ContextCursor| -> (Vec<u32>, Vec<f32>, Vec<ContextCursor>) {
        let batches: Vec<_> = live.stream(&[POINT], from).unwrap().map(Result::unwrap).collect();
        let tokens = batches.iter().flat_map(|batch| batch.activations[0].rows.token.clone()).collect();
        let values = batches.iter().flat_map(|batch| batch.activations[0].values.to_f32().into_owned()).collect();
        (tokens, values, batches.iter().map(|batch| batch.next).collect())
    };
    let (live_tokens, live_values, places) = streamed(ContextCursor::default());
    assert_eq!(live_tokens, tokens);
    assert_eq!(live_values, written);
    let middle = places[places.len() / 2];
    let (rest, _, _) = streamed(middle);
    assert!(!rest.is_empty() && rest == tokens[middle.contexts as usize * 16..]);
}

#[test]
fn a_stream_of_several_hook_points_has_the_rows_of_each() {
    let folder = tempfile::tempdir().unwrap();
    let points = vec![HookPoint::resid_post(0), POINT, HookPoint::resid_post(1)];
    let config = HarvestConfig { hook_points: points.clone(), ..harvest_config(Some(160)) };
    let live = LiveModel::new(&model(), corpus(folder.path()), &config).unwrap();
    let batch = |points: &[HookPoint]| live.stream(points, ContextCursor::default()).unwrap().next().unwrap().unwrap();
    // Two of the hook points, in another order.
    let together = batch(&[points[2], points[0]]);
    let alone = [points[2], points[0]].map(|point| batch(&[point]).activations.remove(0));
    assert_eq!(together.activations, alone);
    assert!(together.activations[0].values.to_f32() != together.activations[1].values.to_f32());
    let message = live.stream(&[HookPoint::resid_post(7)], ContextCursor::default()).err().unwrap().to_string();
    assert!(message.contains("blocks.0.hook_resid_post, hook_embed"), "{message}");
}

#[test]
fn columns_are_those_named_and_each_is_named_once() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (POINT, HookPoint::resid_post(1));
    let config = HarvestConfig { hook_points: vec![first, second], ..harvest_config(Some(480)) };
    let out = folder.path().join("out");
    harvest(&model(), &corpus(folder.path()), &config, &out, &Silent).unwrap();
    let dataset = ActivationDataset::open(&out).unwrap();
    let short = TrainConfig { tokens: 5 * 128, ..train_config() };
    let run = |config: TrainConfig| train(&dataset, &config, &tempfile::tempdir().unwrap().path().join("sae"), &Silent);
    let refused = |config| run(config).unwrap_err().to_string();
    let none = refused(short.clone());
    assert!(none.contains("one of hook_embed, blocks.1.hook_resid_post, found none"), "{none}");
    let crosscoder = TrainConfig { architecture: TrainArchitecture::Crosscoder, ..short.clone() };
    let twice = refused(TrainConfig { hook_points: vec![first, first], ..crosscoder.clone() });
    assert!(twice.contains("each hook point once, found hook_embed twice"), "{twice}");
    let transcoder = TrainConfig { architecture: TrainArchitecture::Transcoder, ..short.clone() };
    let itself = refused(TrainConfig { hook_points: vec![first], target_hook_point: Some(first), ..transcoder });
    assert!(itself.contains("hook_embed twice"), "{itself}");
    let unknown = refused(TrainConfig { hook_points: vec![first, HookPoint::resid_post(0)], ..crosscoder });
    assert!(unknown.contains("found blocks.0.hook_resid_post"), "{unknown}");
    let manifest = run(TrainConfig { hook_points: vec![second], ..short }).unwrap();
    assert_eq!(manifest.config.hook_points, [second]);
}

#[test]
fn a_run_stopped_anywhere_ends_in_the_same_bytes() {
    ends_in_the_same_bytes(&train_config(), &[100, 900, 2000, 5000, 7500]);
    // One block holds all rows that the run draws; the first stop happens while it is filled, the last ones while the
    // rows after it are computed.
    ends_in_the_same_bytes(&short_config(), &[100, 700, 1000, 1200]);
    let architecture = TrainArchitecture::Crosscoder;
    let hook_points = vec![HookPoint::resid_post(1), POINT];
    ends_in_the_same_bytes(&TrainConfig { architecture, hook_points, ..train_config() }, &[900, 5000]);
}

fn ends_in_the_same_bytes(config: &TrainConfig, stops: &[u64]) {
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let named = config.hook_points.clone();
    let hook_points = if named.is_empty() { vec![POINT] } else { named };
    let harvest_config = HarvestConfig { hook_points, ..harvest_config(None) };
    let run = |folder: &Path, monitor: &dyn Monitor| {
        train_live(&model(), corpus(folder), &harvest_config, config, &folder.join("sae"), monitor)
    };
    run(whole.path(), &Silent).unwrap();
    for &tokens in stops {
        let ended = run(stopped.path(), &StopAt::new(tokens, Stop::Cancel));
        let message = ended.map(drop).expect_err(&format!("stopped after {tokens}")).to_string();
        assert!(message.contains("stopped on request"), "{message}");
    }
    run(stopped.path(), &Silent).unwrap();
    // Each run has its corpus in its own temporary folder. Only the held-out folder's manifest contains that path.
    let compared = |folder: &Path| -> Files {
        let name = |path: &Path| path.to_string_lossy().into_owned();
        let all = files(&folder.join("sae")).into_iter();
        all.filter(|(path, _)| !name(path).ends_with("manifest.json") && !path.starts_with("checkpoints")).collect()
    };
    let expected = compared(whole.path());
    assert!(expected.contains_key(Path::new("sae_weights.safetensors")));
    assert_same(&compared(stopped.path()), &expected, "stopped");

    let manifest = SaeManifest::finished(&stopped.path().join("sae")).unwrap();
    let held_out = manifest.open_activations(&stopped.path().join("sae")).unwrap();
    assert_eq!(manifest.held_out, 0..held_out.manifest.counts.contexts);
    assert_eq!(manifest.live_from.unwrap().contexts, manifest.held_out.end, "held-out contexts are not trained on");
}

#[test]
fn a_training_goes_on_after_its_activations_were_extended() {
    let folder = tempfile::tempdir().unwrap();
    let (corpus, config) = (corpus(folder.path()), TrainConfig { tokens: 20 * 128, ..train_config() });
    let grown = |tokens: u64, name: &str| {
        let acts = folder.path().join(name);
        harvest(&model(), &corpus, &harvest_config(Some(tokens)), &acts, &Silent).unwrap();
        ActivationDataset::open(acts).unwrap()
    };
    // Three whole parts of 256 tokens and a short one, which the extension makes again.
    let (acts, out) = (grown(50 * 16, "acts"), folder.path().join("sae"));
    assert!(train(&acts, &config, &out, &StopAt::new(10 * 128, Stop::Cancel)).is_err());
    let extended = grown(90 * 16, "acts");
    train(&extended, &config, &out, &Silent).unwrap();
    let whole = folder.path().join("whole");
    train(&grown(50 * 16, "same"), &config, &whole, &Silent).unwrap();
    let weights = |out: &Path| without_checkpoints(out).remove(Path::new("sae_weights.safetensors")).unwrap();
    assert!(weights(&out) == weights(&whole));
    // The contexts that it held out are still the ones that are measured.
    let manifest = SaeManifest::finished(&out).unwrap();
    let then = manifest.open_activations(&out).unwrap();
    assert_eq!((then.manifest.counts.tokens, then.context_end), (acts.manifest.counts.tokens, manifest.held_out.end));
    // A run that has not begun takes all of them.
    let new = train(&extended, &config, &folder.path().join("new"), &Silent).unwrap();
    assert_eq!(new.held_out.end, 90);
}

#[test]
fn a_sweep_goes_on_after_its_activations_were_extended() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = corpus(folder.path());
    let grown = |tokens: u64, name: &str| {
        let acts = folder.path().join(name);
        harvest(&model(), &corpus, &harvest_config(Some(tokens)), &acts, &Silent).unwrap();
        ActivationDataset::open(acts).unwrap()
    };
    let swept = |acts: &ActivationDataset, out: &Path, monitor: &dyn Monitor| {
        let of = |k| TrainConfig { k, tokens: 20 * 128, ..train_config() };
        // One after the other: the first has finished when the second is stopped.
        let plan = SweepPlan::new(acts.into(), vec![of(2), of(4)], Some(1)).unwrap();
        sweep(&plan, out, monitor).map(|rows| rows.into_iter().map(|row| (row.name, row.fvu)).collect::<Vec<_>>())
    };
    let out = folder.path().join("runs");
    assert!(swept(&grown(50 * 16, "acts"), &out, &StopAt::new(30 * 128, Stop::Cancel)).is_err());
    let rows = swept(&grown(90 * 16, "acts"), &out, &Silent).unwrap();
    assert_eq!(rows, swept(&grown(50 * 16, "same"), &folder.path().join("whole"), &Silent).unwrap());
    assert!(rows.iter().all(|(_, fvu)| fvu.is_some()), "{rows:?}");
}

#[test]
fn what_cannot_be_trained_is_refused_before_anything_is_harvested() {
    let folder = tempfile::tempdir().unwrap();
    let (out, narrow) = (folder.path().join("sae"), folder.path().join("narrow"));
    let run = |config: TrainConfig, out: &Path| {
        train_live(&model(), corpus(folder.path()), &harvest_config(None), &config, out, &Silent)
    };
    run(TrainConfig { d_sae: Some(16), ..train_config() }, &narrow).unwrap();
    let refused = |config: TrainConfig| {
        let message = run(config, &out).unwrap_err().to_string();
        assert!(!out.exists(), "{message}");
        message
    };
    assert_eq!(refused(TrainConfig { k: 33, ..train_config() }), "`k`: expected 1 to d_sae, 32, found 33");
    let other = refused(TrainConfig { init_from: Some(narrow.clone()), ..train_config() });
    assert!(other.contains("`init_from`: expected an SAE of d_in 48, d_sae 32"), "{other}");
}

#[test]
fn another_split_and_nothing_held_out_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = |fraction| {
        let config = TrainConfig { held_out_fraction: fraction, ..train_config() };
        let out = folder.path().join("sae");
        train_live(&model(), corpus(folder.path()), &harvest_config(None), &config, &out, &Silent)
    };
    let message = run(0.0).unwrap_err().to_string();
    assert!(message.contains("`held_out_fraction`"), "{message}");
    assert!(!folder.path().join("sae").exists(), "nothing is written");
    run(0.05).unwrap();
    let message = run(0.5).unwrap_err().to_string();
    assert!(message.contains("`held_out_fraction`: 0.05 there, 0.5 here"), "{message}");
}

#[test]
fn a_folder_of_anything_else_is_refused_before_the_model_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (acts, sae) = (folder.path().join("acts"), folder.path().join("sae"));
    harvest(&model(), &corpus(folder.path()), &harvest_config(Some(960)), &acts, &Silent).unwrap();
    train(&ActivationDataset::open(&acts).unwrap(), &short_config(), &sae, &Silent).unwrap();
    for (out, said) in [(&acts, "refract.activations"), (&sae, "from a running model here")] {
        let before = files(out);
        let run = train_live(&model(), corpus(folder.path()), &harvest_config(None), &short_config(), out, &Silent);
        let message = run.unwrap_err().to_string();
        assert!(message.contains(said), "{message}");
        assert_same(&files(out), &before, said);
    }
}
