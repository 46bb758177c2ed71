//! One block: attention and feed-forward, each modulated by the condition (adaLN-Zero).

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use tritburn_quant::config::DitConfig;

use super::outer;
use crate::Result;
use crate::attention::{Attention, Layout};
use crate::linear::BitLinear;
use crate::mlp::Mlp;
use crate::ops::Ops;
use crate::probe::Blind;
use crate::weights::WeightSource;

/// Vectors that a condition gives a block: shift, scale and gate, twice.
const PARTS: usize = 6;

/// LayerNorm without parameters over the last dimension.
pub(super) fn layer_norm<B: Ops>(x: Tensor<B, 2>, eps: f64) -> Tensor<B, 2> {
    let ones = Tensor::ones([x.dims()[1]], &x.device());
    // Once the mean is gone, the root mean square is the standard deviation.
    B::rms_norm(x.clone() - x.mean_dim(1), ones, eps)
}

/// The tokens of every image, `[batch, seq, width]`, beside what its condition says.
fn by_image<B: Backend>(x: Tensor<B, 2>, batch: usize) -> Tensor<B, 3> {
    let [tokens, width] = x.dims();
    x.reshape([batch, tokens / batch, width])
}

/// `x · (1 + scale) + shift` (Peebles & Xie 2023, §3.2): `x` `[batch · seq, width]`, the others
/// `[batch, width]`.
pub(super) fn modulate<B: Backend>(
    x: Tensor<B, 2>,
    shift: Tensor<B, 2>,
    scale: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let (shape, batch) = (x.dims(), shift.dims()[0]);
    let scale = by_image(scale + 1.0, batch);
    (by_image(x, batch) * scale + by_image(shift, batch)).reshape(shape)
}

/// `x + gate · y`: `x` and `y` `[batch · seq, width]`, `gate` `[batch, width]`.
fn gated<B: Backend>(x: Tensor<B, 2>, gate: Tensor<B, 2>, y: Tensor<B, 2>) -> Tensor<B, 2> {
    let (shape, batch) = (x.dims(), gate.dims()[0]);
    x + (by_image(y, batch) * by_image(gate, batch)).reshape(shape)
}

/// Attention over all patches of an image, then the feed-forward block. The modulation starts at
/// zero, and with it both gates: a new block passes its input on (§3.2, adaLN-Zero).
#[derive(Module, Debug)]
pub struct DitBlock<B: Backend> {
    /// Condition to shifts, scales and gates, `[6 · hidden, hidden]`.
    pub ada_ln: BitLinear<B>,
    /// Attention.
    pub self_attn: Attention<B>,
    /// Feed-forward block.
    pub mlp: Mlp<B>,
    eps: f64,
}

impl<B: Backend> DitBlock<B> {
    pub(super) fn new(
        source: &mut dyn WeightSource,
        config: &DitConfig,
        layer: usize,
        device: &B::Device,
    ) -> Result<Self> {
        let (name, d) = (format!("blocks.{layer}"), config.hidden_size);
        let backbone = config.backbone();
        let attention = format!("{name}.self_attn");
        let self_attn = Attention::new(source, &attention, &backbone, layer, device)?;
        let mlp = Mlp::new(source, &format!("{name}.mlp"), &backbone, device)?;
        let module = format!("{name}.ada_ln");
        Ok(Self {
            ada_ln: outer(source, config, &module, [d, PARTS * d], device)?,
            self_attn: self_attn.bidirectional(),
            mlp,
            eps: config.norm_eps,
        })
    }

    /// Every matrix.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut BitLinear<B>> {
        std::iter::once(&mut self.ada_ln)
            .chain(self.self_attn.projections_mut())
            .chain(self.mlp.projections_mut())
    }

    /// # Shapes
    /// `x` `[batch · seq, hidden]`, `c` `[batch, hidden]` → as `x`.
    #[must_use]
    pub fn forward(&self, x: Tensor<B, 2>, c: Tensor<B, 2>, seq: usize) -> Tensor<B, 2>
    where
        B: Ops,
    {
        let [batch, width] = c.dims();
        let parts = self.ada_ln.forward(c);
        let part = |i: usize| parts.clone().narrow(1, i * width, width);
        let h = modulate(layer_norm(x.clone(), self.eps), part(0), part(1));
        let layout = Layout {
            batch,
            seq,
            starts: None,
        };
        let (h, _) = self.self_attn.forward(h, None, &layout, &mut Blind);
        let x = gated(x, part(2), h);
        let h = modulate(layer_norm(x.clone(), self.eps), part(3), part(4));
        gated(x, part(5), self.mlp.forward(h, &mut Blind))
    }
}
