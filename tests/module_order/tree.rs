//! The modules of a crate, what each defines and re-exports, and the paths it uses.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use super::source::{Token, after_group, tokens};

/// Names from the crate's root down.
type Names = Vec<String>;

/// The source of one crate.
pub(crate) struct Crate {
    /// The top-level modules, lowest first.
    order: Names,
    modules: HashSet<Names>,
    /// Per module and name: the path that it stands for.
    re_exports: HashMap<(Names, String), Names>,
    used: Vec<Used>,
}

/// A path that a module uses.
struct Used {
    file: PathBuf,
    line: usize,
    module: Names,
    path: Names,
}

impl Crate {
    /// Reads `lib.rs` or `main.rs` in `src`, and every module that it leads to.
    pub(crate) fn read(src: &Path) -> Self {
        let mut read = Self { order: vec![], modules: HashSet::new(), re_exports: HashMap::new(), used: vec![] };
        let root = ["lib.rs", "main.rs"].map(|name| src.join(name)).into_iter().find(|path| path.exists());
        read.read_module(&root.expect("a crate has a lib.rs or a main.rs"), src, &[]);
        read
    }

    /// A line for each use of a module that stands after the user's own, or of the root, which stands after all.
    pub(crate) fn upward(&self) -> Vec<String> {
        let place = |module: &[String]| module.first().map_or(self.order.len(), |name| self.place(name));
        let mut lines = BTreeMap::new();
        for used in &self.used {
            let defined_in = self.resolve(&used.path, 0);
            if place(&defined_in) > place(&used.module) {
                let of = defined_in.first().map_or("the crate's root", |name| name.as_str());
                let (user, path) = (&used.module[0], used.path.join("::"));
                let line = format!("`{user}` uses `crate::{path}` of `{of}`, which stands after it");
                lines.entry((&used.file, used.line, line)).or_insert(());
            }
        }
        lines.into_keys().map(|(file, line, text)| format!("{}:{line}: {text}", file.display())).collect()
    }

    /// The modules, anywhere in the tree, that reach themselves through modules beside them. A use of a parent does not
    /// count: a registry names its children, and they use what it shares.
    pub(crate) fn in_rings(&self) -> Names {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for used in &self.used {
            let (user, defined_in) = (&used.module, self.resolve(&used.path, 0));
            let shared = user.iter().zip(&defined_in).take_while(|(a, b)| a == b).count();
            if shared < user.len() && shared < defined_in.len() {
                let side_by_side = [user, &defined_in].map(|module| module[..=shared].join("::"));
                let [user, used] = side_by_side;
                uses.entry(user).or_default().insert(used);
            }
        }
        let reaches_itself = |module: &&String| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![*module]);
            while let Some(from) = next.pop() {
                next.extend(uses.get(from).into_iter().flatten().filter(|used| seen.insert(*used)));
            }
            seen.contains(*module)
        };
        uses.keys().filter(reaches_itself).cloned().collect()
    }

    fn place(&self, name: &str) -> usize {
        self.order.iter().position(|module| module == name).unwrap_or(0)
    }

    /// Reads the module in `file`; its own modules lie in `folder`.
    fn read_module(&mut self, file: &Path, folder: &Path, module: &[String]) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.modules.insert(module.to_vec());
        let tokens = tokens(&text);
        for name in self.read_items(file, module, &tokens) {
            let inner = [module, std::slice::from_ref(&name)].concat();
            let (flat, nested) = (folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs"));
            self.read_module(if flat.exists() { &flat } else { &nested }, &folder.join(&name), &inner);
        }
    }

    /// Notes what the tokens of a module define and use; returns the modules whose files are to be read.
    fn read_items(&mut self, file: &Path, module: &[String], tokens: &[Token]) -> Names {
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
        let mut in_files = vec![];
        let mut at = 0;
        // The children first: a path may begin with one that is declared below it.
        for (i, token) in tokens.iter().enumerate() {
            if token.text == "mod" && matches!(text(i + 2), ";" | "{") {
                self.modules.insert([module, &[text(i + 1).to_string()]].concat());
            }
        }
        while at < tokens.len() {
            match text(at) {
                "mod" if text(at + 2) == ";" => {
                    in_files.push(text(at + 1).to_string());
                    at += 3;
                }
                "mod" if text(at + 2) == "{" => {
                    let end = after_group(tokens, at + 2);
                    let inner = [module, &[text(at + 1).to_string()]].concat();
                    self.read_items(file, &inner, &tokens[at + 3..end - 1]);
                    at = end;
                }
                "use" => {
                    let end = at + tokens[at..].iter().position(|token| token.text == ";").unwrap_or(0);
                    // `pub use`, `pub(crate) use`: the crate's own use of the name counts where the name is used.
                    let is_public = at > 0 && matches!(text(at - 1), "pub" | ")");
                    self.read_use(file, module, &tokens[at + 1..end], vec![], is_public);
                    at = end + 1;
                }
                _ => {
                    let (path, length) = path_at(&tokens[at..]);
                    let is_path = at < 2 || text(at - 1) != ":" || text(at - 2) != ":";
                    if let (true, Some(path)) = (is_path && length > 1, self.absolute(module, &path)) {
                        self.used.push(Used { file: file.into(), line: tokens[at].line, module: module.into(), path });
                    }
                    at += length;
                }
            }
        }
        if module.is_empty() {
            self.order.extend(in_files.iter().cloned());
        }
        in_files
    }

    /// Notes the paths of a `use` below `prefix`.
    fn read_use(&mut self, file: &Path, module: &[String], tokens: &[Token], prefix: Names, is_public: bool) {
        let (names, length) = path_at(tokens);
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
        let mut path = [prefix, names].concat();
        if text(length) == "{" {
            let end = after_group(tokens, length);
            let mut start = length + 1;
            while start < end - 1 {
                let mut stop = start;
                while stop < end - 1 && text(stop) != "," {
                    stop = if text(stop) == "{" { after_group(tokens, stop) } else { stop + 1 };
                }
                self.read_use(file, module, &tokens[start..stop], path.clone(), is_public);
                start = stop + 1;
            }
            return;
        }
        if path.last().is_some_and(|name| name == "self") {
            path.pop();
        }
        let Some(absolute) = self.absolute(module, &path) else { return };
        let renamed = if text(length) == "as" { text(length + 1).to_string() } else { path[path.len() - 1].clone() };
        // A list of the crate's public names is no use of them; within a module, a re-export is one.
        if !module.is_empty() {
            let line = tokens.first().map_or(0, |token| token.line);
            self.used.push(Used { file: file.into(), line, module: module.into(), path: absolute.clone() });
        }
        if is_public {
            self.re_exports.insert((module.to_vec(), renamed), absolute);
        }
    }

    /// A path of `module` from the crate's root; `None` where it leads out of the crate.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Names> {
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([module, &path[1..]].concat()),
            "super" => {
                let up = path.iter().take_while(|name| *name == "super").count();
                Some([&module[..module.len().checked_sub(up)?], &path[up..]].concat())
            }
            child => {
                let is_child = self.modules.contains(&[module, &[child.to_string()]].concat());
                is_child.then(|| [module, path].concat())
            }
        }
    }

    /// The module that defines what `path` names.
    fn resolve(&self, path: &[String], depth: usize) -> Names {
        assert!(depth < 32, "re-exports in a circle: {}", path.join("::"));
        for (i, name) in path.iter().enumerate() {
            if self.modules.contains(&path[..=i]) {
                continue;
            }
            return match self.re_exports.get(&(path[..i].to_vec(), name.clone())) {
                Some(target) => self.resolve(&[target, &path[i + 1..]].concat(), depth + 1),
                None => path[..i].to_vec(),
            };
        }
        path.to_vec()
    }
}

/// The names joined by `::` that the tokens begin with, and how many tokens they are: at least one.
fn path_at(tokens: &[Token]) -> (Names, usize) {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let is_name = |at: usize| text(at).starts_with(|c: char| c.is_alphabetic() || c == '_');
    let mut names = vec![];
    let mut at = 0;
    while is_name(at) {
        names.push(text(at).to_string());
        at += 1;
        if text(at) != ":" || text(at + 1) != ":" {
            break;
        }
        at += 2;
    }
    // `a::<B>` and `a::*` end with their last name.
    if names.is_empty() { (names, 1) } else { (names, at) }
}
