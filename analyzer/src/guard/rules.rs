//! [`GuardRules`]: what a guard watches and does, as a TOML file says it.
//!
//! ```toml
//! hold_back = 8                        # tokens that are not sent before they are judged
//!
//! [[score]]
//! name = "sea"
//! of = { latent = 2626 }               # or { max = [2626, 12] }, { sum = .. }, { direction = FILE }, { probe = FILE }
//! smooth = { mean = 4 }                # or { ema = 0.3 }; without it, the score of the token itself
//! above = 10                           # a token hits if its smoothed score is above this
//! needs = { hits = 2, of = 8 }         # 2 of the last 8 tokens must hit; without it, this token
//! release = { below = 4, tokens = 16 } # it stays on until 16 tokens in turn are below 4; without it, while `needs` holds
//! at = "generated"                     # the positions that count; default: all
//!
//! [[rule]]
//! name = "no tales of the sea"
//! any = ["sea"]                        # and all = [..], not = [..]
//! then = { intervene = ["suppress 2626"] }   # or "log", "flag", { stop = "A text to end with." }
//! ```

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use harvester::Error as Harvester;
use serde::{Deserialize, Serialize};

use crate::{Positions, Result, SteerEdit};

/// Scores and rules. See the module for the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardRules {
    /// Number of tokens that are written but not sent until so many more have been judged. Default 0.
    #[serde(default)]
    pub hold_back: usize,
    /// What is watched.
    #[serde(rename = "score")]
    pub scores: Vec<Score>,
    /// What happens.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
}

/// A number for each token, and when it is on. Position 0 and attention sinks have none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Its name in rules.
    pub name: String,
    /// What it measures.
    pub of: ScoreOf,
    /// The path of the SAE; `None`: the one that the guard is opened with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sae: Option<String>,
    /// How tokens are put together. Default: each stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smooth: Option<Smooth>,
    /// A token hits if its smoothed score is above this.
    pub above: f32,
    /// How many tokens must hit. Default: this one.
    #[serde(default)]
    pub needs: Needs,
    /// When it goes off. Default: as soon as `needs` no longer holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// The positions that count. At others the score stays as it was.
    #[serde(default)]
    pub at: Positions,
}

/// What a score measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreOf {
    /// The activation of a latent.
    Latent(u32),
    /// The largest activation of some latents.
    Max(Vec<u32>),
    /// The sum of the activations of some latents.
    Sum(Vec<u32>),
    /// The part of the activation along a vector, of the file that `refract direction` writes.
    Direction(PathBuf),
    /// The log odds of a probe, of the file that `refract find` fits.
    Probe(PathBuf),
}

/// How the scores of several tokens are put together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Smooth {
    /// The mean of this token and those before it, so many in all, or as many as there are.
    Mean(usize),
    /// `s' = a x + (1 - a) s`, from the first token's own score.
    Ema(f32),
}

/// How many of the last tokens must hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needs {
    /// So many
    pub hits: usize,
    /// of the last so many.
    pub of: usize,
}

/// When a score that is on goes off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Its smoothed value is below this
    pub below: f32,
    /// on so many tokens in turn. Default 1.
    #[serde(default = "one")]
    pub tokens: usize,
}

/// What happens where some scores are on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name in what is recorded.
    pub name: String,
    /// Scores that must all be on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<String>,
    /// Scores of which one must be on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<String>,
    /// Scores that must all be off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not: Vec<String>,
    /// What happens.
    pub then: Action,
}

/// What a rule does while it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Records it.
    Log,
    /// Records it, and marks the text.
    Flag,
    /// Ends the text with this one, which may be empty.
    Stop(String),
    /// Applies edits, as steering does, on each token on which the rule holds.
    Intervene(Vec<SteerEdit>),
}

fn one() -> usize {
    1
}

impl Default for Needs {
    fn default() -> Self {
        Self { hits: 1, of: 1 }
    }
}

impl Rule {
    /// The scores that it names.
    pub(super) fn scores(&self) -> impl Iterator<Item = &String> {
        self.all.iter().chain(&self.any).chain(&self.not)
    }
}

impl GuardRules {
    /// Reads a file. Paths in it are relative to the present folder, as those of edits on the command line.
    ///
    /// # Errors
    /// A file that cannot be read or is not of this form, and what [`Self::check`] refuses.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Harvester::io("read", path))?;
        let hint = "The analyzer's README, \"monitor: guards\", shows a whole file";
        let refuse = |found: String| Harvester::malformed(path, "the rules of a guard", found, hint);
        let rules: Self = toml::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        rules.check().map_err(|error| refuse(error.to_string()))?;
        Ok(rules)
    }

    /// The SAEs that scores, edits and their conditions name.
    pub(super) fn sae_names(&self) -> Vec<String> {
        let of_edits = self.rules.iter().flat_map(|rule| match &rule.then {
            Action::Intervene(edits) => edits.iter().flat_map(SteerEdit::sae_names).collect(),
            Action::Log | Action::Flag | Action::Stop(_) => vec![],
        });
        self.scores.iter().filter_map(|score| score.sae.clone()).chain(of_edits).collect()
    }

    /// Refuses rules that cannot hold or contradict each other.
    ///
    /// # Errors
    /// No score or no rule; a name that stands twice or is of no score; a number that is not finite or out of range; a
    /// release above the threshold; a rule on no score, or on one that must be both on and off.
    pub fn check(&self) -> Result<()> {
        let invalid =
            |what: String, expected: &str, found: String| Err(Harvester::invalid(what, expected, found).into());
        if self.scores.is_empty() || self.rules.is_empty() {
            let found = format!("{} and {}", self.scores.len(), self.rules.len());
            return invalid("guard".into(), "at least one [[score]] and one [[rule]]", found);
        }
        let mut names = HashSet::new();
        let all = self.scores.iter().map(|score| &score.name).chain(self.rules.iter().map(|rule| &rule.name));
        for name in all {
            if name.is_empty() || !names.insert(name) {
                return invalid("guard".into(), "a name of its own for each score and rule", format!("`{name}`"));
            }
        }
        self.scores.iter().try_for_each(Score::check)?;
        for rule in &self.rules {
            let what = format!("rule `{}`", rule.name);
            let is_known = |name: &&String| self.scores.iter().any(|score| score.name == **name);
            if let Some(name) = rule.scores().find(|name| !is_known(name)) {
                let known: Vec<_> = self.scores.iter().map(|score| &*score.name).collect();
                return invalid(what, &format!("scores among {}", known.join(", ")), format!("`{name}`"));
            }
            if rule.all.is_empty() && rule.any.is_empty() {
                return invalid(what, "a score in `all` or `any`", "none".into());
            }
            let is_on = |name: &&String| rule.all.contains(name) || rule.any.len() == 1 && rule.any.contains(name);
            if let Some(name) = rule.not.iter().find(is_on) {
                return invalid(what, "scores that can be on and off together", format!("`{name}` on and off"));
            }
            if matches!(&rule.then, Action::Intervene(edits) if edits.is_empty()) {
                return invalid(what, "at least one edit in `intervene`", "none".into());
            }
        }
        Ok(())
    }
}

impl Score {
    fn check(&self) -> Result<()> {
        let Self { name, of, smooth, above, needs, release, .. } = self;
        let latents = |of: &ScoreOf| matches!(of, ScoreOf::Max(latents) | ScoreOf::Sum(latents) if latents.is_empty());
        let bad_smooth = match smooth {
            Some(Smooth::Mean(0)) => Some("0".to_string()),
            Some(Smooth::Ema(a)) if !(*a > 0.0 && *a <= 1.0) => Some(a.to_string()),
            _ => None,
        };
        let found = if latents(of) {
            Some(("`of`", "at least one latent", "none".into()))
        } else if !above.is_finite() {
            Some(("`above`", "a finite number", above.to_string()))
        } else if let Some(found) = bad_smooth {
            Some(("`smooth`", "a mean of 1 token or more, or an ema above 0 and at most 1", found))
        } else if needs.hits == 0 || needs.hits > needs.of {
            Some(("`needs`", "1 hit or more, of at least as many tokens", format!("{} of {}", needs.hits, needs.of)))
        } else {
            release.and_then(|Release { below, tokens }| match below <= *above && tokens > 0 {
                true => None,
                false => {
                    let expected = "a value at or below `above`, for 1 token or more";
                    Some(("`release`", expected, format!("below {below} for {tokens}, above {above}")))
                }
            })
        };
        match found {
            None => Ok(()),
            Some((what, expected, found)) => {
                Err(Harvester::invalid(format!("{what} of score `{name}`"), expected, found).into())
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const RULES: &str = r#"
        hold_back = 2
        [[score]]
        name = "sea"
        of = { latent = 12 }
        smooth = { mean = 4 }
        above = 10
        needs = { hits = 2, of = 8 }
        release = { below = 4, tokens = 3 }
        at = "generated"
        [[score]]
        name = "mood"
        of = { direction = "mood.safetensors" }
        above = 1.5
        [[rule]]
        name = "no sea"
        any = ["sea"]
        not = ["mood"]
        then = { intervene = ["suppress 12", { kind = "clamp", latent = 3, value = 1.0, at = "generated" }] }
        [[rule]]
        name = "end"
        all = ["sea", "mood"]
        then = { stop = "No." }
    "#;

    #[test]
    fn a_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.toml");
        std::fs::write(&path, RULES).unwrap();
        let rules = GuardRules::read(&path).unwrap();
        assert_eq!(rules.scores[0].needs, Needs { hits: 2, of: 8 });
        assert_eq!(rules.scores[1].of, ScoreOf::Direction("mood.safetensors".into()));
        let Action::Intervene(edits) = &rules.rules[0].then else { panic!("it intervenes") };
        let said: Vec<_> = edits.iter().map(|edit| edit.what.to_string()).collect();
        assert_eq!(said, ["suppress 12", "clamp 3=1"]);
        assert_eq!(rules.rules[1].then, Action::Stop("No.".into()));
    }

    #[test]
    fn rules_that_cannot_hold_are_refused_by_name() {
        let refused = |from: &str, to: &str| {
            let changed = RULES.replacen(from, to, 1);
            assert_ne!(changed, RULES, "{from}");
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("rules.toml");
            std::fs::write(&path, changed).unwrap();
            GuardRules::read(&path).unwrap_err().to_string()
        };
        for (from, to, says) in [
            ("above = 10", "above = nan", "finite"),
            ("above = 10", "above = 3", "release"),
            ("{ mean = 4 }", "{ mean = 0 }", "smooth"),
            ("{ mean = 4 }", "{ ema = 1.5 }", "smooth"),
            ("{ mean = 4 }", "{ median = 4 }", "median"),
            ("hits = 2, of = 8", "hits = 9, of = 8", "9 of 8"),
            ("name = \"mood\"", "name = \"sea\"", "`sea`"),
            ("any = [\"sea\"]", "any = [\"see\"]", "`see`"),
            ("any = [\"sea\"]", "any = []", "`all` or `any`"),
            ("not = [\"mood\"]", "not = [\"sea\"]", "on and off"),
            ("{ latent = 12 }", "{ max = [] }", "at least one latent"),
            ("suppress 12", "supress 12", "supress"),
            ("hold_back", "holdback", "holdback"),
        ] {
            let error = refused(from, to);
            assert!(error.contains(says) && error.contains("rules.toml"), "{to}: {error}");
        }
    }
}
