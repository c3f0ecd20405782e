//! Encodes and decodes a file of activations with an SAE of any format: `encode SAE_DIR X.safetensors OUT.safetensors`.
//! `tests/interop/saelens.py` runs it. It is also the shortest complete use of [`trainer::Sae`].

use std::{collections::HashMap, env, fs, path::PathBuf};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use trainer::Sae;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [sae_dir, x_path, out_path] = arguments.as_slice() else {
        return Err("usage: encode SAE_DIR X.safetensors OUT.safetensors".into());
    };
    let sae = Sae::load(sae_dir)?;
    let file = fs::read(x_path)?;
    let x = SafeTensors::deserialize(&file)?.tensor("x")?;
    if x.dtype() != Dtype::F32 || x.shape().len() != 2 || x.shape()[1] != sae.d_in() {
        let (path, d_in, dtype, shape) = (x_path.display(), sae.d_in(), x.dtype(), x.shape());
        return Err(format!("{path}: expected x in F32 of shape [n, {d_in}], found {dtype} of shape {shape:?}").into());
    }
    let x: Vec<f32> = x.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(); // [n, d_in]

    let (acts, x_hat) = sae.reconstruct(&x)?; // [n, d_out]
    let mut dense = vec![0.0; acts.n_rows() * sae.d_sae()]; // [n, d_sae]
    for row in 0..acts.n_rows() {
        let (latents, values) = acts.row(row);
        for (&latent, &value) in latents.iter().zip(values) {
            dense[row * sae.d_sae() + latent as usize] = value;
        }
    }

    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let (dense, x_hat) = (bytes(&dense), bytes(&x_hat));
    let tensors = HashMap::from([
        ("feature_acts", TensorView::new(Dtype::F32, vec![acts.n_rows(), sae.d_sae()], &dense)?),
        ("x_hat", TensorView::new(Dtype::F32, vec![acts.n_rows(), sae.d_out()], &x_hat)?),
    ]);
    fs::write(out_path, safetensors::serialize(tensors, None)?)?;
    Ok(())
}
