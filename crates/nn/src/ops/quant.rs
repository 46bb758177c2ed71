//! The quantisers in burn's plain tensor operations, and what they make.

use burn::module::Module;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData, backend::Backend};
use tritburn_quant::act::fp4::{E1M2, E2M1, Fp4};
use tritburn_quant::act::int4::SQRT_7;
use tritburn_quant::kv;
use tritburn_quant::scheme::{ActQuant, Granularity, Grid, TopK, WeightQuant};
use tritburn_quant::ternary::EPS;

use crate::packed::Packed;

/// How a projection is quantised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearQuant {
    /// Quantiser of the weight.
    pub weight: WeightQuant,
    /// Quantiser of the input.
    pub act: ActQuant,
    /// λ of the warm-up: operands are `x + λ·(Q(x) − x)`. 1 is full quantisation.
    pub lambda: f32,
    /// Whether the gradient for the input comes from INT8 codes of the incoming gradient.
    pub int8_grad_input: bool,
}

impl LinearQuant {
    /// Ternary weights and INT8 activations: BitNet b1.58.
    pub const B158: Self = Self {
        weight: WeightQuant::Absmean,
        act: ActQuant::INT8,
        lambda: 1.0,
        int8_grad_input: false,
    };
}

/// Codes of an operand, as the backend multiplies them.
#[derive(Module, Debug)]
pub enum Codes<B: Backend> {
    /// In f32: whole numbers where the grid has any.
    Float(Tensor<B, 2>),
    /// Whole numbers of 8 bits.
    Int8(Tensor<B, 2, Int>),
}

impl<B: Backend> Codes<B> {
    /// The codes in f32.
    #[must_use]
    pub fn float(self) -> Tensor<B, 2> {
        match self {
            Self::Float(codes) => codes,
            Self::Int8(codes) => codes.float(),
        }
    }

    /// Rows and columns.
    #[must_use]
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Float(codes) => codes.dims(),
            Self::Int8(codes) => codes.dims(),
        }
    }
}

/// A quantised weight: `codes · scale` approximates the master weight.
#[derive(Module, Debug)]
pub struct QuantWeight<B: Backend> {
    /// `[out, in]`, each −1, 0 or +1.
    pub codes: Codes<B>,
    /// The same in bf16, where the backend multiplies gradients in it.
    pub wide: Option<Tensor<B, 2>>,
    /// `[1, 1]`, `[out, 1]`, or `[out, groups]` for groups of neighbours in a row.
    pub scale: Tensor<B, 2>,
}

impl<B: Backend> QuantWeight<B> {
    /// A weight whose codes are in f32 only.
    #[must_use]
    pub fn float(codes: Tensor<B, 2>, scale: Tensor<B, 2>) -> Self {
        Self {
            codes: Codes::Float(codes),
            wide: None,
            scale,
        }
    }

    /// `codes · scale`, `[out, in]`.
    #[must_use]
    pub fn dense(self) -> Tensor<B, 2> {
        let ([rows, cols], [_, groups]) = (self.codes.dims(), self.scale.dims());
        let codes = self.codes.float();
        if groups == 1 {
            return codes * self.scale;
        }
        let codes = codes.reshape([rows, groups, cols / groups]);
        (codes * self.scale.unsqueeze_dim(2)).reshape([rows, cols])
    }
}

/// Quantised activations: `codes · step` approximates the input.
#[derive(Debug, Clone)]
pub struct QuantActs<B: Backend> {
    /// `[tokens, in]`.
    pub codes: Codes<B>,
    /// `[tokens, 1]`.
    pub step: Tensor<B, 2>,
    /// Type of what was quantised, in which products and gradients are given back.
    pub dtype: DType,
}

impl<B: Backend> QuantActs<B> {
    /// Codes in f32 of something in f32.
    #[must_use]
    pub fn float(codes: Tensor<B, 2>, step: Tensor<B, 2>) -> Self {
        Self {
            codes: Codes::Float(codes),
            step,
            dtype: DType::F32,
        }
    }

    /// `codes · step`, `[tokens, in]`.
    #[must_use]
    pub fn dense(self) -> Tensor<B, 2> {
        self.codes.float() * self.step
    }
}

/// How query, key or value heads pass through the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheQuant {
    /// 8, 4 or 3; with 3, the first position has 4.
    pub bits: u8,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens of each sequence.
    pub seq: usize,
}

/// `x + λ·(q − x)`.
pub(super) fn blend<B: Backend>(x: Tensor<B, 2>, q: Tensor<B, 2>, lambda: f32) -> Tensor<B, 2> {
    x.clone() + (q - x) * lambda
}

/// See [`tritburn_quant::weight::quantise`].
pub(super) fn weight<B: Backend>(w: Tensor<B, 2>, quant: WeightQuant) -> QuantWeight<B> {
    let [rows, cols] = w.dims();
    let one = [1, 1];
    match quant {
        WeightQuant::None => {
            let scale = Tensor::ones(one, &w.device());
            QuantWeight::float(w, scale)
        }
        WeightQuant::B1 => {
            let scale = w.clone().abs().mean().clamp_min(EPS).reshape(one);
            let mean = w.clone().mean().reshape(one);
            let positive = (w - mean).greater_elem(0.0).float();
            QuantWeight::float(positive * 2.0 - 1.0, scale)
        }
        _ => {
            let runs = match quant.granularity() {
                Granularity::Tensor => [1, rows * cols],
                Granularity::Row => [rows, cols],
                Granularity::Group(size) => [rows * (cols / size), size],
            };
            let w = w.reshape(runs);
            let scale = w.clone().abs().mean_dim(1).clamp_min(EPS);
            let codes = (w * scale.clone().recip()).round().clamp(-1.0, 1.0);
            let scales = match quant.granularity() {
                Granularity::Tensor => one,
                Granularity::Row => [rows, 1],
                Granularity::Group(size) => [rows, cols / size],
            };
            QuantWeight::float(codes.reshape([rows, cols]), scale.reshape(scales))
        }
    }
}

/// See [`tritburn_quant::act::TokenQuantiser`].
pub(super) fn acts<B: Backend>(x: Tensor<B, 2>, quant: ActQuant) -> QuantActs<B> {
    let dtype = x.dtype();
    let x = x.cast(DType::F32);
    let survivors = quant.top_k.map(|k| survivors(x.clone(), k));
    let before = quant.rescale.then(|| norm(x.clone()));
    let (codes, mut step) = grid(x, quant.grid);
    let codes = match survivors {
        Some(keep) => codes.mask_fill(keep.bool_not(), 0.0),
        None => codes,
    };
    if let Some(before) = before {
        let after = norm(codes.clone()) * step.clone();
        let nothing = after.clone().equal_elem(0.0);
        step = step * (before / after).mask_fill(nothing, 1.0);
    }
    QuantActs {
        codes: Codes::Float(codes),
        step,
        dtype,
    }
}

fn norm<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    (x.clone() * x).sum_dim(1).sqrt()
}

/// Codes and steps.
fn grid<B: Backend>(x: Tensor<B, 2>, grid: Grid) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let absmax = |x: &Tensor<B, 2>| x.clone().abs().max_dim(1).clamp_min(EPS);
    match grid {
        Grid::None => {
            let step = Tensor::ones([x.dims()[0], 1], &x.device());
            (x, step)
        }
        Grid::Int8 => {
            let absmax = absmax(&x);
            let codes = (x * (absmax.clone().recip() * 127.0)).round();
            (codes.clamp(-128.0, 127.0), absmax / 127.0)
        }
        Grid::Int4 => {
            let beta = x.clone().abs().mean_dim(1).clamp_min(EPS);
            let codes = (x * (beta.clone().recip() * SQRT_7)).round();
            (codes.clamp(-8.0, 7.0), beta / SQRT_7)
        }
        Grid::Fp4E2m1 => fp4(x.clone(), absmax(&x), E2M1),
        Grid::Fp4E1m2 => fp4(x.clone(), absmax(&x), E1M2),
    }
}

fn fp4<B: Backend>(
    x: Tensor<B, 2>,
    absmax: Tensor<B, 2>,
    format: Fp4,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let max = f32::from(format.max);
    let fine = f32::from(format.fine_below);
    let u = x * (absmax.clone().recip() * max);
    let size = u.clone().abs();
    let apart = size.clone().greater_equal_elem(fine).float()
        + size.greater_equal_elem(2.0 * fine).float() * 2.0
        + 1.0;
    ((u / apart.clone()).round() * apart, absmax / max)
}

/// Halvings of the interval that holds the threshold: below the largest magnitude times 2⁻⁴⁰,
/// magnitudes count as equal.
const HALVINGS: usize = 40;

/// True for the largest magnitudes of each run. By bisection, as GPU backends sort on the host.
fn survivors<B: Backend>(x: Tensor<B, 2>, top_k: TopK) -> Tensor<B, 2, Bool> {
    let [tokens, width] = x.dims();
    let (kept, run) = top_k.run(width);
    let size = x.abs().reshape([tokens * width / run.max(1), run]);
    #[allow(clippy::cast_precision_loss)]
    let kept = kept as f32;
    // At least `kept` values are no smaller than `low`; fewer are no smaller than `high`.
    let mut high = size.clone().max_dim(1) * 1.000_001;
    let mut low = high.zeros_like();
    for _ in 0..HALVINGS {
        let middle = (low.clone() + high.clone()) * 0.5;
        let above = size
            .clone()
            .greater_equal(middle.clone().expand(size.shape()));
        let enough = above.float().sum_dim(1).greater_equal_elem(kept);
        low = low.mask_where(enough.clone(), middle.clone());
        high = middle.mask_where(enough, high);
    }
    size.clone()
        .greater_equal(low.expand(size.shape()))
        .reshape([tokens, width])
}

pub(super) fn code_matmul<B: Backend>(x: &QuantActs<B>, w: &QuantWeight<B>) -> Tensor<B, 2> {
    let [_, groups] = w.scale.dims();
    let codes = x.codes.clone().float();
    let y = if groups > 1 {
        codes.matmul(w.clone().dense().transpose()) * x.step.clone()
    } else {
        let y = codes.matmul(w.codes.clone().float().transpose());
        y * (x.step.clone() * w.scale.clone().transpose())
    };
    y.cast(x.dtype)
}

pub(super) fn packed_matmul<B: Backend>(x: Tensor<B, 2>, weight: &Packed) -> Tensor<B, 2> {
    let ([tokens, _], device, dtype) = (x.dims(), x.device(), x.dtype());
    let x = x.cast(DType::F32).into_data().into_vec::<f32>();
    let x = x.unwrap_or_else(|e| unreachable!("just cast: {e:?}"));
    let y = TensorData::new(weight.multiply(&x), [tokens, weight.shape()[0]]);
    Tensor::<B, 2>::from_data(y, &device).cast(dtype)
}

pub(super) fn code_matmul_grad<B: Backend>(
    x: QuantActs<B>,
    w: QuantWeight<B>,
    grad: Tensor<B, 2>,
    int8_input: bool,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let grad = grad.cast(DType::F32);
    let of_input = if int8_input {
        acts(grad.clone(), ActQuant::INT8).dense()
    } else {
        grad.clone()
    };
    let grad_x = of_input.matmul(w.dense()).cast(x.dtype);
    let grad_w = (grad * x.step).transpose().matmul(x.codes.float());
    (grad_x, grad_w)
}

/// See [`kv::quantise_head`].
pub(super) fn cache<B: Backend>(x: Tensor<B, 2>, quant: CacheQuant) -> Tensor<B, 2> {
    let ([tokens, width], dtype) = (x.dims(), x.dtype());
    let heads = width / quant.head_dim;
    let x = x.cast(DType::F32);
    let x = x.reshape([tokens * heads, quant.head_dim]);
    let round = |x: Tensor<B, 2>, bits: u8| {
        let levels = kv::levels(bits);
        let absmax = x.clone().abs().max_dim(1).clamp_min(EPS);
        let codes = (x * (absmax.clone().recip() * levels)).round();
        codes.clamp(-levels, levels) * (absmax / levels)
    };
    let all = round(x.clone(), quant.bits);
    let first_bits = kv::bits_at(quant.bits, 0);
    if first_bits == quant.bits {
        return all.reshape([tokens, width]).cast(dtype);
    }
    let shape = [tokens / quant.seq, quant.seq, width];
    let first = round(x, first_bits).reshape(shape).narrow(1, 0, 1);
    if quant.seq == 1 {
        return first.reshape([tokens, width]).cast(dtype);
    }
    let rest = all.reshape(shape).narrow(1, 1, quant.seq - 1);
    let all = Tensor::cat(vec![first, rest], 1);
    all.reshape([tokens, width]).cast(dtype)
}
