//! `refract inspect`: explains a folder or a model, and checks on request that it is whole.

mod sae;
mod sweep;

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use analyzer::{FeatureIndex, FeaturesManifest};
use anyhow::{Context, bail};
use harvester::{
    ActivationDataset, Compute, HarvestManifest, HookPoint, Location, MANIFEST_FILE, Manifest, ModelConfig,
    ModelSource, Site,
};
use serde_json::Value;
use trainer::{SWEEP_FILE, SaeFormat, SaeManifest};

use crate::{
    cli::InspectArgs,
    terminal::{DIM, Terminal, grouped, human_bytes},
};

pub(crate) fn run(args: &InspectArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let path = &args.path;
    if let Some(model) = fetched_model(path, terminal)? {
        return model_or_foreign_sae(&model, args.verify, terminal);
    }
    if path.join(SWEEP_FILE).is_file() {
        return sweep::table(path, args.verify, terminal);
    }
    let location = Location::named(path)?;
    let manifest = path.join(MANIFEST_FILE);
    if location.join(MANIFEST_FILE).bytes()?.is_none() {
        if is_folder_of_parts(&location)? {
            let dataset = activations(path, args.verify, terminal)?;
            return terminal.json(dataset.manifest());
        }
        return model_or_foreign_sae(path, args.verify, terminal);
    }
    let bytes = location.join(MANIFEST_FILE).read()?;
    let parsed: Value =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON", manifest.display()))?;
    match parsed.get("format").and_then(Value::as_str) {
        Some(HarvestManifest::FORMAT) => {
            activations(path, args.verify, terminal)?;
        }
        Some(SaeManifest::FORMAT) => sae::ours(path, args.verify, terminal)?,
        Some(FeaturesManifest::FORMAT) => features(path, args.verify, terminal)?,
        found => bail!(
            "{}: expected a format of refract (activations, sae or features), found {}",
            manifest.display(),
            found.unwrap_or("none")
        ),
    }
    terminal.json(&parsed)
}

fn fact(terminal: &Terminal, name: &str, value: impl AsRef<str>) {
    terminal.line(format!("  {DIM}{name:14}{DIM:#} {}", value.as_ref()));
}

/// The message for a folder without checksums yet: they are recorded when a run in it is finished.
fn nothing_to_verify(path: &Path) -> String {
    format!(
        "{}: nothing there can be verified yet, as nothing is recorded: repeat its command to go on",
        path.display()
    )
}

/// A model that has a name instead of a path: `default`, or one in a wheel. It is fetched as for `harvest --model`.
fn fetched_model(path: &Path, terminal: &Terminal) -> anyhow::Result<Option<PathBuf>> {
    if path.exists() {
        return Ok(None);
    }
    let source = path.to_str().filter(|text| !text.contains("://")).and_then(|text| text.parse().ok());
    match source {
        Some(source @ (ModelSource::Default | ModelSource::Wheel { .. })) => Ok(Some(source.resolve(terminal)?.path)),
        Some(ModelSource::Hub { .. }) => bail!(
            "{}: no such file or folder. Of a model on the Hub, name the folder or .gguf file on this machine",
            path.display()
        ),
        _ => Ok(None),
    }
}

/// True if a folder without a manifest holds folders of activations.
///
/// # Errors
/// When it holds folders of other stages: it is not known which one is meant.
fn is_folder_of_parts(location: &Location) -> anyhow::Result<bool> {
    if !location.is_folder()? {
        return Ok(false);
    }
    let mut stages = vec![];
    for entry in location.list()?.into_iter().filter(|entry| entry.is_folder) {
        let manifest = entry.location.join(MANIFEST_FILE);
        if manifest.bytes()?.is_some() {
            let parsed: Value = serde_json::from_slice(&manifest.read()?).unwrap_or_default();
            // Models have files of this name too, of other formats.
            if let Some(format) = parsed.get("format").and_then(Value::as_str).filter(|it| it.starts_with("refract.")) {
                stages.push((entry.location, format.to_string()));
            }
        }
    }
    let is_part = |(_, format): &(Location, String)| format == HarvestManifest::FORMAT;
    if stages.is_empty() || stages.iter().all(is_part) {
        return Ok(!stages.is_empty());
    }
    let names: Vec<_> = stages.iter().map(|(folder, format)| format!("{folder} ({format})")).collect();
    match &names[..] {
        [name] => bail!("{location} holds a folder that refract wrote; name that: {name}"),
        _ => bail!("{location} holds folders that refract wrote; name one of them: {}", names.join(", ")),
    }
}

fn activations(path: &Path, verify: bool, terminal: &Terminal) -> anyhow::Result<ActivationDataset> {
    let dataset = ActivationDataset::open(Location::named(path)?)?;
    let manifest: &HarvestManifest = dataset.manifest();
    terminal.heading(&format!("{}: activations", path.display()));
    fact(terminal, "state", if manifest.complete { "complete" } else { "unfinished: repeat its command to go on" });
    fact(
        terminal,
        "model",
        format!("{} ({}, {} layers)", manifest.model.source, manifest.model.family, manifest.model.n_layers),
    );
    if manifest.config.compute != Compute::F32 {
        fact(terminal, "computed in", manifest.config.compute.to_string());
    }
    let counts = &manifest.counts;
    if let Some(part) = manifest.config.part {
        fact(terminal, "part", format!("{part} of the corpus"));
    }
    if let Some(parts) = manifest.merged_from {
        fact(terminal, "merged from", format!("{parts} parts of the corpus"));
    }
    fact(
        terminal,
        "tokens",
        format!(
            "{} in {} contexts of up to {}",
            grouped(counts.tokens),
            grouped(counts.contexts),
            manifest.config.ctx_len
        ),
    );
    fact(
        terminal,
        "files",
        format!("{} parts, {}", manifest.parts.len(), human_bytes(manifest.parts.iter().map(|part| part.bytes).sum())),
    );
    for source in &manifest.corpus {
        fact(terminal, "source", format!("{} ({} documents)", source.name, grouped(source.documents)));
    }
    for point in &manifest.hook_points {
        let norms = &point.norm_quantiles;
        let (dtype, layout) = (manifest.config.dtype, manifest.config.layout);
        fact(terminal, "hook point", format!("{} x {} {dtype}, {layout}", point.name, point.d_model));
        fact(
            terminal,
            "  norms",
            format!(
                "median {:.1}, 99 % {:.1}, max {:.1}; {} sinks above {:.1}",
                norms.p50, norms.p99, norms.max, point.sinks, point.sink_norm
            ),
        );
        fact(terminal, "  |mean| / std", format!("{:.2}", point.mean_to_spread));
    }
    if verify {
        dataset.verify(terminal)?;
        fact(terminal, "checksums", "every byte is as recorded");
    }
    Ok(dataset)
}

fn features(path: &Path, verify: bool, terminal: &Terminal) -> anyhow::Result<()> {
    let index = FeatureIndex::open(path)?;
    let manifest = index.manifest();
    terminal.heading(&format!("{}: features", path.display()));
    fact(terminal, "sae", manifest.sae.shown(path));
    fact(terminal, "activations", manifest.activations.shown(path));
    fact(terminal, "tokens", grouped(manifest.tokens));
    let never_active = index.features().iter().filter(|feature| feature.n_active == 0).count();
    fact(terminal, "latents", format!("{}, {never_active} of them never active", grouped(manifest.d_sae as u64)));
    for source in &manifest.sources {
        fact(terminal, "source", format!("{} ({} tokens)", source.name, grouped(source.tokens)));
    }
    if verify {
        index.verify(path)?;
        fact(terminal, "checksums", "every byte is as recorded");
    }
    Ok(())
}

/// Refuses a file that is not a model, by its name and by its first bytes.
fn refuse_other_files(path: &Path) -> anyhow::Result<()> {
    let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if !path.is_file() || named {
        return Ok(());
    }
    let mut start = vec![];
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.take(GGUF_MAGIC.len() as u64)
        .read_to_end(&mut start)
        .with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(
        start == GGUF_MAGIC,
        "{}: neither a folder that refract wrote nor a model: name such a folder, a model's folder or a .gguf file",
        path.display()
    );
    Ok(())
}

/// The first bytes of a GGUF file.
const GGUF_MAGIC: &[u8] = b"GGUF";

/// A path without a manifest of ours: a model, or an SAE of another tool.
fn model_or_foreign_sae(path: &Path, verify: bool, terminal: &Terminal) -> anyhow::Result<()> {
    anyhow::ensure!(path.exists(), "{}: no such file or folder", path.display());
    anyhow::ensure!(!verify, "{}: --verify is for folders that refract wrote, which record checksums", path.display());
    match SaeFormat::of(path) {
        Ok(format) => return sae::foreign(path, format, terminal),
        Err(error) if path.is_dir() && !path.join("config.json").exists() => {
            return Err(error).context("neither manifest.json (refract) nor config.json (a model) is there");
        }
        Err(_) => {}
    }
    refuse_other_files(path)?;
    let config = &ModelConfig::read(path)?;
    terminal.heading(&format!("{}: model", path.display()));
    fact(terminal, "family", config.family.to_string());
    fact(terminal, "layers", config.n_layers.to_string());
    fact(terminal, "d_model", config.d_model.to_string());
    fact(
        terminal,
        "attention",
        format!("{} heads of {} values, {} for keys and values", config.n_heads, config.d_head, config.n_kv_heads),
    );
    fact(terminal, "d_mlp", config.d_mlp.to_string());
    fact(terminal, "vocabulary", grouped(config.d_vocab as u64));
    fact(terminal, "context", format!("{} tokens", grouped(config.ctx_len as u64)));
    let sites = Site::ALL.into_iter().filter(|&site| HookPoint::Block { layer: 0, site }.check(config).is_ok());
    let sites: Vec<_> = sites.map(Site::name).collect();
    let of_one = format!("blocks.LAYER.SITE of layer 0 to {}", config.n_layers.saturating_sub(1));
    fact(terminal, "hook points", format!("hook_embed, {of_one}, blocks.*.SITE of every layer"));
    fact(terminal, "  SITE", format!("one of {}", sites.join(", ")));
    terminal.json(config)
}
