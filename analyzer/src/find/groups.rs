//! [`TextGroup`]: one side of a contrast, and [`find`]: the contrast of two.

use std::path::{Path, PathBuf};

use harvester::{Corpus, CorpusOptions, HarvestConfig, LiveModel, Monitor, Packing};

use super::documents::{ContrastConfig, Contrasts, contrast_documents};
use crate::{EncodedRows, Error, FeatureIndex, IndexText, Result, Workbench, index::encode_all};

/// Most tokens of a file or folder that are run through the model.
const MOST_TOKENS: u64 = 100_000;
/// Most tokens of one document of a file.
const DOCUMENT_TOKENS: usize = 512;

/// A group of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextGroup {
    /// Sources of the index's corpus, by their places in its manifest. Their documents are in its sample.
    Sources(Vec<usize>),
    /// Files and folders of texts, which the model reads.
    Files(Vec<PathBuf>),
    /// Texts as they are.
    Texts(Vec<String>),
}

impl TextGroup {
    /// The group that `names` name: sources of the index if all of them are; otherwise files and folders, if all exist;
    /// otherwise texts.
    ///
    /// # Errors
    /// Names of which some, but not all, are sources or files.
    pub fn named(names: &[String], index: &FeatureIndex) -> Result<Self> {
        let sources = index.source_names();
        let place = |name: &String| sources.iter().position(|source| source == name);
        if let Some(places) = names.iter().map(place).collect() {
            return Ok(Self::Sources(places));
        }
        let is_file = |name: &&String| Path::new(name).exists();
        let n_files = names.iter().filter(is_file).count();
        if n_files == names.len() {
            return Ok(Self::Files(names.iter().map(PathBuf::from).collect()));
        }
        // A word that is neither is a source or a file that was misspelled, not a text.
        let word =
            names.iter().find(|name| place(name).is_none() && !is_file(name) && !name.contains(char::is_whitespace));
        if n_files > 0 || names.iter().any(|name| place(name).is_some()) || word.is_some() {
            let expected =
                format!("sources of the index ({}), or files, or texts of several words", sources.join(", "));
            let found = word.map_or("some of each".into(), |word| format!("`{word}`"));
            return Err(Error::from(harvester::Error::invalid("group", expected, found)));
        }
        Ok(Self::Texts(names.to_vec()))
    }
}

/// The latents that tell two groups of texts apart. `bench` is the SAE of the index with its model, needed for files and
/// texts.
///
/// # Errors
/// A group that is on both sides, or without a token that counts; files that cannot be read.
pub fn find(
    index: &FeatureIndex,
    groups: [&TextGroup; 2],
    bench: impl Fn() -> Result<Workbench>,
    config: &ContrastConfig,
    monitor: &dyn Monitor,
) -> Result<Contrasts> {
    if let [TextGroup::Sources(positive), TextGroup::Sources(negative)] = groups
        && let Some(both) = positive.iter().find(|place| negative.contains(place))
    {
        let expected = "sources that are not in `positive`: a source cannot be told apart from itself";
        let name = &index.manifest().sources[*both].name;
        return Err(harvester::Error::invalid("`negative`", expected, format!("`{name}`")).into());
    }
    let is_sources = |group: &&TextGroup| matches!(group, TextGroup::Sources(_));
    if !(0.0..=1.0).contains(&config.max_density) {
        let found = config.max_density.to_string();
        return Err(harvester::Error::invalid("`max_density`", "a share from 0 to 1", found).into());
    }
    let bench = if groups.iter().all(is_sources) { None } else { Some(bench()?) };
    bench.iter().try_for_each(|bench| index.check_sae(bench.sae()))?;
    let sample = if groups.iter().any(is_sources) { Some(index.sample()?) } else { None };
    let rows = |group: &TextGroup| -> Result<EncodedRows> {
        Ok(match (group, &sample, &bench) {
            (TextGroup::Sources(places), Some(sample), _) => sample.of_sources(places),
            (TextGroup::Files(files), _, Some(bench)) => encode_files(bench, files, monitor)?,
            (TextGroup::Texts(texts), _, Some(bench)) => bench.encode_texts(texts, monitor)?,
            _ => EncodedRows::default(),
        })
    };
    let [positive, negative] = [rows(groups[0])?, rows(groups[1])?];
    contrast_documents(&positive, &negative, &index.column::<f64>("density")?, config)
}

/// The documents of some files, each in contexts of its own: what comes before a document does not change it, and none
/// is cut off because its context is not full.
fn encode_files(bench: &Workbench, files: &[PathBuf], monitor: &dyn Monitor) -> Result<EncodedRows> {
    let (sae, model) = (bench.sae(), bench.model(monitor)?);
    let defaults = HarvestConfig::default();
    let config = HarvestConfig {
        hook_points: vec![sae.hook_point],
        tokens: Some(MOST_TOKENS),
        document_tokens: Some(DOCUMENT_TOKENS),
        packing: Packing::Document,
        min_document_tokens: 1,
        ctx_len: sae.ctx_len().unwrap_or(defaults.ctx_len),
        bos: sae.bos.unwrap_or(defaults.bos),
        ..defaults
    };
    let live = LiveModel::new(model, Corpus::open(files, &CorpusOptions::default())?, &config)?;
    encode_all(sae, IndexText::from(&live), monitor)
}
