//! Finding and reading the per-sample files of evaluations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{EvalError, Result};
use crate::generation::TextSample;
use crate::task::Sample;

/// Folder of a run that its evaluations lie in, one sub-folder for each model of the run.
const EVALUATIONS: &str = "eval";
/// The model of a run that stands for it.
const FINAL: &str = "final";

/// Evaluated rows, of either kind of task.
#[derive(Debug, Clone, PartialEq)]
pub enum Samples {
    /// Of a task that chooses labels.
    Choices(Vec<Sample>),
    /// Of a task that generates text.
    Texts(Vec<TextSample>),
}

/// Where the results of a model of `run` for a task go when no other place is named:
/// `RUN/eval/MODEL/results_TASK.json`, and `samples_TASK.jsonl` beside it. `model` is `final`, or the
/// name of a stage or a checkpoint.
pub fn results_in_run(run: &Path, model: &str, task: &str) -> PathBuf {
    run.join(EVALUATIONS)
        .join(model)
        .join(format!("results_{task}.json"))
}

/// The per-sample files that `path` stands for, by task.
///
/// `path` is such a file, a folder that holds some, a run that was evaluated, or the folder of one
/// of a run's models.
///
/// # Errors
/// If there are none, or those of several models of a run and none of its end.
pub fn find_samples(path: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let nothing = |message: String| EvalError::Nothing { message };
    if path.is_file() {
        let task = task_of(path).unwrap_or_else(|| path.display().to_string());
        return Ok(BTreeMap::from([(task, path.to_owned())]));
    }
    if !path.is_dir() {
        return Err(nothing(format!(
            "{}: no such file or folder",
            path.display()
        )));
    }
    let mut folders = vec![path.to_owned(), path.join(EVALUATIONS).join(FINAL)];
    folders.extend(beside_model(path));
    for folder in folders {
        let found = samples_in(&folder)?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let mut evaluated = Vec::new();
    for folder in entries(&path.join(EVALUATIONS))? {
        let found = samples_in(&folder)?;
        if !found.is_empty() {
            evaluated.push((folder, found));
        }
    }
    match evaluated.len() {
        1 => Ok(evaluated.remove(0).1),
        0 => Err(nothing(format!(
            "{0}: holds no samples_TASK.jsonl; evaluate it first: tritburn eval {0} --task TASK",
            path.display()
        ))),
        _ => {
            let names: Vec<String> = evaluated
                .iter()
                .map(|(folder, _)| folder.display().to_string())
                .collect();
            Err(nothing(format!(
                "{}: models of several stages were evaluated; give one of {}",
                path.display(),
                names.join(", ")
            )))
        }
    }
}

/// The folder of evaluations of a model folder inside a run, if it is one.
fn beside_model(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let parent = path.parent()?;
    let run = if parent.file_name()? == "stages" {
        parent.parent()?
    } else {
        parent
    };
    Some(run.join(EVALUATIONS).join(path.file_name()?))
}

fn samples_in(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let files = entries(folder)?.into_iter();
    Ok(files
        .filter_map(|path| Some((task_of(&path)?, path)))
        .collect())
}

/// The task of `samples_TASK.jsonl`.
fn task_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let task = name.strip_prefix("samples_")?.strip_suffix(".jsonl")?;
    path.is_file().then(|| task.to_owned())
}

/// Sorted by name; none where there is no such folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |source| EvalError::Io {
        path: folder.to_owned(),
        action: "list the folder",
        source,
    };
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = std::fs::read_dir(folder)
        .map_err(io)?
        .map(|entry| Ok(entry.map_err(io)?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Reads a per-sample file.
///
/// # Errors
/// If the file cannot be read, holds nothing, or if a line is not a sample or of another kind of
/// task than the first.
pub fn read_samples(path: &Path) -> Result<Samples> {
    let text = std::fs::read_to_string(path).map_err(|source| EvalError::Io {
        path: path.to_owned(),
        action: "read",
        source,
    })?;
    let Some(first) = text.lines().next() else {
        return Err(EvalError::Nothing {
            message: format!("{}: no rows", path.display()),
        });
    };
    let first: Value = parse(path, 1, first)?;
    let lines = || text.lines().enumerate();
    // Only rows of texts have ROUGE.
    if first.get("rougeLsum").is_some() {
        let rows = lines().map(|(index, line)| parse(path, index + 1, line));
        Ok(Samples::Texts(rows.collect::<Result<_>>()?))
    } else {
        let rows = lines().map(|(index, line)| parse(path, index + 1, line));
        Ok(Samples::Choices(rows.collect::<Result<_>>()?))
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, line: usize, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| EvalError::Samples {
        path: path.to_owned(),
        line,
        message: error.to_string(),
    })
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
    fn samples_of_runs_models_and_folders_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        touch(
            &run,
            &[
                "eval/final/samples_mnli.jsonl",
                "eval/final/samples_sst2.jsonl",
                "eval/teacher/samples_mnli.jsonl",
                "stages/teacher/config.json",
                "final/config.json",
            ],
        );
        let tasks = |path: &Path| find_samples(path).unwrap().into_keys().collect::<Vec<_>>();
        assert_eq!(tasks(&run), ["mnli", "sst2"]);
        assert_eq!(tasks(&run.join("final")), ["mnli", "sst2"]);
        assert_eq!(tasks(&run.join("stages/teacher")), ["mnli"]);
        assert_eq!(tasks(&run.join("eval/teacher")), ["mnli"]);
        let file = results_in_run(&run, "final", "sst2").with_file_name("samples_sst2.jsonl");
        assert_eq!(find_samples(&file).unwrap()["sst2"], file);
    }

    #[test]
    fn a_run_without_one_evaluation_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path| find_samples(path).unwrap_err().to_string();
        assert!(message(dir.path()).contains("tritburn eval"));
        assert!(message(&dir.path().join("none")).contains("no such file"));
        touch(dir.path(), &["eval/a/samples_mnli.jsonl"]);
        assert!(find_samples(dir.path()).is_ok());
        touch(dir.path(), &["eval/b/samples_mnli.jsonl"]);
        assert!(message(dir.path()).contains("give one of"));
        let empty = dir.path().join("eval/a/samples_mnli.jsonl");
        assert!(read_samples(&empty).is_err());
    }
}
