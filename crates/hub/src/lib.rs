//! Models of the Hugging Face hub: names, the cache that all its tools share, and downloads that go
//! on where they were cut off.
//!
//! [`locate`] is for commands that take a model: what is in the cache is used without a word to the
//! network. [`pull`] asks the hub what is new.

mod cache;
mod error;
mod files;
mod name;
mod settings;
mod transfer;

use std::path::PathBuf;

pub use error::{HubError, Result};
pub use name::ModelName;
pub use settings::HubSettings;

use files::{Wanted, wanted};
use transfer::Hub;

/// Told how far a file is: its name, bytes that are there, bytes that it has.
pub type Progress<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// The folder, or the GGUF file, of a model: from the cache where it is whole there, else from the
/// hub.
///
/// # Errors
/// As [`pull`]; [`HubError::Offline`] where the network must not be used and the cache lacks the
/// model.
pub fn locate(
    name: &ModelName,
    settings: &HubSettings,
    progress: &mut Progress<'_>,
) -> Result<PathBuf> {
    match cache::find(name, settings) {
        Some(found) if found.whole || settings.offline => Ok(found.path),
        _ => pull(name, settings, progress),
    }
}

/// Brings what a model consists of and is not in the cache yet; returns its folder or GGUF file.
/// Files that were cut off go on where they ended.
///
/// # Errors
/// [`HubError::Offline`] where the settings forbid it; [`HubError::Denied`], [`HubError::NotFound`]
/// and [`HubError::Request`] for what the hub answers; [`HubError::NoModel`] for a repository
/// without files that the engine reads; [`HubError::Damaged`] for a file that is not what the hub
/// promised; [`HubError::Stalled`] where nothing comes any more; [`HubError::Io`].
pub fn pull(
    name: &ModelName,
    settings: &HubSettings,
    progress: &mut Progress<'_>,
) -> Result<PathBuf> {
    if settings.offline {
        return Err(HubError::Offline {
            name: name.to_string(),
            cache: settings.cache.clone(),
        });
    }
    let hub = Hub::new(name, settings)?;
    let (commit, listed) = hub.list()?;
    match wanted(name, &listed)? {
        Wanted::Gguf(file) => hub.bring(&commit, &file, progress),
        Wanted::Folder { mut files, index } => {
            if let Some(index) = index {
                let path = hub.bring(&commit, &index, progress)?;
                files.extend(files::shards(&path, &listed)?);
            }
            for file in &files {
                hub.bring(&commit, file, progress)?;
            }
            // Last, so that a folder with it is one that was brought to its end.
            let config = hub.bring(&commit, files::CONFIG, progress)?;
            Ok(config.parent().map(PathBuf::from).unwrap_or_default())
        }
    }
}
