//! [`shift`]: how strongly interventions change the model's next-token distribution on a given text.
//!
//! ```text
//! KL          = sum_t p(t) log(p(t) / q(t))          p without and q with the interventions, in nats
//! perplexity  = exp(- mean log p(t))                 t the tokens that were written
//! ```

use harvester::{Batch, LanguageModel};
use rayon::prelude::*;
use serde::Serialize;

use super::{interventions::Interventions, step::LatentMax};
use crate::{
    Result,
    next_token::{kl, log_probs},
};

/// Number of positions whose logits are computed together.
const BLOCK: usize = 32;

/// The effect of interventions on a prompt, and on a text that continues it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shift {
    /// KL divergence after the last token of the prompt, in nats.
    pub kl_next: f64,
    /// Mean KL divergence over all positions of the prompt, in nats.
    pub kl_mean: f64,
    /// Mean KL divergence over the positions of the text after the prompt, in nats; `None` if there are none.
    pub kl_written: Option<f64>,
    /// The edited latents, with their largest activations on prompt and text before the edit.
    pub latents: Vec<LatentMax>,
    /// The tokens whose probability after the prompt changes most, largest change first.
    pub moved: Vec<MovedToken>,
    /// The tokens after the prompt.
    pub written: Vec<TokenShift>,
}

/// A token of a text, and how far the edits move the distribution from which it was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenShift {
    /// Its text.
    pub text: String,
    /// KL divergence of the distribution, in nats.
    pub kl: f64,
    /// Log probability of the token without and with the interventions.
    pub log_p: [f64; 2],
}

impl Shift {
    /// Perplexity of the text after the prompt without and with the interventions; `None` if there is none.
    pub fn perplexity(&self) -> Option<[f64; 2]> {
        let n = self.written.len();
        let mean = |side: usize| self.written.iter().map(|token| token.log_p[side]).sum::<f64>() / n as f64;
        (n > 0).then(|| [0, 1].map(|side| (-mean(side)).exp()))
    }
}

/// A token and its probability without and with the interventions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MovedToken {
    /// Token id.
    pub token: u32,
    /// Its text.
    pub text: String,
    /// Probability without the interventions.
    pub before: f64,
    /// Probability with the interventions.
    pub after: f64,
}

/// The shift that the edits of `hook` cause on `text`, of which the first `prompt_len` tokens are the prompt. One pass
/// runs it with and without the edits. `n_moved`: number of tokens in [`Shift::moved`].
///
/// # Errors
/// An empty prompt, or more text than fits in the model's context.
pub fn shift(
    model: &LanguageModel,
    hook: Interventions<'_>,
    text: &[u32],
    prompt_len: usize,
    n_moved: usize,
) -> Result<Shift> {
    if !(1..=text.len()).contains(&prompt_len) {
        let found = format!("{prompt_len}");
        return Err(harvester::Error::invalid("prompt", format!("1 to {} tokens", text.len()), found).into());
    }
    let mut hook = hook.with_prompt_len(prompt_len).beside_clean();
    let resid = model.resid_final(&Batch::of([text]), None, &mut hook)?;
    let resid = resid.reshape((2, text.len(), ()))?; // [2, pos, d_model]
    let (mut divergences, mut chosen) = (vec![], vec![]);
    let mut after_prompt = vec![];
    for start in (0..text.len()).step_by(BLOCK) {
        let len = BLOCK.min(text.len() - start);
        let log_probs = log_probs(model, &resid.narrow(1, start, len)?.flatten_to(1)?)?; // [2 * len][d_vocab]
        let (clean, edited) = log_probs.split_at(len);
        divergences.par_extend(clean.par_iter().zip(edited).map(|(p, q)| kl(p, q)));
        // The row of position t predicts token t + 1.
        for position in (start..start + len).filter(|position| (prompt_len..text.len()).contains(&(position + 1))) {
            let token = text[position + 1] as usize;
            chosen.push([clean, edited].map(|side| f64::from(side[position - start][token])));
        }
        if (start..start + len).contains(&(prompt_len - 1)) {
            let row = prompt_len - 1 - start;
            after_prompt = moved(model, &clean[row], &edited[row], n_moved);
        }
    }
    let mean = |divergences: &[f64]| divergences.iter().sum::<f64>() / divergences.len() as f64;
    let texts = model.tokenizer().token_texts(&text[prompt_len..]).into_iter();
    let written = texts.zip(chosen).zip(&divergences[prompt_len - 1..]);
    let written = written.map(|((text, log_p), kl)| TokenShift { text, kl: *kl, log_p }).collect();
    let (of_prompt, of_written) = divergences.split_at(prompt_len);
    Ok(Shift {
        kl_next: of_prompt[prompt_len - 1],
        kl_mean: mean(of_prompt),
        kl_written: (!of_written.is_empty()).then(|| mean(of_written)),
        latents: hook.seen(),
        moved: after_prompt,
        written,
    })
}

fn moved(model: &LanguageModel, before: &[f32], after: &[f32], n: usize) -> Vec<MovedToken> {
    let probability = |log: f32| f64::from(log).exp();
    let mut tokens: Vec<(u32, f64, f64)> = before
        .iter()
        .zip(after)
        .enumerate()
        .map(|(token, (&p, &q))| (token as u32, probability(p), probability(q)))
        .collect();
    tokens.sort_by(|a, b| (b.2 - b.1).abs().total_cmp(&(a.2 - a.1).abs()).then(a.0.cmp(&b.0)));
    tokens.truncate(n);
    let named = |(token, before, after)| MovedToken { token, text: model.tokenizer().token_text(token), before, after };
    tokens.into_iter().map(named).collect()
}
