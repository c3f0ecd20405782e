//! [`Facts`]: what something says of itself, for a terminal, a page or a notebook.

/// Names and values, in the order of reading. Names that begin with spaces belong to the fact before them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts(Vec<(&'static str, String)>);

impl Facts {
    pub(crate) fn add(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, value.into()));
    }

    /// The names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }
}
