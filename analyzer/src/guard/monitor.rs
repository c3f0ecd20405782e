//! [`Watched`] documents: a corpus read under a guard, without its edits; and [`MonitorReport`]: how well the scores and
//! the rules tell documents of two groups apart.
//!
//! A document's score is the largest smoothed score of its tokens. Thresholds for a rate of false positives are chosen
//! on one half of the documents, and everything is reported on the other half. Intervals are 95 %.

use std::{collections::HashSet, path::PathBuf};

use harvester::{
    ContextCursor, Corpus, CorpusOptions, DocumentRecord, HarvestConfig, LanguageModel, LiveModel, Monitor, Packing,
    SpecialToken, StorageDtype,
};
use serde::Serialize;

use super::{
    hook::Guard,
    judge::{GuardEvent, Judged},
    rules::GuardRules,
};
use crate::{Error, Result, Workbench, auc::auc, facts::quoted, halves::Half, wilson::wilson};

/// The rates of false positives for which thresholds are chosen.
const RATES: [f64; 2] = [0.01, 0.001];

/// A document that was read under a guard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Watched {
    /// The document.
    pub record: DocumentRecord,
    /// Number of its tokens.
    pub tokens: usize,
    /// The smoothed scores of its tokens; a token that does not count has the value before it. `[scores][tokens]`
    #[serde(skip)]
    pub scores: Vec<Vec<Option<f32>>>,
    /// Where rules begin and cease to hold. The text of an event is the number of the document.
    pub events: Vec<GuardEvent>,
}

impl Watched {
    /// The largest smoothed score; `None` if no token counts.
    fn max(&self, score: usize) -> Option<f32> {
        self.scores[score].iter().flatten().copied().reduce(f32::max)
    }

    /// Where rules begin and cease to hold, in lines.
    pub fn lines(&self, model: &LanguageModel) -> Vec<String> {
        let line = |event: &GuardEvent| {
            let text = quoted(model.tokenizer().token_text(event.token));
            format!("token {:6} {text:16} {}", event.position, event.said())
        };
        self.events.iter().map(line).collect()
    }

    /// The tokens on which a score comes to be above a threshold, having been at or below it.
    fn onsets(&self, score: usize, above: f32) -> Vec<usize> {
        let is_above = |x: &Option<f32>| x.is_some_and(|x| x > above);
        let on: Vec<bool> = self.scores[score].iter().map(is_above).collect();
        (0..on.len()).filter(|&at| on[at] && (at == 0 || !on[at - 1])).collect()
    }

    /// The tokens on which a rule begins to hold.
    fn begins(&self, rule: &str) -> Vec<usize> {
        self.events.iter().filter(|event| event.begins && event.rule == rule).map(|event| event.position).collect()
    }
}

/// A share of some documents, with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// So many
    pub n: usize,
    /// of so many.
    pub of: usize,
    /// Wilson's interval of the share.
    pub interval: [f64; 2],
}

impl Share {
    fn of(n: usize, of: usize) -> Self {
        Self { n, of, interval: wilson(n, of) }
    }

    /// The share.
    pub fn share(&self) -> f64 {
        self.n as f64 / self.of as f64
    }
}

/// What is detected of documents of two groups.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Detected {
    /// Documents of the first group that are detected.
    pub true_positives: Share,
    /// Documents of the second group that are detected.
    pub false_positives: Share,
    /// Number of tokens of a detected document of the first group up to the one that detects it: the median, and the
    /// number that is enough for 95 % of them. `None` without any.
    pub tokens_to_detection: Option<[usize; 2]>,
    /// How often the second group is detected per 10,000 tokens, with its interval (Wilson's, of tokens).
    pub false_alarms: [f64; 3],
}

/// A score of a guard, by itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScoreReport {
    /// Its name.
    pub name: String,
    /// Probability that a document of the first group has a larger score than one of the second.
    pub auroc: f64,
    /// Its interval: Wilson's, with as many trials as the smaller group has documents.
    pub auroc_interval: [f64; 2],
    /// At thresholds that were chosen for a rate of false positives.
    pub at: Vec<AtRate>,
}

/// A threshold that was chosen for a rate of false positives.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AtRate {
    /// The rate; 0 if the half on which it is chosen has too few documents for 1 %.
    pub rate: f64,
    /// The threshold.
    pub above: f32,
    /// What is detected with it on the other half.
    pub detected: Detected,
}

/// A rule as it stands in the file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleReport {
    /// Its name.
    pub name: String,
    /// What is detected with it.
    pub detected: Detected,
}

/// How well a guard tells two groups of documents apart. All figures are of one half of the documents.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MonitorReport {
    /// Number of documents of each group on which thresholds were chosen.
    pub chosen_on: [usize; 2],
    /// Number of documents of each group on which all is reported.
    pub reported_on: [usize; 2],
    /// Each score.
    pub scores: Vec<ScoreReport>,
    /// Each rule.
    pub rules: Vec<RuleReport>,
}

impl MonitorReport {
    /// # Errors
    /// A group without a document in each half.
    pub fn new(rules: &GuardRules, positive: &[Watched], negative: &[Watched]) -> Result<Self> {
        let half = |of: Half| {
            [positive, negative].map(|group| {
                let is_in = |document: &&Watched| Half::of(document.record.document) == of;
                group.iter().filter(is_in).collect::<Vec<&Watched>>()
            })
        };
        let (choose, report) = (half(Half::Choose), half(Half::Report));
        if choose[1].is_empty() || report.iter().any(Vec::is_empty) {
            let expected = "groups of enough documents to choose thresholds on one half and report on the other";
            let found = format!("{} and {} documents", positive.len(), negative.len());
            return Err(harvester::Error::invalid("labels", expected, found).into());
        }
        let scores = rules.scores.iter().enumerate().map(|(number, score)| {
            let max = |document: &&Watched| document.max(number).unwrap_or(f32::NEG_INFINITY);
            let [first, second] =
                [0, 1].map(|group: usize| report[group].iter().map(max).map(f64::from).collect::<Vec<f64>>());
            let auroc = auc(&first, &second);
            let trials = first.len().min(second.len());
            let mut quiet: Vec<f32> = choose[1].iter().map(max).collect();
            quiet.sort_unstable_by(|a, b| b.total_cmp(a));
            let rates = RATES.into_iter().filter(|rate| quiet.len() as f64 * rate >= 1.0);
            let rates: Vec<f64> = if (quiet.len() as f64) * RATES[0] < 1.0 { vec![0.0] } else { rates.collect() };
            let at = rates.into_iter().map(|rate| {
                let above = quiet[(rate * quiet.len() as f64) as usize];
                let detected = Detected::of(&report, |document| document.onsets(number, above));
                AtRate { rate, above, detected }
            });
            ScoreReport {
                name: score.name.clone(),
                auroc,
                auroc_interval: wilson_of_share(auroc, trials),
                at: at.collect(),
            }
        });
        let rule = |name: &String| RuleReport {
            name: name.clone(),
            detected: Detected::of(&report, |document| document.begins(name)),
        };
        Ok(Self {
            chosen_on: choose.each_ref().map(Vec::len),
            reported_on: report.each_ref().map(Vec::len),
            scores: scores.collect(),
            rules: rules.rules.iter().map(|it| rule(&it.name)).collect(),
        })
    }

    /// A table of it, in lines.
    pub fn table(&self) -> Vec<String> {
        let [positive, negative] = self.reported_on;
        let [chosen_first, chosen] = self.chosen_on;
        let mut lines = vec![format!(
            "thresholds chosen on {chosen_first} and {chosen} documents; all figures of the other {positive} and {negative}"
        )];
        if self.scores.iter().any(|score| score.at.iter().any(|at| at.rate == 0.0)) {
            lines.push(format!(
                "with {chosen} negative documents to choose on, 1 % of false positives cannot be told: the threshold is \
                 the largest score among them"
            ));
        }
        for score in &self.scores {
            let [low, high] = score.auroc_interval;
            lines.push(format!("score {}: AUROC {:.3} ({low:.3} to {high:.3})", score.name, score.auroc));
            for AtRate { rate, above, detected } in &score.at {
                let name = if *rate == 0.0 { "none".into() } else { format!("{} %", 100.0 * rate) };
                lines.push(format!(
                    "  {name} of the negatives it was chosen on are above {above:.3}: {}",
                    detected.line()
                ));
            }
        }
        for RuleReport { name, detected } in &self.rules {
            lines.push(format!("rule {name}: {}", detected.line()));
        }
        lines
    }
}

impl Detected {
    /// `found`: the tokens of a document on which it is detected anew.
    fn of([positive, negative]: &[Vec<&Watched>; 2], found: impl Fn(&Watched) -> Vec<usize>) -> Self {
        let mut first: Vec<usize> =
            positive.iter().filter_map(|document| found(document).first().map(|at| at + 1)).collect();
        first.sort_unstable();
        let false_onsets: Vec<usize> = negative.iter().map(|document| found(document).len()).collect();
        let (alarms, tokens) = (false_onsets.iter().sum(), negative.iter().map(|document| document.tokens).sum());
        let per = |share: f64| 10_000.0 * share;
        let [low, high] = wilson(alarms, tokens);
        // The number that is enough for a share of them: nearest rank.
        let quantile = |share: f64| first[((share * first.len() as f64).ceil() as usize).max(1) - 1];
        Self {
            true_positives: Share::of(first.len(), positive.len()),
            false_positives: Share::of(false_onsets.iter().filter(|n| **n > 0).count(), negative.len()),
            tokens_to_detection: (!first.is_empty()).then(|| [quantile(0.5), quantile(0.95)]),
            false_alarms: [per(alarms as f64 / tokens.max(1) as f64), per(low), per(high)],
        }
    }

    fn line(&self) -> String {
        let share = |share: &Share| {
            let [low, high] = share.interval;
            format!("{:.1} % ({:.1} to {:.1})", 100.0 * share.share(), 100.0 * low, 100.0 * high)
        };
        let [rate, low, high] = self.false_alarms;
        let after = match self.tokens_to_detection {
            Some([median, most]) => format!("after {median} tokens (95 %: {most})"),
            None => "never".into(),
        };
        format!(
            "finds {} {after}, false positives {}, false alarms per 10,000 tokens {rate:.2} ({low:.2} to {high:.2})",
            share(&self.true_positives),
            share(&self.false_positives)
        )
    }
}

impl Guard<'_> {
    /// Reads documents under the guard, without its edits, and calls `each` with every one that has a token. All tokens
    /// count as written after an empty prompt. `live` computes at least [`Self::hook_points`], with a context for each
    /// document.
    ///
    /// # Errors
    /// The corpus cannot be read; the monitor stops it; or an error of `each`.
    pub fn watch_corpus(
        &mut self,
        live: &LiveModel,
        monitor: &dyn Monitor,
        mut each: impl FnMut(Watched) -> Result<()>,
    ) -> Result<()> {
        monitor.start("watching", live.estimated_tokens()?, "tokens");
        let points = self.hook_points().to_vec();
        let mut document: Option<(u64, Watching)> = None;
        let finish = |number: u64, watching: Watching, each: &mut dyn FnMut(Watched) -> Result<()>| {
            let record = live.documents(&HashSet::from([number]))?.pop();
            record.map_or(Ok(()), |record| each(watching.finished(record)))
        };
        for batch in live.stream(&points, ContextCursor::default())? {
            if monitor.cancelled() {
                return Err(Error::Stopped);
            }
            let batch = batch?;
            let rows = &batch.activations[0].rows;
            let positions: Vec<usize> = rows.position.iter().map(|position| *position as usize).collect();
            for (point, read) in points.iter().zip(&batch.activations) {
                self.read_scores(*point, &positions, &read.values.to_f32())?;
            }
            for at in 0..rows.token.len() {
                if document.as_ref().is_none_or(|(number, _)| *number != rows.document[at]) {
                    if let Some((number, watching)) = document.take() {
                        self.forget(number);
                        finish(number, watching, &mut each)?;
                    }
                    document = Some((rows.document[at], Watching::default()));
                }
                let Some((number, watching)) = &mut document else { unreachable!("it was set above") };
                self.watch_token(*number, rows.token[at], at, watching);
            }
            monitor.advance(rows.token.len() as u64);
            if live.n_contexts().is_some_and(|n| batch.next.contexts >= n) {
                break;
            }
        }
        if let Some((number, watching)) = document.take() {
            finish(number, watching, &mut each)?;
        }
        monitor.finish();
        Ok(())
    }

    /// Forgets a document that was read.
    fn forget(&mut self, document: u64) {
        self.judge_and_scores(0).0.forget(document as usize);
    }

    /// Judges one token of a document. `row`: its row in the scores that were read last.
    fn watch_token(&mut self, document: u64, token: u32, row: usize, watching: &mut Watching) {
        let text = document as usize;
        let (judge, scores) = self.judge_and_scores(row);
        let events = judge.events().len();
        judge.step(&Judged { text, position: watching.tokens, token, prompt_len: 0, scores: &scores });
        watching.events.extend_from_slice(&judge.events()[events..]);
        watching.values.resize(scores.len(), vec![]);
        watching.values.iter_mut().zip(judge.values(text)).for_each(|(values, value)| values.push(value));
        watching.tokens += 1;
    }
}

impl Workbench {
    /// Reads the documents of some files under a guard, without its edits, and calls `each` with every one that has a
    /// token. `tokens`: most tokens that are read.
    ///
    /// # Errors
    /// As [`Guard::new`] and [`Guard::watch_corpus`].
    pub fn monitor(
        &self,
        rules: &GuardRules,
        files: &[PathBuf],
        tokens: Option<u64>,
        monitor: &dyn Monitor,
        each: impl FnMut(Watched) -> Result<()>,
    ) -> Result<()> {
        let (model, steering) = (self.model(monitor)?, rules.open(self, vec![], None)?);
        let mut guard = Guard::new(model, &steering.saes(self), rules.clone())?;
        let defaults = HarvestConfig::default();
        let config = HarvestConfig {
            hook_points: guard.hook_points().to_vec(),
            tokens,
            packing: Packing::Document,
            min_document_tokens: 1,
            ctx_len: self.sae().ctx_len().unwrap_or(defaults.ctx_len).min(model.config().ctx_len),
            bos: self.sae().prompt_bos(),
            separator: SpecialToken::None,
            dtype: StorageDtype::F32,
            ..defaults
        };
        let live = LiveModel::new(model, Corpus::open(files, &CorpusOptions::default())?, &config)?;
        guard.watch_corpus(&live, monitor, each)
    }
}

/// A document that is being read.
#[derive(Debug, Default)]
struct Watching {
    tokens: usize,
    values: Vec<Vec<Option<f32>>>,
    events: Vec<GuardEvent>,
}

impl Watching {
    fn finished(self, record: DocumentRecord) -> Watched {
        Watched { record, tokens: self.tokens, scores: self.values, events: self.events }
    }
}

/// Wilson's interval of a share of `n` trials that is no whole number of them: between those beside it.
fn wilson_of_share(share: f64, n: usize) -> [f64; 2] {
    let successes = share * n as f64;
    [wilson(successes.floor() as usize, n)[0], wilson(successes.ceil() as usize, n)[1]]
}

#[cfg(test)]
mod tests {
    use super::{
        super::rules::{Action, Needs, Rule, Score, ScoreOf},
        *,
    };
    use crate::Positions;

    fn rules() -> GuardRules {
        let (of, needs, at) = (ScoreOf::Latent(0), Needs::default(), Positions::default());
        let score = Score { name: "s".into(), of, sae: None, smooth: None, above: 5.0, needs, release: None, at };
        let (all, any, not) = (vec!["s".into()], vec![], vec![]);
        let rule = Rule { name: "r".into(), all, any, not, then: Action::Log };
        GuardRules { hold_back: 0, scores: vec![score], rules: vec![rule] }
    }

    /// A document with these scores, and events where they come to be above 5.
    fn document(number: u64, scores: &[f32]) -> Watched {
        let record = DocumentRecord {
            document: number,
            source: String::new(),
            file: String::new(),
            line: None,
            row: None,
            names: [].into(),
            kept: vec![],
        };
        let scores = vec![scores.iter().copied().map(Some).collect::<Vec<_>>()];
        let mut watched = Watched { record, tokens: scores[0].len(), scores, events: vec![] };
        let (text, token, action) = (number as usize, 0, "log");
        watched.events = watched
            .onsets(0, 5.0)
            .into_iter()
            .map(|position| GuardEvent {
                text,
                rule: "r".into(),
                action,
                begins: true,
                position,
                token,
                scores: vec![],
            })
            .collect();
        watched
    }

    /// The first numbers of documents that are in a half.
    fn numbers(half: Half, n: usize) -> Vec<u64> {
        (0..).filter(|number| Half::of(*number) == half).take(n).collect()
    }

    #[test]
    fn thresholds_are_of_one_half_and_figures_of_the_other() {
        let (choose, report) = (numbers(Half::Choose, 200), numbers(Half::Report, 4));
        // Of 200 negative documents to choose on, 1 % may be above the threshold: two are, at 7 and 8.
        let negative_of = |at: usize| if at < 2 { 7.0 + at as f32 } else { at as f32 / 100.0 };
        let mut negative: Vec<Watched> =
            choose.iter().enumerate().map(|(at, number)| document(*number, &[negative_of(at)])).collect();
        let mut positive = vec![document(choose[0], &[9.0])];
        // On the other half: three of four positives are found, after 1, 3 and 2 tokens; one of two negatives, twice.
        positive.extend([
            document(report[0], &[3.0, 0.0]),
            document(report[1], &[0.0, 1.0, 9.0, 9.0]),
            document(report[2], &[0.5, 6.0, 0.0]),
            document(report[3], &[1.0]),
        ]);
        negative.extend([document(report[0], &[2.5, 0.0, 6.0]), document(report[1], &[0.0; 7])]);
        let found = MonitorReport::new(&rules(), &positive, &negative).expect("enough documents");
        assert_eq!((found.chosen_on, found.reported_on), ([1, 200], [4, 2]));
        let score = &found.scores[0];
        // Largest scores 3, 9, 6 and 1 against 6 and 0: 4 + 2 pairs are in order, and 6 with 6 is half of one.
        assert_eq!(score.auroc, (0.0 + 1.0 + 0.5 + 0.0 + 4.0) / 8.0);
        assert_eq!(score.at.len(), 1, "0.1 % needs a thousand documents");
        let AtRate { rate, above, detected } = &score.at[0];
        assert_eq!((*rate, *above), (0.01, 1.99));
        assert_eq!(detected.true_positives, Share::of(3, 4));
        assert_eq!(detected.false_positives, Share::of(1, 2));
        assert_eq!(detected.tokens_to_detection, Some([2, 3]));
        assert_eq!(detected.false_alarms[0], 10_000.0 * 2.0 / 10.0);
        // The rule as it stands, above 5.
        let of_rule = &found.rules[0].detected;
        assert_eq!((of_rule.true_positives, of_rule.tokens_to_detection), (Share::of(2, 4), Some([2, 3])));
        assert_eq!(of_rule.false_alarms[0], 1_000.0);
    }

    #[test]
    fn few_documents_give_no_rate_and_too_few_no_report() {
        let (choose, report) = (numbers(Half::Choose, 3), numbers(Half::Report, 1));
        let negative: Vec<_> = choose.iter().chain(&report).map(|number| document(*number, &[0.5])).collect();
        let positive = [document(report[0], &[1.0])];
        let found = MonitorReport::new(&rules(), &positive, &negative).expect("enough documents");
        assert_eq!((found.scores[0].at[0].rate, found.scores[0].at[0].above), (0.0, 0.5));
        assert!(MonitorReport::new(&rules(), &positive, &negative[..3]).is_err());
    }
}
