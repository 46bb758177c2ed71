//! Matrix products on the tensor cores: which tiles, and how they are launched.

use burn::tensor::{DType, Shape};
use cubecl::prelude::{
    OobFill, TensorMapFormat, TensorMapInterleave, TensorMapPrefetch, TensorMapSwizzle, TiledArgs,
};
use cubecl::server::TensorMapMeta;
use cubecl::zspace::{Strides, metadata::Metadata};

use super::launch::{Buffer, Launch, Source, element, empty, hopper};

/// Rows of the result in a tile.
const TILE_M: usize = 128;
/// Bytes of a row of an operand in a stage.
const STAGE_ROW: usize = 128;
/// Shared memory that a block may use, in bytes, less what barriers and alignment take.
const SHARED: usize = 227 * 1024 - 1024 - 256;

/// An operand, and whether the product sums over its rows instead of its columns.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub(super) tensor: &'a Buffer,
    pub(super) over_rows: bool,
}

impl Operand<'_> {
    /// Rows of the result that it makes, and the length of the sum.
    fn dims(&self) -> [usize; 2] {
        let shape = self.tensor.meta.shape();
        if self.over_rows {
            [shape[1], shape[0]]
        } else {
            [shape[0], shape[1]]
        }
    }

    /// How a tile of `rows` rows of the result is copied to shared memory.
    fn map(&self, rows: usize, k_tile: usize) -> TensorMapMeta {
        let shape = self.tensor.meta.shape().clone();
        let width = shape[1];
        let tile = if self.over_rows {
            [64, 64]
        } else {
            [rows, k_tile]
        };
        TensorMapMeta {
            format: TensorMapFormat::Tiled(TiledArgs {
                tile_size: Shape::from(tile),
            }),
            metadata: Metadata::new(shape, Strides::new(&[width, 1])),
            elem_stride: Strides::new(&[1, 1]),
            interleave: TensorMapInterleave::None,
            swizzle: TensorMapSwizzle::B128,
            prefetch: TensorMapPrefetch::B256,
            oob_fill: OobFill::Zero,
            storage_ty: self.tensor.dtype.into(),
        }
    }
}

/// Factors on the result.
#[derive(Clone, Copy)]
pub(super) enum Scales<'a> {
    None,
    /// One for all.
    One(&'a Buffer),
    /// One for each row, and one for all.
    Rows(&'a Buffer, &'a Buffer),
}

/// Tiles of one product.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Plan {
    tile_n: usize,
    /// Parts that the sum is cut into.
    splits: usize,
    /// Whether operands change places, so that the result is stored turned.
    turned: bool,
    /// Predicted time, ns.
    cost: f64,
}

/// One column of a tile over one step of the sum, and what a step costs beside, in columns; from
/// timings of this kernel on an H100.
const COLUMN_NS: f64 = 2.0;
const STEP_COLUMNS: f64 = 40.0;

#[allow(clippy::cast_precision_loss)]
fn plan([m, n]: [usize; 2], k_blocks: usize, over_rows: bool, blocks: usize, free: bool) -> Plan {
    let mut best: Option<Plan> = None;
    let splits: &[usize] = if free { &[1, 2, 3, 4, 6] } else { &[1] };
    for turned in [false, true].into_iter().take(1 + usize::from(free)) {
        let [m, n] = if turned { [n, m] } else { [m, n] };
        for tile_n in [128, 144, 192, 256] {
            for &splits in splits {
                let tiles = m.div_ceil(TILE_M) * n.div_ceil(tile_n) * splits;
                let steps = k_blocks.div_ceil(splits) as f64;
                // Where the sum runs over rows, columns come 64 at a time.
                let loaded = if over_rows {
                    tile_n.next_multiple_of(64)
                } else {
                    tile_n
                };
                let width = loaded as f64 + STEP_COLUMNS;
                let wave = (steps + 2.0) * width * COLUMN_NS;
                let mut cost = tiles.div_ceil(blocks) as f64 * wave;
                if splits > 1 {
                    cost += 3000.0 + (2 * splits + 1) as f64 * (m * n * 4) as f64 / 2500.0;
                }
                if best.is_none_or(|b| cost < b.cost) {
                    best = Some(Plan {
                        tile_n,
                        splits,
                        turned,
                        cost,
                    });
                }
            }
        }
    }
    best.unwrap_or_else(|| unreachable!("there are tiles to choose from"))
}

/// `a · bᵀ` of two int8 or two bf16 operands, times `scales`, in `out` (bf16 or f32).
///
/// The longer side of every operand in memory is a multiple of 16 bytes.
pub(super) fn gemm(a: Operand<'_>, b: Operand<'_>, scales: Scales<'_>, out: DType) -> Buffer {
    let (client, device) = (&a.tensor.client, &a.tensor.device);
    let blocks = hopper(device, client).unwrap_or(1) as usize;
    let ([m, k], [n, _]) = (a.dims(), b.dims());
    let int8 = a.tensor.dtype == DType::I8;
    let k_tile = if int8 { 128 } else { 64 };
    let k_blocks = k.div_ceil(k_tile);
    // Only plain sums in f32 are cut into parts or turned.
    let free = matches!(scales, Scales::None) && out == DType::F32;
    let plan = plan([m, n], k_blocks, b.over_rows, blocks, free);
    let (a, b) = if plan.turned { (b, a) } else { (a, b) };
    let [rows, cols] = if plan.turned { [n, m] } else { [m, n] };
    let b_rows = if b.over_rows {
        plan.tile_n.next_multiple_of(64)
    } else {
        plan.tile_n
    };
    let stage = (TILE_M + b_rows) * STAGE_ROW;
    let stages = (SHARED / stage).min(7);
    let result = empty(a.tensor, [plan.splits * m, n], out);
    let mut launch = Launch::new(Source::Gemm, "gemm", 384)
        .define("BN", plan.tile_n)
        .define("INT8", u8::from(int8))
        .define("A_T", u8::from(a.over_rows))
        .define("B_T", u8::from(b.over_rows))
        .define("STAGES", stages)
        .define("OUT", element(out))
        .define("OUT_T", u8::from(plan.turned))
        .shared(1024 + stages * (stage + 16))
        .map(a.tensor, a.map(TILE_M, k_tile))
        .map(b.tensor, b.map(plan.tile_n, k_tile))
        .buffer(a.tensor)
        .buffer(b.tensor)
        .buffer(&result);
    launch = match scales {
        Scales::None => launch.define("SCALES", 0),
        Scales::One(one) => launch.define("SCALES", 1).buffer(one),
        Scales::Rows(rows, one) => launch.define("SCALES", 2).buffer(rows).buffer(one),
    };
    let [tiles_m, tiles_n] = [rows.div_ceil(TILE_M), cols.div_ceil(plan.tile_n)];
    let tiles = tiles_m * tiles_n * plan.splits;
    launch.run(
        client,
        tiles.min(blocks),
        &[rows, cols, tiles_m, tiles_n, plan.splits, k_blocks],
    );
    if plan.splits == 1 {
        return result;
    }
    let sum = empty(&result, [m, n], out);
    let count = m * n;
    Launch::new(Source::Reduce, "sum_parts", 256)
        .buffer(&result)
        .buffer(&sum)
        .run(&result.client, count.div_ceil(2048), &[count, plan.splits]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_the_shape() {
        // Forward of 576 → 1536 at 8192 tokens: three full waves of the widest tile.
        let wide = plan([8192, 1536], 5, false, 132, false);
        assert_eq!((wide.tile_n, wide.splits, wide.turned), (256, 1, false));
        // 1536 → 576: four tiles of 144 columns, where wider ones would leave blocks idle.
        assert_eq!(plan([8192, 576], 12, false, 132, false).tile_n, 144);
        // A gradient of 1536 × 576 has too few tiles for the device unless its sum is cut.
        assert!(plan([1536, 576], 128, true, 132, true).splits > 1);
        // One of 3072 × 1024 fills it where the operands change places.
        let turned = plan([3072, 1024], 128, true, 132, true);
        assert_eq!((turned.splits, turned.turned), (1, true));
    }
}
