//! SAEs of other tools, against what those tools compute: `interop/formats.py` made the folders and the numbers beside
//! them. Then back into each format that can hold them, and files that are broken or malicious.

#![expect(clippy::unwrap_used, reason = "tests")]

mod agree;
mod case;
mod configs;
mod files;
mod spoil;
mod tensors;
