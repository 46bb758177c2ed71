//! Which quantiser stands where: the words that recipes, `config.json`, training and inference
//! share.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Quantiser of a weight matrix `[out, in]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightQuant {
    /// Full precision.
    None,
    /// `sign(W − mean W) · mean|W|` (BitNet b1, Eq. 1–3 and 12).
    B1,
    /// `clamp(round(W / γ), −1, 1) · γ`, γ = mean|W| of the matrix (BitNet b1.58, Eq. 1–3).
    #[default]
    Absmean,
    /// One γ for each output row.
    AbsmeanRow,
    /// One γ for 256 neighbours of a row (`weight_quant_method: block` of BitDistill's code).
    AbsmeanBlock256,
    /// One γ for 128 neighbours of a row.
    AbsmeanGroup128,
}

/// What one scale of a weight covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    /// The whole matrix.
    Tensor,
    /// One output row.
    Row,
    /// This many neighbours of a row.
    Group(usize),
}

impl WeightQuant {
    /// What one scale covers.
    #[must_use]
    pub fn granularity(self) -> Granularity {
        match self {
            Self::None | Self::B1 | Self::Absmean => Granularity::Tensor,
            Self::AbsmeanRow => Granularity::Row,
            Self::AbsmeanBlock256 => Granularity::Group(256),
            Self::AbsmeanGroup128 => Granularity::Group(128),
        }
    }

    /// Why a matrix of `width` input features cannot be quantised so.
    #[must_use]
    pub fn problem(self, width: usize) -> Option<String> {
        match self.granularity() {
            Granularity::Group(size) if !width.is_multiple_of(size) => Some(format!(
                "scales of {size} weights need rows of a multiple of {size}, not of {width}"
            )),
            _ => None,
        }
    }
}

/// Numbers that activations are rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grid {
    /// No rounding.
    None,
    /// −128…127, absmax of each token (BitNet b1.58).
    Int8,
    /// −8…7, absmean of each token (BitNet a4.8, Eq. 1–2).
    Int4,
    /// 4-bit floats with 2 exponent bits, MinMax of each token (BitNet a4.8, Eq. 8–9).
    Fp4E2m1,
    /// 4-bit floats with 1 exponent bit.
    Fp4E1m2,
}

const GRIDS: [(&str, Grid); 5] = [
    ("none", Grid::None),
    ("int8", Grid::Int8),
    ("int4", Grid::Int4),
    ("fp4-e2m1", Grid::Fp4E2m1),
    ("fp4-e1m2", Grid::Fp4E1m2),
];

/// Which activations of a token survive: those of the largest magnitude; ties survive together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopK {
    /// This share of the whole token, in percent (Q-Sparse; BitNet a4.8 keeps 50).
    Percent(u8),
    /// The first number out of every run of the second (Block Q-Sparse).
    Blocks(u16, u16),
}

impl TopK {
    /// Survivors and length of a run, for tokens of `width` values.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss
    )]
    pub fn run(self, width: usize) -> (usize, usize) {
        match self {
            Self::Percent(p) => {
                let kept = (width as f64 * f64::from(p) / 100.0).round_ties_even();
                ((kept as usize).max(1), width)
            }
            Self::Blocks(n, m) => (usize::from(n), usize::from(m)),
        }
    }
}

/// Quantiser of the input of a projection, applied in this order: Hadamard transform, choice of
/// the survivors, rounding with a scale from the whole token, rescaling.
///
/// As text: `[hadamard+][topP%+ | topN:M+]GRID[+l2]`, for example `int8`, `top50%+int8` or
/// `hadamard+int4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActQuant {
    /// Whether tokens are turned by an orthogonal Hadamard matrix first (BitNet v2, §2.2).
    pub hadamard: bool,
    /// Which values survive.
    pub top_k: Option<TopK>,
    /// What survivors are rounded to.
    pub grid: Grid,
    /// Whether the result is brought back to the L2 norm of the token before the choice. Q-Sparse
    /// (§2.1) rescales "by its L2 norm" and leaves open to what; docs/adr/0006 says why to this.
    pub rescale: bool,
}

impl ActQuant {
    /// INT8 absmax per token: BitNet b1.58.
    pub const INT8: Self = Self::plain(Grid::Int8);
    /// No quantisation.
    pub const NONE: Self = Self::plain(Grid::None);

    /// Rounding alone.
    #[must_use]
    pub const fn plain(grid: Grid) -> Self {
        Self {
            hadamard: false,
            top_k: None,
            grid,
            rescale: false,
        }
    }

    /// Why tokens of `width` values cannot be quantised so.
    #[must_use]
    pub fn problem(self, width: usize) -> Option<String> {
        if self.hadamard && crate::hadamard::Factors::of(width).is_none() {
            return Some(format!(
                "no Hadamard matrix of order {width} is built in: the width must be a power of \
                 two times a small factor"
            ));
        }
        match self.top_k {
            Some(TopK::Blocks(_, m)) if !width.is_multiple_of(usize::from(m)) => {
                Some(format!("{width} values are no multiple of {m}"))
            }
            _ => None,
        }
    }
}

impl Default for ActQuant {
    fn default() -> Self {
        Self::INT8
    }
}

impl fmt::Display for ActQuant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hadamard {
            f.write_str("hadamard+")?;
        }
        match self.top_k {
            Some(TopK::Percent(p)) => write!(f, "top{p}%+")?,
            Some(TopK::Blocks(n, m)) => write!(f, "top{n}:{m}+")?,
            None => {}
        }
        let name = GRIDS.iter().find(|(_, grid)| *grid == self.grid);
        f.write_str(name.map_or("none", |(name, _)| name))?;
        if self.rescale {
            f.write_str("+l2")?;
        }
        Ok(())
    }
}

impl FromStr for ActQuant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "\"{text}\" is no activation quantiser; write [hadamard+][top50%+ or top2:4+]GRID\
                 [+l2] with GRID one of none, int8, int4, fp4-e2m1, fp4-e1m2"
            )
        };
        let (hadamard, rest) = match text.strip_prefix("hadamard+") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (rescale, rest) = match rest.strip_suffix("+l2") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let (top_k, grid) = match rest.strip_prefix("top").and_then(|r| r.split_once('+')) {
            Some((top, grid)) => (Some(parse_top_k(top).ok_or_else(bad)?), grid),
            None => (None, rest),
        };
        let known = GRIDS.iter().find(|(name, _)| *name == grid);
        let (_, grid) = known.ok_or_else(bad)?;
        if rescale && top_k.is_none() {
            return Err(format!(
                "\"{text}\": l2 rescales what a mask left, but there is no mask"
            ));
        }
        Ok(Self {
            hadamard,
            top_k,
            grid: *grid,
            rescale,
        })
    }
}

fn parse_top_k(text: &str) -> Option<TopK> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent: u8 = percent.parse().ok()?;
        return (1..100)
            .contains(&percent)
            .then_some(TopK::Percent(percent));
    }
    let (n, m) = text.split_once(':')?;
    let (n, m): (u16, u16) = (n.parse().ok()?, m.parse().ok()?);
    (0 < n && n < m).then_some(TopK::Blocks(n, m))
}

impl Serialize for ActQuant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ActQuant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Which projections share an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// `q_proj`, `k_proj`, `v_proj`.
    Qkv,
    /// `o_proj`.
    O,
    /// `gate_proj`, `up_proj`.
    GateUp,
    /// `down_proj`.
    Down,
}

/// The quantisers of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuantScheme {
    /// All projections' weights.
    pub weights: WeightQuant,
    /// Input of `q_proj`, `k_proj` and `v_proj`.
    pub qkv: ActQuant,
    /// Input of `o_proj`.
    pub o: ActQuant,
    /// Input of `gate_proj` and `up_proj`.
    pub gate_up: ActQuant,
    /// Input of `down_proj`.
    pub down: ActQuant,
    /// Bits of queries after the rotary embedding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q_bits: Option<u8>,
    /// Bits of keys and values after the rotary embedding: what the cache holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_bits: Option<u8>,
}

impl QuantScheme {
    /// Quantiser of an input.
    #[must_use]
    pub fn act(&self, input: Input) -> ActQuant {
        match input {
            Input::Qkv => self.qkv,
            Input::O => self.o,
            Input::GateUp => self.gate_up,
            Input::Down => self.down,
        }
    }
}

/// A scheme with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Preset {
    /// Binary weights (arXiv 2310.11453) and the INT8 activations of the authors' later listing: per
    /// token, −128…127. The paper's own are per tensor in training.
    #[serde(rename = "b1")]
    B1,
    /// Ternary weights, INT8 activations (arXiv 2402.17764).
    #[default]
    #[serde(rename = "b1.58")]
    B158,
    /// INT4 into q, k, v, gate and up; the largest half and INT8 into o; INT8 into down (arXiv
    /// 2411.04965, Eq. 1–7). Belongs to the gate `relu2`.
    #[serde(rename = "a4.8")]
    A48,
    /// FP4 (E2M1) everywhere but into down (arXiv 2411.04965, Eq. 8–9).
    #[serde(rename = "a4.8-fp4")]
    A48Fp4,
    /// The largest 40% and INT8, rescaled, into every projection (arXiv 2407.10969; its best
    /// sparsity for ternary weights is 61.25%).
    #[serde(rename = "q-sparse")]
    QSparse,
    /// Hadamard transform and INT8 into o and down, INT8 elsewhere (arXiv 2504.18415).
    #[serde(rename = "v2")]
    V2,
    /// [`Preset::V2`] with INT4.
    #[serde(rename = "v2-a4")]
    V2A4,
}

impl From<Preset> for QuantScheme {
    fn from(preset: Preset) -> Self {
        let all = |act| Self {
            qkv: act,
            o: act,
            gate_up: act,
            down: act,
            ..Self::default()
        };
        let top = |percent| ActQuant {
            top_k: Some(TopK::Percent(percent)),
            ..ActQuant::INT8
        };
        let turned = |grid| {
            let h = ActQuant {
                hadamard: true,
                ..ActQuant::plain(grid)
            };
            Self {
                o: h,
                down: h,
                ..all(ActQuant::plain(grid))
            }
        };
        match preset {
            Preset::B1 => Self {
                weights: WeightQuant::B1,
                ..Self::default()
            },
            Preset::B158 => Self::default(),
            Preset::A48 => Self {
                o: top(50),
                down: ActQuant::INT8,
                ..all(ActQuant::plain(Grid::Int4))
            },
            Preset::A48Fp4 => Self {
                down: ActQuant::INT8,
                ..all(ActQuant::plain(Grid::Fp4E2m1))
            },
            Preset::QSparse => all(ActQuant {
                rescale: true,
                ..top(40)
            }),
            Preset::V2 => turned(Grid::Int8),
            Preset::V2A4 => turned(Grid::Int4),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn activation_quantisers_read_what_they_write() {
        for text in [
            "none",
            "int8",
            "int4",
            "fp4-e2m1",
            "fp4-e1m2",
            "top50%+int8",
            "top2:4+int8",
            "hadamard+int4",
            "hadamard+top40%+fp4-e2m1+l2",
        ] {
            let quant: ActQuant = text.parse().unwrap();
            assert_eq!(quant.to_string(), text);
        }
        for text in [
            "",
            "int5",
            "top0%+int8",
            "top100%+int8",
            "top4:4+int8",
            "top0:4+int8",
            "top50%",
            "int8+top50%",
            "l2+int8",
            "int8+l2",
            "hadamard",
            "top%+int8",
            "top50%+hadamard+int8",
        ] {
            assert!(text.parse::<ActQuant>().is_err(), "{text}");
        }
    }

    #[test]
    fn schemes_name_their_fields() {
        let scheme: QuantScheme = Preset::A48.into();
        let json = serde_json::to_value(scheme).unwrap();
        let expected = serde_json::json!({
            "weights": "absmean", "qkv": "int4", "o": "top50%+int8", "gate_up": "int4",
            "down": "int8",
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<QuantScheme>(json).unwrap(), scheme);
        let unknown = serde_json::json!({"weight": "absmean"});
        assert!(serde_json::from_value::<QuantScheme>(unknown).is_err());
    }

    #[test]
    fn widths_that_do_not_fit_are_named() {
        assert!(WeightQuant::AbsmeanGroup128.problem(192).is_some());
        assert!(WeightQuant::AbsmeanBlock256.problem(512).is_none());
        let blocks: ActQuant = "top2:4+int8".parse().unwrap();
        assert!(blocks.problem(6).is_some());
        assert!(blocks.problem(8).is_none());
        let turned: ActQuant = "hadamard+int8".parse().unwrap();
        assert!(turned.problem(31).is_some());
        assert!(turned.problem(6912).is_none());
    }

    #[test]
    fn half_of_an_odd_token_rounds_to_even() {
        assert_eq!(TopK::Percent(50).run(5), (2, 5));
        assert_eq!(TopK::Percent(50).run(7), (4, 7));
        assert_eq!(TopK::Percent(1).run(3), (1, 3));
        assert_eq!(TopK::Blocks(2, 4).run(64), (2, 4));
    }
}
