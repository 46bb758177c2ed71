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
