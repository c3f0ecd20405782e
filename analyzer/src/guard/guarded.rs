//! [`Guarded`]: a prompt continued without and with a guard.

use candle_core::Tensor;
use harvester::{Edit, Hook, HookPoint, Monitor, Rows};
use serde::Serialize;

use super::{hook::Guard, judge::GuardEvent, rules::GuardRules};
use crate::{
    Error, Facts, FeatureIndex, GenerateConfig, Generation, Interventions, Result, SteerEdit, Steering, Workbench,
    facts::quoted, steer::decoded_so_far,
};

/// A prompt continued without and with a guard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Guarded {
    /// The text that both continue.
    pub prompt: String,
    /// Its tokens.
    pub prompt_tokens: Vec<u32>,
    /// The continuation without guard and edits.
    pub without: String,
    /// The part of the continuation with them that is sent.
    pub with: String,
    /// The rule that stopped it, if one did.
    pub stopped: Option<String>,
    /// True if a rule has marked it.
    pub is_flagged: bool,
    /// Tokens that were written and not sent.
    pub held_back: usize,
    /// The tokens on which a rule begins or ceases to hold.
    pub events: Vec<GuardEvent>,
    /// The text of the token of each event.
    pub event_texts: Vec<String>,
}

impl Guarded {
    /// The events, and how the text ended.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        for (event, text) in self.events.iter().zip(&self.event_texts) {
            let place = match event.position.checked_sub(self.prompt_tokens.len()) {
                None => format!("token {} of the prompt", event.position),
                Some(written) => format!("token {written} of the text"),
            };
            facts.add("guard", format!("{place}, {}: {}", quoted(text), event.said()));
        }
        if self.events.is_empty() {
            facts.add("guard", "no rule ever held");
        }
        if let Some(rule) = &self.stopped {
            facts.add("stopped", format!("by {rule}; {} tokens that were written were not sent", self.held_back));
        }
        if self.is_flagged {
            facts.add("flagged", "yes");
        }
        facts
    }
}

/// Applies edits, and then the guard.
struct Both<'h, 'a>(&'h mut Interventions<'a>, &'h mut Guard<'a>);

impl Hook for Both<'_, '_> {
    fn wants(&self, point: HookPoint) -> bool {
        self.0.wants(point) || self.1.wants(point)
    }

    fn apply(&mut self, point: HookPoint, rows: &Rows, activation: &Tensor) -> harvester::Result<Edit> {
        let edited = if self.0.wants(point) { self.0.apply(point, rows, activation)? } else { Edit::Keep };
        if !self.1.wants(point) {
            return Ok(edited);
        }
        let Edit::Replace(x) = edited else { return self.1.apply(point, rows, activation) };
        Ok(match self.1.apply(point, rows, &x)? {
            Edit::Keep => Edit::Replace(x),
            other => other,
        })
    }
}

impl GuardRules {
    /// Opens the SAEs that the rules and some edits name; there may be no edits. `index`: as for [`Steering::open`].
    ///
    /// # Errors
    /// As [`Steering::open`].
    pub fn open(&self, bench: &Workbench, edits: Vec<SteerEdit>, index: Option<&FeatureIndex>) -> Result<Steering> {
        let names = edits.iter().flat_map(SteerEdit::sae_names).chain(self.sae_names()).collect();
        Steering::open_with(bench, edits, names, index)
    }
}

impl Workbench {
    /// Continues `prompt` without a guard, and with one and the edits of `steering`, which [`GuardRules::open`] has
    /// opened, both with the same random numbers. After each token `each` gets the text so far without and what is sent
    /// so far with the guard.
    ///
    /// # Errors
    /// As [`Guard::new`], [`Steering::hook`] and [`Generation`].
    pub fn guarded(
        &self,
        prompt: &str,
        rules: &GuardRules,
        steering: &Steering,
        config: &GenerateConfig,
        each: &mut dyn FnMut([&str; 2]),
        monitor: &dyn Monitor,
    ) -> Result<Guarded> {
        let model = self.model_in(config.compute, monitor)?;
        let prompt_tokens = self.prompt(prompt, monitor)?;
        let mut generation = Generation::new(model)?;
        let [plain, watched] = [generation.add(&prompt_tokens, config)?, generation.add(&prompt_tokens, config)?];
        let mut edits = steering.hook(self, model)?.only(watched);
        let mut guard = Guard::new(model, &steering.saes(self), rules.clone())?.only(watched);
        let (mut tokens, mut end) = ([vec![], vec![]], String::new());
        let (mut sent, mut stopped) = (0, None);
        monitor.start("writing", 2 * config.max_new_tokens as u64, "tokens");
        while !generation.is_done() {
            if monitor.cancelled() {
                return Err(Error::Stopped);
            }
            let written = generation.step(&mut Both(&mut edits, &mut guard))?;
            if stopped.is_none()
                && let Some((rule, text)) = guard.stopped(watched)
            {
                // The token of this step follows what was refused.
                (stopped, end) = (Some(rule.to_string()), text.to_string());
                generation.end(watched);
            }
            for (text, token) in written.into_iter().filter(|(text, _)| *text == plain || stopped.is_none()) {
                tokens[usize::from(text != plain)].push(token);
                monitor.advance(1);
            }
            if stopped.is_none() {
                sent = tokens[1].len().saturating_sub(rules.hold_back).max(sent);
            }
            let so_far = [&tokens[0][..], &tokens[1][..sent]].map(|tokens| decoded_so_far(model, tokens));
            each([&so_far[0], &so_far[1]]);
        }
        monitor.finish();
        if stopped.is_none() {
            sent = tokens[1].len(); // the text has ended: nothing is left to be judged
        }
        let tokenizer = model.tokenizer();
        let events = guard.events().to_vec();
        Ok(Guarded {
            prompt: prompt.to_string(),
            without: tokenizer.decode(&tokens[0]),
            with: tokenizer.decode(&tokens[1][..sent]) + &end,
            held_back: tokens[1].len() - sent,
            is_flagged: guard.is_flagged(watched),
            event_texts: events.iter().map(|event| tokenizer.token_text(event.token)).collect(),
            stopped,
            events,
            prompt_tokens,
        })
    }
}
