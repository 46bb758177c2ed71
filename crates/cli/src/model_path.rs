//! From what the user names to the folder that holds the weights.

use std::path::{Path, PathBuf};

#[cfg(feature = "hub")]
use anyhow::Context;
use anyhow::{Result, bail};
use tritburn_data::Tokenizer;

/// The rest of what a command takes.
#[cfg(feature = "hub")]
const HUB: &str = ", a GGUF file, or ORG/NAME of a model of the Hugging Face hub";
#[cfg(not(feature = "hub"))]
const HUB: &str = " or a GGUF file; this build does not download models (feature `hub`)";

/// The Hugging Face folder of an export, a stage, a checkpoint, or of a run's end; a GGUF file; or either of a model that
/// is named as on the Hugging Face hub.
///
/// # Errors
/// Where there is none; the message says what is there instead.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    if !path.exists() {
        let nothing = || {
            format!(
                "{shown}: no such model. Give the folder of an export, a run or a checkpoint{HUB}"
            )
        };
        #[cfg(feature = "hub")]
        if let Some(found) = crate::hub::locate(path).with_context(nothing)? {
            return Ok(found);
        }
        bail!(nothing());
    }
    if !path.is_dir() {
        if path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
        {
            return Ok(path.to_path_buf());
        }
        bail!(
            "{shown}: is a file. Give a .gguf file, or the folder that holds config.json and \
             model.safetensors"
        );
    }
    if path.join("config.json").is_file() {
        return Ok(path.to_path_buf());
    }
    let last = path.join("final");
    if last.join("config.json").is_file() {
        return Ok(last);
    }
    let mut parts = sub_folders(path, |name| name.starts_with("checkpoint-"));
    // By number, not by letter.
    parts.sort_by_key(|part| (part.as_os_str().len(), part.clone()));
    parts.extend(sub_folders(&path.join("stages"), |_| true));
    if !parts.is_empty() {
        let parts: Vec<String> = parts
            .iter()
            .map(|part| part.display().to_string())
            .collect();
        bail!(
            "{shown}: the run has not come to its end (no final/). Continue it with `tritburn \
             train RECIPE --resume {shown}`, or give one of {}",
            parts.join(", ")
        );
    }
    if path.join("config.toml").is_file() {
        bail!(
            "{shown}: the run holds no weights yet. Continue it with `tritburn train RECIPE \
             --resume {shown}`"
        );
    }
    bail!(
        "{shown}: holds no config.json, so it is no model. Give the folder of an export, a run or \
         a checkpoint"
    )
}

/// The path that a recipe names, or the folder of the model of the hub that it names.
///
/// # Errors
/// Where a model of the hub cannot be had.
pub(crate) fn of_recipe(path: &mut String) -> Result<()> {
    #[cfg(feature = "hub")]
    if let Some(found) = crate::hub::locate(Path::new(path.as_str()))? {
        *path = found.to_string_lossy().into_owned();
    }
    Ok(())
}

/// The tokenizer of what [`resolve`] found.
///
/// # Errors
/// Where there is none or it is damaged.
pub(crate) fn tokenizer(model: &Path) -> Result<Tokenizer> {
    if !model.is_file() {
        return Ok(Tokenizer::load(model)?);
    }
    let Some([json, config]) = tritburn_engine::gguf_tokenizer(model)? else {
        bail!("{}: holds no tokenizer", model.display());
    };
    Ok(Tokenizer::from_json(json, &config, model)?)
}

/// The run that a folder found by [`resolve`] lies in, where it lies in one.
pub(crate) fn run_of(folder: &Path) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let name = folder.file_name()?.to_str()?;
    let parent = folder.parent()?;
    let run = if name == "final" || name.starts_with("checkpoint-") {
        parent
    } else if parent.file_name()? == "stages" {
        parent.parent()?
    } else {
        return None;
    };
    run.join("config.toml").is_file().then(|| run.to_path_buf())
}

/// What to call a model in reports and on the server: the name of the folder that the user gave.
pub(crate) fn name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    whole.file_name().map_or_else(
        || "model".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Model folders below `path` whose names `keep` takes, sorted by name.
fn sub_folders(path: &Path, keep: fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(keep))
        .map(|entry| entry.path())
        .filter(|path| path.join("config.json").is_file())
        .collect();
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn touch(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
    }

    #[test]
    fn runs_checkpoints_stages_and_exports_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("mnli-20260101-000000");
        let files =
            ["final", "stages/teacher", "checkpoint-9"].map(|f| f.to_owned() + "/config.json");
        touch(&run, &["config.toml"]);
        touch(&run, &files.each_ref().map(String::as_str));
        touch(dir.path(), &["export/config.json"]);
        assert_eq!(resolve(&run).unwrap(), run.join("final"));
        for part in ["final", "stages/teacher", "checkpoint-9"] {
            let folder = run.join(part);
            assert_eq!(resolve(&folder).unwrap(), folder);
            assert_eq!(run_of(&folder), Some(run.canonicalize().unwrap()), "{part}");
        }
        let export = dir.path().join("export");
        assert_eq!(resolve(&export).unwrap(), export);
        assert_eq!(run_of(&export), None);
        assert_eq!(name(&run), "mnli-20260101-000000");
    }

    #[test]
    fn an_unfinished_run_lists_its_checkpoints_in_order() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), &["config.toml"]);
        let message = |path: &Path| resolve(path).unwrap_err().to_string();
        assert!(message(dir.path()).contains("no weights yet"));
        touch(
            dir.path(),
            &["checkpoint-1000/config.json", "checkpoint-200/config.json"],
        );
        let text = message(dir.path());
        let (first, second) = (text.find("checkpoint-200"), text.find("checkpoint-1000"));
        assert!(first.is_some() && first < second, "{text}");
    }

    #[test]
    fn what_is_no_model_is_named() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), &["model.safetensors", "model.gguf"]);
        for (path, words) in [
            ("none", "no such model"),
            ("", "no config.json"),
            ("model.safetensors", "is a file"),
        ] {
            let path = dir.path().join(path);
            let text = resolve(&path).unwrap_err().to_string();
            assert!(
                text.contains(words) && text.contains(&*path.to_string_lossy()),
                "{text}"
            );
        }
        let gguf = dir.path().join("model.gguf");
        assert_eq!(resolve(&gguf).unwrap(), gguf);
    }
}
