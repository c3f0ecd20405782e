//! The documents: every relative link leads to a file that exists and, with `#`, to one of its headings; the README
//! stays short.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

/// Bytes of the README at most: a newcomer reads it whole.
const README_BYTES: usize = 8192;
/// Folders without documents of ours.
const LEFT_OUT: [&str; 4] = [".git", "target", "demo", "runs"];

#[test]
fn links_lead_somewhere() {
    let mut broken = vec![];
    for document in documents(Path::new(env!("CARGO_MANIFEST_DIR"))) {
        let text = fs::read_to_string(&document).unwrap();
        broken
            .extend(links(&text).filter(|link| !is_whole(&document, link)).map(|link| format!("{document:?}: {link}")));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_readme_is_short() {
    let bytes = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap().len();
    assert!(bytes <= README_BYTES, "README.md has {bytes} bytes: move what is not for newcomers into a crate's page");
}

#[test]
fn headings_become_anchors() {
    let text = "# Activations: `refract harvest`\n```sh\n# no heading\n```\n## Stop and resume\n";
    assert_eq!(anchors(text), HashSet::from(["activations-refract-harvest".into(), "stop-and-resume".into()]));
    let text = "[a](b.md#c), ![d](e.svg) `[f](g)`\n```\n[h](i)\n```\n<img src=\"j.svg\" width=\"1\">";
    assert_eq!(links(text).collect::<Vec<_>>(), ["b.md#c", "e.svg", "j.svg"]);
}

/// The Markdown files below `folder`.
fn documents(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !LEFT_OUT.contains(&name.as_str()) && !name.starts_with(".venv") {
            found.extend(documents(&path));
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
    found
}

/// Lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Targets of `[text](target)` and `src="target"`, outside of code.
fn links(text: &str) -> impl Iterator<Item = String> {
    let spans = prose(text).collect::<Vec<_>>().join("\n");
    let spans: Vec<String> = spans.split('`').step_by(2).map(str::to_string).collect();
    let joined = spans.join("");
    let after = |mark: &'static str, end: char| {
        let targets = joined.split(mark).skip(1).filter_map(move |rest| rest.split_once(end));
        targets.map(|(target, _)| target.to_string()).collect::<Vec<_>>()
    };
    after("](", ')').into_iter().chain(after("src=\"", '"'))
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> HashSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// True if what a link of `document` leads to exists; pages elsewhere are not looked at.
fn is_whole(document: &Path, link: &str) -> bool {
    if link.contains("://") {
        return true;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() { document.to_path_buf() } else { document.parent().unwrap().join(file) };
    target.exists() && (anchor.is_empty() || anchors(&fs::read_to_string(target).unwrap()).contains(anchor))
}
