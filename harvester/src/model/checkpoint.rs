//! [`Checkpoint`]: a model on disk: its shape, and its weights by name.

use std::{fs::File, io::Read, path::Path};

use candle_core::Device;
use sha2::{Digest, Sha256};

use super::{Compute, GgufMetadata, Head, ModelConfig, families, tensor_file::TensorFile};
use crate::{Error, Result, store::hex};

/// A model on disk: its shape, and its weights by name.
pub(crate) struct Checkpoint {
    config: ModelConfig,
    tensors: TensorFile,
}

impl Checkpoint {
    /// Opens a `.gguf` file, or a folder with `config.json` and `*.safetensors`. The weights stay on disk.
    ///
    /// # Errors
    /// A missing or malformed file, or an unsupported family (the message lists the supported ones).
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            let json = path.join("config.json");
            let (config, tensors) = (families::config_from_json(&json)?, TensorFile::of_folder(path)?);
            families::refuse_biases(&json, &config, &tensors)?;
            return Ok(Self { config, tensors });
        }
        let metadata = GgufMetadata::read(path)?;
        let config = families::config_from_gguf(&metadata)?;
        Ok(Self { config, tensors: TensorFile::of_gguf(metadata) })
    }

    /// The model's shape.
    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The folder or file.
    pub(crate) fn path(&self) -> &Path {
        self.tensors.path()
    }

    /// The header of a GGUF file; `None` for a safetensors folder.
    pub(crate) fn gguf_metadata(&self) -> Option<&GgufMetadata> {
        self.tensors.gguf_metadata()
    }

    /// The weights, by name.
    pub(crate) fn tensors(&self) -> &TensorFile {
        &self.tensors
    }

    /// Reads the head, and none of the other tensors.
    ///
    /// # Errors
    /// A missing or wrongly shaped tensor; an unreadable file.
    pub(crate) fn load_head(&self, device: &Device, compute: Compute) -> Result<Head> {
        families::load_head(&self.config, &self.tensors, device, compute)
    }

    /// SHA-256 of everything that changes the computed values: the GGUF file; or, for a folder, the bytes of
    /// `config.json` and of its weight files, concatenated in the order of their names.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn sha256(&self) -> Result<String> {
        let config = self.gguf_metadata().is_none().then(|| self.path().join("config.json"));
        let mut hasher = Sha256::new();
        let mut buffer = vec![0u8; 1 << 20];
        for path in config.iter().chain(self.tensors.files()) {
            let mut file = File::open(path).map_err(Error::io("open", path))?;
            loop {
                let n = file.read(&mut buffer).map_err(Error::io("read", path))?;
                if n == 0 {
                    break;
                }
                hasher.update(&buffer[..n]);
            }
        }
        Ok(hex(&hasher.finalize()))
    }
}

impl ModelConfig {
    /// The shape of the model in a folder or a `.gguf` file. Its weights must be there too.
    ///
    /// # Errors
    /// A missing or malformed file, or an unsupported family (the message lists the supported ones).
    pub fn read(path: &Path) -> Result<Self> {
        Ok(Checkpoint::open(path)?.config)
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint").field("path", &self.path()).field("config", &self.config).finish_non_exhaustive()
    }
}
