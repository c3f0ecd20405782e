//! Rust source as a list of words and signs, without comments, literals and code for tests.

/// A word or a sign, and its line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// The tokens of a file.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    without_tests(lex(source))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn lex(source: &str) -> Vec<Token> {
    let mut tokens = vec![];
    let (mut rest, mut line) = (source, 1);
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' && !is_lifetime(rest) {
            quoted(rest, '\'')
        } else {
            let length = if word > 0 { word } else { first.len_utf8() };
            if !first.is_whitespace() {
                tokens.push(Token { text: rest[..length].to_string(), line });
            }
            length
        };
        line += rest[..skipped].matches('\n').count();
        rest = &rest[skipped..];
    }
    tokens
}

/// Length of a comment; they nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    for (at, _) in rest.char_indices() {
        depth += i32::from(rest[at..].starts_with("/*"));
        if rest[at..].starts_with("*/") {
            depth -= 1;
            if depth == 0 {
                return at + 2;
            }
        }
    }
    rest.len()
}

/// Length of `r"..."`, `r#"..."#` or their like, if `rest` begins with one.
fn raw_string(rest: &str) -> Option<usize> {
    let after_prefix = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after_prefix.find(|c| c != '#')?;
    let body = after_prefix[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", &after_prefix[..hashes]);
    Some(rest.len() - body.len() + body.find(&end)? + end.len())
}

/// Length of a literal between two `quote`s.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

/// `'a` of a lifetime or label, and not `'a'`.
fn is_lifetime(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    chars.next().is_some_and(is_word) && chars.next() != Some('\'')
}

/// Place after the bracket that closes the one at `open`.
pub(crate) fn after_group(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// Leaves out each item under `#[cfg(test)]`, with its other attributes.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut kept = vec![];
    let mut at = 0;
    while at < tokens.len() {
        let is_attribute = text(at) == "#" && text(at + 1) == "[";
        let end = if is_attribute { after_group(&tokens, at + 1) } else { at + 1 };
        let is_test = is_attribute && text(at + 2) == "cfg" && (at..end).any(|i| text(i) == "test");
        if !is_test || (at..end).any(|i| text(i) == "not") {
            kept.extend_from_slice(&tokens[at..end]);
            at = end;
            continue;
        }
        at = end;
        while text(at) == "#" {
            at = after_group(&tokens, at + 1);
        }
        // The item ends with its body, or with a semicolon before any.
        loop {
            match text(at) {
                "" => break,
                ";" => {
                    at += 1;
                    break;
                }
                "{" => {
                    at = after_group(&tokens, at);
                    break;
                }
                "(" | "[" => at = after_group(&tokens, at),
                _ => at += 1,
            }
        }
        // `use a::{b, c};` goes on after its braces.
        at += usize::from(text(at) == ";");
    }
    kept
}
