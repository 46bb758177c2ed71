//! What a BitLinear costs beside a plain bf16 linear layer: forward and backward on one GPU.
//!
//! `cargo bench -p tritburn-nn --features cuda --bench bit_linear`; one JSON object a shape and way.
#![allow(missing_docs, clippy::print_stdout)]

use std::time::Instant;

use burn::backend::{Autodiff, Cuda};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Distribution, Tensor};
use tritburn_nn::ops::{LinearQuant, Ops};

type B = Autodiff<Cuda>;

const TOKENS: usize = 8192;
const WARM_UP: usize = 10;
/// Steps between two looks at the clock.
const STEPS: usize = 50;
const ROUNDS: usize = 9;

/// Milliseconds of one call, by the clock of the host around `STEPS` calls.
fn round(
    device: &<B as burn::tensor::backend::BackendTypes>::Device,
    mut call: impl FnMut(),
) -> f64 {
    let started = Instant::now();
    for _ in 0..STEPS {
        call();
    }
    B::sync(device).unwrap_or_else(|e| panic!("the device stopped: {e:?}"));
    started.elapsed().as_secs_f64() * 1e3 / STEPS as f64
}

fn main() {
    let device = Default::default();
    for [d_in, d_out] in [[576, 1536], [1536, 576], [1024, 3072], [3072, 1024]] {
        let normal = |shape: [usize; 2], deviation: f64| -> Tensor<B, 2> {
            Tensor::random(shape, Distribution::Normal(0.0, deviation), &device)
        };
        let leaf = |x: Tensor<B, 2>| Tensor::from_inner(x.inner()).require_grad();
        let x = leaf(normal([TOKENS, d_in], 1.0).cast(DType::BF16));
        let master = leaf(normal([d_out, d_in], 0.02));
        let half = leaf(master.clone().cast(DType::BF16));
        let plain = || {
            let y = x.clone().matmul(half.clone().transpose());
            drop(y.backward());
        };
        let bit = || {
            let y = B::bit_linear(x.clone(), master.clone(), None, LinearQuant::B158);
            drop(y.backward());
        };
        // As in training: codes are made once an optimiser step.
        let held = B::hold_weights(vec![(master.clone(), LinearQuant::B158.weight)]).pop();
        let shared = || {
            let held = held.clone();
            let y = B::bit_linear(x.clone(), master.clone(), held, LinearQuant::B158);
            drop(y.backward());
        };
        let ways: [(&str, &dyn Fn()); 3] = [
            ("linear bf16", &plain),
            ("bit_linear", &bit),
            ("bit_linear, weight held", &shared),
        ];
        let mut times = [const { Vec::new() }; 3];
        for (_, call) in &ways {
            for _ in 0..WARM_UP {
                call();
            }
        }
        for _ in 0..ROUNDS {
            for (i, (_, call)) in ways.iter().enumerate() {
                times[i].push(round(&device, call));
            }
        }
        let medians = times.map(|mut t| {
            t.sort_by(f64::total_cmp);
            t[t.len() / 2]
        });
        let operations = 6.0 * TOKENS as f64 * d_in as f64 * d_out as f64;
        for ((name, _), ms) in ways.iter().zip(medians) {
            println!(
                "{{\"way\":\"{name}\",\"tokens\":{TOKENS},\"in\":{d_in},\"out\":{d_out},\
                 \"ms\":{ms:.4},\"tflops\":{:.0},\"ratio\":{:.2}}}",
                operations / ms / 1e9,
                ms / medians[0]
            );
        }
    }
}
