//! Files and folders, on this machine and in object stores: [`Location`] names one, [`AtomicFile`] writes a whole file,
//! [`OutputFolder`] is the folder that a stage writes to, and a [`Manifest`] describes a folder.

mod artifact_ref;
mod atomic;
mod cache_folder;
mod differences;
mod folder_lock;
mod hash;
mod location;
mod manifest_file;
#[cfg(all(test, feature = "cloud"))]
mod object_store_tests;
mod output_folder;
mod parquet_file;
mod python_json;
mod record_log;
mod table;

#[cfg(test)]
pub(crate) use self::table::markdown_line;
pub use self::{
    artifact_ref::ArtifactRef,
    atomic::write_atomically,
    differences::differences,
    hash::{sha256_bytes, sha256_file},
    location::Location,
    output_folder::{Manifest, OutputFolder, go_on},
    table::{Cell, Column, Table, TableReader, TableWriter, Value},
};
pub(crate) use self::{
    artifact_ref::{open_first, real_place, relative_path},
    atomic::{AtomicFile, Published, sync_folder_of},
    cache_folder::cache_folder,
    hash::{expect_sha256, hex},
    location::{Entry, ReadRange, Stretch},
    manifest_file::MANIFEST_FILE,
    output_folder::RESUME_FOLDER,
    parquet_file::ParquetFile,
    python_json::{python_json, python_json_or_null},
    record_log::RecordLog,
};
