//! `cfg.json` of SAELens before version 6: one flat object, other names for some keys, and `topk` as an activation
//! function of a standard SAE. It is converted to today's layout, as SAELens' `handle_pre_6_0_config` does.

use std::path::Path;

use harvester::HookPoint;
use serde_json::{Map, Value, json};

use super::{
    json::refuse,
    settings::{Rule, SAELENS, rule},
};
use crate::Result;

/// The version whose layout is read, and which we write.
pub(super) const SAE_LENS_VERSION: &str = "6.0.0";

/// True if the config has no version, or one below 6.
pub(super) fn is_legacy(cfg: &Value) -> bool {
    let versions = [cfg.get("sae_lens_version"), cfg.pointer("/metadata/sae_lens_version")];
    let version = versions.into_iter().flatten().find_map(Value::as_str).unwrap_or_default();
    version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_none_or(|major| major < 6)
}

/// A warning for an SAE that was trained by SAELens before 3.19.2. Those versions let TransformerLens center the
/// writing weights of a model, and no key says so. Later ones do not, and store `model_from_pretrained_kwargs`.
pub(super) fn centered_by_default(flat: &Map<String, Value>) -> Option<String> {
    let text = |key: &str| flat.get(key).and_then(Value::as_str);
    let version = text("sae_lens_training_version").or(text("sae_lens_version"));
    let number = |part: Option<&str>| part.and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    let mut parts = version.unwrap_or_default().split('.');
    let version_parts = [(); 3].map(|()| number(parts.next()));
    let in_resid = text("hook_name").or(text("hook_point")).and_then(|name| name.parse::<HookPoint>().ok());
    let is_meant = version_parts < [3, 19, 2]
        && !flat.contains_key("model_from_pretrained_kwargs")
        && in_resid.is_some_and(HookPoint::writes_to_resid);
    let tool = || match version {
        Some(version) => format!("SAELens {version}"),
        None => "an early SAELens (no version in its cfg.json)".into(),
    };
    is_meant.then(|| {
        format!(
            "trained by {}, which centered the weights of models with layer norms (GPT-2, Pythia; not \
             Llama or Gemma): for such a model, add \"model_from_pretrained_kwargs\": \
             {{\"center_writing_weights\": true}} to its cfg.json",
            tool()
        )
    })
}

/// The same config in the layout of version 6.
pub(super) fn upgraded(cfg: Value, path: &Path) -> Result<Value> {
    let Value::Object(mut old) = cfg else { return refuse(path, "cfg.json", "a JSON object", cfg.to_string()) };
    let activation_key = if old.contains_key("activation_fn_str") { "activation_fn_str" } else { "activation_fn" };
    for (from, to) in [
        ("hook_point", "hook_name"),
        ("hook_point_head_index", "hook_head_index"),
        ("activation_fn_str", "activation_fn"),
    ] {
        if let Some(value) = old.remove(from) {
            old.insert(to.into(), value);
        }
    }
    old.entry("prepend_bos").or_insert(json!(true));
    let text = |key: &str| old.get(key).and_then(Value::as_str);
    let k = old.get("activation_fn_kwargs").and_then(|kwargs| kwargs.get("k"));
    let (architecture, k) = match (text("activation_fn").unwrap_or("relu"), k) {
        ("topk", Some(k)) => ("topk", Some(k)),
        ("relu", _) => (text("architecture").unwrap_or("standard"), None),
        (other, _) => return refuse(path, activation_key, "`relu`, or `topk` with activation_fn_kwargs.k", other),
    };
    let normalize = match old.get("normalize_activations") {
        None | Some(Value::Null | Value::Bool(false)) => json!("none"),
        Some(Value::Bool(true)) => json!("expected_average_only_in"),
        Some(other) => other.clone(),
    };
    let is_origin = |(key, _): &(&String, &Value)| rule(SAELENS, key) == Some(Rule::Origin);
    let mut metadata: Map<String, Value> =
        old.iter().filter(is_origin).map(|(key, value)| (key.clone(), value.clone())).collect();
    metadata.insert("sae_lens_version".into(), json!(SAE_LENS_VERSION));
    let mut new = json!({
        "architecture": architecture,
        "normalize_activations": normalize,
        "metadata": metadata,
    });
    if let Some(k) = k {
        new["k"] = k.clone();
    }
    for key in ["d_in", "d_sae", "d_out", "apply_b_dec_to_input", "reshape_activations"] {
        if let Some(value) = old.get(key) {
            new[key] = value.clone();
        }
    }
    Ok(new)
}

/// Refuses finetuned scales of activations, which SAELens no longer supports. Scales of 1 were also saved without
/// finetuning, and have no effect. The comparison is `torch.allclose`, as in SAELens' loaders of its own files and of
/// Gemma Scope's.
pub(super) fn check_scaling_factor(factors: &[f32], path: &Path) -> Result<()> {
    match factors.iter().find(|factor| factor.is_nan() || (**factor - 1.0).abs() > 1e-5) {
        Some(found) => refuse(path, "scaling_factor", "of ones", found.to_string()),
        None => Ok(()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_flat_config_becomes_one_of_today() {
        let old = json!({
            "d_in": 8, "d_sae": 32, "hook_point": "blocks.2.hook_resid_pre", "activation_fn_str": "topk",
            "activation_fn_kwargs": {"k": 5}, "normalize_activations": false, "model_name": "gpt2", "lr": 0.1,
        });
        assert!(is_legacy(&old));
        let new = upgraded(old, Path::new("cfg.json")).unwrap();
        assert!(!is_legacy(&new));
        assert_eq!(
            (&new["architecture"], &new["k"], &new["normalize_activations"]),
            (&json!("topk"), &json!(5), &json!("none"))
        );
        assert_eq!(new["metadata"]["hook_name"], "blocks.2.hook_resid_pre");
        assert_eq!(new["metadata"]["prepend_bos"], true);
        let tanh = json!({ "d_in": 8, "d_sae": 32, "activation_fn": "tanh-relu" });
        assert!(upgraded(tanh, Path::new("cfg.json")).unwrap_err().to_string().contains("`tanh-relu`"));
    }

    #[test]
    fn a_version_that_centered_its_models_is_named() {
        let said = |version: Value| {
            let flat = json!({ "hook_point": "blocks.2.hook_resid_pre", "sae_lens_training_version": version });
            centered_by_default(flat.as_object().unwrap())
        };
        assert!(said(json!("3.19.1")).unwrap().starts_with("trained by SAELens 3.19.1, which centered"));
        let early = "trained by an early SAELens (no version in its cfg.json), which centered";
        assert!(said(Value::Null).unwrap().starts_with(early));
        assert_eq!(said(json!("3.19.2")), None);
    }

    #[test]
    fn finetuned_scales_are_refused() {
        let refused = |factor| check_scaling_factor(&[1.0, factor], Path::new("w")).map_err(|error| error.to_string());
        assert_eq!(refused(1.0 + 5e-6), Ok(()));
        assert!(refused(1.001).unwrap_err().contains("`1.001`") && refused(f32::NAN).unwrap_err().contains("`NaN`"));
    }

    #[test]
    fn versions_are_compared_by_their_first_number() {
        let of = |version: &str| is_legacy(&json!({ "metadata": { "sae_lens_version": version } }));
        assert!(of("5.10.2") && !of("6.0.0-rc.1") && !of("10.0.0") && of(""));
        assert!(is_legacy(&json!({})));
    }
}
