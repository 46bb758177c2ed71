//! Small matrices that stay in the cache, multiplied in tiles that stay in registers.
//!
//! Rows and columns are padded with zeros to whole tiles, so products have no tails.
// Counted loops over whole arrays stay in registers where chains of iterators do not.
#![allow(clippy::needless_range_loop)]

/// Columns computed at once: one vector of AVX-512, two of AVX2.
pub(super) const COLS: usize = 16;
/// Rows that share a loaded vector.
pub(super) const ROWS: usize = 4;

pub(super) type Tile = [[f32; COLS]; ROWS];

#[inline(always)]
pub(super) fn lanes(row: &[f32], at: usize) -> &[f32; COLS] {
    row[at..at + COLS].as_array().unwrap_or(&[0.0; COLS])
}

/// `tile[r] += factors[r] · row`
#[inline(always)]
pub(super) fn rank_one(tile: &mut Tile, factors: [f32; ROWS], row: &[f32; COLS]) {
    for r in 0..ROWS {
        for c in 0..COLS {
            tile[r][c] += factors[r] * row[c];
        }
    }
}

/// A matrix of `rows` with rows and columns padded to whole tiles.
#[derive(Clone)]
pub(super) struct Padded {
    pub(super) data: Vec<f32>,
    pub(super) stride: usize,
}

impl Padded {
    pub(super) fn new(rows: usize, cols: usize) -> Self {
        let stride = cols.next_multiple_of(COLS);
        Self {
            data: vec![0.0; rows.next_multiple_of(COLS) * stride],
            stride,
        }
    }

    #[inline(always)]
    pub(super) fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.stride..(i + 1) * self.stride]
    }

    #[inline(always)]
    pub(super) fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.stride..(i + 1) * self.stride]
    }

    /// Copies one head out of `[seq, heads · head_dim]`.
    #[inline(always)]
    pub(super) fn gather(&mut self, x: &[f32], width: usize, head: usize, d: usize) {
        for (row, out) in x
            .chunks_exact(width)
            .zip(self.data.chunks_exact_mut(self.stride))
        {
            out[..d].copy_from_slice(&row[head * d..(head + 1) * d]);
        }
    }

    /// Adds the matrix to one head of `[seq, heads · head_dim]`.
    #[inline(always)]
    pub(super) fn add_to_head(&self, width: usize, head: usize, d: usize, out: &mut [f32]) {
        for (row, out) in self
            .data
            .chunks_exact(self.stride)
            .zip(out.chunks_exact_mut(width))
        {
            for (o, x) in out[head * d..(head + 1) * d].iter_mut().zip(row) {
                *o += x;
            }
        }
    }

    #[inline(always)]
    pub(super) fn store(&mut self, tile: &Tile, at: usize, col: usize) {
        for (r, lane) in tile.iter().enumerate() {
            self.row_mut(at + r)[col..col + COLS].copy_from_slice(lane);
        }
    }
}

/// `out = a · b` for `a` `[rows, inner]` and `b` `[inner, ..]`.
#[inline(always)]
pub(super) fn times(a: &Padded, b: &Padded, rows: usize, inner: usize, out: &mut Padded) {
    for i in (0..rows).step_by(ROWS) {
        for col in (0..b.stride).step_by(COLS) {
            let mut tile = [[0.0; COLS]; ROWS];
            let factors: [&[f32]; ROWS] = std::array::from_fn(|r| &a.row(i + r)[..inner]);
            for j in 0..inner {
                let column = std::array::from_fn(|r| factors[r][j]);
                rank_one(&mut tile, column, lanes(b.row(j), col));
            }
            out.store(&tile, i, col);
        }
    }
}

/// Writes the transpose of `a` `[rows, cols]` into `out`.
#[inline(always)]
pub(super) fn transpose(a: &Padded, rows: usize, cols: usize, out: &mut Padded) {
    for i in 0..rows {
        for (j, &x) in a.row(i)[..cols].iter().enumerate() {
            out.data[j * out.stride + i] = x;
        }
    }
}
