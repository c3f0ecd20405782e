//! [`merge()`]: the harvests of the parts of one corpus become one dataset. Nothing is encoded again: the files are
//! linked or copied as they are, because documents and contexts have numbers that no two parts share.

use std::{fs, path::Path};

use crate::{
    AtomicFile, Error, HarvestManifest, HookPointSummary, Location, Monitor, Result,
    atomic::sha256_of,
    dataset_folder::DatasetFolder,
    harvest_folder::HarvestFolder,
    manifest::{Counts, Part, compare},
    shard::{ShardSchema, folders_of, part_file, part_statistics},
    stats::HookPointStatistics,
};

/// Merges the finished harvests in `folders`, one of each part of a corpus, into the dataset `out`. A folder without a
/// manifest stands for those in it that have one. A merge that was interrupted goes on: a file that is there already is
/// kept if it is the harvest's own or has its SHA-256. A finished merge is left as it is.
///
/// # Errors
/// When a harvest is not complete, they differ in more than their part, a part is missing or there twice, `out` holds
/// something else, or a file cannot be read or written.
pub fn merge(folders: &[Location], out: impl Into<Location>, monitor: &dyn Monitor) -> Result<HarvestManifest> {
    let out = out.into();
    let folders = &harvests_in(folders, &out)?[..];
    let manifests: Vec<_> = folders.iter().map(HarvestManifest::read).collect::<Result<_>>()?;
    if let Some((folder, _)) = folders.iter().zip(&manifests).find(|(_, manifest)| !manifest.complete) {
        let hint = "Repeat the command that made this folder; it goes on where it stopped";
        return Err(Error::malformed(folder.to_string(), "a complete harvest", "an unfinished one", hint));
    }
    let merged = merged_manifest(folders, &manifests)?;
    let nothing_yet = HarvestManifest { complete: false, counts: Counts::default(), parts: vec![], ..merged.clone() };
    let folder = HarvestFolder::open_planned(&out, nothing_yet, &merged.parts)?;
    if folder.manifest().complete {
        return Ok(folder.manifest().clone());
    }
    monitor.start("merge", merged.parts.iter().map(|part| part.bytes).sum(), "bytes");
    for ((source, file), part) in sources(folders, &manifests).zip(&merged.parts) {
        if monitor.cancelled() {
            return Err(Error::Cancelled { path: out.to_string().into() });
        }
        let source = source.join(file);
        if !is_there(&folder.folder().location().join(&part.file), &source, part)? {
            bring(&source, folder.folder(), part)?;
        }
        monitor.advance(part.bytes);
    }
    merged.write(&out)?;
    folder.folder().remove_unfinished()?;
    monitor.finish();
    Ok(merged)
}

/// Every part's folder and file, in the order of the harvests' parts.
fn sources<'a>(
    folders: &'a [Location],
    manifests: &'a [HarvestManifest],
) -> impl Iterator<Item = (&'a Location, &'a str)> {
    let mut harvests: Vec<_> = folders.iter().zip(manifests).collect();
    harvests.sort_by_key(|(_, manifest)| manifest.config.part);
    harvests
        .into_iter()
        .flat_map(|(folder, manifest)| manifest.parts.iter().map(move |part| (folder, part.file.as_str())))
}

/// The folders of harvests that `named` stands for, without the one that is written.
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

/// Whether `place` holds the file `source` already: a link to it, or a copy that is whole.
fn is_there(place: &Location, source: &Location, part: &Part) -> Result<bool> {
    if place.bytes()? != Some(part.bytes) {
        return Ok(false);
    }
    Ok(is_linked(place, source) || sha256_of(place)? == part.sha256)
}

/// Whether two names are of one file on this machine.
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

/// Links the file into `folder`, or copies it where it cannot be linked.
fn bring(from: &Location, folder: &DatasetFolder, part: &Part) -> Result<()> {
    let unfinished = folder.unfinished(&part.file)?;
    // A killed merge may have left a link to a harvest's own file here, which must not be written through.
    Location::from(&unfinished).remove()?;
    let linked = from.local().is_some_and(|path| fs::hard_link(path, &unfinished).is_ok());
    if !linked {
        copy(from, &unfinished, part)?;
    }
    folder.publish(&unfinished, &part.file)
}

/// Copies the file to `to`, which appears when it is whole and as recorded.
fn copy(from: &Location, to: &Path, part: &Part) -> Result<()> {
    let mut file = AtomicFile::create(to)?;
    std::io::copy(&mut from.reader()?, &mut file).map_err(Error::io("write", to))?;
    let copied = file.publish()?;
    if copied.sha256 == part.sha256 {
        return Ok(());
    }
    let (expected, found) = (format!("SHA-256 {}", part.sha256), format!("SHA-256 {}", copied.sha256));
    Err(Error::malformed(from.to_string(), expected, found, "The file was changed or damaged: harvest its part again"))
}

/// The manifest of the harvests of all parts of a corpus, whose files count one after the other, in the order of the
/// parts. Means and deviations are summed up like those of one harvest's parts; each harvest left out the sinks by its
/// own threshold, and readers go by the first one's.
pub(crate) fn merged_manifest(folders: &[Location], manifests: &[HarvestManifest]) -> Result<HarvestManifest> {
    check_parts(folders, manifests)?;
    let mut harvests: Vec<_> = folders.iter().zip(manifests).collect();
    harvests.sort_by_key(|(_, manifest)| manifest.config.part);
    let first = harvests[0].1;
    let schema = ShardSchema::of(first);
    let mut merged = HarvestManifest {
        merged_from: Some(manifests.len() as u64),
        complete: manifests.iter().all(|manifest| manifest.complete),
        counts: manifests.iter().fold(Counts::default(), |sum, manifest| sum.plus_part(&manifest.counts)),
        parts: vec![],
        ..first.clone()
    };
    merged.config.part = None;
    merged.config.tokens = None; // each part had its own budget; the whole is not extended
    let mut totals: Option<Vec<HookPointStatistics>> = None;
    for (folder, manifest) in harvests {
        for part in &manifest.parts {
            let statistics = part_statistics(folder, part, &schema)?;
            match &mut totals {
                None => totals = Some(statistics),
                Some(totals) => totals.iter_mut().zip(&statistics).for_each(|(total, part)| total.merge(part)),
            }
            let mut part = part.clone();
            part.file = part_file(merged.parts.len());
            merged.parts.push(part);
        }
    }
    let points = schema.hook_points.iter().zip(totals.iter().flatten());
    merged.hook_points = points.map(|((point, _), total)| HookPointSummary::new(*point, total)).collect();
    Ok(merged)
}

/// Refuses harvests that are not those of all parts of one corpus.
fn check_parts(folders: &[Location], manifests: &[HarvestManifest]) -> Result<()> {
    let Some((first, rest)) = manifests.split_first() else {
        return Err(Error::invalid("folders to merge", "at least one", "none"));
    };
    let without_part = |manifest: &HarvestManifest| {
        let mut manifest = manifest.clone();
        manifest.config.part = None;
        serde_json::json!({ "is": manifest.identity(), "tokens": manifest.config.tokens })
    };
    for (folder, manifest) in folders[1..].iter().zip(rest) {
        let mut differences = vec![];
        compare("", &without_part(manifest), &without_part(first), &mut differences);
        if !differences.is_empty() {
            let differences = differences.iter().map(|difference| difference.replacen("is.", "", 1)).collect();
            return Err(Error::OtherHarvest {
                path: folder.to_string().into(),
                first: folders[0].to_string().into(),
                differences,
            });
        }
    }
    let parts: Vec<_> = manifests.iter().map(|manifest| manifest.config.part).collect();
    let of = parts[0].map_or(1, |part| part.of());
    for wanted in 0..of {
        let found: Vec<_> = folders
            .iter()
            .zip(&parts)
            .filter(|(_, part)| part.is_none_or(|part| part.index() == wanted && part.of() == of))
            .map(|(folder, _)| folder.to_string())
            .collect();
        if found.len() != 1 || parts.contains(&None) {
            let expected = format!("part {wanted}/{of} of the corpus once");
            let found =
                if found.is_empty() { "no folder with it".into() } else { format!("it in {}", found.join(", ")) };
            return Err(Error::invalid("folders to merge", expected, found));
        }
    }
    if let Some((folder, Some(part))) =
        folders.iter().zip(&parts).find(|(_, part)| part.is_some_and(|part| part.of() != of))
    {
        return Err(Error::invalid("folders to merge", format!("parts of {of}"), format!("part {part} in {folder}")));
    }
    Ok(())
}
