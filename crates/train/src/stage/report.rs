//! What a stage writes into its log: steps, evaluations, and what its surgery did.

use burn::module::AutodiffModule;
use serde_json::{Map, Value, json};
use tritburn_data::Batch;
use tritburn_nn::CausalLm;
use tritburn_nn::folder::FolderSource;
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_quant::config::ModelConfig;

use super::{Context, Progress, Stage, StepReport};
use crate::error::Result;
use crate::measure;
use crate::observer::{Observer, TrainEvent};
use crate::recipe::StageKind;
use crate::run::{MetricsLog, Score};

impl<B: Kernels + Ops> Stage<'_, B> {
    pub(super) fn line(
        &self,
        progress: &Progress,
        stage_step: usize,
        step: &StepReport,
        tok_s: f64,
    ) -> Map<String, Value> {
        let mut line = Map::new();
        line.insert("step".into(), json!(progress.step));
        line.insert("stage".into(), json!(self.section.name));
        line.insert("stage_step".into(), json!(stage_step));
        line.insert("epoch".into(), json!(self.loader.state().epoch));
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

    /// The model as it will be exported: fully quantised.
    fn quantised(&self) -> CausalLm<B> {
        let mut model = self.model.valid();
        model.set_lambda(1.0);
        model
    }

    /// Logs task accuracy, which it returns, where the stage has a task, and the sparsity of
    /// quantised activations on `batch`.
    pub(super) fn evaluate(
        &self,
        ctx: &Context<'_, B>,
        progress: &Progress,
        batch: &Batch,
        log: &mut MetricsLog,
        observer: &mut dyn Observer,
    ) -> Result<Option<Score>> {
        let model = self.quantised();
        let mut line = Map::new();
        if self.section.ternary {
            let zeros = measure::sparsity(&model, &self.config, batch, ctx.device);
            let columns = zeros.columns().into_iter();
            line.extend(columns.map(|(name, value)| (format!("sparsity/{name}"), json!(value))));
        }
        let task = ctx.eval.filter(|_| self.section.kind != StageKind::Lm);
        let score = task.map(|task| {
            let value = task.accuracy(&model, ctx.device);
            let metric = format!("eval/{}/acc", ctx.recipe.task.name);
            line.insert(metric.clone(), json!(value));
            observer.event(&TrainEvent::Eval {
                stage: self.section.name.clone(),
                metric: metric.clone(),
                value,
            });
            Score {
                metric,
                value,
                step: progress.step,
            }
        });
        self.log_extra(progress, line, log)?;
        Ok(score)
    }

    /// Logs how far the logits of the stage's model, before its first step, lie from those of the
    /// model that it was made from, where norms or quantisers were put in.
    pub(super) fn report_surgery(
        &mut self,
        ctx: &Context<'_, B>,
        progress: &Progress,
        log: &mut MetricsLog,
    ) -> Result<()> {
        let Some(folder) = &self.before else {
            return Ok(());
        };
        let mut config = ModelConfig::read(&folder.join("config.json"))?;
        config.normalise();
        let same = config.sub_norm() == self.config.sub_norm()
            && config.quant_scheme() == self.config.quant_scheme();
        if same {
            return Ok(());
        }
        let source = CausalLm::new(&config, &mut FolderSource::open(folder)?, ctx.device)?;
        let at = self.loader.state();
        let batch = self.loader.next_batch()?;
        self.loader.restore(&at)?;
        let mut model = self.model.valid();
        let mut line = Map::new();
        // λ = 0 leaves the norms alone, which says something only of a source in full precision.
        let norms = config.sub_norm() != self.config.sub_norm() && !config.is_ternary();
        let norms = norms.then_some(("norms", 0.0));
        for (what, lambda) in norms.into_iter().chain([("logits", 1.0)]) {
            model.set_lambda(lambda);
            let drift = measure::drift(&source, &model, &batch, ctx.device);
            line.insert(format!("surgery/{what}_rel"), json!(drift.relative));
            line.insert(format!("surgery/{what}_top1"), json!(drift.top1));
        }
        // It belongs to the first step: a run that starts the stage again writes it again.
        let first = Progress {
            step: progress.step + 1,
            ..*progress
        };
        self.log_extra(&first, line, log)
    }

    fn log_extra(
        &self,
        progress: &Progress,
        values: Map<String, Value>,
        log: &mut MetricsLog,
    ) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let mut line = Map::new();
        line.insert("step".into(), json!(progress.step));
        line.insert("stage".into(), json!(self.section.name));
        line.extend(values);
        log.append(line)
    }
}
