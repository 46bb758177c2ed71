//! Gated feed-forward block.

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use tritburn_quant::config::{HiddenAct, ModelConfig, SubNorm};
use tritburn_quant::scheme::Input;

use crate::linear::{BitLinear, LinearSpec};
use crate::norm::RmsNorm;
use crate::ops::Ops;
use crate::probe::Probe;
use crate::weights::WeightSource;
use crate::{NnError, Result};

/// `down_proj(ffn_sub_norm(act(gate_proj(x)) ⊙ up_proj(x)))` (BitDistill Eq. 5 where the sub-norm
/// is present).
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    /// Gate projection.
    pub gate_proj: BitLinear<B>,
    /// Up projection.
    pub up_proj: BitLinear<B>,
    /// Down projection.
    pub down_proj: BitLinear<B>,
    /// SubLN on the product.
    pub ffn_sub_norm: Option<RmsNorm<B>>,
    #[module(skip)]
    act: HiddenAct,
}

impl<B: Backend> Mlp<B> {
    /// Takes `{name}.{gate,up,down}_proj` and `{name}.ffn_sub_norm` from `source`.
    ///
    /// # Errors
    /// What the source reports.
    pub fn new(
        source: &mut dyn WeightSource,
        name: &str,
        config: &ModelConfig,
        device: &B::Device,
    ) -> Result<Self, NnError> {
        let sub_norm = config.sub_norm();
        let (d, ffn) = (config.hidden_size, config.intermediate_size);
        let mut linear = |part: &str, input, d_in, d_out| {
            let module = format!("{name}.{part}");
            let spec = LinearSpec::of(config, &module, input, [d_in, d_out]);
            BitLinear::new(source, &module, spec, device)
        };
        let gate_proj = linear("gate_proj", Input::GateUp, d, ffn)?;
        let up_proj = linear("up_proj", Input::GateUp, d, ffn)?;
        let down_proj = linear("down_proj", Input::Down, ffn, d)?;
        let ffn_sub_norm = (sub_norm == SubNorm::SubLn)
            .then(|| {
                let name = format!("{name}.ffn_sub_norm");
                RmsNorm::new(source, &name, ffn, config.rms_norm_eps, device)
            })
            .transpose()?;
        Ok(Self {
            gate_proj,
            up_proj,
            down_proj,
            ffn_sub_norm,
            act: config.hidden_act,
        })
    }

    /// The gate's activation function.
    #[must_use]
    pub fn act(&self) -> HiddenAct {
        self.act
    }

    /// Every projection.
    pub fn projections_mut(&mut self) -> [&mut BitLinear<B>; 3] {
        [&mut self.gate_proj, &mut self.up_proj, &mut self.down_proj]
    }

    /// # Shapes
    /// `[tokens, hidden]` → `[tokens, hidden]`.
    #[must_use]
    pub fn forward(&self, x: Tensor<B, 2>, probe: &mut dyn Probe<B>) -> Tensor<B, 2>
    where
        B: Ops,
    {
        probe.input(Input::GateUp, &x, &self.gate_proj);
        let gate = self.gate_proj.forward(x.clone());
        probe.gate(&gate);
        let h = B::gated_act(gate, self.up_proj.forward(x), self.act);
        let h = match &self.ffn_sub_norm {
            Some(norm) => norm.forward(h),
            None => h,
        };
        probe.input(Input::Down, &h, &self.down_proj);
        self.down_proj.forward(h)
    }
}
