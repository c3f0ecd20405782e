//! The harvest as a whole, on a tiny random model: what is stored is what the model computes; a run stopped anywhere
//! and repeated writes the bytes of one that was not; a folder with something else in it is left alone.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use candle_core::{Device, Tensor};
use half::f16;
use harvester::{
    ActivationDataset, Capture, Checkpoint, Corpus, CorpusOptions, Error, HarvestConfig, HarvestManifest, HookPoint,
    Monitor, Silent, SpecialToken, StorageDtype, TextTokenizer, Transformer, harvest, model_source::ResolvedModel,
};

const CTX_LEN: usize = 16;

fn model() -> ResolvedModel {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama");
    ResolvedModel { path, source: "tiny/llama".into() }
}

/// Forty documents of different lengths, in a file of the given folder.
fn corpus(folder: &Path) -> Corpus {
    let sentence = |i: usize| "the cat sat on the mat, and then 12 dogs came. ".repeat(i % 5 + 1) + &i.to_string();
    let lines: String = (0..40).map(|i| format!("{{\"text\": \"{}\"}}\n", sentence(i))).collect();
    let path = folder.join("corpus.jsonl");
    fs::write(&path, lines).unwrap();
    Corpus::open(&[path], &CorpusOptions::default()).unwrap()
}

fn config() -> HarvestConfig {
    HarvestConfig {
        hook_points: vec![HookPoint::Embed, HookPoint::resid_post(1)],
        ctx_len: CTX_LEN,
        batch: 3,
        tokens: Some(60 * CTX_LEN as u64),
        part_tokens: 16 * CTX_LEN, // no multiple of the batch
        ..HarvestConfig::default()
    }
}

/// A folder for the corpus, one for the output, and what is harvested.
struct Bench {
    folder: tempfile::TempDir,
    corpus: Corpus,
    config: HarvestConfig,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let corpus = corpus(folder.path());
        Self { folder, corpus, config: config() }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn run(&self, monitor: &dyn Monitor) -> Result<HarvestManifest, Error> {
        harvest(&model(), &self.corpus, &self.config, &self.out(), monitor)
    }

    /// Names and content of the output files; the temporary folder's own name is taken out of the manifest.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let here = self.folder.path().to_str().unwrap();
        let content = |name: &str, path: &Path| match name {
            "manifest.json" => fs::read_to_string(path).unwrap().replace(here, "").into_bytes(),
            _ => fs::read(path).unwrap(),
        };
        let entries = fs::read_dir(self.out()).unwrap().map(Result::unwrap);
        let mut files: Vec<_> = entries
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
            .map(|(name, path)| (name.clone(), content(&name, &path)))
            .collect();
        files.sort();
        files
    }
}

/// Cancels once it has been asked `after` times.
struct StopAfter {
    after: u64,
    asked: AtomicU64,
}

impl Monitor for StopAfter {
    fn start(&self, _what: &str, _total: u64, _unit: &str) {}
    fn advance(&self, _n: u64) {}
    fn note(&self, _text: &str) {}
    fn finish(&self) {}
    fn cancelled(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) >= self.after
    }
}

#[test]
fn what_is_stored_is_what_the_model_computes() {
    for dtype in [StorageDtype::F32, StorageDtype::F16] {
        let bench = Bench { config: HarvestConfig { dtype, ..config() }, ..Bench::new() };
        let manifest = bench.run(&Silent).unwrap();
        assert_eq!((manifest.counts.contexts, manifest.counts.tokens, manifest.layers_run), (60, 960, 2));
        let dataset = ActivationDataset::open(&bench.out()).unwrap();
        let transformer = Transformer::load(&Checkpoint::open(&model().path).unwrap(), &Device::Cpu).unwrap();
        for group in dataset.row_groups() {
            for point in &bench.config.hook_points {
                let stored = dataset.read(*group, *point).unwrap();
                for (tokens, stored) in
                    stored.rows.token.chunks(CTX_LEN).zip(stored.to_f32().chunks(CTX_LEN * stored.d_model))
                {
                    let tokens = Tensor::from_slice(tokens, (1, CTX_LEN), &Device::Cpu).unwrap();
                    let mut capture = Capture::new(vec![*point]);
                    transformer.run(&tokens, &mut capture).unwrap();
                    let computed: Vec<f32> = capture.take(*point).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                    for (stored, computed) in stored.iter().zip(computed) {
                        let expected =
                            if dtype == StorageDtype::F16 { f16::from_f32(computed).to_f32() } else { computed };
                        assert!((stored - expected).abs() <= 1e-3 * expected.abs() + 1e-5, "{stored}, not {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn tokens_are_the_documents_in_the_seeds_order() {
    let bench = Bench::new();
    let manifest = bench.run(&Silent).unwrap();
    let tokenizer = TextTokenizer::open(&model().path).unwrap();
    let separator = manifest.config.separator.id();
    assert_eq!(separator, tokenizer.eos());
    let mut expected = vec![];
    for document in bench.corpus.order(Some(0)) {
        let tokens = tokenizer.encode(&bench.corpus.document(document).unwrap()).unwrap();
        expected.extend(tokens.into_iter().chain(separator).map(|token| (document, token)));
    }
    let dataset = ActivationDataset::open(&bench.out()).unwrap();
    let mut found = vec![];
    for group in dataset.row_groups() {
        let rows = dataset.tokens(*group).unwrap();
        found.extend(rows.document.into_iter().zip(rows.token));
    }
    assert_eq!(found, expected[..found.len()]);
}

#[test]
fn a_run_stopped_anywhere_and_repeated_equals_one_that_was_not() {
    let whole = Bench::new();
    whole.run(&Silent).unwrap();
    let names: Vec<_> = whole.files().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["manifest.json", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet", "part-00003.parquet"]
    );
    for after in 0..24 {
        let bench = Bench::new();
        match bench.run(&StopAfter { after, asked: AtomicU64::new(0) }) {
            Err(Error::Cancelled { path }) => assert_eq!(path, bench.out()),
            other => assert!(other.is_ok() && after >= 22, "after {after} batches: {other:?}"),
        }
        // What a killed process leaves besides: half a part, and a part that is not listed yet.
        fs::write(bench.out().join("part-00009.parquet.tmp"), "half").unwrap();
        fs::write(bench.out().join("part-00008.parquet"), "not listed").unwrap();
        bench.run(&Silent).unwrap();
        assert!(bench.files() == whole.files(), "stopped after {after} batches");
    }
}

#[test]
fn a_finished_folder_is_left_as_it_is() {
    let bench = Bench::new();
    let manifest = bench.run(&Silent).unwrap();
    let before = fs::metadata(bench.out().join("manifest.json")).unwrap().modified().unwrap();
    assert_eq!(bench.run(&StopAfter { after: 0, asked: AtomicU64::new(0) }).unwrap(), manifest);
    assert_eq!(fs::metadata(bench.out().join("manifest.json")).unwrap().modified().unwrap(), before);
}

#[test]
fn a_larger_budget_extends_and_equals_one_run() {
    let mut whole = Bench::new();
    whole.config.tokens = None;
    let corpus_contexts = whole.run(&Silent).unwrap().counts.contexts;
    for first in [5, 16, 37, 60] {
        let mut bench = Bench::new();
        bench.config.tokens = Some(first * CTX_LEN as u64);
        assert_eq!(bench.run(&Silent).unwrap().counts.contexts, first);
        bench.config.tokens = None;
        let extended = bench.run(&Silent).unwrap();
        assert_eq!(extended.counts.contexts, corpus_contexts);
        assert!(extended.counts.dropped_tokens > 0);
        assert!(bench.files() == whole.files(), "extended from {first} contexts");
    }
}

#[test]
fn another_run_or_another_folder_is_refused_untouched() {
    let mut bench = Bench::new();
    bench.run(&Silent).unwrap();
    let before = bench.files();
    bench.config.seed = Some(5);
    bench.config.separator = SpecialToken::None;
    let Err(Error::OtherRun { differences, .. }) = bench.run(&Silent) else { panic!("went on with another run") };
    assert_eq!(differences.len(), 2, "{differences:?}");
    assert!(differences.contains(&"config.seed: 0 there, 5 here".to_string()), "{differences:?}");
    assert!(bench.files() == before);

    let foreign = Bench::new();
    fs::create_dir(foreign.out()).unwrap();
    fs::write(foreign.out().join("thesis.tex"), "years of work").unwrap();
    let message = foreign.run(&Silent).unwrap_err().to_string();
    assert!(message.contains("thesis.tex"), "{message}");
    assert_eq!(foreign.files().len(), 1);
}

#[test]
fn what_cannot_be_harvested_is_said_before_anything_is_written() {
    let refused = |change: &dyn Fn(&mut HarvestConfig)| {
        let mut bench = Bench::new();
        change(&mut bench.config);
        let message = bench.run(&Silent).unwrap_err().to_string();
        assert!(!bench.out().exists(), "{message}");
        message
    };
    assert!(refused(&|config| config.hook_points = vec![HookPoint::resid_post(3)]).contains("layer from 0 to 2"));
    assert!(refused(&|config| config.hook_points.clear()).contains("hook points"));
    assert!(refused(&|config| config.ctx_len = 65).contains("2 to 64"));
    assert!(refused(&|config| config.part_tokens = 100).contains("a multiple of the context length, 16"));
    assert!(refused(&|config| config.bos = SpecialToken::Id(99_999)).contains("99999"));
}

#[test]
fn a_corpus_shorter_than_a_context_is_refused_and_the_folder_can_be_used_again() {
    let mut bench = Bench::new();
    let long = std::mem::replace(&mut bench.corpus, {
        let path = bench.folder.path().join("short.txt");
        fs::write(&path, "the cat").unwrap();
        Corpus::open(&[path], &CorpusOptions::default()).unwrap()
    });
    let message = bench.run(&Silent).unwrap_err().to_string();
    assert!(message.contains("one context of 16 tokens"), "{message}");
    bench.corpus = long;
    bench.run(&Silent).unwrap();
}
