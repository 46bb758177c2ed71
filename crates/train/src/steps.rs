//! The step loop, whatever it is that learns.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::optim::{GradientsAccumulator, GradientsParams};
use serde_json::{Map, Value, json};
use tritburn_data::LoaderState;
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_nn::ranks::Rank;
use tritburn_nn::weights::to_host;

use crate::error::{Result, TrainError};
use crate::objective::{Loss, Measured};
use crate::observer::{Observer, TrainEvent};
use crate::optim::{AdamW, clip_factor, grad_norm};
use crate::recipe::TrainSection;
use crate::reduction::Reduction;
use crate::replicas::meet;
use crate::run::{Checkpoint, CheckpointState, MetricsLog, RunDir, Score, replace_dir};
use crate::schedule::Schedule;

/// Where the run stands.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    pub(crate) step: usize,
    pub(crate) tokens: u64,
    pub(crate) elapsed_s: f64,
}

impl From<&CheckpointState> for Progress {
    fn from(state: &CheckpointState) -> Self {
        Self {
            step: state.step,
            tokens: state.tokens,
            elapsed_s: state.elapsed_s,
        }
    }
}

/// Where a stage begins: at its start, or at a checkpoint in the middle of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Start {
    /// Steps of the stage that are done.
    pub(crate) done: usize,
    /// Best measurement so far, whose checkpoint is in the run's `best` folder.
    pub(crate) best: Option<Score>,
}

impl From<&CheckpointState> for Start {
    fn from(state: &CheckpointState) -> Self {
        Self {
            done: state.stage_step,
            best: state.best.clone(),
        }
    }
}

/// How far and how fast a stage goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) steps: usize,
    pub(crate) grad_accum: usize,
    pub(crate) lr: f64,
    pub(crate) warmup: usize,
    pub(crate) schedule: Schedule,
    pub(crate) weight_decay: f64,
    pub(crate) clip: f64,
}

/// What the loop needs to know of a stage and its run.
pub(crate) struct Plan<'a> {
    pub(crate) stage: &'a str,
    /// The recipe's field that holds the learning rate.
    pub(crate) lr_field: String,
    pub(crate) rates: Rates,
    pub(crate) train: &'a TrainSection,
    pub(crate) run: &'a RunDir,
    pub(crate) stop: &'a AtomicBool,
    /// Which replica this is.
    pub(crate) rank: &'a Rank,
    /// Whether a later stage goes on with this one's optimiser.
    pub(crate) hands_on: bool,
}

/// What a step needs: a model, and its loss on the next data.
pub(crate) trait Steps<B: Kernels + Ops> {
    /// The model.
    type Model: AutodiffModule<Autodiff<B>>;

    /// The model, to be replaced after a step.
    fn model(&mut self) -> &mut Self::Model;

    /// Where the model is.
    fn device(&self) -> &B::Device;

    /// Quantises weights once for all micro-batches of a step.
    fn hold_weights(&mut self);

    /// Due once the gradients of a step are there, before weights change.
    fn release_weights(&mut self);

    /// Loss of the next micro-batch, and the tokens in it. With a `reduction`, its backward pass may send
    /// gradients to other replicas, with those that are in `into`.
    fn next_loss(
        &mut self,
        reduction: Option<&Reduction<B>>,
        into: &mut GradientsAccumulator<Self::Model>,
    ) -> Result<(Loss<Autodiff<B>>, usize)>;

    /// Adds the gradients of the next micro-batch's loss times `share`.
    fn next_gradients(
        &mut self,
        share: f32,
        reduction: Option<&Reduction<B>>,
        into: &mut GradientsAccumulator<Self::Model>,
    ) -> Result<(Measured<B>, usize)> {
        whole_gradients(self, share, reduction, into)
    }

    /// Leaves the next micro-batch to another replica, and returns the tokens in it.
    fn skip(&mut self) -> Result<usize>;
}

/// [`Steps::next_gradients`] with the whole model on the tape.
pub(crate) fn whole_gradients<B: Kernels + Ops, L: Steps<B> + ?Sized>(
    learner: &mut L,
    share: f32,
    reduction: Option<&Reduction<B>>,
    into: &mut GradientsAccumulator<L::Model>,
) -> Result<(Measured<B>, usize)> {
    let (loss, tokens) = learner.next_loss(reduction, into)?;
    let Loss { total, terms } = loss;
    let measured = Measured {
        total: total.clone().inner(),
        terms,
    };
    let grads = (total * share).backward();
    let grads = GradientsParams::from_grads(grads, learner.model());
    into.accumulate(learner.model(), grads);
    Ok((measured, tokens))
}

/// What learns in a run: steps, measurements, checkpoints.
pub(crate) trait Learner<B: Kernels + Ops>: Steps<B> {
    /// Called before step `at` of the stage.
    fn begin_step(&mut self, at: usize);

    /// What is measured between steps, by its key in `metrics.jsonl`. The first key that starts with
    /// `eval/` decides which checkpoint is the best.
    fn measure(&mut self) -> Result<Map<String, Value>>;

    /// Whether a measurement of `new` is better than one of `old`.
    fn improves(&self, new: f64, old: f64) -> bool {
        new > old
    }

    /// Position in the data.
    fn position(&self) -> LoaderState;

    /// Writes everything that the model is loaded from into a folder.
    fn write_model(&self, folder: &Path) -> Result<()>;

    /// Takes the model from a folder that [`Learner::write_model`] filled.
    fn read_model(&mut self, folder: &Path) -> Result<()>;
}

/// What a step did.
pub(crate) struct StepReport {
    pub(crate) loss: f32,
    pub(crate) terms: BTreeMap<&'static str, f32>,
    pub(crate) tokens: usize,
    pub(crate) norm: f32,
    pub(crate) lr: f64,
}

/// Runs the steps of a stage from `start` on, and writes its weights.
pub(crate) fn run<B: Kernels + Ops, L: Learner<B>>(
    learner: &mut L,
    optim: &mut AdamW<B>,
    plan: &Plan<'_>,
    progress: &mut Progress,
    start: Start,
    log: &mut MetricsLog,
    observer: &mut dyn Observer,
) -> Result<()> {
    let (steps, train) = (plan.rates.steps, plan.train);
    let mut best = start.best;
    let mut positions = vec![learner.position()];
    let started = Instant::now();
    for at in start.done..steps {
        let clock = Instant::now();
        learner.begin_step(at);
        let failed = |what, value| not_finite(plan, at, what, value);
        let step = step(learner, optim, &plan.rates, at, plan.rank, &failed)?;
        let seconds = clock.elapsed().as_secs_f64();
        progress.step += 1;
        progress.tokens += step.tokens as u64;
        progress.elapsed_s += seconds;
        #[allow(clippy::cast_precision_loss)]
        let tok_s = step.tokens as f64 / seconds;
        observer.event(&TrainEvent::Step {
            stage: plan.stage.to_owned(),
            step: at + 1,
            steps,
            loss: step.loss,
            lr: step.lr,
            tok_s,
        });
        let meeting = meet(plan.rank, plan.stop, learner.position())?;
        let last = at + 1 == steps;
        if (at + 1).is_multiple_of(train.log_every) || last || at == 0 {
            let epoch = learner.position().epoch;
            log.append(line(plan, progress, at + 1, epoch, &step, tok_s))?;
        }
        if last || (train.eval_every > 0 && (at + 1).is_multiple_of(train.eval_every)) {
            let score = on_average(learner, optim, |learner| {
                measure(learner, plan, progress, log, observer)
            })?;
            let beats = |score: &Score| {
                let old = best.as_ref().map(|b| b.value);
                train.eval_every > 0 && old.is_none_or(|old| learner.improves(score.value, old))
            };
            if let Some(score) = score.filter(beats) {
                best = Some(score);
                let path = plan.run.best(plan.stage);
                // It is there to be evaluated and exported, and no run goes on from it.
                on_average(learner, optim, |learner| {
                    let state = state(optim, plan, progress, at + 1, &best, &meeting.positions);
                    checkpoint(learner, optim, &state, &path)
                })?;
                observer.event(&TrainEvent::Saved { path });
            }
        }
        let due = train.save_every > 0 && progress.step.is_multiple_of(train.save_every);
        if !last && (due || meeting.stops) {
            let path = plan.run.checkpoint(progress.step);
            let state = state(optim, plan, progress, at + 1, &best, &meeting.positions);
            checkpoint(learner, optim, &state, &path)?;
            plan.run.prune(train.keep)?;
            observer.event(&TrainEvent::Saved { path });
        }
        if meeting.stops && !last {
            return Err(interrupted(plan, progress));
        }
        positions = meeting.positions;
    }
    let mut end = steps;
    if let Some(score) = best.clone().filter(|_| train.load_best) {
        let kept = Checkpoint::read(&plan.run.best(plan.stage))?;
        learner.read_model(&kept.path)?;
        let moments = kept.optim()?;
        optim.restore(kept.state.optim_step, &moments, learner.device());
        end = kept.state.stage_step;
        observer.event(&TrainEvent::Best {
            stage: plan.stage.to_owned(),
            score,
        });
    }
    let path = plan.run.stage(plan.stage);
    if plan.hands_on {
        let state = state(optim, plan, progress, end, &best, &positions);
        checkpoint(learner, optim, &state, &path)?;
    } else {
        on_average(learner, optim, |learner| {
            replace_dir(&path, |aside| learner.write_model(aside))
        })?;
    }
    plan.rank.wait()?;
    observer.event(&TrainEvent::StageEnd {
        stage: plan.stage.to_owned(),
        path,
        seconds: started.elapsed().as_secs_f64(),
    });
    Ok(())
}

/// Does `work` with the average of weights in their place, where the stage keeps one.
fn on_average<B: Kernels + Ops, L: Learner<B>, T>(
    learner: &mut L,
    optim: &AdamW<B>,
    work: impl FnOnce(&mut L) -> T,
) -> T {
    let Some(average) = optim.averaged(learner.model()) else {
        return work(learner);
    };
    let trained = std::mem::replace(learner.model(), average);
    let out = work(learner);
    *learner.model() = trained;
    out
}

/// The steps of a stage from `start` on, on a replica that is not the first, until the first has
/// written the stage.
pub(crate) fn follow<B: Kernels + Ops, L: Learner<B>>(
    learner: &mut L,
    optim: &mut AdamW<B>,
    plan: &Plan<'_>,
    progress: &mut Progress,
    start: &Start,
) -> Result<()> {
    let steps = plan.rates.steps;
    for at in start.done..steps {
        learner.begin_step(at);
        let failed = |what, value| not_finite(plan, at, what, value);
        step(learner, optim, &plan.rates, at, plan.rank, &failed)?;
        progress.step += 1;
        let meeting = meet(plan.rank, plan.stop, learner.position())?;
        if meeting.stops && at + 1 < steps {
            return Err(interrupted(plan, progress));
        }
    }
    Ok(plan.rank.wait()?)
}

fn interrupted(plan: &Plan<'_>, progress: &Progress) -> TrainError {
    TrainError::Interrupted {
        step: progress.step,
        run: plan.run.path().to_path_buf(),
    }
}

/// One optimiser step. `failed` makes the error of a loss or norm that is no number, which weights
/// never see; all replicas see the same loss and norm.
pub(crate) fn step<B: Kernels + Ops, L: Steps<B>>(
    learner: &mut L,
    optim: &mut AdamW<B>,
    rates: &Rates,
    at: usize,
    rank: &Rank,
    failed: &dyn Fn(&'static str, f32) -> TrainError,
) -> Result<StepReport> {
    learner.hold_weights();
    let reduction = Reduction::new(rank);
    let mut accumulator = GradientsAccumulator::new();
    let mut parts = Vec::with_capacity(rates.grad_accum);
    let mut tokens = 0;
    #[allow(clippy::cast_precision_loss)]
    let share = 1.0 / rates.grad_accum as f32;
    for micro in 0..rates.grad_accum {
        if micro % rank.count() != rank.index() {
            tokens += learner.skip()?;
            continue;
        }
        let last = micro + rank.count() >= rates.grad_accum;
        let sending = (last && rank.count() > 1).then_some(&reduction);
        if sending.is_some() && micro >= rank.count() {
            // Behind a backward pass burn looks through the graphs of all threads, and would wait for one
            // that waits in its own backward pass for gradients of this one.
            rank.wait()?;
        }
        let (measured, counted) = learner.next_gradients(share, sending, &mut accumulator)?;
        tokens += counted;
        parts.push(measured);
    }
    learner.release_weights();
    let device = learner.device().clone();
    let grads = reduction.finish(learner.model(), accumulator, &device)?;
    let norm = grad_norm(learner.model(), &grads);
    // Values are asked for once everything is queued, so that a device need not wait for the host.
    let (mut loss, mut terms) = (0.0f32, BTreeMap::new());
    for part in parts {
        loss += to_host(part.total)[0] * share;
        for (name, value) in part.terms {
            *terms.entry(name).or_default() += to_host(value)[0] * share;
        }
    }
    let norm = norm.map_or(0.0, |norm| to_host(norm)[0]);
    sum_losses(&mut loss, &mut terms, rank)?;
    B::tidy_memory(learner.device());
    for (what, value) in [("loss", loss), ("grad_norm", norm)] {
        if !value.is_finite() {
            return Err(failed(what, value));
        }
    }
    let factor = rates.schedule.factor(at, rates.steps, rates.warmup);
    let lr = rates.lr * factor;
    let decay = rates.weight_decay * rates.schedule.decay_factor(at, rates.steps);
    let clip = clip_factor(norm, rates.clip);
    let model = learner.model();
    *model = optim.step(model.clone(), grads, lr, decay, clip);
    Ok(StepReport {
        loss,
        terms,
        tokens,
        norm,
        lr,
    })
}

/// Adds the losses of all replicas, which have the same terms.
fn sum_losses(loss: &mut f32, terms: &mut BTreeMap<&'static str, f32>, rank: &Rank) -> Result<()> {
    let mut all: Vec<&mut f32> = std::iter::once(loss).chain(terms.values_mut()).collect();
    let own: Vec<f32> = all.iter().map(|value| **value).collect();
    for (value, sum) in all.iter_mut().zip(rank.sum(&own)?) {
        **value = sum;
    }
    Ok(())
}

fn not_finite(plan: &Plan<'_>, at: usize, what: &'static str, value: f32) -> TrainError {
    let lower = format!("Lower {} and start again", plan.lr_field);
    let remedy = match plan.run.checkpoint_steps().last() {
        Some(step) => format!(
            "{lower}, or look into {}",
            plan.run.checkpoint(*step).display()
        ),
        None => lower,
    };
    TrainError::NotFinite {
        stage: plan.stage.to_owned(),
        step: at + 1,
        what,
        value,
        remedy,
    }
}

fn line(
    plan: &Plan<'_>,
    progress: &Progress,
    stage_step: usize,
    epoch: u64,
    step: &StepReport,
    tok_s: f64,
) -> Map<String, Value> {
    let mut line = head(plan.stage, progress);
    line.insert("stage_step".into(), json!(stage_step));
    line.insert("epoch".into(), json!(epoch));
    line.insert("tokens".into(), json!(progress.tokens));
    line.insert("loss".into(), json!(step.loss));
    for (name, value) in &step.terms {
        line.insert((*name).into(), json!(value));
    }
    line.insert("lr".into(), json!(step.lr));
    line.insert("grad_norm".into(), json!(step.norm));
    line.insert("tok_per_s".into(), json!(tok_s));
    line.insert("elapsed_s".into(), json!(progress.elapsed_s));
    line
}

/// What every line of `metrics.jsonl` starts with.
fn head(stage: &str, progress: &Progress) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("step".into(), json!(progress.step));
    line.insert("stage".into(), json!(stage));
    line
}

/// Logs values beside those of the steps.
pub(crate) fn log_extra(
    stage: &str,
    progress: &Progress,
    values: Map<String, Value>,
    log: &mut MetricsLog,
) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let mut line = head(stage, progress);
    line.extend(values);
    log.append(line)
}

fn measure<B: Kernels + Ops, L: Learner<B>>(
    learner: &mut L,
    plan: &Plan<'_>,
    progress: &Progress,
    log: &mut MetricsLog,
    observer: &mut dyn Observer,
) -> Result<Option<Score>> {
    let values = learner.measure()?;
    let mut first = None;
    for (metric, value) in values.iter().filter(|(name, _)| name.starts_with("eval/")) {
        if let Some(value) = value.as_f64() {
            observer.event(&TrainEvent::Eval {
                stage: plan.stage.to_owned(),
                metric: metric.clone(),
                value,
            });
            first.get_or_insert_with(|| Score {
                metric: metric.clone(),
                value,
                step: progress.step,
            });
        }
    }
    log_extra(plan.stage, progress, values, log)?;
    Ok(first)
}

fn state<B: Kernels + Ops>(
    optim: &AdamW<B>,
    plan: &Plan<'_>,
    progress: &Progress,
    stage_step: usize,
    best: &Option<Score>,
    positions: &[LoaderState],
) -> CheckpointState {
    let (first, others) =
        (positions.split_first()).unwrap_or_else(|| unreachable!("the first replica's"));
    CheckpointState {
        stage: plan.stage.to_owned(),
        stage_step,
        step: progress.step,
        tokens: progress.tokens,
        elapsed_s: progress.elapsed_s,
        optim_step: optim.steps(),
        loader: first.clone(),
        other_loaders: others.to_vec(),
        best: best.clone(),
    }
}

fn checkpoint<B: Kernels + Ops, L: Learner<B>>(
    learner: &L,
    optim: &AdamW<B>,
    state: &CheckpointState,
    path: &Path,
) -> Result<()> {
    let (_, moments) = optim.state();
    Checkpoint::write(path, &moments, state, |aside| learner.write_model(aside))
}
