//! [`Judge`]: takes the scores of the tokens of some texts, one after the other, and says where rules hold.

use std::collections::HashMap;

use serde::Serialize;

use super::{
    rules::{Action, GuardRules},
    signal::Signal,
};

/// A token on which a rule begins or ceases to hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GuardEvent {
    /// Number of the text.
    pub text: usize,
    /// Name of the rule.
    pub rule: String,
    /// What it does.
    pub action: &'static str,
    /// True where it begins to hold, false where it ceases to.
    pub begins: bool,
    /// Position of the token in the text.
    pub position: usize,
    /// The token.
    pub token: u32,
    /// The smoothed value of each score of the rule; `None` before its first token.
    pub scores: Vec<(String, Option<f32>)>,
}

impl GuardEvent {
    /// What happens, with the scores.
    pub(super) fn said(&self) -> String {
        let score = |(name, value): &(String, Option<f32>)| match value {
            Some(value) => format!("{name} {value:.2}"),
            None => format!("{name} none yet"),
        };
        let scores: Vec<String> = self.scores.iter().map(score).collect();
        let what = if self.begins { self.action } else { "end of" };
        format!("{what}: {} ({})", self.rule, scores.join(", "))
    }
}

/// A token of a text with its scores.
pub(super) struct Judged<'s> {
    pub(super) text: usize,
    pub(super) position: usize,
    pub(super) token: u32,
    /// Length of the prompt of the text.
    pub(super) prompt_len: usize,
    /// `None`: the token does not count.
    pub(super) scores: &'s [Option<f32>],
}

/// The state of the rules in each text.
#[derive(Debug)]
pub(super) struct Judge {
    rules: GuardRules,
    texts: HashMap<usize, Text>,
    events: Vec<GuardEvent>,
}

/// The state of the rules in one text.
#[derive(Debug, Default)]
struct Text {
    signals: Vec<Signal>,
    holds: Vec<bool>,
    stopped: Option<usize>,
    is_flagged: bool,
}

impl Judge {
    pub(super) fn new(rules: GuardRules) -> Self {
        Self { rules, texts: HashMap::new(), events: vec![] }
    }

    pub(super) fn rules(&self) -> &GuardRules {
        &self.rules
    }

    /// The events so far, in the order of the tokens.
    pub(super) fn events(&self) -> &[GuardEvent] {
        &self.events
    }

    /// The rule that has stopped a text.
    pub(super) fn stopped(&self, text: usize) -> Option<usize> {
        self.texts.get(&text)?.stopped
    }

    /// True if a rule has marked a text.
    pub(super) fn is_flagged(&self, text: usize) -> bool {
        self.texts.get(&text).is_some_and(|text| text.is_flagged)
    }

    /// The smoothed value of each score of a text.
    pub(super) fn values(&self, text: usize) -> Vec<Option<f32>> {
        let signals = self.texts.get(&text).map(|text| &text.signals[..]).unwrap_or_default();
        signals.iter().map(Signal::value).collect()
    }

    /// Forgets a text and its events.
    pub(super) fn forget(&mut self, text: usize) {
        self.texts.remove(&text);
        self.events.retain(|event| event.text != text);
    }

    /// Takes the next token of a text. Position 0 begins the text anew. Returns which rules hold on the token.
    pub(super) fn step(&mut self, judged: &Judged<'_>) -> &[bool] {
        let Self { rules, texts, events } = self;
        let state = texts.entry(judged.text).or_default();
        if judged.position == 0 || state.signals.is_empty() {
            *state = Text {
                signals: vec![Signal::default(); rules.scores.len()],
                holds: vec![false; rules.rules.len()],
                ..Text::default()
            };
        }
        for ((signal, score), x) in state.signals.iter_mut().zip(&rules.scores).zip(judged.scores) {
            if let Some(x) = x.filter(|_| score.at.contains(judged.position, judged.prompt_len)) {
                signal.step(score, x);
            }
        }
        let place = |name: &String| rules.scores.iter().position(|score| score.name == *name).expect("checked");
        let is_on = |name: &String| state.signals[place(name)].is_on();
        for (number, rule) in rules.rules.iter().enumerate() {
            let holds = rule.all.iter().all(is_on)
                && (rule.any.is_empty() || rule.any.iter().any(is_on))
                && !rule.not.iter().any(is_on);
            if holds == state.holds[number] {
                continue;
            }
            state.holds[number] = holds;
            if holds {
                match rule.then {
                    Action::Flag => state.is_flagged = true,
                    Action::Stop(_) => state.stopped = state.stopped.or(Some(number)),
                    Action::Log | Action::Intervene(_) => {}
                }
            }
            events.push(GuardEvent {
                text: judged.text,
                rule: rule.name.clone(),
                action: rule.then.name(),
                begins: holds,
                position: judged.position,
                token: judged.token,
                scores: rule.scores().map(|name| (name.clone(), state.signals[place(name)].value())).collect(),
            });
        }
        &state.holds
    }
}

impl Action {
    /// Its name, as in the file.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Flag => "flag",
            Self::Stop(_) => "stop",
            Self::Intervene(_) => "intervene",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::rules::{Needs, Rule, Score, ScoreOf},
        *,
    };
    use crate::Positions;

    fn score(name: &str, at: &str) -> Score {
        let at: Positions = at.parse().expect("positions");
        let (of, needs) = (ScoreOf::Latent(0), Needs::default());
        Score { name: name.into(), of, sae: None, smooth: None, above: 0.5, needs, release: None, at }
    }

    fn rule(name: &str, [all, any, not]: [&[&str]; 3], then: Action) -> Rule {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Rule { name: name.into(), all: names(all), any: names(any), not: names(not), then }
    }

    /// Where each rule holds on tokens with these scores, after a prompt of two tokens.
    fn holds(judge: &mut Judge, tokens: &[[f32; 2]]) -> Vec<Vec<usize>> {
        let mut on = vec![vec![]; judge.rules().rules.len()];
        for (position, scores) in tokens.iter().enumerate() {
            let scores = scores.map(Some);
            let judged = Judged { text: 7, position, token: 40 + position as u32, prompt_len: 2, scores: &scores };
            for (on, holds) in on.iter_mut().zip(judge.step(&judged)) {
                if *holds {
                    on.push(position);
                }
            }
        }
        on
    }

    #[test]
    fn rules_combine_scores_that_count_where_they_are_said_to() {
        let rules = vec![
            rule("both", [&["a", "b"], &[], &[]], Action::Log),
            rule("one", [&[], &["a", "b"], &[]], Action::Flag),
            rule("only b", [&["b"], &[], &["a"]], Action::Stop(String::new())),
        ];
        let scores = vec![score("a", "all"), score("b", "generated")];
        let rules = GuardRules { hold_back: 0, scores, rules };
        rules.check().expect("good rules");
        let mut judge = Judge::new(rules);
        let on = holds(&mut judge, &[[0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]);
        assert_eq!(on, [vec![2], vec![1, 2, 3], vec![3]], "b does not count in the prompt");
        assert!(judge.is_flagged(7) && judge.stopped(7) == Some(2) && !judge.is_flagged(8));
        let said: Vec<_> = judge.events().iter().map(|e| (&*e.rule, e.begins, e.position, e.token)).collect();
        let expected = [
            ("one", true, 1, 41),
            ("both", true, 2, 42),
            ("both", false, 3, 43),
            ("only b", true, 3, 43),
            ("one", false, 4, 44),
            ("only b", false, 4, 44),
        ];
        assert_eq!(said, expected);
        assert_eq!(judge.events()[1].scores, [("a".to_string(), Some(1.0)), ("b".to_string(), Some(1.0))]);
        // A text that begins again has no past.
        holds(&mut judge, &[[0.0, 0.0]]);
        assert!(!judge.is_flagged(7) && judge.stopped(7).is_none());
    }
}
