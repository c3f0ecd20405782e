//! Prompts to steer from: a message in the model's chat template, and a text on which a latent is active.

use std::ops::Range;

use harvester::{ActivationDataset, Monitor};

use crate::{Example, Result, Workbench};

/// Positions with enough text before them to set a topic, and little enough to read.
const READABLE: Range<u32> = 24..80;

impl Workbench {
    /// A message as the prompt that the model's chat template makes of it.
    ///
    /// # Errors
    /// A model without a chat template, or one that refuses the message.
    pub fn chat_prompt(&self, message: &str, monitor: &dyn Monitor) -> Result<String> {
        Ok(self.model(monitor)?.tokenizer().chat_prompt(message)?)
    }

    /// A prompt on which a latent is active: the text up to the peak of the first of its examples that has some text
    /// before it, but not too much to read. `None` where there is no example.
    ///
    /// # Errors
    /// A context that is not in `dataset`, or a file that cannot be read.
    pub fn prompt_before_peak(
        &self,
        examples: &[Example],
        dataset: &ActivationDataset,
        monitor: &dyn Monitor,
    ) -> Result<Option<String>> {
        let readable = examples.iter().find(|example| READABLE.contains(&example.position));
        let Some(example) = readable.or(examples.first()) else { return Ok(None) };
        for &group in &dataset.row_groups {
            let rows = dataset.tokens(group)?;
            let places = (0..rows.token.len()).filter(|&row| rows.context[row] == example.context);
            let tokens: Vec<u32> = places.take(example.position as usize + 1).map(|row| rows.token[row]).collect();
            if !tokens.is_empty() {
                return Ok(Some(self.model(monitor)?.tokenizer().decode(&tokens)));
            }
        }
        let expected = format!("context {}, which the index names", example.context);
        let hint = "Index these activations again";
        Err(harvester::Error::malformed(dataset.location.to_string(), expected, "none of this number", hint).into())
    }
}
