//! [`Measures`]: the scores of rows at their hook points, before they are smoothed.

use std::path::Path;

use harvester::{Error as Harvester, HookPoint, LanguageModel, is_ordinary, norm};
use trainer::LatentEncoder;

use super::rules::{Score, ScoreOf};
use crate::{Probe, Result, SteerVector, SteeredSae, steer::check_width};

/// What each score of some rules measures, ready to read rows.
#[derive(Debug)]
pub(super) struct Measures<'a> {
    /// In the order of the scores.
    all: Vec<Measure<'a>>,
}

#[derive(Debug)]
struct Measure<'a> {
    hook_point: HookPoint,
    /// Rows with a larger norm are attention sinks.
    sink_norm: f32,
    of: Reads<'a>,
}

#[derive(Debug)]
enum Reads<'a> {
    /// Latents, and what is made of them.
    Latents(Box<LatentEncoder<'a>>, Of),
    /// The part along a vector of length 1.
    Direction(Vec<f32>),
}

#[derive(Debug)]
enum Of {
    Max,
    Sum,
    /// `bias + sum_j w_j z_j`, with the weights in the order of the encoder's latents.
    Weighted(f32, Vec<f32>),
}

impl<'a> Measures<'a> {
    /// # Errors
    /// A latent, a hook point or an SAE that is not there; a file that cannot be read; a vector of another width; a
    /// probe of another SAE.
    pub(super) fn new(model: &LanguageModel, saes: &[SteeredSae<'a>], scores: &[Score]) -> Result<Self> {
        let measure = |score: &Score| Measure::new(model, saes, score).map_err(|error| in_score(score, error));
        Ok(Self { all: scores.iter().map(measure).collect::<Result<_>>()? })
    }

    /// The hook points of the scores, in order of the pass.
    pub(super) fn hook_points(&self) -> Vec<HookPoint> {
        let mut points: Vec<_> = self.all.iter().map(|measure| measure.hook_point).collect();
        points.sort_unstable();
        points.dedup();
        points
    }

    /// Reads the scores that are measured at `point`. `into[score][row]` gets them; `None` for position 0 and attention
    /// sinks. `x`: `[rows, width]`
    pub(super) fn read(
        &mut self,
        point: HookPoint,
        positions: &[usize],
        x: &[f32],
        into: &mut [Vec<Option<f32>>],
    ) -> Result<()> {
        let width = x.len() / positions.len().max(1);
        for (measure, into) in self.all.iter_mut().zip(into).filter(|(measure, _)| measure.hook_point == point) {
            let row = |row: usize| &x[row * width..][..width];
            let is_read = |at: &usize| is_ordinary(positions[*at] as u32, norm(row(*at)), measure.sink_norm);
            let read: Vec<usize> = (0..positions.len()).filter(is_read).collect();
            into.clear();
            into.resize(positions.len(), None);
            match &mut measure.of {
                Reads::Direction(unit) => {
                    for at in read {
                        let along = row(at).iter().zip(&*unit).map(|(x, u)| f64::from(*x) * f64::from(*u));
                        into[at] = Some(along.sum::<f64>() as f32);
                    }
                }
                Reads::Latents(encoder, of) => {
                    let rows: Vec<f32> = read.iter().flat_map(|at| row(*at)).copied().collect();
                    let latents = encoder.latents().to_vec();
                    let acts = encoder.encode(&rows)?;
                    for (number, at) in read.into_iter().enumerate() {
                        let z = latents.iter().map(|latent| acts.get(number, *latent));
                        into[at] = Some(match of {
                            Of::Max => z.fold(0.0, f32::max),
                            Of::Sum => z.sum(),
                            Of::Weighted(bias, weights) => *bias + z.zip(&*weights).map(|(z, w)| z * w).sum::<f32>(),
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

impl<'a> Measure<'a> {
    fn new(model: &LanguageModel, saes: &[SteeredSae<'a>], score: &Score) -> Result<Self> {
        let sae = || -> Result<&SteeredSae<'a>> {
            let found = match &score.sae {
                Some(name) => saes.iter().find(|sae| sae.name == *name),
                None => saes.first(),
            };
            let known: Vec<_> = saes.iter().map(|sae| &*sae.name).collect();
            found.ok_or_else(|| {
                Harvester::invalid("`sae`", format!("one of {}", known.join(", ")), format!("{:?}", score.sae)).into()
            })
        };
        let of_latents = |latents: &[u32], of: Of| -> Result<Self> {
            let site = sae()?.site;
            site.sae.config().hook_points.check_autoencoder()?;
            let (hook_point, sink_norm) = (site.hook_point, site.sink_norm);
            check_width("SAE", site.sae.d_in(), hook_point, model)?;
            let d_sae = site.sae.d_sae();
            if let Some(latent) = latents.iter().find(|latent| **latent as usize >= d_sae) {
                return Err(Harvester::invalid("latent", format!("below {d_sae}"), latent.to_string()).into());
            }
            Ok(Self { hook_point, sink_norm, of: Reads::Latents(LatentEncoder::new(site.sae, latents)?.into(), of) })
        };
        match &score.of {
            ScoreOf::Latent(latent) => of_latents(&[*latent], Of::Sum),
            ScoreOf::Max(latents) => of_latents(latents, Of::Max),
            ScoreOf::Sum(latents) => of_latents(latents, Of::Sum),
            ScoreOf::Probe(path) => {
                let probe = Probe::read(path)?;
                let sae = sae()?;
                probe.check_sae(path, sae.site.sae.d_sae(), sae.sha256)?;
                of_latents(&probe.latents(), Of::Weighted(probe.bias, probe.weights()))
            }
            ScoreOf::Direction(path) => Self::of_direction(model, saes, path),
        }
    }

    fn of_direction(model: &LanguageModel, saes: &[SteeredSae<'a>], path: &Path) -> Result<Self> {
        let read = SteerVector::read(path)?;
        read.check_model(model)?;
        let Some(hook_point) = read.hook_point.or_else(|| saes.first().map(|sae| sae.site.hook_point)) else {
            return Err(Harvester::invalid("direction", "a file that names its hook point", "none").into());
        };
        hook_point.check(model.config())?;
        check_width("vector", read.vector.len(), hook_point, model)?;
        let length = norm(&read.vector);
        if length == 0.0 {
            return Err(Harvester::invalid("direction", "a vector with a length", "zeros").into());
        }
        let sites = saes.iter().map(|sae| sae.site).filter(|site| site.hook_point == hook_point);
        let sink_norm = sites.map(|site| site.sink_norm).fold(f32::INFINITY, f32::min);
        let unit = read.vector.iter().map(|value| value / length).collect();
        Ok(Self { hook_point, sink_norm, of: Reads::Direction(unit) })
    }
}

/// Says which score an error is about.
fn in_score(score: &Score, error: crate::Error) -> crate::Error {
    match error {
        crate::Error::Harvester(Harvester::Invalid { what, expected, found }) => {
            Harvester::Invalid { what: format!("score `{}`: {what}", score.name), expected, found }.into()
        }
        other => other,
    }
}
