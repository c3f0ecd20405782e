//! [`CompiledScope`]: the rows to which an edit applies. [`Condition`]: a latent on which that depends.

use std::collections::{HashMap, HashSet};

use harvester::{HookPoint, Row};
use trainer::LatentEncoder;

use super::{intervention::Per, positions::Positions};
use crate::Result;

/// Where and when an edit applies.
#[derive(Debug)]
pub(super) struct CompiledScope {
    /// Where the edit is.
    pub(super) hook_point: HookPoint,
    pub(super) at: Positions,
    /// `None`: any.
    pub(super) tokens: Option<HashSet<u32>>,
    pub(super) special_tokens: bool,
    /// Number of the condition.
    pub(super) when: Option<usize>,
    pub(super) decay: f32,
}

/// A latent that is watched.
#[derive(Debug)]
pub(super) struct Condition<'a> {
    pub(super) hook_point: HookPoint,
    pub(super) encoder: LatentEncoder<'a>,
    pub(super) above: f32,
    pub(super) per: Per,
    /// True for each row of the present pass on which the latent is above; of the edited variant.
    pub(super) rows: Vec<bool>,
    /// True for each text in whose prompt it is.
    pub(super) prompts: HashMap<usize, bool>,
}

impl CompiledScope {
    /// The share of the change that a row gets. `row`: its number in the pass, and it.
    pub(super) fn weight(
        &self,
        (number, row): (usize, &Row),
        prompt_len: usize,
        special: &HashSet<u32>,
        conditions: &[Condition<'_>],
    ) -> f32 {
        let is_met = |condition: &Condition<'_>| match condition.per {
            Per::Token => condition.rows[number],
            Per::Prompt => condition.prompts.get(&row.sequence).copied().unwrap_or(false),
        };
        let applies = self.at.contains(row.position, prompt_len)
            && self.tokens.as_ref().is_none_or(|tokens| tokens.contains(&row.token))
            && (self.special_tokens || !special.contains(&row.token))
            && self.when.is_none_or(|when| is_met(&conditions[when]));
        match row.position.checked_sub(prompt_len) {
            _ if !applies => 0.0,
            Some(generated) if self.decay != 1.0 => self.decay.powf(generated as f32),
            _ => 1.0,
        }
    }
}

impl Condition<'_> {
    /// Reads the latent on the rows of a pass. `edited`: those that count. `x`: `[rows, width]`
    pub(super) fn see(&mut self, rows: &[Row], edited: &[bool], prompt_lens: &[usize], x: &[f32]) -> Result<()> {
        let acts = self.encoder.encode(x)?;
        let latent_is_above = |row: usize| edited[row] && acts.row(row).1.first().is_some_and(|z| *z > self.above);
        self.rows = (0..rows.len()).map(latent_is_above).collect();
        for row in rows.iter().filter(|row| row.position == 0) {
            self.prompts.insert(row.sequence, false); // a new text
        }
        for ((row, is_above), prompt_len) in rows.iter().zip(&self.rows).zip(prompt_lens) {
            if *is_above && row.position < *prompt_len {
                self.prompts.insert(row.sequence, true);
            }
        }
        Ok(())
    }
}
