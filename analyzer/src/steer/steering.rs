//! [`Steering`]: edits with what they need besides the workbench, opened once: other SAEs, and what was measured of the
//! latents. It gives the hooks of any number of texts.

use std::path::Path;

use harvester::{Error as Harvester, LanguageModel, Silent};

use super::{compile::SteeredSae, intervention::SteerEdit, interventions::Interventions, strength::LatentScales};
use crate::{FeatureIndex, PlacedSae, Result, Workbench};

/// Edits, ready to make hooks.
#[derive(Debug, Clone)]
pub struct Steering {
    edits: Vec<SteerEdit>,
    /// SAEs that edits name, except that of the workbench.
    others: Vec<(String, PlacedSae)>,
    scales: Option<LatentScales>,
}

impl Steering {
    /// Opens the SAEs that `edits` name. `index`: what is known of the workbench's SAE, for strengths in `max` and `kl`.
    ///
    /// # Errors
    /// An SAE that refract did not train, or one of another model; an index of another SAE.
    pub fn open(bench: &Workbench, edits: Vec<SteerEdit>, index: Option<&FeatureIndex>) -> Result<Self> {
        let names = edits.iter().flat_map(SteerEdit::sae_names).collect();
        Self::open_with(bench, edits, names, index)
    }

    /// The same with the SAEs that a guard needs. There may be no edits.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn open_with(
        bench: &Workbench,
        edits: Vec<SteerEdit>,
        names: Vec<String>,
        index: Option<&FeatureIndex>,
    ) -> Result<Self> {
        let scales = index.map(|index| index.check_sae(bench.sae()).and_then(|()| LatentScales::of(index)));
        let mut steering = Self { edits: vec![], others: vec![], scales: scales.transpose()? };
        for name in names {
            if name == own_name(bench) || steering.others.iter().any(|(other, _)| *other == name) {
                continue;
            }
            let sae = PlacedSae::trained(Path::new(&name))?;
            if sae.model.sha256 != bench.sae().model.sha256 {
                let expected = format!("an SAE of {}, as {} is", bench.sae().model.source, own_name(bench));
                return Err(Harvester::invalid(format!("SAE {name}"), expected, &*sae.model.source).into());
            }
            steering.others.push((name, sae));
        }
        Ok(Self { edits, ..steering })
    }

    /// Takes the edit of a text in the place of all present ones.
    ///
    /// # Errors
    /// A text that is no edit; or as [`Self::open`]. The present edits then stay.
    pub fn replace(&mut self, edit: &str, bench: &Workbench, index: Option<&FeatureIndex>) -> Result<()> {
        let new = Self::open(bench, vec![edit.parse()?], index)?;
        new.hook(bench, bench.model(&Silent)?)?; // refuses what cannot be done
        *self = new;
        Ok(())
    }

    /// The edits, in their order.
    pub fn edits(&self) -> &[SteerEdit] {
        &self.edits
    }

    /// The same with every strength multiplied.
    ///
    /// # Errors
    /// Edits without a strength.
    pub(super) fn times(&self, factor: f32) -> Result<Self> {
        let scaled: Vec<_> = self.edits.iter().map(|edit| (edit, edit.what.times(factor))).collect();
        if scaled.iter().all(|(_, what)| what.is_none()) {
            let found = self.edits.iter().map(|edit| edit.what.to_string()).collect::<Vec<_>>().join(", ");
            return Err(Harvester::invalid("`sweep`", "an edit with a strength to multiply", found).into());
        }
        let edit = |(edit, what): (&SteerEdit, Option<_>)| SteerEdit {
            what: what.unwrap_or_else(|| edit.what.clone()),
            scope: edit.scope.clone(),
        };
        Ok(Self { edits: scaled.into_iter().map(edit).collect(), ..self.clone() })
    }

    /// The latents of the workbench's own SAE that are edited, or whose directions are.
    pub(super) fn own_latents(&self, bench: &Workbench) -> Vec<u32> {
        let own = own_name(bench);
        let is_own = |edit: &&SteerEdit| edit.scope.sae.as_ref().is_none_or(|name| *name == own);
        self.edits.iter().filter(is_own).filter_map(|edit| edit.what.of_latent()).collect()
    }

    /// Strengths to begin with for each edited latent of the workbench's SAE, if an index was given.
    pub(super) fn suggestions(&self, bench: &Workbench) -> Vec<String> {
        let Some(scales) = &self.scales else { return vec![] };
        self.own_latents(bench).into_iter().filter_map(|latent| scales.suggestion(latent)).collect()
    }

    /// A hook that applies the edits to any texts.
    ///
    /// # Errors
    /// As [`Interventions::new`].
    pub fn hook<'a>(&'a self, bench: &'a Workbench, model: &LanguageModel) -> Result<Interventions<'a>> {
        Interventions::new(model, &self.saes(bench), &self.edits)
    }

    /// The SAE of the workbench, and the others that were opened.
    pub(crate) fn saes<'a>(&'a self, bench: &'a Workbench) -> Vec<SteeredSae<'a>> {
        let of = |name: String, sae: &'a PlacedSae, scales: Option<&'a LatentScales>| SteeredSae {
            name,
            site: sae.site(),
            sha256: Some(&sae.sha256),
            scales,
        };
        let own = of(own_name(bench), bench.sae(), self.scales.as_ref());
        let others = self.others.iter();
        let others = others.map(|(name, sae)| of(name.clone(), sae, None));
        [own].into_iter().chain(others).collect()
    }
}

/// The name by which edits refer to the SAE of a workbench: its path.
fn own_name(bench: &Workbench) -> String {
    bench.sae().path.display().to_string()
}
