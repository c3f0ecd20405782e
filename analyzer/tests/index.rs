//! The index from end to end: stopped and resumed, in parts and merged, from a folder and from a running model.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use analyzer::{
    Artifact, ArtifactKind, Error, FeatureIndex, IndexConfig, IndexText, PlacedSae, Workbench, index, merge_indexes,
};
use harvester::{
    ActivationDataset, Compute, Corpus, CorpusOptions, HarvestConfig, HookPoint, LanguageModel, LiveModel, Location,
    ModelSource, Monitor, Silent, harvest,
};
use trainer::{TrainConfig, train};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn model() -> LanguageModel {
    let path = root().join("tests/fixtures/tiny/llama");
    LanguageModel::open(&ModelSource::Folder(path), Compute::F32, &Silent).unwrap()
}

fn corpus() -> Corpus {
    let files = ["speeches", "code"].map(|name| root().join(format!("data/corpora/{name}.jsonl")));
    Corpus::open(&files, &CorpusOptions::default()).unwrap()
}

fn harvest_config() -> HarvestConfig {
    HarvestConfig {
        hook_points: vec![HookPoint::resid_post(1)],
        ctx_len: 32,
        tokens: Some(8192),
        part_tokens: 1024,
        ..HarvestConfig::default()
    }
}

/// A folder with activations `acts` and an SAE `sae` of them.
fn project() -> (tempfile::TempDir, Workbench) {
    let folder = tempfile::tempdir().unwrap();
    let (acts, sae, model) = (folder.path().join("acts"), folder.path().join("sae"), model());
    harvest(&model, &corpus(), &harvest_config(), acts.as_path(), &Silent).unwrap();
    let config = TrainConfig { d_sae: Some(96), k: 4, tokens: 8192, batch: 256, ..TrainConfig::default() };
    train(&ActivationDataset::open(acts.as_path()).unwrap(), &config, &sae, &Silent).unwrap();
    let bench = Workbench::new(PlacedSae::trained(&sae).unwrap(), Some(&model)).unwrap();
    (folder, bench)
}

fn config() -> IndexConfig {
    IndexConfig { sample: 6000, effects: false, ..IndexConfig::default() }
}

/// The files of a folder, sorted, without the manifest if `tables`.
fn files(folder: &Path, tables: bool) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), path))
        .filter(|(name, _)| !tables || name.ends_with(".parquet"))
        .map(|(name, path)| (name, fs::read(path).unwrap_or_default()))
        .collect();
    files.sort();
    files
}

/// The folders hold the same files.
fn assert_same(a: &Path, b: &Path, tables: bool) {
    let (a, b) = (files(a, tables), files(b, tables));
    assert_eq!(a.iter().map(|file| &file.0).collect::<Vec<_>>(), b.iter().map(|file| &file.0).collect::<Vec<_>>());
    for (a, b) in a.iter().zip(&b) {
        assert!(a.1 == b.1, "{} differs", a.0);
    }
}

/// Asks to stop once so many units are done.
struct StopAfter(AtomicU64);

impl Monitor for StopAfter {
    fn start(&self, _what: &str, _total: u64, _unit: &str) {}
    fn advance(&self, n: u64) {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(n), Ordering::Relaxed);
    }
    fn skip(&self, _n: u64) {}
    fn note(&self, _text: &str) {}
    fn finish(&self) {}
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// Runs with stops, each time after `units` more; returns their number.
fn in_pieces(bench: &Workbench, text: IndexText<'_>, out: &Path, units: u64) -> usize {
    let mut stops = 0;
    while stops < 100 {
        match index(bench, text, &config(), out, &StopAfter(units.into())) {
            Err(Error::Harvester(harvester::Error::Cancelled { .. })) => stops += 1,
            done => {
                done.unwrap();
                break;
            }
        }
    }
    stops
}

#[test]
fn a_stopped_index_goes_on_and_has_the_bytes_of_an_uninterrupted_one() {
    let (folder, bench) = project();
    let [whole, pieces] = ["whole", "pieces"].map(|name| folder.path().join(name));
    let dataset = ActivationDataset::open(folder.path().join("acts").as_path()).unwrap();
    let manifest = index(&bench, &dataset, &config(), &whole, &Silent).unwrap();
    assert!(manifest.sample_cuts[0] < u64::MAX, "the sample is a part of the text");
    // Every folder stops inside the pass several times; what is saved is whole after any of them.
    let stops = in_pieces(&bench, (&dataset).into(), &pieces, 1500);
    assert!(stops >= 3, "{stops}");
    assert_same(&whole, &pieces, false);
    let left =
        files(&pieces, false).into_iter().map(|file| file.0).find(|name| ["partial", ".resume"].contains(&&**name));
    assert_eq!(left, None, "nothing is left of the pieces");
}

/// Between two saves everything can be lost: the state on disk is that of the last save, whole.
#[test]
fn a_kill_while_the_state_is_written_leaves_the_state_before() {
    let (folder, bench) = project();
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
    let dataset = ActivationDataset::open(folder.path().join("acts").as_path()).unwrap();
    index(&bench, &dataset, &config(), &whole, &Silent).unwrap();
    index(&bench, &dataset, &config(), &killed, &StopAfter(2000.into())).unwrap_err();
    let partial = killed.join("partial");
    let saved = if partial.join("a").exists() { "a" } else { "b" };
    let other = partial.join(if saved == "a" { "b" } else { "a" });
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("features.parquet"), "half of a tab").unwrap();
    fs::write(partial.join("state.json.tmp"), "{").unwrap();
    fs::write(killed.join("features.parquet.tmp"), "half").unwrap();
    index(&bench, &dataset, &config(), &killed, &Silent).unwrap();
    assert_same(&whole, &killed, true);
    assert!(!partial.exists());
}

#[test]
fn an_unfinished_index_of_another_run_is_not_lost_and_damage_is_named() {
    let (folder, bench) = project();
    let out = folder.path().join("out");
    let dataset = ActivationDataset::open(folder.path().join("acts").as_path()).unwrap();
    index(&bench, &dataset, &config(), &out, &StopAfter(2000.into())).unwrap_err();
    let artifact = Artifact::open(&out, &Silent).unwrap();
    let facts: Vec<_> = artifact.facts().iter().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(artifact.kind, ArtifactKind::Features);
    assert!(facts[0].starts_with("state: unfinished: ") && facts[0].contains(" tokens saved so far"), "{facts:?}");
    assert!(facts[1].starts_with("next: ") && facts.iter().any(|fact| fact.starts_with("sae: ")), "{facts:?}");
    let message = FeatureIndex::open(&out).unwrap_err().to_string();
    assert!(message.contains("expected a finished index, found one that was stopped"), "{message}");
    let other = IndexConfig { reach: 3, ..config() };
    let message = index(&bench, &dataset, &other, &out, &Silent).unwrap_err().to_string();
    assert!(message.contains("reach: 12 there, 3 here"), "{message}");
    let table = ["a", "b"].map(|name| out.join("partial").join(name).join("sample.parquet"));
    let table = table.iter().find(|path| path.exists()).unwrap();
    let mut bytes = fs::read(table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(table, bytes).unwrap();
    let message = index(&bench, &dataset, &config(), &out, &Silent).unwrap_err().to_string();
    assert!(message.contains("sample.parquet") && message.contains("index from the start"), "{message}");
}

fn live(part: Option<&str>, tokens: Option<u64>) -> LiveModel {
    let part = part.map(|part| part.parse().unwrap());
    LiveModel::new(&model(), corpus(), &HarvestConfig { part, tokens, ..harvest_config() }).unwrap()
}

/// Counts what is indexed of the text.
#[derive(Default)]
struct Counting {
    is_indexing: AtomicBool,
    indexed: AtomicU64,
}

impl Monitor for Counting {
    fn start(&self, what: &str, _total: u64, _unit: &str) {
        self.is_indexing.store(what == "indexing", Ordering::Relaxed);
    }
    fn skip(&self, _n: u64) {}
    fn advance(&self, n: u64) {
        if self.is_indexing.load(Ordering::Relaxed) {
            self.indexed.fetch_add(n, Ordering::Relaxed);
        }
    }
}

/// The latents of all tokens, of activations and of a running model: a stopped run goes on where it was.
#[test]
fn latents_of_a_stopped_index_go_on_and_have_the_bytes_of_an_uninterrupted_one() {
    let (folder, bench) = project();
    let dataset = ActivationDataset::open(folder.path().join("acts").as_path()).unwrap();
    let config = IndexConfig { latents: true, ..config() };
    let live = live(None, Some(8192));
    for (name, text, units, all) in
        [("dataset", IndexText::from(&dataset), [1500, 3000], 8192), ("live", (&live).into(), [60, 90], 256)]
    {
        let [whole, pieces] = ["whole", "pieces"].map(|kind| folder.path().join(format!("{name}-{kind}")));
        index(&bench, text, &config, &whole, &Silent).unwrap();
        for units in units {
            index(&bench, text, &config, &pieces, &StopAfter(AtomicU64::new(units))).unwrap_err();
            assert!(!pieces.join("latents.parquet").exists());
        }
        assert!(pieces.join("partial/latents-00001/latents.parquet").exists(), "two pieces");
        let last = Counting::default();
        index(&bench, text, &config, &pieces, &last).unwrap();
        let indexed = last.indexed.into_inner();
        assert!(0 < indexed && indexed < all / 2, "{indexed} of {all}: it reads only what was left");
        assert_same(&whole, &pieces, false);
        assert!(FeatureIndex::open(&pieces).unwrap().verify().is_ok());
    }
}

/// A piece is compared with its checksum, and one that was cut short by a kill is written again.
#[test]
fn a_damaged_piece_of_the_latents_is_named_and_half_of_one_does_no_harm() {
    let (folder, bench) = project();
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
    let dataset = ActivationDataset::open(folder.path().join("acts").as_path()).unwrap();
    let config = IndexConfig { latents: true, ..config() };
    let run = |out: &Path, monitor: &dyn Monitor| index(&bench, &dataset, &config, out, monitor);
    run(&whole, &Silent).unwrap();
    run(&killed, &StopAfter(2000.into())).unwrap_err();
    let piece = |n: u32| killed.join(format!("partial/latents-0000{n}/latents.parquet"));
    let bytes = fs::read(piece(0)).unwrap();
    fs::write(piece(0), &bytes[..bytes.len() / 2]).unwrap();
    let message = run(&killed, &Silent).unwrap_err().to_string();
    assert!(message.contains("latents.parquet") && message.contains("index from the start"), "{message}");
    fs::write(piece(0), &bytes).unwrap();
    // Killed after the next piece was written, before the state was.
    fs::create_dir_all(piece(1).parent().unwrap()).unwrap();
    fs::write(piece(1), &bytes).unwrap();
    run(&killed, &Silent).unwrap();
    assert_same(&whole, &killed, true);
}

/// Killed before a state was saved, the folder says what it is and how to go on, and gives way to another run.
#[test]
fn an_index_that_was_killed_before_its_first_saved_state_is_explained() {
    struct Killed;
    impl Monitor for Killed {
        fn start(&self, what: &str, _total: u64, _unit: &str) {
            assert!(what != "indexing", "killed");
        }
        fn command(&self) -> Option<String> {
            Some("refract index --sae sae --out out".into())
        }
    }
    let (folder, bench) = project();
    let out = folder.path().join("out");
    let dataset = ActivationDataset::open(folder.path().join("acts").as_path()).unwrap();
    let kill = || index(&bench, &dataset, &config(), &out, &Killed);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(kill)).is_err());
    let artifact = Artifact::open(&out, &Silent).unwrap();
    let facts: Vec<_> = artifact.facts().iter().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(artifact.kind, ArtifactKind::Features);
    assert!(facts[0].starts_with("state: unfinished: 0 tokens saved so far"), "{facts:?}");
    assert_eq!(facts[1], "next: To go on where it stopped: refract index --sae sae --out out");
    let message = FeatureIndex::open(&out).unwrap_err().to_string();
    assert!(message.contains("expected a finished index, found one that was stopped"), "{message}");
    index(&bench, &dataset, &IndexConfig { reach: 3, ..config() }, &out, &Silent).unwrap();
}

#[test]
fn a_running_model_gives_the_index_of_its_harvest() {
    let (folder, bench) = project();
    let [shards, stream, pieces] = ["shards", "stream", "pieces"].map(|name| folder.path().join(name));
    let dataset = ActivationDataset::open(folder.path().join("acts").as_path()).unwrap();
    index(&bench, &dataset, &config(), &shards, &Silent).unwrap();
    let live = live(None, Some(8192));
    index(&bench, &live, &config(), &stream, &Silent).unwrap();
    assert_same(&shards, &stream, true);
    assert!(in_pieces(&bench, (&live).into(), &pieces, 130) >= 2); // of 256 contexts, then 96 latents
    assert_same(&stream, &pieces, false);
}

#[test]
fn parts_merge_to_the_index_of_the_whole_and_nothing_else_merges() {
    let (folder, bench) = project();
    let path = |name: &str| folder.path().join(name);
    for part in ["0/3", "1/3", "2/3"] {
        let out = folder.path().join("harvests").join(&part[..1]);
        let harvest_config = HarvestConfig { part: Some(part.parse().unwrap()), ..harvest_config() };
        harvest(&model(), &corpus(), &harvest_config, out.as_path(), &Silent).unwrap();
        let dataset = ActivationDataset::open(out.as_path()).unwrap();
        index(&bench, &dataset, &config(), &path(&part[..1]), &Silent).unwrap();
    }
    let harvests = folder.path().join("harvests");
    let merged = harvester::merge(&[Location::from(&harvests)], path("merged-acts").as_path(), &Silent).unwrap();
    let dataset = ActivationDataset::open(path("merged-acts").as_path()).unwrap();
    assert_eq!(merged.counts.tokens, dataset.manifest.counts.tokens);
    index(&bench, &dataset, &config(), &path("whole"), &Silent).unwrap();
    merge_indexes(&[path("2"), path("0"), path("1")], Some(&model()), &path("merged"), &Silent).unwrap();
    assert_same(&path("whole"), &path("merged"), true);
    // In two steps, and again.
    merge_indexes(&[path("0"), path("2")], Some(&model()), &path("two"), &Silent).unwrap();
    merge_indexes(&[path("1"), path("two")], Some(&model()), &path("three"), &Silent).unwrap();
    assert_same(&path("merged"), &path("three"), false);
    merge_indexes(&[path("1"), path("two")], Some(&model()), &path("three"), &Silent).unwrap();

    let refused = |folders: &[&str]| {
        let folders: Vec<_> = folders.iter().map(|name| path(name)).collect();
        merge_indexes(&folders, Some(&model()), &path("refused"), &Silent).unwrap_err().to_string()
    };
    let message = refused(&["0", "two"]);
    assert!(message.contains("each part of the corpus once") && message.contains("part 0/3"), "{message}");
    assert!(refused(&["0", "whole"]).contains("of a whole one"), "{}", refused(&["0", "whole"]));
    let other = IndexConfig { examples: 3, ..config() };
    index(&bench, &live(Some("1/3"), Some(8192)), &other, &path("other"), &Silent).unwrap();
    let message = refused(&["0", "other"]);
    assert!(message.contains("config.examples: 3 there, 20 here"), "{message}");
    assert!(!path("refused").join("manifest.json").exists());
}

#[test]
fn effects_are_measured_once_and_labels_are_beside_a_control() {
    let (folder, bench) = project();
    let [whole, pieces] = ["whole", "pieces"].map(|name| folder.path().join(name));
    let dataset = ActivationDataset::open(folder.path().join("acts").as_path()).unwrap();
    let config = IndexConfig { effects: true, ..config() };
    let manifest = index(&bench, &dataset, &config, &whole, &Silent).unwrap();
    // Stops after the pass, of 8,192 tokens, and inside the effects of 96 latents at most.
    let mut stops = 0;
    while let Err(error) = index(&bench, &dataset, &config, &pieces, &StopAfter(8200.into())) {
        assert!(matches!(error, Error::Harvester(harvester::Error::Cancelled { .. })), "{error}");
        stops += 1;
        assert!(stops < 10);
    }
    assert_same(&whole, &pieces, false);
    let read = FeatureIndex::open(&whole).unwrap();
    let effects = read.effects().unwrap();
    assert_eq!(effects.len() as u64, 96 - manifest.never_active);
    for effect in &effects {
        let feature = read.feature(effect.latent).unwrap();
        assert_eq!(effect.dose, feature.quantiles[3]);
        assert_eq!(read.effect(effect.latent).unwrap().as_ref(), Some(effect));
    }
    assert_eq!(read.labels().unwrap().len(), 96);
    assert!([manifest.labeled.sample, manifest.labeled.control].iter().all(|share| (0.0..=1.0).contains(share)));
}

#[test]
fn sampled_examples_and_silent_windows_are_what_they_say() {
    let (folder, bench) = project();
    let out = folder.path().join("out");
    let dataset = ActivationDataset::open(folder.path().join("acts").as_path()).unwrap();
    index(&bench, &dataset, &config(), &out, &Silent).unwrap();
    let index = FeatureIndex::open(&out).unwrap();
    let (sample, control) = (index.sample().unwrap(), index.control().unwrap());
    assert!(!sample.is_empty() && !control.is_empty());
    let l0 = |sample: &analyzer::Sample| sample.encoded.acts.l0();
    assert!(l0(&control) > 0.5, "{}", l0(&control));
    for feature in index.features().unwrap() {
        for example in index.sampled_examples(feature.latent).unwrap() {
            let rows = &sample.encoded.rows;
            let row = (0..sample.len())
                .find(|&row| (rows.context[row], rows.position[row]) == (example.context, example.position))
                .unwrap();
            assert_eq!(sample.encoded.acts.get(row, feature.latent), example.activation);
            assert_eq!(example.tokens[example.peak as usize], rows.token[row]);
        }
        for &row in &feature.silent_rows {
            assert_eq!(sample.encoded.acts.get(row as usize, feature.latent), 0.0);
        }
        let [p50, p90, p99, p999] = feature.quantiles;
        assert!(p50 <= p90 && p90 <= p99 && p99 <= p999 && p999 <= feature.max, "{feature:?}");
    }
}

#[test]
fn latents_of_a_text_are_ranked_by_how_seldom_they_are_so_strong() {
    const TEXT: &str = "the people of the city";
    let (folder, bench) = project();
    let out = folder.path().join("out");
    let dataset = ActivationDataset::open(folder.path().join("acts").as_path()).unwrap();
    // The sample holds the whole text, to count in.
    let manifest = index(&bench, &dataset, &IndexConfig { sample: 1_000_000, ..config() }, &out, &Silent).unwrap();
    let index = FeatureIndex::open(&out).unwrap();
    let hits = index
        .search_text(&index.workbench(None, None, Some(&model()), &Silent).unwrap(), TEXT, 1000, 1.0, &Silent)
        .unwrap();
    let (encoded, sample) = (bench.encode_texts(&[TEXT], &Silent).unwrap(), index.sample().unwrap().encoded);
    let known = |latent: &u32| index.feature(*latent).unwrap().n_active > 0;
    let active: std::collections::BTreeSet<u32> = encoded.acts.latents.iter().copied().filter(known).collect();
    assert_eq!(hits.iter().map(|hit| hit.latent).collect::<std::collections::BTreeSet<_>>(), active);
    assert!(hits.is_sorted_by(|a, b| a.rarity <= b.rarity) && hits.len() > 5);
    for hit in &hits {
        let fires: Vec<f32> = (0..encoded.len()).map(|row| encoded.acts.get(row, hit.latent)).collect();
        let largest = fires.iter().copied().fold(0.0, f32::max);
        let place = &hit.strongest;
        assert_eq!((place.activation, fires[place.position as usize]), (largest, largest));
        assert_eq!(place.activations, fires, "the whole text is near enough");
        assert_eq!(hit.n_tokens, fires.iter().filter(|f| **f > 0.0).count());
        assert_eq!(place.texts.concat(), bench.model(&Silent).unwrap().tokenizer().token_texts(&place.tokens).concat());
        let at_least = |f: f32| (0..sample.len()).filter(|&row| sample.acts.get(row, hit.latent) >= f).count() as f64;
        let n = hit.rarity * (1.0 + manifest.tokens as f64) - 1.0;
        // A bin is at most 1/16 wide.
        assert!(n > at_least(largest) - 0.5 && n < at_least(largest / 1.07) + 0.5, "{n} {}", at_least(largest));
    }
    let few = index.search_text(&bench, TEXT, 3, 0.02, &Silent).unwrap();
    assert!(few.iter().all(|hit| hit.density <= 0.02) && few.len() <= 3);
    assert!(index.search_text(&bench, TEXT, 3, 2.0, &Silent).unwrap_err().to_string().contains("`max_density`"));
}

#[test]
fn damage_inside_a_table_is_found_when_the_table_is_read() {
    let (folder, bench) = project();
    let out = folder.path().join("out");
    let dataset = ActivationDataset::open(folder.path().join("acts").as_path()).unwrap();
    index(&bench, &dataset, &IndexConfig { effects: true, ..config() }, &out, &Silent).unwrap();
    type Use = fn(&FeatureIndex) -> analyzer::Result<()>;
    let uses: [(&str, Use); 5] = [
        ("labels.parquet", |index| index.best_labeled(3).map(drop)),
        ("labels.parquet", |index| index.search("the", 3, 1.0).map(drop)),
        ("features.parquet", |index| index.search("the", 3, 1.0).map(drop)),
        ("effects.parquet", |index| index.search("the", 3, 1.0).map(drop)),
        ("effects.parquet", |index| index.portrait(index.effects()?[0].latent, 1).map(drop)),
    ];
    for (file, read) in uses {
        let path = out.join(file);
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[whole.len() / 3] ^= 1; // before the footer
        fs::write(&path, bytes).unwrap();
        let message = read(&FeatureIndex::open(&out).unwrap()).unwrap_err().to_string();
        assert!(message.contains(file) && message.contains("has changed since it was written"), "{message}");
        fs::write(&path, whole).unwrap();
        read(&FeatureIndex::open(&out).unwrap()).unwrap();
    }
}
