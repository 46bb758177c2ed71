//! The inputs that are not zero.

use crate::activations::Activations;
use crate::layout::QUAD;

/// The non-zero activation codes of one token with their columns, four at a time.
#[derive(Debug, Default)]
pub struct NonZero {
    /// Columns, filled up to whole quads with any column.
    columns: Vec<u32>,
    /// Codes of the columns, zero where they only fill up.
    codes: Vec<i8>,
    len: usize,
    width: usize,
    step: f32,
    sum: i32,
}

impl NonZero {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes those of token `token` of `x`.
    ///
    /// # Panics
    /// Where there is no such token, or there are steps per group.
    pub fn take(&mut self, x: &Activations, token: usize) {
        x.assert_step_per_token();
        self.width = x.width();
        self.step = x.steps()[token];
        self.sum = x.sums()[token];
        let room = self.width.next_multiple_of(QUAD) + QUAD;
        self.columns.resize(room, 0);
        self.codes.resize(room, 0);
        let mut n = 0;
        let blocks = x.rows(token)[..self.width.div_ceil(64)].iter();
        let all = blocks.flat_map(|b| b.0).take(self.width);
        // Written always and kept where it counts: zeros come in no order that could be foreseen.
        for (column, code) in (0u32..).zip(all) {
            self.columns[n] = column;
            self.codes[n] = code;
            n += usize::from(code != 0);
        }
        self.len = n;
        let padded = n.next_multiple_of(QUAD);
        self.codes[n..padded].fill(0);
        self.columns[n..padded].fill(0);
        self.columns.truncate(padded);
        self.codes.truncate(padded);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether all inputs are zero.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Inputs, zero or not.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    pub(super) fn columns(&self) -> &[[u32; QUAD]] {
        self.columns.as_chunks().0
    }

    pub(super) fn codes(&self) -> &[[i8; QUAD]] {
        self.codes.as_chunks().0
    }

    pub(super) fn step(&self) -> f32 {
        self.step
    }

    pub(super) fn sum(&self) -> i32 {
        self.sum
    }
}
