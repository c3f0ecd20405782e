//! [`Columns`]: two texts that grow, in lines side by side. A line is given once, when neither text can change it.

use crate::{facts::on_one_line, wrapped};

/// Two columns of text.
#[derive(Debug, Clone)]
pub struct Columns {
    /// Characters in a column.
    width: usize,
    /// Lines that were given.
    given: usize,
    texts: [String; 2],
}

/// Between the columns.
const GAP: &str = "  │ ";

impl Columns {
    /// Columns that fill `width` characters.
    pub fn new(width: usize) -> Self {
        Self { width: (width.saturating_sub(GAP.chars().count()) / 2).max(8), given: 0, texts: Default::default() }
    }

    /// The heading of the columns.
    pub fn heading(&self, names: [&str; 2]) -> String {
        self.line(names)
    }

    /// The lines that are complete now that the texts are these, longer than before.
    pub fn grow(&mut self, texts: [&str; 2]) -> Vec<String> {
        self.texts = texts.map(str::to_string);
        let complete = self.lines().map(|lines| lines.len().saturating_sub(1));
        self.give(complete[0].min(complete[1]))
    }

    /// The other lines.
    pub fn finish(mut self) -> Vec<String> {
        let all = self.lines().map(|lines| lines.len());
        self.give(all[0].max(all[1]))
    }

    fn give(&mut self, end: usize) -> Vec<String> {
        let [left, right] = self.lines();
        let of = |lines: &[String], at: usize| lines.get(at).cloned().unwrap_or_default();
        let given = (self.given..end).map(|at| self.line([&of(&left, at), &of(&right, at)])).collect();
        self.given = self.given.max(end);
        given
    }

    fn line(&self, [left, right]: [&str; 2]) -> String {
        format!("{left:width$}{GAP}{right}", width = self.width).trim_end().to_string()
    }

    /// The lines of each text.
    fn lines(&self) -> [Vec<String>; 2] {
        let broken = |line: String| match line.chars().count() > self.width {
            true => {
                let characters: Vec<char> = line.chars().collect();
                characters.chunks(self.width).map(|part| part.iter().collect()).collect()
            }
            false => vec![line],
        };
        [0, 1].map(|side| {
            let paragraphs = self.texts[side].split('\n');
            paragraphs.flat_map(|text| wrapped(&on_one_line(text), self.width)).flat_map(broken).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_given_once_when_both_texts_have_gone_on() {
        let mut columns = Columns::new(24); // of 10 characters each
        assert_eq!(columns.heading(["without", "with"]), "without     │ with");
        assert!(columns.grow(["one two", "a b c d e f g"]).is_empty());
        assert_eq!(columns.grow(["one two three", "a b c d e f g"]), ["one two     │ a b c d e"]);
        assert_eq!(columns.grow(["one two three\nfour", "a b c d e f g\n"]), ["three       │ f g"]);
        assert_eq!(columns.finish(), ["four        │"]);
        let mut long = Columns::new(24);
        assert!(long.grow(["unbreakable word", ""]).is_empty());
        assert_eq!(long.finish(), ["unbreakabl  │", "e           │", "word        │"]);
    }
}
