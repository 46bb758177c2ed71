//! The operations on an NVIDIA GPU: quantisers, norms, activations, losses and AdamW in one pass each,
//! attention without its square, and for BitLinear an int8 product on the tensor cores with gradients
//! in bf16.
//!
//! Forward sums are exact, as on the CPU. Gradients multiply bf16 operands and add in f32: they differ
//! from the reference by the rounding of the incoming gradient and of the input, 2⁻⁹ of each. Only
//! int8 codes are kept for the backward pass.
//!
//! BitLinear's kernels are written for Hopper (compute capability 9.x), INT8 tokens and one absmean a
//! weight, with `in` a multiple of 16 and `out` of 8; the others for widths in eights. Everything else
//! runs the reference.

mod attention;
mod collective;
mod gemm;
mod launch;
mod many;
mod optim;
mod quantise;
mod relation;
mod rows;
mod table;
mod vocab;

use burn::backend::Cuda;
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, TensorPrimitive};
use burn_cubecl::kernel::into_contiguous;
use cubecl::Runtime;
use cubecl::cuda::CudaRuntime;
use gemm::{Operand, Scales, gemm};
use launch::{Buffer, hopper};
use tritburn_quant::config::HiddenAct;
use tritburn_quant::scheme::{ActQuant, WeightQuant};
use vocab::{Compared, full_target, over_vocab};

use crate::Result;
use crate::ranks::Rank;

use super::{
    AdamWParam, AdamWStep, Attended, AttentionGrads, AttentionShape, Codes, Compute, Kernels,
    LogitLosses, LogitTarget, QuantActs, QuantWeight, Relation, Starts, product, quant, reference,
};

fn buffer<const D: usize>(x: Tensor<Cuda, D>) -> Buffer {
    into_contiguous(x.into_primitive().tensor())
}

fn float<const D: usize>(x: Buffer) -> Tensor<Cuda, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

fn int(x: Buffer) -> Tensor<Cuda, 2, Int> {
    Tensor::from_primitive(x)
}

fn int32(x: Starts<Cuda>) -> Option<Buffer> {
    x.map(|x| into_contiguous(x.cast(DType::I32).into_primitive()))
}

/// Whether the kernels take rows of `width` values.
fn fits(x: &Tensor<Cuda, 2>) -> bool {
    let [rows, width] = x.dims();
    let float = matches!(x.dtype(), DType::F32 | DType::BF16);
    rows > 0 && width > 0 && width.is_multiple_of(16) && width <= 16_384 && float && {
        let x = x.clone().into_primitive().tensor();
        hopper(&x.device, &x.client).is_some()
    }
}

/// Whether [`gemm`] takes bf16 copies of the two as `x · weightᵀ`, and of the gradients.
fn multiplies(x: &Tensor<Cuda, 2>, weight: &Tensor<Cuda, 2>, compute: Compute) -> bool {
    let [tokens, d_in] = x.dims();
    let d_out = weight.dims()[0];
    let eights = d_in.is_multiple_of(8) && d_out.is_multiple_of(8);
    compute == Compute::Bf16
        && tokens * d_in * d_out > 0
        && eights
        && matches!(x.dtype(), DType::F32 | DType::BF16)
        && matches!(weight.dtype(), DType::F32 | DType::BF16)
        && Cuda::fastest_compute(&x.device()) == compute
}

/// `x` in f32, which the reference computes in.
fn full(x: Tensor<Cuda, 2>) -> Tensor<Cuda, 2> {
    x.cast(DType::F32)
}

/// `x` in bf16.
fn half(x: Tensor<Cuda, 2>) -> Buffer {
    let dims = x.dims();
    quantise::to_bf16(&buffer(x), dims)
}

/// `x · weightᵀ` of operands rounded to bf16, in `out`.
fn bf16_product(x: Tensor<Cuda, 2>, weight: Tensor<Cuda, 2>, out: DType) -> Tensor<Cuda, 2> {
    let [x, weight] = [x, weight].map(half);
    let [a, b] = [&x, &weight].map(|tensor| Operand {
        tensor,
        over_rows: false,
    });
    float(gemm(a, b, Scales::None, out))
}

/// `grad · weight` of bf16 operands; `scale` is on the weight.
fn input_grad(grad: &Buffer, weight: &Buffer, scale: Scales<'_>, dtype: DType) -> Buffer {
    let grad = Operand {
        tensor: grad,
        over_rows: false,
    };
    let weight = Operand {
        tensor: weight,
        over_rows: true,
    };
    gemm(grad, weight, scale, dtype)
}

/// `gradᵀ · x` of bf16 operands.
fn weight_grad(grad: &Buffer, x: &Buffer) -> Buffer {
    let [grad, x] = [grad, x].map(|tensor| Operand {
        tensor,
        over_rows: true,
    });
    gemm(grad, x, Scales::None, DType::F32)
}

/// INT8 codes of each row of `grad` times ternary codes `[out, in]`. The tensor cores want the sum along
/// the rows of both operands, so the weight is turned for it.
fn int8_input_grad(grad: &Buffer, ternary: &Buffer, scale: &Buffer, dtype: DType) -> Buffer {
    let dims = |x: &Buffer| [x.meta.shape()[0], x.meta.shape()[1]];
    let [codes, step] = quantise::acts(grad, dims(grad));
    let turned = quantise::turned(ternary, dims(ternary));
    let [codes, turned] = [&codes, &turned].map(|tensor| Operand {
        tensor,
        over_rows: false,
    });
    gemm(codes, turned, Scales::Rows(&step, scale), dtype)
}

/// Whether a pass over rows of `x` and its companions, all of one type, is possible.
fn eights(x: &Tensor<Cuda, 2>, others: &[&Tensor<Cuda, 2>]) -> bool {
    let [rows, width] = x.dims();
    let float = matches!(x.dtype(), DType::F32 | DType::BF16);
    rows > 0
        && width > 0
        && width.is_multiple_of(8)
        && float
        && others.iter().all(|o| o.dtype() == x.dtype())
}

/// Whether the kernels of relations take these states.
fn related(student: &Tensor<Cuda, 2>, teacher: &Tensor<Cuda, 2>, shape: Relation) -> bool {
    [student, teacher]
        .iter()
        .all(|x| eights(x, &[]) && relation::fits(shape, x.dims()[1]))
}

/// Whether a pass over values in f32 is possible.
fn plain<const D: usize>(all: &[&Tensor<Cuda, D>]) -> bool {
    let full = all.iter().all(|x| x.shape().num_elements() > 0);
    let counted = all.iter().all(|x| many::counts(x.shape().num_elements()));
    full && counted && all.iter().all(|x| x.dtype() == DType::F32)
}

impl Kernels for Cuda {
    fn fastest_compute(device: &Self::Device) -> Compute {
        let client = CudaRuntime::client(device);
        if hopper(device, &client).is_some() {
            Compute::Bf16
        } else {
            Compute::F32
        }
    }

    fn memory_held(device: &Self::Device) -> Option<u64> {
        let usage = CudaRuntime::client(device).memory_usage().ok()?;
        Some(usage.bytes_reserved)
    }

    /// A step's logits need not be made twice: with a teacher's and the gradient, in two bytes each, at
    /// most three sixteenths of the device.
    fn max_logits(device: &Self::Device) -> usize {
        let page = CudaRuntime::client(device)
            .properties()
            .memory
            .max_page_size;
        // A page is at most a quarter of the device.
        usize::try_from(page / 8).unwrap_or(usize::MAX)
    }

    fn tidy_memory(device: &Self::Device) {
        let client = CudaRuntime::client(device);
        // A page is at most a quarter of the device.
        let half = 2 * client.properties().memory.max_page_size;
        if Self::memory_held(device).is_some_and(|held| held > half) {
            client.memory_cleanup();
        }
    }

    fn frozen(weight: Tensor<Self, 2>, compute: Compute) -> Tensor<Self, 2> {
        if compute == Compute::Bf16 && Self::fastest_compute(&weight.device()) == compute {
            float(half(weight))
        } else {
            weight
        }
    }

    fn dense_matmul(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        compute: Compute,
    ) -> Tensor<Self, 2> {
        if !multiplies(&x, &weight, compute) {
            let dtype = x.dtype();
            return product::dense_matmul(full(x), full(weight), compute).cast(dtype);
        }
        let dtype = x.dtype();
        bf16_product(x, weight, dtype)
    }

    fn dense_matmul_grad(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        compute: Compute,
        grad: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        let dtype = x.dtype();
        if !multiplies(&x, &weight, compute) {
            let (of_x, of_w) = product::dense_matmul_grad(full(x), weight, compute, full(grad));
            return (of_x.cast(dtype), of_w);
        }
        let [x, weight, grad] = [x, weight, grad].map(half);
        let grad_x = input_grad(&grad, &weight, Scales::None, dtype);
        (float(grad_x), float(weight_grad(&grad, &x)))
    }

    fn quantise_weight(weight: Tensor<Self, 2>, quant: WeightQuant) -> QuantWeight<Self> {
        let mut one = Self::quantise_weights(vec![(weight, quant)]);
        one.pop().unwrap_or_else(|| unreachable!("one for one"))
    }

    fn quantise_weights(weights: Vec<(Tensor<Self, 2>, WeightQuant)>) -> Vec<QuantWeight<Self>> {
        let ternary = |(weight, quant): &(Tensor<Self, 2>, WeightQuant)| {
            *quant == WeightQuant::Absmean
                && weight.dims()[0].is_multiple_of(8)
                && fits(weight)
                && many::counts(weight.shape().num_elements())
        };
        // Those that one launch takes together have one type.
        let dtype = weights
            .iter()
            .find(|one| ternary(one))
            .map(|one| one.0.dtype());
        let taken =
            |one: &(Tensor<Self, 2>, WeightQuant)| ternary(one) && Some(one.0.dtype()) == dtype;
        let all: Vec<_> = (weights.iter())
            .filter(|one| taken(one))
            .map(|(weight, _)| (buffer(weight.clone()), weight.dims()))
            .collect();
        let mut quantised = quantise::weights(&all).into_iter();
        let each = weights.into_iter().map(|one| {
            let done = if taken(&one) { quantised.next() } else { None };
            match done {
                Some([codes, wide, scale]) => QuantWeight {
                    codes: Codes::Int8(int(codes)),
                    wide: Some(float(wide)),
                    scale: float(scale),
                },
                None if ternary(&one) => Self::quantise_weight(one.0, one.1),
                None => quant::weight(one.0, one.1),
            }
        });
        each.collect()
    }

    fn quantise_acts(x: Tensor<Self, 2>, quant: ActQuant) -> QuantActs<Self> {
        if quant != ActQuant::INT8 || !fits(&x) {
            return quant::acts(x, quant);
        }
        let (dims, dtype) = (x.dims(), x.dtype());
        let [codes, step] = quantise::acts(&buffer(x), dims);
        QuantActs {
            codes: Codes::Int8(int(codes)),
            step: float(step),
            dtype,
        }
    }

    fn code_matmul(x: &QuantActs<Self>, weight: &QuantWeight<Self>) -> Tensor<Self, 2> {
        let (Codes::Int8(codes), Codes::Int8(ternary)) = (&x.codes, &weight.codes) else {
            return quant::code_matmul(x, weight);
        };
        let (codes, ternary) = (
            codes.clone().into_primitive(),
            ternary.clone().into_primitive(),
        );
        let step = x.step.clone().into_primitive().tensor();
        let scale = weight.scale.clone().into_primitive().tensor();
        let [a, b] = [&codes, &ternary].map(|tensor| Operand {
            tensor,
            over_rows: false,
        });
        float(gemm(a, b, Scales::Rows(&step, &scale), x.dtype))
    }

    fn code_matmul_grad(
        x: QuantActs<Self>,
        weight: QuantWeight<Self>,
        grad: Tensor<Self, 2>,
        int8_input: bool,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        let (Codes::Int8(codes), Some(wide)) = (&x.codes, &weight.wide) else {
            let dtype = x.dtype;
            let (of_x, of_w) = quant::code_matmul_grad(x, weight, full(grad), int8_input);
            return (of_x.cast(dtype), of_w);
        };
        let scale = weight.scale.clone().into_primitive().tensor();
        let step = x.step.clone().into_primitive().tensor();
        let dense = quantise::dense_acts(&codes.clone().into_primitive(), &step, x.codes.dims());
        let half_grad = half(grad.clone());
        let grad_w = weight_grad(&half_grad, &dense);
        let grad_x = match &weight.codes {
            // Rows of codes are copied 16 at a time.
            Codes::Int8(ternary) if int8_input && fits(&grad) => {
                let ternary = ternary.clone().into_primitive();
                int8_input_grad(&buffer(grad), &ternary, &scale, x.dtype)
            }
            _ => {
                let of_input = if int8_input {
                    half(quant::acts(grad, ActQuant::INT8).dense())
                } else {
                    half_grad
                };
                let wide = wide.clone().into_primitive().tensor();
                input_grad(&of_input, &wide, Scales::One(&scale), x.dtype)
            }
        };
        (float(grad_x), float(grad_w))
    }

    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
        if !eights(&x, &[]) || x.dims()[1] > rows::MAX_NORM {
            let dtype = x.dtype();
            return reference::rms_norm(full(x), weight, eps).cast(dtype);
        }
        let dims = x.dims();
        float(rows::rms_norm(&buffer(x), &buffer(weight), eps, dims))
    }

    fn rms_norm_grad(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        eps: f64,
        grad: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Tensor<Self, 1>) {
        if !eights(&x, &[&grad]) || x.dims()[1] > rows::MAX_NORM {
            let dtype = x.dtype();
            let (of_x, of_w) = reference::rms_norm_grad(full(x), weight, eps, full(grad));
            return (of_x.cast(dtype), of_w);
        }
        let dims = x.dims();
        let (x, weight, grad) = (buffer(x), buffer(weight), buffer(grad));
        let [grad_x, grad_w] = rows::rms_norm_grad(&x, &weight, eps, &grad, dims);
        (float(grad_x), float(grad_w))
    }

    fn gated_act(gate: Tensor<Self, 2>, up: Tensor<Self, 2>, act: HiddenAct) -> Tensor<Self, 2> {
        if !eights(&gate, &[&up]) {
            return reference::gated_act(gate, up, act);
        }
        let dims = gate.dims();
        float(rows::gated_act(&buffer(gate), &buffer(up), act, dims))
    }

    fn gated_act_grad(
        gate: Tensor<Self, 2>,
        up: Tensor<Self, 2>,
        act: HiddenAct,
        grad: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        if !eights(&gate, &[&up, &grad]) {
            return reference::gated_act_grad(gate, up, act, grad);
        }
        let dims = gate.dims();
        let (gate, up, grad) = (buffer(gate), buffer(up), buffer(grad));
        let [gate, up] = rows::gated_act_grad(&gate, &up, act, &grad, dims);
        (float(gate), float(up))
    }

    fn rope(
        x: Tensor<Self, 2>,
        cos: Tensor<Self, 2>,
        sin: Tensor<Self, 2>,
        seq: usize,
    ) -> Tensor<Self, 2> {
        let head_dim = cos.dims()[1];
        if !eights(&x, &[]) || !head_dim.is_multiple_of(16) {
            let dtype = x.dtype();
            return reference::rope(full(x), cos, sin, seq).cast(dtype);
        }
        let dims = x.dims();
        let (x, cos, sin) = (buffer(x), buffer(cos), buffer(sin));
        float(rows::rope(&x, &cos, &sin, [seq, head_dim], dims))
    }

    fn self_attention(
        q: Tensor<Self, 2>,
        k: Tensor<Self, 2>,
        v: Tensor<Self, 2>,
        shape: AttentionShape,
        starts: Starts<Self>,
    ) -> Attended<Self> {
        if !eights(&q, &[&k, &v]) || !attention::fits(shape) {
            return reference::self_attention(q, k, v, shape, starts).into();
        }
        let [q, k, v] = [q, k, v].map(buffer);
        let [out, sums] = attention::forward([&q, &k, &v], shape, int32(starts).as_ref());
        Attended {
            out: float(out),
            sums: Some(float(sums)),
        }
    }

    fn self_attention_grad(
        q: Tensor<Self, 2>,
        k: Tensor<Self, 2>,
        v: Tensor<Self, 2>,
        shape: AttentionShape,
        starts: Starts<Self>,
        attended: Attended<Self>,
        grad: Tensor<Self, 2>,
    ) -> AttentionGrads<Self> {
        let Some(sums) = attended.sums else {
            return reference::self_attention_grad(q, k, v, shape, starts, grad);
        };
        let [q, k, v, grad, out] =
            [q, k, v, grad.cast(attended.out.dtype()), attended.out].map(buffer);
        let kept = [&out, &buffer(sums)];
        let starts = int32(starts);
        let grads = attention::backward([&q, &k, &v], kept, &grad, shape, starts.as_ref());
        let [q, k, v] = grads.map(float);
        (q, k, v)
    }

    fn head_logits(
        hidden: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        compute: Compute,
    ) -> Tensor<Self, 2> {
        if !multiplies(&hidden, &weight, compute) {
            return Self::dense_matmul(full(hidden), weight, compute);
        }
        bf16_product(hidden, weight, DType::F16)
    }

    fn logit_losses(logits: &Tensor<Self, 2>, target: &LogitTarget<Self>) -> LogitLosses<Self> {
        if !over_vocab(logits, target) {
            return reference::logit_losses(&full(logits.clone()), &full_target(target.clone()));
        }
        let dims = logits.dims();
        let buffers = Compared::new(target.clone());
        let target = buffers.target();
        let [losses, sums] = vocab::losses(&buffer(logits.clone()), target, dims);
        let losses = float::<2>(losses);
        let mut row = 0;
        let mut next = |present: bool| {
            present.then(|| {
                row += 1;
                losses.clone().narrow(0, row - 1, 1).squeeze_dim::<1>(0)
            })
        };
        LogitLosses {
            losses: [
                next(target.tokens.is_some()),
                next(target.teacher.is_some()),
            ],
            sums: Some(float(sums)),
        }
    }

    fn logit_losses_grad(
        logits: Tensor<Self, 2>,
        target: LogitTarget<Self>,
        sums: Option<Tensor<Self, 2>>,
        grads: [Tensor<Self, 1>; 2],
    ) -> Tensor<Self, 2> {
        let Some(sums) = sums else {
            return reference::logit_losses_grad(full(logits), full_target(target), grads);
        };
        let dims = logits.dims();
        let buffers = Compared::new(target);
        let grads = grads.map(buffer);
        float(vocab::losses_grad(
            &buffer(logits),
            buffers.target(),
            &buffer(sums),
            grads.each_ref(),
            dims,
        ))
    }

    fn relation_kl(
        student: Tensor<Self, 2>,
        teacher: Tensor<Self, 2>,
        shape: Relation,
    ) -> Tensor<Self, 1> {
        if !related(&student, &teacher, shape) {
            return reference::relation_kl(full(student), full(teacher), shape);
        }
        float(relation::kl(&buffer(student), &buffer(teacher), shape))
    }

    fn relation_kl_grad(
        student: Tensor<Self, 2>,
        teacher: Tensor<Self, 2>,
        shape: Relation,
        grad: Tensor<Self, 1>,
    ) -> Tensor<Self, 2> {
        if !related(&student, &teacher, shape) {
            let dtype = student.dtype();
            let (student, teacher) = (full(student), full(teacher));
            return reference::relation_kl_grad(student, teacher, shape, grad).cast(dtype);
        }
        let (student, teacher) = (buffer(student), buffer(teacher));
        float(relation::kl_grad(&student, &teacher, &buffer(grad), shape))
    }

    fn take_rows_grad(
        ids: Tensor<Self, 1, Int>,
        grad: Tensor<Self, 2>,
        rows: usize,
    ) -> Tensor<Self, 2> {
        let [count, cols] = grad.dims();
        let out = Tensor::zeros([rows, cols], (&grad.device(), grad.dtype()));
        let float_type = matches!(grad.dtype(), DType::F32 | DType::BF16);
        if ids.dtype() != DType::I32 || !float_type || count * cols == 0 {
            return out.select_assign(0, ids, grad, IndexingUpdateOp::Add);
        }
        let (ids, out) = (into_contiguous(ids.into_primitive()), buffer(out));
        table::take_rows_grad(&ids, &buffer(grad), &out, [rows, cols]);
        float(out)
    }

    fn sum_squares(all: Vec<Tensor<Self, 1>>) -> Option<Tensor<Self, 1>> {
        if !all.iter().all(|x| plain(&[x])) {
            let squares = all.into_iter().map(|x| (x.clone() * x).sum());
            return squares.reduce(|a, b| a + b);
        }
        let all: Vec<Buffer> = all.into_iter().map(buffer).collect();
        optim::sum_squares(&all).map(float)
    }

    fn check_all_reduce() -> Result<()> {
        collective::check()
    }

    fn all_reduce(tensors: Vec<Tensor<Self, 1>>, rank: &Rank) -> Result<Vec<Tensor<Self, 1>>> {
        let sums = collective::all_reduce(tensors.into_iter().map(buffer).collect(), rank)?;
        Ok(sums.into_iter().map(float).collect())
    }

    fn await_sums(device: &Self::Device) {
        CudaRuntime::client(device).sync_collective();
    }

    fn adamw(params: Vec<AdamWParam<Self>>, step: &AdamWStep) -> Vec<[Tensor<Self, 1>; 3]> {
        if !params
            .iter()
            .all(|p| plain(&[&p.value, &p.grad, &p.m, &p.v]))
        {
            let each = params.into_iter();
            return each.map(|param| reference::adamw(param, step)).collect();
        }
        let params = params.into_iter().map(|param| optim::Param {
            value: buffer(param.value),
            grad: buffer(param.grad),
            moments: [param.m, param.v].map(buffer),
            weight_decay: param.weight_decay,
        });
        let new = optim::adamw(params.collect(), step);
        new.into_iter().map(|new| new.map(float)).collect()
    }
}
