//! The arithmetic of an SAE, in use and in training. The encoder's product is the only dense one. Everything after it
//! touches only active latents, which are listed in a [`feature_acts::FeatureActs`].
//!
//! ```text
//! hidden_pre = x_c W_enc^T + b_enc      [n, d_sae]       product    2 * d_in * d_sae operations per token: the floor
//! f          = select(relu(hidden_pre)) [n, k of d_sae]  select, gated
//! e          = f W_dec - x_c            [n, d_in]        decode     the error x_hat - x, since b_dec cancels
//! ```
//!
//! `plain` holds the same formulas as dense loops in f64; the tests compare each kernel with it.

pub(crate) mod decode;
pub(crate) mod feature_acts;
pub(crate) mod gated;
#[cfg(test)]
pub(crate) mod plain;
pub(crate) mod product;
pub(crate) mod select;
pub(crate) mod simd;
