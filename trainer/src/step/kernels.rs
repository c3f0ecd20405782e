//! The arithmetic of an SAE and of its training step. One dense product, the encoder's; everything after it touches
//! only active latents.
//!
//! ```text
//! x_c        = x - b_dec                 [n, d_in]   centre
//! hidden_pre = x_c W_enc^T + b_enc      [n, d_sae]   product    2 * d_in * d_sae operations a token: the floor
//! f          = select(relu(hidden_pre)) [n, k of d_sae]  select
//! e          = f W_dec - x_c            [n, d_in]    decode     the error x_hat - x, since b_dec cancels
//! dW, db     = sums over active pairs   [d_sae, d_in] gradients
//! ```
//!
//! `plain` holds the same formulas as dense loops in f64; the tests compare each kernel with it.

pub(crate) mod centre;
pub(crate) mod decode;
pub(crate) mod gated;
pub(crate) mod gradients;
#[cfg(test)]
pub(crate) mod plain;
pub(crate) mod product;
pub(crate) mod select;
pub(crate) mod simd;
