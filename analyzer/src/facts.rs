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

/// A text in lines of at most `width` characters. Items of a list, with two spaces between them, stay whole if they fit.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let len = |text: &str| text.chars().count();
    let mut lines = vec![String::new()];
    let mut add = |gap: &str, part: &str| {
        let line = lines.last_mut().expect("there is a first line");
        match line.is_empty() || len(line) + len(gap) + len(part) <= width {
            true => line.extend([if line.is_empty() { "" } else { gap }, part]),
            false => lines.push(part.into()),
        }
    };
    for item in text.split("  ") {
        if len(item) <= width {
            add("  ", item);
        } else {
            item.split(' ')
                .zip(["  "].into_iter().chain(std::iter::repeat(" ")))
                .for_each(|(word, gap)| add(gap, word));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_model_cannot_move_the_cursor() {
        assert_eq!(on_one_line("a\n\x1b[2J\tb\r"), "a⏎·[2J⇥b·");
    }

    #[test]
    fn lists_break_between_items_and_sentences_between_words() {
        assert_eq!(wrapped("\" the\"  \" of a\"  \"x\"", 16), ["\" the\"  \" of a\"", "\"x\""]);
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("a  one two three", 8), ["a  one", "two", "three"]);
        assert_eq!(wrapped("unbreakable", 4), ["unbreakable"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}
