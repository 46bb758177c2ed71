//! Models named as on the Hugging Face hub.

use std::path::{Path, PathBuf};

use anyhow::Result;
use indicatif::HumanBytes;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use tritburn_hub::{HubSettings, ModelName};

use crate::output::say;

/// How often a line tells how far a download is where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The name, where `path` is none of a file here. A first part that is a folder here means that a
/// file in it was meant.
fn name(path: &Path) -> Option<ModelName> {
    let first = path.components().next()?;
    if path.exists() || Path::new(first.as_os_str()).exists() {
        return None;
    }
    ModelName::parse(path.to_str()?)
}

/// The folder or file of a model of the hub, `None` where `path` is no such name. It is downloaded
/// where the cache does not have it.
pub(crate) fn locate(path: &Path) -> Result<Option<PathBuf>> {
    let Some(name) = name(path) else {
        return Ok(None);
    };
    let mut shown = Shown::default();
    let mut tell = |file: &str, done, total| shown.tell(file, done, total);
    let found = tritburn_hub::locate(&name, &HubSettings::from_env()?, &mut tell)?;
    Ok(Some(found))
}

/// Brings what is new of a model.
pub(crate) fn pull(name: &ModelName) -> Result<PathBuf> {
    let mut shown = Shown::default();
    let mut tell = |file: &str, done, total| shown.tell(file, done, total);
    Ok(tritburn_hub::pull(
        name,
        &HubSettings::from_env()?,
        &mut tell,
    )?)
}

/// Tells of downloads: a line that is written over on a terminal, a line now and then elsewhere.
#[derive(Default)]
struct Shown {
    bar: Option<indicatif::ProgressBar>,
    file: String,
    told: Option<Instant>,
}

impl Shown {
    fn tell(&mut self, file: &str, done: u64, total: u64) {
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(crate::output::bytes_bar);
            if self.file != file {
                bar.set_message(file.to_owned());
            }
            bar.set_length(total);
            bar.set_position(done);
            if done >= total {
                bar.println(format!("{file}: {}", HumanBytes(total)));
            }
        } else if done >= total || self.told.is_none_or(|t| t.elapsed() >= LINE_EVERY) {
            self.told = Some(Instant::now());
            say(format!(
                "{file}: {} of {}",
                HumanBytes(done),
                HumanBytes(total)
            ));
        }
        if self.file != file {
            file.clone_into(&mut self.file);
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_here_is_no_name_of_the_hub() {
        assert!(name(Path::new("surely-not-here/model")).is_some());
        // Tests run in the folder of the crate, which has these.
        for path in [
            "src/none",
            "src/main.rs",
            "Cargo.toml",
            "/org/model",
            "none",
        ] {
            assert_eq!(name(Path::new(path)), None, "{path}");
        }
    }
}
