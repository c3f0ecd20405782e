//! An [`Explanation`] as a page of text, 80 columns wide.

use std::fmt::{Display, Formatter, Result};

use harvester::human::counted;

use super::{Explanation, Method, PartEffect};
use crate::{ActiveLatent, TokenWeight, listed::cell};

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.tokens(f)?;
        self.next_token(f)?;
        self.last_token(f)?;
        self.whole_text(f)
    }
}

impl Explanation {
    fn tokens(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "the strongest latents of each token")?;
        self.tokens.iter().try_for_each(|token| writeln!(f, "{token}"))
    }

    fn next_token(&self, f: &mut Formatter<'_>) -> Result {
        let percent = |it: &TokenWeight| format!("{:?} {:.1} %", it.text, 100.0 * it.weight);
        let next: Vec<String> = self.next.iter().map(percent).collect();
        writeln!(f, "\nnext token: {}", next.join(", "))?;
        if self.next.iter().any(|it| it.token == self.target.token) {
            Ok(())
        } else {
            writeln!(f, "explained: {}", percent(&self.target))
        }
    }

    fn last_token(&self, f: &mut Formatter<'_>) -> Result {
        let target = format!("{:?}", self.target.text);
        match self.method {
            Method::Ablation => {
                writeln!(f, "\nlatents of the last token: log p({target}) minus the same without the latent")?;
            }
            Method::Direct => {
                writeln!(f, "\nlatents of the last token: direct part in the logit of {target}")?;
                writeln!(f, "(read off the head: what the layers above do with it is ignored)")?;
            }
        }
        self.header(f, "raises p by, in points")?;
        for latent in &self.latents {
            let is_seen = |it: &&TokenWeight| it.weight >= 0.0005;
            let token = |it: &TokenWeight| format!("{:?} {:+.1}", it.text, 100.0 * it.weight);
            let tokens: Vec<String> = latent.supports.iter().filter(is_seen).map(token).collect();
            row(f, &latent.active, latent.effect, &tokens)?;
        }
        if self.n_dense > 0 {
            writeln!(
                f,
                "not listed: {}, which fire too often to say much",
                counted(self.n_dense as u64, "dense latent")
            )?;
        }
        let n = counted(self.n_active as u64, "active latent");
        if self.method == Method::Direct {
            return writeln!(f, "{n}: {:+.3} together", self.sum);
        }
        let interaction = self.sum - self.all.effect;
        writeln!(f, "{n}: sum {:+.3}, all at once {} (interaction {interaction:+.3})", self.sum, effect(self.all))?;
        self.error.map_or(Ok(()), |error| writeln!(f, "what the SAE does not explain: {}", effect(error)))
    }

    fn whole_text(&self, f: &mut Formatter<'_>) -> Result {
        if self.whole_text.is_empty() {
            return Ok(());
        }
        let (tried, active) = self.whole_text_tried;
        writeln!(f, "\nthe same for the whole text, without the latent on any token ({tried} of {active} tried)")?;
        self.header(f, "without it on one token")?;
        for latent in &self.whole_text {
            let at = |(position, effect): &(usize, f64)| format!("{:?} {effect:+.2}", self.tokens[*position].text);
            let places: Vec<String> = latent.positions.iter().filter(|it| it.1.abs() >= 0.005).map(at).collect();
            row(f, &latent.active, latent.effect, &places)?;
        }
        Ok(())
    }

    fn header(&self, f: &mut Formatter<'_>, last: &str) -> Result {
        let kl = if self.method == Method::Ablation { "    KL" } else { "" };
        let with_labels = self.latents.iter().any(|it| it.active.label.is_some());
        let label = if with_labels { format!(" F1  {}", cell("label", LABEL)) } else { String::new() };
        let last = if self.method == Method::Ablation { last } else { "" };
        writeln!(f, "{}", format!("latent active  effect{kl}  {label}{last}").trim_end())
    }
}

/// Width of a label.
const LABEL: usize = 20;

/// A line of at most 80 columns, with as many of `last` as have space.
fn row(f: &mut Formatter<'_>, active: &ActiveLatent, effect: PartEffect, last: &[String]) -> Result {
    let kl = effect.kl.map(|kl| format!(" {kl:5.3}")).unwrap_or_default();
    let f1 = active.f1.map_or("  - ".into(), |f1| format!("{f1:.2}"));
    let label = active.label.as_deref().map(|label| format!("{f1} {}", cell(label, LABEL))).unwrap_or_default();
    let mut line = format!("{:6} {:6.1} {:+7.3}{kl}  {label}", active.latent, active.activation, effect.effect);
    for (i, last) in last.iter().enumerate() {
        if line.chars().count() + last.chars().count() < 80 {
            line += if i > 0 { " " } else { "" };
            line += last;
        }
    }
    writeln!(f, "{}", line.trim_end())
}

fn effect(PartEffect { effect, kl }: PartEffect) -> String {
    format!("{effect:+.3}{}", kl.map(|kl| format!(", KL {kl:.3}")).unwrap_or_default())
}
