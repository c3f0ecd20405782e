//! Control vectors against llama.cpp, which `fixtures/control_vector.py` has run with the default model.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use analyzer::{ControlVector, Interventions, SteerEdit};
use candle_core::Tensor;
use harvester::{Batch, Compute, Edit, Hook, HookPoint, LanguageModel, ModelSource, NoHook, Rows, Silent};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    prompt: Vec<u32>,
    plain: NextToken,
    steered: NextToken,
}

/// The likeliest next tokens, by llama.cpp.
#[derive(Deserialize)]
struct NextToken {
    tokens: Vec<u32>,
    log_probs: Vec<f64>,
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/control_vector.gguf")
}

/// Adds the vectors on every row, as llama.cpp does.
struct Everywhere(ControlVector);

impl Hook for Everywhere {
    fn wants(&self, point: HookPoint) -> bool {
        self.0.vectors().any(|(at, _)| at == point)
    }

    fn apply(&mut self, point: HookPoint, _rows: &Rows, activation: &Tensor) -> harvester::Result<Edit> {
        let (_, vector) = self.0.vectors().find(|(at, _)| *at == point).unwrap();
        let vector = Tensor::from_slice(vector, (1, vector.len()), activation.device())?;
        Ok(Edit::Replace(activation.broadcast_add(&vector)?))
    }
}

/// KL from llama.cpp's distribution to refract's, in nats: over the likeliest tokens, and all others as one.
fn kl(model: &LanguageModel, prompt: &[u32], expected: &NextToken, hook: &mut dyn Hook) -> f64 {
    let resid = model.resid_final(&Batch::of([prompt]), None, hook).unwrap();
    let last = resid.narrow(0, prompt.len() - 1, 1).unwrap();
    let logits: Vec<f32> = model.unembed(&last).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let total = logits.iter().map(|x| (f64::from(*x) - max).exp()).sum::<f64>().ln() + max;
    let (mut sum, mut p_rest, mut q_rest) = (0.0, 1.0, 1.0);
    for (token, log_p) in expected.tokens.iter().zip(&expected.log_probs) {
        let log_q = f64::from(logits[*token as usize]) - total;
        sum += log_p.exp() * (log_p - log_q);
        p_rest -= log_p.exp();
        q_rest -= log_q.exp();
    }
    sum + p_rest * (p_rest / q_rest).ln()
}

/// llama.cpp rounds activations to 8 bits, so even without a vector the two differ, by 0.003 to 0.01 nats. With the vector
/// on every token they differ as little. Steering leaves position 0 alone, where these prompts have their attention sink:
/// that is a difference of its own, and it must be smaller than what the vector does.
#[test]
fn a_control_vector_does_what_it_does_in_llama_cpp() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("fixtures/control_vector.json")).unwrap();
    let model = LanguageModel::open(&"default".parse::<ModelSource>().unwrap(), Compute::F32, &Silent).unwrap();
    let vector = ControlVector::read(&file()).unwrap();
    let edit: SteerEdit = format!("add {}=1", file().display()).parse().unwrap();
    for Case { prompt, plain, steered } in &cases {
        let noise = kl(&model, prompt, plain, &mut NoHook);
        let off = kl(&model, prompt, steered, &mut Everywhere(vector.clone()));
        let mut ours = Interventions::new(&model, &[], std::slice::from_ref(&edit)).unwrap();
        let by_steering = kl(&model, prompt, steered, &mut ours);
        let effect = kl(&model, prompt, steered, &mut NoHook);
        assert!(off < 0.02, "{off} nats from llama.cpp");
        assert!(by_steering < effect / 2.0, "{by_steering} nats, with position 0 left alone");
        assert!(effect > 0.1, "the vector moves the next token by {effect} nats only");
        assert!(noise < 0.02, "{noise} nats without a vector");
    }
    let mut ours = Interventions::new(&model, &[], std::slice::from_ref(&edit)).unwrap();
    model.run(&Batch::of([&cases[0].prompt]), &mut ours).unwrap();
    let rows = cases[0].prompt.len() as u64 - 1;
    assert_eq!(ours.counts()[0].changed, 2 * rows, "every row but the first, at two layers");
}

#[test]
fn a_file_is_written_as_llama_cpp_wrote_it_and_what_it_cannot_say_is_refused() {
    let vector = ControlVector::read(&file()).unwrap();
    assert_eq!(vector.model_hint, "llama");
    let expected = |size: f64| (0..576).map(|i| (size * f64::from(i).sin()) as f32).collect::<Vec<f32>>();
    assert_eq!(vector.layers, [(10, expected(1.5)), (14, expected(3.0))].into());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    vector.write(&path).unwrap();
    assert_eq!(ControlVector::read(&path).unwrap(), vector);
    let twice = vector.write(&path).unwrap_err().to_string();
    assert!(twice.contains("x.gguf") && twice.contains("exists"), "{twice}");
    let mut other = ControlVector::new("llama");
    for point in ["blocks.0.hook_resid_post", "blocks.3.hook_resid_pre", "hook_embed"] {
        let error = other.add(point.parse().unwrap(), &[1.0]).unwrap_err().to_string();
        assert!(error.contains(point), "{error}");
    }
    std::fs::write(folder.path().join("y.gguf"), b"GGUF no").unwrap();
    let error = ControlVector::read(&folder.path().join("y.gguf")).unwrap_err().to_string();
    assert!(error.contains("y.gguf"), "{error}");
}
