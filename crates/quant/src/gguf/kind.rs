//! Types of tensors.
//!
//! Q2_0 is that of upstream's ggml (`block_q2_0` and `dequantize_row_q2_0`, llama.cpp pull request
//! 24448), PQ2_0 that of PrismML's fork (`block_pq2_0`, `dequantize_row_pq2_0`): the scale stands
//! first, then four codes a byte in the order of the weights, the first in the low bits. PrismML's
//! older files give the larger blocks the number of the smaller ones: see [`super::groups`].

/// How the values of a tensor are stored. A row is cut into blocks of [`Self::block_len`] values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorKind {
    /// f32.
    F32,
    /// f16.
    F16,
    /// bf16.
    Bf16,
    /// 4 bits, one f16 scale for 32 values.
    Q4_0,
    /// 4 bits, f16 scale and minimum for 32 values.
    Q4_1,
    /// 5 bits, one f16 scale for 32 values.
    Q5_0,
    /// 8 bits, one f16 scale for 32 values.
    Q8_0,
    /// 4 bits, 6-bit scales and minima for 32 values.
    Q4K,
    /// 5 bits, 6-bit scales and minima for 32 values.
    Q5K,
    /// 6 bits, 8-bit scales for 16 values.
    Q6K,
    /// Ternary, five codes in a byte, one f16 scale for 256 values.
    Tq1_0,
    /// Ternary, four codes in a byte, one f16 scale for 256 values.
    Tq2_0,
    /// Ternary but for a fourth code, which stands for +2; four codes in a byte, one f16 scale for
    /// 64 values.
    Q2_0,
    /// [`Self::Q2_0`] with one f16 scale for 128 values.
    Pq2_0,
    /// Ternary, four codes in a byte, one f32 scale after the codes of the whole tensor: the type
    /// of bitnet.cpp, in the layout it has on x86.
    I2S,
}

/// Bytes after the codes of an [`TensorKind::I2S`] tensor; the first four are its scale.
pub(super) const I2S_TAIL: usize = 32;
/// Number of PrismML's denser type, which takes turned activations and is none of ours.
const PTQ1_0: u32 = 143;
/// Which files to take instead of those for turned activations.
pub(super) const UNTURNED: &str = "take a file of the first Ternary-Bonsai models, *_Q2_g64.gguf or \
    Q2_0 in groups of 128, instead";

impl TensorKind {
    /// All types, with the numbers and names that they have in a file.
    pub const ALL: [(u32, Self, &str); 15] = [
        (0, Self::F32, "F32"),
        (1, Self::F16, "F16"),
        (2, Self::Q4_0, "Q4_0"),
        (3, Self::Q4_1, "Q4_1"),
        (6, Self::Q5_0, "Q5_0"),
        (8, Self::Q8_0, "Q8_0"),
        (12, Self::Q4K, "Q4_K"),
        (13, Self::Q5K, "Q5_K"),
        (14, Self::Q6K, "Q6_K"),
        (30, Self::Bf16, "BF16"),
        (34, Self::Tq1_0, "TQ1_0"),
        (35, Self::Tq2_0, "TQ2_0"),
        (36, Self::I2S, "I2_S"),
        (42, Self::Q2_0, "Q2_0"),
        (142, Self::Pq2_0, "PQ2_0"),
    ];

    pub(super) fn of(id: u32) -> Result<Self, String> {
        if id == PTQ1_0 {
            return Err(format!(
                "is of type PTQ1_0, which is not supported: its models need a Hadamard transform of \
                 activations; {UNTURNED}"
            ));
        }
        let found = Self::ALL.iter().find(|(known, ..)| *known == id);
        found.map(|(_, kind, _)| *kind).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(.., name)| *name).collect();
            format!(
                "is of type number {id}, which is not supported; convert the model to one of {}",
                names.join(", ")
            )
        })
    }

    pub(super) fn id(self) -> u32 {
        let found = Self::ALL.iter().find(|(_, kind, _)| *kind == self);
        found.map_or(0, |(id, ..)| *id)
    }

    /// Name in the usual spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, kind, _)| *kind == self);
        found.map_or("", |(.., name)| name)
    }

    /// Values in a block.
    #[must_use]
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q8_0 => 32,
            Self::Q2_0 => 64,
            Self::Pq2_0 | Self::I2S => 128,
            Self::Q4K | Self::Q5K | Self::Q6K | Self::Tq1_0 | Self::Tq2_0 => 256,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 | Self::Q2_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q8_0 | Self::Pq2_0 => 34,
            Self::I2S => 32,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
            Self::Tq1_0 => 54,
            Self::Tq2_0 => 66,
        }
    }

    /// Whether the type is for values that are −1, 0 or +1 times a scale. [`Self::Q2_0`] and
    /// [`Self::Pq2_0`] can hold others too.
    #[must_use]
    pub fn is_ternary(self) -> bool {
        matches!(self, Self::Tq1_0 | Self::Tq2_0 | Self::I2S) || self.has_two()
    }

    /// Whether a code of 3 stands for +2, not for nothing.
    pub(super) fn has_two(self) -> bool {
        matches!(self, Self::Q2_0 | Self::Pq2_0)
    }

    /// Bytes of a tensor of `rows` rows of `cols` values.
    pub(super) fn tensor_bytes(self, rows: usize, cols: usize) -> Result<usize, String> {
        let values = rows.checked_mul(cols);
        // bitnet.cpp cuts the tensor as a whole, others each row.
        let cut = if self == Self::I2S {
            values.unwrap_or(0)
        } else {
            cols
        };
        if !cut.is_multiple_of(self.block_len()) {
            return Err(format!(
                "has rows of {cols} values, but {} stores blocks of {}",
                self.name(),
                self.block_len()
            ));
        }
        let blocks = values.map(|n| n / self.block_len());
        let bytes = blocks.and_then(|n| n.checked_mul(self.block_bytes()));
        let tail = if self == Self::I2S { I2S_TAIL } else { 0 };
        bytes
            .and_then(|n| n.checked_add(tail))
            .ok_or_else(|| "has more values than a file can hold".into())
    }
}
