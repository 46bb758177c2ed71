//! Rows of int8 activations with their steps, in the blocks that the kernels read.

use crate::kernel::Kernel;
use crate::ternary::BLOCK;

/// 128 activation codes on a cache line boundary.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct ActBlock(pub [i8; BLOCK]);

const _: () = assert!(size_of::<ActBlock>() == BLOCK);

/// Quantised activations of some tokens: codes padded with zeros to whole blocks, one step and the
/// sum of the codes per token. The buffers are kept from call to call.
#[derive(Debug, Default)]
pub struct Activations {
    width: usize,
    blocks: usize,
    codes: Vec<ActBlock>,
    steps: Vec<f32>,
    sums: Vec<i32>,
}

impl Activations {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Quantises `x`, row major `[tokens, width]`, with one scale per token.
    ///
    /// # Panics
    /// Where `x` is no whole number of rows.
    pub fn quantize(&mut self, kernel: &dyn Kernel, x: &[f32], width: usize) {
        self.fill(x.len(), width, |token, row| {
            let x = &x[token * width..][..width];
            kernel.quantize(x, row)
        });
    }

    /// Takes codes, row major `[tokens, width]`, and steps from elsewhere.
    ///
    /// # Panics
    /// Where `codes` is not `steps.len() × width` long.
    #[must_use]
    pub fn from_codes(codes: &[i8], steps: &[f32], width: usize) -> Self {
        assert_eq!(codes.len(), steps.len() * width, "one step per row");
        let mut this = Self::new();
        if width == 0 {
            this.steps = steps.to_vec();
            this.sums = vec![0; steps.len()];
            return this;
        }
        this.fill(codes.len(), width, |token, row| {
            row.copy_from_slice(&codes[token * width..][..width]);
            steps[token]
        });
        this
    }

    fn fill(&mut self, len: usize, width: usize, mut row: impl FnMut(usize, &mut [i8]) -> f32) {
        let tokens = len / width.max(1);
        assert_eq!(len, tokens * width, "whole rows of {width}");
        self.width = width;
        self.blocks = width.div_ceil(BLOCK);
        self.codes
            .resize(tokens * self.blocks, ActBlock([0; BLOCK]));
        self.steps.clear();
        self.sums.clear();
        for (token, blocks) in self.codes.chunks_exact_mut(self.blocks.max(1)).enumerate() {
            let codes = ActBlock::as_flat_mut(blocks);
            let (codes, padding) = codes.split_at_mut(width);
            padding.fill(0);
            self.steps.push(row(token, codes));
            self.sums.push(codes.iter().map(|&c| i32::from(c)).sum());
        }
    }

    /// Number of tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.steps.len()
    }

    /// Activations per token.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Dequantisation step of each token.
    #[must_use]
    pub fn steps(&self) -> &[f32] {
        &self.steps
    }

    pub(crate) fn sums(&self) -> &[i32] {
        &self.sums
    }

    pub(crate) fn rows(&self, first: usize, tokens: usize) -> &[ActBlock] {
        &self.codes[first * self.blocks..][..tokens * self.blocks]
    }
}

impl ActBlock {
    fn as_flat_mut(blocks: &mut [Self]) -> &mut [i8] {
        // SAFETY: `ActBlock` is `repr(C)` with one field of `BLOCK` bytes and no padding, as the
        // size assertion above shows, so the blocks are that many i8 in a row.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts_mut(blocks.as_mut_ptr().cast::<i8>(), blocks.len() * BLOCK)
        }
    }
}
