//! [`TensorFile`]: the tensors of a model on disk, by name: one interface to a GGUF file and a safetensors folder.
//! Holds the project's only memory map.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use candle_core::{DType, Device, Tensor, safetensors::MmapedSafetensors};

use super::{Family, GgufMetadata, gguf::first_line};
use crate::{Error, Result};

/// A model's tensors on disk.
pub(crate) struct TensorFile {
    path: PathBuf,
    store: Store,
}

enum Store {
    Gguf { metadata: GgufMetadata, file: Mutex<BufReader<File>> },
    Safetensors { tensors: MmapedSafetensors, files: Vec<PathBuf> },
}

impl TensorFile {
    /// The tensors of the GGUF file with this header.
    pub(crate) fn of_gguf(metadata: GgufMetadata) -> Result<Self> {
        let path = metadata.path().to_path_buf();
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let store = Store::Gguf { metadata, file: Mutex::new(BufReader::new(file)) };
        Ok(Self { path, store })
    }

    /// The tensors of the safetensors files in a folder.
    pub(crate) fn of_folder(folder: &Path) -> Result<Self> {
        let files = weight_files(folder)?;
        // SAFETY: the map is only read. If another process truncates the file meanwhile, SIGBUS is raised, as with
        // every reader of safetensors; models are not edited in place.
        let tensors = unsafe { MmapedSafetensors::multi(&files) }.map_err(|error| {
            let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
            let hint = "Download it again: it may have been cut short";
            Error::malformed(names.join(", "), "safetensors weights", first_line(&error), hint)
        })?;
        Ok(Self { path: folder.to_path_buf(), store: Store::Safetensors { tensors, files } })
    }

    /// The folder or file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The header of a GGUF file; `None` for a safetensors folder.
    pub(crate) fn gguf_metadata(&self) -> Option<&GgufMetadata> {
        match &self.store {
            Store::Gguf { metadata, .. } => Some(metadata),
            Store::Safetensors { .. } => None,
        }
    }

    /// The files that hold the weights, sorted.
    pub(crate) fn files(&self) -> &[PathBuf] {
        match &self.store {
            Store::Gguf { .. } => std::slice::from_ref(&self.path),
            Store::Safetensors { files, .. } => files,
        }
    }

    /// True if a tensor of this name exists.
    pub(crate) fn contains(&self, name: &str) -> bool {
        match &self.store {
            Store::Gguf { metadata, .. } => metadata.content().tensor_infos.contains_key(name),
            Store::Safetensors { tensors, .. } => tensors.get(name).is_ok(),
        }
    }

    /// A tensor as f32 on `device`; its shape is checked.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor> {
        if !self.contains(name) {
            let hint = "The file is incomplete, or its header names the wrong family";
            return Err(Error::malformed(&self.path, format!("tensor `{name}` {shape:?}"), "no such tensor", hint));
        }
        // Checked before reading: nothing is allocated for a shape that is not the model's.
        let found = self.shape(name);
        if found.as_deref() != Some(shape) {
            let (found, hint) = (format!("{:?}", found.unwrap_or_default()), "Its header and its weights disagree");
            return Err(Error::malformed(&self.path, format!("tensor `{name}` to be {shape:?}"), found, hint));
        }
        self.read_tensor(name, device).map_err(|error| {
            let hint = "Download it again: it may have been cut short";
            Error::malformed(&self.path, format!("tensor `{name}`"), first_line(&error), hint)
        })
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match &self.store {
            Store::Gguf { metadata, .. } => {
                metadata.content().tensor_infos.get(name).map(|info| info.shape.dims().to_vec())
            }
            Store::Safetensors { tensors, .. } => tensors.get(name).ok().map(|view| view.shape().to_vec()),
        }
    }

    fn read_tensor(&self, name: &str, device: &Device) -> candle_core::Result<Tensor> {
        match &self.store {
            Store::Gguf { metadata, file } => {
                // Every read seeks first, so a read that panicked half-way does no harm.
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                metadata.content().tensor(&mut *file, name, device)?.dequantize(device)
            }
            Store::Safetensors { tensors, .. } => tensors.load(name, device)?.to_dtype(DType::F32),
        }
    }

    /// Refuses weights that are not among those `read`: ignoring them would give another model.
    pub(crate) fn refuse_unread(
        &self,
        family: Family,
        read: &BTreeSet<String>,
        harmless: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let unread: Vec<_> = self.names().into_iter().filter(|name| !read.contains(name) && !harmless(name)).collect();
        if unread.is_empty() {
            return Ok(());
        }
        let found = format!("{} more: {}", unread.len(), unread[..unread.len().min(5)].join(", "));
        let expected = format!("only the tensors of a {} model", family);
        Err(Error::malformed(&self.path, expected, found, "This variant of the family is not supported yet"))
    }

    fn names(&self) -> BTreeSet<String> {
        match &self.store {
            Store::Gguf { metadata, .. } => metadata.content().tensor_infos.keys().cloned().collect(),
            Store::Safetensors { tensors, .. } => tensors.tensors().into_iter().map(|(name, _)| name).collect(),
        }
    }
}

/// The files named by `model.safetensors.index.json`, or `model.safetensors` alone; sorted.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let index = folder.join("model.safetensors.index.json");
    if !index.exists() {
        let file = folder.join("model.safetensors");
        if !file.exists() {
            let hint = "Weights are read from safetensors, whole or with an index, or from a .gguf file";
            return Err(Error::malformed(folder, "model.safetensors", "no such file", hint));
        }
        return Ok(vec![file]);
    }
    let text = std::fs::read_to_string(&index).map_err(Error::io("read", &index))?;
    let parsed: Index = serde_json::from_str(&text)
        .map_err(|error| Error::malformed(&index, "a weight map", error.to_string(), "Download it again"))?;
    let names: BTreeSet<_> = parsed.weight_map.into_values().collect();
    let escapes = |name: &String| Path::new(name).components().count() != 1;
    if let Some(name) = names.iter().find(|name| escapes(name) || !folder.join(name).exists()) {
        let hint = "Download the missing shard";
        return Err(Error::malformed(&index, format!("its shard `{name}` beside it"), "no such file", hint));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}
