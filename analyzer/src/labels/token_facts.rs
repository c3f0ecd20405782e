//! [`Vocabulary`]: what rules know about each token: its word, its classes and its endings.

use std::collections::HashMap;

/// A class of tokens.
#[derive(Debug)]
pub(crate) struct Class {
    /// Its name after "on", in the plural.
    pub(crate) name: &'static str,
    holds: fn(&str) -> bool,
}

/// The classes. Each test sees the token's text with its spaces.
pub(crate) const CLASSES: &[Class] = &[
    Class { name: "line breaks", holds: |text| text.contains('\n') },
    Class { name: "spaces", holds: |text| !text.is_empty() && text.chars().all(|c| c == ' ' || c == '\t') },
    Class { name: "digits", holds: |text| every(text, |c| c.is_ascii_digit()) },
    Class { name: "punctuation", holds: |text| every(text, |c| !c.is_alphanumeric()) },
    Class { name: "quotation marks", holds: |text| every(text, |c| "\"'`“”‘’«»".contains(c)) },
    Class { name: "opening brackets", holds: |text| text.trim().ends_with(['(', '[', '{']) },
    Class { name: "closing brackets", holds: |text| text.trim().starts_with([')', ']', '}']) },
    Class { name: "ends of sentences", holds: |text| text.trim().starts_with(['.', '!', '?']) },
    Class { name: "capitalized words", holds: is_capitalized },
    Class { name: "words in capitals", holds: |text| every(text, char::is_uppercase) && text.trim().len() > 1 },
    Class { name: "parts within words", holds: |text| text.starts_with(char::is_alphabetic) },
    Class {
        name: "whole words or their beginnings",
        holds: |text| text.starts_with(' ') && every(text, char::is_alphabetic),
    },
    Class { name: "accented letters", holds: |text| text.chars().any(|c| ('\u{c0}'..'\u{250}').contains(&c)) },
    Class { name: "Greek letters", holds: |text| text.chars().any(|c| ('\u{370}'..'\u{400}').contains(&c)) },
    Class { name: "Cyrillic letters", holds: |text| text.chars().any(|c| ('\u{400}'..'\u{530}').contains(&c)) },
    Class { name: "Hebrew or Arabic letters", holds: |text| text.chars().any(|c| ('\u{590}'..'\u{780}').contains(&c)) },
    Class {
        name: "Chinese, Japanese or Korean signs",
        holds: |text| text.chars().any(|c| ('\u{3040}'..'\u{d7b0}').contains(&c)),
    },
    Class { name: "bytes of rarer letters", holds: has_loose_bytes },
];

fn every(text: &str, holds: impl Fn(char) -> bool) -> bool {
    let text = text.trim();
    !text.is_empty() && text.chars().all(holds)
}

fn is_capitalized(text: &str) -> bool {
    let mut letters = text.trim().chars();
    letters.next().is_some_and(char::is_uppercase) && letters.next().is_some_and(char::is_lowercase)
}

/// What is known about a token.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenFacts {
    /// Number of its word: its text in lower case, without surrounding spaces.
    pub(crate) word: u32,
    /// Indices in [`CLASSES`].
    pub(crate) classes: Vec<u32>,
    /// Numbers of its last two and three letters, if the word is longer.
    pub(crate) endings: Vec<u32>,
}

/// The facts about every token of a text.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    /// By token id; `None` for tokens that do not occur.
    tokens: Vec<Option<TokenFacts>>,
    /// Words and endings by number.
    words: Vec<String>,
}

impl Vocabulary {
    pub(crate) fn new(tokens: &[u32], text: &(dyn Fn(u32) -> String + Sync)) -> Self {
        let len = tokens.iter().max().map_or(0, |last| *last as usize + 1);
        let mut vocabulary = Self { tokens: vec![None; len], words: vec![] };
        let mut numbers = HashMap::new();
        for &token in tokens {
            if vocabulary.tokens[token as usize].is_none() {
                let facts = vocabulary.facts(&text(token), &mut numbers);
                vocabulary.tokens[token as usize] = Some(facts);
            }
        }
        vocabulary
    }

    fn facts(&mut self, text: &str, numbers: &mut HashMap<String, u32>) -> TokenFacts {
        let mut number = |word: String| {
            *numbers.entry(word).or_insert_with_key(|word| {
                self.words.push(word.clone());
                self.words.len() as u32 - 1
            })
        };
        let word = if text.trim().is_empty() { text.to_string() } else { text.trim().to_lowercase() };
        let letters: Vec<char> = word.chars().collect();
        let is_word = letters.iter().all(|letter| letter.is_alphabetic());
        let endings = [2, 3].into_iter().filter(|len| is_word && letters.len() > len + 1);
        let endings = endings.map(|len| number(letters[letters.len() - len..].iter().collect())).collect();
        let classes = (0..).zip(CLASSES).filter(|(_, class)| (class.holds)(text)).map(|(class, _)| class).collect();
        TokenFacts { word: number(word), classes, endings }
    }

    /// The facts about a token of the text.
    pub(crate) fn token(&self, token: u32) -> Option<&TokenFacts> {
        self.tokens.get(token as usize)?.as_ref()
    }

    /// The word, or the ending, with this number.
    pub(crate) fn word(&self, number: u32) -> &str {
        &self.words[number as usize]
    }
}

/// True if a text of [`harvester::TextTokenizer::token_text`], in capitals or not, has bytes that are no whole character.
pub(crate) fn has_loose_bytes(text: &str) -> bool {
    let is_byte = |rest: &str| {
        let byte = rest.as_bytes().first_chunk::<3>();
        byte.is_some_and(|[high, low, end]| {
            matches!(high, b'8' | b'9' | b'A'..=b'F' | b'a'..=b'f') && low.is_ascii_hexdigit() && *end == b'>'
        })
    };
    text.match_indices("<0x").any(|(at, mark)| is_byte(&text[at + mark.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_classes_that_a_reader_would_name() {
        let classes = |text: &str| -> Vec<_> {
            CLASSES.iter().filter(|class| (class.holds)(text)).map(|class| class.name).collect()
        };
        assert_eq!(classes(" 42"), ["digits"]);
        assert_eq!(classes("\n\n"), ["line breaks"]);
        assert_eq!(classes(" Paris"), ["capitalized words", "whole words or their beginnings"]);
        assert_eq!(classes("NASA"), ["words in capitals", "parts within words"]);
        assert_eq!(classes(" ("), ["punctuation", "opening brackets"]);
        assert_eq!(classes("."), ["punctuation", "ends of sentences"]);
        assert_eq!(classes("  "), ["spaces"]);
        assert!(classes("é").contains(&"accented letters") && classes("жи").contains(&"Cyrillic letters"));
        assert!(classes("").is_empty());
        assert_eq!(classes("<0xE2><0x80>"), ["bytes of rarer letters"]);
    }

    #[test]
    fn a_word_is_the_same_with_and_without_space_and_capitals() {
        let texts = [" When", "when", " going"];
        let vocabulary = Vocabulary::new(&[0, 1, 2], &|token| texts[token as usize].to_string());
        let facts = |token| vocabulary.token(token).cloned().unwrap_or_default();
        assert_eq!(facts(0).word, facts(1).word);
        let endings: Vec<_> = facts(2).endings.iter().map(|ending| vocabulary.word(*ending)).collect();
        assert_eq!(endings, ["ng", "ing"]);
        assert!(vocabulary.token(3).is_none());
    }
}
