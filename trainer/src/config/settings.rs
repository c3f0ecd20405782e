//! [`TrainConfig::of_given`]: makes a config from named settings, which come from flags, a config file or a request.
//! Only here is it known which settings were given, so a setting without effect is refused here.

use harvester::{Settings, config_of};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use super::TrainConfig;
use crate::{Result, step::architecture::TrainArchitecture};

impl TrainConfig {
    /// Settings of which at most one may be given.
    pub(crate) const EXCLUSIVE: [[&'static str; 2]; 1] = [["d_sae", "expansion_factor"]];

    /// The config with these settings; all others have their defaults.
    ///
    /// # Errors
    /// An unknown name, a value of the wrong type, a setting without effect in combination with the others, or a number
    /// of hook points that does not fit the architecture.
    pub(crate) fn of_given(settings: &Settings) -> Result<Self> {
        let config: Self = config_of(settings)?;
        config.refuse_unused(settings)?;
        config.check_columns()?;
        Ok(config)
    }

    /// Refuses a given setting that would have no effect.
    fn refuse_unused(&self, given: &Settings) -> Result<()> {
        use TrainArchitecture::{Dense, JumpRelu, Matryoshka, Transcoder};
        const ADAPTED: &str = "relu, gated and jumprelu";
        const SPARSE: &str = "every architecture except dense, whose latents never die";
        const WIDE: &str = "every architecture except dense, which has k latents";
        let arch = self.architecture;
        let of_some_architectures = [
            ("sparsity_coefficient", arch.has_sparsity_loss(), ADAPTED),
            ("sparsity_warmup", arch.has_sparsity_loss(), ADAPTED),
            ("jumprelu_loss", arch == JumpRelu, "jumprelu"),
            ("bandwidth", arch == JumpRelu, "jumprelu"),
            ("prefixes", arch == Matryoshka, "matryoshka"),
            ("skip", arch == Transcoder, "transcoder"),
            ("auxk_alpha", arch != Dense, SPARSE),
            ("k_aux", arch != Dense, SPARSE),
            ("dead_after_tokens", arch != Dense, SPARSE),
            ("expansion_factor", arch != Dense, WIDE),
        ];
        let no_effect = |setting, why: String| Err(harvester::Error::NoEffect { setting, why }.into());
        let unused = of_some_architectures.into_iter().find(|(name, used, _)| given.contains_key(*name) && !used);
        if let Some((name, _, users)) = unused {
            return no_effect(name, format!("on {arch}: it is an option of {users}"));
        }
        let fixed = self.sparsity_coefficient.is_some();
        let beside_others = [
            ("sparsity_warmup", !fixed, "without `sparsity_coefficient`: the weight is then adapted"),
            ("expansion_factor", self.d_sae.is_some(), "with `d_sae`"),
            (
                "expansion_factor",
                self.init_from.is_some(),
                "with `init_from`: the number of latents is that of the SAE",
            ),
            ("k_aux", self.auxk_alpha == 0.0, "with `auxk_alpha` 0"),
            ("k", self.d_sae.is_some() && arch == Dense, "on dense with `d_sae`: all latents are active"),
            ("k", fixed, "with `sparsity_coefficient`, which then decides how many latents are active"),
        ];
        match beside_others.into_iter().find(|(name, useless, _)| given.contains_key(*name) && *useless) {
            Some((name, _, why)) => no_effect(name, why.into()),
            None => Ok(()),
        }
    }
}

/// Reads a config of any version: older ones have one hook point in `hook_point`, and several also in `hook_points`.
pub(crate) fn recorded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TrainConfig, D::Error> {
    let mut settings = Settings::deserialize(deserializer)?;
    if let Some(point @ Value::String(_)) = settings.remove("hook_point") {
        let points = settings.entry("hook_points").or_insert(Value::Array(vec![]));
        if points.as_array().is_some_and(Vec::is_empty) {
            *points = Value::Array(vec![point]);
        }
    }
    TrainConfig::deserialize(Value::Object(settings)).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use harvester::HookPoint;
    use serde_json::json;

    use super::*;

    fn read(settings: Value) -> Result<TrainConfig, String> {
        let settings = settings.as_object().cloned().unwrap_or_default();
        TrainConfig::of_given(&settings).map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_not_given_has_its_default() {
        let config = read(json!({ "k": 8, "clip": 0.0 }));
        assert_eq!(config, Ok(TrainConfig { k: 8, clip: Some(0.0), ..TrainConfig::default() }));
    }

    #[test]
    fn a_setting_without_effect_is_refused_also_at_its_default() {
        let default = TrainConfig::default().bandwidth;
        let message = "`bandwidth` has no effect on topk: it is an option of jumprelu";
        assert_eq!(read(json!({ "architecture": "topk", "bandwidth": default })), Err(message.into()));
        let refused = |settings| read(settings).err().unwrap_or_default();
        assert_eq!(
            refused(json!({ "d_sae": 64, "expansion_factor": 8 })),
            "`expansion_factor` has no effect with `d_sae`"
        );
        assert!(refused(json!({ "learning_rate": 1 })).contains("learning_rate"));
        assert_eq!(
            refused(json!({ "architecture": "relu", "sparsity_coefficient": 3.0, "k": 32 })),
            "`k` has no effect with `sparsity_coefficient`, which then decides how many latents are active"
        );
    }

    #[test]
    fn configs_of_former_manifests_are_read() {
        let recorded = |json: Value| recorded(json).map(|config| config.hook_points).map_err(|error| error.to_string());
        let points = vec![HookPoint::resid_post(1), HookPoint::resid_post(2)];
        let [first, second] = ["blocks.1.hook_resid_post", "blocks.2.hook_resid_post"];
        assert_eq!(recorded(json!({ "hook_point": null, "hook_points": [] })), Ok(vec![]));
        assert_eq!(recorded(json!({ "hook_point": first, "hook_points": [] })), Ok(points[..1].to_vec()));
        assert_eq!(recorded(json!({ "hook_point": first, "hook_points": [first, second] })), Ok(points));
    }
}
