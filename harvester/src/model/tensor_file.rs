//! [`TensorFile`]: the tensors of a model on disk, by name: one interface to GGUF files and a safetensors folder. Holds
//! the project's only memory map.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor, safetensors::MmapedSafetensors};
use safetensors::Dtype;

use super::{
    Family, GgufMetadata,
    gguf::{first_line, next_step},
};
use crate::{
    Error, Result,
    source::{WEIGHTS, WEIGHTS_INDEX, shards_of, stand_in},
};

/// A model's tensors on disk.
pub(crate) struct TensorFile {
    path: PathBuf,
    store: Store,
}

enum Store {
    Gguf(GgufMetadata),
    Safetensors { tensors: MmapedSafetensors, files: Vec<PathBuf> },
}

/// The next step for a quantized safetensors model.
pub(crate) const UNQUANTIZED: &str = "Name the model that it was made from, or a .gguf file of it";

impl TensorFile {
    /// The tensors of the GGUF file with this header.
    pub(crate) fn of_gguf(metadata: GgufMetadata) -> Self {
        Self { path: metadata.path().to_path_buf(), store: Store::Gguf(metadata) }
    }

    /// The tensors of the safetensors files in a folder.
    pub(crate) fn of_folder(folder: &Path) -> Result<Self> {
        let files = weight_files(folder)?;
        // SAFETY: the map is only read. If another process truncates the file meanwhile, SIGBUS is raised, as with
        // every reader of safetensors; models are not edited in place.
        let tensors = unsafe { MmapedSafetensors::multi(&files) }.map_err(|error| unreadable(&files, &error))?;
        Ok(Self { path: folder.to_path_buf(), store: Store::Safetensors { tensors, files } })
    }

    /// The folder or file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The header of a GGUF file; `None` for a safetensors folder.
    pub(crate) fn gguf_metadata(&self) -> Option<&GgufMetadata> {
        match &self.store {
            Store::Gguf(metadata) => Some(metadata),
            Store::Safetensors { .. } => None,
        }
    }

    /// The files that hold the weights, sorted.
    pub(crate) fn files(&self) -> &[PathBuf] {
        match &self.store {
            Store::Gguf(metadata) => metadata.files(),
            Store::Safetensors { files, .. } => files,
        }
    }

    /// True if a tensor of this name exists.
    pub(crate) fn contains(&self, name: &str) -> bool {
        match &self.store {
            Store::Gguf(metadata) => metadata.shape(name).is_some(),
            Store::Safetensors { tensors, .. } => tensors.get(name).is_ok(),
        }
    }

    /// True if both tensors exist and hold the same bytes.
    pub(crate) fn equal(&self, a: &str, b: &str) -> bool {
        let Store::Safetensors { tensors, .. } = &self.store else { return false };
        match (tensors.get(a), tensors.get(b)) {
            (Ok(a), Ok(b)) => (a.dtype(), a.shape(), a.data()) == (b.dtype(), b.shape(), b.data()),
            _ => false,
        }
    }

    /// A tensor as f32 on `device`; its shape is checked.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor> {
        let refused = |expected: String, found: String, hint| Error::malformed(&self.path, expected, found, hint);
        // Checked before reading: nothing is allocated for a shape that is not the model's.
        let Some(found) = self.shape(name) else {
            let expected = format!("tensor `{name}` {shape:?}");
            if let Some((quantized, method)) = self.quantized(name) {
                return Err(refused(expected, format!("`{quantized}`: weights quantized by {method}"), UNQUANTIZED));
            }
            let hint = "The file is incomplete, or its header names the wrong family";
            return Err(refused(expected, "no such tensor".to_owned(), hint));
        };
        if let Some(kind) = self.kind_not_read(name) {
            let expected = format!("tensor `{name}` in float32, float16 or bfloat16");
            let by = self.quantized(name).map_or_else(String::new, |(name, method)| format!(" by {method} (`{name}`)"));
            return Err(refused(expected, format!("{kind:?}: weights quantized{by}"), UNQUANTIZED));
        }
        if found != shape {
            let (expected, hint) = (format!("tensor `{name}` to be {shape:?}"), "Its header and its weights disagree");
            return Err(refused(expected, format!("{found:?}"), hint));
        }
        let read = match &self.store {
            Store::Gguf(metadata) => metadata.tensor(name, device),
            Store::Safetensors { tensors, .. } => {
                tensors.load(name, device).and_then(|tensor| tensor.to_dtype(DType::F32))
            }
        };
        read.map_err(|error| refused(format!("tensor `{name}`"), first_line(&error), next_step(&error)))
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match &self.store {
            Store::Gguf(metadata) => metadata.shape(name).map(<[usize]>::to_vec),
            Store::Safetensors { tensors, .. } => tensors.get(name).ok().map(|view| view.shape().to_vec()),
        }
    }

    /// The type of a tensor, if it is not one of real numbers: bitsandbytes packs 4-bit weights into U8.
    fn kind_not_read(&self, name: &str) -> Option<Dtype> {
        let Store::Safetensors { tensors, .. } = &self.store else { return None };
        let dtype = tensors.get(name).ok()?.dtype();
        (!matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64)).then_some(dtype)
    }

    /// The tensor that a quantized file has in place of `name` or beside it, and who writes it.
    fn quantized(&self, name: &str) -> Option<(String, &'static str)> {
        let prefix = name.strip_suffix("weight")?;
        let writers = [
            ("qweight", "GPTQ or AWQ"),
            ("weight_packed", "compressed-tensors"),
            ("W_q", "HQQ"),
            ("codes", "AQLM"),
            ("weight._data", "quanto"),
            ("q_weight", "ExLlamaV2"),
            ("weight.absmax", "bitsandbytes in 4 bits"),
            ("SCB", "bitsandbytes in 8 bits"),
            ("weight_scale_inv", "fp8 with a scale for each block"),
            ("weight_scale", "fp8 with a scale for each matrix"),
            ("scales", "MLX"),
        ];
        let present = writers.map(|(ending, writer)| (format!("{prefix}{ending}"), writer));
        present.into_iter().find(|(name, _)| self.contains(name))
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

    /// The names of all tensors.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        match &self.store {
            Store::Gguf(metadata) => metadata.tensor_names(),
            Store::Safetensors { tensors, .. } => tensors.tensors().into_iter().map(|(name, _)| name).collect(),
        }
    }
}

/// The error for weight files that cannot be opened: names what stands in a weight's place, if it is known.
fn unreadable(files: &[PathBuf], error: &candle_core::Error) -> Error {
    if let Some((file, (found, hint))) = files.iter().find_map(|file| Some((file, stand_in(file)?))) {
        return Error::malformed(file, "safetensors weights", found, hint);
    }
    let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    Error::malformed(names.join(", "), "safetensors weights", first_line(error), next_step(error))
}

/// `model.safetensors` alone, or else the files named by `model.safetensors.index.json`, sorted. As in transformers, an
/// index beside a single file counts for nothing: it was left there by an earlier version of the model.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (file, index) = (folder.join(WEIGHTS), folder.join(WEIGHTS_INDEX));
    if file.exists() {
        return Ok(vec![file]);
    }
    if !index.exists() {
        let (found, hint) = without_weights(folder);
        return Err(Error::malformed(folder, WEIGHTS, found, hint));
    }
    let names = shards_of(&index)?;
    if let Some(name) = names.iter().find(|name| !folder.join(name).exists()) {
        let hint = "Download the missing shard";
        return Err(Error::malformed(&index, format!("its shard `{name}` beside it"), "no such file", hint));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Describes a folder without `model.safetensors` by what it holds instead, and the next step.
fn without_weights(folder: &Path) -> (String, String) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok());
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let ending = |endings: &[&str]| names.iter().find(|name| endings.iter().any(|ending| name.ends_with(ending)));
    let (found, hint) = if let Some(name) = ending(&["adapter_model.safetensors", "adapter_model.bin"]) {
        (
            name,
            "An adapter (LoRA) is not a model: merge it into its base model with peft's merge_and_unload, and save that",
        )
    } else if let Some(name) = ending(&[".safetensors"]) {
        (name, "If that file holds the whole model under transformers' names, rename it to model.safetensors")
    } else if let Some(name) = ending(&[".bin", ".pth", ".pt"]) {
        (name, "Load it with transformers and save it with save_pretrained, which writes safetensors")
    } else if let Some(name) = ending(&[".gguf"]) {
        (name, "Name that file instead of its folder")
    } else {
        return (
            "no such file".into(),
            "Weights are read from safetensors, whole or with an index, or from a .gguf file".into(),
        );
    };
    (format!("`{found}`"), hint.into())
}
