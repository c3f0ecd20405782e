//! [`DeadLatents`]: the number of tokens since each latent was last active. It counts tokens, not steps, so that the
//! meaning of "dead" does not change with the batch size.

/// Tokens seen since each latent was last active.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeadLatents {
    /// The field's `n_tokens_since_fired`. `[d_sae]`
    pub(crate) tokens_since_fired: Vec<u64>,
    dead_after_tokens: u64,
}

impl DeadLatents {
    pub(crate) fn new(d_sae: usize, dead_after_tokens: u64) -> Self {
        Self { tokens_since_fired: vec![0; d_sae], dead_after_tokens }
    }

    /// Records a batch of `n_tokens` tokens in which exactly the latents with `fired(latent)` were active.
    pub(crate) fn record(&mut self, n_tokens: usize, fired: impl Fn(usize) -> bool) {
        for (latent, tokens) in self.tokens_since_fired.iter_mut().enumerate() {
            *tokens = if fired(latent) { 0 } else { *tokens + n_tokens as u64 };
        }
    }

    /// The dead latents, ascending.
    pub(crate) fn dead(&self) -> impl Iterator<Item = u32> + '_ {
        let is_dead = |&(_, &tokens): &(usize, &u64)| tokens >= self.dead_after_tokens;
        self.tokens_since_fired.iter().enumerate().filter(is_dead).map(|(latent, _)| latent as u32)
    }

    /// Number of dead latents.
    pub(crate) fn count(&self) -> usize {
        self.dead().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latent_is_dead_once_enough_tokens_passed_and_alive_when_it_fires() {
        let mut latents = DeadLatents::new(3, 100);
        latents.record(60, |latent| latent == 0);
        assert_eq!(latents.count(), 0);
        latents.record(60, |latent| latent == 1);
        assert_eq!(latents.dead().collect::<Vec<_>>(), [2]);
        latents.record(60, |latent| latent == 2);
        assert_eq!(latents.dead().collect::<Vec<_>>(), [0]);
    }
}
