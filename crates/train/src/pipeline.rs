//! All stages of a recipe, in order, resumable between and inside them.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::backend::Autodiff;
use tritburn_data::stream::{StreamLoader, StreamSetup};
use tritburn_data::{
    BatchSource, CorpusLoader, SftLoader, Tokenizer, encode_corpus, read_corpus, read_examples,
    read_prompts,
};
use tritburn_nn::CausalLm;
use tritburn_nn::device::Devices;
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_nn::ranks::Rank;
use tritburn_nn::weights::{RandomInit, WeightSource};
use tritburn_quant::config::{ModelConfig, SubNorm};

use crate::error::{Result, TrainError};
use crate::observer::{Observer, TrainEvent};
use crate::recipe::{Recipe, StageKind, StageSection, scratch_config, stage_config};
use crate::replicas;
use crate::run::{Checkpoint, RunDir, TextLog, save_model};
use crate::stage::{Context, Stage};
use crate::steps::Progress;
use crate::task_eval::TaskEval;
use crate::teacher;
use tritburn_nn::folder::FolderSource;
use tritburn_nn::rope::MAX_POSITIONS;

/// What a finished run amounts to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Folder of the last stage's weights.
    pub last: PathBuf,
    /// Steps of all stages.
    pub steps: usize,
    /// Tokens seen in all stages.
    pub tokens: u64,
    /// Seconds spent in steps, over all processes that worked on the run.
    pub elapsed_s: f64,
}

/// See [`crate::train`].
pub(crate) fn train<B: Kernels + Ops>(
    recipe: &Recipe,
    run: &RunDir,
    devices: &Devices,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let stages = recipe.file.stage.iter();
    let shares = stages.map(|s| (format!("stage.{}.grad_accum", s.name), s.grad_accum));
    replicas::check::<B>(devices, &recipe.file.name, shares)?;
    let first = |rank: &Rank| {
        let observer = &mut TextLog::open(&run.log(), recipe.file.train.log_every, observer)?;
        replica::<B>(recipe, run, rank, observer, stop)
    };
    let other =
        |rank: &Rank| replica::<B>(recipe, run, rank, &mut |_: &TrainEvent| (), stop).map(drop);
    replicas::run(devices, first, other)
}

/// All stages on one device. Only the first replica writes and reports.
fn replica<B: Kernels + Ops>(
    recipe: &Recipe,
    run: &RunDir,
    rank: &Rank,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let device = &rank.device::<B>();
    let tokenizer = rank.first_alone(|| tokenizer(recipe, run))?;
    let base = base_config(recipe, &tokenizer)?;
    // Generated texts have no accuracy to follow; `tritburn eval` scores them.
    let uses_task =
        recipe.file.stage.iter().any(|s| s.kind != StageKind::Lm) && !recipe.task.generates();
    let eval = uses_task
        .then(|| TaskEval::new(recipe, &recipe.task, &tokenizer))
        .transpose()?;
    let ctx = Context::<B> {
        recipe,
        run,
        tokenizer: &tokenizer,
        device,
        stop,
        rank,
        eval: eval.as_ref(),
    };
    let checkpoint = run.newest_checkpoint()?;
    let mut progress = checkpoint
        .as_ref()
        .map_or_else(Progress::default, |c| Progress::from(&c.state));
    let mut before = 0;
    for section in &recipe.file.stage {
        let done_here = run.stage(&section.name).join("config.json").is_file();
        if done_here {
            before += section.steps;
            progress.step = progress.step.max(before);
            continue;
        }
        let resume = checkpoint
            .as_ref()
            .filter(|c| c.state.stage == section.name);
        if resume.is_none() {
            progress.step = before;
        }
        let stage = prepare::<B>(&ctx, section, &base, resume)?;
        stage.run(&mut progress, resume, observer)?;
        before += section.steps;
    }
    let last = run.last();
    if let Some(section) = recipe.file.stage.last().filter(|_| rank.is_first()) {
        copy_model(&run.stage(&section.name), &last, &tokenizer)?;
    }
    Ok(Outcome {
        last,
        steps: progress.step,
        tokens: progress.tokens,
        elapsed_s: progress.elapsed_s,
    })
}

fn copy_model(from: &Path, to: &Path, tokenizer: &Tokenizer) -> Result<()> {
    let config = ModelConfig::read(&from.join("config.json"))?;
    let weights = crate::run::read_host_tensors(&from.join("model.safetensors"))?;
    save_model(to, &config, &weights, tokenizer)
}

/// The run's own tokenizer, made or copied at its first start.
fn tokenizer(recipe: &Recipe, run: &RunDir) -> Result<Tokenizer> {
    let kept = run.tokenizer();
    if kept.join("tokenizer.json").is_file() {
        return Ok(Tokenizer::load(&kept)?);
    }
    let file = &recipe.file;
    let tokenizer = if !file.tokenizer.path.is_empty() {
        Tokenizer::load(Path::new(&file.tokenizer.path))?
    } else if !file.model.path.is_empty() {
        Tokenizer::load(Path::new(&file.model.path))?
    } else {
        let mut texts = Vec::new();
        if !file.data.corpus.is_empty() {
            texts.extend(corpus(recipe)?);
        }
        if !file.data.dir.is_empty() {
            texts.extend(read_prompts(
                Path::new(&file.data.dir),
                &recipe.task.train_split,
                &recipe.task,
                limit(file.data.train_rows),
            )?);
        }
        Tokenizer::train_bpe(texts.iter().map(String::as_str), file.tokenizer.vocab_size)?
    };
    std::fs::create_dir_all(&kept).map_err(|source| TrainError::Io {
        path: kept.clone(),
        source,
    })?;
    tokenizer.save(&kept, file.model.max_position_embeddings)?;
    Ok(tokenizer)
}

fn limit(rows: usize) -> Option<usize> {
    (rows > 0).then_some(rows)
}

fn corpus(recipe: &Recipe) -> Result<Vec<String>> {
    let data = &recipe.file.data;
    let column = (!data.corpus_column.is_empty()).then_some(data.corpus_column.as_str());
    Ok(read_corpus(
        Path::new(&data.corpus),
        "train",
        column,
        Some(data.corpus_bytes),
    )?)
}

fn base_config(recipe: &Recipe, tokenizer: &Tokenizer) -> Result<ModelConfig> {
    let model = &recipe.file.model;
    if model.path.is_empty() {
        return Ok(ModelConfig {
            vocab_size: tokenizer.vocab_size(),
            bos_token_id: tokenizer.bos(),
            eos_token_id: Some(tokenizer.eos()),
            pad_token_id: Some(tokenizer.pad()),
            ..scratch_config(model)
        });
    }
    let config = ModelConfig::read(&Path::new(&model.path).join("config.json"))?;
    if tokenizer.vocab_size() > config.vocab_size {
        return Err(TrainError::Recipe {
            origin: recipe.file.name.clone(),
            problems: vec![format!(
                "tokenizer.path: {} tokens, but model.path has rows for {}",
                tokenizer.vocab_size(),
                config.vocab_size
            )],
        });
    }
    Ok(config)
}

fn prepare<'a, B: Kernels + Ops>(
    ctx: &'a Context<'a, B>,
    section: &'a StageSection,
    base: &ModelConfig,
    resume: Option<&Checkpoint>,
) -> Result<Stage<'a, B>> {
    let start = start_folder(ctx, section);
    let source = match &start {
        Some(folder) => {
            let mut config = ModelConfig::read(&folder.join("config.json"))?;
            config.normalise();
            config
        }
        None => base.clone(),
    };
    let config = stage_config(&source, section);
    let problems = stage_problems(ctx, section, &source, &config);
    if !problems.is_empty() {
        return Err(TrainError::Recipe {
            origin: format!("stage {}", section.name),
            problems,
        });
    }
    let folder = match resume {
        Some(checkpoint) => Some(checkpoint.path.clone()),
        None => start,
    };
    let mut source: Box<dyn WeightSource> = match &folder {
        Some(folder) => Box::new(FolderSource::open(folder)?),
        None => Box::new(RandomInit::new(
            ctx.recipe.file.seed,
            ctx.recipe.file.model.init_std,
            config.num_hidden_layers,
        )),
    };
    let model = CausalLm::<Autodiff<B>>::new(&config, source.as_mut(), ctx.device)?;
    let distill = section
        .is_taught()
        .then(|| teacher::load(ctx, section, &config))
        .transpose()?;
    Ok(Stage {
        ctx,
        section,
        config,
        model,
        loader: loader(ctx, section)?,
        batch: None,
        distill,
        before: folder.filter(|_| resume.is_none()),
        hands_on: (ctx.recipe.file.stage.iter())
            .any(|s| s.keep_optimizer && s.from == section.name),
    })
}

/// What only shows once the model is known, each with its field.
fn stage_problems<B: Kernels>(
    ctx: &Context<'_, B>,
    section: &StageSection,
    source: &ModelConfig,
    config: &ModelConfig,
) -> Vec<String> {
    let mut out = Vec::new();
    let tokens = ctx.tokenizer.vocab_size();
    if tokens > source.vocab_size {
        out.push(format!(
            "from: has rows for {} tokens, the tokenizer {tokens}",
            source.vocab_size
        ));
    }
    if let Some(scheme) = config.quant_scheme() {
        out.extend(config.scheme_problems(&scheme));
    }
    if source.sub_norm() != SubNorm::None && config.sub_norm() != source.sub_norm() {
        out.push(format!(
            "sub_norm: the source has norms of layout {:?}, which cannot be taken out",
            source.sub_norm()
        ));
    }
    let data = &ctx.recipe.file.data;
    let (field, tokens) = match section.kind {
        StageKind::Lm => ("seq_len", section.seq_len),
        _ => {
            let padded = data.max_length.next_multiple_of(data.pad_multiple.max(1));
            ("data.max_length", padded)
        }
    };
    let longest = config.max_position_embeddings.min(MAX_POSITIONS);
    if tokens > longest {
        out.push(format!(
            "{field}: rows of {tokens} tokens, but the model takes {longest}"
        ));
    }
    out
}

/// Folder that a stage takes its weights from; none where it starts from scratch.
fn start_folder<B: Kernels>(ctx: &Context<'_, B>, section: &StageSection) -> Option<PathBuf> {
    let given = &ctx.recipe.file.model.path;
    match section.from.as_str() {
        "init" if given.is_empty() => None,
        "init" => Some(PathBuf::from(given)),
        path if path.contains('/') => Some(PathBuf::from(path)),
        stage => Some(ctx.run.stage(stage)),
    }
}

fn loader<B: Kernels>(
    ctx: &Context<'_, B>,
    section: &StageSection,
) -> Result<Box<dyn BatchSource>> {
    let (file, tokenizer) = (&ctx.recipe.file, ctx.tokenizer);
    if let (StageKind::Lm, Some(config)) = (section.kind, &file.data.stream) {
        let column = &file.data.corpus_column;
        // The first to open it writes the index, which the others read.
        return ctx.rank.first_alone(|| {
            let loader = StreamLoader::open(&StreamSetup {
                config,
                corpus: &file.data.corpus,
                column: (!column.is_empty()).then_some(column),
                tokenizer,
                seq_len: section.seq_len,
                batch_size: section.batch_size,
                seed: file.seed,
                rank: ctx.own_shards(section).unwrap_or_default(),
                index: Some(&ctx.run.path().join("corpus-index.json")),
            })?;
            Ok(Box::new(loader) as Box<dyn BatchSource>)
        });
    }
    if section.kind == StageKind::Lm {
        let documents = encode_corpus(tokenizer, &corpus(ctx.recipe)?)?;
        let loader = CorpusLoader::new(
            documents,
            section.seq_len,
            section.batch_size,
            file.seed,
            tokenizer.eos(),
        )?;
        return Ok(Box::new(loader));
    }
    let task = &ctx.recipe.task;
    let dir = Path::new(&file.data.dir);
    let examples = read_examples(
        dir,
        &task.train_split,
        task,
        tokenizer,
        file.data.max_length,
        limit(file.data.train_rows),
    )?
    .examples;
    let loader = SftLoader::new(
        examples,
        section.batch_size,
        file.seed,
        tokenizer.pad(),
        file.data.pad_multiple,
    )?;
    Ok(Box::new(loader))
}
