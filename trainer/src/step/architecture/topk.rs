//! [`TopK`]: `f = the k largest of relu(hidden_pre)` of each token (Gao et al. 2024, section 2.3).

use crate::{
    kernels::select,
    step::{encoder_pass::EncoderPass, recipe::Recipe},
};

#[derive(Debug)]
pub(crate) struct TopK {
    k: usize,
}

impl TopK {
    pub(crate) fn new(k: usize) -> Self {
        Self { k }
    }
}

impl Recipe for TopK {
    fn select(&mut self, pass: &mut EncoderPass<'_>) {
        pass.run(|hidden, b_enc, acts| select::top_k(hidden, b_enc, self.k, acts));
    }
}
