//! Makes changed copies of the SAEs of other tools: of their configs, their tensors, the members of their zip files.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tempfile::TempDir;
use trainer::Sae;
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

use crate::case::{Case, case};

/// A copy of a case's files that a test may change.
pub(crate) fn copy(name: &str) -> (TempDir, PathBuf) {
    copy_of(&case(name))
}

pub(crate) fn copy_of(case: &Case) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let source = if case.path.is_file() { case.path.parent().unwrap().to_path_buf() } else { case.path.clone() };
    let folder = dir.path().join(source.file_name().unwrap());
    copy_files(&source, &folder);
    (dir, folder)
}

fn copy_files(source: &Path, folder: &Path) {
    fs::create_dir(folder).unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), folder.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy_files(&from, &to);
        } else {
            fs::copy(&from, to).unwrap();
        }
    }
}

/// Writes a zip file again with some members changed; `change` returns the new bytes, or `None` to leave a member out.
pub(crate) fn rewrite(path: &Path, change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) {
    let changed = |(name, bytes): (String, Vec<u8>)| change(&name, bytes).map(|bytes| (name, bytes));
    let members: Vec<_> = members(path).into_iter().filter_map(changed).collect();
    write_zip(path, &members);
}

/// The uncompressed members of a zip file.
pub(crate) fn members(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let mut members = vec![];
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).unwrap();
        let mut bytes = vec![];
        member.read_to_end(&mut bytes).unwrap();
        members.push((member.name().unwrap().into_owned(), bytes));
    }
    members
}

/// Writes a zip file with the right checksums of its members.
pub(crate) fn write_zip(path: &Path, members: &[(String, Vec<u8>)]) {
    let mut writer = ZipWriter::new(fs::File::create(path).unwrap());
    for (name, bytes) in members {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        writer.start_file(name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap();
}

pub(crate) fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

pub(crate) fn refused(path: &Path) -> String {
    Sae::load(path).unwrap_err().to_string()
}

/// The error of reading a copy of `name` after a change in the text of a config.
pub(crate) fn refused_with(name: &str, file: &str, from: &str, to: &str) -> String {
    let (_dir, folder) = copy(name);
    edit(&folder.join(file), from, to);
    refused(&folder)
}

pub(crate) fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

/// The error of reading after adding a member, a copy of another.
pub(crate) fn zip_with(path: &Path, name: &str, like: &str) -> String {
    let mut archive = ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let mut bytes = vec![];
    archive.by_name(like).unwrap().read_to_end(&mut bytes).unwrap();
    let mut writer = ZipWriter::new_append(fs::OpenOptions::new().read(true).write(true).open(path).unwrap()).unwrap();
    writer.start_file(name, SimpleFileOptions::default().compression_method(CompressionMethod::Stored)).unwrap();
    writer.write_all(&bytes).unwrap();
    writer.finish().unwrap();
    refused(path)
}

/// Sets `size` to 0 in every shape of a file, and removes the values that no longer exist.
pub(crate) fn emptied(path: &Path, size: usize) {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("pt") => rewrite(path, |name, mut bytes| {
            if name.ends_with("data.pkl") {
                // BININT1 occurs in shapes, and in strides and storages, which an empty view does not use.
                let from = [b'K', size as u8];
                while let Some(at) = bytes.windows(2).position(|window| window == from) {
                    bytes[at + 1] = 0;
                }
            }
            Some(bytes)
        }),
        Some("npz") => rewrite(path, |_, bytes| {
            let header = String::from_utf8(bytes[10..128].to_vec()).unwrap();
            let none = header.replace(&format!("({size},"), "( 0,").replace(&format!(", {size})"), ",  0)");
            let rest = if none == header { &bytes[128..] } else { &[] };
            Some([&bytes[..10], none.as_bytes(), rest].concat())
        }),
        _ => {
            let bytes = fs::read(path).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let none = |(name, tensor): (&str, TensorView<'_>)| {
                let shape: Vec<_> = tensor.shape().iter().map(|&len| if len == size { 0 } else { len }).collect();
                let bytes = if shape.contains(&0) { vec![] } else { tensor.data().to_vec() };
                (name.to_string(), shape, bytes)
            };
            let tensors: Vec<_> = tensors.iter().map(none).collect();
            write_safetensors(path, &tensors);
        }
    }
}

pub(crate) fn write_safetensors(path: &Path, tensors: &[(String, Vec<usize>, Vec<u8>)]) {
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (name, view)
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Changes the values of one tensor of a safetensors file.
pub(crate) fn change_tensor(path: &Path, changed: &str, change: impl Fn(&mut Vec<u8>)) {
    let bytes = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let copied = |(name, tensor): (&str, TensorView<'_>)| {
        let mut bytes = tensor.data().to_vec();
        if name == changed {
            change(&mut bytes);
        }
        (name.to_string(), tensor.shape().to_vec(), bytes)
    };
    write_safetensors(path, &tensors.iter().map(copied).collect::<Vec<_>>());
}
