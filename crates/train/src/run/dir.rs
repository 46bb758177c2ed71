//! The run directory.

use std::path::{Path, PathBuf};

use tritburn_quant::fs::write_atomic;

use super::checkpoint::Checkpoint;
use crate::error::{Result, TrainError};
use crate::recipe::{AnyRecipe, Recipe, Written};

/// `runs/<recipe>-<time>/` with `config.toml`, `metrics.jsonl`, `train.log`, `tb/`, `tokenizer/`,
/// `checkpoint-<step>/`, `best/<stage>/`, `stages/<name>/` and `final/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// A new directory under `root`, named after the recipe and the time.
    ///
    /// # Errors
    /// [`TrainError::Io`] where the system refuses.
    pub fn create(root: &Path, recipe: &impl Written) -> Result<Self> {
        let mut path = root.join(format!("{}-{}", recipe.name(), timestamp()));
        let mut n = 1;
        while path.exists() {
            n += 1;
            path = root.join(format!("{}-{}-{n}", recipe.name(), timestamp()));
        }
        Self::create_at(path, recipe)
    }

    /// A new directory at `path`.
    ///
    /// # Errors
    /// [`TrainError::Resume`] where it already holds a run, [`TrainError::Io`] where the system
    /// refuses.
    pub fn create_at(path: PathBuf, recipe: &impl Written) -> Result<Self> {
        let run = Self { path };
        if run.config().exists() {
            return Err(TrainError::Resume {
                path: run.path,
                message: "already holds a run; choose another folder or use --resume".into(),
            });
        }
        make_dir(&run.path)?;
        write_atomic(&run.config(), recipe.toml()?.as_bytes())?;
        Ok(run)
    }

    /// An existing run of a language model and the recipe it was started with.
    ///
    /// # Errors
    /// [`TrainError::Resume`] where the folder holds no run, [`TrainError::Recipe`] where it holds
    /// one of another kind.
    pub fn open(path: &Path) -> Result<(Self, Recipe)> {
        let run = Self::existing(path)?;
        let recipe = Recipe::read(&run.config(), &[])?;
        Ok((run, recipe))
    }

    /// An existing run of either kind and the recipe it was started with.
    ///
    /// # Errors
    /// [`TrainError::Resume`] where the folder holds no run.
    pub fn open_any(path: &Path) -> Result<(Self, AnyRecipe)> {
        let run = Self::existing(path)?;
        let recipe = AnyRecipe::read(&run.config(), &[])?;
        Ok((run, recipe))
    }

    fn existing(path: &Path) -> Result<Self> {
        let run = Self {
            path: path.to_path_buf(),
        };
        if !run.config().is_file() {
            return Err(TrainError::Resume {
                path: run.path,
                message: "holds no run: config.toml is missing".into(),
            });
        }
        Ok(run)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved recipe.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// One JSON object a line.
    #[must_use]
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Event files for TensorBoard.
    #[must_use]
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tb")
    }

    /// What happened, line by line.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("train.log")
    }

    /// The tokenizer that all stages use.
    #[must_use]
    pub fn tokenizer(&self) -> PathBuf {
        self.path.join("tokenizer")
    }

    /// Weights that a stage ended with.
    #[must_use]
    pub fn stage(&self, name: &str) -> PathBuf {
        self.path.join("stages").join(name)
    }

    /// Weights of the last stage.
    #[must_use]
    pub fn last(&self) -> PathBuf {
        self.path.join("final")
    }

    /// Checkpoint after `step` steps in all.
    #[must_use]
    pub fn checkpoint(&self, step: usize) -> PathBuf {
        self.path.join(format!("checkpoint-{step}"))
    }

    /// Checkpoint of the step at which a stage had its best evaluation.
    #[must_use]
    pub fn best(&self, stage: &str) -> PathBuf {
        self.path.join("best").join(stage)
    }

    /// Steps of the checkpoints on disk, ascending.
    #[must_use]
    pub fn checkpoint_steps(&self) -> Vec<usize> {
        let Ok(entries) = std::fs::read_dir(&self.path) else {
            return Vec::new();
        };
        let mut steps: Vec<usize> = entries
            .filter_map(|e| {
                let name = e.ok()?.file_name();
                name.to_str()?.strip_prefix("checkpoint-")?.parse().ok()
            })
            .collect();
        steps.sort_unstable();
        steps
    }

    /// The newest checkpoint.
    ///
    /// # Errors
    /// Where it is damaged.
    pub fn newest_checkpoint(&self) -> Result<Option<Checkpoint>> {
        self.checkpoint_steps()
            .last()
            .map(|&s| Checkpoint::read(&self.checkpoint(s)))
            .transpose()
    }

    /// Removes all but the newest `keep` checkpoints.
    ///
    /// # Errors
    /// [`TrainError::Io`] where the system refuses.
    pub fn prune(&self, keep: usize) -> Result<()> {
        let steps = self.checkpoint_steps();
        for &step in &steps[..steps.len().saturating_sub(keep)] {
            let path = self.checkpoint(step);
            std::fs::remove_dir_all(&path).map_err(|source| TrainError::Io { path, source })?;
        }
        Ok(())
    }
}

/// The newest run of a recipe under `root`.
///
/// # Errors
/// [`TrainError::Resume`] where there is none.
pub fn latest_run(root: &Path, name: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries
        .map(|e| e.path())
        .filter(|p| {
            let file = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let time = file
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('-'));
            time.is_some_and(|t| t.starts_with(|c: char| c.is_ascii_digit()))
                && p.join("config.toml").is_file()
        })
        .max()
        .ok_or_else(|| TrainError::Resume {
            path: root.to_path_buf(),
            message: format!("holds no run of recipe \"{name}\" to resume"),
        })
}

pub(super) fn make_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|source| TrainError::Io {
        path: path.to_path_buf(),
        source,
    })
}

/// UTC as `YYYYMMDD-HHMMSS`, so that names sort by time.
pub(super) fn timestamp() -> String {
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Civil date from day count; era of 400 years starting on 1 March.
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (
        doy - (153 * mp + 2) / 5 + 1,
        if mp < 10 { mp + 3 } else { mp - 9 },
    );
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}{month:02}{day:02}-{:02}{:02}{:02}",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}
