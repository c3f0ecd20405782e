//! [`attribute`]: which bytes of a rendered conversation each message said, whatever the chat template does.
//!
//! ```text
//! rendered   = template(messages)
//! marked     = template(messages with marks around what they say)     marks: private-use characters, one per message
//! if marked without marks == rendered: the marks stand where the message begins and ends in `rendered`
//! ```
//!
//! The comparison makes this reliable: marks that change what a template does are not used. Then fewer messages are
//! marked at a time, and at last a single one inside its white space, only at its end, or only at its beginning.
//! Nothing is guessed: what no marks tell is the template's.

use std::ops::Range;

use super::{
    chat::ChatMessage,
    role::{Role, RoleSpan},
};

/// Fields that hold more of what a message said.
const THOUGHTS: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];

/// Most times that a conversation is rendered for its marks.
const MOST_RENDERS: usize = 200;

/// The mark at the beginning of message `i` is the character `BEGIN + i`, at its end `END + i`: the two planes of private
/// use, which no text should have.
const BEGIN: u32 = 0xf_0000;
const END: u32 = 0x10_0000;
const MOST_MESSAGES: usize = 0xfffe;

/// Where the marks of a message stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marks {
    /// Around all of it.
    Outside,
    /// Around all of it except white space at its ends, which many templates strip.
    Inside,
    /// At its end, for templates that ask how it begins.
    Last,
    /// At its beginning.
    First,
}

/// The bytes of `rendered` that the messages said, in order. `render` is the template that made it of `messages`.
pub(super) fn attribute(
    messages: &[ChatMessage],
    rendered: &str,
    render: impl Fn(&[ChatMessage]) -> Option<String>,
) -> Vec<RoleSpan> {
    if messages.len() > MOST_MESSAGES || rendered.chars().any(|c| u32::from(c) >= BEGIN) {
        return vec![];
    }
    let mut search = Search { messages, rendered, render, renders: 0, found: vec![] };
    search.find(0..messages.len());
    let mut spans = search.found;
    spans.sort_by_key(|(bytes, _)| bytes.start);
    // A template may write a message twice, but no byte is of two messages.
    let mut end = 0;
    spans.retain(|(bytes, _)| {
        let is_free = bytes.start >= end;
        end = end.max(bytes.end);
        is_free
    });
    let role = |message: usize| Role::of_speaker(&messages[message].role);
    spans.into_iter().map(|(bytes, message)| RoleSpan { bytes, role: role(message) }).collect()
}

struct Search<'a, R> {
    messages: &'a [ChatMessage],
    rendered: &'a str,
    render: R,
    renders: usize,
    /// Bytes and the message that said them.
    found: Vec<(Range<usize>, usize)>,
}

impl<R: Fn(&[ChatMessage]) -> Option<String>> Search<'_, R> {
    /// Finds what `messages` said, all at once if that works, else each half.
    fn find(&mut self, messages: Range<usize>) {
        let one = messages.len() == 1;
        let ways =
            if one { &[Marks::Outside, Marks::Inside, Marks::Last, Marks::First][..] } else { &[Marks::Outside] };
        if messages.is_empty() || ways.iter().any(|marks| self.is_told(messages.clone(), *marks)) || one {
            return;
        }
        if self.renders >= MOST_RENDERS {
            self.is_told(messages, Marks::Inside);
            return;
        }
        let middle = messages.start + messages.len() / 2;
        self.find(messages.start..middle);
        self.find(middle..messages.end);
    }

    /// True if these marks tell what `messages` said, which is then added.
    fn is_told(&mut self, messages: Range<usize>, marks: Marks) -> bool {
        self.renders += 1;
        let marked = self
            .messages
            .iter()
            .enumerate()
            .map(|(i, message)| if messages.contains(&i) { marked(message, i, marks) } else { message.clone() });
        let Some(text) = (self.render)(&marked.collect::<Vec<_>>()) else { return false };
        let (plain, found) = without_marks(&text);
        if plain != self.rendered {
            return false;
        }
        self.found.extend(spans(self.messages, self.rendered, &found));
        true
    }
}

/// The message with marks around each text of it that is not only white space.
fn marked(message: &ChatMessage, number: usize, marks: Marks) -> ChatMessage {
    let mark = |of: u32| char::from_u32(of + number as u32).map(String::from).unwrap_or_default();
    let around = |text: &str| {
        let core = text.trim();
        if core.is_empty() {
            return text.to_owned();
        }
        let (first, last) = match marks {
            Marks::Outside | Marks::Inside => (mark(BEGIN), mark(END)),
            Marks::Last => (String::new(), mark(END)),
            Marks::First => (mark(BEGIN), String::new()),
        };
        if marks == Marks::Outside {
            return format!("{first}{text}{last}");
        }
        let (before, after) = text.split_once(core).unwrap_or_default();
        format!("{before}{first}{core}{last}{after}")
    };
    let mut marked = ChatMessage { content: around(&message.content), ..message.clone() };
    for thought in THOUGHTS {
        if let Some(serde_json::Value::String(text)) = marked.more.get_mut(thought) {
            *text = around(text);
        }
    }
    marked
}

/// A mark in a text: where it stands in the text without marks, its message, and whether it is at its beginning.
type Mark = (usize, usize, bool);

fn without_marks(text: &str) -> (String, Vec<Mark>) {
    let (mut plain, mut marks) = (String::with_capacity(text.len()), vec![]);
    for c in text.chars() {
        match u32::from(c) {
            end @ END.. => marks.push((plain.len(), (end - END) as usize, false)),
            begin @ BEGIN.. => marks.push((plain.len(), (begin - BEGIN) as usize, true)),
            _ => plain.push(c),
        }
    }
    (plain, marks)
}

/// What lies between the marks. Where the template kept only one of a pair, because it cut the message, as much as the
/// message and `text` have in common there.
fn spans(messages: &[ChatMessage], text: &str, marks: &[Mark]) -> Vec<(Range<usize>, usize)> {
    let mut spans: Vec<(Range<usize>, usize)> = vec![];
    let mut marks = marks.iter().peekable();
    while let Some(&(at, message, begins)) = marks.next() {
        let before = spans.last().map_or(0, |(bytes, _)| bytes.end);
        let said = messages[message].content.as_str();
        let bytes = match marks.peek() {
            Some(&&(end, of, false)) if begins && of == message => {
                marks.next();
                at..end
            }
            next if begins => {
                let limit = next.map_or(text.len(), |next| next.0);
                let pairs = || said.trim_start().chars().zip(text[at..limit].chars());
                at..at + pairs().take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum::<usize>()
            }
            _ => {
                let pairs = said.trim_end().chars().rev().zip(text[before..at].chars().rev());
                at - pairs.take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum::<usize>()..at
            }
        };
        if !bytes.is_empty() {
            spans.push((bytes, message));
        }
    }
    spans
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::{
        super::{
            chat::{Prompt, render},
            chat_date::ChatDate,
        },
        *,
    };

    fn rendered(template: &str, messages: &[ChatMessage], tokens: &BTreeMap<String, String>) -> Option<String> {
        let prompt = Prompt { messages, tools: None, documents: None, add_generation_prompt: false, tokens };
        render(template, &prompt, ChatDate::default()).ok()
    }

    /// The rendered text with what the messages said in brackets: `<user>[u:hi]`.
    fn told(template: &str, messages: &[(&str, &str)]) -> String {
        let messages: Vec<_> = messages.iter().map(|(role, content)| ChatMessage::new(*role, *content)).collect();
        let render = |messages: &[ChatMessage]| rendered(template, messages, &BTreeMap::new());
        let text = render(&messages).unwrap();
        let (mut told, mut end) = (String::new(), 0);
        for RoleSpan { bytes, role } in attribute(&messages, &text, render) {
            told += &format!("{}[{}:{}]", &text[end..bytes.start], &role.name()[..1], &text[bytes.clone()]);
            end = bytes.end;
        }
        told + &text[end..]
    }

    #[test]
    fn what_a_template_writes_of_its_own_is_nobodys() {
        let chatml = "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}</>\n{% endfor %}";
        let chat = [("system", "user"), ("user", " hi \n"), ("assistant", "</>\nuser\n"), ("tool", ""), ("gpt", "x")];
        let expected = "<system>\n[s:user]</>\n<user>\n[u: hi \n]</>\n<assistant>\n[a:</>\nuser\n]</>\n<tool>\n</>\n<gpt>\n[o:x]</>\n";
        assert_eq!(told(chatml, &chat), expected);
    }

    #[test]
    fn what_a_template_strips_cuts_moves_or_repeats_is_followed() {
        let each = |what: &str| format!("{{% for m in messages %}}({{{{ {what} }}}}){{% endfor %}}");
        let chat = [("user", "hi"), ("assistant", "<t>\nwhy\n</t>\n\nso")];
        assert_eq!(told(&each("m.content | trim"), &[("user", " hi\n"), ("assistant", "ho")]), "([u:hi])([a:ho])");
        assert_eq!(told(&each("m.content.split('</t>')[-1].lstrip()"), &chat), "([u:hi])([a:so])");
        assert_eq!(told(&each("m.content.split('</t>')[0]"), &chat), "([u:hi])([a:<t>\nwhy\n])");
        assert_eq!(told(&each("m.content + '|' + m.content"), &chat[..1]), "([u:hi]|[u:hi])");
        assert_eq!(told(&each("m.content | tojson"), &[("user", "a\"b")]), "(\"[u:a\\\"b]\")");
        let moved = "{{ messages[1].content }}<<{{ messages[0].content }}>>";
        assert_eq!(told(moved, &[("system", "brief"), ("user", "hi")]), "[u:hi]<<[s:brief]>>");
    }

    #[test]
    fn templates_that_ask_about_a_text_are_not_fooled() {
        let asks = |what: &str| {
            format!("{{% for m in messages %}}{{% if {what} %}}!{{% endif %}}({{{{ m.content }}}}){{% endfor %}}")
        };
        let chat = [("user", "<r>a"), ("assistant", "b</r>"), ("user", "c")];
        let expected = ["!([u:<r>a])([a:b</r>])([u:c])", "([u:<r>a])!([a:b</r>])([u:c])"];
        assert_eq!(told(&asks("m.content.startswith('<r>')"), &chat), expected[0]);
        assert_eq!(told(&asks("m.content.endswith('</r>')"), &chat), expected[1]);
        // Nothing can be told of a text of which the template asks everything.
        assert_eq!(told(&asks("m.content | length == 1"), &chat), "([u:<r>a])([a:b</r>])!(c)");
        assert_eq!(told("{{ messages }}", &[("user", "hi")]), "[{'role': 'user', 'content': '[u:hi]'}]");
    }

    /// Of every template that the tests have: the spans are in order and in the message, and a message that stands in
    /// the text is found there, or the template asks about it.
    pub(in super::super) fn check(
        template: &str,
        messages: &[ChatMessage],
        tokens: &BTreeMap<String, String>,
    ) -> Option<(usize, usize)> {
        let render = |messages: &[ChatMessage]| rendered(template, messages, tokens);
        let text = render(messages)?;
        let spans = attribute(messages, &text, render);
        assert!(spans.windows(2).all(|pair| pair[0].bytes.end <= pair[1].bytes.start), "{template}");
        let mut found = 0;
        let said = messages.iter().filter(|message| !message.content.trim().is_empty());
        let said: Vec<_> = said.filter(|message| text.contains(message.content.trim())).collect();
        for message in &said {
            let is_it = |span: &RoleSpan| text[span.bytes.clone()].trim() == message.content.trim();
            let role = Role::of_speaker(&message.role);
            found += usize::from(spans.iter().any(|span| is_it(span) && span.role == role));
        }
        Some((found, said.len()))
    }
}
