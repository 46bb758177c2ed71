//! A diffusion transformer whose blocks are the attention and feed-forward modules of the language
//! model (Peebles & Xie 2023, DiT with adaLN-Zero).
//!
//! Images come and go as patches: `[batch · patches, pixels of a patch]`, see [`patch`].

mod block;
mod condition;
pub mod patch;
mod source;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData, activation, backend::Backend};
use tritburn_quant::config::{DitConfig, SubNorm, Ternary};
use tritburn_quant::scheme::Input;

pub use block::DitBlock;
use block::{layer_norm, modulate};
pub use condition::Condition;
pub use source::{DitInit, TensorSource};

use crate::Result;
use crate::linear::{BitLinear, LinearSpec};
use crate::ops::{Compute, Kernels, Ops};
use crate::packed::pack_all;
use crate::weights::WeightSource;

/// The matrix `module` from `d_in` to `d_out` outside attention and feed-forward block: quantised
/// where everything is, with a bias as in the paper.
pub(crate) fn outer<B: Backend>(
    source: &mut dyn WeightSource,
    config: &DitConfig,
    module: &str,
    dims: [usize; 2],
    device: &B::Device,
) -> Result<BitLinear<B>> {
    let spec = LinearSpec::of(&config.backbone(), module, Input::Qkv, dims).with_bias(true);
    let spec = match config.ternary {
        Ternary::All => spec,
        Ternary::None | Ternary::Blocks => LinearSpec {
            quant: None,
            norm: SubNorm::None,
            ..spec
        },
    };
    BitLinear::new(source, module, spec, device)
}

/// A class-conditional diffusion transformer: predicts the noise in an image.
#[derive(Module, Debug)]
pub struct Dit<B: Backend> {
    /// Patch to token, `[hidden, pixels]`.
    pub patch_embed: BitLinear<B>,
    /// Sines and cosines of the timestep to hidden, `[hidden, frequencies]`.
    pub time_fc1: BitLinear<B>,
    /// `[hidden, hidden]`.
    pub time_fc2: BitLinear<B>,
    /// One column for each class, and one for no class: `[hidden, classes + 1]`.
    pub class_embed: BitLinear<B>,
    /// Transformer blocks.
    pub blocks: Vec<DitBlock<B>>,
    /// Shift and scale in front of the last layer, `[2 · hidden, hidden]`.
    pub final_ada_ln: BitLinear<B>,
    /// Token to patch, `[pixels, hidden]`.
    pub final_proj: BitLinear<B>,
    /// Where each patch lies, `[1, patches, hidden]`: fixed, not learnt.
    positions: Tensor<B, 3>,
    eps: f64,
}

impl<B: Backend> Dit<B> {
    /// Builds the model of `config` with the weights of `source`.
    ///
    /// # Errors
    /// What the source reports: a missing tensor, another shape.
    pub fn new(
        config: &DitConfig,
        source: &mut dyn WeightSource,
        device: &B::Device,
    ) -> Result<Self> {
        let (d, pixels) = (config.hidden_size, config.patch_pixels());
        let mut outer =
            |name: &str, d_in, d_out| outer(source, config, name, [d_in, d_out], device);
        let patch_embed = outer("patch_embed", pixels, d)?;
        let time_fc1 = outer("time_fc1", config.frequencies, d)?;
        let time_fc2 = outer("time_fc2", d, d)?;
        let class_embed = outer("class_embed", config.num_classes + 1, d)?;
        let final_ada_ln = outer("final_ada_ln", d, 2 * d)?;
        let final_proj = outer("final_proj", d, pixels)?;
        let blocks = (0..config.num_hidden_layers)
            .map(|i| DitBlock::new(source, config, i, device))
            .collect::<Result<_>>()?;
        let side = config.image_size / config.patch_size;
        let positions = TensorData::new(patch::positions(side, d), [1, side * side, d]);
        Ok(Self {
            patch_embed,
            time_fc1,
            time_fc2,
            class_embed,
            blocks,
            final_ada_ln,
            final_proj,
            positions: Tensor::from_data(positions, device),
            eps: config.norm_eps,
        })
    }

    /// Sets λ of the quantisation warm-up in every matrix that is quantised (see
    /// [`LinearQuant::lambda`](crate::ops::LinearQuant::lambda)).
    pub fn set_lambda(&mut self, lambda: f32) {
        self.linears_mut()
            .for_each(|linear| linear.set_lambda(lambda));
    }

    /// Sets how gradients for the inputs of what is quantised are computed (see
    /// [`LinearQuant::int8_grad_input`](crate::ops::LinearQuant::int8_grad_input)).
    pub fn set_int8_grad_input(&mut self, int8: bool) {
        self.linears_mut()
            .for_each(|linear| linear.set_int8_grad_input(int8));
    }

    /// Sets how products with weights in full precision are computed.
    pub fn set_compute(&mut self, compute: Compute) {
        self.linears_mut()
            .for_each(|linear| linear.set_compute(compute));
    }

    /// See [`CausalLm::hold_weights`](crate::CausalLm::hold_weights).
    pub fn hold_weights(&mut self)
    where
        B: Ops,
    {
        BitLinear::hold_weights(self.linears_mut());
    }

    /// Quantises weights in every forward pass again; due before they change.
    pub fn release_weights(&mut self) {
        self.linears_mut().for_each(BitLinear::release_weight);
    }

    /// Packs every matrix that can be (see [`BitLinear::pack`]), and says how many that were.
    ///
    /// # Errors
    /// As [`BitLinear::pack`].
    pub fn pack(&mut self) -> Result<usize>
    where
        B: Kernels,
    {
        pack_all(self.linears_mut())
    }

    fn linears_mut(&mut self) -> impl Iterator<Item = &mut BitLinear<B>> {
        let outer = [
            &mut self.patch_embed,
            &mut self.time_fc1,
            &mut self.time_fc2,
            &mut self.class_embed,
            &mut self.final_ada_ln,
            &mut self.final_proj,
        ];
        let inner = self.blocks.iter_mut().flat_map(DitBlock::linears_mut);
        outer.into_iter().chain(inner)
    }

    /// The noise that the model sees in `patches`.
    ///
    /// # Shapes
    /// `patches` `[batch · patches, pixels]`, `condition` of `batch` images → as `patches`.
    #[must_use]
    pub fn forward(&self, patches: Tensor<B, 2>, condition: Condition<B>) -> Tensor<B, 2>
    where
        B: Ops,
    {
        let [_, seq, width] = self.positions.dims();
        let batch = condition.time.dims()[0];
        let time = activation::silu(self.time_fc1.forward(condition.time));
        let c = self.time_fc2.forward(time) + self.class_embed.forward(condition.class);
        // What every modulation starts with.
        let c = activation::silu(c);
        let x = self.patch_embed.forward(patches);
        let x = x.reshape([batch, seq, width]) + self.positions.clone();
        let mut x = x.reshape([batch * seq, width]);
        for block in &self.blocks {
            x = block.forward(x, c.clone(), seq);
        }
        let parts = self.final_ada_ln.forward(c);
        let (shift, scale) = (
            parts.clone().narrow(1, 0, width),
            parts.narrow(1, width, width),
        );
        let x = modulate(layer_norm(x, self.eps), shift, scale);
        self.final_proj.forward(x)
    }
}
