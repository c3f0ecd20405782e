//! Chat templates: Jinja programs that ship with a model and turn a conversation into the prompt format of its
//! training. [`render`] gives them the environment that transformers gives them (`apply_chat_template`): its variables,
//! functions and tags, Python's methods, and Python's way of writing values.

use std::collections::BTreeMap;

use minijinja::{
    Environment, Error, ErrorKind, Output, State, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde, ValueKind, from_args},
};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::{Deserialize, Serialize, ser::SerializeMap};
use serde_json::Map;

use super::{
    chat_date::ChatDate,
    python_text::{self, JsonStyle},
};

/// Fields of a turn that calls a tool.
pub(crate) const CALLS: [&str; 2] = ["tool_calls", "function_call"];

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ChatMessage {
    /// The speaker: `system`, `user` or `assistant`, if the model's template knows it.
    pub(crate) role: String,
    /// The text of the turn.
    pub(crate) content: String,
    /// False for a turn whose content is null or absent, as in one that calls a tool. `content` is empty then.
    #[serde(skip, default = "yes")]
    pub(crate) has_content: bool,
    /// Its other fields, such as `tool_calls`, for templates that know them; also a content that is null.
    #[serde(flatten)]
    pub(crate) more: Map<String, serde_json::Value>,
}

fn yes() -> bool {
    true
}

/// As a template sees it: a content that is absent is not there, and one that is null is null.
impl Serialize for ChatMessage {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut turn = to.serialize_map(None)?;
        turn.serialize_entry("role", &self.role)?;
        if self.has_content {
            turn.serialize_entry("content", &self.content)?;
        }
        let is_there = |(field, _): &(&String, &_)| !(self.has_content && *field == "content");
        self.more.iter().filter(is_there).try_for_each(|(field, value)| turn.serialize_entry(field, value))?;
        turn.end()
    }
}

impl ChatMessage {
    /// A turn of `role`.
    pub(crate) fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), has_content: true, more: Map::new() }
    }

    /// True if the turn calls a tool.
    pub(crate) fn calls_tool(&self) -> bool {
        CALLS.iter().any(|call| self.more.contains_key(*call))
    }
}

/// The variables of a template.
#[derive(Debug, Serialize)]
pub(super) struct Prompt<'a> {
    pub(super) messages: &'a [ChatMessage],
    /// transformers passes these as `None`: templates ask whether they are.
    pub(super) tools: Option<()>,
    pub(super) documents: Option<()>,
    pub(super) add_generation_prompt: bool,
    /// `bos_token`, `eos_token` and others that the model has.
    #[serde(flatten)]
    pub(super) tokens: &'a BTreeMap<String, String>,
}

/// Renders a template as transformers does. `date` is what templates take for today.
pub(super) fn render(template: &str, prompt: &Prompt<'_>, date: ChatDate) -> Result<String, Error> {
    let mut environment = Environment::new();
    // Blocks leave no line break and no indentation behind.
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_formatter(write_value);
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", |value: Value| python_text::shown(&value));
    // Nothing can be taken from `None`, which templates ask of `tools`.
    environment.add_test("iterable", |value: Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> { Err(invalid(message)) });
    environment.add_function("strftime_now", move |format: &str| date.strftime(format).map_err(invalid));
    environment.set_unknown_method_callback(python_method);
    environment.render_named_str("chat_template", &without_generation(template), Value::from(Serde(prompt)))
}

/// The template's own message and its line, without the engine's classification.
pub(super) fn reason(error: &Error) -> String {
    let message = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    error.line().map_or_else(|| message.clone(), |line| format!("{message} (line {line})"))
}

/// The template with the tags `generation` and `endgeneration`, by which transformers tells an assistant's tokens from
/// others, turned into ones that only open a scope, as they do.
fn without_generation(template: &str) -> String {
    let (mut text, mut rest) = (String::with_capacity(template.len()), template);
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        text.push_str(before);
        let name = tag.trim_start_matches(['-', '+']).trim_start();
        let space = &tag[..tag.len() - name.len()];
        let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
        let plain = match &name[..end] {
            "generation" => "with",
            "endgeneration" => "endwith",
            other => other,
        };
        text.push_str(space);
        text.push_str(plain);
        rest = &name[end..];
    }
    text.push_str(rest);
    text
}

/// Writes a value as Python does: `None`, `{'a': 1}`.
fn write_value(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None | ValueKind::Number | ValueKind::Seq | ValueKind::Map => {
            out.write_str(&python_text::shown(value)).map_err(|_| Error::from(ErrorKind::WriteFailure))
        }
        _ => minijinja::escape_formatter(out, state, value),
    }
}

/// transformers' filter: `json.dumps` that keeps every character.
fn to_json(value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let style = JsonStyle {
        indent,
        separators: separators.and_then(|both| <[String; 2]>::try_from(both).ok()),
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ensure_ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    let json = serde_json::to_value(&value).map_err(|error| invalid(error.to_string()))?;
    // As a safe string: it is written as it is.
    Ok(Value::from_safe_string(style.write(&json)))
}

/// Methods of Python's strings and dictionaries that published templates call.
fn python_method(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match method {
            "rsplit" => return rsplit(text, args),
            "removeprefix" => {
                return from_args(args)
                    .map(|(prefix,): (&str,)| Value::from(text.strip_prefix(prefix).unwrap_or(text)));
            }
            "removesuffix" => {
                return from_args(args)
                    .map(|(suffix,): (&str,)| Value::from(text.strip_suffix(suffix).unwrap_or(text)));
            }
            "format" => return python_text::format(text, args).map(Value::from).map_err(invalid),
            "partition" | "rpartition" => return partition(text, method, args),
            _ => {}
        }
    }
    unknown_method_callback(state, value, method, args)
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
    let most = most.and_then(|most| usize::try_from(most).ok()).map_or(usize::MAX, |most| most.saturating_add(1));
    let mut parts: Vec<&str> = match separator {
        Some(separator) => text.rsplitn(most, separator).collect(),
        None => {
            // Any run of white space separates, and none stays at the ends.
            let (mut parts, mut rest) = (vec![], text.trim());
            while parts.len() + 1 < most
                && let Some((before, last)) = rest.rsplit_once(char::is_whitespace)
            {
                parts.push(last);
                rest = before.trim_end();
            }
            parts.extend(Some(rest).filter(|rest| !rest.is_empty()));
            parts
        }
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

fn partition(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator,): (&str,) = from_args(args)?;
    let (found, absent) = match method {
        "partition" => (text.split_once(separator), [text, "", ""]),
        _ => (text.rsplit_once(separator), ["", "", text]),
    };
    let parts = found.map_or(absent, |(before, after)| [before, separator, after]);
    Ok(parts.into_iter().map(Value::from).collect())
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{super::attribution, *};

    #[derive(Deserialize)]
    struct Reference {
        conversations: BTreeMap<String, Vec<ChatMessage>>,
        tokens: BTreeMap<String, String>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        template: String,
        conversation: String,
        add_generation_prompt: bool,
        /// The text that transformers makes of it; `None` if it refuses.
        rendered: Option<String>,
    }

    /// Rendered by transformers itself: `tests/fixtures/chat/make_chat.py`.
    #[test]
    fn templates_are_rendered_as_by_transformers() {
        // These templates do odd things on purpose, such as to write the length of a message.
        check(include_str!("../../../../tests/fixtures/chat/chat.json"), 70);
    }

    /// Published templates are not ours to copy. `tests/fixtures/chat/make_chat.py FOLDER` says how to get them.
    #[test]
    fn published_templates_are_rendered_as_by_transformers() {
        match std::env::var_os("REFRACT_CHAT_TEMPLATES") {
            Some(folder) => {
                check(&std::fs::read_to_string(std::path::Path::new(&folder).join("chat.json")).unwrap(), 95)
            }
            None => eprintln!("skipped: set REFRACT_CHAT_TEMPLATES to a folder that make_chat.py has prepared"),
        }
    }

    /// At least `least` percent of the messages that stand in a text as they are must be told apart in it.
    fn check(json: &str, least: usize) {
        let reference: Reference = serde_json::from_str(json).unwrap();
        let (mut wrong, mut told) = (vec![], (0, 0));
        for Case { template, conversation, add_generation_prompt, rendered } in &reference.cases {
            let messages = &reference.conversations[conversation];
            let (tools, documents, tokens) = (None, None, &reference.tokens);
            let add_generation_prompt = *add_generation_prompt;
            let prompt = Prompt { messages, tools, documents, add_generation_prompt, tokens };
            let found = render(template, &prompt, ChatDate::default());
            if let Some((found, said)) = attribution::tests::check(template, messages, tokens) {
                told = (told.0 + found, told.1 + said);
            }
            if found.as_ref().ok() != rendered.as_ref() {
                wrong.push(format!("{template}\n  of {conversation}: {found:?}\n  instead of {rendered:?}"));
            }
        }
        assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), reference.cases.len(), wrong.join("\n"));
        let (found, said) = told;
        assert!(100 * found >= least * said, "{found} of {said}");
    }

    #[test]
    fn a_template_says_itself_what_it_refuses() {
        let prompt = Prompt {
            messages: &[],
            tools: None,
            documents: None,
            add_generation_prompt: true,
            tokens: &BTreeMap::new(),
        };
        let error = |template| render(template, &prompt, ChatDate::default()).unwrap_err();
        assert_eq!(reason(&error("{{ raise_exception('roles must alternate') }}")), "roles must alternate (line 1)");
        assert!(reason(&error("\n{{ 'a'.frobnicate() }}")).contains("frobnicate"));
        assert!(reason(&error("{{ strftime_now('%Q') }}")).contains("`%Q`"));
    }
}
