//! `refract inspect` of an SAE: one that refract trained, or another tool's.

use std::path::Path;

use trainer::{CURVES_FILE, HookPoints, InputNorm, METRICS_FILE, Sae, SaeFormat, SaeManifest, TrainArchitecture};

use super::fact;
use crate::{
    terminal::{Terminal, grouped},
    train,
};

/// An SAE that refract trained, finished or not.
pub(super) fn ours(path: &Path, verify: bool, terminal: &Terminal) -> anyhow::Result<()> {
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
            fact(terminal, "checksum", "the weights, cfg.json and densities are as recorded");
            if manifest.live_from.is_some() {
                manifest.open_activations(path)?.verify(terminal)?;
                fact(terminal, "held-out", "as recorded");
            }
        }
    } else {
        let state = manifest.diverged.as_deref().unwrap_or("unfinished: repeat its command to go on");
        fact(terminal, "state", state);
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
    anyhow::ensure!(manifest.complete || !verify, super::nothing_to_verify(path));
    Ok(())
}

/// The data that it was trained on.
fn sae_origin(path: &Path, manifest: &SaeManifest, terminal: &Terminal) {
    let data = manifest.activations.shown(path);
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
    let k = sae.nonlinearity().k().map(|k| format!(", k {k}")).unwrap_or_default();
    fact(terminal, "architecture", format!("{}{k}", sae.architecture()));
    if sae.has_skip() {
        fact(terminal, "skip", "a part of the input passes no latent");
    }
}

/// An SAE of another tool.
pub(super) fn foreign(path: &Path, format: SaeFormat, terminal: &Terminal) -> anyhow::Result<()> {
    let sae = Sae::load(path)?;
    let config = sae.config();
    terminal.heading(&format!("{}: sparse autoencoder, format {format}", path.display()));
    if !config.model_name.is_empty() {
        fact(terminal, "model", &config.model_name);
    }
    let not_said = || "not said: name it with --hook-point".to_string();
    let reads = config.hook_points.reads();
    fact(terminal, "hook point", reads.first().map_or_else(not_said, ToString::to_string));
    let mut target = None;
    match &config.hook_points {
        HookPoints::Autoencoder(_) => {}
        HookPoints::Transcoder { to, .. } => {
            to.iter().for_each(|point| fact(terminal, "reconstructs", point.to_string()));
            target = *to;
        }
        HookPoints::Crosscoder(columns) => {
            columns.iter().for_each(|(point, width)| fact(terminal, "column", format!("{point} x {width}")));
        }
    }
    sae_shape(&sae, terminal);
    if config.input_norm != InputNorm::None {
        fact(terminal, "input norm", config.input_norm.to_string());
    }
    terminal.json(&serde_json::json!({
        "format": format.to_string(), "architecture": sae.architecture().to_string(), "d_in": config.d_in,
        "d_out": config.d_out, "d_sae": config.d_sae, "k": sae.nonlinearity().k(), "hook_point": reads.first(),
        "hook_point_out": target, "model": config.model_name,
    }))
}
