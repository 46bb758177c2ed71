//! Every kernel that this processor has, against the plain sum over codes.
#![allow(clippy::unwrap_used)]

mod common;
mod int6;
mod int8_and_f32;
mod kv;
mod sparse;
mod ternary;

use tritburn_kernels::head::WideActivations;
use tritburn_kernels::ternary::MAX_COLS;
use tritburn_kernels::{
    DenseMatrix, Exec, Format, Int6Matrix, Int8Matrix, PackedCodes, Pool, Scales, TernaryMatrix,
    available, select,
};

use common::{Case, Noise, execs};
use int8_and_f32::int8;

/// What `/proc/cpuinfo` says the processor has must have been run, else a kernel was lost.
#[test]
fn no_instruction_set_of_this_processor_is_skipped() {
    let names: Vec<&str> = available().iter().map(|k| k.name()).collect();
    eprintln!("instruction sets run: {}", names.join(", "));
    assert_eq!(names.last(), Some(&"scalar"));
    let Ok(info) = std::fs::read_to_string("/proc/cpuinfo") else {
        eprintln!("skipped the comparison: no /proc/cpuinfo");
        return;
    };
    let (key, pairs): (&str, &[(&str, &str)]) = if cfg!(target_arch = "aarch64") {
        let pairs = &[
            ("asimd", "neon"),
            ("asimddp", "neondot"),
            ("i8mm", "neoni8mm"),
        ];
        ("Features", pairs)
    } else {
        let pairs = &[
            ("avx2", "avx2"),
            ("avx_vnni", "avxvnni"),
            ("avx512_vnni", "avx512vnni"),
            ("amx_int8", "amx"),
        ];
        ("flags", pairs)
    };
    let Some(line) = info.lines().find(|l| l.starts_with(key)) else {
        // An emulator may show the file of its host.
        eprintln!("skipped the comparison: no {key} in /proc/cpuinfo");
        return;
    };
    let flags: Vec<&str> = line.split_whitespace().collect();
    for (flag, name) in pairs {
        assert_eq!(flags.contains(flag), names.contains(name), "{name}");
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let mut noise = Noise(2);
    let (rows, cols, tokens) = (700, 515, 19);
    let case = Case::new(&mut noise, rows, cols, tokens);
    let dense = DenseMatrix::new(noise.floats(rows * cols), rows, cols).unwrap();
    let head = int8(&noise.floats(rows * cols), cols);
    let x = noise.floats(tokens * cols);
    let run = |exec: &Exec, tokens: usize| {
        let mut outs = [vec![0.0; rows * tokens], vec![0.0; rows * tokens]];
        let mut wide = WideActivations::new();
        wide.quantize(exec, &x[..tokens * cols], cols);
        dense.gemm(exec, &x[..tokens * cols], &mut outs[0]);
        head.gemm(exec, &wide, &mut outs[1]);
        outs
    };
    let ones = execs(1);
    let want: Vec<_> = ones.iter().map(|exec| run(exec, tokens)).collect();
    for threads in [2, 3, 5] {
        let many = execs(threads);
        case.check(&many);
        for (exec, want) in many.iter().zip(&want) {
            assert_eq!(&run(exec, tokens), want);
        }
        // Nor does how many tokens are computed at once.
        for (exec, want) in many.iter().zip(&want) {
            let first = run(exec, 1);
            assert!((0..2).all(|i| first[i] == want[i][..rows]));
        }
    }
    // Sums in int8 are the same on every instruction set.
    assert!(want.iter().all(|w| w[1] == want[0][1]));
}

#[test]
fn bad_matrices_and_names_are_refused() {
    assert!(TernaryMatrix::from_codes(&[0; 5], 2, 3, 1.0).is_err());
    assert!(TernaryMatrix::from_codes(&[0, 2], 1, 2, 1.0).is_err());
    assert!(TernaryMatrix::from_codes(&[], 0, MAX_COLS + 1, 1.0).is_err());
    let pool = Pool::new(1).unwrap();
    for (bytes, rows, cols) in [(&[3u8][..], 4, 1), (&[0], 5, 1), (&[0], 4, MAX_COLS + 1)] {
        let codes = PackedCodes::new(&pool, bytes, rows, cols, Scales::Tensor(1.0));
        assert!(codes.is_err(), "{rows} {cols}");
    }
    assert!(DenseMatrix::new(vec![0.0; 5], 2, 3).is_err());
    assert!(Int8Matrix::quantize(&pool, 1, MAX_COLS + 1, |_, _| ()).is_err());
    assert!(Int6Matrix::quantize(&pool, 1, MAX_COLS + 1, |_, _| ()).is_err());
    let scales = |scales| TernaryMatrix::with_scales(&[0; 6], 2, 3, scales, Format::Base3);
    assert!(scales(Scales::Row(vec![1.0; 3])).is_err());
    assert!(scales(Scales::Group(vec![1.0; 1])).is_err());
    assert!(scales(Scales::Group(vec![1.0; 2])).is_ok());
    let error = Format::from_name("q4").unwrap_err().to_string();
    assert!(error.contains("q4") && error.contains("base3"), "{error}");
    assert_eq!(Format::from_name("2bit").unwrap(), Format::TwoBit);
    let error = select(Some("mmx")).unwrap_err().to_string();
    assert!(error.contains("mmx") && error.contains("scalar"), "{error}");
    assert_eq!(select(Some("scalar")).unwrap().name(), "scalar");
}
