//! Files behind http, or in an object store (S3, Google Cloud Storage, Azure).

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path as Location;
use object_store::{ObjectStore, parse_url_opts};
use tokio::runtime::Runtime;
use url::Url;

use crate::error::{DataError, Result};

/// Bytes that are asked for at once. Page headers and pages of a column follow each other, so most
/// reads are in what came with the one before.
const BLOCK: u64 = 4 << 20;
/// Blocks that an open file holds.
const HELD: usize = 4;

/// Where requests wait for their answers.
fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let made = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    Ok(RUNTIME.get_or_init(|| made))
}

fn wait<T>(answer: impl Future<Output = object_store::Result<T>>) -> io::Result<T> {
    runtime()?.block_on(answer).map_err(io::Error::other)
}

fn fault(path: &Path, message: impl ToString) -> DataError {
    DataError::Remote {
        path: path.to_owned(),
        message: message.to_string(),
    }
}

/// The store that an address names, and the place in it. Credentials and regions are taken from the
/// variables that the clouds' own tools read (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`,
/// `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_KEY` and so on).
fn store(path: &Path) -> Result<(Box<dyn ObjectStore>, Location)> {
    let text = path.to_str().ok_or_else(|| fault(path, "is not UTF-8"))?;
    let url = Url::parse(text).map_err(|error| fault(path, error))?;
    let from_env = std::env::vars_os().filter_map(|(key, value)| {
        let key = key.to_str()?.to_ascii_lowercase();
        let known = ["aws_", "google_", "azure_"];
        let of_store = known.iter().any(|prefix| key.starts_with(prefix));
        of_store.then_some((key, value.into_string().ok()?))
    });
    // Who writes http:// wants it.
    let plain = (url.scheme() == "http").then(|| ("allow_http".to_owned(), "true".to_owned()));
    parse_url_opts(&url, from_env.chain(plain)).map_err(|error| fault(path, error))
}

/// The addresses that a pattern such as `s3://bucket/web/*.parquet` names, sorted. An address without
/// `*` and `[` is one file (`?` begins a query); one that ends in `/` means every parquet file below.
///
/// # Errors
/// If the store cannot be listed, or nothing matches.
pub(crate) fn expand(input: &str) -> Result<Vec<PathBuf>> {
    let folder = input.ends_with('/');
    let Some(at) = input.find(['*', '[']).or(folder.then_some(input.len())) else {
        return Ok(vec![PathBuf::from(input)]);
    };
    let path = Path::new(input);
    let prefix = &input[..input[..at].rfind('/').map_or(at, |slash| slash + 1)];
    let pattern = if folder {
        format!("{input}**/*.parquet")
    } else {
        input.to_owned()
    };
    let pattern = glob::Pattern::new(&pattern).map_err(|error| fault(path, error))?;
    let options = glob::MatchOptions {
        require_literal_separator: true,
        ..glob::MatchOptions::new()
    };
    let (store, location) = store(Path::new(prefix))?;
    let list = store.list(Some(&location)).map_ok(|meta| meta.location);
    let listed: Vec<Location> = wait(list.try_collect()).map_err(|error| {
        let remedy = "name each file where the server cannot list its folders";
        fault(path, format!("cannot list {prefix} ({error}); {remedy}"))
    })?;
    let root = prefix
        .strip_suffix(&format!("{location}/"))
        .unwrap_or(prefix);
    let mut found: Vec<String> = listed
        .iter()
        .map(|location| format!("{}/{location}", root.trim_end_matches('/')))
        .filter(|address| pattern.matches_with(address, options))
        .collect();
    if found.is_empty() {
        return Err(fault(path, "no file matches"));
    }
    found.sort();
    Ok(found.into_iter().map(PathBuf::from).collect())
}

/// A file that is read in ranges.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    store: Arc<dyn ObjectStore>,
    location: Location,
    size: u64,
    /// The last blocks asked for, with their numbers; the newest last.
    held: Arc<Mutex<VecDeque<(u64, Bytes)>>>,
}

impl Object {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (store, location) = store(path)?;
        let meta = wait(store.head(&location)).map_err(DataError::io(path, "open"))?;
        Ok(Self {
            store: store.into(),
            location,
            size: meta.size,
            held: Arc::default(),
        })
    }

    pub(crate) fn len(&self) -> u64 {
        self.size
    }

    fn block(&self, number: u64) -> io::Result<Bytes> {
        let lock = || self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = lock().iter().find(|(n, _)| *n == number) {
            return Ok(bytes.clone());
        }
        let start = number * BLOCK;
        let range = start..self.size.min(start + BLOCK);
        let asked = range.end - range.start;
        let bytes = wait(self.store.get_range(&self.location, range))?;
        if bytes.len() as u64 != asked {
            return Err(short(&self.location));
        }
        let mut held = lock();
        if held.len() == HELD {
            held.pop_front();
        }
        held.push_back((number, bytes.clone()));
        Ok(bytes)
    }

    /// `length` bytes from `start` on.
    pub(crate) fn bytes(&self, start: u64, length: usize) -> io::Result<Bytes> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(short(&self.location));
        }
        let first = self.block(start / BLOCK)?;
        #[allow(clippy::cast_possible_truncation)]
        let offset = (start % BLOCK) as usize;
        if offset + length <= first.len() {
            return Ok(first.slice(offset..offset + length));
        }
        let mut all = Vec::with_capacity(length);
        let mut number = start / BLOCK;
        all.extend_from_slice(&first[offset..]);
        while all.len() < length {
            number += 1;
            let block = self.block(number)?;
            let rest = (length - all.len()).min(block.len());
            all.extend_from_slice(&block[..rest]);
        }
        Ok(all.into())
    }

    pub(crate) fn read_from(&self, start: u64) -> impl Read + use<> {
        Reader {
            object: self.clone(),
            at: start,
        }
    }
}

fn short(location: &Location) -> io::Error {
    let message = format!("{location} ends before it should");
    io::Error::new(io::ErrorKind::UnexpectedEof, message)
}

struct Reader {
    object: Object,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.object.size || out.is_empty() {
            return Ok(0);
        }
        let block = self.object.block(self.at / BLOCK)?;
        #[allow(clippy::cast_possible_truncation)]
        let rest = &block[(self.at % BLOCK) as usize..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.at += count as u64;
        Ok(count)
    }
}
