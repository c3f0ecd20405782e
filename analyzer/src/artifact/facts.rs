//! The [`Facts`] of each kind of [`super::Artifact`].

use std::{collections::BTreeMap, path::Path};

use harvester::{
    ActivationDataset, Compute, HarvestManifest, HookPattern, ModelConfig, go_on,
    human::{bytes, counted, grouped},
};
use trainer::{CURVES_FILE, HookPoints, InputNorm, METRICS_FILE, PARETO_FILE, RunState, Sae, SaeManifest, SweepFile};

use crate::{
    facts::Facts,
    features::{FeatureIndex, FeaturesManifest},
};

/// A harvest that has not finished a part.
pub(super) fn begun_harvest(path: &Path, manifest: &HarvestManifest, facts: &mut Facts) {
    unfinished_harvest(path, manifest, facts);
    harvested_model(manifest, facts);
    facts.add("files", "no part yet");
    manifest.config.hook_points.iter().for_each(|point| facts.add("hook point", point.to_string()));
}

fn unfinished_harvest(path: &Path, manifest: &HarvestManifest, facts: &mut Facts) {
    let journaled = counted(manifest.journaled_tokens(path), "token");
    facts.add("state", format!("unfinished: {journaled} in its journal beyond the finished parts"));
    facts.add("next", go_on(path));
}

fn harvested_model(manifest: &HarvestManifest, facts: &mut Facts) {
    let model = &manifest.model;
    facts.add("model", format!("{} ({}, {} layers)", model.source, model.family, model.n_layers));
}

pub(super) fn activations(path: &Path, dataset: &ActivationDataset, facts: &mut Facts) {
    let manifest = &dataset.manifest;
    let (config, counts) = (&manifest.config, &manifest.counts);
    match manifest.complete {
        true => facts.add("state", "complete"),
        false => unfinished_harvest(path, manifest, facts),
    }
    harvested_model(manifest, facts);
    if config.compute != Compute::F32 {
        facts.add("computed in", config.compute.to_string());
    }
    if let Some(part) = config.part {
        facts.add("part", format!("{part} of the corpus"));
    }
    if let Some(parts) = manifest.merged_from {
        facts.add("merged from", format!("{} of the corpus", counted(parts, "part")));
    }
    let contexts = counted(counts.contexts, "context");
    facts.add("tokens", format!("{} in {contexts} of up to {}", grouped(counts.tokens), config.ctx_len));
    let size = bytes(manifest.parts.iter().map(|part| part.bytes).sum());
    facts.add("files", format!("{}, {size}", counted(manifest.parts.len() as u64, "part")));
    sources(manifest, facts);
    for point in &manifest.hook_points {
        let norms = &point.norm_quantiles;
        facts.add("hook point", format!("{} x {} {}, {}", point.name, point.d_model, config.dtype, config.layout));
        facts.add(
            "  norms",
            format!(
                "median {:.1}, 99 % {:.1}, max {:.1}; {} above {:.1}",
                norms.p50,
                norms.p99,
                norms.max,
                counted(point.sinks, "sink"),
                point.sink_norm
            ),
        );
        facts.add("  |mean| / std", format!("{:.2}", point.mean_to_spread));
    }
}

/// Most sources that are listed.
const LISTED_SOURCES: usize = 24;

/// The sources, each with how much of it was harvested.
fn sources(manifest: &HarvestManifest, facts: &mut Facts) {
    let mut harvested: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for counts in manifest.parts.iter().flat_map(|part| &part.sources) {
        let (documents, tokens) = harvested.entry(counts.source).or_default();
        *documents += counts.documents;
        *tokens += counts.tokens;
    }
    let sources = manifest.source_names();
    for (at, (name, documents)) in sources.iter().enumerate().take(LISTED_SOURCES) {
        let all = counted(*documents, "document");
        let counts = match harvested.get(&at) {
            Some((documents, tokens)) => {
                format!("{} from {} of its {all}", counted(*tokens, "token"), grouped(*documents))
            }
            None if harvested.is_empty() => all, // earlier versions recorded none
            None => format!("none of its {all}"),
        };
        facts.add("source", format!("{name} ({counts})"));
    }
    if let more @ 1.. = sources.len().saturating_sub(LISTED_SOURCES) {
        facts.add("", format!("and {more} more sources, in manifest.json"));
    }
}

/// An index that is not finished.
pub(super) fn begun_index(path: &Path, manifest: &FeaturesManifest, facts: &mut Facts) {
    facts.add("state", format!("unfinished: {} saved so far", counted(manifest.tokens, "token")));
    facts.add("next", go_on(path));
    indexed(path, manifest, facts);
}

/// The SAE and the text of an index.
fn indexed(path: &Path, manifest: &FeaturesManifest, facts: &mut Facts) {
    facts.add("sae", manifest.sae.shown(path));
    match &manifest.text.activations {
        Some(activations) => facts.add("activations", activations.shown(path)),
        None => facts.add("text", "a corpus over which the model ran"),
    }
    if !manifest.text.parts.is_empty() {
        let parts: Vec<_> = manifest.text.parts.iter().map(ToString::to_string).collect();
        facts.add("parts", format!("{} of the corpus", parts.join(", ")));
    }
}

pub(super) fn features(path: &Path, index: &FeatureIndex, facts: &mut Facts) {
    let manifest = index.manifest();
    indexed(path, manifest, facts);
    facts.add("tokens", grouped(manifest.tokens));
    facts.add(
        "latents",
        format!("{}, {} of them never active", grouped(manifest.d_sae as u64), grouped(manifest.never_active)),
    );
    facts.add("labels", manifest.labeled.to_string());
    for source in &manifest.sources {
        facts.add("source", format!("{} ({})", source.name, counted(source.tokens, "token")));
    }
}

/// An SAE that refract trained, finished or not.
pub(super) fn trained_sae(path: &Path, manifest: &SaeManifest, sae: Option<&Sae>, facts: &mut Facts) {
    let config = &manifest.config;
    sae_origin(path, manifest, facts);
    if let Some(sae) = sae {
        sae_shape(sae, facts);
        let (arch, sparsity) = (config.architecture, config.sparsity());
        facts.add("trained as", format!("{arch}, {sparsity}, {} tokens", grouped(config.tokens)));
        if !config.prefixes.is_empty() {
            let ends: Vec<_> = config.prefixes.iter().map(ToString::to_string).collect();
            facts.add("prefixes", format!("the first {} latents", ends.join(", ")));
        }
        if let Some(held_out) = manifest.results.as_ref().and_then(|results| results.held_out) {
            facts.add("held out", format!("L0 {:.1}, FVU {:.3}", held_out.l0, held_out.fvu));
        }
    } else {
        facts.add("state", manifest.diverged.as_deref().unwrap_or("unfinished"));
        if manifest.diverged.is_none() {
            facts.add("next", go_on(path));
        }
    }
    for (name, file, what) in [
        ("metrics", METRICS_FILE, "a row every few steps, for pyarrow, polars and DuckDB"),
        ("curves", CURVES_FILE, "the same as curves, for a browser"),
    ] {
        let path = path.join(file);
        if path.exists() {
            facts.add(name, format!("{}: {what}", path.display()));
        }
    }
}

/// The data that it was trained on.
fn sae_origin(path: &Path, manifest: &SaeManifest, facts: &mut Facts) {
    let data = manifest.activations.shown(path);
    if let Some(vectors) = &manifest.vectors {
        let rows = counted(vectors.files.iter().map(|file| file.rows).sum(), "row");
        facts.add("vectors", data);
        facts.add("column", format!("{}: {rows} of {} numbers", vectors.column, manifest.d_in));
        facts.add("model", "none: it cannot be evaluated on text, indexed or steered with");
        return;
    }
    facts.add("model", manifest.model.as_ref().map_or("unknown", |model| &model.source));
    manifest.config.hook_points.iter().for_each(|point| facts.add("hook point", point.to_string()));
    manifest.config.target_hook_point.iter().for_each(|point| facts.add("predicts", point.to_string()));
    facts.add("activations", data);
}

fn sae_shape(sae: &Sae, facts: &mut Facts) {
    let d_out = if sae.d_out() == sae.d_in() { String::new() } else { format!(", d_out {}", sae.d_out()) };
    facts.add("shape", format!("d_in {} x d_sae {}{d_out}", sae.d_in(), grouped(sae.d_sae() as u64)));
    let k = sae.nonlinearity().k().map(|k| format!(", k {k}")).unwrap_or_default();
    facts.add("architecture", format!("{}{k}", sae.architecture()));
    if sae.has_skip() {
        facts.add("skip", "part of the input bypasses the latents");
    }
}

pub(super) fn foreign_sae(sae: &Sae, facts: &mut Facts) {
    let config = sae.config();
    if !config.model_name.is_empty() {
        facts.add("model", config.model_name.clone());
    }
    let not_said = || "not said: name it with `hook_point`".to_string();
    facts.add("hook point", config.hook_points.reads().first().map_or_else(not_said, ToString::to_string));
    match &config.hook_points {
        HookPoints::Autoencoder(_) => {}
        HookPoints::Transcoder { to, .. } => {
            to.iter().for_each(|point| facts.add("reconstructs", point.to_string()));
        }
        HookPoints::Crosscoder(columns) => {
            columns.iter().for_each(|(point, width)| facts.add("column", format!("{point} x {width}")));
        }
    }
    sae_shape(sae, facts);
    if config.input_norm != InputNorm::None {
        facts.add("input norm", config.input_norm.to_string());
    }
}

pub(super) fn sweep(path: &Path, file: &SweepFile, facts: &mut Facts) {
    let count = |state| file.in_state(state).count();
    let state = match count(RunState::Unfinished) {
        0 => "complete".to_string(),
        n => format!("unfinished, {n} to come. {}", go_on(path)),
    };
    facts.add("state", state);
    let (finished, diverged) = (count(RunState::Finished), count(RunState::Diverged));
    facts.add("runs", format!("{}: {finished} finished, {diverged} diverged", file.runs.len()));
    facts.add("pareto", format!("{}: FVU against L0, for a browser", path.join(PARETO_FILE).display()));
}

pub(super) fn model(config: &ModelConfig, facts: &mut Facts) {
    facts.add("family", config.family.to_string());
    facts.add("layers", config.n_layers.to_string());
    facts.add("d_model", config.d_model.to_string());
    let ModelConfig { n_heads, d_head, n_kv_heads, .. } = config;
    facts.add("attention", format!("{n_heads} heads of {d_head} values, {n_kv_heads} for keys and values"));
    facts.add("d_mlp", config.d_mlp.to_string());
    facts.add("vocabulary", grouped(config.d_vocab as u64));
    facts.add("context", counted(config.ctx_len as u64, "token"));
    let of_first = HookPattern::resolve(&[HookPattern::Names("blocks.0.*".into())], config).unwrap_or_default();
    let sites: Vec<_> = of_first.iter().map(|point| point.to_string().replace("blocks.0.", "")).collect();
    let of_one = format!("blocks.LAYER.SITE of layer 0 to {}", config.n_layers.saturating_sub(1));
    facts.add("hook points", format!("hook_embed, {of_one}, blocks.*.SITE of every layer"));
    facts.add("  SITE", format!("one of {}", sites.join(", ")));
}
