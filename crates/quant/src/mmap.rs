//! Read-only memory maps: the one place outside the kernels that needs `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{QuantError, Result};

/// A whole file, mapped for reading.
///
/// The file must not be changed or shortened by others while it is mapped; files written by
/// [`crate::fs`] are replaced as a whole and never changed in place.
#[derive(Debug)]
pub struct Mapped {
    // None for an empty file, which some systems refuse to map.
    map: Option<Mmap>,
}

impl Mapped {
    /// Maps `path`.
    ///
    /// # Errors
    /// [`QuantError::Io`] where the file cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| QuantError::Io {
            path: path.to_path_buf(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the map is private to this value and only ever read; that nobody shortens the
        // file meanwhile is the documented condition of the type.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Self { map: Some(map) })
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}
