//! How SAEs are written to disk, a file each format.

pub(crate) mod saelens;
