//! Quantised projections on the integer kernels, for inference on the processor.
//!
//! A layer that is packed ([`BitLinear::pack`](crate::linear::BitLinear::pack), [`pack_all`], and
//! `pack` of the models) has two bits a weight in place of its master weight, and multiplies int8
//! codes of its input with them; norm, Hadamard transform and bias stay as they were. The rest of
//! the model is untouched, so this works in any burn module.

use std::fmt;
use std::sync::{Arc, OnceLock};

use burn::tensor::{Tensor, TensorData, backend::Backend};
use tritburn_kernels::activations::GROUP;
use tritburn_kernels::{Activations, Exec, Format, PackedCodes, Scales, TernaryMatrix};
use tritburn_quant::act::TokenQuantiser;
use tritburn_quant::scheme::{ActQuant, Granularity, WeightQuant};

use crate::Result;
use crate::linear::BitLinear;
use crate::ops::{Kernels, LinearQuant, QuantWeight};
use crate::weights::to_host;

/// Packs every layer of `linears` that can be, and says how many that were: for modules of one's
/// own, as `pack` of [`CausalLm`](crate::CausalLm) and [`Dit`](crate::dit::Dit) is for theirs.
///
/// ```
/// use burn::backend::Flex;
/// use burn::module::Module;
/// use tritburn_nn::linear::{BitLinear, LinearSpec};
/// use tritburn_nn::ops::LinearQuant;
/// use tritburn_nn::packed::pack_all;
/// use tritburn_nn::weights::RandomInit;
/// use tritburn_quant::config::SubNorm;
///
/// #[derive(Module, Debug)]
/// struct Mine<B: burn::tensor::backend::Backend> {
///     up: BitLinear<B>,
///     down: BitLinear<B>,
/// }
///
/// # fn main() -> tritburn_nn::Result<()> {
/// # let (init, device) = (&mut RandomInit::new(1, 0.1, 1), &Default::default());
/// # let spec = LinearSpec {
/// #     d_in: 64,
/// #     d_out: 64,
/// #     quant: Some(LinearQuant::B158),
/// #     norm: SubNorm::None,
/// #     norm_eps: 1e-6,
/// #     bias: false,
/// # };
/// # let mut mine = Mine::<Flex> {
/// #     up: BitLinear::new(init, "up", spec, device)?,
/// #     down: BitLinear::new(init, "down", spec, device)?,
/// # };
/// // `mine: Mine<Flex>`, trained and loaded.
/// assert_eq!(pack_all([&mut mine.up, &mut mine.down])?, 2);
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`BitLinear::pack`].
pub fn pack_all<'a, B: Kernels>(
    linears: impl IntoIterator<Item = &'a mut BitLinear<B>>,
) -> Result<usize> {
    let packed = linears.into_iter().map(BitLinear::pack);
    packed.map(|packed| Ok(usize::from(packed?))).sum()
}

/// A quantised weight in the layout of the integer kernels, and how its input is quantised.
pub struct Packed {
    matrix: TernaryMatrix,
    weight: WeightQuant,
    act: ActQuant,
    quantiser: TokenQuantiser,
    exec: &'static Exec,
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Packed({} × {}, {:?}, {})",
            self.matrix.rows(),
            self.matrix.cols(),
            self.weight,
            self.act
        )
    }
}

impl Packed {
    /// Packs what the forward pass makes of the master weight `[out, in]`; none where `quant` leaves
    /// an operand in full precision, or partly so, or the tensors of `B` lie elsewhere.
    pub(crate) fn new<B: Kernels>(
        weight: Tensor<B, 2>,
        quant: LinearQuant,
    ) -> Result<Option<Arc<Self>>> {
        let quantiser = TokenQuantiser::new(quant.act);
        let Some(quantiser) = quantiser
            .filter(|_| B::ON_HOST && quant.weight != WeightQuant::None && quant.lambda >= 1.0)
        else {
            return Ok(None);
        };
        let [rows, cols] = weight.dims();
        let QuantWeight { codes, scale, .. } = B::quantise_weight(weight, quant.weight);
        #[allow(clippy::cast_possible_truncation)]
        let codes: Vec<i8> = to_host(codes.float()).iter().map(|c| *c as i8).collect();
        let scale = to_host(scale);
        let scales = match quant.weight.granularity() {
            Granularity::Tensor => Scales::Tensor(scale[0]),
            Granularity::Row => Scales::Row(scale),
            Granularity::Group(size) => {
                let repeated = scale.iter().flat_map(|s| vec![*s; size / GROUP]);
                Scales::Group(repeated.collect())
            }
        };
        let exec = exec()?;
        let codes = PackedCodes::from_codes(&codes, rows, cols, scales)?;
        Ok(Some(Arc::new(Self {
            matrix: TernaryMatrix::pack(&exec.pool, &codes, Format::TwoBit),
            weight: quant.weight,
            act: quant.act,
            quantiser,
            exec,
        })))
    }

    /// Output and input width.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.matrix.rows(), self.matrix.cols()]
    }

    /// Bytes of codes and scales.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.matrix.bytes()
    }

    /// `x` `[tokens, in]`, row-major, quantised and multiplied: `[tokens, out]`.
    ///
    /// Sums are exact, so the result depends neither on the processor nor on its threads.
    pub(crate) fn multiply(&self, x: &[f32]) -> Vec<f32> {
        let [rows, width] = self.shape();
        let tokens = x.len().checked_div(width).unwrap_or(0);
        let mut activations = Activations::new();
        if self.act == ActQuant::INT8 {
            activations.quantize(self.exec, x, width);
        } else {
            activations.fill(self.exec, tokens, width, |token, codes| {
                let x = &x[token * width..][..width];
                self.quantiser.clone().quantise(x, codes)
            });
        }
        let mut out = vec![0.0; tokens * rows];
        self.matrix.gemm(self.exec, &activations, &mut out);
        out
    }

    /// Codes and scales as they were before they were packed.
    pub(crate) fn weight<B: Backend>(&self, device: &B::Device) -> QuantWeight<B> {
        let codes: Vec<f32> = self.matrix.codes().into_iter().map(f32::from).collect();
        let [rows, cols] = self.shape();
        let (scale, shape) = match self.matrix.scales() {
            Scales::Tensor(scale) => (vec![*scale], [1, 1]),
            Scales::Row(scales) => (scales.clone(), [rows, 1]),
            Scales::Group(scales) => {
                let step = match self.weight.granularity() {
                    Granularity::Group(size) => size / GROUP,
                    Granularity::Tensor | Granularity::Row => 1,
                };
                let scales: Vec<f32> = scales.iter().step_by(step).copied().collect();
                let groups = scales.len() / rows.max(1);
                (scales, [rows, groups])
            }
        };
        QuantWeight::float(
            Tensor::from_data(TensorData::new(codes, [rows, cols]), device),
            Tensor::from_data(TensorData::new(scale, shape), device),
        )
    }
}

/// What all packed layers of the process run on: the kernel that `TRITBURN_KERNEL` names, or else the
/// best, and as many threads as the CPU backend has.
fn exec() -> Result<&'static Exec> {
    static EXEC: OnceLock<Exec> = OnceLock::new();
    if let Some(exec) = EXEC.get() {
        return Ok(exec);
    }
    let exec = Exec::new(None, Some(rayon::current_num_threads()))?;
    Ok(EXEC.get_or_init(|| exec))
}
