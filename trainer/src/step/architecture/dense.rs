//! [`Dense`]: `f = hidden_pre`, every latent on every token and no nonlinearity. With as many latents as a sparse SAE
//! has active ones, it is the bottleneck that sparsity is compared with; the best it can do is what the first principal
//! components explain.

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
