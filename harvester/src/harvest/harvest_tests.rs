//! The whole harvest, on a tiny random model: the stored values are those that the model computes; a run stopped
//! anywhere and repeated writes the same bytes as an uninterrupted one; a folder with other content is left alone.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use half::f16;

use crate::{
    ActivationDataset, Batch, Compute, Corpus, CorpusOptions, Error, HarvestConfig, HarvestManifest, HookPoint,
    LanguageModel, Layout, Location, ModelSource, Monitor, Silent, SpecialToken, StorageDtype, TokenRows, harvest,
    merge, model::Capture, text::Document,
};

const CTX_LEN: usize = 16;

/// Forward passes of [`config`]: three parts of 16 contexts in batches of three, and one part of 12.
const BATCHES: u64 = 22;

fn model() -> LanguageModel {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama");
    LanguageModel::open(&ModelSource::Folder(path), Compute::F32, &Silent).unwrap()
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
        part_tokens: 16 * CTX_LEN, // not a multiple of the batch
        ..HarvestConfig::default()
    }
}

/// A folder for the corpus and the output, the corpus, and the config.
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
        harvest(&model(), &self.corpus, &self.config, self.out(), monitor)
    }

    /// Names and contents of the output files. The name of the temporary folder is removed from the manifest, and
    /// therefore its checksum too.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let here = self.folder.path().to_str().unwrap();
        let content = |name: &str, path: &Path| match name {
            "manifest.json" => {
                let text = fs::read_to_string(path).unwrap().replace(here, "");
                let lines: Vec<_> = text.lines().filter(|line| !line.contains("manifest_sha256")).collect();
                lines.join("\n").into_bytes()
            }
            _ => fs::read(path).unwrap(),
        };
        let entries = fs::read_dir(self.out()).unwrap().map(Result::unwrap);
        // The earlier content of an extended folder is extra.
        let entries = entries.filter(|entry| entry.file_name() != "earlier");
        let mut files: Vec<_> = entries
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
            .map(|(name, path)| (name.clone(), content(&name, &path)))
            .collect();
        files.sort();
        files
    }
}

/// Cancels after it has been asked `after` times, and keeps what is said.
struct StopAfter {
    after: u64,
    asked: AtomicU64,
    said: Mutex<Vec<String>>,
}

impl StopAfter {
    fn batches(after: u64) -> Self {
        Self { after, asked: AtomicU64::new(0), said: Mutex::default() }
    }
}

impl Monitor for StopAfter {
    fn say(&self, sentence: &str) {
        self.said.lock().unwrap().push(sentence.into());
    }
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
        let dataset = ActivationDataset::open(bench.out()).unwrap();
        let model = model();
        let transformer = model.transformer().unwrap();
        for group in &dataset.row_groups {
            for point in &bench.config.hook_points {
                let stored = dataset.read(*group, *point).unwrap();
                for (tokens, stored) in
                    stored.rows.token.chunks(CTX_LEN).zip(stored.values.to_f32().chunks(CTX_LEN * stored.d_model))
                {
                    let mut capture = Capture::new(vec![*point]);
                    transformer.run(&Batch::of([tokens]), &mut capture).unwrap();
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
    let model = model();
    let tokenizer = model.tokenizer();
    let separator = manifest.config.separator.id();
    assert_eq!(separator, tokenizer.eos());
    let mut expected = vec![];
    let order = bench.corpus.order(Some(0));
    for document in (0..).map_while(|place| order.get(place)) {
        let Document::Text(text) = bench.corpus.document(document).unwrap() else { panic!("a text") };
        let tokens = tokenizer.encode(&text).unwrap();
        expected.extend(tokens.into_iter().chain(separator).map(|token| (document, token)));
    }
    let dataset = ActivationDataset::open(bench.out()).unwrap();
    let mut found = vec![];
    for group in &dataset.row_groups {
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
    let parts = (0..4).map(|number| format!("part-{number:05}.parquet"));
    assert_eq!(
        names,
        ["documents.parquet".into(), "manifest.json".into()].into_iter().chain(parts).collect::<Vec<_>>()
    );
    for after in 0..24 {
        let bench = Bench::new();
        match bench.run(&StopAfter::batches(after)) {
            Err(Error::Cancelled { place }) => assert_eq!(place, bench.out().display().to_string()),
            other => assert!(other.is_ok() && after >= BATCHES, "after {after} batches: {other:?}"),
        }
        // A killed process also leaves a half-written part and a part that is not listed yet.
        fs::write(bench.out().join("part-00009.parquet.tmp"), "half").unwrap();
        fs::write(bench.out().join("part-00008.parquet"), "not listed").unwrap();
        let rest = StopAfter::batches(u64::MAX);
        bench.run(&rest).unwrap();
        assert_eq!(rest.asked.into_inner(), BATCHES.saturating_sub(after), "no batch is computed twice");
        assert!(bench.files() == whole.files(), "stopped after {after} batches");
    }
}

#[test]
fn a_torn_journal_costs_one_batch() {
    let whole = Bench::new();
    whole.run(&Silent).unwrap();
    for (after, torn) in [(1, 1), (4, 700), (5, 13), (8, 2000), (15, 5), (21, 1)] {
        let bench = Bench::new();
        assert!(bench.run(&StopAfter::batches(after)).is_err());
        let journal = bench.out().join(format!(".resume/part-{:05}.journal", after / 6));
        let file = fs::OpenOptions::new().write(true).open(&journal).unwrap();
        file.set_len(file.metadata().unwrap().len() - torn).unwrap();
        let rest = StopAfter::batches(u64::MAX);
        bench.run(&rest).unwrap();
        assert_eq!(rest.asked.into_inner(), BATCHES - after + 1, "stopped after {after} batches");
        assert!(bench.files() == whole.files(), "stopped after {after} batches");
    }
}

#[test]
fn work_in_a_journal_does_not_give_way_to_another_run() {
    let mut bench = Bench::new();
    assert!(bench.run(&StopAfter::batches(2)).is_err());
    bench.config.seed = Some(5);
    let Err(Error::OtherRun { differences, .. }) = bench.run(&Silent) else { panic!("gave up what was computed") };
    assert_eq!(differences, ["`seed`: 0 there, 5 here"]);
}

/// Harvests part `part` of the corpus into its own folder.
fn harvest_part(bench: &Bench, part: &str) -> Location {
    let config = HarvestConfig { part: Some(part.parse().unwrap()), tokens: None, ..bench.config.clone() };
    let out = bench.folder.path().join("parts").join(part.replace('/', "-of-"));
    harvest(&model(), &bench.corpus, &config, &out, &Silent).unwrap();
    Location::from(out)
}

/// Context, position, document, token and values of each row, by context.
fn rows_of(dataset: &ActivationDataset) -> Vec<(u64, u32, u64, u32, Vec<f32>)> {
    let mut rows = vec![];
    for group in &dataset.row_groups {
        let read = dataset.read(*group, HookPoint::resid_post(1)).unwrap();
        let values = read.values.to_f32();
        for (i, row) in values.chunks(read.d_model).enumerate() {
            let TokenRows { context, position, document, token, .. } = &read.rows;
            rows.push((context[i], position[i], document[i], token[i], row.to_vec()));
        }
    }
    rows
}

#[test]
fn parts_of_a_corpus_are_merged_or_read_as_one() {
    let bench = Bench::new();
    let parts: Vec<_> = ["0/3", "1/3", "2/3"].map(|part| harvest_part(&bench, part)).into();
    let merged = bench.folder.path().join("merged");
    // The order of the folders does not matter.
    let folders = [parts[2].clone(), parts[0].clone(), parts[1].clone()];
    let manifest = merge(&folders, &merged, &Silent).unwrap();
    assert_eq!((manifest.merged_from, manifest.complete, manifest.config.part), (Some(3), true, None));
    let dataset = ActivationDataset::open(&merged).unwrap();
    dataset.verify(&Silent).unwrap();
    let rows = rows_of(&dataset);
    let of_parts: Vec<_> = parts.iter().flat_map(|part| rows_of(&ActivationDataset::open(part).unwrap())).collect();
    assert!(rows == of_parts, "merging changes no row");
    assert_eq!(rows.len() as u64, manifest.counts.tokens);

    // Every document of the corpus is in one part, and every context has its own number.
    let documents: std::collections::BTreeSet<_> = rows.iter().map(|row| row.2).collect();
    assert!(documents.len() as u64 >= bench.corpus.n_documents() - 3, "each part may drop its last tokens");
    let places: std::collections::BTreeSet<_> = rows.iter().map(|row| (row.0, row.1)).collect();
    assert_eq!(places.len(), rows.len());

    // The folder of the parts is the same dataset; only the way to the model is that from a part.
    let folder = ActivationDataset::open(bench.folder.path().join("parts")).unwrap();
    let seen = HarvestManifest { documents: None, model: manifest.model.seen_from(&parts[0]), ..manifest.clone() };
    assert_eq!(folder.manifest, seen, "each has a table");
    assert!(rows_of(&folder) == rows);

    // The summary covers all rows.
    let ordinary: Vec<_> = rows.iter().filter(|row| row.1 > 0).collect();
    let summary = manifest.hook_point(HookPoint::resid_post(1)).unwrap();
    assert_eq!(summary.sinks, 0);
    let mean = ordinary.iter().map(|row| f64::from(row.4[2])).sum::<f64>() / ordinary.len() as f64;
    assert!((f64::from(summary.mean[2]) - mean).abs() < 1e-6);

    // Merged again, the folder stays unchanged, and a harvest does not continue in it.
    assert_eq!(merge(&folders, &merged, &Silent).unwrap(), manifest);
    let Err(Error::OtherRun { differences, .. }) =
        harvest(&model(), &bench.corpus, &HarvestConfig { tokens: None, ..config() }, &merged, &Silent)
    else {
        panic!("went on in a merged folder")
    };
    assert_eq!(differences, ["merged_from: 3 there, null here"]);
}

/// Inodes show which files were made again: a new file has a new inode.
#[test]
#[cfg(unix)]
fn an_interrupted_merge_keeps_what_is_finished_and_harms_no_harvest() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    let parts: Vec<_> = ["0/2", "1/2"].map(|part| harvest_part(&bench, part)).into();
    let (merged, folder) = (bench.folder.path().join("merged"), Location::from(bench.folder.path().join("parts")));
    let harvests = rows_of(&ActivationDataset::open(&folder).unwrap());
    assert!(matches!(
        merge(std::slice::from_ref(&folder), &merged, &StopAfter::batches(2)),
        Err(Error::Cancelled { .. })
    ));
    // The first file becomes a complete copy, the second a damaged one; the folder of unfinished files has a leftover
    // link.
    let part = |number: usize| merged.join(format!("part-{number:05}.parquet"));
    let bytes = [0, 1].map(|number| fs::read(part(number)).unwrap());
    for (number, bytes) in bytes.iter().enumerate() {
        fs::remove_file(part(number)).unwrap();
        fs::write(part(number), bytes).unwrap();
    }
    let mut damaged = bytes[1].clone();
    damaged[100] ^= 1;
    fs::write(part(1), damaged).unwrap();
    let inode = fs::metadata(part(0)).unwrap().ino();
    let of_harvest = parts[1].join("part-00000.parquet");
    fs::hard_link(of_harvest.local().unwrap(), merged.join(".resume/part-00002.parquet")).unwrap();

    let manifest = merge(std::slice::from_ref(&folder), &merged, &Silent).unwrap();
    assert_eq!(manifest.merged_from, Some(2));
    assert_eq!(fs::metadata(part(0)).unwrap().ino(), inode, "the whole copy is kept");
    let dataset = ActivationDataset::open(&merged).unwrap();
    dataset.verify(&Silent).unwrap();
    assert!(rows_of(&dataset) == harvests);
    for part in &parts {
        ActivationDataset::open(part).unwrap().verify(&Silent).unwrap();
    }
}

#[test]
fn parts_with_a_budget_are_merged_once() {
    let bench = Bench::new();
    let budget = |part: &str| HarvestConfig { part: part.parse().ok(), tokens: Some(5 * CTX_LEN as u64), ..config() };
    let folders: Vec<Location> = ["0/2", "1/2"]
        .map(|part| {
            let out = bench.folder.path().join(part.replace('/', "-of-"));
            harvest(&model(), &bench.corpus, &budget(part), out.as_path(), &Silent).unwrap();
            out.into()
        })
        .into();
    let merged = bench.folder.path().join("merged");
    let manifest = merge(&folders, &merged, &Silent).unwrap();
    assert_eq!(manifest.counts.contexts, 10);
    assert_eq!(merge(&folders, &merged, &Silent).unwrap(), manifest);
}

#[test]
fn folders_that_are_not_all_the_parts_of_one_harvest_are_refused() {
    let bench = Bench::new();
    let parts: Vec<_> = ["0/2", "1/2"].map(|part| harvest_part(&bench, part)).into();
    let refused = |folders: &[Location]| {
        let out = bench.folder.path().join("refused");
        let message = merge(folders, &out, &Silent).unwrap_err().to_string();
        assert!(!out.exists(), "{message}");
        message
    };
    let missing = refused(&parts[1..]);
    assert!(missing.contains("part 0/2 of the corpus once") && missing.contains("no folder with it"), "{missing}");
    let twice = refused(&[parts[0].clone(), parts[0].clone(), parts[1].clone()]);
    assert!(twice.contains("0/2") && twice.contains("0-of-2, "), "{twice}");
    let other = Bench { config: HarvestConfig { seed: Some(5), ..config() }, ..Bench::new() };
    let different = refused(&[parts[0].clone(), harvest_part(&other, "1/2")]);
    assert!(different.contains("`seed`: 5 there, 0 here"), "{different}");
    let whole = bench.out();
    bench.run(&Silent).unwrap();
    assert!(refused(&[whole.clone().into()]).contains("out, a whole harvest: there is nothing to merge"));
    let unfinished = bench.folder.path().join("unfinished");
    let config = HarvestConfig { part: Some("1/2".parse().unwrap()), tokens: None, ..config() };
    assert!(harvest(&model(), &bench.corpus, &config, &unfinished, &StopAfter::batches(7)).is_err());
    let message = refused(&[parts[0].clone(), unfinished.into()]);
    assert!(message.contains("a complete harvest"), "{message}");
}

#[test]
fn every_storage_is_continued_and_read() {
    for dtype in [StorageDtype::F32, StorageDtype::F16, StorageDtype::I8] {
        for layout in [Layout::List, Layout::Binary] {
            let config = HarvestConfig { dtype, layout, ..config() };
            let (whole, stopped) = (Bench { config: config.clone(), ..Bench::new() }, Bench { config, ..Bench::new() });
            whole.run(&Silent).unwrap();
            assert!(stopped.run(&StopAfter::batches(9)).is_err());
            stopped.run(&Silent).unwrap();
            assert!(whole.files() == stopped.files(), "{dtype} {layout}");
            let exact =
                Bench { config: HarvestConfig { dtype: StorageDtype::F32, ..whole.config.clone() }, ..Bench::new() };
            exact.run(&Silent).unwrap();
            let exact = rows_of(&ActivationDataset::open(exact.out()).unwrap());
            let stored = rows_of(&ActivationDataset::open(whole.out()).unwrap());
            for (exact, stored) in exact.iter().zip(&stored) {
                // Half a unit in the last place of f16; half a step of int8.
                let largest = exact.4.iter().map(|value| value.abs()).fold(0.0, f32::max);
                for (exact, stored) in exact.4.iter().zip(&stored.4) {
                    let tolerance = match dtype {
                        StorageDtype::F32 => 0.0,
                        StorageDtype::F16 => exact.abs() / 2048.0 + 3e-8,
                        StorageDtype::I8 => largest / 127.0 * 0.5001,
                    };
                    assert!((exact - stored).abs() <= tolerance, "{dtype}: {exact} became {stored}");
                }
            }
        }
    }
}

#[test]
fn a_finished_folder_is_left_as_it_is() {
    let bench = Bench::new();
    let manifest = bench.run(&Silent).unwrap();
    let before = fs::metadata(bench.out().join("manifest.json")).unwrap().modified().unwrap();
    assert_eq!(bench.run(&StopAfter::batches(0)).unwrap(), manifest);
    assert_eq!(fs::metadata(bench.out().join("manifest.json")).unwrap().modified().unwrap(), before);
}

#[test]
fn the_estimate_is_of_what_is_left() {
    let mut bench = Bench::new();
    let first_said = |monitor: StopAfter| monitor.said.into_inner().unwrap().remove(0);
    let monitor = StopAfter::batches(4);
    assert!(bench.run(&monitor).is_err());
    assert!(first_said(monitor).starts_with("960 tokens through 2 of 3 layers"));
    let monitor = StopAfter::batches(u64::MAX);
    bench.run(&monitor).unwrap();
    // 4 batches of 3 contexts.
    assert!(first_said(monitor).starts_with("at most 768 more tokens through 2 of 3 layers"));
    bench.config.tokens = Some(960 + 64);
    let monitor = StopAfter::batches(u64::MAX);
    bench.run(&monitor).unwrap();
    assert!(first_said(monitor).contains(" more tokens through 2 of 3 layers"));
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
        let before = ActivationDataset::open(bench.out()).unwrap();
        let (sha256, rows) = (before.manifest_sha256().unwrap(), rows_of(&before));
        bench.config.tokens = None;
        let extended = bench.run(&Silent).unwrap();
        assert_eq!(extended.counts.contexts, corpus_contexts);
        assert!(extended.counts.dropped_tokens > 0);
        assert!(bench.files() == whole.files(), "extended from {first} contexts");
        // An SAE that was trained on the folder before goes on with its earlier content, statistics included.
        let now = ActivationDataset::open(bench.out()).unwrap();
        let then = ActivationDataset::open_as(bench.out(), &sha256).unwrap();
        assert_eq!(then.manifest_sha256().unwrap(), sha256);
        assert!(rows_of(&then) == rows && then.manifest.hook_points == before.manifest.hook_points);
        then.verify(&Silent).unwrap();
        let as_it_is = ActivationDataset::open_as(bench.out(), &now.manifest_sha256().unwrap()).unwrap();
        assert_eq!(as_it_is.manifest.counts.tokens, extended.counts.tokens);
    }
}

/// Only for our own matrix products: in others, the order of a sum depends on the number of rows.
#[test]
fn a_harvest_goes_on_with_another_batch_and_the_same_bytes() {
    for compute in [Compute::F32, Compute::Int8].into_iter().filter(|compute| compute.has_own_products()) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama");
        let model = LanguageModel::open(&ModelSource::Folder(path), compute, &Silent).unwrap();
        let (whole, cut) = (Bench::new(), Bench::new());
        let run = |bench: &Bench, batch, monitor: &dyn Monitor| {
            harvest(&model, &bench.corpus, &HarvestConfig { compute, batch, ..config() }, bench.out(), monitor)
        };
        run(&whole, 4, &Silent).unwrap();
        assert!(run(&cut, 4, &StopAfter::batches(4)).is_err());
        run(&cut, 7, &Silent).unwrap();
        assert!(cut.files() == whole.files(), "{compute}");
        // A finished one is found finished.
        run(&cut, 2, &StopAfter::batches(0)).unwrap();
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
    assert!(differences.contains(&"`seed`: 0 there, 5 here".to_string()), "{differences:?}");
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
    assert!(refused(&|config| config.hook_points.clear()).contains("`hook_points`"));
    assert!(refused(&|config| config.ctx_len = 65).contains("2 to 64"));
    assert!(refused(&|config| config.part_tokens = 100).contains("a multiple of `ctx_len`, 16, such as 96"));
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

#[test]
fn row_groups_are_read_side_by_side() {
    let bench = Bench { config: HarvestConfig { part_tokens: 64 * CTX_LEN, ..config() }, ..Bench::new() };
    bench.run(&Silent).unwrap();
    let dataset = ActivationDataset::open(bench.out()).unwrap();
    let (points, groups) = (&bench.config.hook_points, &dataset.row_groups);
    let alone: Vec<_> = points.iter().map(|point| dataset.read(groups[0], *point).unwrap()).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (dataset, alone) = (&dataset, &alone);
            scope.spawn(move || {
                for turn in 0..100 {
                    let point = (thread + turn) % points.len();
                    assert_eq!(dataset.read(groups[0], points[point]).unwrap(), alone[point]);
                }
            });
        }
    });
}

#[test]
fn documents_passed_over_are_not_counted_whatever_stopped_the_run() {
    let mut bench = Bench::new();
    let texts = (0..6).map(|i| format!("the cat sat on the mat, and then {i} dogs came. ").repeat(i % 3 + 1));
    let (empty, short) = ("{\"text\": \"\"}\n".repeat(5), "{\"text\": \"a\"}\n");
    let lines: String = texts.map(|text| format!("{empty}{short}{{\"text\": \"{text}\"}}\n")).collect();
    let path = bench.folder.path().join("gaps.jsonl");
    fs::write(&path, lines).unwrap();
    let options = CorpusOptions { drop_duplicates: false, ..CorpusOptions::default() };
    bench.corpus = Corpus::open(&[path], &options).unwrap();
    bench.config = HarvestConfig { tokens: None, part_tokens: 4 * CTX_LEN, min_document_tokens: 4, ..config() };
    for stops_after in [u64::MAX, 1, 2] {
        let manifest = loop {
            match bench.run(&StopAfter::batches(stops_after)) {
                Ok(manifest) => break manifest,
                Err(error) => assert!(matches!(error, Error::Cancelled { .. }), "{error}"),
            }
        };
        let dataset = ActivationDataset::open(bench.out()).unwrap();
        let groups = dataset.row_groups.iter();
        let stored = groups.flat_map(|group| dataset.read(*group, HookPoint::Embed).unwrap().rows.document);
        let in_parts = stored.collect::<std::collections::BTreeSet<_>>().len() as u64;
        assert!(in_parts <= 6 && manifest.counts.left_out.empty_documents > 20, "{:?}", manifest.counts);
        assert_eq!(manifest.counts.documents, in_parts, "stopped after {stops_after}");
        fs::remove_dir_all(bench.out()).unwrap();
    }
}

#[test]
fn a_corpus_without_a_context_is_refused_with_what_was_left_out_of_it() {
    let mut bench = Bench::new();
    let path = bench.folder.path().join("short.jsonl");
    fs::write(&path, "{\"text\": \"the cat\"}\n{\"text\": \"\"}\n{\"text\": null}\n").unwrap();
    bench.corpus = Corpus::open(&[path], &CorpusOptions::default()).unwrap();
    bench.config = HarvestConfig { min_document_tokens: 1000, ..config() };
    let message = bench.run(&Silent).unwrap_err().to_string();
    let expected = "0 tokens in all, and 2 empty documents, and 1 document shorter than `min_document_tokens`";
    assert!(message.contains(expected), "{message}");
}
