//! Which columns a config names, and whether they are what its architecture reads and rebuilds.

use std::path::Path;

use harvester::{HarvestManifest, HookPoint};

use crate::{Error, Result, TrainConfig, data::columns::Columns, step::architecture::TrainArchitecture};

impl Columns {
    /// The columns that `config` names, all of them harvested; without a name, the only one that is there.
    pub(crate) fn of(config: &TrainConfig, manifest: &HarvestManifest) -> Result<Self> {
        let harvested: Vec<_> = manifest.hook_points.iter().map(|summary| summary.name).collect();
        let columns = Self::named(config, &harvested)?;
        columns.all().iter().try_for_each(|point| manifest.hook_point(*point).map(drop))?;
        Ok(columns)
    }

    /// The columns that `config` names, whether or not they are `there`; without a name, the only one of those.
    pub(crate) fn named(config: &TrainConfig, there: &[HookPoint]) -> Result<Self> {
        config.check_columns()?;
        let inputs = match (config.hook_point, &config.hook_points[..]) {
            (Some(only), []) => vec![only],
            (None, []) => vec![the_only_one(config.target_hook_point, there)?],
            (Some(first), several) if several[0] != first => {
                let expected = format!("the first of hook_points, {}, or none", several[0]);
                return Err(Error::invalid("hook_point", expected, first.to_string()));
            }
            (_, several) => several.to_vec(),
        };
        let columns = Self { inputs, target: config.target_hook_point };
        let all = columns.all();
        match all.iter().enumerate().find(|(place, point)| all[..*place].contains(point)) {
            Some((_, twice)) => Err(Error::invalid("--hook-point", "each place once", format!("{twice} twice"))),
            None => Ok(columns),
        }
    }

    /// Refuses names of columns for data that have none.
    pub(crate) fn none(config: &TrainConfig, vectors: &Path) -> Result<Self> {
        if !config.architecture.maps_one_column() {
            let expected = "one that reads and rebuilds one place: vectors of no model have no other";
            return Err(Error::invalid("--arch", expected, config.architecture.to_string()));
        }
        match config.named_hook_points().first() {
            None => Ok(Self::default()),
            Some(point) => {
                let expected = format!("none: {} holds vectors, not a model's activations", vectors.display());
                Err(Error::invalid("--hook-point", expected, point.to_string()))
            }
        }
    }
}

/// The only column beside the target.
fn the_only_one(target: Option<HookPoint>, there: &[HookPoint]) -> Result<HookPoint> {
    let candidates: Vec<_> = there.iter().copied().filter(|point| Some(*point) != target).collect();
    match candidates[..] {
        [only] => Ok(only),
        _ => {
            let names: Vec<_> = candidates.iter().map(ToString::to_string).collect();
            Err(Error::invalid("--hook-point", format!("one of {}", names.join(", ")), "none"))
        }
    }
}

impl TrainConfig {
    /// Checks that as many places are named as the architecture reads and rebuilds.
    ///
    /// # Errors
    /// Names what is missing, or is too much.
    pub fn check_columns(&self) -> Result<()> {
        let (architecture, target) = (self.architecture, self.target_hook_point);
        let n_inputs = self.named_hook_points().len() - usize::from(target.is_some());
        let refuse = |what: &str, expected: &str, found: String| Err(Error::invalid(what, expected, found));
        match (architecture, n_inputs, target) {
            (TrainArchitecture::Crosscoder, 0 | 1, _) => {
                refuse("--hook-point", "two places or more, which a crosscoder reads together", n_inputs.to_string())
            }
            (TrainArchitecture::Transcoder, _, None) => {
                refuse("--target-hook-point", "the place that a transcoder is to predict", "none".into())
            }
            (TrainArchitecture::Transcoder, 2.., _) => {
                refuse("--hook-point", "one place, from which a transcoder predicts another", n_inputs.to_string())
            }
            (TrainArchitecture::Transcoder, ..) => Ok(()),
            (_, _, Some(target)) => {
                let expected = format!("none for {architecture}: only --arch transcoder predicts another place");
                refuse("--target-hook-point", &expected, target.to_string())
            }
            (TrainArchitecture::Crosscoder, ..) | (_, 0 | 1, None) => Ok(()),
            (_, several, None) => {
                let expected = format!("one place for {architecture}: only --arch crosscoder reads several");
                refuse("--hook-point", &expected, several.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_architecture_has_as_many_places_as_it_needs() {
        let points: Vec<HookPoint> = (0..3).map(HookPoint::resid_post).collect();
        let refused = |architecture, n_inputs: usize, with_target: bool| {
            let config = TrainConfig {
                architecture,
                hook_points: points[..n_inputs].to_vec(),
                target_hook_point: with_target.then_some(HookPoint::Embed),
                ..TrainConfig::default()
            };
            let vectors = Columns::none(&config, Path::new("digits.parquet")).map_err(|error| error.to_string());
            assert_eq!(vectors.is_ok(), architecture.maps_one_column() && n_inputs == 0 && !with_target);
            Columns::named(&config, &points[..1]).map_err(|error| error.to_string()).err()
        };
        let says = |found: Option<String>, what: &str| found.is_some_and(|message| message.contains(what));
        for architecture in TrainArchitecture::ALL.into_iter().filter(|it| it.maps_one_column()) {
            assert_eq!((refused(architecture, 0, false), refused(architecture, 1, false)), (None, None));
            assert!(says(refused(architecture, 2, false), "--hook-point: expected one place for"));
            assert!(says(refused(architecture, 1, true), "--target-hook-point: expected none for"));
        }
        assert_eq!(refused(TrainArchitecture::Transcoder, 1, true), None);
        assert_eq!(refused(TrainArchitecture::Transcoder, 0, true), None, "the only one there");
        assert!(says(refused(TrainArchitecture::Transcoder, 1, false), "--target-hook-point: expected the place"));
        assert!(says(refused(TrainArchitecture::Transcoder, 2, true), "found 2"));
        assert_eq!(refused(TrainArchitecture::Crosscoder, 3, false), None);
        assert!(says(refused(TrainArchitecture::Crosscoder, 1, false), "--hook-point: expected two places or more"));
        assert!(says(refused(TrainArchitecture::Crosscoder, 2, true), "--target-hook-point: expected none for"));
    }
}
