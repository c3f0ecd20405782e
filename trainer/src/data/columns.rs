//! [`Columns`]: which places of a model a row is made of, and in which order. One is what an SAE reads; several inputs
//! are a crosscoder's; an input and a target are a transcoder's.
//!
//! ```text
//! row = (inputs[0], inputs[1], .., target)
//! ```

use harvester::HookPoint;

/// The hook points of a run's rows; none where the rows are vectors of no model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    /// What the encoder reads.
    pub(crate) inputs: Vec<HookPoint>,
    /// What the decoder writes, where that is not the inputs again.
    pub(crate) target: Option<HookPoint>,
}

impl Columns {
    /// The inputs, then the target: the order in a row.
    pub(crate) fn all(&self) -> Vec<HookPoint> {
        self.inputs.iter().copied().chain(self.target).collect()
    }
}
