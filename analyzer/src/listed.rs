//! [`TokenLatents`]: a token of a text with its strongest latents, as commands list it, and [`Listed`], which latents
//! those are.

use std::fmt::{Display, Formatter};

use harvester::LanguageModel;
use serde::Serialize;

use crate::{EncodedRows, FeatureIndex, Result, Workbench};

/// Refuses a largest density at which no latent could be listed, or that is no share.
pub(crate) fn check_density(max_density: f64) -> Result<()> {
    if max_density > 0.0 && max_density <= 1.0 {
        return Ok(());
    }
    Err(harvester::Error::invalid("`max_density`", "a share above 0 and at most 1", max_density.to_string()).into())
}

/// A token of a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenLatents {
    /// Its position in its context.
    pub position: usize,
    /// Token id.
    pub token: u32,
    /// Its text.
    pub text: String,
    /// False for the tokens on which no SAE is trained, position 0 and attention sinks.
    pub ordinary: bool,
    /// Its strongest latents.
    pub latents: Vec<ActiveLatent>,
}

/// A latent that is active on a token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ActiveLatent {
    /// The latent.
    pub latent: u32,
    /// Its activation.
    pub activation: f32,
    /// Its label in the index; `None` without an index.
    pub label: Option<String>,
    /// F1 of the label; `None` without a label.
    pub f1: Option<f32>,
}

/// A line of at most 80 columns with three latents.
impl Display for TokenLatents {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let latent = |it: &ActiveLatent| match &it.label {
            Some(label) => cell(&format!("{:>5} {label}", it.latent), 19),
            None => format!("{:>6} ({:.1}) ", it.latent, it.activation),
        };
        let latents = match (self.position, self.ordinary) {
            (0, _) => "- (position 0: the SAE is not trained on it)".into(),
            (_, false) => "- (an attention sink: the SAE is not trained on it)".into(),
            _ => self.latents.iter().map(latent).collect::<Vec<_>>().join(" "),
        };
        let line = format!("{:4} {}{latents}", self.position, cell(&format!("{:?}", self.text), 15));
        f.write_str(line.trim_end())
    }
}

/// At most `width` characters, the last of which says that there were more.
fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_string(),
    }
}

/// A column of `width` characters, the last one a space.
pub(crate) fn cell(text: &str, width: usize) -> String {
    format!("{:width$}", cut(text, width - 1))
}

/// The latents that a command lists, and their labels.
#[derive(Debug)]
pub struct Listed {
    /// Density of each latent; empty without an index.
    density: Vec<f64>,
    /// Label of each latent, with its F1; `None` without an index.
    labels: Option<Vec<(String, f32)>>,
    max_density: f64,
}

impl Listed {
    /// The latents that fire on at most `max_density` of the index's tokens; without an index, all.
    ///
    /// # Errors
    /// A density that is no share above 0; an index of another SAE, or a damaged one.
    pub fn new(bench: &Workbench, index: Option<&FeatureIndex>, max_density: f64) -> Result<Self> {
        check_density(max_density)?;
        let Some(index) = index else { return Ok(Self { density: vec![], labels: None, max_density }) };
        index.check_sae(bench.sae())?;
        let density: Vec<f64> = index.column("density")?;
        let name = |(label, density): (crate::Label, &f64)| match *density {
            0.0 => ("not in the index".into(), 0.0),
            _ => (label.short(), label.f1),
        };
        let labels = index.labels()?.into_iter().zip(&density).map(name).collect();
        Ok(Self { density, labels: Some(labels), max_density })
    }

    /// True if a latent is listed.
    pub(crate) fn has(&self, latent: u32) -> bool {
        self.density.get(latent as usize).is_none_or(|density| *density <= self.max_density)
    }

    /// An active latent with its label.
    pub(crate) fn named(&self, latent: u32, activation: f32) -> ActiveLatent {
        let label = self.labels.as_ref().and_then(|labels| labels.get(latent as usize).cloned());
        let (label, f1) = label.unzip();
        ActiveLatent { latent, activation, label, f1: f1.filter(|f1| *f1 > 0.0) }
    }

    /// The `n` strongest of some active latents.
    pub(crate) fn strongest(&self, active: impl Iterator<Item = (u32, f32)>, n: usize) -> Vec<ActiveLatent> {
        let mut active: Vec<(u32, f32)> = active.collect();
        active.sort_by(|a, b| b.1.total_cmp(&a.1));
        active.into_iter().take(n).map(|(latent, f)| self.named(latent, f)).collect()
    }

    /// Each token of some encoded rows with its `n` strongest latents.
    pub fn tokens(&self, encoded: &EncodedRows, model: &LanguageModel, n: usize) -> Vec<TokenLatents> {
        let token = |row: usize| {
            let (latents, values) = encoded.acts.row(row);
            let active = latents.iter().copied().zip(values.iter().copied());
            TokenLatents {
                position: encoded.rows.position[row] as usize,
                token: encoded.rows.token[row],
                text: model.tokenizer().token_text(encoded.rows.token[row]),
                ordinary: encoded.ordinary[row],
                latents: self.strongest(active.filter(|(latent, _)| self.has(*latent)), n),
            }
        };
        (0..encoded.len()).map(token).collect()
    }
}
