//! Which weights are laid out so that zeros in their inputs, or closed gates, are left out.

use tritburn_kernels::Format;
use tritburn_kernels::kernel::Kernel;
use tritburn_kernels::sparse::SparseLimits;
use tritburn_quant::config::{HiddenAct, ModelConfig, SubNorm};
use tritburn_quant::scheme::{Input, TopK};

use super::linear::Layout;

/// Whether decoding leaves zeros out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sparsity {
    /// Where the model's activation or quantisers make zeros, and so many that the kernel gains by
    /// it: `up` computes only what the gate lets through, and projections read only the columns
    /// whose input is not zero.
    #[default]
    Auto,
    /// Wherever they make zeros, for comparisons.
    On,
    /// Nowhere, for comparisons.
    Off,
}

impl Sparsity {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::On, Self::Off];

    /// Name for options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// Zeros of a squared ReLU before training has made more of them.
const CLOSED: f32 = 0.5;

/// Chooses the layout of each ternary weight of a model.
#[derive(Debug)]
pub(crate) struct Layouts<'a> {
    config: &'a ModelConfig,
    format: Format,
    /// `None` where nothing is to be left out.
    limits: Option<SparseLimits>,
}

impl<'a> Layouts<'a> {
    /// For products by `kernel`; weights of another format than two bits stay as they are, since
    /// that is what their reader asked for.
    pub(crate) fn new(
        config: &'a ModelConfig,
        kernel: &dyn Kernel,
        format: Format,
        sparsity: Sparsity,
    ) -> Self {
        let limits = match sparsity {
            _ if format != Format::TwoBit => None,
            Sparsity::Auto => Some(kernel.sparse_limits()),
            Sparsity::On => Some(SparseLimits {
                columns: f32::MIN_POSITIVE,
                rows: 0.0,
            }),
            Sparsity::Off => None,
        };
        Self {
            config,
            format,
            limits,
        }
    }

    /// The layout for the weight of projection `module`, whose input is `input`.
    pub(crate) fn of(&self, input: Input, module: &str) -> Layout {
        let packed = Layout::Packed(self.format);
        let Some(limits) = &self.limits else {
            return packed;
        };
        let closed = module.ends_with("up_proj") && self.config.hidden_act == HiddenAct::Relu2;
        if closed && CLOSED >= limits.rows {
            Layout::Rows
        } else if self.zeros(input) >= limits.columns {
            Layout::Columns
        } else {
            packed
        }
    }

    /// The share of zeros that the quantiser of an input leaves at least.
    fn zeros(&self, input: Input) -> f32 {
        let act = self.config.quant_scheme().unwrap_or_default().act(input);
        let dropped = match act.top_k {
            Some(TopK::Percent(kept)) => 1.0 - f32::from(kept) / 100.0,
            Some(TopK::Blocks(kept, of)) => 1.0 - f32::from(kept) / f32::from(of),
            None => 0.0,
        };
        // A turn and a mean taken off make something of zeros.
        let keeps_zeros = !act.hadamard && self.config.sub_norm() != SubNorm::LayerNorm;
        let closed = input == Input::Down && self.config.hidden_act == HiddenAct::Relu2;
        if closed && keeps_zeros {
            dropped.max(CLOSED)
        } else {
            dropped
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tritburn_kernels::available;
    use tritburn_quant::config::QuantizationMode;
    use tritburn_quant::scheme::Preset;

    use super::*;
    use crate::bench::shape;

    /// What half of zeros is worth is each kernel's to say.
    #[test]
    fn zeros_are_left_out_where_a_kernel_gains() {
        let mut config = shape("bitnet-2b4t").unwrap();
        for preset in [Preset::B158, Preset::A48] {
            config.set_quant(Some(preset.into()), QuantizationMode::Offline);
            for kernel in available() {
                let limits = kernel.sparse_limits();
                let layouts = |format, sparsity| {
                    let all = Layouts::new(&config, kernel.as_ref(), format, sparsity);
                    let of = |input, name: &str| all.of(input, &format!("model.layers.0.{name}"));
                    [
                        of(Input::Qkv, "self_attn.q_proj"),
                        of(Input::O, "self_attn.o_proj"),
                        of(Input::GateUp, "mlp.up_proj"),
                        of(Input::Down, "mlp.down_proj"),
                    ]
                };
                let plain = Layout::Packed(Format::TwoBit);
                let gains = |wins: bool, layout| if wins { layout } else { plain };
                let columns = gains(0.5 >= limits.columns, Layout::Columns);
                let rows = gains(0.5 >= limits.rows, Layout::Rows);
                // Half of what goes into o is dropped by a4.8 alone.
                let out = if preset == Preset::A48 {
                    columns
                } else {
                    plain
                };
                let name = kernel.name();
                let auto = layouts(Format::TwoBit, Sparsity::Auto);
                assert_eq!(auto, [plain, out, rows, columns], "{preset:?} {name}");
                let off = layouts(Format::TwoBit, Sparsity::Off);
                assert_eq!(off, [plain; 4], "{name}");
                let dense = layouts(Format::Base3, Sparsity::On);
                assert_eq!(dense, [Layout::Packed(Format::Base3); 4], "{name}");
            }
        }
    }
}
