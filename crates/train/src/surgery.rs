//! Norms and quantisers that a stage puts into the model it starts from.

use burn::module::AutodiffModule;
use serde_json::{Map, Value, json};
use tritburn_nn::CausalLm;
use tritburn_nn::calibrate::input_sizes;
use tritburn_nn::folder::FolderSource;
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_quant::config::ModelConfig;

use crate::error::Result;
use crate::measure;
use crate::recipe::NormInit;
use crate::stage::Stage;

impl<B: Kernels + Ops> Stage<'_, B> {
    /// Starts new norms as the stage wants them, and measures how far the logits of its model then lie
    /// from those of the model that it is made from. None where nothing was put in.
    pub(crate) fn surgery(&mut self) -> Result<Option<Map<String, Value>>> {
        let Some(folder) = &self.before else {
            return Ok(None);
        };
        let device = self.ctx.device;
        let mut config = ModelConfig::read(&folder.join("config.json"))?;
        config.normalise();
        let new_norms = config.sub_norm() != self.config.sub_norm();
        if !new_norms && config.quant_scheme() == self.config.quant_scheme() {
            return Ok(None);
        }
        let source = CausalLm::<B>::new(&config, &mut FolderSource::open(folder)?, device)?;
        let at = self.loader.state();
        let batch = self.loader.next_batch()?;
        self.loader.restore(&at)?;
        if new_norms && self.section.norm_init == NormInit::Calibrated {
            let (tokens, real) = measure::head::<B>(&batch, device);
            // Replicas may have read different data, but must stay the same model.
            let sizes = self.ctx.rank.gather(input_sizes(&source, tokens, real))?;
            self.model.start_norms(&sizes[0]);
        }
        let mut model = self.model.valid();
        let mut line = Map::new();
        // λ = 0 leaves the norms alone, which says something only of a source in full precision.
        let norms = (new_norms && !config.is_ternary()).then_some(("norms", 0.0));
        for (what, lambda) in norms.into_iter().chain([("logits", 1.0)]) {
            model.set_lambda(lambda);
            let drift = measure::drift(&source, &model, &batch, device);
            line.insert(format!("surgery/{what}_rel"), json!(drift.relative));
            line.insert(format!("surgery/{what}_top1"), json!(drift.top1));
        }
        Ok(Some(line))
    }
}
