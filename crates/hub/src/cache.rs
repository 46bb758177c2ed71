//! The cache as the hub's own tools lay it out: `models--org--name/{refs,snapshots,blobs}`.

use std::path::{Path, PathBuf};

use crate::files::{self, CONFIG, INDEX, WEIGHTS};
use crate::name::{ModelName, is_path};
use crate::settings::HubSettings;

/// A model that can be loaded.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// Whether nothing that the hub may have is missing.
    pub(crate) whole: bool,
}

/// The snapshot folder of the revision, where the cache has one.
fn snapshot(name: &ModelName, settings: &HubSettings) -> Option<PathBuf> {
    let repo = settings.cache.join(name.folder());
    let stored = std::fs::read_to_string(repo.join("refs").join(&name.revision));
    // A commit is a revision too, and has no file in `refs`.
    let commit = stored.map_or_else(|_| name.revision.clone(), |text| text.trim().to_owned());
    let folder = repo.join("snapshots").join(&commit);
    (is_path(&commit) && folder.is_dir()).then_some(folder)
}

/// What the cache has of a model, where that is enough to load it.
pub(crate) fn find(name: &ModelName, settings: &HubSettings) -> Option<Found> {
    let folder = snapshot(name, settings)?;
    if let Some(file) = &name.file {
        let path = folder.join(file);
        return path.is_file().then_some(Found { path, whole: true });
    }
    if folder.join(CONFIG).is_file() && has_weights(&folder) {
        // Other tools may have brought the weights alone.
        let whole = folder.join("tokenizer.json").is_file();
        return Some(Found {
            path: folder,
            whole,
        });
    }
    let files = std::fs::read_dir(&folder).ok()?.flatten().map(|e| e.path());
    let mut ggufs = files.filter(|p| p.is_file() && files::is_gguf(&p.to_string_lossy()));
    match (ggufs.next(), ggufs.next()) {
        (Some(path), None) => Some(Found { path, whole: true }),
        _ => None,
    }
}

fn has_weights(folder: &Path) -> bool {
    let index = folder.join(INDEX);
    if !index.is_file() {
        return folder.join(WEIGHTS).is_file();
    }
    let shards = files::shard_names(&index);
    shards.is_ok_and(|shards| shards.iter().all(|s| folder.join(s).is_file()))
}
