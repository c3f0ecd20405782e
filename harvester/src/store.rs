//! Files and folders, on this machine and in object stores: [`Location`] names one, [`AtomicFile`] writes one whole,
//! `manifest.json` says what a folder is.

mod atomic;
mod cache_folder;
mod dataset_folder;
mod folder_lock;
mod hash;
mod location;
mod manifest_file;
mod parquet_file;

pub(crate) use self::{
    atomic::sync_folder_of,
    dataset_folder::DatasetFolder,
    hash::hex,
    location::{Entry, ReadRange, Stretch},
    manifest_file::{read_manifest_from, write_manifest_to},
    parquet_file::ParquetFile,
};
pub use self::{
    atomic::{AtomicFile, Published, write_atomically},
    cache_folder::cache_folder,
    dataset_folder::{RESUME_FOLDER, resume_folder},
    folder_lock::{create_folder, lock},
    hash::{sha256_bytes, sha256_file},
    location::Location,
    manifest_file::{FORMAT_VERSION, MANIFEST_FILE, read_manifest, write_manifest},
};
