//! A model's weights are read once, however many stages use it. The only test of its file: it counts what this process
//! reads.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use analyzer::{
    EvaluationConfig, GenerateConfig, IndexConfig, Intervention, PlacedSae, Steering, Workbench, generate, shift,
};
use harvester::{
    ActivationDataset, Compute, Corpus, CorpusOptions, HarvestConfig, HookPoint, LanguageModel, ModelSource, NoHook,
    Silent, SpecialToken, harvest,
};
use tracing::{Event, Metadata, Subscriber, span};
use trainer::{TrainConfig, train, train_live};

/// Number of times that a model's weights were read.
static READ: AtomicUsize = AtomicUsize::new(0);

/// Counts what [`LanguageModel`] logs.
struct Counter;

impl Subscriber for Counter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "harvester::language_model"
    }
    fn event(&self, _event: &Event<'_>) {
        READ.fetch_add(1, Ordering::Relaxed);
    }
    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}
    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}
    fn enter(&self, _span: &span::Id) {}
    fn exit(&self, _span: &span::Id) {}
}

#[test]
fn the_weights_are_read_once() {
    tracing::subscriber::set_global_default(Counter).unwrap();
    let (folder, root) = (tempfile::tempdir().unwrap(), PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".."));
    let (acts, sae, features) = (folder.path().join("acts"), folder.path().join("sae"), folder.path().join("features"));
    let path = root.join("tests/fixtures/tiny/llama");
    let open_in = |compute| LanguageModel::open(&ModelSource::Folder(path.clone()), compute, &Silent);
    let open = || open_in(Compute::F32);
    let corpus = || Corpus::open(&[root.join("data/corpora/speeches.jsonl")], &CorpusOptions::default()).unwrap();
    let point = HookPoint::resid_post(1);
    let harvest_config =
        HarvestConfig { hook_points: vec![point], ctx_len: 32, tokens: Some(4096), ..HarvestConfig::default() };
    let train_config =
        TrainConfig { d_sae: Some(64), k: 4, tokens: 8192, batch: 256, held_out_fraction: 0.2, ..Default::default() };

    let model = open().unwrap();
    let manifest = harvest(&model, &corpus(), &harvest_config, acts.as_path(), &Silent).unwrap();
    assert_eq!(manifest.model, model.identity().unwrap().seen_from(&acts.as_path().into()));
    let dataset = ActivationDataset::open(&acts).unwrap();
    let trained = train(&dataset, &train_config, &sae, &Silent).unwrap();
    let placed = PlacedSae::trained(&sae).unwrap();
    let config = EvaluationConfig { ce_tokens: 64 };
    let bench = Workbench::new(placed.clone(), Some(&model)).unwrap();
    let measured = bench.evaluate(&dataset, &config, &Silent).unwrap();
    assert!(measured.held_out && !trained.held_out.is_empty());
    analyzer::index(&bench, &dataset, &IndexConfig::default(), &features, &Silent).unwrap();
    let prompt = model.tokenizer().prompt(SpecialToken::FromModel, "fellow citizens").unwrap();
    let config = GenerateConfig { max_new_tokens: 8, ..GenerateConfig::default() };
    generate(&model, &[&prompt], &config, &mut NoHook, &Silent).unwrap();
    let steering = Steering::open(&bench, vec![Intervention::clamp(3, 1.0).into()], None).unwrap();
    shift(&model, steering.hook(&bench, &model).unwrap(), &prompt, prompt.len(), 3).unwrap();
    // A finished harvest reads nothing.
    harvest(&open().unwrap(), &corpus(), &harvest_config, acts.as_path(), &Silent).unwrap();
    assert_eq!(READ.load(Ordering::Relaxed), 1);

    let config = GenerateConfig { compute: Compute::Int8, ..config };
    let write = |_| bench.side_by_side("fellow citizens", &steering, &config, &mut |_| {}, &Silent).unwrap();
    let written = [0, 1].map(write);
    assert!(written[0] == written[1]);
    assert_eq!(READ.load(Ordering::Relaxed), 2, "in int8 once more, however often it writes");
    let int8 = open_in(Compute::Int8).unwrap();
    let alone = generate(&int8, &[&prompt], &config, &mut NoHook, &Silent).unwrap().concat();
    assert_eq!(written[0].without, int8.tokenizer().decode(&alone));
    assert_eq!(READ.load(Ordering::Relaxed), 3);

    let live = folder.path().join("live");
    train_live(&open().unwrap(), corpus(), &harvest_config, &train_config, &live, &Silent).unwrap();
    assert_eq!(READ.load(Ordering::Relaxed), 4, "the held-out contexts and the stream share the weights");

    // Without effects, features name tokens and read directions off the head: nothing else of the model.
    let alone = open().unwrap();
    let again = folder.path().join("again");
    let bench = Workbench::new(placed, Some(&alone)).unwrap();
    let config = IndexConfig { effects: false, ..IndexConfig::default() };
    analyzer::index(&bench, &dataset, &config, &again, &Silent).unwrap();
    assert_eq!(READ.load(Ordering::Relaxed), 4);
}
