//! What a packed layer takes beside the fake-quantised one, forward on the CPU backend.
//!
//! `cargo bench -p tritburn-nn --bench packed_linear`; one JSON object a shape and way. Ways take
//! turns; times are medians.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::backend::Flex;
use burn::tensor::{Distribution, Tensor};
use tritburn_nn::linear::{BitLinear, LinearSpec};
use tritburn_nn::ops::LinearQuant;
use tritburn_nn::weights::RandomInit;
use tritburn_quant::config::SubNorm;

const ROUNDS: usize = 9;
/// A round repeats calls for this long.
const ROUND: Duration = Duration::from_millis(60);

/// Milliseconds of one call.
fn round(call: &dyn Fn()) -> f64 {
    let started = Instant::now();
    let mut calls = 0;
    while calls == 0 || started.elapsed() < ROUND {
        call();
        calls += 1;
    }
    started.elapsed().as_secs_f64() * 1e3 / f64::from(calls)
}

fn main() {
    let device = Default::default();
    for [d_in, d_out] in [[192, 192], [192, 384], [576, 1536], [2560, 6912]] {
        let spec = LinearSpec {
            d_in,
            d_out,
            quant: Some(LinearQuant::B158),
            norm: SubNorm::None,
            norm_eps: 1e-6,
            bias: false,
        };
        let init = &mut RandomInit::new(1, 0.02, 1);
        let fake = BitLinear::<Flex>::new(init, "layer", spec, &device).unwrap();
        let mut held = fake.clone();
        BitLinear::hold_weights([&mut held]);
        let mut packed = fake.clone();
        packed.pack().unwrap();
        let bytes = packed.packed().unwrap().bytes();
        for tokens in [1, 49, 3136] {
            if tokens * d_in * d_out > 1 << 33 {
                continue;
            }
            let normal = Distribution::Normal(0.0, 1.0);
            let x = Tensor::<Flex, 2>::random([tokens, d_in], normal, &device);
            let call = |layer: &BitLinear<Flex>| drop(black_box(layer.forward(x.clone())));
            let ways: [(&str, &BitLinear<Flex>, usize); 3] = [
                ("fake-quantised", &fake, 4 * d_in * d_out),
                ("codes held in f32", &held, 8 * d_in * d_out),
                ("packed", &packed, bytes),
            ];
            let mut times = [const { Vec::new() }; 3];
            for _ in 0..ROUNDS {
                for ((_, layer, _), times) in ways.iter().zip(&mut times) {
                    times.push(round(&|| call(layer)));
                }
            }
            for ((way, _, bytes), mut times) in ways.into_iter().zip(times) {
                times.sort_by(f64::total_cmp);
                println!(
                    "{{\"way\":\"{way}\",\"tokens\":{tokens},\"in\":{d_in},\"out\":{d_out},\
                     \"ms\":{:.4},\"weight_bytes\":{bytes}}}",
                    times[ROUNDS / 2]
                );
            }
        }
    }
}
