//! [`merge()`]: combines the harvests of the parts of one corpus into one dataset. Nothing is encoded again: the files
//! are linked or copied unchanged, because no two parts share a document number or a context number.

use std::{fs, path::Path};

use crate::{
    DocumentsFile, Error, HarvestManifest, Location, Monitor, Result,
    activations::{Counts, DOCUMENTS, Part, begin_harvest, concatenate, folders_of, merged_manifest},
    store::{AtomicFile, Manifest, OutputFolder, expect_sha256, go_on},
};

/// Merges the finished harvests in `folders`, one for each part of a corpus, into the dataset `out`. A folder without a
/// manifest stands for the folders in it that have one. An interrupted merge can be continued: an existing file is kept
/// if it is a link to the harvest's file or has its SHA-256. A finished merge is left unchanged.
///
/// # Errors
/// If a harvest is not complete, the harvests differ in more than their part, a part is missing or given twice, `out`
/// holds something else, or a file cannot be read or written.
pub fn merge(folders: &[Location], out: impl Into<Location>, monitor: &dyn Monitor) -> Result<HarvestManifest> {
    let out = out.into();
    let folders = &harvests_in(folders, &out)?[..];
    let manifests: Vec<_> = folders.iter().map(HarvestManifest::read).collect::<Result<_>>()?;
    if let Some((folder, _)) = folders.iter().zip(&manifests).find(|(_, manifest)| !manifest.complete) {
        let hint = go_on(folder.clone());
        return Err(Error::malformed(folder.to_string(), "a complete harvest", "an unfinished one", hint));
    }
    let mut merged = merged_manifest(folders, &manifests)?;
    merged.model = merged.model.seen_from(&out);
    let nothing_yet = HarvestManifest { complete: false, counts: Counts::default(), parts: vec![], ..merged.clone() };
    let folder = OutputFolder::open(&out)?;
    let manifest = begin_harvest(&folder, nothing_yet, &merged.parts)?;
    if manifest.complete {
        return Ok(manifest);
    }
    monitor.start("merge", merged.parts.iter().map(|part| part.bytes).sum(), "bytes");
    for ((source, file), part) in sources(folders, &manifests).zip(&merged.parts) {
        if monitor.cancelled() {
            return Err(Error::Cancelled { place: out.to_string() });
        }
        let source = source.join(file);
        if !is_there(&folder.location().join(&part.file), &source, part)? {
            bring(&source, &folder, part)?;
        }
        monitor.advance(part.bytes);
    }
    merged.documents = merge_documents(folders, &manifests, &folder)?;
    merged.write(&out)?;
    folder.remove_unfinished()?;
    monitor.finish();
    Ok(merged)
}

/// Writes the documents of all harvests into one table; `None` if one of them was made without a table.
fn merge_documents(
    folders: &[Location],
    manifests: &[HarvestManifest],
    folder: &OutputFolder,
) -> Result<Option<DocumentsFile>> {
    let of_harvest = |(source, manifest): (&Location, &HarvestManifest)| {
        manifest.documents.as_ref().map(|documents| source.join(&documents.file))
    };
    let Some(tables) = in_order(folders, manifests).map(of_harvest).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let unfinished = folder.unfinished(DOCUMENTS.file)?;
    let documents = concatenate(&tables, &unfinished)?;
    folder.publish(&unfinished, &documents.file)?;
    Ok(Some(documents))
}

/// The harvests in the order of their parts.
fn in_order<'a>(
    folders: &'a [Location],
    manifests: &'a [HarvestManifest],
) -> impl Iterator<Item = (&'a Location, &'a HarvestManifest)> {
    let mut harvests: Vec<_> = folders.iter().zip(manifests).collect();
    harvests.sort_by_key(|(_, manifest)| manifest.config.part);
    harvests.into_iter()
}

/// Folder and file of every part, in the order of the harvests' parts.
fn sources<'a>(
    folders: &'a [Location],
    manifests: &'a [HarvestManifest],
) -> impl Iterator<Item = (&'a Location, &'a str)> {
    in_order(folders, manifests)
        .flat_map(|(folder, manifest)| manifest.parts.iter().map(move |part| (folder, part.file.as_str())))
}

/// The folders of harvests that `named` stands for, without the output folder.
fn harvests_in(named: &[Location], out: &Location) -> Result<Vec<Location>> {
    let resolved = |location: &Location| location.local().and_then(|path| fs::canonicalize(path).ok());
    let is_out = |folder: &Location| match (resolved(folder), resolved(out)) {
        (Some(folder), Some(out)) => folder == out,
        _ => folder.to_string() == out.to_string(),
    };
    let mut folders = vec![];
    for location in named {
        let found = folders_of(location)?;
        folders.extend(found.into_iter().filter(|folder| !is_out(folder)));
    }
    Ok(folders)
}

/// True if `place` already holds the file `source`: a link to it, or a complete copy.
fn is_there(place: &Location, source: &Location, part: &Part) -> Result<bool> {
    if place.bytes()? != Some(part.bytes) {
        return Ok(false);
    }
    Ok(is_linked(place, source) || place.sha256()? == part.sha256)
}

/// True if two names refer to one file on this machine.
#[cfg(unix)]
fn is_linked(a: &Location, b: &Location) -> bool {
    use std::os::unix::fs::MetadataExt;
    let file = |location: &Location| fs::metadata(location.local()?).ok().map(|file| (file.dev(), file.ino()));
    file(a).is_some_and(|a| Some(a) == file(b))
}

#[cfg(not(unix))]
fn is_linked(_: &Location, _: &Location) -> bool {
    false
}

/// Links the file into `folder`, or copies it if it cannot be linked.
fn bring(from: &Location, folder: &OutputFolder, part: &Part) -> Result<()> {
    let unfinished = folder.unfinished(&part.file)?;
    // A killed merge may have left a link here to a harvest's own file, which must not be overwritten.
    Location::from(&unfinished).remove()?;
    let linked = from.local().is_some_and(|path| fs::hard_link(path, &unfinished).is_ok());
    if !linked {
        copy(from, &unfinished, part)?;
    }
    folder.publish(&unfinished, &part.file)
}

/// Copies the file to `to`, which appears once it is whole and has the recorded hash.
fn copy(from: &Location, to: &Path, part: &Part) -> Result<()> {
    let mut file = AtomicFile::create(to)?;
    std::io::copy(&mut from.reader()?, &mut file).map_err(Error::io("write", to))?;
    let hint = "The file was changed or damaged: harvest its part again";
    expect_sha256(from.to_string(), &part.sha256, Some(&file.publish()?.sha256), hint)
}
