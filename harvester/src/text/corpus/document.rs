//! [`Document`]: one piece of a corpus, before it is tokenized.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    store::hex,
    text::{CALLS, ChatMessage},
};

/// A text, or a conversation that is formatted by the model's own chat template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    /// Plain text.
    Text(String),
    /// A conversation, turn by turn.
    Chat(Vec<ChatMessage>),
    /// A conversation with a turn without content, or with null, as in a turn that calls a tool. The conversation must
    /// not be used as if an empty text had been said.
    IncompleteChat(Vec<ChatMessage>),
}

/// A document with the values of the fields kept beside it, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) document: Document,
    pub(crate) kept: Vec<Option<String>>,
    /// Its value of `source_field`, in a line of a JSONL file.
    pub(crate) source: Option<String>,
}

/// The first 16 bytes of a document's SHA-256. Documents with the same hash count as the same.
pub(crate) type DocumentHash = [u8; 16];

impl Document {
    /// Length in bytes.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Chat(messages) | Self::IncompleteChat(messages) => {
                messages.iter().map(|message| message.content.len() as u64).sum()
            }
        }
    }

    /// True if the document has no text. Such a document counts as empty, and never as a duplicate.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Chat(messages) | Self::IncompleteChat(messages) => messages.is_empty(),
        }
    }

    /// SHA-256 of the text; for a conversation, of what was said, one turn after the other.
    pub(crate) fn text_sha256(&self) -> String {
        let mut hasher = Sha256::new();
        match self {
            Self::Text(text) => hasher.update(text),
            Self::Chat(messages) | Self::IncompleteChat(messages) => {
                messages.iter().for_each(|message| hasher.update(&message.content));
            }
        }
        hex(&hasher.finalize())
    }

    /// Hash that identifies the content.
    pub(crate) fn hash(&self) -> DocumentHash {
        let mut hasher = Sha256::new();
        if matches!(self, Self::IncompleteChat(_)) {
            hasher.update([0xfd]);
        }
        match self {
            Self::Text(text) => hasher.update(text),
            Self::Chat(messages) | Self::IncompleteChat(messages) => messages.iter().for_each(|message| {
                // No UTF-8 text contains this byte, so different conversations give different bytes.
                hasher.update([0xff]);
                hasher.update(&message.role);
                hasher.update([0xfe]);
                hasher.update(&message.content);
                if !message.more.is_empty() {
                    hasher.update([0xfc]);
                    hasher.update(serde_json::to_vec(&message.more).expect("JSON can be written as JSON"));
                }
            }),
        }
        first_16(&hasher.finalize())
    }

    /// Parses a conversation: a list of objects with `role` and `content`, or with `from` and `value` as in ShareGPT.
    /// The error says what was found instead.
    pub(super) fn chat_of(value: Value) -> Result<Self, String> {
        let Value::Array(turns) = value else { return Err("no list of turns".into()) };
        let messages: Vec<ChatMessage> = turns.into_iter().map(turn).collect::<Result<_, _>>()?;
        let is_whole = messages.iter().all(|message| message.has_content);
        Ok(if is_whole { Self::Chat(messages) } else { Self::IncompleteChat(messages) })
    }
}

/// Description of a turn that lacks its speaker or its content.
const NOT_A_TURN: &str = "a turn without strings `role` and `content`, or `from` and `value`";

fn turn(value: Value) -> Result<ChatMessage, String> {
    let Value::Object(mut turn) = value else { return Err("a turn that is not an object".into()) };
    let mut why = None;
    for (who, what) in [("role", "content"), ("from", "value")] {
        let Some(speaker) = turn.get(who) else { continue };
        let calls = CALLS.iter().any(|call| turn.get(*call).is_some_and(|value| !value.is_null()));
        let Some(said) = turn.get(what).or(calls.then_some(&Value::Null)) else { continue };
        match (speaker, content_of(said)) {
            (Value::String(speaker), Ok(content)) => {
                let role = if who == "from" { role_of(speaker) } else { speaker }.to_owned();
                let (has_content, is_null) = (content.is_some(), content.is_none() && turn.contains_key(what));
                turn.retain(|field, value| field != who && field != what && !value.is_null());
                if is_null {
                    turn.insert("content".into(), Value::Null);
                }
                return Ok(ChatMessage { role, content: content.unwrap_or_default(), has_content, more: turn });
            }
            (Value::String(_), Err(found)) => why.get_or_insert(format!("its `{what}` is {found}")),
            (speaker, _) => why.get_or_insert(format!("its `{who}` is {}", kind_of(speaker))),
        };
    }
    let fields = || turn.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    Err(format!("{NOT_A_TURN}: {}", why.unwrap_or_else(|| format!("its fields are [{}]", fields()))))
}

/// The content of a turn: a string, null, or a list of parts as in OpenAI's format, `[{"type": "text", "text": ".."}]`,
/// whose texts are joined. The error says what was found instead.
fn content_of(value: &Value) -> Result<Option<String>, String> {
    let text_of = |part: &Value| match (part["type"].as_str(), &part["text"]) {
        (Some("text"), Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Array(parts) => parts
            .iter()
            .map(text_of)
            .collect::<Option<String>>()
            .map(Some)
            .ok_or_else(|| "a list with a part that is not {\"type\": \"text\", \"text\": \"..\"}".into()),
        other => Err(kind_of(other).into()),
    }
}

pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The role name that templates use for a ShareGPT speaker.
fn role_of(from: &str) -> &str {
    match from {
        "human" => "user",
        "gpt" => "assistant",
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
        let theirs = Document::chat_of(
            json!([{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho", "weight": null}]),
        );
        assert!(ours.is_ok());
        assert_eq!(ours, theirs);
        let message = Document::chat_of(json!([{"speaker": "a", "text": "hi"}])).unwrap_err();
        assert!(message.contains("speaker, text"), "{message}");
        assert!(Document::chat_of(json!("hi")).is_err());
    }

    #[test]
    fn the_texts_of_a_list_of_parts_are_one_content() {
        let part = |text: &str| json!({"type": "text", "text": text});
        let parts = Document::chat_of(json!([{"role": "user", "content": [part("see "), part("this")]}]));
        assert_eq!(parts, Document::chat_of(json!([{"role": "user", "content": "see this"}])));
        assert!(parts.is_ok());
    }

    #[test]
    fn what_is_wrong_with_a_turn_is_said() {
        let cases = [
            (json!({"role": "user", "content": {"a": 1}}), "its `content` is an object"),
            (json!({"role": "user", "content": [{"type": "image_url"}]}), "its `content` is a list with a part"),
            (json!({"role": "user", "content": ["hi"]}), "its `content` is a list with a part"),
            (json!({"role": 7, "content": "hi"}), "its `role` is a number"),
            (json!({"from": "gpt", "value": false}), "its `value` is true or false"),
            (json!({"role": "assistant", "text": "hi"}), "its fields are [role, text]"),
        ];
        for (turn, expected) in cases {
            let message = Document::chat_of(json!([turn])).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        let both = json!([{"role": null, "content": null, "from": "human", "value": "hi"}]);
        assert_eq!(Document::chat_of(both), Document::chat_of(json!([{"role": "user", "content": "hi"}])));
    }

    #[test]
    fn a_turn_that_calls_a_tool_instead_of_saying_something_has_no_content() {
        let call = json!([{"type": "function", "function": {"name": "f", "arguments": {}}}]);
        let turns = [
            json!({"role": "assistant", "tool_calls": call}),
            json!({"role": "assistant", "content": null, "tool_calls": call}),
            json!({"role": "assistant", "function_call": {"name": "f"}}),
            json!({"from": "gpt", "tool_calls": call}),
        ];
        for turn in turns {
            let chat = Document::chat_of(json!([{"role": "user", "content": "hi"}, turn])).unwrap();
            assert!(matches!(chat, Document::IncompleteChat(_)), "{chat:?}");
        }
        let said = json!([{"role": "assistant", "content": "I look it up", "tool_calls": call, "name": null}]);
        let Document::Chat(turns) = Document::chat_of(said).unwrap() else { panic!("something was said") };
        assert_eq!(Value::Object(turns[0].more.clone()), json!({ "tool_calls": call }));
    }

    #[test]
    fn a_conversation_cut_elsewhere_is_another() {
        let chat = |turns: &[(&str, &str)]| {
            let message = |(role, content): &(&str, &str)| ChatMessage::new(*role, *content);
            Document::Chat(turns.iter().map(message).collect()).hash()
        };
        assert_ne!(chat(&[("user", "ab")]), chat(&[("user", "a"), ("user", "b")]));
        assert_ne!(chat(&[("user", "ab")]), Document::Text("ab".into()).hash());
    }
}
