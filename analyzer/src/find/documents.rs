//! [`contrast_documents`]: the latents that tell two groups of texts apart. The unit is the document, because the
//! tokens of a document are not independent of each other: a thousand tokens of one speech are one speech.
//!
//! ```text
//! a_dj    = the largest activation of latent j in document d
//! AUC     = P(a_dj > a_ej) + P(a_dj = a_ej) / 2      d of the first group, e of the second
//! delta   = 2 AUC - 1                                Cliff's delta
//! ```
//! Longer documents have larger maxima. If the mean lengths differ by more than 10 %, the documents of the longer group
//! are cut to the lengths of those of the other. Half of the documents rank the latents, and what is reported of them
//! is measured on the other half.

use std::{
    collections::{BTreeMap, HashMap},
    str::FromStr,
};

use harvester::{TokenRows, human};
use rayon::prelude::*;
use serde::Serialize;

use super::statistics::{Permutations, TwoGroups, benjamini_hochberg, newcombe};
use crate::{
    EncodedRows, Error, FeatureIndex, Probe, Result,
    facts::{on_one_line, quoted},
    halves::{Half, mixed},
};

/// Largest q of a latent that counts as different.
const DISCOVERY: f64 = 0.05;
/// From this number of documents in each group on, p-values are given.
const FOR_P: usize = 8;
/// From this number on, p is from the normal approximation; below, from permutations.
const FOR_NORMAL: usize = 20;
/// Documents are cut if the mean lengths of the groups differ by more than this share.
const LENGTHS: f64 = 0.1;

/// How the latents are ranked, on one half of the documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RankBy {
    /// By AUC.
    #[default]
    Auc,
    /// By the difference of the shares of documents in which the latent fires.
    Frequency,
    /// By the difference of the mean activations, in units of the latent's mean activation where it is active
    /// (sae-probes).
    NormalizedMean,
}

impl FromStr for RankBy {
    type Err = &'static str;

    fn from_str(name: &str) -> std::result::Result<Self, Self::Err> {
        serde_json::from_value(name.into()).map_err(|_| "expected auc, frequency or normalized-mean")
    }
}

/// Settings of a contrast.
#[derive(Debug, Clone, PartialEq)]
pub struct ContrastConfig {
    /// Latents that fire on a larger share of all tokens are left out: they are about everything. Default 0.1.
    pub max_density: f64,
    /// Order of the latents.
    pub rank: RankBy,
    /// Number of latents, from the top of the list, on which a probe is fitted. Default 0: none is.
    pub fit: usize,
}

impl Default for ContrastConfig {
    fn default() -> Self {
        Self { max_density: 0.1, rank: RankBy::Auc, fit: 0 }
    }
}

/// Two groups of documents, and what tells them apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contrasts {
    /// Number of documents of each group.
    pub documents: [usize; 2],
    /// Mean number of tokens per document of each group, before any is cut.
    pub mean_tokens: [f64; 2],
    /// True if the documents of the longer group were cut to the lengths of the other's.
    pub is_cut: bool,
    /// Number of documents of each group on which the figures are measured: half of them, or all if there are few.
    pub reported: [usize; 2],
    /// True if the latents were ranked on other documents than those reported on.
    pub is_split: bool,
    /// Number of latents that were compared: those that fire in a document, and are not too dense.
    pub n_tested: usize,
    /// The p of a latent that tells the groups apart wholly, if permutations gave the p-values.
    pub least_p: Option<f64>,
    /// The latents, most typical of the first group first.
    pub latents: Vec<DocumentContrast>,
    /// The probe, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
}

impl Contrasts {
    /// What was compared, and how many latents differ, in sentences.
    pub fn summary(&self) -> Vec<String> {
        let [first, second] = self.documents.map(|n| human::counted(n as u64, "document"));
        let [len, other_len] = self.mean_tokens;
        let mut lines = vec![format!("{first} and {second}, of {len:.0} and {other_len:.0} tokens on average")];
        if self.is_cut {
            lines.push(
                "the longer documents were cut to the lengths of the others: longer ones have larger maxima".into(),
            );
        }
        lines.push(match self.is_split {
            true => {
                let [first, second] = self.reported;
                format!("latents are ranked on one half of the documents; all figures are of the other, {first} and {second}")
            }
            false => "too few documents to rank on some and report on others: the figures flatter the best".into(),
        });
        let tested = human::counted(self.n_tested as u64, "latent");
        let differing = self.latents.iter().filter(|latent| latent.q.is_some_and(|found| found <= DISCOVERY)).count();
        if self.latents.windows(2).any(|pair| pair[0].auc < pair[1].auc) {
            lines.push("the list is in the order of the ranking half".into());
        }
        lines.push(match self.latents.iter().any(|latent| latent.q.is_some()) {
            true => {
                format!("{tested} compared; {differing} differ at a false discovery rate of {:.0} %", 100.0 * DISCOVERY)
            }
            false => format!("{tested} compared; below {FOR_P} documents a side there is no test, only the sizes"),
        });
        if let Some(least) = self.least_p.filter(|least| least * self.n_tested as f64 > DISCOVERY) {
            let needed = (least * self.n_tested as f64 / DISCOVERY).ceil() as u64;
            lines.push(format!(
                "with so few documents no p is below {least:.4}: among {tested}, one alone cannot be told from chance, \
                 only {} that are as clear",
                human::grouped(needed)
            ));
        }
        lines
    }

    /// A table of the latents, with its heading. A question mark follows those that may not differ.
    ///
    /// # Errors
    /// A damaged table of `index`.
    pub fn table(&self, index: &FeatureIndex) -> Result<Vec<String>> {
        let texts = index.token_texts()?;
        let mut lines = vec!["latent   AUC  without its token      documents  label".to_string()];
        for contrast in &self.latents {
            let DocumentContrast { latent, auc, auc_without_token, token, documents: [first, second], .. } = contrast;
            let label = on_one_line(&index.label(*latent)?.to_string());
            let token = texts.get(token).map_or_else(|| format!("token {token}"), quoted); // it may be in no text of the index
            let [first, second] = [first, second].map(|share| format!("{:.0} %", 100.0 * share));
            let mark = if contrast.q.is_none_or(|q| q <= DISCOVERY) { " " } else { "?" };
            lines.push(format!(
                "{latent:6}{mark} {auc:.3}  {auc_without_token:.3} {token:12.12}  {first:>5} / {second:<5}  {label}"
            ));
        }
        Ok(lines)
    }
}

/// What a latent does in two groups of documents.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DocumentContrast {
    /// The latent.
    pub latent: u32,
    /// AUC on the half on which the latents were ranked; the same as `auc` if there was no split.
    pub auc_ranked: f64,
    /// AUC on the documents that are reported on: 1 if the latent is always stronger in the first group.
    pub auc: f64,
    /// AUC without the token on which the latent fires most often: close to 1/2 if it only recognizes that token.
    pub auc_without_token: f64,
    /// That token.
    pub token: u32,
    /// Cliff's delta.
    pub cliffs_delta: f64,
    /// Shares of the documents of each group in which it fires.
    pub documents: [f64; 2],
    /// The first less the second.
    pub difference: f64,
    /// 95 % interval of the difference (Newcombe).
    pub interval: [f64; 2],
    /// Shares of the tokens of each group on which it fires.
    pub tokens: [f64; 2],
    /// Median over each group of a document's largest activation.
    pub median: [f32; 2],
    /// Two-sided p of the AUC (Mann-Whitney; permutations if there are few documents). `None` below 8 documents a
    /// group.
    pub p: Option<f64>,
    /// `p` corrected for the number of latents (Benjamini-Hochberg).
    pub q: Option<f64>,
}

/// The latents that tell the documents of `positive` from those of `negative`. `density`: the share of tokens on which
/// each latent fires in general. `[d_sae]`
///
/// # Errors
/// A group without a document that has a token that counts.
pub(super) fn contrast_documents(
    positive: &EncodedRows,
    negative: &EncodedRows,
    density: &[f64],
    config: &ContrastConfig,
) -> Result<Contrasts> {
    let [mut first, mut second] = [documents(positive), documents(negative)];
    for (setting, documents) in [("`positive`", &first), ("`negative`", &second)] {
        if documents.is_empty() {
            let expected = "documents with tokens that count: not only position 0 or attention sinks";
            return Err(Error::from(harvester::Error::invalid(setting, expected, "none")));
        }
    }
    let mean_tokens = [mean_len(&first), mean_len(&second)];
    let is_cut = mean_tokens[0].max(mean_tokens[1]) > mean_tokens[0].min(mean_tokens[1]) * (1.0 + LENGTHS);
    if is_cut {
        match mean_tokens[0] > mean_tokens[1] {
            true => cut(&mut first, &second),
            false => cut(&mut second, &first),
        }
    }
    let n = [first.len(), second.len()];
    let groups = Groups::new([(positive, first), (negative, second)], density.len());
    Ok(groups.contrasts(n, mean_tokens, is_cut, density, config))
}

/// The rows that count of one document.
#[derive(Debug, Clone, PartialEq)]
struct Document {
    number: u64,
    rows: Vec<usize>,
}

/// The documents of a text, by number.
fn documents(text: &EncodedRows) -> Vec<Document> {
    let TokenRows { document, .. } = &text.rows;
    let mut rows: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (row, number) in document.iter().enumerate().filter(|(row, _)| text.ordinary[*row]) {
        rows.entry(*number).or_default().push(row);
    }
    rows.into_iter().map(|(number, rows)| Document { number, rows }).collect()
}

fn mean_len(documents: &[Document]) -> f64 {
    documents.iter().map(|document| document.rows.len()).sum::<usize>() as f64 / documents.len() as f64
}

/// Cuts documents to the lengths of others: a document in the middle of the order gets the length in the middle of theirs,
/// and so on.
fn cut(documents: &mut [Document], others: &[Document]) {
    let mut lengths: Vec<usize> = others.iter().map(|document| document.rows.len()).collect();
    lengths.sort_unstable();
    let mut order: Vec<usize> = (0..documents.len()).collect();
    order.sort_by_key(|&place| documents[place].rows.len());
    for (rank, &place) in order.iter().enumerate() {
        let length = lengths[(2 * rank + 1) * lengths.len() / (2 * order.len())];
        documents[place].rows.truncate(length);
    }
}

/// Largest activation of a latent in a document.
#[derive(Debug, Clone, Copy)]
struct Peak {
    document: u32,
    value: f32,
    /// The same without the latent's commonest token.
    other: f32,
}

/// Counts of one latent.
#[derive(Debug, Clone, Default)]
struct OfLatent {
    peaks: Vec<Peak>,
    /// Tokens of each group on which it fires, by half.
    fires: [[u64; 2]; 2],
    /// The token on which it fires most often.
    token: u32,
}

/// Both groups: the documents of the first, then those of the second.
struct Groups {
    /// For each document: true if it is of the first group, and its half.
    documents: Vec<(bool, Half)>,
    /// Tokens of each group, by half.
    tokens: [[u64; 2]; 2],
    latents: Vec<OfLatent>,
}

impl Groups {
    fn new(sides: [(&EncodedRows, Vec<Document>); 2], d_sae: usize) -> Self {
        let mut groups = Self { documents: vec![], tokens: [[0; 2]; 2], latents: vec![OfLatent::default(); d_sae] };
        let mut by_token: Vec<HashMap<u32, u32>> = vec![HashMap::new(); d_sae];
        for (text, documents) in &sides {
            for &row in documents.iter().flat_map(|document| &document.rows) {
                for &latent in text.acts.row(row).0 {
                    *by_token[latent as usize].entry(text.rows.token[row]).or_default() += 1;
                }
            }
        }
        for (latent, counts) in groups.latents.iter_mut().zip(by_token) {
            let most = counts.into_iter().max_by_key(|&(token, n)| (n, std::cmp::Reverse(token)));
            latent.token = most.map_or(0, |(token, _)| token);
        }
        for (side, (text, documents)) in sides.into_iter().enumerate() {
            // Every second document, in an order that says nothing about them.
            let mut documents: Vec<&Document> = documents.iter().collect();
            documents.sort_by_key(|document| mixed(document.number));
            for (document, half) in documents.into_iter().zip([Half::Choose, Half::Report].into_iter().cycle()) {
                groups.add(side, text, document, half);
            }
        }
        groups
    }

    fn add(&mut self, side: usize, text: &EncodedRows, document: &Document, half: Half) {
        let number = self.documents.len() as u32;
        self.documents.push((side == 0, half));
        self.tokens[half as usize][side] += document.rows.len() as u64;
        for &row in &document.rows {
            let (latents, values) = text.acts.row(row);
            for (&latent, &value) in latents.iter().zip(values) {
                let of = &mut self.latents[latent as usize];
                of.fires[half as usize][side] += 1;
                if of.peaks.last().is_none_or(|peak| peak.document != number) {
                    of.peaks.push(Peak { document: number, value: 0.0, other: 0.0 });
                }
                if let Some(peak) = of.peaks.last_mut() {
                    peak.value = peak.value.max(value);
                    if text.rows.token[row] != of.token {
                        peak.other = peak.other.max(value);
                    }
                }
            }
        }
    }

    fn contrasts(
        self,
        n: [usize; 2],
        mean_tokens: [f64; 2],
        is_cut: bool,
        density: &[f64],
        config: &ContrastConfig,
    ) -> Contrasts {
        let in_half = |half: Half| self.count(|of| of == half);
        let (ranked_on, reported_on) = (in_half(Half::Choose), in_half(Half::Report));
        let is_split = ranked_on.iter().chain(&reported_on).all(|n| *n >= FOR_P);
        let counts = |half: Half, of: Half| !is_split || of == half;
        let (rank_n, report_n) = if is_split { (ranked_on, reported_on) } else { (n, n) };
        let permutations = (report_n[0].min(report_n[1]) < FOR_NORMAL).then(|| Permutations::new(report_n));
        let is_tested = |(latent, of): &(u32, &OfLatent)| {
            of.fires.as_flattened().iter().sum::<u64>() > 0 && density[*latent as usize] <= config.max_density
        };
        let reported = |n: &[[u64; 2]; 2], group: usize| match is_split {
            true => n[Half::Report as usize][group],
            false => n[0][group] + n[1][group],
        };
        let rate = |fires, group| reported(fires, group) as f64 / reported(&self.tokens, group).max(1) as f64;
        let tested: Vec<(u32, &OfLatent)> = (0..).zip(&self.latents).filter(is_tested).collect();
        let mut latents: Vec<([f64; 2], DocumentContrast)> = tested
            .par_iter()
            .map(|&(latent, of)| {
                let active = |half: Half, value: fn(&Peak) -> f32| -> Vec<(f32, bool)> {
                    let peaks = of.peaks.iter().map(|peak| (value(peak), self.documents[peak.document as usize]));
                    let peaks = peaks.filter(|(value, (_, of))| *value > 0.0 && counts(half, *of));
                    peaks.map(|(value, (first, _))| (value, first)).collect()
                };
                let ranked = active(Half::Choose, |peak| peak.value);
                let ranked = TwoGroups { active: &ranked, n: rank_n };
                let values = active(Half::Report, |peak| peak.value);
                let reported = TwoGroups { active: &values, n: report_n };
                let others = active(Half::Report, |peak| peak.other);
                let others = TwoGroups { active: &others, n: report_n };
                let test = reported.mann_whitney();
                let auc_ranked = ranked.mann_whitney().auc();
                // With few documents, many latents have an AUC of 1: a larger difference of means breaks the tie.
                let score = [score(config.rank, ranked, auc_ranked), mean_difference(ranked)];
                let fires = reported.n_active();
                let share = |group: usize| fires[group] as f64 / report_n[group] as f64;
                let p = || match &permutations {
                    None => test.p(),
                    Some(permutations) => permutations.p(&dense(reported), report_n[0]),
                };
                let found = DocumentContrast {
                    latent,
                    auc_ranked,
                    auc: test.auc(),
                    auc_without_token: others.mann_whitney().auc(),
                    token: of.token,
                    cliffs_delta: 2.0 * test.auc() - 1.0,
                    documents: [share(0), share(1)],
                    difference: share(0) - share(1),
                    interval: newcombe(fires, report_n),
                    tokens: [0, 1].map(|group| rate(&of.fires, group)),
                    median: [reported.median(true), reported.median(false)],
                    p: report_n.iter().all(|n| *n >= FOR_P).then(p),
                    q: None,
                };
                (score, found)
            })
            .collect();
        let p: Vec<f64> = latents.iter().filter_map(|(_, found)| found.p).collect();
        if p.len() == latents.len() {
            let corrected = benjamini_hochberg(&p);
            latents.iter_mut().zip(corrected).for_each(|((_, found), q)| found.q = Some(q));
        }
        let order = |a: &[f64; 2], b: &[f64; 2]| b[0].total_cmp(&a[0]).then(b[1].total_cmp(&a[1]));
        latents.sort_by(|a, b| order(&a.0, &b.0).then(a.1.latent.cmp(&b.1.latent)));
        Contrasts {
            documents: n,
            mean_tokens,
            is_cut,
            reported: report_n,
            is_split,
            probe: None,
            n_tested: latents.len(),
            least_p: permutations.filter(|_| report_n.iter().all(|n| *n >= FOR_P)).map(|it| it.floor(report_n)),
            latents: latents.into_iter().map(|(_, found)| found).collect(),
        }
    }

    /// Number of documents of each group in the halves that `is` accepts.
    fn count(&self, is: impl Fn(Half) -> bool) -> [usize; 2] {
        [true, false].map(|group| self.documents.iter().filter(|(first, half)| *first == group && is(*half)).count())
    }
}

/// The value by which latents are sorted, largest first.
fn score(rank: RankBy, groups: TwoGroups<'_>, auc: f64) -> f64 {
    let share = |group: usize| groups.n_active()[group] as f64 / groups.n[group].max(1) as f64;
    match rank {
        RankBy::Auc => auc,
        RankBy::Frequency => share(0) - share(1),
        RankBy::NormalizedMean => {
            let sum = groups.active.iter().map(|(value, _)| f64::from(*value)).sum::<f64>();
            mean_difference(groups) / (sum / groups.active.len().max(1) as f64 + 1e-6)
        }
    }
}

/// The difference of the mean activations of the two groups.
fn mean_difference(groups: TwoGroups<'_>) -> f64 {
    let mean = |group: usize| {
        let values = groups.active.iter().filter(|(_, first)| *first == (group == 0));
        values.map(|(value, _)| f64::from(*value)).sum::<f64>() / groups.n[group].max(1) as f64
    };
    mean(0) - mean(1)
}

/// The values of all documents, those of the first group first.
fn dense(groups: TwoGroups<'_>) -> Vec<f32> {
    let of = |group: usize| {
        let values = groups.active.iter().filter(move |(_, first)| *first == (group == 0)).map(|(value, _)| *value);
        values.chain(std::iter::repeat(0.0)).take(groups.n[group])
    };
    of(0).chain(of(1)).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use trainer::FeatureActs;

    use super::*;

    /// Of the four latents of [`text`].
    const DENSITY: [f64; 4] = [0.01, 0.01, 1.0, 0.0];

    /// Documents of the given lengths, in which latent `j` has the activation `value(j, document, position)`; position 0
    /// does not count.
    fn text(lengths: &[usize], first: u64, value: impl Fn(usize, usize, usize) -> f32) -> EncodedRows {
        let mut text = EncodedRows::default();
        for (document, &len) in lengths.iter().enumerate() {
            for position in 0..len {
                text.rows.document.push(first + document as u64);
                text.rows.context.push(first + document as u64);
                text.rows.position.push(position as u32);
                text.rows.token.push((position % 3) as u32);
                text.ordinary.push(position > 0);
                for latent in 0..4 {
                    let value = if position > 0 { value(latent, document, position) } else { 0.0 };
                    if value > 0.0 {
                        text.acts.latents.push(latent as u32);
                        text.acts.values.push(value);
                    }
                }
                text.acts.offsets.push(text.acts.latents.len());
            }
        }
        text
    }

    fn find(positive: &EncodedRows, negative: &EncodedRows) -> Contrasts {
        contrast_documents(positive, negative, &DENSITY, &ContrastConfig::default()).unwrap()
    }

    /// Latent 0 fires on half of the documents of the first group; 1 everywhere, by chance; 2 on every token, and is
    /// stronger in the first; 3 never.
    fn planted(first: bool) -> impl Fn(usize, usize, usize) -> f32 {
        move |latent, document, position| match latent {
            0 if first && document.is_multiple_of(2) && position == 7 => 3.0,
            1 if mixed((document * 2 + usize::from(first)) as u64).is_multiple_of(3) && position == 4 => 2.0,
            2 => {
                if first {
                    9.0
                } else {
                    1.0
                }
            }
            _ => 0.0,
        }
    }

    #[test]
    fn the_latent_of_one_group_is_first_and_dense_ones_do_not_win() {
        let (a, b) = (text(&[20; 80], 0, planted(true)), text(&[20; 60], 1000, planted(false)));
        let found = find(&a, &b);
        assert!(found.is_split && !found.is_cut && found.n_tested == 2, "{found:?}");
        assert_eq!((found.documents, found.mean_tokens), ([80, 60], [19.0, 19.0]));
        let [best, chance] = &found.latents[..] else { panic!("{found:?}") };
        assert_eq!(best.latent, 0);
        // Half of the first group's documents fire, none of the other's: AUC = 1/2 + 1/4, up to the split of documents.
        assert!((best.auc - (0.5 + best.documents[0] / 2.0)).abs() < 1e-12 && best.documents[1] == 0.0);
        assert!(best.q.unwrap() < 1e-3 && best.interval[0] > 0.2, "{best:?}");
        assert!(chance.q.unwrap() > 0.05 && chance.interval[0] < 0.0, "{chance:?}");
        // It fires on one token only: without that, nothing is left.
        assert_eq!((best.token, best.auc_without_token), (1, 0.5));
        let all =
            contrast_documents(&a, &b, &DENSITY, &ContrastConfig { max_density: 1.0, ..ContrastConfig::default() })
                .unwrap();
        assert_eq!((all.latents[0].latent, all.latents[0].auc), (2, 1.0));
    }

    #[test]
    fn longer_documents_are_cut_so_that_length_alone_says_nothing() {
        // Fires on one token in 25, in both groups alike.
        let same = |latent: usize, document: usize, position: usize| {
            let fires = latent == 0 && mixed((document * 1000 + position) as u64).is_multiple_of(25);
            if fires { 1.0 } else { 0.0 }
        };
        let (long, short) = (text(&[201; 150], 0, same), text(&[21; 150], 1000, same));
        let found = find(&long, &short);
        assert!(found.is_cut && found.mean_tokens == [200.0, 20.0]);
        assert!((found.latents[0].auc - 0.5).abs() < 0.08, "{found:?}");
        assert!((find(&short, &long).latents[0].auc - 0.5).abs() < 0.08);
    }

    #[test]
    fn documents_are_cut_to_the_middle_of_each_share_of_the_other_lengths() {
        let of_lengths = |lengths: Vec<usize>| documents(&text(&lengths, 0, |_, _, _| 0.0));
        let mut cut_ones = of_lengths(vec![201, 201]);
        cut(&mut cut_ones, &of_lengths((2..102).collect()));
        // Others of 1 to 100 tokens that count: the middles of the two halves of their lengths.
        assert_eq!(cut_ones.iter().map(|document| document.rows.len()).collect::<Vec<_>>(), [26, 76]);
    }

    #[test]
    fn sixteen_documents_a_group_are_split_and_all_figures_are_of_the_reported_half() {
        // Each latent fires on one token of one document. The one of density 1 is not tested.
        let once = |latent: usize, document: usize, position: usize| match position {
            7 if latent == document => 3.0,
            _ => 0.0,
        };
        let found = find(&text(&[20; 16], 0, once), &text(&[20; 17], 1000, |_, _, _| 0.0));
        assert!(found.is_split && found.reported == [8, 8] && found.n_tested == 3, "{found:?}");
        for DocumentContrast { documents, tokens, .. } in &found.latents {
            assert!((tokens[0] - documents[0] / 19.0).abs() < 1e-12, "{found:?}");
        }
    }

    #[test]
    fn few_documents_have_effect_sizes_but_no_p() {
        let found = find(&text(&[20; 3], 0, planted(true)), &text(&[20; 4], 9, planted(false)));
        assert!(!found.is_split && found.latents[0].p.is_none() && found.latents[0].q.is_none());
        assert!((found.latents[0].auc - (0.5 + 1.0 / 3.0)).abs() < 1e-12);
        let some = find(&text(&[20; 12], 0, planted(true)), &text(&[20; 12], 99, planted(false)));
        assert!(!some.is_split && some.latents[0].p.is_some_and(|p| p > 0.0 && p < 0.05), "{some:?}");
    }

    /// Ten documents a side: p is 1e-4 at best, which 1,000 latents make 0.1, and two of them 0.05.
    #[test]
    fn one_clear_latent_among_many_cannot_be_told_from_chance_in_few_documents() {
        let contrast = |n_clear: u32| {
            let side = |first: bool| {
                let mut text = EncodedRows::default();
                for document in 0..10 {
                    text.rows.document.push(document);
                    text.rows.context.push(document);
                    text.rows.position.push(1);
                    text.rows.token.push(0);
                    text.ordinary.push(true);
                    for latent in 0..1000u32 {
                        let chance = mixed(u64::from(latent) * 100 + document * 2 + u64::from(first)).is_multiple_of(2);
                        if if latent < n_clear { first } else { chance } {
                            text.acts.latents.push(latent);
                            text.acts.values.push(1.0 + document as f32);
                        }
                    }
                    text.acts.offsets.push(text.acts.latents.len());
                }
                text
            };
            contrast_documents(&side(true), &side(false), &[0.01; 1000], &ContrastConfig::default()).unwrap()
        };
        let said = |found: &Contrasts| found.summary().last().cloned().unwrap();
        let one = contrast(1);
        assert_eq!((one.latents[0].latent, one.latents[0].auc, one.latents[0].p), (0, 1.0, one.least_p));
        assert!(one.latents[0].q > Some(0.05), "{:?}", one.latents[0]);
        assert!(said(&one).contains("no p is below 0.0001: among 1,000 latents, one alone"), "{}", said(&one));
        assert!(said(&one).contains("only 2 that are as clear"), "{}", said(&one));
        let three = contrast(3);
        assert!(three.latents[..3].iter().all(|it| it.latent < 3 && it.q < Some(0.05)), "{:?}", &three.latents[..3]);
    }

    #[test]
    fn a_group_without_tokens_is_refused() {
        let some = text(&[20; 3], 0, planted(true));
        let none = EncodedRows { acts: FeatureActs::default(), ..EncodedRows::default() };
        for (positive, negative, named) in
            [(&some, &none, "`negative`"), (&text(&[1], 0, planted(true)), &some, "`positive`")]
        {
            let refused =
                contrast_documents(positive, negative, &DENSITY, &ContrastConfig::default()).unwrap_err().to_string();
            assert!(refused.contains(named), "{refused}");
        }
    }
}
