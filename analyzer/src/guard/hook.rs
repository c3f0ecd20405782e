//! [`Guard`]: a hook that scores every row of a pass and applies the edits of the rules that hold.
//!
//! All scores of a row are read before its rules are judged, so a rule can edit a row from the last hook point of the
//! scores on. What happens to a row depends on it and those before it in its text: cached generation equals a pass over
//! the whole text.

use std::collections::HashMap;

use candle_core::Tensor;
use harvester::{Edit, Error as Harvester, Hook, HookPoint, LanguageModel, Row, Rows};

use super::{
    judge::{GuardEvent, Judge, Judged},
    measures::Measures,
    rules::{Action, GuardRules},
};
use crate::{Interventions, Result, SteeredSae, tensor_rows};

/// A guard, ready to watch texts as the model reads and writes them.
#[derive(Debug)]
pub struct Guard<'a> {
    measures: Measures<'a>,
    judge: Judge,
    /// The edits of each rule; `None` for a rule without any.
    edits: Vec<Option<Interventions<'a>>>,
    /// The hook points of the scores, in order of the pass.
    points: Vec<HookPoint>,
    /// The scores of the rows of this pass. `[scores][rows]`
    scores: Vec<Vec<Option<f32>>>,
    /// Length of the prompt of each text.
    prompts: HashMap<usize, usize>,
    /// The only text that is watched; `None`: all.
    only: Option<usize>,
}

impl<'a> Guard<'a> {
    /// Makes rules ready for `model`. `saes`: those that the rules name, the first for those that name none.
    ///
    /// # Errors
    /// What [`GuardRules::check`] refuses; a score or an edit that does not fit the model or an SAE; an edit at a hook
    /// point before that of a score.
    pub fn new(model: &LanguageModel, saes: &[SteeredSae<'a>], rules: GuardRules) -> Result<Self> {
        rules.check()?;
        let measures = Measures::new(model, saes, &rules.scores)?;
        let points = measures.hook_points();
        let last = *points.last().expect("there is a score");
        let edits = rules.rules.iter().map(|rule| -> Result<_> {
            let Action::Intervene(edits) = &rule.then else { return Ok(None) };
            let edits = Interventions::new(model, saes, edits)?;
            let too_early = edits.hook_points().find(|point| *point < last);
            match too_early {
                None => Ok(Some(edits)),
                Some(point) => {
                    let expected = format!("edits at {last} or after it in the pass, where the last score is read");
                    Err(Harvester::invalid(format!("rule `{}`", rule.name), expected, point.to_string()).into())
                }
            }
        });
        let edits = edits.collect::<Result<_>>()?;
        let scores = vec![vec![]; rules.scores.len()];
        Ok(Self { measures, judge: Judge::new(rules), edits, points, scores, prompts: HashMap::new(), only: None })
    }

    /// Watches only the text with this number.
    pub fn only(mut self, text: usize) -> Self {
        self.only = Some(text);
        self
    }

    /// The rules.
    pub fn rules(&self) -> &GuardRules {
        self.judge.rules()
    }

    /// The events so far, in the order of the tokens.
    pub fn events(&self) -> &[GuardEvent] {
        self.judge.events()
    }

    /// Name of the rule that stops a text, and the text that it is to end with.
    pub fn stopped(&self, text: usize) -> Option<(&str, &str)> {
        let rule = &self.rules().rules[self.judge.stopped(text)?];
        if let Action::Stop(end) = &rule.then { Some((&rule.name, end)) } else { None }
    }

    /// True if a rule has marked a text.
    pub fn is_flagged(&self, text: usize) -> bool {
        self.judge.is_flagged(text)
    }

    /// The hook points of the scores, in order of the pass.
    pub fn hook_points(&self) -> &[HookPoint] {
        &self.points
    }

    /// Reads the scores of rows at one hook point. `x`: `[rows, width]`
    pub(super) fn read_scores(&mut self, point: HookPoint, positions: &[usize], x: &[f32]) -> Result<()> {
        self.measures.read(point, positions, x, &mut self.scores)
    }

    /// What judges tokens, and the scores of a row that was read.
    pub(super) fn judge_and_scores(&mut self, row: usize) -> (&mut Judge, Vec<Option<f32>>) {
        let scores = self.scores.iter().map(|of_rows| of_rows[row]).collect();
        (&mut self.judge, scores)
    }

    /// Judges the rows of a pass whose scores are all there. Returns, for each rule, the rows on which it holds.
    fn judge(&mut self, rows: &[Row]) -> Vec<Vec<bool>> {
        for row in rows.iter().filter(|row| row.position == 0) {
            let len = rows.iter().filter(|other| other.sequence == row.sequence).count();
            self.prompts.insert(row.sequence, len);
        }
        let mut holds = vec![vec![false; rows.len()]; self.edits.len()];
        for (number, row) in rows.iter().enumerate() {
            if self.only.is_some_and(|only| only != row.sequence) {
                continue;
            }
            let prompt_len = self.prompts.get(&row.sequence).copied().unwrap_or(0);
            let (text, position, token) = (row.sequence, row.position, row.token);
            let (judge, scores) = self.judge_and_scores(number);
            let of_rules = judge.step(&Judged { text, position, token, prompt_len, scores: &scores });
            for (holds, of_rule) in holds.iter_mut().zip(of_rules) {
                holds[number] = *of_rule;
            }
        }
        holds
    }

    fn watch(&mut self, point: HookPoint, rows: &Rows, activation: &Tensor) -> Result<Edit> {
        let all: Vec<Row> = rows.iter().collect();
        let x = tensor_rows::rows(activation)?;
        if self.points.contains(&point) {
            let positions: Vec<usize> = all.iter().map(|row| row.position).collect();
            self.read_scores(point, &positions, &x)?;
        }
        if self.points.last() == Some(&point) {
            let holds = self.judge(&all);
            for (edits, holds) in self.edits.iter_mut().zip(holds) {
                edits.iter_mut().for_each(|edits| edits.edit_only(holds.clone()));
            }
        }
        let mut edited: Option<Tensor> = None;
        for edits in self.edits.iter_mut().flatten().filter(|edits| edits.wants(point)) {
            if let Edit::Replace(new) = edits.apply(point, rows, edited.as_ref().unwrap_or(activation))? {
                edited = Some(new);
            }
        }
        Ok(edited.map_or(Edit::Keep, Edit::Replace))
    }
}

impl Hook for Guard<'_> {
    fn wants(&self, point: HookPoint) -> bool {
        self.points.contains(&point) || self.edits.iter().flatten().any(|edits| edits.wants(point))
    }

    fn apply(&mut self, point: HookPoint, rows: &Rows, activation: &Tensor) -> harvester::Result<Edit> {
        self.watch(point, rows, activation).map_err(|error| Harvester::Hook(error.into()))
    }
}
