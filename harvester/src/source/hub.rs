//! Models from the Hugging Face Hub, kept in the cache that every other tool shares (`HF_HOME`). hf-hub brings the HTTP
//! client and the addresses; what it does not bring is here: time-outs, cancellation, retries, and a check of every
//! file's size and hash before it gets its name.
//!
//! [`request`] asks the Hub one question, [`dataset`] reads the files of a dataset by ranges and keeps nothing,
//! [`snapshot`] is the cache on disk, [`file`] puts one file into it. This file decides which files make a model.

mod dataset;
mod file;
mod request;
mod snapshot;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use hf_hub::RepoType;
use serde::Deserialize;

pub(crate) use self::dataset::{HubDataset, HubFile};
use self::{request::Client, snapshot::RepoCache};
use super::names::is_file;
use crate::{Error, Monitor, Result};

/// The files of a model folder besides its weights: needed, and used where there.
const NEEDED: [&str; 2] = ["config.json", "tokenizer.json"];
const OPTIONAL: [&str; 3] = ["tokenizer_config.json", "generation_config.json", "chat_template.jinja"];
const WEIGHTS: &str = "model.safetensors";
const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

/// How to reach the Hub, and where its files are kept.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// The Hub's address; hf-hub's own where none is given.
    pub endpoint: Option<String>,
    /// The folder of `models--org--name` folders.
    pub cache_dir: PathBuf,
    /// The user's access token, for private and gated models.
    pub token: Option<String>,
    /// How long the Hub may take to be found, to accept a connection, and to begin an answer (each).
    pub timeout: Duration,
    /// How long a download may stand still.
    pub stall: Duration,
    /// How often a busy Hub is asked, and a connection that breaks made anew without a new byte.
    pub attempts: u32,
    /// The first wait between two attempts; each further one is twice as long.
    pub backoff: Duration,
    /// Use the cache only.
    pub offline: bool,
}

impl HubSettings {
    /// The Hub at hf-hub's own address, without a token, with a cache in `cache_dir`.
    pub fn in_folder(cache_dir: impl Into<PathBuf>) -> Self {
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

    /// What the environment says, in the variables that Hugging Face's own tools read: `HF_ENDPOINT`, `HF_TOKEN`,
    /// `HF_HUB_OFFLINE`, and `HF_HUB_CACHE` or `HF_HOME`; and `REFRACT_HUB_TIMEOUT`, in seconds.
    ///
    /// # Errors
    /// `REFRACT_HUB_TIMEOUT` is not a number of seconds, or no folder for the cache is known.
    pub fn from_env() -> Result<Self> {
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
    home.ok_or_else(|| Error::invalid("HF_HOME", "a folder to keep models in", "no such variable"))
}

/// `REFRACT_HUB_TIMEOUT`, if given.
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
    /// The commit it is from.
    pub(super) commit: String,
}

/// Finds a model in the cache, else fetches it. What is cached is not looked up again, so that a branch stays where it
/// was when it was first used; a newer state is asked for by its commit.
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
    let client = Client::new(settings, RepoType::Model, repo, revision)?;
    let info = client.info(monitor)?;
    let client = client.at_commit(&info.sha);
    let get = |name: &str| file::get(&client, &cache, &info.sha, name, monitor);
    let path = match file {
        Some(file) => {
            check_listed(&info, &client, file)?;
            get(file)?
        }
        None => {
            get_folder(&info, &client, get)?;
            cache.snapshot(&info.sha)
        }
    };
    // Last, so that the reference never names a snapshot that lacks what was asked for.
    cache.set_commit(revision, &info.sha)?;
    Ok(Found { path, commit: info.sha })
}

fn complete(cache: &RepoCache, commit: String, file: Option<&str>) -> Option<Found> {
    let folder = cache.snapshot(&commit);
    let path = file.map_or_else(|| folder.clone(), |file| folder.join(file));
    let whole = if file.is_some() { path.is_file() } else { is_complete(&folder) };
    whole.then_some(Found { path, commit })
}

/// Whether a snapshot has every file that the model needs. Weights are fetched last, so where they are, the optional
/// files that exist are there too.
fn is_complete(folder: &Path) -> bool {
    let there = |name: &str| folder.join(name).is_file();
    let shards =
        || read_shards(&folder.join(WEIGHTS_INDEX)).is_ok_and(|shards| shards.iter().all(|shard| there(shard)));
    NEEDED.into_iter().all(there) && (there(WEIGHTS) || shards())
}

/// What the Hub tells about a repository.
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

/// Fetches the files of a safetensors model, the weights last.
fn get_folder(info: &RepoInfo, client: &Client, get: impl Fn(&str) -> Result<PathBuf>) -> Result<()> {
    check_loadable(info, client)?;
    for name in NEEDED.into_iter().chain(OPTIONAL.into_iter().filter(|name| info.has(name))) {
        get(name)?;
    }
    if info.has(WEIGHTS) {
        return get(WEIGHTS).map(|_| ());
    }
    for shard in read_shards(&get(WEIGHTS_INDEX)?)? {
        get(&shard)?;
    }
    Ok(())
}

/// Says before anything is downloaded what a repository lacks.
fn check_loadable(info: &RepoInfo, client: &Client) -> Result<()> {
    let gguf = info.files_ending(".gguf");
    if !info.has("config.json") && !gguf.is_empty() {
        let hint = format!("Name one, as {}:FILE: {}", client.name(), gguf.join(", "));
        return Err(Error::download(client.name(), "it holds .gguf files, and none was named", hint));
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

/// The weight files named by an index. They become paths, so they may not lead out of the folder.
fn read_shards(index: &Path) -> Result<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let malformed =
        |found: String| Error::malformed(index, "an index of weight files", found, "Remove it, and run again");
    let text = fs::read_to_string(index).map_err(Error::io("read", index))?;
    let parsed: Index = serde_json::from_str(&text).map_err(|source| malformed(source.to_string()))?;
    let shards: BTreeSet<_> = parsed.weight_map.into_values().collect();
    match shards.iter().find(|name| !is_file(name)) {
        Some(name) => Err(malformed(format!("the file name `{name}`"))),
        None => Ok(shards),
    }
}
