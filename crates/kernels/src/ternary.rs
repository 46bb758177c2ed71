//! Ternary matrices in the layout that the kernels read.

use rayon::prelude::*;
use tritburn_quant::hf_pack;

use crate::activations::Activations;
use crate::error::{KernelError, Result};
use crate::gemm::{self, Product};
use crate::kernel::{Kernel, TernaryTile};

/// Weights in a block.
pub const BLOCK: usize = 128;
/// Weights that one shift of a block brings to the low bits of its bytes.
pub(crate) const LANES: usize = BLOCK / 4;
/// Widest matrix: `2 · 128 · MAX_COLS` stays below 2³¹.
pub const MAX_COLS: usize = 1 << 22;

/// 128 weights of one row: byte `j` holds weights `j`, `j + 32`, `j + 64` and `j + 96` in bits 0–1,
/// 2–3, 4–5 and 6–7, each as `w + 1`. So a shift and a mask give 32 neighbouring weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct WeightBlock(pub [u8; LANES]);

const _: () = assert!(size_of::<WeightBlock>() == LANES);

/// A matrix `[rows, cols]` of −1, 0, +1 with one scale; rows are padded to whole blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct TernaryMatrix {
    rows: usize,
    cols: usize,
    blocks: usize,
    scale: f32,
    data: Vec<WeightBlock>,
}

impl TernaryMatrix {
    /// From codes, row major; weight `i` is `scale · codes[i]`.
    ///
    /// # Errors
    /// [`KernelError::Shape`] where the codes do not fill the shape or it is too wide;
    /// [`KernelError::Codes`] where a code is not −1, 0 or +1.
    pub fn from_codes(codes: &[i8], rows: usize, cols: usize, scale: f32) -> Result<Self> {
        check_width(cols)?;
        // Says what is wrong with shape and codes.
        let packed = hf_pack::pack(codes, rows, cols)?;
        Self::from_hf_packed(&packed, rows, cols, scale)
    }

    /// From the bytes of a Hugging Face checkpoint ([`hf_pack`]).
    ///
    /// # Errors
    /// [`KernelError::Shape`] where the matrix is too wide; [`KernelError::Codes`] where the bytes
    /// do not fit the shape or a code is 3.
    pub fn from_hf_packed(packed: &[u8], rows: usize, cols: usize, scale: f32) -> Result<Self> {
        check_width(cols)?;
        hf_pack::check(packed, rows, cols)?;
        let blocks = cols.div_ceil(BLOCK);
        let mut data = vec![WeightBlock([0; LANES]); rows * blocks];
        data.par_chunks_exact_mut(blocks.max(1))
            .enumerate()
            .for_each_init(
                || vec![0i8; cols],
                |codes, (row, out)| {
                    hf_pack::unpack_row(packed, rows, row, codes);
                    for (block, codes) in out.iter_mut().zip(codes.chunks(BLOCK)) {
                        *block = pack_block(codes);
                    }
                },
            );
        Ok(Self {
            rows,
            cols,
            blocks,
            scale,
            data,
        })
    }

    /// Number of rows: the output width.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: the input width.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// What a code of 1 stands for.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Bytes that the weights take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len() * size_of::<WeightBlock>()
    }

    /// The codes, row major.
    #[must_use]
    pub fn codes(&self) -> Vec<i8> {
        let mut codes = Vec::with_capacity(self.rows * self.cols);
        for row in self.data.chunks_exact(self.blocks.max(1)) {
            let code = |c: usize| {
                let block = &row[c / BLOCK].0;
                let at = c % BLOCK;
                ((block[at % LANES] >> (2 * (at / LANES))) & 3) as i8 - 1
            };
            codes.extend((0..self.cols).map(code));
        }
        codes
    }

    /// `out[t, r] = (Σ w[r, c] · x[t, c]) · (step[t] · scale)`: the sum in i32, then two f32
    /// products. `out` is row major `[tokens, rows]`.
    ///
    /// Runs on the current rayon pool; the result does not depend on it.
    ///
    /// # Panics
    /// Where the widths of matrix and activations or the length of `out` do not fit.
    pub fn gemm(&self, kernel: &dyn Kernel, x: &Activations, out: &mut [f32]) {
        assert_eq!(x.width(), self.cols, "activations as wide as the matrix");
        gemm::run(&Packed { w: self, x, kernel }, self.rows, x.tokens(), out);
    }
}

fn check_width(cols: usize) -> Result<()> {
    if cols <= MAX_COLS {
        return Ok(());
    }
    Err(KernelError::Shape(format!(
        "a ternary matrix of {cols} columns: at most {MAX_COLS} can be summed in i32"
    )))
}

fn pack_block(codes: &[i8]) -> WeightBlock {
    let mut bytes = [0u8; LANES];
    for (i, lane) in codes.chunks(LANES).enumerate() {
        for (byte, code) in bytes.iter_mut().zip(lane) {
            *byte |= ((code + 1) as u8) << (2 * i);
        }
    }
    WeightBlock(bytes)
}

struct Packed<'a> {
    w: &'a TernaryMatrix,
    x: &'a Activations,
    kernel: &'a dyn Kernel,
}

impl Product for Packed<'_> {
    type Acc = i32;

    fn work_per_row(&self) -> usize {
        self.w.cols
    }

    fn tile(&self, row: usize, rows: usize, token: usize, tokens: usize, acc: &mut [i32]) {
        let blocks = self.w.blocks;
        let tile = TernaryTile {
            weights: &self.w.data[row * blocks..][..rows * blocks],
            x: self.x.rows(token, tokens),
            blocks,
            rows,
            tokens,
        };
        self.kernel.ternary_tile(tile, acc);
    }

    fn finish(&self, token: usize, acc: &[i32], out: &mut [f32]) {
        let sum = self.x.sums()[token];
        let step = self.x.steps()[token] * self.w.scale;
        for (out, acc) in out.iter_mut().zip(acc) {
            *out = (acc - sum) as f32 * step;
        }
    }
}
