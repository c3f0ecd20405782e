//! [`grid`]: turns lists of settings into the settings of runs.
//!
//! ```text
//! runs = for each listed run: every combination of its values, with the common settings (alone, if no run is listed)
//! ```

use harvester::Settings;
use serde_json::Value;

use crate::{Error, Result, TrainArchitecture, TrainConfig};

/// The settings of every run. Each of `listed` is combined with `all`, and every combination of the values in their
/// lists is a run. For `prefixes`, and for `hook_points` if only crosscoders are trained, a list is one value; a list
/// of lists has several values.
///
/// # Errors
/// When a list is empty.
pub fn grid(all: &Settings, listed: Vec<Settings>) -> Result<Vec<Settings>> {
    let listed = if listed.is_empty() { vec![Settings::new()] } else { listed };
    let runs: Result<Vec<_>> = listed.into_iter().map(|run| combinations(laid_over(all.clone(), run))).collect();
    Ok(runs?.concat())
}

/// `over`, together with the settings of `under` that it neither has nor excludes.
fn laid_over(mut under: Settings, over: Settings) -> Settings {
    for [one, other] in TrainConfig::EXCLUSIVE {
        let excluded = if over.contains_key(one) { Some(other) } else { over.contains_key(other).then_some(one) };
        excluded.map(|name| under.remove(name));
    }
    under.extend(over);
    under
}

/// Every combination of the values in lists.
fn combinations(settings: Settings) -> Result<Vec<Settings>> {
    let is_crosscoder = |value: &Value| value == TrainArchitecture::Crosscoder.name();
    let crosscoders = settings.get("architecture").is_some_and(|value| match value {
        Value::Array(values) => values.iter().all(is_crosscoder),
        value => is_crosscoder(value),
    });
    let mut runs = vec![Settings::new()];
    for (name, value) in settings {
        let is_list = name == "prefixes" || name == "hook_points" && crosscoders;
        let values = match value {
            Value::Array(values) if is_list && !values.iter().any(Value::is_array) => vec![Value::Array(values)],
            Value::Array(values) if values.is_empty() => {
                return Err(Error::invalid(format!("`{name}`"), "one value or more", "an empty list"));
            }
            Value::Array(values) => values,
            value => vec![value],
        };
        // One hook point is a list of one.
        let value_of = |value: &Value| match value {
            Value::String(_) if name == "hook_points" => Value::Array(vec![value.clone()]),
            value => value.clone(),
        };
        let with = |run: &Settings, value: &Value| {
            let mut run = run.clone();
            run.insert(name.clone(), value_of(value));
            run
        };
        runs = runs.iter().flat_map(|run| values.iter().map(|value| with(run, value)).collect::<Vec<_>>()).collect();
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(value: Value) -> Settings {
        value.as_object().cloned().unwrap_or_default()
    }

    fn configs(all: Value, listed: Vec<Value>) -> Vec<TrainConfig> {
        let runs = grid(&settings(all), listed.into_iter().map(settings).collect());
        let configs = runs.and_then(|runs| runs.iter().map(TrainConfig::from_settings).collect());
        configs.unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_grid_has_every_combination_and_listed_runs_lie_over_it() {
        let all = json!({ "k": [4, 8], "architecture": ["topk", "batch-topk"], "d_sae": 64, "lr": [0.1, 0.01] });
        let runs = configs(all, vec![]);
        assert_eq!(runs.len(), 8);
        assert!(runs.iter().all(|config| config.d_sae == Some(64)));
        let matryoshka = json!({ "architecture": "matryoshka", "prefixes": [8, 16] });
        let runs =
            configs(json!({ "k": [4, 8], "d_sae": 64 }), vec![matryoshka, json!({ "expansion_factor": 2, "k": 3 })]);
        let found: Vec<_> = runs.iter().map(|config| (config.k, config.d_sae, config.prefixes.len())).collect();
        assert_eq!(found, [(4, Some(64), 2), (8, Some(64), 2), (3, None, 0)]);
    }

    #[test]
    fn places_are_runs_and_a_crosscoders_are_one() {
        let places = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"];
        let numbers = |runs: Vec<TrainConfig>| runs.iter().map(|config| config.hook_points.len()).collect::<Vec<_>>();
        assert_eq!(numbers(configs(json!({ "hook_points": places }), vec![])), [1, 1]);
        let crosscoders = json!({ "architecture": ["crosscoder"], "k": [4, 8], "hook_points": places });
        assert_eq!(numbers(configs(crosscoders, vec![])), [2, 2]);
        let of_lists = json!({ "architecture": "crosscoder", "hook_points": [places, places] });
        assert_eq!(numbers(configs(of_lists, vec![])), [2, 2]);
    }

    #[test]
    fn an_empty_list_is_named() {
        let message = grid(&settings(json!({ "k": [] })), vec![]).map_err(|error| error.to_string());
        assert_eq!(message, Err("`k`: expected one value or more, found an empty list".into()));
    }
}
