//! The bytes of a parquet file, wherever it lies.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::Result as ParquetResult;
use parquet::file::reader::{ChunkReader, Length};

use crate::error::{DataError, Result};
#[cfg(feature = "remote")]
use crate::remote::Object;
use crate::rows::guarded;

/// A parquet file that is open.
#[derive(Debug)]
pub(crate) enum ShardFile {
    Local(File),
    #[cfg(feature = "remote")]
    Remote(Object),
}

pub(crate) type Builder = ParquetRecordBatchReaderBuilder<ShardFile>;

/// Whether a path is the address of something that is not on this machine.
pub(crate) fn is_remote(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.contains("://"))
}

impl ShardFile {
    fn open(path: &Path) -> Result<Self> {
        if is_remote(path) {
            return Self::remote(path);
        }
        let file = File::open(path).map_err(DataError::io(path, "open"))?;
        Ok(Self::Local(file))
    }

    #[cfg(feature = "remote")]
    fn remote(path: &Path) -> Result<Self> {
        Object::open(path).map(Self::Remote)
    }

    #[cfg(not(feature = "remote"))]
    fn remote(path: &Path) -> Result<Self> {
        Err(not_built(path))
    }
}

/// What to say of an address where nothing can fetch it.
#[cfg(not(feature = "remote"))]
pub(crate) fn not_built(path: &Path) -> DataError {
    DataError::Remote {
        path: path.to_owned(),
        message: "this build reads local files only; build with `--features remote`".to_owned(),
    }
}

/// Bytes of the file.
pub(crate) fn size(path: &Path) -> Result<u64> {
    if is_remote(path) {
        return ShardFile::remote(path).map(|file| file.len());
    }
    let metadata = std::fs::metadata(path).map_err(DataError::io(path, "open"))?;
    Ok(metadata.len())
}

/// Opens a parquet file and reads what stands at its end.
pub(crate) fn open_parquet(path: &Path) -> Result<Builder> {
    let file = ShardFile::open(path)?;
    // Without the embedded Arrow schema every string column reads as Utf8, and a schema that
    // disagrees with the file cannot mislead.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    guarded(|| Builder::try_new_with_options(file, options)).map_err(|message| {
        DataError::NotParquet {
            path: path.to_owned(),
            message,
        }
    })
}

impl Length for ShardFile {
    fn len(&self) -> u64 {
        match self {
            Self::Local(file) => Length::len(file),
            #[cfg(feature = "remote")]
            Self::Remote(object) => object.len(),
        }
    }
}

impl ChunkReader for ShardFile {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(match self {
            Self::Local(file) => Box::new(file.get_read(start)?),
            #[cfg(feature = "remote")]
            Self::Remote(object) => Box::new(object.read_from(start)),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        match self {
            Self::Local(file) => file.get_bytes(start, length),
            #[cfg(feature = "remote")]
            Self::Remote(object) => Ok(object.bytes(start, length)?),
        }
    }
}
