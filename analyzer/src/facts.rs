//! [`Facts`]: what something says of itself, for a terminal, a page or a notebook.

use crate::TokenWeight;

/// Names and values, in the order of reading. Names that begin with spaces belong to the fact before them. A value is
/// one line, as [`on_one_line`] writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts(Vec<(&'static str, String)>);

impl Facts {
    pub(crate) fn add(&mut self, name: &'static str, value: impl AsRef<str>) {
        self.0.push((name, on_one_line(value.as_ref())));
    }

    /// The names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

/// A text with line breaks and control characters made visible: text of a model must not move the cursor.
pub fn on_one_line(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => '⏎',
            '\t' => '⇥',
            c if c.is_control() => '·',
            c => c,
        })
        .collect()
}

/// A token in a list: quoted, because most begin with a space.
pub(crate) fn quoted(text: impl AsRef<str>) -> String {
    format!("\"{}\"", on_one_line(text.as_ref()))
}

/// `"the"  "a"  ..`, at most `n`.
pub(crate) fn tokens(tokens: &[TokenWeight], n: usize) -> String {
    tokens.iter().take(n).map(|token| quoted(&token.text)).collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_model_cannot_move_the_cursor() {
        assert_eq!(on_one_line("a\n\x1b[2J\tb\r"), "a⏎·[2J⇥b·");
    }
}
