//! [`Dense`]: `f = hidden_pre`, every latent active on every token, without a nonlinearity. With as many latents as a
//! sparse SAE has active ones, it is the bottleneck to compare sparsity with. At best it explains as much as that many
//! principal components.

use crate::{
    kernels::select,
    step::{encoder_pass::EncoderPass, recipe::Recipe},
};

#[derive(Debug)]
pub(crate) struct Dense;

impl Recipe for Dense {
    fn select(&mut self, pass: &mut EncoderPass<'_>) {
        pass.run(select::everything);
    }
}
