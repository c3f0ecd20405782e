//! Which texts may become part of a path or of a command line.

/// A part of a name. It becomes part of a path and of a command line, so it may be neither `..` nor an option.
pub(super) fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+!".contains(&byte);
    text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric()) && text.bytes().all(plain)
}

/// A relative path of names.
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
