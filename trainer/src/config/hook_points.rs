//! The hook points of a config, checked against its architecture.

use harvester::{HarvestManifest, HookPoint, Location};

use crate::{Error, Result, TrainConfig, sae::HookPoints, step::architecture::TrainArchitecture};

impl TrainConfig {
    /// The hook points that the SAE will read and reconstruct, all of which the harvested folder must have.
    pub(crate) fn hook_points_in(&self, manifest: &HarvestManifest) -> Result<HookPoints> {
        let harvested: Vec<_> = manifest.hook_points.iter().map(|summary| summary.name).collect();
        self.hook_points_among(&harvested, |point| Ok(manifest.hook_point(point)?.d_model))
    }

    /// The hook points that the SAE will read and reconstruct: those in the config, which need not be `there`, or else
    /// the only one that is there. `width_of` is called for each hook point, and refuses those that are not available.
    pub(crate) fn hook_points_among(
        &self,
        there: &[HookPoint],
        width_of: impl Fn(HookPoint) -> Result<usize>,
    ) -> Result<HookPoints> {
        self.check_columns()?;
        let inputs = match &self.hook_points[..] {
            [] => vec![the_only_one(self.target_hook_point, there)?],
            named => named.to_vec(),
        };
        let all: Vec<_> = inputs.iter().copied().chain(self.target_hook_point).collect();
        if let Some((_, twice)) = all.iter().enumerate().find(|(at, point)| all[..*at].contains(point)) {
            return Err(Error::invalid("`hook_points`", "each hook point once", format!("{twice} twice")));
        }
        let widths = all.iter().map(|point| width_of(*point)).collect::<Result<Vec<usize>>>()?;
        Ok(match self.architecture {
            TrainArchitecture::Crosscoder => HookPoints::Crosscoder(inputs.into_iter().zip(widths).collect()),
            TrainArchitecture::Transcoder => {
                HookPoints::Transcoder { from: inputs.first().copied(), to: self.target_hook_point }
            }
            _ => HookPoints::Autoencoder(inputs.first().copied()),
        })
    }

    /// For vectors, which no model computed: refuses hook points, and architectures that need several.
    pub(crate) fn check_vectors(&self, vectors: &Location) -> Result<()> {
        if !self.architecture.maps_one_column() {
            let expected = "one that reads and reconstructs the same vectors: only a model has several hook points";
            return Err(Error::invalid("`architecture`", expected, self.architecture.to_string()));
        }
        match self.named_hook_points().first() {
            None => Ok(()),
            Some(point) => {
                let expected = format!("none: {vectors} holds vectors, not a model's activations");
                Err(Error::invalid("`hook_points`", expected, point.to_string()))
            }
        }
    }

    /// Checks that the number of hook points fits the architecture.
    ///
    /// # Errors
    /// Names the hook points that are missing or too many.
    pub(crate) fn check_columns(&self) -> Result<()> {
        let (architecture, target) = (self.architecture, self.target_hook_point);
        let n_inputs = self.named_hook_points().len() - usize::from(target.is_some());
        let refuse = |what: &str, expected: &str, found: String| Err(Error::invalid(what, expected, found));
        match (architecture, n_inputs, target) {
            (TrainArchitecture::Crosscoder, 0 | 1, _) => refuse(
                "`hook_points`",
                "two hook points or more, which a crosscoder reads together",
                n_inputs.to_string(),
            ),
            (TrainArchitecture::Transcoder, _, None) => {
                refuse("`target_hook_point`", "the hook point that a transcoder predicts", "none".into())
            }
            (TrainArchitecture::Transcoder, 2.., _) => refuse(
                "`hook_points`",
                "one hook point, from which a transcoder predicts another",
                n_inputs.to_string(),
            ),
            (TrainArchitecture::Transcoder, ..) => Ok(()),
            (_, _, Some(target)) => {
                let expected =
                    format!("none for {architecture}: only `architecture` transcoder predicts another hook point");
                refuse("`target_hook_point`", &expected, target.to_string())
            }
            (TrainArchitecture::Crosscoder, ..) | (_, 0 | 1, None) => Ok(()),
            (_, several, None) => {
                let expected =
                    format!("one hook point for {architecture}: only `architecture` crosscoder reads several");
                refuse("`hook_points`", &expected, several.to_string())
            }
        }
    }
}

/// The only hook point other than the target.
fn the_only_one(target: Option<HookPoint>, there: &[HookPoint]) -> Result<HookPoint> {
    let candidates: Vec<_> = there.iter().copied().filter(|point| Some(*point) != target).collect();
    match candidates[..] {
        [only] => Ok(only),
        [] => Err(Error::invalid("`hook_points`", "one, such as blocks.14.hook_resid_post", "none")),
        _ => {
            let names: Vec<_> = candidates.iter().map(ToString::to_string).collect();
            Err(Error::invalid("`hook_points`", format!("one of {}", names.join(", ")), "none"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
            let vectors = config.check_vectors(&Path::new("digits.parquet").into());
            assert_eq!(vectors.is_ok(), architecture.maps_one_column() && n_inputs == 0 && !with_target);
            config.hook_points_among(&points[..1], |_| Ok(8)).map_err(|error| error.to_string()).err()
        };
        let says = |found: Option<String>, what: &str| found.is_some_and(|message| message.contains(what));
        for architecture in TrainArchitecture::ALL.into_iter().filter(|it| it.maps_one_column()) {
            assert_eq!((refused(architecture, 0, false), refused(architecture, 1, false)), (None, None));
            assert!(says(refused(architecture, 2, false), "`hook_points`: expected one hook point for"));
            assert!(says(refused(architecture, 1, true), "`target_hook_point`: expected none for"));
        }
        assert_eq!(refused(TrainArchitecture::Transcoder, 1, true), None);
        assert_eq!(refused(TrainArchitecture::Transcoder, 0, true), None, "the only one in the folder");
        assert!(says(refused(TrainArchitecture::Transcoder, 1, false), "`target_hook_point`: expected the hook point"));
        assert!(says(refused(TrainArchitecture::Transcoder, 2, true), "found 2"));
        assert_eq!(refused(TrainArchitecture::Crosscoder, 3, false), None);
        assert!(says(
            refused(TrainArchitecture::Crosscoder, 1, false),
            "`hook_points`: expected two hook points or more"
        ));
        assert!(says(refused(TrainArchitecture::Crosscoder, 2, true), "`target_hook_point`: expected none for"));
    }
}
