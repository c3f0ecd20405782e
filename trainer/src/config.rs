//! config
/// Which activations stay, while training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainArchitecture {
    /// The k largest of each token.
    TopK,
    /// The k * n largest of a batch.
    BatchTopK,
}
