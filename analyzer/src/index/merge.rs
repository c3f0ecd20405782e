//! [`merge_indexes`]: the index of a corpus from the indexes of its parts. Their states are added, and everything else
//! is computed from the sum, as at the end of a pass.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use harvester::{ArtifactRef, DocumentRecord, LanguageModel, Location, Manifest, Monitor, OutputFolder, differences};

use super::{finish, saved::SavedState, tables};
use crate::{Result, Workbench, features::FeaturesManifest};

/// Merges the indexes in `folders`, of parts of one corpus, into `out`. It equals the index of the merged parts; the
/// order of the folders does not matter. A finished merge is left unchanged. `model` is the model if it is open already.
///
/// # Errors
/// Indexes that differ in more than their part, or of which two hold the same part; an SAE or a model that is not where
/// it was; a file that cannot be read or written.
pub fn merge_indexes(
    folders: &[PathBuf],
    model: Option<&LanguageModel>,
    out: &Path,
    monitor: &dyn Monitor,
) -> Result<FeaturesManifest> {
    let mut parts: Vec<(&PathBuf, FeaturesManifest)> =
        folders.iter().map(|folder| Ok((folder, FeaturesManifest::read(folder.as_path())?))).collect::<Result<_>>()?;
    parts.sort_by(|a, b| a.1.text.parts.cmp(&b.1.text.parts));
    check(&parts)?;
    let Some(((first_folder, first), rest)) = parts.split_first() else {
        return Err(harvester::Error::invalid("folders to merge", "at least two", "none").into());
    };
    let placed = first.placed_sae(first_folder)?;
    let mut manifest = first.clone();
    manifest.sae = ArtifactRef::new(out, &placed.path.as_path().into(), Some(placed.sha256.clone()));
    manifest.model = first.model.seen_from(&Location::from(out));
    manifest.text.activations = None;
    manifest.text.parts = parts.iter().flat_map(|(_, manifest)| manifest.text.parts.clone()).collect();
    manifest.text.parts.sort();
    if let Some(of) =
        manifest.text.parts.first().map(|part| part.of()).filter(|of| *of != manifest.text.parts.len() as u64)
    {
        tracing::warn!("{} of the {of} parts of the corpus are merged", manifest.text.parts.len());
    }
    manifest.files = vec![];
    manifest.config.latents = false; // readers take several tables as one
    let folder = OutputFolder::open(out)?;
    if let Some(finished) = folder.find_run(&manifest)? {
        finished.check_files(out)?;
        monitor.say(&format!("{}: finished before", out.display()));
        return Ok(finished);
    }
    monitor.start("merge", parts.len() as u64, "indexes");
    let mut state = tables::read(first_folder, first)?;
    monitor.advance(1);
    for (folder, manifest) in rest {
        state.merge(tables::read(folder, manifest)?);
        monitor.advance(1);
    }
    monitor.finish();
    let finished =
        finish(&Workbench::new(placed, model)?, &state, manifest, &|numbers| documents(&parts, numbers), out, monitor)?;
    SavedState::forget(out)?;
    Ok(finished)
}

/// Documents of the examples, from the tables of the parts.
fn documents(parts: &[(&PathBuf, FeaturesManifest)], numbers: &HashSet<u64>) -> Result<Option<Vec<DocumentRecord>>> {
    let mut documents = vec![];
    for (folder, manifest) in parts {
        if !manifest.files.iter().any(|table| table.file == DocumentRecord::FILE) {
            return Ok(None);
        }
        documents.extend(DocumentRecord::read_table(folder.as_path())?);
    }
    documents.retain(|record| numbers.contains(&record.document));
    documents.sort_by_key(|record| record.document);
    // A document may have contexts in several parts of a merged index.
    documents.dedup_by_key(|record| record.document);
    Ok(Some(documents))
}

/// Refuses indexes that are not of different parts of one corpus.
fn check(parts: &[(&PathBuf, FeaturesManifest)]) -> Result<()> {
    let what = "indexes to merge";
    let [(first_folder, first), rest @ ..] = parts else { return Ok(()) };
    for (folder, manifest) in rest {
        let without_part = |manifest: &FeaturesManifest| {
            let mut manifest = manifest.clone();
            (manifest.text.activations, manifest.text.parts) = (None, vec![]);
            manifest
        };
        let mut lines = without_part(manifest).differences(&without_part(first));
        lines.extend(differences("model", &manifest.model.sha256, &first.model.sha256));
        lines.extend(differences("hook_point", &manifest.hook_point, &first.hook_point));
        if !lines.is_empty() {
            let expected = format!("the SAE, corpus and settings of {}", first_folder.display());
            let found = format!("others in {}:\n  {}", folder.display(), lines.join("\n  "));
            return Err(harvester::Error::invalid(what, expected, found).into());
        }
    }
    if let Some((folder, _)) = parts.iter().find(|(_, manifest)| manifest.text.parts.is_empty()) {
        let found = format!("{}, of a whole one: there is nothing to merge it with", folder.display());
        return Err(harvester::Error::invalid(what, "indexes of the parts of a corpus (`part`)", found).into());
    }
    let mut of_part: Vec<_> = parts
        .iter()
        .flat_map(|(folder, manifest)| manifest.text.parts.iter().map(move |part| (part, folder)))
        .collect();
    of_part.sort();
    if let Some([(part, a), (_, b)]) = of_part.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let found = format!("part {part} in {} and in {}", a.display(), b.display());
        return Err(harvester::Error::invalid(what, "each part of the corpus once", found).into());
    }
    if let Some([(a, of_a), (b, of_b)]) = of_part.windows(2).find(|pair| pair[0].0.of() != pair[1].0.of()) {
        let found = format!("part {a} in {} and part {b} in {}", of_a.display(), of_b.display());
        return Err(harvester::Error::invalid(what, "parts of one number of parts", found).into());
    }
    Ok(())
}
