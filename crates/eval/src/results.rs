//! Result files in the form of the lm-evaluation-harness.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tritburn_quant::fs::write_atomic;

use crate::error::{EvalError, Result};
use crate::report::{Report, Score};

/// Version of the task definitions; raised when a change makes scores incomparable.
const TASK_VERSION: f64 = 1.0;

/// What was evaluated, and how.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunInfo {
    /// Path or name of the model.
    pub model: String,
    /// SHA-256 of the weights, see [`model_sha256`].
    pub model_sha256: Option<String>,
    /// Where it ran: `cpu`, `cuda` and so on.
    pub device: String,
    /// Folder or file of the data.
    pub data: String,
    /// Row limit, if one was set.
    pub limit: Option<usize>,
    /// Rows that the split has.
    pub rows_in_split: usize,
    /// Commit of the program.
    pub git_hash: Option<String>,
    /// Seconds that the evaluation took.
    pub seconds: f64,
}

/// The results of a task as lm-eval's JSON; what that has no place for stands under `tritburn`.
pub fn results_json(report: &Report, info: &RunInfo) -> Value {
    let spec = &report.spec;
    let task = spec.name.as_str();
    let mut scores = Map::from_iter([("alias".to_owned(), json!(task))]);
    for score in &report.scores {
        let stderr = score.stderr.map_or_else(|| json!("N/A"), |s| json!(s));
        scores.insert(format!("{},none", score.name), json!(score.value));
        scores.insert(format!("{}_stderr,none", score.name), stderr);
    }
    let metric = |score: &Score| json!({"metric": score.name, "aggregation": aggregation(score), "higher_is_better": true});
    let higher = report
        .scores
        .iter()
        .map(|s| (s.name.to_owned(), json!(true)));
    let mut config = json!({
        "task": task,
        "dataset_path": info.data,
        "validation_split": spec.eval_split,
        "doc_to_text": spec.template,
        "doc_to_target": spec.target_column.as_ref().unwrap_or(&spec.label_column),
        "target_delimiter": " ",
        "output_type": report.output_type,
        "num_fewshot": 0,
        "metric_list": report.scores.iter().map(metric).collect::<Vec<_>>(),
        "metadata": {"version": TASK_VERSION},
    });
    if !spec.labels.is_empty() {
        config["doc_to_choice"] = json!(spec.labels);
    }
    let mut extra = report.extra.clone();
    extra["version"] = json!(env!("CARGO_PKG_VERSION"));
    json!({
        "results": {task: scores},
        "group_subtasks": {task: []},
        "configs": {task: config},
        "versions": {task: TASK_VERSION},
        "n-shot": {task: 0},
        "higher_is_better": {task: Map::from_iter(higher)},
        "n-samples": {task: {
            "original": info.rows_in_split,
            "effective": report.samples.len(),
        }},
        "config": {
            "model": "tritburn",
            "model_args": {"pretrained": info.model},
            "model_sha256": info.model_sha256,
            "device": info.device,
            "limit": info.limit,
        },
        "git_hash": info.git_hash,
        "date": seconds_since_epoch(),
        "model_source": "tritburn",
        "model_name": info.model,
        "total_evaluation_time_seconds": info.seconds.to_string(),
        "tritburn": extra,
    })
}

/// lm-eval's word for how rows became a score.
fn aggregation(score: &Score) -> &'static str {
    match score.name {
        "f1" => "f1",
        "mcc" => "matthews_corrcoef",
        "bleu" => "bleu",
        _ => "mean",
    }
}

/// Where the per-sample file of a result file goes: `samples_<task>.jsonl` beside it.
pub fn samples_path(results: &Path, task: &str) -> PathBuf {
    results.with_file_name(format!("samples_{task}.jsonl"))
}

/// Files that [`write_results`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The rows.
    pub samples: PathBuf,
    /// The table: the result file's name with `.md` at the end.
    pub table: PathBuf,
}

/// Writes `path`, and beside it the rows and a Markdown table, each in one step.
///
/// # Errors
/// If a file cannot be written.
pub fn write_results(path: &Path, report: &Report, info: &RunInfo) -> Result<Written> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| EvalError::Io {
            path: folder.to_owned(),
            action: "make the folder",
            source,
        })?;
    }
    let mut lines = String::new();
    for sample in &report.samples {
        lines.push_str(&sample.to_string());
        lines.push('\n');
    }
    let written = Written {
        samples: samples_path(path, &report.spec.name),
        table: path.with_extension("md"),
    };
    write_atomic(&written.samples, lines.as_bytes())?;
    write_atomic(&written.table, report.markdown().as_bytes())?;
    write_atomic(
        path,
        format!("{:#}\n", results_json(report, info)).as_bytes(),
    )?;
    Ok(written)
}

/// SHA-256 over the `.safetensors` files of a model folder in the order of their names, or of a
/// single file, in hex.
///
/// # Errors
/// If a file cannot be read, or if the folder holds no weights.
pub fn model_sha256(model: &Path) -> Result<String> {
    let io = |path: &Path, action| {
        let path = path.to_owned();
        move |source| EvalError::Io {
            path,
            action,
            source,
        }
    };
    let mut files = Vec::new();
    if model.is_dir() {
        for entry in std::fs::read_dir(model).map_err(io(model, "list the folder"))? {
            let path = entry.map_err(io(model, "list the folder"))?.path();
            // Not the state of an optimiser beside the weights.
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("model") && name.ends_with(".safetensors") {
                files.push(path);
            }
        }
        files.sort();
    } else {
        files.push(model.to_owned());
    }
    if files.is_empty() {
        return Err(EvalError::Nothing {
            message: format!("{} holds no .safetensors file", model.display()),
        });
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    for path in files {
        let mut file = std::fs::File::open(&path).map_err(io(&path, "open"))?;
        loop {
            let read = file.read(&mut buffer).map_err(io(&path, "read"))?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
        }
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn seconds_since_epoch() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |elapsed| elapsed.as_secs_f64())
}
