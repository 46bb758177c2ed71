//! Values of the metadata.

use super::cursor::{Cursor, Parsed};

/// Types of metadata values, by their number in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    /// Number 0.
    U8,
    /// Number 1.
    I8,
    /// Number 2.
    U16,
    /// Number 3.
    I16,
    /// Number 4.
    U32,
    /// Number 5.
    I32,
    /// Number 6.
    F32,
    /// Number 7, one byte.
    Bool,
    /// Number 8, length and UTF-8.
    Text,
    /// Number 10.
    U64,
    /// Number 11.
    I64,
    /// Number 12.
    F64,
}

impl Scalar {
    fn of(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Text,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of a value, at the least.
    fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::Text => 8,
        }
    }
}

/// Number of an array, which is no [`Scalar`].
const ARRAY: u32 = 9;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number of any width.
    Int(i128),
    /// A number of either precision. f32 becomes the f64 with the same shortest decimal form, so
    /// that 1e-5 is 1e-5.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A text.
    Text(String),
    /// Many values, still in the file.
    Array(Array),
}

/// Where the values of an array are; they were found to lie within the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Type of each.
    pub kind: Scalar,
    /// How many.
    pub len: usize,
    /// Byte of the first.
    pub(super) start: usize,
}

impl Value {
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Parsed<Self> {
        let id = cursor.u32()?;
        if id == ARRAY {
            return read_array(cursor).map(Self::Array);
        }
        let kind = Scalar::of(id).ok_or_else(|| unknown(id))?;
        Self::read_scalar(kind, cursor)
    }

    pub(super) fn read_scalar(kind: Scalar, cursor: &mut Cursor<'_>) -> Parsed<Self> {
        Ok(match kind {
            Scalar::U8 => Self::Int(cursor.array::<1>()?[0].into()),
            Scalar::I8 => Self::Int(i8::from_le_bytes(cursor.array()?).into()),
            Scalar::U16 => Self::Int(u16::from_le_bytes(cursor.array()?).into()),
            Scalar::I16 => Self::Int(i16::from_le_bytes(cursor.array()?).into()),
            Scalar::U32 => Self::Int(cursor.u32()?.into()),
            Scalar::I32 => Self::Int(i32::from_le_bytes(cursor.array()?).into()),
            Scalar::U64 => Self::Int(cursor.u64()?.into()),
            Scalar::I64 => Self::Int(i64::from_le_bytes(cursor.array()?).into()),
            Scalar::F32 => Self::Float(decimal(f32::from_le_bytes(cursor.array()?))),
            Scalar::F64 => Self::Float(f64::from_le_bytes(cursor.array()?)),
            Scalar::Bool => Self::Bool(cursor.array::<1>()?[0] != 0),
            Scalar::Text => Self::Text(cursor.text()?),
        })
    }
}

fn unknown(id: u32) -> String {
    format!("a value of type {id}, which GGUF version 3 does not have")
}

fn read_array(cursor: &mut Cursor<'_>) -> Parsed<Array> {
    let id = cursor.u32()?;
    if id == ARRAY {
        return Err("an array of arrays, which no model needs".into());
    }
    let kind = Scalar::of(id).ok_or_else(|| unknown(id))?;
    let len = cursor.count("array elements", kind.bytes())?;
    let start = cursor.position();
    if kind == Scalar::Text {
        for _ in 0..len {
            cursor.text()?;
        }
    } else {
        cursor.take(len * kind.bytes())?;
    }
    Ok(Array { kind, len, start })
}

fn decimal(v: f32) -> f64 {
    v.to_string().parse().unwrap_or(f64::from(v))
}
