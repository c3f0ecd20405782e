//! [`Document`]: one piece of a corpus, before it is tokenised.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::tokenizer::ChatMessage;

/// A text, or a conversation that the model's own chat template will write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// As it is.
    Text(String),
    /// Turn by turn.
    Chat(Vec<ChatMessage>),
}

/// The first 16 bytes of a document's SHA-256: two documents with the same are the same.
pub(super) type DocumentHash = [u8; 16];

impl Document {
    /// Its length, bytes.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Chat(messages) => messages.iter().map(|message| message.content.len() as u64).sum(),
        }
    }

    /// Whether there is nothing in it. Such a document is counted as empty, and repeats no other.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Chat(messages) => messages.is_empty(),
        }
    }

    /// What tells this document from others.
    pub(super) fn hash(&self) -> DocumentHash {
        let mut hasher = Sha256::new();
        match self {
            Self::Text(text) => hasher.update(text),
            Self::Chat(messages) => messages.iter().for_each(|message| {
                // No text has these bytes, so that no two conversations are written alike.
                hasher.update([0xff]);
                hasher.update(&message.role);
                hasher.update([0xfe]);
                hasher.update(&message.content);
            }),
        }
        first_16(&hasher.finalize())
    }

    /// A conversation from JSON: a list of objects with `role` and `content`, or with `from` and `value` as ShareGPT
    /// has them. What is there instead, where it is none.
    pub(super) fn chat_of(value: Value) -> Result<Self, String> {
        let Value::Array(turns) = value else { return Err("no list of turns".into()) };
        turns.into_iter().map(turn).collect::<Result<_, _>>().map(Self::Chat)
    }
}

/// What is found where a turn lacks who speaks or what is said.
pub(super) const NOT_A_TURN: &str = "a turn without strings `role` and `content`, or `from` and `value`";

fn turn(value: Value) -> Result<ChatMessage, String> {
    let Value::Object(mut turn) = value else { return Err("a turn that is no object".into()) };
    let mut text = |name: &str| match turn.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    if let (Some(role), Some(content)) = (text("role"), text("content")) {
        return Ok(ChatMessage { role, content });
    }
    if let (Some(from), Some(content)) = (text("from"), text("value")) {
        return Ok(ChatMessage { role: role_of(from), content });
    }
    let fields: Vec<_> = turn.keys().map(String::as_str).collect();
    Err(format!("{NOT_A_TURN}; its other fields are [{}]", fields.join(", ")))
}

/// The templates' name of a speaker of ShareGPT's.
pub(super) fn role_of(from: String) -> String {
    match from.as_str() {
        "human" => "user".into(),
        "gpt" => "assistant".into(),
        _ => from,
    }
}

pub(super) fn first_16(digest: &[u8]) -> DocumentHash {
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    first
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_ways_of_writing_turns_are_the_same_conversation() {
        let ours =
            Document::chat_of(json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]));
        let theirs =
            Document::chat_of(json!([{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho", "weight": 1}]));
        assert!(ours.is_ok());
        assert_eq!(ours, theirs);
        let message = Document::chat_of(json!([{"speaker": "a", "text": "hi"}])).unwrap_err();
        assert!(message.contains("speaker, text"), "{message}");
        assert!(Document::chat_of(json!("hi")).is_err());
    }

    #[test]
    fn a_conversation_cut_elsewhere_is_another() {
        let chat = |turns: &[(&str, &str)]| {
            let message =
                |(role, content): &(&str, &str)| ChatMessage { role: role.to_string(), content: content.to_string() };
            Document::Chat(turns.iter().map(message).collect()).hash()
        };
        assert_ne!(chat(&[("user", "ab")]), chat(&[("user", "a"), ("user", "b")]));
        assert_ne!(chat(&[("user", "ab")]), Document::Text("ab".into()).hash());
    }
}
