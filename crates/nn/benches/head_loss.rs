//! Memory and time of the losses over a large vocabulary, forward and backward, on the CPU backend.
//!
//! `cargo bench --workspace --bench head_loss`; one JSON object a loss. Linux only, for the peak.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use burn::backend::{Autodiff, Flex};
use burn::tensor::{Distribution, Int, Tensor};
use tritburn_nn::ops::{HeadTarget, Ops, TeacherHead};

type B = Autodiff<Flex>;

const ROWS: usize = 4096;
const VOCAB: usize = 151_936;
const WIDTH: usize = 128;

/// The most memory that the process ever held, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM"));
    let kib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn main() {
    let device = Default::default();
    let random = |rows: usize| -> Tensor<B, 2> {
        Tensor::random([rows, WIDTH], Distribution::Normal(0.0, 0.1), &device)
    };
    let (hidden, head) = (random(ROWS).require_grad(), random(VOCAB).require_grad());
    let tokens = Tensor::<B, 1, Int>::arange(0..ROWS as i64, &device);
    let targets: [(&str, HeadTarget<B>); 2] = [
        ("cross-entropy", tokens.into()),
        (
            "KL",
            TeacherHead {
                hidden: random(ROWS),
                head: random(VOCAB).into(),
                temperature: 5.0,
            }
            .into(),
        ),
    ];
    for (name, target) in targets {
        let before = peak();
        let started = Instant::now();
        let loss = B::head_loss(hidden.clone(), head.clone().into(), target).mean();
        let grads = loss.clone().backward();
        let norm = head.grad(&grads).unwrap().powf_scalar(2.0).sum();
        assert!(norm.into_scalar() > 0.0);
        println!(
            "{{\"loss\":\"{name}\",\"rows\":{ROWS},\"vocab\":{VOCAB},\"width\":{WIDTH},\
             \"seconds\":{:.1},\"peak_before_bytes\":{before},\"peak_bytes\":{},\
             \"logits_bytes\":{}}}",
            started.elapsed().as_secs_f64(),
            peak(),
            ROWS * VOCAB * 4
        );
    }
}
