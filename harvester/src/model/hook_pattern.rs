//! [`HookPattern`]: hook points as a user writes them: one name, or several points with `*`. It is resolved to
//! [`HookPoint`]s once the model is known.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{HookPoint, ModelConfig, Site};
use crate::{Error, Result};

/// `blocks.14.hook_resid_post`, or `blocks.*.hook_resid_post`, where `*` stands for any text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HookPattern {
    /// One point.
    Point(HookPoint),
    /// All points of a model whose names match.
    Names(String),
}

impl HookPattern {
    /// The points of a model that match `patterns`, each once: in the order of the patterns, and in the order of the
    /// pass within one pattern.
    ///
    /// # Errors
    /// If the model lacks a point, or no name matches.
    pub fn resolve(patterns: &[Self], model: &ModelConfig) -> Result<Vec<HookPoint>> {
        let mut points: Vec<HookPoint> = vec![];
        for pattern in patterns {
            let more = pattern.points(model)?;
            more.into_iter().for_each(|point| {
                if !points.contains(&point) {
                    points.push(point);
                }
            });
        }
        Ok(points)
    }

    fn points(&self, model: &ModelConfig) -> Result<Vec<HookPoint>> {
        let pattern = match self {
            Self::Point(point) => return point.check(model).map(|()| vec![*point]),
            Self::Names(pattern) => pattern,
        };
        let blocks = (0..model.n_layers).flat_map(|layer| Site::ALL.map(|site| HookPoint::Block { layer, site }));
        let of_model = std::iter::once(HookPoint::Embed).chain(blocks).filter(|point| point.check(model).is_ok());
        let points: Vec<_> = of_model.filter(|point| fits(pattern, &point.to_string())).collect();
        if points.is_empty() {
            let sites: Vec<_> = Site::ALL.iter().map(|site| site.name()).collect();
            let last = model.n_layers.saturating_sub(1);
            let expected = format!(
                "names like hook_embed or blocks.0.SITE to blocks.{last}.SITE, SITE one of {}; `*`, for \
                 any text, is the only wildcard",
                sites.join(", ")
            );
            return Err(Error::invalid("hook point", expected, format!("`{pattern}`, which matches none")));
        }
        Ok(points)
    }
}

/// True if `name` equals `pattern` with some text for each `*`.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => {
            let Some(name) = name.strip_prefix(start) else { return false };
            (0..=name.len()).any(|skipped| name.is_char_boundary(skipped) && fits(rest, &name[skipped..]))
        }
    }
}

impl FromStr for HookPattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.contains('*') { Ok(Self::Names(text.to_string())) } else { text.parse().map(Self::Point) }
    }
}

impl fmt::Display for HookPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Point(point) => point.fmt(f),
            Self::Names(pattern) => f.write_str(pattern),
        }
    }
}

impl TryFrom<String> for HookPattern {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<HookPattern> for String {
    fn from(pattern: HookPattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::Checkpoint;

    fn resolve(patterns: &[&str]) -> Result<Vec<String>> {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama");
        let patterns: Vec<HookPattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
        let points = HookPattern::resolve(&patterns, Checkpoint::open(&tiny).unwrap().config())?;
        Ok(points.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_star_stands_for_every_block() {
        let wanted = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post"];
        assert_eq!(resolve(&["blocks.*.hook_resid_post"]).unwrap(), wanted);
        assert_eq!(resolve(&["*"]).unwrap().len(), 1 + 3 * Site::ALL.len());
        assert_eq!(resolve(&["blocks.1.*normalized"]).unwrap().len(), 2);
    }

    #[test]
    fn each_point_comes_once_in_the_order_asked_for() {
        let points = resolve(&["blocks.2.hook_resid_post", "blocks.*.hook_resid_post", "hook_embed"]).unwrap();
        assert_eq!(points[0], "blocks.2.hook_resid_post");
        assert_eq!(points.len(), 4);
    }

    #[test]
    fn what_fits_nothing_is_refused_with_what_there_is() {
        let message = resolve(&["blocks.*.hook_resid_past"]).unwrap_err().to_string();
        assert!(message.contains("hook_resid_post") && message.contains("blocks.2.SITE"), "{message}");
        let message = resolve(&["blocks.0..2.*"]).unwrap_err().to_string();
        assert!(message.contains("the only wildcard"), "{message}");
        assert!(resolve(&["blocks.3.hook_resid_post"]).is_err());
        assert!("blocks.x.hook_resid_post".parse::<HookPattern>().is_err());
    }
}
