//! Models from the Hugging Face Hub, kept in the cache that all other tools share (`HF_HOME`). hf-hub provides the HTTP
//! client and the addresses. This module adds time-outs, cancellation, retries, and a check of the size and hash of
//! every file before it gets its name.
//!
//! [`http`] sends one question to the Hub, [`request`] repeats it until there is an answer. [`dataset`] reads the files
//! of a dataset by ranges and keeps nothing. [`snapshot`] is the cache on disk, [`file`] downloads one file into it.
//! This file decides which files make a model.

mod answer;
mod dataset;
mod file;
#[cfg(feature = "hub")]
mod http;
#[cfg(not(feature = "hub"))]
#[path = "hub/no_http.rs"]
mod http;
mod request;
mod snapshot;

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

pub(crate) use self::dataset::{HubDataset, HubFile};
use self::{request::Client, snapshot::RepoCache};
use super::{
    names::gguf_parts,
    weights_index::{WEIGHTS, WEIGHTS_INDEX, shards_of},
};
use crate::{Error, Monitor, Result};

/// Files of a model folder besides its weights: the required ones, and those used if present.
const NEEDED: [&str; 2] = ["config.json", "tokenizer.json"];
const OPTIONAL: [&str; 3] = ["tokenizer_config.json", "generation_config.json", "chat_template.jinja"];

/// Address of the Hub, and the folder that keeps its files.
#[derive(Debug, Clone)]
pub(crate) struct HubSettings {
    /// Address of the Hub; `None`: hf-hub's own.
    pub(crate) endpoint: Option<String>,
    /// The folder of `models--org--name` folders.
    pub(crate) cache_dir: PathBuf,
    /// The user's access token, for private and gated models.
    pub(crate) token: Option<String>,
    /// Time limit for each of: resolving the Hub's name, connecting, and the start of an answer.
    pub(crate) timeout: Duration,
    /// Longest time that a download may bring no data.
    pub(crate) stall: Duration,
    /// Attempts to ask a busy Hub, or to repeat a connection that breaks without a new byte.
    pub(crate) attempts: u32,
    /// Wait between the first two attempts; each further wait is twice as long.
    pub(crate) backoff: Duration,
    /// Use the cache only.
    pub(crate) offline: bool,
}

impl HubSettings {
    /// The Hub at hf-hub's own address, without a token, with a cache in `cache_dir`.
    pub(crate) fn in_folder(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: None,
            cache_dir: cache_dir.into(),
            token: None,
            timeout: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            attempts: 6,
            backoff: Duration::from_millis(500),
            offline: false,
        }
    }

    /// Settings from the environment variables that Hugging Face's own tools read: `HF_ENDPOINT`, `HF_TOKEN`,
    /// `HF_HUB_OFFLINE`, and `HF_HUB_CACHE` or `HF_HOME`; and from `REFRACT_HUB_TIMEOUT`, in seconds.
    ///
    /// # Errors
    /// `REFRACT_HUB_TIMEOUT` is not a number of seconds, or no cache folder is known.
    pub(crate) fn from_env() -> Result<Self> {
        let set =
            |name: &str| env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let home = hf_home()?;
        let token_file = set("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let token_in_file = || fs::read_to_string(token_file).ok().map(|token| token.trim().to_owned());
        let is_on = |value: String| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
        let default = Self::in_folder(set("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from));
        Ok(Self {
            endpoint: set("HF_ENDPOINT").map(|endpoint| endpoint.trim_end_matches('/').to_owned()),
            token: set("HF_TOKEN").or_else(token_in_file).filter(|token| !token.is_empty()),
            timeout: seconds(set("REFRACT_HUB_TIMEOUT"))?.unwrap_or(default.timeout),
            offline: set("HF_HUB_OFFLINE").is_some_and(is_on),
            ..default
        })
    }
}

fn hf_home() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("HF_HOME")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .or_else(|| set("HOME").map(|home| home.join(".cache").join("huggingface")));
    home.ok_or_else(|| Error::invalid("HF_HOME", "a folder to keep models in", "neither HF_HOME nor HOME"))
}

/// The value of `REFRACT_HUB_TIMEOUT`, if given.
fn seconds(given: Option<String>) -> Result<Option<Duration>> {
    let Some(text) = given else { return Ok(None) };
    let seconds = text.parse().ok().filter(|seconds| (0.001..86_400.0).contains(seconds)).map(Duration::from_secs_f64);
    seconds.map(Some).ok_or_else(|| Error::invalid("REFRACT_HUB_TIMEOUT", "a number of seconds", format!("`{text}`")))
}

/// A model in the Hub's cache.
#[derive(Debug)]
pub(super) struct Found {
    /// A `.gguf` file, or a snapshot folder.
    pub(super) path: PathBuf,
    /// The commit of the snapshot.
    pub(super) commit: String,
}

/// Finds a model in the cache, or downloads it. A cached revision is not looked up again, so a branch stays at the
/// commit at which it was first used; to get a newer one, name its commit.
pub(super) fn resolve(
    settings: &HubSettings,
    repo: &str,
    revision: Option<&str>,
    file: Option<&str>,
    monitor: &dyn Monitor,
) -> Result<Found> {
    let revision = revision.unwrap_or("main");
    let cache = RepoCache::new(&settings.cache_dir, repo);
    if let Some(found) = cache.commit(revision).and_then(|commit| complete(&cache, commit, file)) {
        return Ok(found);
    }
    if settings.offline {
        let what = format!("{repo}@{revision}");
        let reason = format!("HF_HUB_OFFLINE is set and it is not complete in {}", settings.cache_dir.display());
        return Err(Error::download(what, reason, "Unset HF_HUB_OFFLINE"));
    }
    let client = Client::new(settings, RepoKind::Model, repo, revision)?;
    let info = client.info(monitor)?;
    let client = client.at_commit(&info.sha);
    let get = |name: &str| file::get(&client, &cache, &info.sha, name, monitor);
    let path = match file {
        Some(file) => {
            let parts = parts_of(file);
            parts.iter().try_for_each(|part| check_listed(&info, &client, part))?;
            parts.iter().try_for_each(|part| get(part).map(|_| ()))?;
            cache.snapshot(&info.sha).join(file)
        }
        None => {
            get_folder(&info, &client, get)?;
            cache.snapshot(&info.sha)
        }
    };
    // Last, so that the reference never names an incomplete snapshot.
    cache.set_commit(revision, &info.sha)?;
    Ok(Found { path, commit: info.sha })
}

fn complete(cache: &RepoCache, commit: String, file: Option<&str>) -> Option<Found> {
    let folder = cache.snapshot(&commit);
    let path = file.map_or_else(|| folder.clone(), |file| folder.join(file));
    let there = |file: &str| parts_of(file).iter().all(|part| folder.join(part).is_file());
    let whole = file.map_or_else(|| is_complete(&folder), there);
    whole.then_some(Found { path, commit })
}

/// A file of a repository, and the others if it is a part of a split model.
fn parts_of(file: &str) -> Vec<String> {
    gguf_parts(file).unwrap_or_else(|| vec![file.to_owned()])
}

/// True if a snapshot has every file that the model needs. Weights are downloaded last, so if they are there, the
/// existing optional files are there too.
fn is_complete(folder: &Path) -> bool {
    let there = |name: &str| folder.join(name).is_file();
    let shards = || shards_of(&folder.join(WEIGHTS_INDEX)).is_ok_and(|shards| shards.iter().all(|shard| there(shard)));
    NEEDED.into_iter().all(there) && (there(WEIGHTS) || shards())
}

/// Kinds of repositories.
#[derive(Debug, Clone, Copy)]
enum RepoKind {
    Model,
    Dataset,
}

/// The Hub's answer about a repository.
#[derive(Debug, Deserialize)]
pub(super) struct RepoInfo {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
}

impl RepoInfo {
    fn has(&self, name: &str) -> bool {
        self.siblings.iter().any(|sibling| sibling.rfilename == name)
    }

    fn files_ending(&self, ending: &str) -> Vec<&str> {
        self.siblings.iter().map(|sibling| sibling.rfilename.as_str()).filter(|name| name.ends_with(ending)).collect()
    }
}

fn check_listed(info: &RepoInfo, client: &Client, file: &str) -> Result<()> {
    if info.has(file) {
        return Ok(());
    }
    let reason = format!("the repository exists and has no file `{file}`");
    let hint = format!("Its .gguf files: {}", list_or_none(&info.files_ending(".gguf")));
    Err(Error::download(client.name(), reason, hint))
}

/// Downloads the files of a safetensors model, the weights last.
fn get_folder(info: &RepoInfo, client: &Client, get: impl Fn(&str) -> Result<PathBuf>) -> Result<()> {
    check_loadable(info, client)?;
    for name in NEEDED.into_iter().chain(OPTIONAL.into_iter().filter(|name| info.has(name))) {
        get(name)?;
    }
    if info.has(WEIGHTS) {
        return get(WEIGHTS).map(|_| ());
    }
    for shard in shards_of(&get(WEIGHTS_INDEX)?)? {
        get(&shard)?;
    }
    Ok(())
}

/// Reports what a repository lacks, before anything is downloaded.
fn check_loadable(info: &RepoInfo, client: &Client) -> Result<()> {
    let gguf = info.files_ending(".gguf");
    if !info.has("config.json") && !gguf.is_empty() {
        let hint = format!("Name one of them as {}:FILE: {}", client.name(), gguf.join(", "));
        return Err(Error::download(client.name(), "the repository holds .gguf files, and none was named", hint));
    }
    let missing = NEEDED.into_iter().find(|name| !info.has(name));
    let weights = info.has(WEIGHTS) || info.has(WEIGHTS_INDEX);
    let lacks = missing.or_else(|| (!weights).then_some(WEIGHTS));
    let Some(lacks) = lacks else { return Ok(()) };
    let hint = "A model needs config.json, tokenizer.json and safetensors weights; another revision may have them";
    Err(Error::download(client.name(), format!("the repository has no {lacks}"), hint))
}

fn list_or_none(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
