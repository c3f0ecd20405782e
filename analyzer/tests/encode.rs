//! Encoding of texts is the encoding of their harvest.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use analyzer::{EncodeText, EncodedRows, PlacedSae, Workbench, encode, encode_into};
use harvester::{
    ActivationDataset, Compute, Corpus, CorpusOptions, HarvestConfig, HookPoint, LanguageModel, LiveModel, ModelSource,
    Packing, Silent, SpecialToken, StorageDtype, harvest,
};
use trainer::{TrainConfig, train};

/// Texts shorter and longer than a context, and an empty one.
fn texts() -> Vec<String> {
    let long = "It was a dark night, and the sea was calm. ".repeat(5);
    ["We hold these truths to be self-evident.", &long, "fn main() {}", &long[..60], ""].map(String::from).to_vec()
}

/// A config that makes a document into contexts of its own, without a separator.
fn alone(bos: SpecialToken) -> HarvestConfig {
    HarvestConfig {
        hook_points: vec![HookPoint::resid_post(1)],
        ctx_len: 16,
        part_tokens: 1024,
        dtype: StorageDtype::F32,
        packing: Packing::Document,
        separator: SpecialToken::None,
        seed: None,
        bos,
        ..HarvestConfig::default()
    }
}

/// An SAE that was trained on the texts, and their activations.
fn project(family: &str, bos: SpecialToken) -> (tempfile::TempDir, Workbench, ActivationDataset) {
    let folder = tempfile::tempdir().unwrap();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny").join(family);
    let model = LanguageModel::open(&ModelSource::Folder(path), Compute::F32, &Silent).unwrap();
    let (file, acts, sae) = (folder.path().join("texts.jsonl"), folder.path().join("acts"), folder.path().join("sae"));
    let lines: String = texts().iter().map(|text| serde_json::json!({ "text": text }).to_string() + "\n").collect();
    fs::write(&file, lines).unwrap();
    harvest(&model, &corpus(&file), &alone(bos), acts.as_path(), &Silent).unwrap();
    let dataset = ActivationDataset::open(acts.as_path()).unwrap();
    let config = TrainConfig { d_sae: Some(96), k: 4, tokens: 2048, batch: 64, ..TrainConfig::default() };
    train(&dataset, &config, &sae, &Silent).unwrap();
    (folder, Workbench::new(PlacedSae::trained(&sae).unwrap(), Some(&model)).unwrap(), dataset)
}

fn corpus(file: &Path) -> Corpus {
    let options = CorpusOptions { drop_duplicates: false, ..CorpusOptions::default() };
    Corpus::open(&[file.into()], &options).unwrap()
}

/// The active latents of activations on disk.
fn encoded(bench: &Workbench, dataset: &ActivationDataset) -> EncodedRows {
    let read = |group| dataset.read(group, bench.sae().hook_point).unwrap();
    let [group] = dataset.row_groups[..] else { panic!("one row group") };
    EncodedRows::encode(&bench.sae().sae, read(group), bench.sae().sink_norm).unwrap()
}

#[test]
fn the_latents_of_texts_are_those_of_their_harvest_bit_for_bit() {
    for (family, bos) in
        [("llama", SpecialToken::FromModel), ("gpt2", SpecialToken::None), ("gpt2", SpecialToken::Id(3))]
    {
        let (_folder, bench, dataset) = project(family, bos);
        let (texts, of_disk) = (bench.encode_texts(&texts(), &Silent).unwrap(), encoded(&bench, &dataset));
        assert_eq!(texts.rows, of_disk.rows, "{family}");
        assert!(texts == of_disk, "{family}");
        assert!(texts.acts.n_active() > 100 && texts.rows.contexts().len() > 6);
        let positions = texts.rows.position.iter().zip(&texts.ordinary);
        assert!(positions.filter(|(position, _)| **position == 0).all(|(_, ordinary)| !ordinary));
    }
}

#[test]
fn a_text_has_the_latents_that_it_has_among_others() {
    let (_folder, bench, _) = project("llama", SpecialToken::FromModel);
    let all = bench.encode_texts(&texts(), &Silent).unwrap();
    let one = bench.encode_texts(&texts()[3..4], &Silent).unwrap();
    let rows: Vec<usize> = (0..all.len()).filter(|row| all.rows.document[*row] == 3).collect();
    assert_eq!(rows.len(), one.len());
    assert!(rows.iter().enumerate().all(|(at, row)| all.acts.row(*row) == one.acts.row(at)));
}

#[test]
fn a_corpus_has_the_latents_of_its_texts() {
    let (folder, bench, _) = project("llama", SpecialToken::FromModel);
    let corpus = corpus(&folder.path().join("texts.jsonl"));
    let config = HarvestConfig { batch: 2, ..alone(SpecialToken::FromModel) };
    let live = LiveModel::new(bench.model(&Silent).unwrap(), corpus, &config).unwrap();
    let documents = |text| {
        let mut found = vec![];
        encode(&bench, text, &Silent, |document| {
            found.push((document.record.document, document.encoded, document.texts));
            Ok(())
        })
        .unwrap();
        found
    };
    // The corpus also has an empty document, which has no token; given by itself it is refused.
    let refused = encode(&bench, EncodeText::Texts(&texts()), &Silent, |_| Ok(())).unwrap_err().to_string();
    assert!(refused.contains("number 5"), "{refused}");
    let texts = &texts()[..4];
    let of_texts = documents(EncodeText::Texts(texts));
    assert_eq!(of_texts.iter().map(|it| it.0).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(of_texts == documents(EncodeText::Corpus(&live)));

    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    let counts = encode_into(&bench, EncodeText::Texts(texts), &a, &Silent).unwrap();
    assert_eq!(counts, encode_into(&bench, EncodeText::Corpus(&live), &b, &Silent).unwrap());
    assert_eq!(counts.latents, of_texts.iter().map(|it| it.1.acts.n_active() as u64).sum::<u64>());
    let table = |folder: &Path| fs::read(folder.join("latents.parquet")).unwrap();
    assert!(table(&a) == table(&b));
    let message = encode_into(&bench, EncodeText::Texts(texts), &a, &Silent).unwrap_err().to_string();
    assert!(message.contains("expected a new folder"), "{message}");
}
