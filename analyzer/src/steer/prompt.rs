//! [`Prompt`]s to steer from: texts of a file, a message in the model's chat template, and a text on which a latent is
//! active.

use std::{ops::Range, path::Path};

use harvester::{ActivationDataset, Error as Harvester, Monitor};
use serde::Deserialize;

use crate::{Example, Result, Workbench};

/// Positions with enough text before them to set a topic, and little enough to read.
const READABLE: Range<u32> = 24..80;

/// A text to continue, and where it is from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Prompt {
    /// The text.
    #[serde(alias = "prompt")]
    pub text: String,
    /// Name of its source.
    #[serde(default)]
    pub source: String,
}

impl Prompt {
    /// The texts of a file, one in each line that is not empty. In a `.jsonl` file a line is an object with `text` or
    /// `prompt`, and perhaps a `source`; without one, the source is the name of the file.
    ///
    /// # Errors
    /// A file that cannot be read, holds no text, or has a line that is no such object.
    pub fn read(path: &Path) -> Result<Vec<Self>> {
        let file = std::fs::read_to_string(path).map_err(Harvester::io("read", path))?;
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_json = path.extension().is_some_and(|extension| extension == "jsonl");
        let prompt = |(number, line): (usize, &str)| -> Result<Self> {
            let Self { text, source } = match is_json {
                false => Self { text: line.to_string(), source: String::new() },
                true => serde_json::from_str(line).map_err(|error| {
                    let expected = format!("an object with `text` in line {}", number + 1);
                    let hint = "Give each line a text, such as {\"text\": \"The sea\", \"source\": \"prose\"}";
                    Harvester::malformed(path, expected, error.to_string(), hint)
                })?,
            };
            Ok(Self { text, source: if source.is_empty() { name.clone() } else { source } })
        };
        let lines = file.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let prompts = lines.map(prompt).collect::<Result<Vec<_>>>()?;
        if prompts.is_empty() {
            return Err(Harvester::malformed(path, "a text in each line", "no text", "Name another file").into());
        }
        Ok(prompts)
    }

    /// The texts of files, and for what is no file, itself.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of_names(names: &[String]) -> Result<Vec<Self>> {
        let of = |name: &String| match Path::new(name) {
            path if path.is_file() => Self::read(path),
            _ => Ok(vec![Self::from(&**name)]),
        };
        Ok(names.iter().map(of).collect::<Result<Vec<_>>>()?.concat())
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self { text: text.to_string(), source: String::new() }
    }
}

impl Workbench {
    /// A message as the prompt that the model's chat template makes of it.
    ///
    /// # Errors
    /// A model without a chat template, or one that refuses the message.
    pub fn chat_prompt(&self, message: &str, monitor: &dyn Monitor) -> Result<String> {
        Ok(self.model(monitor)?.tokenizer().chat_prompt(message)?)
    }

    /// A prompt on which a latent is active: the text up to the peak of the first of its examples that has some text
    /// before it, but not too much to read. `None` where there is no example.
    ///
    /// # Errors
    /// A context that is not in `dataset`, or a file that cannot be read.
    pub fn prompt_before_peak(
        &self,
        examples: &[Example],
        dataset: &ActivationDataset,
        monitor: &dyn Monitor,
    ) -> Result<Option<String>> {
        let readable = examples.iter().find(|example| READABLE.contains(&example.position));
        let Some(example) = readable.or(examples.first()) else { return Ok(None) };
        for &group in &dataset.row_groups {
            let rows = dataset.tokens(group)?;
            let places = (0..rows.token.len()).filter(|&row| rows.context[row] == example.context);
            let tokens: Vec<u32> = places.take(example.position as usize + 1).map(|row| rows.token[row]).collect();
            if !tokens.is_empty() {
                return Ok(Some(self.model(monitor)?.tokenizer().decode(&tokens)));
            }
        }
        let expected = format!("context {}, which the index names", example.context);
        let hint = "Index these activations again";
        Err(harvester::Error::malformed(dataset.location.to_string(), expected, "none of this number", hint).into())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_a_text_in_each_line() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let of = |text: &str, source: &str| Prompt { text: text.into(), source: source.into() };
        let lines = write("seas.txt", "The sea\n\n A ship \n");
        assert_eq!(Prompt::read(&lines).unwrap(), [of("The sea", "seas"), of(" A ship ", "seas")]);
        let json = write("mixed.jsonl", "{\"prompt\": \"a\", \"source\": \"code\"}\n{\"text\": \"b\"}\n");
        assert_eq!(Prompt::read(&json).unwrap(), [of("a", "code"), of("b", "mixed")]);
        let names = [lines.display().to_string(), "no file".to_string()];
        assert_eq!(Prompt::of_names(&names).unwrap()[2], of("no file", ""));
        let refused = |path: &Path| Prompt::read(path).unwrap_err().to_string();
        assert!(refused(&write("empty.txt", "\n")).contains("no text"));
        assert!(refused(&write("bad.jsonl", "{\"text\": \"a\"}\n{\"txt\": 1}")).contains("in line 2"));
        assert!(refused(Path::new("absent.txt")).contains("cannot read absent.txt"));
    }
}
