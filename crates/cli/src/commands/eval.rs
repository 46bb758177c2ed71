//! `tritburn eval`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use tritburn_data::{
    PromptStyle, SplitFiles, TaskRow, TaskSpec, TextRow, Tokenizer, count_rows, read_task,
    read_text_rows,
};
use tritburn_eval::{
    EngineScorer, GenerationOptions, Metric, Report, RougeScorer, RunInfo, Samples, Scorer,
    evaluate_generation, evaluate_task, model_sha256, read_samples, results_in_run, write_results,
};
use tritburn_nn::device::DeviceKind;
use tritburn_quant::config::ModelConfig;
use tritburn_quant::gguf::GgufModel;
use tritburn_train::recipe::Recipe;

use crate::commands::compare;
use crate::engine_args::EngineArgs;
use crate::{commit, model_path, output};

/// Arguments of `eval`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of an export, a run, a stage or a checkpoint
    model: PathBuf,
    /// Task, such as mnli, qnli, sst2 or cnn_dailymail [default: that of the run's recipe]
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
    /// Whose prompt and label words to use: own or lm-eval [default: the run's, else own]
    #[arg(long, value_name = "STYLE", value_parser = style)]
    prompts: Option<PromptStyle>,
    /// Most tokens of a generated text, for tasks that generate
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// Stem words before ROUGE compares them
    #[arg(long)]
    stemmer: bool,
    /// Write lm-eval's JSON to FILE, every row to samples_TASK.jsonl beside it, and the table as
    /// Markdown [default: RUN/eval/MODEL/results_TASK.json for a model of a run, else nowhere]
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

fn style(name: &str) -> Result<PromptStyle, String> {
    match name {
        "own" => Ok(PromptStyle::Own),
        "lm-eval" => Ok(PromptStyle::LmEval),
        _ => Err("there are own and lm-eval".to_owned()),
    }
}

/// What a task is evaluated on.
enum Rows {
    Choices(Vec<TaskRow>),
    Texts(Vec<TextRow>),
}

impl Rows {
    fn len(&self) -> usize {
        match self {
            Self::Choices(rows) => rows.len(),
            Self::Texts(rows) => rows.len(),
        }
    }
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
    if let Some(style) = args.prompts {
        spec = match TaskSpec::built_in(&spec.name) {
            Some(own) if style == PromptStyle::Own => own,
            _ => spec.with_style(style)?,
        };
    }
    if let Some(split) = &args.split {
        spec.eval_split.clone_from(split);
    }
    // What can be wrong with small files comes before the model is loaded.
    let other = args.compare.as_deref().map(read_samples).transpose()?;
    let rows = if spec.generates() {
        Rows::Texts(read_text_rows(&data, &spec.eval_split, &spec, args.limit)?)
    } else {
        Rows::Choices(read_task(&data, &spec.eval_split, &spec, args.limit)?)
    };
    let rows_in_split = count_rows(&SplitFiles::find(&data, &spec.eval_split)?.files)?;
    let tokenizer = model_path::tokenizer(&folder)?;
    let context = if folder.is_file() {
        GgufModel::open(&folder)?.config().max_position_embeddings
    } else {
        ModelConfig::read(&folder.join("config.json"))?.max_position_embeddings
    };
    let max_tokens = max_tokens.unwrap_or(context).min(context);
    let start = Instant::now();
    let evaluate =
        |scorer: &mut dyn Scorer| evaluate(&args, scorer, &tokenizer, &spec, &rows, max_tokens);
    let (report, samples) = match device {
        None => evaluate(&mut EngineScorer::new(&args.engine.load(&folder)?))?,
        Some(device) => {
            let mut done = None;
            let mut work = |scorer: &mut dyn Scorer| done = Some(evaluate(scorer));
            tritburn_train::with_scorer(&folder, tokenizer.pad(), device, &mut work)?;
            done.context("the model was not evaluated")??
        }
    };
    output::print(output::table(&Report::HEADER, &report.rows()))?;
    if let Some(path) = results_path(&args, &folder, &spec.name) {
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
        let written = write_results(&path, &report, &info)?;
        output::say(format_args!(
            "wrote {}, {} and {}",
            path.display(),
            written.samples.display(),
            written.table.display()
        ));
    }
    if let Some(other) = other {
        let found = tritburn_eval::compare(&samples, &other, Metric::Acc)?;
        let rows = [compare::row(&spec.name, &found)];
        output::print(format!("\n{}", output::table(&compare::HEADER, &rows)))?;
    }
    Ok(())
}

/// Asks the model, and warns of what was cut.
fn evaluate(
    args: &Args,
    scorer: &mut dyn Scorer,
    tokenizer: &Tokenizer,
    spec: &TaskSpec,
    rows: &Rows,
    max_tokens: usize,
) -> Result<(Report, Samples)> {
    let bar = output::progress("rows");
    let mut progress = |done: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    };
    let (report, samples, truncated) = match rows {
        Rows::Choices(rows) => {
            let done = evaluate_task(scorer, tokenizer, spec, rows, max_tokens, &mut progress)?;
            (
                done.report(),
                Samples::Choices(done.samples),
                done.truncated,
            )
        }
        Rows::Texts(rows) => {
            let options = GenerationOptions {
                max_tokens,
                max_new: args.max_new_tokens,
                rouge: RougeScorer {
                    stemmer: args.stemmer,
                },
            };
            let done = evaluate_generation(scorer, tokenizer, spec, rows, options, &mut progress)?;
            (done.report(), Samples::Texts(done.samples), done.truncated)
        }
    };
    bar.finish_and_clear();
    if truncated > 0 {
        let lost = if spec.generates() { "end" } else { "front" };
        output::say(format_args!(
            "warning: {truncated} of {} prompts were too long and lost their {lost}",
            rows.len()
        ));
    }
    Ok((report, samples))
}

/// Where the results go: to the file asked for, else to the run that the model belongs to.
fn results_path(args: &Args, folder: &Path, task: &str) -> Option<PathBuf> {
    args.json.clone().or_else(|| {
        let run = model_path::run_of(folder)?;
        let folder = folder.canonicalize().ok()?;
        let model = folder.file_name()?.to_str()?;
        Some(results_in_run(&run, model, task))
    })
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
