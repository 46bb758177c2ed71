//! Keys and values of few bits.

use proptest::prelude::*;
use tritburn_kernels::attention::{Heads, causal};
use tritburn_kernels::kv::low_bit::{self, LowBits};
use tritburn_kernels::kv::{KvFormat, KvRows};

use crate::common::{Noise, bits, execs};

/// The definition that training rounds by.
fn defined(width: LowBits, x: &[f32]) -> (Vec<u8>, f32) {
    let mut codes = vec![0; x.len()];
    let bits = u8::try_from(width.bits()).unwrap();
    let step = tritburn_quant::kv::quantise_head(x, bits, &mut codes);
    (codes, step)
}

fn back(width: LowBits, x: &[f32]) -> Vec<f32> {
    let (codes, step) = defined(width, x);
    let mut out = vec![f32::NAN; x.len()];
    low_bit::dequantize(width, &codes, step, &mut out);
    out
}

/// Keys and values of some heads, the same rows for both.
fn stores(format: KvFormat, rows: &[f32], heads: usize, width: usize) -> (KvRows, KvRows) {
    let positions = rows.len() / width / heads;
    let mut keys = KvRows::keys(format, heads, positions, width);
    let mut values = KvRows::values(format, heads, positions, width);
    for (i, row) in rows.chunks(width).enumerate() {
        keys.set(i / positions, i % positions, row);
        values.set(i / positions, i % positions, row);
    }
    (keys, values)
}

/// What a store of that format holds, as f32.
fn held(format: KvFormat, rows: &[f32], width: usize) -> Vec<f32> {
    let rows = rows.chunks(width).enumerate();
    let row = |(i, row)| match (format, i) {
        (KvFormat::Int4, _) | (KvFormat::Int3, 0) => back(LowBits::Four, row),
        _ => back(LowBits::Three, row),
    };
    rows.flat_map(row).collect()
}

#[test]
fn sizes_are_dense() {
    assert_eq!(LowBits::Four.bytes(128), 64);
    assert_eq!(LowBits::Three.bytes(128), 48);
    assert_eq!(LowBits::Three.bytes(9), 6);
    for new in [KvRows::keys, KvRows::values] {
        assert_eq!(new(KvFormat::Int4, 1, 10, 128).bytes(), 10 * 68);
        // The first position of each of two heads once more, in four bits.
        assert_eq!(new(KvFormat::Int3, 2, 5, 128).bytes(), 10 * 52 + 2 * 64);
    }
}

#[test]
fn the_largest_and_zero_are_exact_and_others_within_half_a_step() {
    let mut x = Noise(11).floats(200);
    x[7] = -1.75;
    x[9] = 0.0;
    for width in LowBits::ALL {
        let (mut codes, mut out) = (vec![0; 200], vec![0.0; 200]);
        let step = low_bit::quantize(width, &x, &mut codes);
        low_bit::dequantize(width, &codes, step, &mut out);
        assert_eq!((codes[7], codes[9]), (1, width.zero()));
        assert_eq!(out[9], 0.0);
        assert!((out[7] + 1.75).abs() < 1e-6);
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= step * 0.500_1;
        assert!(x.iter().zip(&out).all(near));
    }
    let mut codes = [9; 3];
    low_bit::quantize(LowBits::Three, &[f32::NAN, 1.0, -1.0], &mut codes);
    assert_eq!(codes, [4, 7, 1]);
}

/// Nothing, one row, and one more and one less than what is read at once; widths with tails.
#[test]
fn attention_over_few_bits_is_attention_over_what_they_stand_for() {
    let mut noise = Noise(12);
    let exec = &execs(1)[0];
    for format in [KvFormat::Int4, KvFormat::Int3] {
        for width in [1, 7, 8, 9, 20, 64, 96, 128, 130, 256] {
            for len in [1, 2, 63, 64, 65, 127, 128, 129] {
                let rows = noise.floats(len * width);
                let q = noise.floats(3 * width);
                let heads = Heads {
                    kv_heads: 1,
                    group: 3,
                    head_dim: width,
                };
                let run = |(keys, values): &(KvRows, KvRows)| {
                    let mut out = vec![f32::NAN; q.len()];
                    causal(exec, heads, &q, (keys, values), len - 1, None, &mut out);
                    out
                };
                let got = run(&stores(format, &rows, 1, width));
                let want = run(&stores(
                    KvFormat::F32,
                    &held(format, &rows, width),
                    1,
                    width,
                ));
                // The same operations on the same values: no tolerance.
                assert_eq!(bits(&got), bits(&want));
            }
        }
    }
}

/// Each head has a first position of its own, also after the rows have moved to a larger store.
#[test]
fn heads_keep_their_first_position() {
    let (heads, tokens, width) = (3, 5, 16);
    let mut noise = Noise(13);
    let rows = noise.floats(heads * tokens * width);
    let small = stores(KvFormat::Int3, &rows, heads, width);
    let mut large = (
        KvRows::keys(KvFormat::Int3, heads, 9, width),
        KvRows::values(KvFormat::Int3, heads, 9, width),
    );
    for (large, small) in [(&mut large.0, &small.0), (&mut large.1, &small.1)] {
        large.copy_positions(small, tokens);
    }
    let plain: Vec<f32> = rows
        .chunks(tokens * width)
        .flat_map(|head| held(KvFormat::Int3, head, width))
        .collect();
    let plain = stores(KvFormat::F32, &plain, heads, width);
    let heads = Heads {
        kv_heads: heads,
        group: 1,
        head_dim: width,
    };
    let q = noise.floats(3 * width);
    for exec in execs(2) {
        let run = |(keys, values): &(KvRows, KvRows)| {
            let mut out = vec![f32::NAN; q.len()];
            causal(&exec, heads, &q, (keys, values), tokens - 1, None, &mut out);
            out
        };
        assert_eq!(run(&small), run(&large));
        assert_eq!(run(&small), run(&plain));
    }
}

proptest! {
    #[test]
    fn codes_follow_the_definition_and_survive_packing(seed: u64, n in 0usize..300, scale in 1e-8f32..1e8) {
        let x: Vec<f32> = Noise(seed).floats(n).iter().map(|v| v * scale).collect();
        for width in LowBits::ALL {
            let mut codes = vec![0; n];
            let step = low_bit::quantize(width, &x, &mut codes);
            let (want, want_step) = defined(width, &x);
            prop_assert_eq!((&codes, step.to_bits()), (&want, want_step.to_bits()));
            let mut packed = vec![0xFF; width.bytes(n)];
            low_bit::pack(width, &codes, &mut packed);
            let mut again = vec![0xFF; n];
            low_bit::unpack(width, &packed, &mut again);
            prop_assert_eq!(codes, again);
        }
    }

    #[test]
    fn any_codes_survive_packing(seed: u64, n in 0usize..100) {
        for width in LowBits::ALL {
            let mask = (1 << width.bits()) - 1;
            let codes: Vec<u8> = Noise(seed).bytes(n).iter().map(|v| v.cast_unsigned() & mask).collect();
            let mut packed = vec![0xFF; width.bytes(n)];
            low_bit::pack(width, &codes, &mut packed);
            let mut again = vec![0xFF; n];
            low_bit::unpack(width, &packed, &mut again);
            prop_assert_eq!(codes, again);
        }
    }
}
