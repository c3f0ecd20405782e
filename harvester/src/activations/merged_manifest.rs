//! [`merged_manifest`]: one manifest for the folders of all parts of one corpus.

use super::{
    manifest::{Counts, HarvestManifest, HookPointSummary, as_setting},
    open_part::part_statistics,
    part_names::part_file,
    schema::ShardSchema,
};
use crate::{Error, Location, Result, numbers::HookPointStatistics, store::differences};

/// The manifest of the harvests of all parts of a corpus, whose files follow one another in the order of the parts.
/// Means and deviations are combined like those of one harvest's parts. Each harvest left out sinks by its own
/// threshold; readers use the first harvest's threshold.
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
        documents: None, // each folder has its own
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

/// Refuses harvests that are not exactly one of each part of one corpus.
fn check_parts(folders: &[Location], manifests: &[HarvestManifest]) -> Result<()> {
    let Some((first, rest)) = manifests.split_first() else {
        return Err(Error::invalid("folders to merge", "at least one", "none"));
    };
    let without_part = |manifest: &HarvestManifest| {
        let mut manifest = manifest.clone();
        manifest.config.part = None;
        serde_json::json!({ "is": manifest.identity(), "tokens": manifest.config.tokens, "roles": manifest.roles })
    };
    for (folder, manifest) in folders[1..].iter().zip(rest) {
        let differences = differences("", &without_part(manifest), &without_part(first));
        if !differences.is_empty() {
            let differences =
                differences.iter().map(|difference| as_setting(difference.replacen("is.", "", 1))).collect();
            return Err(Error::OtherHarvest { place: folder.to_string(), first: folders[0].to_string(), differences });
        }
    }
    if let Some((folder, _)) = folders.iter().zip(manifests).find(|(_, manifest)| manifest.config.part.is_none()) {
        let found = format!("{folder}, a whole harvest: there is nothing to merge it with");
        return Err(Error::invalid("folders to merge", "harvests of the parts of a corpus (`part`)", found));
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
