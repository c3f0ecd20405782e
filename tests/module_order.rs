//! The modules of a crate stand in order: `lib.rs` (or `main.rs`) lists them lowest first, and each uses only what
//! stands before it. This test reads the source text, so it also sees through re-exports, which hide a ring from a
//! reader. Code for tests is left out.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "module_order/source.rs"]
mod source;
#[path = "module_order/tree.rs"]
mod tree;

use std::{fs, path::Path};

use tree::Crate;

/// The sources of every crate.
const IN_ORDER: [&str; 4] = ["harvester/src", "trainer/src", "analyzer/src", "src"];

#[test]
fn modules_use_only_what_stands_before_them() {
    for src in IN_ORDER {
        let upward = Crate::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(src)).upward();
        assert!(upward.is_empty(), "{src}: move what is used down, or its user up:\n{}", upward.join("\n"));
    }
}

#[test]
fn no_modules_side_by_side_use_each_other_in_a_ring() {
    for src in IN_ORDER {
        let rings = Crate::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(src)).in_rings();
        assert!(rings.is_empty(), "{src}: move what they share into a module of its own: {}", rings.join(", "));
    }
}

#[test]
fn a_ring_below_the_top_is_found_also_through_a_third_module_and_a_re_export() {
    let [a, b, c] =
        ["use super::C;\npub struct A;", "use super::a::A;\npub struct B;", "use super::b::B;\npub struct C;"];
    let parent = ("low.rs", "mod a;\nmod b;\nmod c;\npub use c::C;\npub struct Shared;");
    let files = |c: &'static str| [("lib.rs", "mod low;"), parent, ("low/a.rs", a), ("low/b.rs", b), ("low/c.rs", c)];
    assert_eq!(read(&files(c)).0.in_rings(), ["low::a", "low::b", "low::c"]);
    assert!(read(&files("use super::Shared;\npub struct C;")).0.in_rings().is_empty());
}

/// A crate of these files.
fn read(files: &[(&str, &str)]) -> (Crate, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    (Crate::read(dir.path()), dir)
}

/// The upward uses in a crate of these files.
fn upward(files: &[(&str, &str)]) -> Vec<String> {
    let (read, dir) = read(files);
    let found = read.upward();
    found.iter().map(|line| line.replace(&format!("{}/", dir.path().display()), "")).collect()
}

const LIB: (&str, &str) =
    ("lib.rs", "mod low;\nmod high;\npub use high::{Roof, inner::Tile as Slate};\nfn at_root() {}");
const INNER: (&str, &str) = ("high/inner.rs", "pub struct Tile;\nuse crate::low::Floor;");

#[test]
fn downward_is_fine() {
    let high = ("high.rs", "pub(crate) mod inner;\npub struct Roof(crate::low::Floor, inner::Tile);");
    assert!(upward(&[LIB, ("low.rs", "pub struct Floor;"), high, INNER]).is_empty());
}

#[test]
fn upward_is_found_however_it_is_written() {
    let high = ("high.rs", "pub(crate) mod inner;\npub struct Roof;");
    for (upward_use, name) in [
        ("use crate::high::Roof;", "crate::high::Roof"),
        ("use crate::{\n    high::inner::{self, Tile},\n};", "crate::high::inner"),
        ("pub(crate) use super::high::Roof;", "crate::high::Roof"),
        ("use crate::Roof;", "crate::Roof"),
        ("use crate::high::*;", "crate::high"),
        ("fn f() -> crate::Slate { loop {} }", "crate::Slate"),
        ("mod inline { use super::super::Roof; }", "crate::Roof"),
        ("fn f() { crate::at_root() }", "crate::at_root"),
    ] {
        let found = upward(&[LIB, ("low.rs", &format!("// one line above\n{upward_use}")), high, INNER]);
        assert!(!found.is_empty(), "{upward_use}");
        assert!(found[0].starts_with("low.rs:"), "{found:?}");
        assert!(found.iter().any(|line| line.contains(&format!("`{name}`"))), "{found:?}");
    }
    let found = upward(&[LIB, ("low.rs", "\n\nuse crate::Roof;"), high, INNER]);
    assert_eq!(found, ["low.rs:3: `low` uses `crate::Roof` of `high`, which stands after it"]);
}

#[test]
fn what_is_no_use_is_not_taken_for_one() {
    let low = r##"
        //! [`crate::Roof`] in a comment, /* also here: crate::high */
        pub struct Floor;
        const TEXT: &str = "crate::high::Roof";
        const RAW: &str = r#"use crate::high::Roof; ""#;
        const CHAR: char = '"'; // a quote that opens nothing
        fn f<'a>(x: &'a str) -> &'a str { x }
        #[cfg(test)]
        mod testing;
        #[cfg(test)]
        use crate::Roof;
        #[cfg(test)]
        #[expect(clippy::unwrap_used, reason = "tests")]
        mod tests {
            use crate::Roof;
        }
    "##;
    let testing = ("low/testing.rs", "use crate::high::Roof;");
    let high = ("high.rs", "pub(crate) mod inner;\npub struct Roof;");
    assert_eq!(upward(&[LIB, ("low.rs", low), testing, high, INNER]), [""; 0]);
}
