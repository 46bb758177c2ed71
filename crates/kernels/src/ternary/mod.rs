//! Ternary matrices in the layout that the kernels read.

mod gated;
mod parts;
mod product;
mod residual;
mod target;

use tritburn_quant::hf_pack;

use crate::activations::{Activations, GROUP};
use crate::blocks::{Blocks, filled};
use crate::error::Result;
use crate::exec::Exec;
use crate::layout::{self, Format, WeightBlock, pack_tile, tile_blocks};
use crate::memory::Region;
use crate::packed::PackedCodes;
use crate::pool::Pool;
use crate::scales::Scales;
pub use crate::shape::MAX_COLS;
pub use gated::{Next, Up, gemm_gated};
pub use product::gemm_all;
pub(crate) use product::multiply_spread;
pub(crate) use target::Target;

/// A matrix `[rows, cols]` of −1, 0, +1 with scales; rows are padded to whole row tiles, columns to
/// multiples of 64.
#[derive(Debug, Clone, PartialEq)]
pub struct TernaryMatrix {
    format: Format,
    rows: usize,
    cols: usize,
    scales: Scales,
    /// Scales per group in the order of use: `[row tile, group, row of the tile]`.
    group_scales: Vec<f32>,
    data: Blocks,
}

impl TernaryMatrix {
    /// From codes, row major, with one scale for all: weight `i` is `scale · codes[i]`. Two bits a
    /// weight.
    ///
    /// # Errors
    /// [`crate::KernelError::Shape`] where the codes do not fill the shape or it is too wide;
    /// [`crate::KernelError::Codes`] where a code is not −1, 0 or +1.
    pub fn from_codes(codes: &[i8], rows: usize, cols: usize, scale: f32) -> Result<Self> {
        Self::with_scales(codes, rows, cols, Scales::Tensor(scale), Format::default())
    }

    /// From codes, row major, with any scales and in any format.
    ///
    /// # Errors
    /// As [`Self::from_codes`], and [`crate::KernelError::Shape`] where the number of scales is wrong.
    pub fn with_scales(
        codes: &[i8],
        rows: usize,
        cols: usize,
        scales: Scales,
        format: Format,
    ) -> Result<Self> {
        let codes = PackedCodes::from_codes(codes, rows, cols, scales)?;
        Ok(Self::pack(&Pool::new(1)?, &codes, format))
    }

    /// From codes as they are stored, on all threads of `pool`.
    #[must_use]
    pub fn pack(pool: &Pool, codes: &PackedCodes<'_>, format: Format) -> Self {
        let (rows, cols, scales) = (codes.rows(), codes.cols(), codes.scales().clone());
        let (tile_rows, blocks) = (format.tile_rows(), tile_blocks(cols));
        let tiles = rows.div_ceil(tile_rows);
        let data = filled(pool, tiles * blocks, blocks, &|tile, out| {
            pack_tile(format, codes, tile, out);
        });
        let group_scales = match &scales {
            Scales::Group(scales) => order_groups(scales, rows, cols, tile_rows),
            _ => Vec::new(),
        };
        Self {
            format,
            rows,
            cols,
            scales,
            group_scales,
            data,
        }
    }

    /// The same matrix in another format.
    ///
    /// # Errors
    /// None that a matrix which exists could cause.
    pub fn to_format(&self, format: Format) -> Result<Self> {
        Ok(Self::pack(&Pool::new(1)?, &self.to_packed()?, format))
    }

    /// The bytes of a Hugging Face checkpoint ([`hf_pack`]); the scales are not among them.
    ///
    /// # Errors
    /// None that a matrix which exists could cause.
    pub fn to_hf_packed(&self) -> Result<Vec<u8>> {
        Ok(hf_pack::pack(&self.codes(), self.rows, self.cols)?)
    }

    /// Codes and scales in the form that every layout is packed from.
    pub(crate) fn to_packed(&self) -> Result<PackedCodes<'static>> {
        PackedCodes::from_codes(&self.codes(), self.rows, self.cols, self.scales.clone())
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

    /// How the trits are packed.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// What a code of 1 stands for.
    #[must_use]
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// Bytes that a product reads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.data) + self.scales.bytes()
    }

    /// Where the weights lie.
    #[must_use]
    pub fn region(&self) -> Region<'_> {
        Region::of(&self.data)
    }

    /// The codes, row major.
    #[must_use]
    pub fn codes(&self) -> Vec<i8> {
        let mut codes = vec![0i8; self.rows * self.cols];
        for (r, codes) in codes.chunks_exact_mut(self.cols.max(1)).enumerate() {
            self.row_codes(r, codes);
        }
        codes
    }

    /// The codes of one row.
    pub(crate) fn row_codes(&self, row: usize, codes: &mut [i8]) {
        let tile_rows = self.format.tile_rows();
        let tile = self.tile(row / tile_rows);
        layout::unpack_row(self.format, tile, row % tile_rows, codes);
    }

    fn tile(&self, tile: usize) -> &[WeightBlock] {
        let blocks = tile_blocks(self.cols);
        &self.data[tile * blocks..][..blocks]
    }

    fn tiles(&self) -> usize {
        self.rows.div_ceil(self.format.tile_rows())
    }

    /// `out[t, r] = (Σ w[r, c] · x[t, c]) · (step[t] · scale)`: the sum in i32, then two f32
    /// products; with groups, `(Σ_g (Σ_{c in g} w · x) · scale[r, g] · step[t, g]) · step[t]`, groups added in
    /// order, where `step[t, g]` is 1 unless activations have steps per group
    /// ([`RowQuantizer::by_group`](crate::activations::RowQuantizer::by_group)). `out` is row major `[tokens, rows]`. The result does not depend on `exec`.
    ///
    /// # Panics
    /// Where the widths of matrix and activations or the length of `out` do not fit, or activations have steps per
    /// group and the matrix has no scales per group.
    pub fn gemm(&self, exec: &Exec, x: &Activations, out: &mut [f32]) {
        gemm_all(exec, x, &mut [(self, out)]);
    }
}

/// From `[rows, groups]` to `[row tile, group, row of the tile]`, padded with zeros.
fn order_groups(scales: &[f32], rows: usize, cols: usize, tile_rows: usize) -> Vec<f32> {
    let groups = cols.div_ceil(GROUP);
    let mut ordered = vec![0.0; rows.div_ceil(tile_rows) * groups * tile_rows];
    for (r, scales) in scales.chunks_exact(groups.max(1)).enumerate() {
        let (tile, row) = (r / tile_rows, r % tile_rows);
        for (g, scale) in scales.iter().enumerate() {
            ordered[(tile * groups + g) * tile_rows + row] = *scale;
        }
    }
    ordered
}
