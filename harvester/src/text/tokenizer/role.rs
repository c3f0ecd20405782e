//! [`Role`]: who said a token of a conversation; [`Encoded`]: tokens with their roles; [`RoleSpan`]: the bytes of a text
//! that one of its messages said.

use std::ops::Range;

/// Who said a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// `system` or `developer`.
    System = 1,
    /// `user`.
    User,
    /// `assistant` or `model`.
    Assistant,
    /// The answer of a tool: `tool`, `function`, `ipython` or `observation`.
    Tool,
    /// A speaker of another name.
    Other,
    /// Nobody: what the chat template, the separator or BOS put between and around the messages.
    Template,
}

impl Role {
    /// Every role.
    pub(crate) const ALL: [Self; 6] =
        [Self::System, Self::User, Self::Assistant, Self::Tool, Self::Other, Self::Template];

    /// The role of a speaker, as conversations name it.
    pub(super) fn of_speaker(name: &str) -> Self {
        match name {
            "system" | "developer" => Self::System,
            "user" => Self::User,
            "assistant" | "model" => Self::Assistant,
            "tool" | "function" | "ipython" | "observation" => Self::Tool,
            _ => Self::Other,
        }
    }

    /// The word in the files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
            Self::Other => "other",
            Self::Template => "template",
        }
    }

    /// The role with this word.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// The role with this number, which is not 0.
    pub(crate) fn numbered(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| *role as u8 == number)
    }
}

/// The tokens of a document, with the role of each if it is a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) tokens: Vec<u32>,
    /// As many as `tokens`, or none for a plain text.
    pub(crate) roles: Vec<Option<Role>>,
}

impl Encoded {
    /// The tokens of a plain text.
    pub(crate) fn of_text(tokens: Vec<u32>) -> Self {
        Self { tokens, roles: vec![] }
    }
}

/// Bytes of a text that a message said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoleSpan {
    pub(super) bytes: Range<usize>,
    pub(super) role: Role,
}

/// The role of each token, from its bytes in the text. `spans` are in order and do not overlap. A token across a border
/// has the role of most of its bytes, and of a message if that is half of them: ` Hello` after `[INST]`.
pub(super) fn roles_of(tokens: &[(usize, usize)], spans: &[RoleSpan]) -> Vec<Option<Role>> {
    let role = |&(start, end): &(usize, usize)| {
        let first = spans.partition_point(|span| span.bytes.end <= start);
        let inside = |span: &RoleSpan| span.bytes.end.min(end).saturating_sub(span.bytes.start.max(start));
        let here = spans[first..].iter().take_while(|span| span.bytes.start < end);
        let said: Vec<_> = here.map(|span| (inside(span), span.role)).collect();
        let of_messages: usize = said.iter().map(|(bytes, _)| bytes).sum();
        // Of several messages, the first with the most bytes.
        let most = said.iter().rev().max_by_key(|(bytes, _)| *bytes);
        Some(most.filter(|_| end > start && 2 * of_messages >= end - start).map_or(Role::Template, |(_, role)| *role))
    };
    tokens.iter().map(role).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_across_a_border_has_the_role_of_most_of_it() {
        // <u> hi\n</u>you
        let spans = [
            RoleSpan { bytes: 4..7, role: Role::User },
            RoleSpan { bytes: 11..14, role: Role::Assistant },
            RoleSpan { bytes: 14..20, role: Role::Tool },
        ];
        let tokens = [(0, 3), (3, 5), (5, 7), (6, 9), (7, 11), (11, 13), (13, 17), (3, 3), (20, 22)];
        use Role::{Assistant, Template, Tool, User};
        let expected = [Template, User, User, Template, Template, Assistant, Tool, Template, Template];
        assert_eq!(roles_of(&tokens, &spans), expected.map(Some));
    }

    #[test]
    fn roles_survive_their_words_and_numbers() {
        for role in Role::ALL {
            assert_eq!((Role::named(role.name()), Role::numbered(role as u8)), (Some(role), Some(role)));
        }
        assert_eq!((Role::numbered(0), Role::named("gpt")), (None, None));
    }
}
