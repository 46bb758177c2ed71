//! Gated feed-forward block.

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use tritburn_quant::config::{HiddenAct, ModelConfig, SubNorm};

use crate::linear::{BitLinear, LinearSpec};
use crate::norm::RmsNorm;
use crate::ops::Ops;
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
        let mut linear = |part: &str, d_in, d_out| {
            let spec = LinearSpec::of(config, d_in, d_out);
            BitLinear::new(source, &format!("{name}.{part}"), spec, device)
        };
        let gate_proj = linear("gate_proj", d, ffn)?;
        let up_proj = linear("up_proj", d, ffn)?;
        let down_proj = linear("down_proj", ffn, d)?;
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

    /// # Shapes
    /// `[tokens, hidden]` → `[tokens, hidden]`.
    #[must_use]
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2>
    where
        B: Ops,
    {
        let gate = self.gate_proj.forward(x.clone());
        let h = B::gated_act(gate, self.up_proj.forward(x), self.act);
        let h = match &self.ffn_sub_norm {
            Some(norm) => norm.forward(h),
            None => h,
        };
        self.down_proj.forward(h)
    }
}
