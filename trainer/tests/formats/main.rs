//! SAEs of other tools, compared with those tools' own results: `interop/formats.py` made the folders and the expected
//! values. The tests also write each SAE in every format that can hold it, and read broken and malicious files.

#![expect(clippy::unwrap_used, reason = "tests")]

mod agree;
mod case;
mod configs;
mod files;
mod spoil;
mod tensors;
mod vintages;
