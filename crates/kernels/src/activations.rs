//! Rows of int8 activations with their steps, in the blocks that the kernels read.

use crate::columns::Columns;
use crate::exec::Exec;
use crate::layout::DEPTH;
use crate::ops;
use crate::room::Buffer;

/// Columns that share a scale where a matrix has scales per group, and whose codes are summed apart.
pub const GROUP: usize = 128;

/// Activations below which other threads are not asked.
const MIN_PARALLEL: usize = 1 << 14;

/// 64 activation codes on a cache line boundary.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct ActBlock(pub [i8; DEPTH]);

const _: () = assert!(size_of::<ActBlock>() == DEPTH);

/// Makes codes of the activations of a token.
pub trait RowQuantizer: Sync {
    /// Whether a token has a step for each [`GROUP`] columns, for matrices with scales per group alone.
    fn by_group(&self) -> bool {
        false
    }

    /// Writes the codes of a token and returns its step; by group, writes the steps of all groups and returns what
    /// all of them are multiplied with.
    fn quantize(&self, x: &[f32], codes: &mut [i8], steps: &mut [f32]) -> f32;
}

/// Quantised activations of some tokens: codes padded with zeros to whole blocks, one step per token, or one for
/// each [`GROUP`] columns of it, and the sums of the codes. The buffers are kept from call to call.
#[derive(Debug, Default)]
pub struct Activations {
    width: usize,
    blocks: usize,
    stride: usize,
    codes: Buffer<ActBlock>,
    steps: Vec<f32>,
    /// One for each [`GROUP`] of a token, whose own step is then 1; none where that is all.
    group_steps: Vec<f32>,
    sums: Vec<i32>,
    group_sums: Vec<i32>,
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
    pub fn quantize(&mut self, exec: &Exec, x: &[f32], width: usize) {
        self.fill(exec, x.len() / width.max(1), width, |token, row| {
            ops::absmax_codes(&x[token * width..][..width], row)
        });
        assert_eq!(x.len(), self.tokens() * width, "whole rows of {width}");
    }

    /// Quantises `x`, row major `[tokens, width]`, as `quantizer` does.
    ///
    /// # Panics
    /// Where `x` is no whole number of rows.
    pub fn quantize_by(
        &mut self,
        exec: &Exec,
        x: &[f32],
        width: usize,
        quantizer: &dyn RowQuantizer,
    ) {
        let tokens = x.len() / width.max(1);
        let row = |t: usize, codes: &mut [i8], steps: &mut [f32]| {
            quantizer.quantize(&x[t * width..][..width], codes, steps)
        };
        self.fill_on(Some(exec), tokens, width, quantizer.by_group(), row);
        assert_eq!(x.len(), self.tokens() * width, "whole rows of {width}");
    }

    /// Takes codes, row major `[tokens, width]`, and steps from elsewhere.
    ///
    /// # Panics
    /// Where `codes` is not `steps.len() × width` long.
    #[must_use]
    pub fn from_codes(codes: &[i8], steps: &[f32], width: usize) -> Self {
        assert_eq!(codes.len(), steps.len() * width, "one step per row");
        let mut this = Self::new();
        this.fill_on(None, steps.len(), width, false, |token, row, _| {
            row.copy_from_slice(&codes[token * width..][..width]);
            steps[token]
        });
        this
    }

    /// Makes `tokens` rows of `width` codes, each on any thread: `row` writes the codes of a token
    /// and returns its step.
    pub fn fill(
        &mut self,
        exec: &Exec,
        tokens: usize,
        width: usize,
        row: impl Fn(usize, &mut [i8]) -> f32 + Sync,
    ) {
        self.fill_on(Some(exec), tokens, width, false, |t, codes, _| {
            row(t, codes)
        });
    }

    fn fill_on(
        &mut self,
        exec: Option<&Exec>,
        tokens: usize,
        width: usize,
        by_group: bool,
        row: impl Fn(usize, &mut [i8], &mut [f32]) -> f32 + Sync,
    ) {
        let rows = self.rows_mut(tokens, width, by_group);
        let task = |t: usize| {
            // SAFETY: each task has a token of its own.
            #[allow(unsafe_code)]
            unsafe {
                rows.write(t, |codes, steps| row(t, codes, steps));
            }
        };
        match exec {
            Some(exec) if tokens * width >= MIN_PARALLEL => exec.pool.run(tokens, &task),
            _ => (0..tokens).for_each(task),
        }
    }

    /// Room for `tokens` of `width` codes, in which each can be written by any thread.
    pub(crate) fn rows_mut(&mut self, tokens: usize, width: usize, by_group: bool) -> RowsMut<'_> {
        self.width = width;
        self.blocks = width.div_ceil(DEPTH);
        // An odd number of cache lines, so that the same column of neighbouring tokens does not
        // fall into the same set of the cache.
        self.stride = self.blocks | 1;
        // Whole tiles of tokens, for kernels that compute so many at once.
        let padded = if tokens > 1 {
            tokens.next_multiple_of(TOKEN_TILE)
        } else {
            tokens
        };
        let groups = width.div_ceil(GROUP);
        self.codes.resize(padded * self.stride);
        self.steps.resize(tokens, 0.0);
        self.sums.resize(tokens, 0);
        self.group_sums.resize(tokens * groups, 0);
        let step_groups = if by_group { groups } else { 0 };
        self.group_steps.resize(tokens * step_groups, 0.0);
        RowsMut {
            width,
            blocks: self.blocks,
            codes: Columns::new(&mut self.codes, padded, self.stride),
            steps: Columns::new(&mut self.steps, tokens, 1),
            sums: Columns::new(&mut self.sums, tokens, 1),
            group_sums: Columns::new(&mut self.group_sums, tokens, groups),
            group_steps: Columns::new(&mut self.group_steps, tokens, step_groups),
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

    /// What the step of a token is multiplied with in a group.
    pub(crate) fn group_step(&self, token: usize, group: usize) -> f32 {
        if self.group_steps.is_empty() {
            return 1.0;
        }
        self.group_steps[token * self.width.div_ceil(GROUP) + group]
    }

    /// Refuses steps per group where sums over whole rows are multiplied with one.
    ///
    /// # Panics
    /// Where there are any.
    pub(crate) fn assert_step_per_token(&self) {
        assert!(
            self.group_steps.is_empty(),
            "activations with a step per group are for matrices with scales per group"
        );
    }

    /// Sum of the codes of each token.
    pub(crate) fn sums(&self) -> &[i32] {
        &self.sums
    }

    /// Sums of the codes of one token, one for each [`GROUP`] columns.
    pub(crate) fn group_sums(&self, token: usize) -> &[i32] {
        let groups = self.width.div_ceil(GROUP);
        &self.group_sums[token * groups..][..groups]
    }

    /// Blocks from one token to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Rows of `token` and all later ones, and of tokens that only fill up a tile.
    pub(crate) fn rows(&self, token: usize) -> &[ActBlock] {
        &self.codes[token * self.stride..]
    }
}

/// Tokens that are being quantised.
pub(crate) struct RowsMut<'a> {
    width: usize,
    blocks: usize,
    codes: Columns<'a, ActBlock>,
    steps: Columns<'a, f32>,
    sums: Columns<'a, i32>,
    group_sums: Columns<'a, i32>,
    group_steps: Columns<'a, f32>,
}

impl RowsMut<'_> {
    /// Has `row` write the codes of token `t` and, by group, the steps of its groups; it returns the token's step.
    ///
    /// # Panics
    /// Where there is no such token.
    ///
    /// # Safety
    /// Nobody else may write this token at the same time.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn write(&self, t: usize, row: impl FnOnce(&mut [i8], &mut [f32]) -> f32) {
        // SAFETY: the caller's promise.
        let (codes, step, sum, group_sums, group_steps) = unsafe {
            (
                self.codes.strip(t, 0, self.blocks),
                self.steps.row(t),
                self.sums.row(t),
                self.group_sums.row(t),
                self.group_steps.row(t),
            )
        };
        let (live, padding) = ActBlock::as_flat_mut(codes).split_at_mut(self.width);
        padding.fill(0);
        step[0] = row(live, group_steps);
        for (sum, codes) in group_sums.iter_mut().zip(codes.chunks(GROUP / DEPTH)) {
            *sum = ops::sum_codes(codes);
        }
        sum[0] = group_sums.iter().sum();
    }
}

/// Quantises a token with a step for each [`GROUP`] columns: what is far from the rest takes bits from its own
/// group only.
///
/// # Panics
/// Where a group has fewer codes than activations.
pub fn group_codes(x: &[f32], codes: &mut [i8], steps: &mut [f32]) {
    let parts = x.chunks(GROUP).zip(codes.chunks_mut(GROUP));
    for ((x, codes), step) in parts.zip(steps) {
        *step = ops::absmax_codes(x, codes);
    }
}

/// Tokens in a tile of AMX.
pub const TOKEN_TILE: usize = 16;

impl ActBlock {
    fn as_flat_mut(blocks: &mut [Self]) -> &mut [i8] {
        // SAFETY: `ActBlock` is `repr(C)` with one field of `DEPTH` bytes and no padding, as the
        // size assertion above shows, so the blocks are that many i8 in a row.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts_mut(blocks.as_mut_ptr().cast::<i8>(), blocks.len() * DEPTH)
        }
    }
}
