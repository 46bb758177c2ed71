//! The step loop of one stage.

mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::backend::Autodiff;
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use tritburn_data::{Batch, BatchSource, Tokenizer};
use tritburn_nn::CausalLm;
use tritburn_nn::folder::FolderSource;
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_nn::weights::{host_weights, to_host};
use tritburn_quant::config::ModelConfig;

use crate::error::{Result, TrainError};
use crate::objective::{Distillation, Loss, loss};
use crate::observer::{Observer, TrainEvent};
use crate::optim::{AdamW, AdamWConfig, clip_factor, grad_norm};
use crate::recipe::{Recipe, StageSection};
use crate::run::{Checkpoint, CheckpointState, MetricsLog, RunDir, Score, save_model};
use crate::task_eval::TaskEval;

/// What stays the same for all stages of a run.
pub(crate) struct Context<'a, B: Kernels> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) run: &'a RunDir,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) device: &'a B::Device,
    pub(crate) stop: &'a AtomicBool,
    pub(crate) eval: Option<&'a TaskEval>,
}

/// Where the run stands.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    pub(crate) step: usize,
    pub(crate) tokens: u64,
    pub(crate) elapsed_s: f64,
}

/// One stage, ready to run.
pub(crate) struct Stage<'a, B: Kernels + Ops> {
    pub(crate) section: &'a StageSection,
    pub(crate) config: ModelConfig,
    pub(crate) model: CausalLm<Autodiff<B>>,
    pub(crate) loader: Box<dyn BatchSource>,
    pub(crate) distill: Option<Distillation<B>>,
    /// Folder of the weights that the stage starts from, if it starts from any.
    pub(crate) before: Option<PathBuf>,
    /// Whether a later stage goes on with this one's optimiser.
    pub(crate) hands_on: bool,
    /// Best evaluation so far, whose checkpoint is in the run's `best` folder.
    pub(crate) best: Option<Score>,
}

impl<B: Kernels + Ops> Stage<'_, B> {
    /// Runs the stage from its start, or from `resume`, and writes its weights.
    pub(crate) fn run(
        mut self,
        ctx: &Context<'_, B>,
        progress: &mut Progress,
        resume: Option<&Checkpoint>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let section = self.section;
        let mut optim = AdamW::<B>::new(AdamWConfig {
            betas: section.betas,
            eps: section.eps,
        });
        let mut done = 0;
        if let Some(checkpoint) = resume {
            self.loader.restore(&checkpoint.state.loader)?;
            optim.restore(
                checkpoint.state.optim_step,
                &checkpoint.optim()?,
                ctx.device,
            );
            done = checkpoint.state.stage_step;
            self.best.clone_from(&checkpoint.state.best);
        } else if section.keep_optimizer {
            let kept = Checkpoint::read(&ctx.run.stage(&section.from))?;
            optim.restore(kept.state.optim_step, &kept.optim()?, ctx.device);
            // The same data go on where they stood; other data start from their own beginning.
            if self.loader.state().items == kept.state.loader.items {
                self.loader.restore(&kept.state.loader)?;
            }
        }
        let mut log = MetricsLog::open(ctx.run, progress.step)?;
        self.report_surgery(ctx, progress, &mut log)?;
        observer.event(&TrainEvent::StageStart {
            stage: section.name.clone(),
            done,
            steps: section.steps,
            parameters: self.model.num_params(),
        });
        let started = Instant::now();
        for at in done..section.steps {
            let clock = Instant::now();
            let lambda = section.quant.lambda.at(at, section.quant.warmup);
            self.model.set_lambda(lambda);
            let step = self.step(ctx, &mut optim, at)?;
            let seconds = clock.elapsed().as_secs_f64();
            progress.step += 1;
            progress.tokens += step.tokens as u64;
            progress.elapsed_s += seconds;
            #[allow(clippy::cast_precision_loss)]
            let tok_s = step.tokens as f64 / seconds;
            observer.event(&TrainEvent::Step {
                stage: section.name.clone(),
                step: at + 1,
                steps: section.steps,
                loss: step.loss,
                lr: step.lr,
                tok_s,
            });
            let last = at + 1 == section.steps;
            let train = &ctx.recipe.file.train;
            if (at + 1).is_multiple_of(train.log_every) || last || at == 0 {
                log.append(self.line(progress, at + 1, &step, tok_s))?;
            }
            if last || (train.eval_every > 0 && (at + 1).is_multiple_of(train.eval_every)) {
                let score = self.evaluate(ctx, progress, &step.batch, &mut log, observer)?;
                if let Some(score) = score.filter(|_| train.eval_every > 0) {
                    self.keep_best(ctx, progress, at + 1, &optim, score, observer)?;
                }
            }
            let stop = ctx.stop.load(Ordering::Relaxed);
            let due = train.save_every > 0 && progress.step.is_multiple_of(train.save_every);
            if !last && (due || stop) {
                self.save(ctx, progress, at + 1, &optim)?;
                let path = ctx.run.checkpoint(progress.step);
                observer.event(&TrainEvent::Saved { path });
            }
            if stop && !last {
                let run = ctx.run.path().to_path_buf();
                return Err(TrainError::Interrupted {
                    step: progress.step,
                    run,
                });
            }
        }
        let mut steps = section.steps;
        if let Some(best) = self
            .best
            .as_ref()
            .filter(|_| ctx.recipe.file.train.load_best)
        {
            let kept = Checkpoint::read(&ctx.run.best(&section.name))?;
            let mut folder = FolderSource::open(&kept.path)?;
            self.model = CausalLm::new(&self.config, &mut folder, ctx.device)?;
            optim.restore(kept.state.optim_step, &kept.optim()?, ctx.device);
            steps = kept.state.stage_step;
            observer.event(&TrainEvent::Best {
                stage: section.name.clone(),
                score: best.clone(),
            });
        }
        let path = ctx.run.stage(&section.name);
        if self.hands_on {
            self.checkpoint(ctx, progress, steps, &optim, &path)?;
        } else {
            let weights = host_weights(&self.model);
            save_model(&path, &self.config, &weights, ctx.tokenizer)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        observer.event(&TrainEvent::StageEnd {
            stage: section.name.clone(),
            path,
            seconds,
        });
        Ok(())
    }

    fn step(
        &mut self,
        ctx: &Context<'_, B>,
        optim: &mut AdamW<B>,
        at: usize,
    ) -> Result<StepReport> {
        let section = self.section;
        let mut accumulator = GradientsAccumulator::new();
        let mut terms: BTreeMap<&'static str, f32> = BTreeMap::new();
        let (mut tokens, mut total) = (0, 0.0f32);
        let mut last = None;
        #[allow(clippy::cast_precision_loss)]
        let share = 1.0 / section.grad_accum as f32;
        if section.grad_accum > 1 {
            self.model.hold_weights();
        }
        for _ in 0..section.grad_accum {
            let batch = self.loader.next_batch()?;
            tokens += batch.tokens_in_batch;
            let Loss {
                total: objective,
                terms: parts,
            } = loss(&self.model, &batch, self.distill.as_ref(), ctx.device);
            total += to_host(objective.clone().inner())[0] * share;
            for (name, value) in parts {
                *terms.entry(name).or_default() += to_host(value)[0] * share;
            }
            let grads = (objective * share).backward();
            let grads = GradientsParams::from_grads(grads, &self.model);
            accumulator.accumulate(&self.model, grads);
            last = Some(batch);
        }
        self.model.release_weights();
        let grads = accumulator.grads();
        let norm = grad_norm(&self.model, &grads);
        for (what, value) in [("loss", total), ("grad_norm", norm)] {
            if !value.is_finite() {
                return Err(self.not_finite(ctx, at, what, value));
            }
        }
        let factor = section.schedule.factor(at, section.steps, section.warmup);
        let lr = section.lr * factor;
        let decay = section.weight_decay * section.schedule.decay_factor(at, section.steps);
        let clip = clip_factor(norm, section.clip);
        self.model = optim.step(self.model.clone(), grads, lr, decay, clip);
        Ok(StepReport {
            batch: last.unwrap_or_else(|| unreachable!("grad_accum is at least 1")),
            loss: total,
            terms,
            tokens,
            norm,
            lr,
        })
    }

    fn not_finite(
        &self,
        ctx: &Context<'_, B>,
        at: usize,
        what: &'static str,
        value: f32,
    ) -> TrainError {
        let remedy = match ctx.run.checkpoint_steps().last() {
            Some(step) => format!(
                "Lower stage.{}.lr and start again, or look into {}",
                self.section.name,
                ctx.run.checkpoint(*step).display()
            ),
            None => format!("Lower stage.{}.lr and start again", self.section.name),
        };
        TrainError::NotFinite {
            stage: self.section.name.clone(),
            step: at + 1,
            what,
            value,
            remedy,
        }
    }

    /// Writes a checkpoint of its own step, and removes those that are too many.
    fn save(
        &self,
        ctx: &Context<'_, B>,
        progress: &Progress,
        stage_step: usize,
        optim: &AdamW<B>,
    ) -> Result<()> {
        let path = ctx.run.checkpoint(progress.step);
        self.checkpoint(ctx, progress, stage_step, optim, &path)?;
        ctx.run.prune(ctx.recipe.file.train.keep)
    }

    /// Keeps a checkpoint of the model where `score` is higher than all of the stage before.
    fn keep_best(
        &mut self,
        ctx: &Context<'_, B>,
        progress: &Progress,
        stage_step: usize,
        optim: &AdamW<B>,
        score: Score,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        if self.best.as_ref().is_some_and(|b| b.value >= score.value) {
            return Ok(());
        }
        self.best = Some(score);
        let path = ctx.run.best(&self.section.name);
        self.checkpoint(ctx, progress, stage_step, optim, &path)?;
        observer.event(&TrainEvent::Saved { path });
        Ok(())
    }

    fn checkpoint(
        &self,
        ctx: &Context<'_, B>,
        progress: &Progress,
        stage_step: usize,
        optim: &AdamW<B>,
        path: &Path,
    ) -> Result<()> {
        let (optim_step, moments) = optim.state();
        let state = CheckpointState {
            stage: self.section.name.clone(),
            stage_step,
            step: progress.step,
            tokens: progress.tokens,
            elapsed_s: progress.elapsed_s,
            optim_step,
            loader: self.loader.state(),
            best: self.best.clone(),
        };
        let weights = host_weights(&self.model);
        let (config, tokenizer) = (&self.config, ctx.tokenizer);
        Checkpoint::write(path, config, &weights, &moments, tokenizer, &state)
    }
}

struct StepReport {
    /// The last micro-batch.
    batch: Batch,
    loss: f32,
    terms: BTreeMap<&'static str, f32>,
    tokens: usize,
    norm: f32,
    lr: f64,
}
