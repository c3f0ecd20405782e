//! [`PlacedSae`]: an SAE with its model and hook point. For an SAE trained by refract, they are in its manifest. For an
//! SAE of another tool, the model is that of the activations on which it is used, and the user gives the hook point if
//! the SAE does not name it.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use harvester::{
    ActivationDataset, ArtifactRef, Family, HarvestManifest, HookPoint, Manifest, ModelIdentity, SpecialToken,
};
use trainer::{HookPoints, InputNorm, Sae, SaeConfig, SaeFormat, SaeManifest};

use crate::{Result, SaeSite};

/// An SAE with its model and hook point.
#[derive(Debug, Clone)]
pub struct PlacedSae {
    /// Path of its folder or file.
    pub path: PathBuf,
    /// The SAE.
    pub sae: Sae,
    /// The hook point of its activations.
    pub hook_point: HookPoint,
    /// Rows with a larger norm are attention sinks.
    pub sink_norm: f32,
    /// The token before every context of its activations; `None` if that was not recorded.
    pub bos: Option<SpecialToken>,
    /// The model.
    pub model: ModelIdentity,
    /// SHA-256 of its manifest; for an SAE of another tool, the SHA-256 of each of its files, joined by `+`.
    pub sha256: String,
    /// Its manifest; `None` if another tool made it.
    pub manifest: Option<SaeManifest>,
}

impl PlacedSae {
    /// Opens an SAE that refract trained.
    ///
    /// # Errors
    /// A folder without a manifest, or one whose training is not done; an SAE of vectors that no model computed; a file
    /// that cannot be read.
    pub fn trained(dir: &Path) -> Result<Self> {
        let manifest = SaeManifest::finished(dir)?;
        let (model, hook_point) = manifest.site()?;
        Ok(Self {
            path: dir.to_path_buf(),
            sae: Sae::load(dir)?,
            hook_point,
            sink_norm: manifest.sink_norm,
            bos: manifest.bos,
            model: model.clone(),
            sha256: harvester::sha256_file(&dir.join(SaeManifest::FILE))?,
            manifest: Some(manifest),
        })
    }

    /// Opens an SAE of any tool, as one of the model of `dataset`.
    ///
    /// # Errors
    /// An unknown format; no hook point, or two different ones, from the SAE and the user; a hook point that the
    /// dataset does not have.
    pub fn on(path: &Path, dataset: &ActivationDataset, hook_point: Option<HookPoint>) -> Result<Self> {
        let sae = of_the_model(Sae::load(path)?, &dataset.manifest.model)?;
        warn_of_other_contexts(&sae, path, &dataset.manifest);
        let hook_point = place(&sae, hook_point)?;
        Ok(Self {
            path: path.to_path_buf(),
            sae,
            hook_point,
            sink_norm: dataset.manifest.hook_point(hook_point)?.sink_norm,
            bos: Some(dataset.manifest.config.bos),
            model: dataset.manifest.model.clone(),
            sha256: hash_of_foreign(path)?,
            manifest: None,
        })
    }

    /// Opens the SAE that a manifest in `folder` refers to, as `sae`. `foreign` completes one of another tool, whose files
    /// do not say where it belongs.
    ///
    /// # Errors
    /// When it is at no recorded place, or cannot be read.
    pub(crate) fn recorded(
        sae: &ArtifactRef,
        folder: &Path,
        foreign: impl FnOnce(PathBuf, Sae, String) -> Self,
    ) -> Result<Self> {
        let path = sae.open("the SAE", folder, |place| {
            let path = PathBuf::from(place.to_string());
            let manifest = path.join(SaeManifest::FILE);
            if manifest.is_file() {
                return Ok((Some(harvester::sha256_file(&manifest)?), path));
            }
            let hash = hash_of_foreign(&path).map_err(|error| {
                harvester::Error::malformed(&path, "the SAE", error.to_string(), "Put it back where it was")
            })?;
            Ok((Some(hash), path))
        })?;
        if path.join(SaeManifest::FILE).is_file() {
            return Self::trained(&path);
        }
        let loaded = Sae::load(&path)?;
        let mut placed = foreign(path, loaded, sae.sha256.as_deref().unwrap_or_default().into());
        placed.sae = of_the_model(placed.sae, &placed.model)?;
        Ok(placed)
    }

    /// Uses the SAE on another model, whose activations `dataset` are if it is given.
    ///
    /// # Errors
    /// When the other model's residual stream has another width, or `dataset` does not have the hook point.
    pub(crate) fn use_on(&mut self, model: ModelIdentity, dataset: Option<&ActivationDataset>) -> Result<()> {
        if model.sha256 == self.model.sha256 {
            return Ok(());
        }
        if model.d_model != self.model.d_model {
            let expected = format!("a model of d_model {}, as {} has", self.model.d_model, self.model.source);
            let found = format!("{}, of d_model {}", model.source, model.d_model);
            return Err(harvester::Error::invalid("`other_model`", expected, found).into());
        }
        tracing::warn!("{} was trained on {}, and is used on {}", self.path.display(), self.model.source, model.source);
        if let Some(dataset) = dataset {
            self.sink_norm = dataset.manifest.hook_point(self.hook_point)?.sink_norm;
        }
        self.model = model;
        Ok(())
    }

    /// Tokens per context of its activations, if they were recorded.
    pub fn ctx_len(&self) -> Option<usize> {
        self.sae.config().ctx_len
    }

    /// The token before every prompt: the one before the contexts of its activations, or none.
    pub(crate) fn prompt_bos(&self) -> SpecialToken {
        match (self.bos, self.sae.config().prepend_bos) {
            (Some(recorded), _) => recorded,
            (None, Some(true)) => SpecialToken::FromModel,
            (None, _) => SpecialToken::None,
        }
    }

    /// Checks that `dataset` is of the SAE's model: another model's activations mean something else, even if they have
    /// the same width.
    ///
    /// # Errors
    /// When it is of another model.
    pub fn check_model(&self, dataset: &ActivationDataset) -> Result<()> {
        let found = &dataset.manifest.model;
        if found.sha256 == self.model.sha256 {
            return Ok(());
        }
        let what = format!("model of the activations {}", &dataset.location);
        let name = |model: &ModelIdentity| format!("{} ({})", model.source, model.sha256);
        let expected = format!("{}, which the SAE {} belongs to", name(&self.model), self.path.display());
        let found = format!("{}. To use it on that model all the same: `other_model`", name(found));
        Err(harvester::Error::invalid(what, expected, found).into())
    }

    /// The contexts of `dataset` that training held out; `None` if the SAE was not trained on `dataset`, or its
    /// training data are unknown.
    ///
    /// # Errors
    /// When the manifest of `dataset` cannot be read.
    pub(crate) fn held_out(&self, dataset: &ActivationDataset) -> Result<Option<Range<u64>>> {
        let Some(manifest) = &self.manifest else { return Ok(None) };
        let Some(trained_on) = manifest.activations.sha256.as_deref() else { return Ok(None) };
        // An extended folder has the contexts of then, under the same numbers.
        let is_there = trained_on == dataset.manifest_sha256()?
            || trained_on == ActivationDataset::open_as(dataset.location.clone(), trained_on)?.manifest_sha256()?;
        Ok(is_there.then(|| manifest.held_out.clone()))
    }

    /// Checks that it reads one hook point, whose activations have `d_model` values.
    pub(crate) fn check_input(&self, d_model: usize) -> Result<()> {
        let hook_points = &self.sae.config().hook_points;
        if let HookPoints::Crosscoder(_) = hook_points {
            let expected = "one that reads one hook point";
            return Err(harvester::Error::invalid("SAE to encode with", expected, hook_points.to_string()).into());
        }
        let d_in = self.sae.d_in();
        if d_model == d_in {
            return Ok(());
        }
        let expected = format!("d_in {d_model}, the width of {}", self.hook_point);
        Err(harvester::Error::invalid(format!("SAE {}", self.path.display()), expected, d_in.to_string()).into())
    }

    /// The part that evaluation and steering need.
    pub fn site(&self) -> SaeSite<'_> {
        SaeSite { sae: &self.sae, hook_point: self.hook_point, sink_norm: self.sink_norm }
    }
}

/// The SHA-256 of each file of an SAE of another tool, joined by `+`.
fn hash_of_foreign(path: &Path) -> Result<String> {
    let hashes: Vec<String> =
        SaeFormat::files_of(path)?.iter().map(|file| harvester::sha256_file(file)).collect::<Result<_, _>>()?;
    Ok(hashes.join("+"))
}

/// True if its norms take off the mean of a row, so that the mean has no effect on what the model computes.
fn has_layer_norms(family: Family) -> bool {
    match family {
        Family::Gpt2 | Family::GptNeox => true,
        Family::Llama
        | Family::Mistral
        | Family::Qwen2
        | Family::Qwen3
        | Family::Gemma
        | Family::Gemma2
        | Family::Gemma3
        | Family::Phi3
        | Family::Olmo2 => false,
    }
}

/// The SAE for this model: TransformerLens centers only the weights of models with layer norms, so an SAE of another
/// model that asks for it was trained on activations as they are.
fn of_the_model(sae: Sae, model: &ModelIdentity) -> Result<Sae> {
    if sae.config().input_norm != InputNorm::Centered || has_layer_norms(model.family) {
        return Ok(sae);
    }
    tracing::warn!("`center_writing_weights` has no effect on a {} model, which has no layer norms", model.family);
    let (mut config, weights) = sae.into_parts();
    config.input_norm = InputNorm::None;
    Ok(Sae::new(config, weights)?)
}

/// Warns if the SAE was trained on contexts that are not like those of the activations.
fn warn_of_other_contexts(sae: &Sae, path: &Path, activations: &HarvestManifest) {
    let SaeConfig { prepend_bos, ctx_len, .. } = *sae.config();
    let (with_bos, len) = (activations.config.bos != SpecialToken::None, activations.config.ctx_len);
    let begins = |with: bool| if with { "with a BOS token" } else { "without a BOS token" };
    if let Some(trained) = prepend_bos.filter(|trained| *trained != with_bos) {
        tracing::warn!(
            "{}: trained on contexts that begin {} (`prepend_bos`), and those of the activations begin {}: harvest them \
             with the other `bos`",
            path.display(),
            begins(trained),
            begins(with_bos)
        );
    }
    if let Some(trained) = ctx_len.filter(|trained| *trained < len) {
        tracing::warn!(
            "{}: trained on contexts of {trained} tokens (`context_size`), and those of the activations have {len}: it \
             has not seen the positions after {trained}",
            path.display()
        );
    }
}

/// The hook point that the SAE names, or else the one that the user gives.
fn place(sae: &Sae, given: Option<HookPoint>) -> Result<HookPoint> {
    let hook_points = &sae.config().hook_points;
    match (hook_points.reads().first().copied(), given) {
        (None, Some(given)) => Ok(given),
        (Some(said), Some(given)) if said != given => {
            let expected = format!("{said}, which the SAE names itself, or no `hook_point`");
            Err(harvester::Error::invalid("`hook_point`", expected, given.to_string()).into())
        }
        _ => Ok(hook_points.first_read()?),
    }
}
