//! `tritburn eval`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use tritburn_data::{SplitFiles, TaskSpec, count_rows, read_task};
use tritburn_eval::{
    EngineScorer, Metric, RunInfo, Scorer, TaskEvaluation, compare, evaluate_task, model_sha256,
    read_samples, write_results,
};
use tritburn_nn::device::DeviceKind;
use tritburn_quant::config::ModelConfig;
use tritburn_quant::gguf::GgufModel;
use tritburn_train::recipe::Recipe;

use crate::engine_args::EngineArgs;
use crate::{commit, model_path, output};

/// Arguments of `eval`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of an export, a run, a stage or a checkpoint
    model: PathBuf,
    /// Task, such as mnli, qnli or sst2 [default: that of the run's recipe]
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Folder of the task's parquet files, or one of them [default: that of the run's recipe, else
    /// data/TASK]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Split [default: the task's validation split]
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Most rows to evaluate
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Also write lm-eval's JSON to FILE and every row to samples_TASK.jsonl beside it
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare with the samples_TASK.jsonl of another model by McNemar's test
    #[arg(long, value_name = "JSONL")]
    compare: Option<PathBuf>,
    /// Evaluate the master weights of a run with the training forward pass on cpu, ndarray, wgpu or
    /// cuda [default: what the engine makes of them]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What to evaluate on.
struct Job {
    spec: TaskSpec,
    data: PathBuf,
    /// Longest prompt and answer that the model was trained on, where that is known.
    max_tokens: Option<usize>,
}

/// Evaluates and reports.
pub(crate) fn run(args: Args) -> Result<()> {
    let device = args.device.as_deref().map(DeviceKind::named).transpose()?;
    let folder = model_path::resolve(&args.model)?;
    let Job {
        mut spec,
        data,
        max_tokens,
    } = job(&args, &folder)?;
    if let Some(split) = &args.split {
        spec.eval_split.clone_from(split);
    }
    // What can be wrong with small files comes before the model is loaded.
    let other = args.compare.as_deref().map(read_samples).transpose()?;
    let rows = read_task(&data, &spec.eval_split, &spec, args.limit)?;
    let rows_in_split = count_rows(&SplitFiles::find(&data, &spec.eval_split)?.files)?;
    let tokenizer = model_path::tokenizer(&folder)?;
    let context = if folder.is_file() {
        GgufModel::open(&folder)?.config().max_position_embeddings
    } else {
        ModelConfig::read(&folder.join("config.json"))?.max_position_embeddings
    };
    let start = Instant::now();
    let bar = output::progress("rows");
    let evaluate = |scorer: &mut dyn Scorer| {
        evaluate_task(
            scorer,
            &tokenizer,
            &spec,
            &rows,
            max_tokens.unwrap_or(context).min(context),
            &mut |done, all| {
                bar.set_length(all as u64);
                bar.set_position(done as u64);
            },
        )
    };
    let evaluation = match device {
        None => evaluate(&mut EngineScorer::new(&args.engine.load(&folder)?))?,
        Some(device) => {
            let mut done = None;
            let mut work = |scorer: &mut dyn Scorer| done = Some(evaluate(scorer));
            tritburn_train::with_scorer(&folder, tokenizer.pad(), device, &mut work)?;
            done.context("the model was not evaluated")??
        }
    };
    bar.finish_and_clear();
    if evaluation.truncated > 0 {
        output::say(format_args!(
            "warning: {} of {} prompts were too long and lost their front",
            evaluation.truncated,
            rows.len()
        ));
    }
    if let Some(path) = &args.json {
        let info = RunInfo {
            model: args.model.display().to_string(),
            model_sha256: Some(model_sha256(&folder)?),
            device: device.map_or("cpu", DeviceKind::name).to_owned(),
            data: data.display().to_string(),
            limit: args.limit,
            rows_in_split: usize::try_from(rows_in_split)?,
            git_hash: commit::of_this_program(),
            seconds: start.elapsed().as_secs_f64(),
        };
        let samples = write_results(path, &evaluation, &info)?;
        output::say(format_args!(
            "wrote {} and {}",
            path.display(),
            samples.display()
        ));
    }
    output::print(table(&evaluation))?;
    if let Some(other) = other {
        output::print(comparison(&evaluation, &other)?)?;
    }
    Ok(())
}

/// The task of the arguments, else of the run. A run's task of the same name keeps the prompt and
/// labels that it was trained with.
fn job(args: &Args, folder: &Path) -> Result<Job> {
    let recipe = match model_path::run_of(folder) {
        Some(run) => Some(Recipe::read(&run.join("config.toml"), &[])?),
        None => None,
    };
    let own = recipe.filter(|r| args.task.as_ref().is_none_or(|task| *task == r.task.name));
    if let Some(recipe) = own {
        let data = &recipe.file.data;
        let of_recipe = (!data.dir.is_empty()).then(|| PathBuf::from(&data.dir));
        return Ok(Job {
            data: args
                .data
                .clone()
                .or(of_recipe)
                .unwrap_or_else(|| default_data(&recipe.task.name)),
            max_tokens: Some(data.max_length),
            spec: recipe.task,
        });
    }
    let known = || TaskSpec::built_in_names().join(", ");
    let Some(name) = &args.task else {
        bail!(
            "no task: this model belongs to no run, so give --task with one of {}",
            known()
        );
    };
    let spec = TaskSpec::built_in(name)
        .ok_or_else(|| anyhow!("unknown task \"{name}\"; choose one of {}", known()))?;
    Ok(Job {
        data: args.data.clone().unwrap_or_else(|| default_data(name)),
        max_tokens: None,
        spec,
    })
}

fn default_data(task: &str) -> PathBuf {
    Path::new("data").join(task)
}

fn table(evaluation: &TaskEvaluation) -> String {
    let shares = [
        ("acc", evaluation.acc),
        ("acc_norm", evaluation.acc_norm),
        ("exact_match", evaluation.exact_match),
    ];
    let rows: Vec<Vec<String>> = shares
        .iter()
        .map(|(metric, share)| {
            vec![
                evaluation.spec.name.clone(),
                evaluation.spec.eval_split.clone(),
                evaluation.samples.len().to_string(),
                (*metric).to_owned(),
                format!("{:.4}", share.value),
                format!("±{:.4}", share.stderr),
            ]
        })
        .collect();
    output::table(
        &["task", "split", "rows", "metric", "value", "stderr"],
        &rows,
    )
}

fn comparison(evaluation: &TaskEvaluation, other: &[tritburn_eval::Sample]) -> Result<String> {
    let found = compare(&evaluation.samples, other, Metric::Acc)?;
    let row = vec![
        "acc".to_owned(),
        format!("{:.4}", found.first),
        format!("{:.4}", found.second),
        format!("{:+.4}", found.first - found.second),
        found.mcnemar.only_first.to_string(),
        found.mcnemar.only_second.to_string(),
        format!("{:.4}", found.mcnemar.p_value),
    ];
    let header = [
        "metric",
        "this",
        "other",
        "difference",
        "only this right",
        "only other right",
        "p",
    ];
    Ok(format!("\n{}", output::table(&header, &[row])))
}
