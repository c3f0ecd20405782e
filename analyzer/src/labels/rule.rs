//! [`Rule`]: a simple statement about a token and its surroundings, chosen by how well it predicts a latent.
//!
//! A rule is a set of [`Key`]s of one [`Kind`], and holds where one of them does. At most one key of a kind holds on a
//! row, so the counts of a set are the sums of the counts of its keys. The exceptions are classes, endings and positions,
//! of which several may hold: their rules have one key.

use super::{
    LabelInput, Totals,
    token_facts::{CLASSES, Vocabulary},
};

/// Kind of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Word,
    Token,
    Class,
    Ending,
    Source,
    Previous,
    PreviousClass,
    Next,
    NextClass,
    Promoted,
    Position,
    Pair,
    WordInSource,
    ClassInSource,
}

impl Kind {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Word => "word",
            Self::Token => "token",
            Self::Class => "class",
            Self::Ending => "ending",
            Self::Source => "source",
            Self::Previous => "previous",
            Self::PreviousClass => "previous class",
            Self::Next => "next",
            Self::NextClass => "next class",
            Self::Promoted => "promoted",
            Self::Position => "position",
            Self::Pair => "pair",
            Self::WordInSource => "word in source",
            Self::ClassInSource => "class in source",
        }
    }

    /// F1 by which a rule of this kind must be better than a plain one to be preferred: it says more, and there are
    /// more of its kind to choose from.
    fn handicap(self) -> f32 {
        match self {
            Self::Pair | Self::WordInSource | Self::ClassInSource => 0.03,
            Self::Token | Self::Ending | Self::Promoted | Self::PreviousClass | Self::NextClass => 0.01,
            _ => 0.0,
        }
    }

    /// Largest number of keys of one rule.
    fn most_keys(self) -> usize {
        match self {
            Self::Word | Self::Token | Self::Previous | Self::Next | Self::Pair => 4,
            Self::Source => 2,
            _ => 1,
        }
    }
}

/// Each further key of a rule must add so much to its F1.
const WORTH_A_KEY: f32 = 0.02;
/// A key must hold on so many strong firings to be in a rule.
const LEAST_HITS: u32 = 3;

/// A statement that holds on a row or not: its kind, and up to two numbers of words, classes, sources or tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    kind: Kind,
    a: u32,
    b: u32,
}

/// What a rule sees of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) token: u32,
    pub(crate) previous: Option<u32>,
    pub(crate) next: Option<u32>,
    pub(crate) source: u32,
    pub(crate) position: u32,
}

/// Values of a key of [`Kind::Position`], with their words.
const POSITIONS: [&str; 2] = ["at the start of a line", "on the first tokens of a context"];
/// Position 0 of a context never counts.
const FIRST_TOKENS: std::ops::Range<u32> = 1..5;

impl Place {
    /// Calls `each` with every key that holds here.
    pub(crate) fn keys(&self, vocabulary: &Vocabulary, mut each: impl FnMut(Key)) {
        let Some(token) = vocabulary.token(self.token) else { return };
        let mut key = |kind, a, b| each(Key { kind, a, b });
        key(Kind::Token, self.token, 0);
        key(Kind::Word, token.word, 0);
        key(Kind::WordInSource, token.word, self.source);
        key(Kind::Source, self.source, 0);
        for &class in &token.classes {
            key(Kind::Class, class, 0);
            key(Kind::ClassInSource, class, self.source);
        }
        token.endings.iter().for_each(|&ending| key(Kind::Ending, ending, 0));
        if let Some(previous) = self.previous.and_then(|previous| vocabulary.token(previous)) {
            key(Kind::Previous, previous.word, 0);
            key(Kind::Pair, token.word, previous.word);
            previous.classes.iter().for_each(|&class| key(Kind::PreviousClass, class, 0));
            if previous.classes.first() == Some(&0) {
                key(Kind::Position, 0, 0);
            }
        }
        if let Some((token, next)) = self.next.and_then(|next| Some((next, vocabulary.token(next)?))) {
            key(Kind::Next, next.word, 0);
            key(Kind::Promoted, token, 0);
            next.classes.iter().for_each(|&class| key(Kind::NextClass, class, 0));
        }
        if FIRST_TOKENS.contains(&self.position) {
            key(Kind::Position, 1, 0);
        }
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    pub(crate) kind: Kind,
    pub(crate) keys: Vec<Key>,
}

/// Counts of a rule on the half on which it is chosen.
#[derive(Debug, Clone, Copy)]
struct Score {
    hits: u32,
    holds: u32,
}

impl Score {
    /// `2 hits / (holds + fires)`
    fn f1(self, fires: usize) -> f32 {
        2.0 * self.hits as f32 / (self.holds as f32 + fires as f32)
    }

    fn precision(self) -> f32 {
        self.hits as f32 / self.holds.max(1) as f32
    }

    fn plus(self, other: Self) -> Self {
        Self { hits: self.hits + other.hits, holds: self.holds + other.holds }
    }
}

impl Rule {
    /// The rule with the best F1, where simple rules are preferred to others that are hardly better. `hits`: rows where
    /// the latent fires and a key holds; `holds`: rows where a key holds.
    pub(crate) fn best(hits: &Totals, holds: &Totals, fires: usize, promoted: &[u32]) -> Option<Self> {
        let mut keys: Vec<(Key, Score)> = hits
            .iter()
            .filter(|(_, hits)| **hits >= LEAST_HITS)
            .map(|(key, &hits)| (*key, Score { hits, holds: holds.get(key).copied().unwrap_or(0) }))
            .collect();
        keys.sort_by(|(a, of_a), (b, of_b)| {
            a.kind.cmp(&b.kind).then(of_b.precision().total_cmp(&of_a.precision())).then(a.cmp(b))
        });
        let of_kinds = keys.chunk_by(|(a, _), (b, _)| a.kind == b.kind);
        let rules = of_kinds.filter_map(|keys| match keys[0].0.kind {
            Kind::Promoted => Self::of_promoted(hits, holds, promoted, fires),
            kind => Self::of_kind(kind, keys, fires),
        });
        rules.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(rule, _)| rule)
    }

    /// The best rule of one kind, and its F1 less its handicaps. `keys`: of this kind, highest precision first.
    fn of_kind(kind: Kind, keys: &[(Key, Score)], fires: usize) -> Option<(Self, f32)> {
        let best_alone = keys.iter().max_by(|(_, a), (_, b)| a.f1(fires).total_cmp(&b.f1(fires)))?;
        let (mut chosen, mut score) = (vec![best_alone.0], best_alone.1);
        // A set of keys gains by another one if that one's precision is above half of the set's F1.
        while chosen.len() < kind.most_keys() {
            let others = keys.iter().filter(|(key, _)| !chosen.contains(key));
            let next = others.max_by(|(_, a), (_, b)| score.plus(*a).f1(fires).total_cmp(&score.plus(*b).f1(fires)));
            match next {
                Some((key, other)) if score.plus(*other).f1(fires) >= score.f1(fires) + WORTH_A_KEY => {
                    chosen.push(*key);
                    score = score.plus(*other);
                }
                _ => break,
            }
        }
        let handicap = kind.handicap() + WORTH_A_KEY * (chosen.len() - 1) as f32 / 2.0;
        Some((Self { kind, keys: chosen }, score.f1(fires) - handicap))
    }

    /// "Before one of the tokens that the latent promotes".
    fn of_promoted(hits: &Totals, holds: &Totals, promoted: &[u32], fires: usize) -> Option<(Self, f32)> {
        let keys: Vec<Key> = promoted.iter().map(|&token| Key { kind: Kind::Promoted, a: token, b: 0 }).collect();
        let sum = |totals: &Totals| keys.iter().filter_map(|key| totals.get(key)).sum();
        let score = Score { hits: sum(hits), holds: sum(holds) };
        let f1 = score.f1(fires) - Kind::Promoted.handicap();
        (score.hits >= LEAST_HITS).then_some((Self { kind: Kind::Promoted, keys }, f1))
    }

    /// The rule in words.
    pub(crate) fn describe(&self, vocabulary: &Vocabulary, input: &LabelInput<'_>) -> String {
        let word = |number: u32| quoted(vocabulary.word(number));
        let class = |number: u32| CLASSES[number as usize].name;
        let source = |number: u32| input.source_names.get(number as usize).map_or("an unnamed source", String::as_str);
        let list = |each: &dyn Fn(&Key) -> String| {
            let texts: Vec<String> = self.keys.iter().map(each).collect();
            texts.join(", ")
        };
        let Some(first) = self.keys.first() else { return String::new() };
        match self.kind {
            Kind::Word => format!("on {}", list(&|key| word(key.a))),
            Kind::Token => format!("on {}", list(&|key| quoted(&(input.token_text)(key.a)))),
            Kind::Class => format!("on {}", class(first.a)),
            Kind::Ending => format!("on words ending in {}", word(first.a)),
            Kind::Source => format!("in {}", list(&|key| source(key.a).to_string())),
            Kind::Previous => format!("after {}", list(&|key| word(key.a))),
            Kind::PreviousClass => format!("after {}", class(first.a)),
            Kind::Next => format!("before {}", list(&|key| word(key.a))),
            Kind::NextClass => format!("before {}", class(first.a)),
            Kind::Promoted => "before the tokens that it promotes".into(),
            Kind::Position => POSITIONS[first.a as usize].into(),
            Kind::Pair => format!("on {}", list(&|key| format!("{} after {}", word(key.a), word(key.b)))),
            Kind::WordInSource => format!("on {} in {}", word(first.a), source(first.b)),
            Kind::ClassInSource => format!("on {} in {}", class(first.a), source(first.b)),
        }
    }
}

/// A text in quotation marks, with line breaks, tabs and longer runs of spaces as visible signs.
fn quoted(text: &str) -> String {
    let text = text.replace('\n', "⏎").replace('\t', "⇥");
    let spaces = text.len() - text.trim_end_matches(' ').len();
    match spaces {
        0..3 => format!("\"{text}\""),
        _ => format!("\"{}\" and {spaces} spaces", text.trim_end_matches(' ')),
    }
}
