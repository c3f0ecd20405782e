//! [`explain`]: which latents fire on each token of a text, and which of them matter for the next token, by exact
//! ablation: the model continues without the latent, and the two distributions of the next token are compared.
//!
//! ```text
//! effect_j = log p(t | x) - log p(t | x - s f_j W_dec[j])       t: the target token; s: as in steering
//! error    = log p(t | x) - log p(t | x_hat)                    the part of x that the SAE does not explain
//! all      = log p(t | x) - log p(t | x - s sum_j f_j W_dec[j])
//! direct_j = s f_j (w_final * W_dec[j]) . W_U[t] / norm(x_final)    without the layers above, with the final norm held
//! ```
//! A positive effect supports the target. Effects do not add up: `sum_j effect_j - all` is their interaction.

mod page;
mod passes;

use harvester::{LanguageModel, Monitor, SpecialToken, human};
use serde::{Deserialize, Serialize};

use self::passes::{Edited, Passes};
use crate::{ActiveLatent, FeatureIndex, Listed, Result, TokenLatents, TokenWeight, Workbench, token_weight::top};

/// How the effect of a latent is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The model runs without the latent.
    #[default]
    Ablation,
    /// The latent's direction is read off the head: free, but it ignores the layers above.
    Direct,
}

/// Settings of [`explain`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExplainConfig {
    /// The token whose log probability is explained. Default: the model's own next token.
    pub token: Option<String>,
    /// How effects are found. Default: ablation.
    pub method: Method,
    /// Latents listed for each token, strongest first. Default 3.
    pub per_token: usize,
    /// Latents listed that matter for the next token. Default 10.
    pub top: usize,
    /// Latents that fire on a larger share of the index's tokens are not listed; without an index, all are. Default
    /// 0.05.
    pub max_density: f64,
    /// Latents tried on the whole text, those that write most. 0: none. Default 64.
    pub whole_text: usize,
    /// Latents measured even if they are silent.
    pub latents: Vec<u32>,
}

impl Default for ExplainConfig {
    fn default() -> Self {
        let latents = vec![];
        Self {
            token: None,
            method: Method::Ablation,
            per_token: 3,
            top: 10,
            max_density: 0.05,
            whole_text: 64,
            latents,
        }
    }
}

/// Positions at which a latent of the whole text is also ablated alone.
const POSITIONS: usize = 4;

/// Tokens listed for a latent and for the text.
const TOKENS: usize = 3;

/// The latents of a text, and their part in its next token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The tokens of the text, each with its strongest latents.
    pub tokens: Vec<TokenLatents>,
    /// The target, with its probability.
    pub target: TokenWeight,
    /// The likeliest next tokens, with their probabilities.
    pub next: Vec<TokenWeight>,
    /// How effects were found.
    pub method: Method,
    /// The latents that are active on the last token, largest effect first.
    pub latents: Vec<LatentEffect>,
    /// Number of latents that are active on the last token, also of those that are not listed.
    pub n_active: usize,
    /// Number of those that are too dense to be listed.
    pub n_dense: usize,
    /// The sum of their effects.
    pub sum: f64,
    /// The effect of all of them at once.
    pub all: PartEffect,
    /// The effect of what the SAE does not explain; `None` if effects are direct.
    pub error: Option<PartEffect>,
    /// Latents ablated on every token at once, largest effect first.
    pub whole_text: Vec<WholeTextEffect>,
    /// Number of latents that were tried on the whole text, and of those that are active in it.
    pub whole_text_tried: (usize, usize),
}

/// The effect of some part of the activation on the next token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct PartEffect {
    /// Log probability of the target with the part minus without it; for a direct effect, its logit.
    pub effect: f64,
    /// KL divergence of the next token without the part from that with it, in nats; `None` for a direct effect.
    pub kl: Option<f64>,
}

/// The effect of a latent on the last token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LatentEffect {
    /// The latent on the last token.
    #[serde(flatten)]
    pub active: ActiveLatent,
    /// Its effect.
    #[serde(flatten)]
    pub effect: PartEffect,
    /// The tokens whose probability falls most without it, with that difference.
    pub supports: Vec<TokenWeight>,
}

/// The effect of a latent on the whole text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WholeTextEffect {
    /// The latent, with its largest activation.
    #[serde(flatten)]
    pub active: ActiveLatent,
    /// Its effect, ablated on every token.
    #[serde(flatten)]
    pub effect: PartEffect,
    /// Its strongest positions, each with the effect of ablating it only there.
    pub positions: Vec<(usize, f64)>,
}

/// Explains the next token of a text.
///
/// # Errors
/// A text of fewer than two tokens; a target that is not one token; an index of another SAE; an SAE that does not write
/// where or after it reads; a model that cannot be read; or the monitor stops it.
pub fn explain(
    bench: &Workbench,
    text: &str,
    index: Option<&FeatureIndex>,
    config: &ExplainConfig,
    monitor: &dyn Monitor,
) -> Result<Explanation> {
    let listed = Listed::new(bench, index, config.max_density)?;
    let d_sae = bench.sae().sae.d_sae();
    if let Some(latent) = config.latents.iter().find(|latent| **latent as usize >= d_sae) {
        return Err(harvester::Error::invalid("latent", format!("below {d_sae}"), latent.to_string()).into());
    }
    let model = bench.model(monitor)?;
    let target = config.token.as_ref().map(|token| one_token(model, token)).transpose()?;
    let passes = Passes::new(model, bench.sae().site(), bench.prompt(text, monitor)?, target)?;
    Explainer { model, listed, config, passes }.explain(monitor)
}

/// The token that a text is.
fn one_token(model: &LanguageModel, text: &str) -> Result<u32> {
    match model.tokenizer().prompt(SpecialToken::None, text)?[..] {
        [token] => Ok(token),
        ref several => {
            let texts =
                model.tokenizer().token_texts(several).iter().map(|text| format!("{text:?}")).collect::<Vec<_>>();
            let found =
                format!("{text:?}, which is {} ({})", human::counted(several.len() as u64, "token"), texts.join(" "));
            let expected = "one token, with the space before it if it begins a word";
            Err(harvester::Error::invalid("`token`", expected, found).into())
        }
    }
}

struct Explainer<'a> {
    model: &'a LanguageModel,
    listed: Listed,
    config: &'a ExplainConfig,
    passes: Passes<'a>,
}

impl Explainer<'_> {
    /// True if a latent is listed: it is not dense, or it was asked for.
    fn has(&self, latent: u32) -> bool {
        self.config.latents.contains(&latent) || self.listed.has(latent)
    }

    fn explain(mut self, monitor: &dyn Monitor) -> Result<Explanation> {
        let (mut latents, all, error) = match self.config.method {
            Method::Ablation => self.ablated()?,
            Method::Direct => self.direct()?,
        };
        let sum = latents.iter().map(|it| it.effect.effect).sum();
        let n_active = latents.iter().filter(|it| it.active.activation != 0.0).count();
        let n_measured = latents.len();
        latents.retain(|it| self.has(it.active.latent));
        let n_dense = n_measured - latents.len();
        latents.sort_by(|a, b| b.effect.effect.abs().total_cmp(&a.effect.effect.abs()));
        let (asked, others): (Vec<_>, Vec<_>) =
            latents.into_iter().partition(|it| self.config.latents.contains(&it.active.latent));
        let latents = asked.into_iter().chain(others.into_iter().take(self.config.top)).collect();
        let (whole_text, whole_text_tried) = self.whole_text(monitor)?;
        let p = self.passes.reference.p();
        let next = top((0..).zip(p.iter().copied()), TOKENS);
        Ok(Explanation {
            tokens: self.tokens(),
            target: weighted(self.model, (self.passes.target, p[self.passes.target as usize])),
            next: next.into_iter().map(|it| weighted(self.model, it)).collect(),
            method: self.config.method,
            latents,
            n_active,
            n_dense,
            sum,
            all,
            error,
            whole_text,
            whole_text_tried,
        })
    }

    /// The tokens of the text with their latents.
    fn tokens(&self) -> Vec<TokenLatents> {
        let Passes { tokens, ordinary, .. } = &self.passes;
        let of_token = |(position, &token): (usize, &u32)| {
            let active = self.passes.active(position).filter(|(latent, _)| self.has(*latent));
            TokenLatents {
                position,
                token,
                text: self.model.tokenizer().token_text(token),
                ordinary: ordinary[position],
                latents: self.listed.strongest(active, self.config.per_token),
            }
        };
        tokens.iter().enumerate().map(of_token).collect()
    }

    /// The latents of the last token, and those that were asked for.
    fn here(&self) -> Vec<(u32, f32)> {
        let mut here: Vec<(u32, f32)> = self.passes.active(self.passes.last()).collect();
        let silent = self.config.latents.iter().filter(|latent| !here.iter().any(|(active, _)| active == *latent));
        let silent: Vec<(u32, f32)> = silent.map(|latent| (*latent, 0.0)).collect();
        here.extend(silent);
        here
    }

    /// Effects on the last token: of each latent, of all of them, and of what the SAE does not explain.
    fn ablated(&mut self) -> Result<(Vec<LatentEffect>, PartEffect, Option<PartEffect>)> {
        let here = self.here();
        let mut edits: Vec<Edited> = here.iter().map(|(latent, _)| Edited::Without(vec![*latent])).collect();
        edits.extend([Edited::Without(here.iter().map(|(latent, _)| *latent).collect()), Edited::Reconstructed]);
        let (model, listed) = (self.model, &self.listed);
        let mut found = self.passes.of_last_token(&edits, |passes, q| {
            let before = passes.reference.p().iter();
            let falls = before.zip(q.logits).map(|(p, logit)| p - (f64::from(*logit) - q.log_sum).exp() as f32);
            let supports = top((0..).zip(falls), TOKENS).into_iter().filter(|(_, fall)| *fall > 0.0);
            (passes.effect(q), supports.map(|it| weighted(model, it)).collect::<Vec<_>>())
        })?;
        let (error, all) = (found.pop().map(|it| it.0), found.pop().map(|it| it.0));
        let latents = here.into_iter().zip(found).map(|((latent, f), (effect, supports))| LatentEffect {
            active: listed.named(latent, f),
            effect,
            supports,
        });
        Ok((latents.collect(), all.unwrap_or_default(), error))
    }

    /// Direct effects on the target's logit.
    fn direct(&self) -> Result<(Vec<LatentEffect>, PartEffect, Option<PartEffect>)> {
        let here = self.here();
        let effects = self.passes.direct(&here)?;
        let all = PartEffect { effect: effects.iter().sum(), kl: None };
        let latent = |((latent, f), effect): ((u32, f32), f64)| {
            let effect = PartEffect { effect, kl: None };
            LatentEffect { active: self.listed.named(latent, f), effect, supports: vec![] }
        };
        Ok((here.into_iter().zip(effects).map(latent).collect(), all, None))
    }

    /// Effects of the latents that write most, each ablated on every token at once; and how many were tried, of how
    /// many.
    fn whole_text(&mut self, monitor: &dyn Monitor) -> Result<(Vec<WholeTextEffect>, (usize, usize))> {
        if self.config.method == Method::Direct || self.config.whole_text == 0 {
            return Ok((vec![], (0, 0)));
        }
        let mut strongest = self.passes.strongest();
        strongest.retain(|(latent, _)| self.has(*latent));
        let n_active = strongest.len();
        strongest.truncate(self.config.whole_text);
        let everywhere: Vec<(u32, Option<usize>)> = strongest.iter().map(|(latent, _)| (*latent, None)).collect();
        monitor.start("ablating on the whole text", everywhere.len() as u64, "latents");
        let effects = self.passes.of_whole_text(&everywhere, monitor)?;
        monitor.finish();
        let mut found: Vec<(u32, PartEffect)> = everywhere.iter().map(|it| it.0).zip(effects).collect();
        found.sort_by(|a, b| b.1.effect.abs().total_cmp(&a.1.effect.abs()));
        found.truncate(self.config.top);
        let places: Vec<(u32, Option<usize>)> = found
            .iter()
            .flat_map(|(latent, _)| self.passes.peaks(*latent, POSITIONS).into_iter().map(|it| (*latent, Some(it.0))))
            .collect();
        let alone = self.passes.of_whole_text(&places, monitor)?;
        let of_latent = |(latent, effect): (u32, PartEffect)| {
            let here = places.iter().zip(&alone).filter(|((of, _), _)| *of == latent);
            let mut positions: Vec<(usize, f64)> = here.filter_map(|((_, at), it)| Some(((*at)?, it.effect))).collect();
            positions.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
            let largest = self.passes.peaks(latent, 1).first().map_or(0.0, |it| it.1);
            WholeTextEffect { active: self.listed.named(latent, largest), effect, positions }
        };
        let tried = strongest.len();
        Ok((found.into_iter().map(of_latent).collect(), (tried, n_active)))
    }
}

fn weighted(model: &LanguageModel, (token, weight): (u32, f32)) -> TokenWeight {
    TokenWeight { token, text: model.tokenizer().token_text(token), weight }
}
