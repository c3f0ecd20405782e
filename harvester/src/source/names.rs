//! Checks of texts that become part of a path or of a command line.

/// True if a text can be one part of a path or an argument of a command: it is neither `..` nor an option.
pub(super) fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+!".contains(&byte);
    text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric()) && text.bytes().all(plain)
}

/// True if a text is a relative path that stays inside its folder.
pub(super) fn is_file(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && !part.contains(['\\', ':'])
            && !part.contains(char::is_control)
    };
    text.split('/').all(part)
}

/// The names of all parts of a model that llama.cpp split, given one of them: `NAME-00001-of-00003.gguf` and so on.
/// `None`: the name is not of this form.
pub(crate) fn gguf_parts(name: &str) -> Option<Vec<String>> {
    let (stem, total) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (base, number) = stem.rsplit_once('-')?;
    let of = |digits: &str| (digits.len() == 5).then(|| digits.parse::<usize>().ok()).flatten();
    let (number, total) = (of(number)?, of(total)?);
    (1..=total).contains(&number).then(|| (1..=total).map(|n| format!("{base}-{n:05}-of-{total:05}.gguf")).collect())
}
