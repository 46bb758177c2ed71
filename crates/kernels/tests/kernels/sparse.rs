//! Products that leave out rows and columns, bit for bit those that do not.

use proptest::prelude::*;
use tritburn_kernels::sparse::{ColumnMatrix, NonZero, RowMatrix};
use tritburn_kernels::{Activations, Exec, Format, Scales};

use crate::common::{Case, Noise, bits, execs};

/// Compares both layouts with the dense product of the same kernel and the definition.
fn check(noise: &mut Noise, rows: usize, cols: usize, zeros: u32, by_row: bool, execs: &[Exec]) {
    let mut case = Case::new(noise, rows, cols, 1);
    for x in &mut case.x {
        *x *= i8::from(noise.next() % 100 >= zeros);
    }
    if by_row {
        case.scales = Scales::Row(noise.floats(rows));
    }
    let want = bits(&case.expected());
    let some: Vec<u32> = (0..rows as u32)
        .filter(|_| noise.next() % 100 >= zeros)
        .collect();
    let wanted: Vec<u32> = some.iter().map(|&r| want[r as usize]).collect();
    let x = Activations::from_codes(&case.x, &case.steps, cols);
    let mut non_zero = NonZero::new();
    non_zero.take(&x, 0);
    assert_eq!(non_zero.len(), case.x.iter().filter(|&&x| x != 0).count());
    let matrix = case.matrix(Format::Base3);
    let columns = ColumnMatrix::new(&matrix).unwrap();
    let row_wise = RowMatrix::new(&matrix).unwrap();
    for exec in execs {
        let name = exec.kernel.name();
        let mut out = vec![f32::NAN; rows];
        columns.gemv(exec, &non_zero, &mut out);
        assert!(bits(&out) == want, "{name} columns {rows}×{cols}, {zeros}%");
        let mut out = vec![f32::NAN; some.len()];
        row_wise.gemv(exec, &x, 0, &some, &mut out);
        assert!(bits(&out) == wanted, "{name} rows {rows}×{cols}, {zeros}%");
    }
}

#[test]
fn every_shape_is_bit_exact() {
    let mut noise = Noise(21);
    let execs = execs(1);
    for rows in [0, 1, 15, 63, 64, 65, 255, 256, 257, 300] {
        for cols in [0, 1, 2, 3, 4, 5, 63, 64, 65, 255, 256, 257, 513] {
            for zeros in [0, 50, 90, 100] {
                check(&mut noise, rows, cols, zeros, cols % 2 == 0, &execs);
            }
        }
    }
}

/// The largest sums: no step on the way may overflow.
#[test]
fn extreme_values_are_bit_exact() {
    for (w, x) in [(1, 127), (1, -128), (-1, 127), (-1, -128), (0, -128)] {
        let mut case = Case::new(&mut Noise(0), 270, 20_000, 1);
        case.w.fill(w);
        case.x.fill(x);
        let want = bits(&case.expected());
        let x = Activations::from_codes(&case.x, &case.steps, case.cols);
        let mut non_zero = NonZero::new();
        non_zero.take(&x, 0);
        let matrix = case.matrix(Format::TwoBit);
        let all: Vec<u32> = (0..270).collect();
        for exec in execs(2) {
            let mut outs = [vec![0.0; 270], vec![0.0; 270]];
            let columns = ColumnMatrix::new(&matrix).unwrap();
            columns.gemv(&exec, &non_zero, &mut outs[0]);
            let rows = RowMatrix::new(&matrix).unwrap();
            rows.gemv(&exec, &x, 0, &all, &mut outs[1]);
            assert!(
                outs.iter().all(|out| bits(out) == want),
                "{}",
                exec.kernel.name()
            );
        }
    }
}

#[test]
fn scales_per_group_are_refused() {
    let mut case = Case::new(&mut Noise(23), 3, 200, 1);
    case.scales = Scales::Group(vec![1.0; 6]);
    let matrix = case.matrix(Format::TwoBit);
    assert!(ColumnMatrix::new(&matrix).is_err());
    assert!(RowMatrix::new(&matrix).is_err());
}

proptest! {
    #[test]
    fn any_zeros_are_left_out(
        seed: u64,
        rows in 0usize..600,
        cols in 0usize..600,
        zeros in 0u32..101,
        by_row: bool,
        threads in 1usize..4,
    ) {
        check(&mut Noise(seed), rows, cols, zeros, by_row, &execs(threads));
    }
}

#[test]
fn many_tokens_are_bit_exact() {
    let mut noise = Noise(24);
    let execs: Vec<Exec> = [1, 3].into_iter().flat_map(execs).collect();
    for (rows, cols) in [
        (1, 1),
        (63, 65),
        (64, 256),
        (65, 257),
        (257, 300),
        (300, 7),
        (0, 5),
    ] {
        for tokens in [0, 1, 2, 5, 17, 300] {
            let mut case = Case::new(&mut noise, rows, cols, tokens);
            case.x.iter_mut().for_each(|x| *x *= i8::from(*x > 0));
            if tokens % 2 == 0 {
                case.scales = Scales::Row(noise.floats(rows));
            }
            let want = bits(&case.expected());
            let x = Activations::from_codes(&case.x, &case.steps, cols);
            let matrix = case.matrix(Format::TwoBit);
            let columns = ColumnMatrix::new(&matrix).unwrap();
            let row_wise = RowMatrix::new(&matrix).unwrap();
            let mut non_zero = NonZero::new();
            for exec in &execs {
                let what = format!("{} {rows}×{cols}×{tokens}", exec.kernel.name());
                let mut out = vec![f32::NAN; want.len()];
                columns.gemm(exec, &x, &mut out);
                assert!(bits(&out) == want, "columns {what}");
                out.fill(f32::NAN);
                row_wise.gemm(exec, &x, &mut out);
                assert!(bits(&out) == want, "rows {what}");
                let read = columns.gemm_non_zero(exec, &x, &mut non_zero, &mut out);
                assert!(bits(&out) == want, "non-zero columns {what}");
                assert!(read <= tokens * cols);
                if let Some(last) = tokens.checked_sub(1) {
                    let all: Vec<u32> = (0..rows as u32).collect();
                    let out = &mut out[..rows];
                    row_wise.gemv(exec, &x, last, &all, out);
                    assert!(bits(out) == want[last * rows..], "last token {what}");
                }
            }
        }
    }
}
