//! Chat templates: Jinja programs that ship with a model and turn a conversation into the prompt format of its
//! training. [`render`] gives them the same variables and Python string methods as Hugging Face's renderer.

use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    syntax::SyntaxConfig,
    value::{Serde, ValueKind, from_args},
};
use serde::{Deserialize, Serialize};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// The speaker: `system`, `user` or `assistant`, if the model's template knows it.
    pub role: String,
    /// The text of the turn.
    pub content: String,
}

impl ChatMessage {
    /// A turn of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".to_owned(), content: content.into() }
    }
}

/// The variables of a template.
#[derive(Debug, Serialize)]
pub(super) struct Prompt<'a> {
    pub(super) messages: &'a [ChatMessage],
    pub(super) bos_token: String,
    pub(super) eos_token: String,
    pub(super) add_generation_prompt: bool,
}

/// Renders a template as Hugging Face does: blocks leave no line break and no indentation behind. `strftime_now` is
/// undefined, which templates check for: a prompt must not depend on the day it is made.
pub(super) fn render(template: &str, prompt: &Prompt<'_>) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> { Err(invalid(message)) });
    environment.set_unknown_method_callback(python_method);
    environment.render_named_str("chat_template", template, Value::from(Serde(prompt)))
}

/// The template's own message and its line, without the engine's classification.
pub(super) fn reason(error: &Error) -> String {
    let message = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    error.line().map_or_else(|| message.clone(), |line| format!("{message} (line {line})"))
}

/// The methods of Python's `str` and `dict` that published templates call.
fn python_method(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => string_method(state, value, method, args),
        ValueKind::Map => dict_method(state, value, method, args),
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

fn string_method(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let text = value.as_str().unwrap_or_default();
    match method {
        "strip" | "lstrip" | "rstrip" => strip(text, method, args),
        "startswith" => from_args(args).map(|(prefix,): (&str,)| Value::from(text.starts_with(prefix))),
        "endswith" => from_args(args).map(|(suffix,): (&str,)| Value::from(text.ends_with(suffix))),
        "split" | "replace" | "upper" | "lower" | "title" => {
            let subject_and_args: Vec<_> = std::iter::once(value).chain(args).cloned().collect();
            state.apply_filter(method, &subject_and_args)
        }
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

fn strip(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (characters,): (Option<&str>,) = from_args(args)?;
    let strips = |character: char| characters.map_or(character.is_whitespace(), |set| set.contains(character));
    let from_left = if method == "rstrip" { text } else { text.trim_start_matches(strips) };
    Ok(Value::from(if method == "lstrip" { from_left } else { from_left.trim_end_matches(strips) }))
}

fn dict_method(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "items" => state.apply_filter("items", std::slice::from_ref(value)),
        "keys" => Ok(value.try_iter()?.collect()),
        "values" => value.try_iter()?.map(|key| value.get_item(&key)).collect::<Result<Vec<_>, _>>().map(Value::from),
        "get" => {
            let (key, default): (Value, Option<Value>) = from_args(args)?;
            let found = value.get_item(&key)?;
            Ok(if found.is_undefined() { default.unwrap_or(Value::from(())) } else { found })
        }
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn render_with(template: &str, contents: &[(&str, &str)]) -> Result<String, Error> {
        let message = |(role, content): &(&str, &str)| ChatMessage { role: (*role).into(), content: (*content).into() };
        let messages: Vec<_> = contents.iter().map(message).collect();
        let prompt = Prompt {
            messages: &messages,
            bos_token: "<s>".into(),
            eos_token: "</s>".into(),
            add_generation_prompt: true,
        };
        render(template, &prompt)
    }

    #[test]
    fn blocks_leave_no_white_space_of_their_own() {
        let template = "{{ bos_token }}\n{% for message in messages %}\n    {% if true %}\n\
                        [{{ message.role }}]\n    {% endif %}\n{% endfor %}\n";
        assert_eq!(render_with(template, &[("user", "x"), ("assistant", "y")]).unwrap(), "<s>\n[user]\n[assistant]\n");
    }

    #[test]
    fn python_methods_act_as_in_python() {
        let cases = [
            ("messages[0].content.strip()", "a b"),
            ("messages[0].content.lstrip('- ')", "a b  "),
            ("messages[0].content.split()|join(',')", "a,b"),
            ("'a</think>b</think>c'.split('</think>')[-1]", "c"),
            ("'a.b.c'.split('.', 1)|join(' ')", "a b.c"),
            ("'hello world'.title()", "Hello World"),
            ("'abc'.startswith('ab') and 'abc'.endswith('bc')", "True"),
            ("messages[0].get('role')", "user"),
            ("messages[0].get('tool_calls', 'none')", "none"),
            ("messages[1:]|length", "0"),
        ];
        for (expression, expected) in cases {
            let rendered = render_with(&format!("{{{{ {expression} }}}}"), &[("user", "  a b  ")]);
            assert_eq!(rendered.unwrap(), expected, "{expression}");
        }
    }

    #[test]
    fn a_template_says_itself_what_it_refuses() {
        let error = render_with("{{ raise_exception('roles must alternate') }}", &[]).unwrap_err();
        assert_eq!(reason(&error), "roles must alternate (line 1)");
    }

    #[test]
    fn unknown_methods_are_errors() {
        assert!(render_with("{{ 'a'.frobnicate() }}", &[]).is_err());
    }
}
