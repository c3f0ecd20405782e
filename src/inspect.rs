//! `refract inspect`: what a folder or a model is, and whether it is whole.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use analyzer::FeatureIndex;
use anyhow::{Context, bail};
use harvester::{
    ActivationDataset, Checkpoint, Compute, HarvestManifest, HookPoint, Location, ModelSource, Site,
    manifest::MANIFEST_FILE,
};
use serde_json::Value;
use trainer::{CURVES_FILE, InputNorm, METRICS_FILE, Sae, SaeFormat, SaeManifest, TrainArchitecture};

use crate::{
    cli::InspectArgs,
    terminal::{DIM, Terminal, grouped, human_bytes},
    train,
};

pub(crate) fn run(args: &InspectArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let path = &args.path;
    if let Some(model) = fetched_model(path, terminal)? {
        return model_or_foreign_sae(&model, args.verify, terminal);
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
        Some(harvester::manifest::ACTIVATIONS_FORMAT) => {
            activations(path, args.verify, terminal)?;
        }
        Some(trainer::SAE_FORMAT) => sae(path, args.verify, terminal)?,
        Some(analyzer::features_manifest::FEATURES_FORMAT) => features(path, args.verify, terminal)?,
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

/// The model that is named and not on a path: `default`, or one in a wheel. It is fetched as `harvest --model` fetches
/// it.
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

/// Whether a folder without a manifest holds folders of activations.
///
/// # Errors
/// When it holds folders of other stages: which is meant is not known.
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
    let is_part = |(_, format): &(Location, String)| format == harvester::manifest::ACTIVATIONS_FORMAT;
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

fn sae(path: &Path, verify: bool, terminal: &Terminal) -> anyhow::Result<()> {
    let manifest = SaeManifest::read(path)?;
    let kind = match manifest.config.architecture {
        TrainArchitecture::Transcoder => "transcoder",
        TrainArchitecture::Crosscoder => "crosscoder",
        _ => "sparse autoencoder",
    };
    terminal.heading(&format!("{}: {kind}", path.display()));
    sae_origin(path, &manifest, terminal);
    if manifest.complete {
        sae_shape(&Sae::load(path)?, terminal);
        let config = &manifest.config;
        let (arch, active) = (config.architecture, train::active(config));
        fact(terminal, "trained as", format!("{arch}, {active}, {} tokens", grouped(config.tokens)));
        if !config.prefixes.is_empty() {
            let ends: Vec<_> = config.prefixes.iter().map(ToString::to_string).collect();
            fact(terminal, "prefixes", format!("the first {} latents", ends.join(", ")));
        }
        if let Some(held_out) = manifest.results.as_ref().and_then(|results| results.held_out) {
            fact(terminal, "held out", format!("L0 {:.1}, FVU {:.3}", held_out.l0, held_out.fvu));
        }
        if verify {
            SaeManifest::verify(path)?;
            fact(terminal, "checksum", "the weights are as recorded");
        }
    } else {
        fact(terminal, "state", "unfinished: repeat its command to go on");
    }
    for (name, file, what) in [
        ("metrics", METRICS_FILE, "a row every few steps, for pyarrow, polars and DuckDB"),
        ("curves", CURVES_FILE, "the same as curves, for a browser"),
    ] {
        let path = path.join(file);
        if path.exists() {
            fact(terminal, name, format!("{}: {what}", path.display()));
        }
    }
    Ok(())
}

/// What it was trained on.
fn sae_origin(path: &Path, manifest: &SaeManifest, terminal: &Terminal) {
    let data = manifest.activations_dir(path).display().to_string();
    if let Some(vectors) = &manifest.vectors {
        let rows = grouped(vectors.files.iter().map(|file| file.rows).sum());
        fact(terminal, "vectors", &data);
        fact(terminal, "column", format!("`{}`: {rows} rows of {} numbers", vectors.column, manifest.d_in));
        fact(terminal, "model", "none: it cannot be evaluated on text, indexed or steered with");
        return;
    }
    fact(terminal, "model", manifest.model.as_ref().map_or("unknown", |model| &model.source));
    let inputs = if manifest.hook_points.is_empty() { manifest.hook_point.as_slice() } else { &manifest.hook_points };
    inputs.iter().for_each(|point| fact(terminal, "hook point", point.to_string()));
    manifest.target_hook_point.iter().for_each(|point| fact(terminal, "predicts", point.to_string()));
    fact(terminal, "activations", data);
}

fn sae_shape(sae: &Sae, terminal: &Terminal) {
    let d_out = if sae.d_out() == sae.d_in() { String::new() } else { format!(", d_out {}", sae.d_out()) };
    fact(terminal, "shape", format!("d_in {} x d_sae {}{d_out}", sae.d_in(), grouped(sae.d_sae() as u64)));
    let k = sae.config.k.map(|k| format!(", k {k}")).unwrap_or_default();
    fact(terminal, "architecture", format!("{}{k}", sae.config.architecture));
    if sae.w_skip.is_some() {
        fact(terminal, "skip", "a part of the input passes no latent");
    }
}

fn features(path: &Path, verify: bool, terminal: &Terminal) -> anyhow::Result<()> {
    let index = FeatureIndex::open(path)?;
    let manifest = index.manifest();
    terminal.heading(&format!("{}: features", path.display()));
    fact(terminal, "sae", manifest.sae.display().to_string());
    fact(terminal, "activations", manifest.activations.display().to_string());
    fact(terminal, "tokens", grouped(manifest.tokens));
    let silent = index.features().iter().filter(|feature| feature.n_active == 0).count();
    fact(terminal, "latents", format!("{}, {silent} of them silent", grouped(manifest.d_sae as u64)));
    for source in &manifest.sources {
        fact(terminal, "source", format!("{} ({} tokens)", source.name, grouped(source.tokens)));
    }
    if verify {
        index.verify(path)?;
        fact(terminal, "checksums", "every byte is as recorded");
    }
    Ok(())
}

/// An SAE of another tool.
fn foreign_sae(path: &Path, format: SaeFormat, terminal: &Terminal) -> anyhow::Result<()> {
    let sae = Sae::load(path)?;
    let config = &sae.config;
    terminal.heading(&format!("{}: sparse autoencoder, format {format}", path.display()));
    if !config.model_name.is_empty() {
        fact(terminal, "model", &config.model_name);
    }
    let not_said = || "not said: name it with --hook-point".to_string();
    fact(terminal, "hook point", config.hook_point.map_or_else(not_said, |point| point.to_string()));
    if let Some(point) = config.hook_point_out {
        fact(terminal, "rebuilds", point.to_string());
    }
    for (point, width) in &config.columns {
        fact(terminal, "column", format!("{point} x {width}"));
    }
    sae_shape(&sae, terminal);
    if config.input_norm != InputNorm::None {
        fact(terminal, "input norm", format!("{:?}", config.input_norm));
    }
    terminal.json(&serde_json::json!({
        "format": format.to_string(), "architecture": config.architecture.to_string(), "d_in": config.d_in,
        "d_out": config.d_out, "d_sae": config.d_sae, "k": config.k, "hook_point": config.hook_point,
        "hook_point_out": config.hook_point_out, "model": config.model_name,
    }))
}

/// Refuses a file that neither says that it is a model, by its name, nor begins as one.
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

/// What a GGUF file begins with.
const GGUF_MAGIC: &[u8] = b"GGUF";

/// A path without a manifest of ours: a model, or an SAE of another tool.
fn model_or_foreign_sae(path: &Path, verify: bool, terminal: &Terminal) -> anyhow::Result<()> {
    anyhow::ensure!(path.exists(), "{}: no such file or folder", path.display());
    anyhow::ensure!(!verify, "{}: --verify is for folders that refract wrote, which record checksums", path.display());
    match SaeFormat::of(path) {
        Ok(format) => return foreign_sae(path, format, terminal),
        Err(error) if path.is_dir() && !path.join("config.json").exists() => {
            return Err(error).context("neither manifest.json (refract) nor config.json (a model) is there");
        }
        Err(_) => {}
    }
    refuse_other_files(path)?;
    let checkpoint = Checkpoint::open(path)?;
    let config = checkpoint.config();
    terminal.heading(&format!("{}: model", path.display()));
    fact(terminal, "family", config.family.to_string());
    fact(terminal, "layers", config.n_layers.to_string());
    fact(terminal, "d_model", config.d_model.to_string());
    fact(
        terminal,
        "heads",
        format!("{} of {}, {} for keys and values", config.n_heads, config.d_head, config.n_kv_heads),
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
