//! [`of`]: turns the weights of a finished SAE, in any format, into the initial weights of a run (`init_from`). It is
//! the inverse of `export`, and also checks that the SAE fits the config.
//!
//! ```text
//! one hook point b_enc s    b_dec s    thresholds s    b_mag s            W_enc, W_dec unchanged
//! transcoder     W_enc s_out / s_in    W_skip s_out / s_in    thresholds s_out
//!                b_enc s_out + W_enc b_in    b_dec s_out + W_skip b_in    (W_enc, W_skip: of the line above)
//! crosscoder     W_enc^l / s_l    W_dec^l s_l    b_dec^l s_l              b_enc, thresholds unchanged
//! then           n_j = sum_l |W_dec^l[j]|:    W_dec[j] / n_j,    and W_enc[j], b_enc, thresholds, b_mag times n_j
//! ```
//!
//! The last line does not change reconstructions. Only TopK selects by f, so it may select other latents if the rows
//! had different norms. A latent without a direction (n_j = 0) could never learn one: it gets a new random one.

use std::path::Path;

use harvester::{HookPoint, Settings};

use crate::{
    Error, Result, SaeManifest, TrainConfig,
    config::Resolved,
    data::standardize::Standard,
    formats::{SaeFormat, folder_of},
    kernels::simd::multiply,
    manifest::InitialFile,
    run::{
        metrics_log,
        units::{add_product, scale_columns},
    },
    sae::{Architecture, HookPoints, Nonlinearity, Sae, SaeWeights, input_norm::InputNorm},
    step::{
        architecture::{self, TrainArchitecture},
        weights::{B_MAG, Parameter, R_MAG, THRESHOLD, W_SKIP, Weights, norm_of_blocks, normalize},
    },
};

/// If norms of decoder rows differ by more, TopK may select other latents.
const SAME_NORM: f32 = 1e-3;

impl TrainConfig {
    /// The config with these settings. All others have their defaults; that of `k` depends on the SAE in `init_from`.
    ///
    /// # Errors
    /// An unknown name, a value of the wrong type, a setting without effect in combination with the others, or a number
    /// of hook points that does not fit the architecture; or the SAE in `init_from` cannot be read.
    pub fn from_settings(settings: &Settings) -> Result<Self> {
        let mut config = Self::of_given(settings)?;
        let is_unset = ["k", "sparsity_coefficient"].iter().all(|name| !settings.contains_key(*name));
        if let Some(path) = &config.init_from
            && is_unset
            && config.architecture != TrainArchitecture::Dense
            && let Some(k) = k_of(path, &Sae::load(path)?)
        {
            config.k = k;
        }
        Ok(config)
    }
}

/// The active latents per token that an SAE was trained for: of a topk SAE, or of any that refract trained.
fn k_of(path: &Path, sae: &Sae) -> Option<usize> {
    let trained = || SaeManifest::read(&folder_of(path)).ok().map(|manifest| manifest.config);
    let aimed_at = || trained().filter(|config| config.sparsity_coefficient.is_none()).map(|config| config.k);
    sae.nonlinearity().k().or_else(aimed_at)
}

/// Refuses an SAE that a run of `resolved` cannot begin from.
pub(crate) fn check_fits(sae: &Sae, resolved: &Resolved) -> Result<()> {
    let Some((expected, found)) = misfit(sae, resolved) else { return Ok(()) };
    let path = resolved.config.init_from.as_deref().unwrap_or(Path::new("init_from"));
    Err(Error::invalid("`init_from`", expected, format!("{found} in {}", path.display())))
}

/// Warns if the SAE is from another hook point or another model. The user may want to fine-tune it there.
pub(crate) fn say_elsewhere(sae: &Sae, resolved: &Resolved, model: &str) {
    if let (Some(from), Some(here)) = (sae.config().hook_points.ends().0, resolved.config.hook_points.first().copied())
        && from != here
    {
        tracing::warn!("the SAE of `init_from` was trained at {from}, and is now trained at {here}");
    }
    let from = sae.config().model_name.as_str();
    if !from.is_empty() && from != model {
        tracing::warn!("the SAE of `init_from` was trained on {from}, and is now trained on {model}");
    }
}

/// The last weight of the sparsity loss in the run that made the SAE, if refract trained it with the same architecture.
/// An adapted weight begins there.
pub(crate) fn last_coefficient(config: &TrainConfig) -> Option<f64> {
    let adapted = config.architecture.has_sparsity_loss() && config.sparsity_coefficient.is_none();
    let dir = folder_of(config.init_from.as_ref().filter(|_| adapted)?);
    let made = SaeManifest::read(&dir).ok()?;
    let last = metrics_log::read(&dir).ok()?.pop()?;
    (made.config.architecture == config.architecture).then_some(last.sparsity_coefficient)
}

/// The files of that SAE, as recorded in the manifest.
pub(crate) fn files(config: &TrainConfig) -> Result<Vec<InitialFile>> {
    let Some(path) = &config.init_from else { return Ok(vec![]) };
    let file = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(InitialFile { name, sha256: harvester::sha256_file(path)? })
    };
    SaeFormat::files_of(path)?.iter().map(|path| file(path)).collect()
}

/// A sentence that describes which parts of the SAE in `init_from` a run keeps; `None` if it begins from random weights.
/// `config` names the path as the user did.
pub(crate) fn initial_weights_kept(config: &TrainConfig, resolved: &Resolved) -> Option<String> {
    let (path, sae) = config.init_from.as_ref().zip(resolved.initial.as_ref())?;
    let own = match config.architecture {
        TrainArchitecture::JumpRelu => ", thresholds",
        TrainArchitecture::Gated => ", r_mag, b_mag",
        TrainArchitecture::Transcoder if config.skip && sae.has_skip() => ", W_skip",
        _ => "",
    };
    let begun = match config.architecture {
        TrainArchitecture::Transcoder if config.skip && !sae.has_skip() => "; W_skip starts at zero",
        _ => "",
    };
    let mut says = format!(
        "begins from {}: keeps W_enc, b_enc, W_dec, b_dec{own} of {} latents; Adam's moments start at zero{begun}",
        path.display(),
        sae.d_sae()
    );
    if sae.architecture() == Architecture::JumpRelu && config.architecture.is_batch_topk() {
        says += "; its threshold is calibrated again at the end";
    } else if sae.architecture() == Architecture::JumpRelu && config.architecture == TrainArchitecture::TopK {
        says += "; its thresholds are dropped";
    }
    if config.architecture.has_sparsity_loss() && config.sparsity_coefficient.is_none() {
        says += &match last_coefficient(config) {
            Some(last) => {
                format!("; the weight of the sparsity loss is adapted, starting at its last value, {last:.4}")
            }
            None => "; the weight of the sparsity loss is adapted, starting at the default".into(),
        };
    }
    if config.sparsity_coefficient.is_none() && config.architecture != TrainArchitecture::Dense {
        says += &match k_of(path, sae) {
            Some(k) if k == config.k => format!("; k {k}, as before"),
            Some(k) => format!("; k {} instead of {k}", config.k),
            None => format!("; k {}: the SAE does not say its own", config.k),
        };
    }
    says += &said_of_norms(sae);
    Some(says)
}

/// Describes changes to decoder rows with different norms and to those without a direction; empty if there are none.
fn said_of_norms(sae: &Sae) -> String {
    let norms: Vec<f32> =
        sae.w_dec().chunks_exact(sae.d_out()).map(|row| norm_of_blocks(row, &[sae.d_out()])).collect();
    let directed = || norms.iter().copied().filter(|norm| *norm > 0.0);
    let (least, most) = (directed().fold(f32::MAX, f32::min), directed().fold(f32::MIN, f32::max));
    let mut says = String::new();
    if sae.architecture() == Architecture::TopK && most > least * (1.0 + SAME_NORM) {
        says += "; its decoder rows had different norms and are scaled to norm 1, so topk may select other latents";
    }
    match norms.len() - directed().count() {
        0 => says,
        n => says + &format!("; {n} latents without a direction get new random ones"),
    }
}

/// The requirement for a run of `resolved` that `sae` does not meet, as (expected, found); `None` if it fits.
fn misfit(sae: &Sae, resolved: &Resolved) -> Option<(String, String)> {
    let trained = resolved.config.architecture;
    let shape = |d_in: usize, d_out: usize, d_sae: usize| match d_in == d_out {
        true => format!("d_in {d_in}, d_sae {d_sae}"),
        false => format!("d_in {d_in}, d_out {d_out}, d_sae {d_sae}"),
    };
    let here = shape(resolved.d_in, resolved.d_out, resolved.d_sae);
    let there = shape(sae.d_in(), sae.d_out(), sae.d_sae());
    let kind = kind_of(sae);
    let (reads, here_reads) = (&sae.config().hook_points, &resolved.hook_points);
    if !kinds_for(trained).contains(&kind.as_str()) {
        Some((
            format!("one of {}, to continue as {trained}", kinds_for(trained).join(", ")),
            format!("{kind}, {there},"),
        ))
    } else if here != there {
        let see = if sae.d_sae() == resolved.d_sae { "" } else { " (see `d_sae`)" };
        Some((format!("an SAE of {here}{see}"), there))
    } else if let (HookPoints::Crosscoder(here), HookPoints::Crosscoder(there)) = (here_reads, reads)
        && let Some(misfit) = misfit_of_columns(here, there)
    {
        Some(misfit)
    } else if sae.config().input_norm != InputNorm::None {
        Some(("an SAE of raw activations".into(), format!("one that normalizes them ({:?})", sae.config().input_norm)))
    } else if sae.has_skip() && !(trained == TrainArchitecture::Transcoder && resolved.config.skip) {
        Some((
            "an SAE without a skip connection, or a config with `architecture` transcoder and `skip`".into(),
            "one with a skip connection".into(),
        ))
    } else {
        None
    }
}

/// The same for the hook points of two crosscoders.
fn misfit_of_columns(here: &[(HookPoint, usize)], there: &[(HookPoint, usize)]) -> Option<(String, String)> {
    let points = |columns: &[(HookPoint, usize)]| columns.iter().map(|(point, _)| *point).collect::<Vec<_>>();
    let widths = |columns: &[(HookPoint, usize)]| columns.iter().map(|(_, width)| *width).collect::<Vec<_>>();
    let is_reordered = points(here) != points(there) && points(here).iter().all(|point| points(there).contains(point));
    if is_reordered {
        let names = |columns| points(columns).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Some((format!("the hook points in the order {}", names(here)), names(there)));
    }
    let differ = widths(here) != widths(there);
    differ.then(|| {
        let say = |columns| format!("hook points of {:?} values", widths(columns));
        (say(here), say(there))
    })
}

/// The kind of a finished SAE, for messages.
fn kind_of(sae: &Sae) -> String {
    let architecture = sae.architecture();
    match sae.config().hook_points {
        HookPoints::Autoencoder(_) => architecture.to_string(),
        HookPoints::Transcoder { .. } => format!("{architecture} transcoder"),
        HookPoints::Crosscoder(_) => format!("{architecture} crosscoder"),
    }
}

/// The kinds of SAE that have every parameter of an architecture. Thresholds of `jumprelu` are not needed if k selects
/// the latents.
fn kinds_for(trained: TrainArchitecture) -> &'static [&'static str] {
    match trained {
        TrainArchitecture::TopK | TrainArchitecture::BatchTopK | TrainArchitecture::Matryoshka => {
            &["topk", "jumprelu", "standard"]
        }
        TrainArchitecture::JumpRelu => &["jumprelu", "standard"],
        TrainArchitecture::Relu => &["standard"],
        TrainArchitecture::Gated => &["gated"],
        TrainArchitecture::Dense => &["dense"],
        TrainArchitecture::Transcoder => &["topk transcoder", "jumprelu transcoder", "standard transcoder"],
        TrainArchitecture::Crosscoder => &["topk crosscoder", "jumprelu crosscoder", "standard crosscoder"],
    }
}

/// The weights of `sae` in training units. `sae` has passed [`check_fits`].
pub(crate) fn of(sae: Sae, standard: &Standard, resolved: &Resolved) -> Weights {
    let trained = resolved.config.architecture;
    let sae = if trained.maps_one_column() { sae.applying_b_dec(true).into_owned() } else { sae };
    let step_config = resolved.step_config();
    // Gives shapes, constants, and rows for latents without a direction.
    let drawn = architecture::of(&step_config).start(resolved.d_sae, standard.mean.clone(), resolved.config.seed);
    let thresholds = sae.nonlinearity().thresholds(resolved.d_sae);
    let (_, SaeWeights { w_enc, b_enc, nonlinearity, w_dec, b_dec, w_skip }) = sae.into_parts();
    let (r_mag, b_mag) = match nonlinearity {
        Nonlinearity::Gated { r_mag, b_mag } => (Some(r_mag), Some(b_mag)),
        _ => (None, None),
    };
    let mut own = [(THRESHOLD, thresholds), (R_MAG, r_mag), (B_MAG, b_mag), (W_SKIP, w_skip)];
    let mut find = |name: &str| own.iter_mut().find(|(of, _)| *of == name).and_then(|(_, values)| values.take());
    let own_or_drawn = |parameter: &Parameter| Parameter {
        name: parameter.name,
        values: find(parameter.name).unwrap_or_else(|| parameter.values.clone()),
        lr_scale: parameter.lr_scale,
    };
    let extra = drawn.extra.iter().map(own_or_drawn).collect();
    let mut weights = Weights { w_enc, b_enc, w_dec, b_dec, extra, ..drawn.clone() };
    match (trained, &standard.scales[..]) {
        (TrainArchitecture::Transcoder, &[s_in, s_out]) => {
            multiply(&mut weights.w_enc, s_out / s_in);
            multiply(weights.extra_mut(W_SKIP), s_out / s_in);
            multiply_outputs(&mut weights, s_out);
            unfold_b_in(&mut weights);
        }
        (TrainArchitecture::Crosscoder, scales) => {
            let Weights { w_enc, w_dec, b_dec, blocks, .. } = &mut weights;
            scale_columns(blocks, scales, &mut [w_dec, b_dec], &mut [w_enc]);
        }
        (_, scales) => multiply_outputs(&mut weights, scales[0]),
    }
    normalize_latents(&mut weights, &drawn);
    weights
}

/// Multiplies activations and reconstructions by `scale`.
fn multiply_outputs(weights: &mut Weights, scale: f32) {
    multiply(&mut weights.b_enc, scale);
    multiply(&mut weights.b_dec, scale);
    [THRESHOLD, B_MAG].into_iter().for_each(|name| multiply(weights.extra_mut(name), scale));
}

/// Takes the `b_in` that is subtracted from a transcoder's input out of the biases again: the inverse of `export`'s
/// `fold_b_in`.
fn unfold_b_in(weights: &mut Weights) {
    let Some(b_in) = weights.b_in.take() else { return };
    add_product(&mut weights.b_enc, &weights.w_enc, &b_in, 1.0);
    if let Some(w_skip) = weights.extra.iter().find(|parameter| parameter.name == W_SKIP) {
        add_product(&mut weights.b_dec, &w_skip.values, &b_in, 1.0);
    }
    weights.b_in = Some(b_in);
}

/// Scales every decoder row to norm 1, and takes zero rows from `drawn`.
fn normalize_latents(weights: &mut Weights, drawn: &Weights) {
    let (d_in, d_out) = (weights.d_in, weights.d_out);
    let thresholds = weights.extra(THRESHOLD).unwrap_or_default();
    let usual_threshold = thresholds.iter().sum::<f32>() / thresholds.len().max(1) as f32;
    for latent in 0..weights.d_sae {
        let w_dec = &mut weights.w_dec[latent * d_out..][..d_out];
        let norm = norm_of_blocks(w_dec, &weights.blocks);
        let w_enc = &mut weights.w_enc[latent * d_in..][..d_in];
        let directed = norm > 0.0;
        if directed {
            normalize(w_dec, &weights.blocks);
            multiply(w_enc, norm);
            weights.b_enc[latent] *= norm;
        } else {
            w_dec.copy_from_slice(drawn.decoder_row(latent));
            w_enc.copy_from_slice(drawn.encoder_row(latent));
            weights.b_enc[latent] = 0.0;
        }
        for Parameter { name, values, .. } in &mut weights.extra {
            match *name {
                THRESHOLD if !directed => values[latent] = usual_threshold,
                R_MAG | B_MAG if !directed => values[latent] = 0.0,
                THRESHOLD | B_MAG => values[latent] *= norm,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
