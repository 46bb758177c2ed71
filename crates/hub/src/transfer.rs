//! Brings files through `hf-hub`, checks them, and gives up where nothing comes.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, Metadata};
use hf_hub::{Cache, Repo, RepoType};
use sha2::{Digest, Sha256};

use crate::Progress;
use crate::error::{HubError, Result};
use crate::name::{ModelName, is_path};
use crate::settings::HubSettings;

/// Bytes after which progress is told.
const TELL: u64 = 1 << 20;
/// The request was for bytes that the file does not have.
const RANGE_NOT_SATISFIABLE: u16 = 416;

/// One repository of the hub.
pub(crate) struct Hub<'a> {
    name: &'a ModelName,
    settings: &'a HubSettings,
    api: Api,
    repo: Repo,
}

enum Told<T> {
    Bytes(u64, u64),
    Done(std::result::Result<T, ApiError>),
}

impl<'a> Hub<'a> {
    pub(crate) fn new(name: &'a ModelName, settings: &'a HubSettings) -> Result<Self> {
        let builder = ApiBuilder::from_cache(Cache::new(settings.cache.clone()))
            .with_endpoint(settings.endpoint.clone())
            .with_token(settings.token.clone())
            .with_progress(false)
            .with_user_agent("tritburn", env!("CARGO_PKG_VERSION"));
        let repo = Repo::with_revision(name.repo.clone(), RepoType::Model, name.revision.clone());
        let this = |api| Self {
            name,
            settings,
            api,
            repo,
        };
        let failed = |e: ApiError| HubError::Request {
            what: name.to_string(),
            endpoint: settings.endpoint.clone(),
            message: e.to_string(),
        };
        builder.build().map(this).map_err(failed)
    }

    /// Commit and files of the revision.
    pub(crate) fn list(&self) -> Result<(String, Vec<String>)> {
        let (api, repo) = (self.api.clone(), self.repo.clone());
        let what = self.name.to_string();
        let info = self.guarded(&what, &mut |_, _, _| {}, move |_| api.repo(repo).info())?;
        if !is_path(&info.sha) || info.sha.contains('/') {
            return Err(self.odd(&what, format!("{:?} is no commit", info.sha)));
        }
        let files = info.siblings.into_iter().map(|s| s.rfilename);
        Ok((info.sha, files.filter(|f| is_path(f)).collect()))
    }

    /// The file of that commit in the cache, brought there where it is not yet.
    pub(crate) fn bring(
        &self,
        commit: &str,
        file: &str,
        progress: &mut Progress<'_>,
    ) -> Result<PathBuf> {
        let folder = self.settings.cache.join(self.name.folder());
        let pointer = folder.join("snapshots").join(commit).join(file);
        let cache = Cache::new(self.settings.cache.clone()).repo(self.repo.clone());
        if pointer.exists() {
            cache.create_ref(commit).map_err(HubError::io(&folder))?;
            return Ok(pointer);
        }
        let what = format!("{} {file}", self.name);
        let url = self.api.repo(self.repo.clone()).url(file);
        let api = self.api.clone();
        let found = self.guarded(&what, &mut |_, _, _| {}, move |_| api.metadata(&url))?;
        self.check(&what, commit, &found)?;
        let blob = cache.blob_path(found.etag());
        if blob.exists() {
            link(&blob, &pointer, file)?;
            cache.create_ref(commit).map_err(HubError::io(&folder))?;
            return Ok(pointer);
        }
        std::fs::create_dir_all(&self.settings.cache)
            .map_err(HubError::io(&self.settings.cache))?;
        if !self.download(&what, file, progress)? {
            // The rest of a file that was there to the last byte cannot be asked for.
            let part = blob.with_extension("part");
            std::fs::remove_file(&part).map_err(HubError::io(&part))?;
            self.download(&what, file, progress)?;
        }
        if let Err(message) = verify(&blob, &found) {
            // The pointer first: without it nobody finds the file.
            for path in [&pointer, &blob] {
                std::fs::remove_file(path).map_err(HubError::io(path))?;
            }
            return Err(HubError::Damaged {
                path: pointer,
                message,
            });
        }
        Ok(pointer)
    }

    /// False where the hub has nothing after what is there already.
    fn download(&self, what: &str, file: &str, progress: &mut Progress<'_>) -> Result<bool> {
        let (api, repo, name) = (self.api.clone(), self.repo.clone(), file.to_owned());
        let mut told = |_: &str, done: u64, total: u64| progress(file, done, total);
        self.guarded(what, &mut told, move |sender| {
            let meter = Meter::new(sender);
            match api.repo(repo).download_with_progress(&name, meter) {
                Ok(_) => Ok(true),
                Err(e) if status(&e) == Some(RANGE_NOT_SATISFIABLE) => Ok(false),
                Err(e) => Err(e),
            }
        })
    }

    /// What names of files in the cache are made of must be what it should be.
    fn check(&self, what: &str, commit: &str, found: &Metadata) -> Result<()> {
        let etag = found.etag();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if etag.is_empty() || etag.len() > 128 || !etag.chars().all(plain) {
            return Err(self.odd(what, format!("{etag:?} is no name of a file's contents")));
        }
        if found.commit_hash() != commit {
            return Err(self.odd(
                what,
                format!(
                    "is now of commit {}, not {commit}: the model was changed",
                    found.commit_hash()
                ),
            ));
        }
        Ok(())
    }

    fn odd(&self, what: &str, message: String) -> HubError {
        HubError::Request {
            what: what.to_owned(),
            endpoint: self.settings.endpoint.clone(),
            message,
        }
    }

    /// Runs a request beside, since it has no time-outs of its own; one that is given up on ends
    /// with the process.
    fn guarded<T: Send + 'static>(
        &self,
        what: &str,
        progress: &mut Progress<'_>,
        request: impl FnOnce(Sender<Told<T>>) -> std::result::Result<T, ApiError> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let result = request(sender.clone());
            // Nobody listens any more where it was given up on.
            let _ = sender.send(Told::Done(result));
        });
        let patience = Duration::from_secs(self.settings.stall_seconds.max(1));
        loop {
            match receiver.recv_timeout(patience) {
                Ok(Told::Bytes(done, total)) => progress(what, done, total),
                Ok(Told::Done(result)) => return result.map_err(|e| self.failed(what, &e)),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(HubError::Stalled {
                        what: what.to_owned(),
                        seconds: patience.as_secs(),
                    });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.odd(what, "the answer made no sense".to_owned()));
                }
            }
        }
    }

    fn failed(&self, what: &str, error: &ApiError) -> HubError {
        match status(error) {
            Some(status @ (401 | 403)) => HubError::Denied {
                name: self.name.to_string(),
                status,
            },
            Some(404) => HubError::NotFound {
                what: what.to_owned(),
                endpoint: self.settings.endpoint.clone(),
            },
            _ => self.odd(what, error.to_string()),
        }
    }
}

fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(e) => match **e {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        _ => None,
    }
}

/// Tells how far a download is, not more often than is of use.
struct Meter<T> {
    sender: Sender<Told<T>>,
    done: u64,
    total: u64,
    told: (u64, Instant),
}

impl<T> Meter<T> {
    fn new(sender: Sender<Told<T>>) -> Self {
        Self {
            sender,
            done: 0,
            total: 0,
            told: (0, Instant::now()),
        }
    }

    fn tell(&mut self) {
        let _ = self.sender.send(Told::Bytes(self.done, self.total));
        self.told = (self.done, Instant::now());
    }
}

impl<T> hf_hub::api::Progress for Meter<T> {
    fn init(&mut self, size: usize, _: &str) {
        (self.done, self.total) = (0, size as u64);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        if self.done - self.told.0.min(self.done) >= TELL || self.told.1.elapsed().as_secs() >= 1 {
            self.tell();
        }
    }

    fn finish(&mut self) {
        self.tell();
    }
}

/// Holds a file against what the hub said of it. The contents of large files are named by their
/// SHA-256.
fn verify(blob: &Path, found: &Metadata) -> std::result::Result<(), String> {
    let len = std::fs::metadata(blob).map_err(|e| e.to_string())?.len();
    if len != found.size() as u64 {
        return Err(format!(
            "has {len} bytes, but the hub promised {}",
            found.size()
        ));
    }
    let named = found.etag();
    if named.len() != 64 || !named.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(());
    }
    let mut file = std::fs::File::open(blob).map_err(|e| e.to_string())?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash).map_err(|e| e.to_string())?;
    let hash: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if hash == named.to_ascii_lowercase() {
        Ok(())
    } else {
        Err(format!("has SHA-256 {hash}, but the hub promised {named}"))
    }
}

/// Puts contents that the cache has already into a snapshot.
fn link(blob: &Path, pointer: &Path, file: &str) -> Result<()> {
    if let Some(parent) = pointer.parent() {
        std::fs::create_dir_all(parent).map_err(HubError::io(parent))?;
    }
    #[cfg(unix)]
    let result = {
        // From snapshots/COMMIT up to the folder of the repository, and up from folders in `file`.
        let up = "../".repeat(2 + file.matches('/').count());
        let name = blob.file_name().unwrap_or_default();
        std::os::unix::fs::symlink(Path::new(&up).join("blobs").join(name), pointer)
    };
    #[cfg(not(unix))]
    let result = {
        let _ = file;
        std::fs::copy(blob, pointer).map(|_| ())
    };
    result.map_err(HubError::io(pointer))
}
