//! One stage of a language model's recipe.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module};
use burn::optim::GradientsAccumulator;
use serde_json::{Map, Value, json};
use tritburn_data::stream;
use tritburn_data::{Batch, BatchSource, LoaderState, Tokenizer};
use tritburn_nn::CausalLm;
use tritburn_nn::folder::FolderSource;
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_nn::ranks::Rank;
use tritburn_nn::weights::host_weights;
use tritburn_quant::config::ModelConfig;

use crate::blockwise::blockwise;
use crate::error::Result;
use crate::measure;
use crate::objective::{Distillation, Loss, Measured, loss};
use crate::observer::{Observer, TrainEvent};
use crate::optim::{AdamW, AdamWConfig};
use crate::recipe::{Recipe, StageKind, StageSection};
use crate::reduction::{Reduction, watched};
use crate::run::{Checkpoint, MetricsLog, RunDir, write_model};
use crate::steps::{
    self, Learner, Plan, Progress, Rates, Start, Steps, log_extra, whole_gradients,
};
use crate::task_eval::TaskEval;

/// What stays the same for all stages of a run.
pub(crate) struct Context<'a, B: Kernels> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) run: &'a RunDir,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) device: &'a B::Device,
    pub(crate) stop: &'a AtomicBool,
    pub(crate) rank: &'a Rank,
    pub(crate) eval: Option<&'a TaskEval>,
}

impl<B: Kernels> Context<'_, B> {
    /// The part of a streamed corpus that this replica reads, where each has its own.
    pub(crate) fn own_shards(&self, section: &StageSection) -> Option<stream::Rank> {
        let stream = self.recipe.file.data.stream.as_ref()?;
        let several = section.kind == StageKind::Lm && self.rank.count() > 1;
        (several && stream.shards_per_device).then(|| stream::Rank {
            rank: self.rank.index(),
            world: self.rank.count(),
        })
    }
}

/// One stage, ready to run.
pub(crate) struct Stage<'a, B: Kernels + Ops> {
    pub(crate) ctx: &'a Context<'a, B>,
    pub(crate) section: &'a StageSection,
    pub(crate) config: ModelConfig,
    pub(crate) model: CausalLm<Autodiff<B>>,
    pub(crate) loader: Box<dyn BatchSource>,
    /// The last micro-batch, which measurements look at.
    pub(crate) batch: Option<Batch>,
    pub(crate) distill: Option<Distillation<B>>,
    /// Folder of the weights that the stage starts from, if it starts from any.
    pub(crate) before: Option<PathBuf>,
    /// Whether a later stage goes on with this one's optimiser.
    pub(crate) hands_on: bool,
}

impl<B: Kernels + Ops> Stage<'_, B> {
    /// Runs the stage from its start, or from `resume`, and writes its weights.
    pub(crate) fn run(
        mut self,
        progress: &mut Progress,
        resume: Option<&Checkpoint>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (ctx, section) = (self.ctx, self.section);
        let mut optim = AdamW::<B>::new(AdamWConfig {
            betas: section.betas,
            eps: section.eps,
            ema: section.ema,
        });
        let mut start = Start::default();
        if let Some(checkpoint) = resume {
            let (rank, count) = (ctx.rank.index(), ctx.rank.count());
            self.loader.restore(checkpoint.loader(rank, count)?)?;
            optim.restore(
                checkpoint.state.optim_step,
                &checkpoint.optim()?,
                ctx.device,
            );
            start = Start::from(&checkpoint.state);
        } else if section.keep_optimizer {
            let kept = Checkpoint::read(&ctx.run.stage(&section.from))?;
            optim.restore(kept.state.optim_step, &kept.optim()?, ctx.device);
            // The same data go on where they stood; other data start from their own beginning.
            let position = kept.loader(ctx.rank.index(), ctx.rank.count())?;
            if self.loader.state().items == position.items {
                self.loader.restore(position)?;
            }
        }
        let plan = Plan {
            stage: &section.name,
            lr_field: format!("stage.{}.lr", section.name),
            rates: Rates {
                steps: section.steps,
                grad_accum: section.grad_accum,
                lr: section.lr,
                warmup: section.warmup,
                schedule: section.schedule,
                weight_decay: section.weight_decay,
                clip: section.clip,
            },
            train: &ctx.recipe.file.train,
            run: ctx.run,
            stop: ctx.stop,
            rank: ctx.rank,
            hands_on: self.hands_on,
        };
        let surgery = self.surgery()?;
        if !ctx.rank.is_first() {
            return steps::follow(&mut self, &mut optim, &plan, progress, &start);
        }
        let mut log = MetricsLog::open(ctx.run, progress.step)?;
        if let Some(line) = surgery {
            // It belongs to the first step: a run that starts the stage again writes it again.
            let first = Progress {
                step: progress.step + 1,
                ..*progress
            };
            log_extra(&section.name, &first, line, &mut log)?;
        }
        observer.event(&TrainEvent::StageStart {
            stage: section.name.clone(),
            done: start.done,
            steps: section.steps,
            parameters: self.model.num_params(),
        });
        steps::run(
            &mut self, &mut optim, &plan, progress, start, &mut log, observer,
        )
    }

    /// The model as it will be exported: fully quantised, once for all batches.
    fn quantised(&self) -> CausalLm<B> {
        let mut model = self.model.valid();
        model.set_lambda(1.0);
        model.hold_weights();
        model
    }
}

impl<B: Kernels + Ops> Steps<B> for Stage<'_, B> {
    type Model = CausalLm<Autodiff<B>>;

    fn model(&mut self) -> &mut Self::Model {
        &mut self.model
    }

    fn device(&self) -> &B::Device {
        self.ctx.device
    }

    fn hold_weights(&mut self) {
        self.model.hold_weights();
    }

    fn release_weights(&mut self) {
        self.model.release_weights();
    }

    fn next_loss(
        &mut self,
        reduction: Option<&Reduction<B>>,
        into: &mut GradientsAccumulator<Self::Model>,
    ) -> Result<(Loss<Autodiff<B>>, usize)> {
        let sender = reduction.map(|to| to.sender(&self.model, into.grads()));
        let batch = self.loader.next_batch()?;
        let tokens = batch.tokens_in_batch;
        let lesson = (&batch, self.distill.as_ref());
        let loss = watched(sender, |probe| {
            loss(&self.model, lesson, self.ctx.device, probe)
        });
        self.batch = Some(batch);
        Ok((loss, tokens))
    }

    fn next_gradients(
        &mut self,
        share: f32,
        reduction: Option<&Reduction<B>>,
        into: &mut GradientsAccumulator<Self::Model>,
    ) -> Result<(Measured<B>, usize)> {
        if !self.ctx.recipe.file.train.checkpoint_activations {
            return whole_gradients(self, share, reduction, into);
        }
        let batch = self.loader.next_batch()?;
        let tokens = batch.tokens_in_batch;
        let distill = self.distill.as_ref();
        let measured = blockwise(&self.model, (&batch, distill), self.ctx.device, share, into);
        self.batch = Some(batch);
        Ok((measured, tokens))
    }

    fn skip(&mut self) -> Result<usize> {
        if self.ctx.own_shards(self.section).is_some() {
            return Ok(self.section.batch_size * self.section.seq_len);
        }
        Ok(self.loader.next_batch()?.tokens_in_batch)
    }
}

impl<B: Kernels + Ops> Learner<B> for Stage<'_, B> {
    fn begin_step(&mut self, at: usize) {
        let quant = &self.section.quant;
        self.model.set_lambda(quant.lambda.at(at, quant.warmup));
        self.model.set_int8_grad_input(quant.int8_grad_input);
        let compute = self.ctx.recipe.file.train.compute;
        self.model.set_compute(compute.on::<B>(self.ctx.device));
    }

    /// The sparsity of quantised activations on the last batch, and task accuracy where the stage
    /// has a task.
    fn measure(&mut self) -> Result<Map<String, Value>> {
        let (ctx, model) = (self.ctx, self.quantised());
        let mut out = Map::new();
        if let Some(batch) = self.batch.as_ref().filter(|_| self.section.ternary) {
            let zeros = measure::sparsity(&model, &self.config, batch, ctx.device);
            let columns = zeros.columns().into_iter();
            out.extend(columns.map(|(name, value)| (format!("sparsity/{name}"), json!(value))));
        }
        let task = ctx.eval.filter(|_| self.section.kind != StageKind::Lm);
        if let Some(task) = task {
            let metric = format!("eval/{}/acc", ctx.recipe.task.name);
            out.insert(metric, json!(task.accuracy(&model, ctx.device)));
        }
        Ok(out)
    }

    fn position(&self) -> LoaderState {
        self.loader.state()
    }

    fn write_model(&self, folder: &Path) -> Result<()> {
        let weights = host_weights(&self.model);
        write_model(folder, &self.config, &weights, self.ctx.tokenizer)
    }

    fn read_model(&mut self, folder: &Path) -> Result<()> {
        let mut source = FolderSource::open(folder)?;
        self.model = CausalLm::new(&self.config, &mut source, self.ctx.device)?;
        Ok(())
    }
}
