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
