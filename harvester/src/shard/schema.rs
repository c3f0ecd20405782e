//! The columns of a shard. `data/README.md` documents them for readers in any language.

use std::{fmt, str::FromStr, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::{
    arrow::add_encoded_arrow_schema_to_metadata,
    basic::Compression,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};
use serde::{Deserialize, Serialize};

use crate::{
    Error, HookPoint, Result,
    manifest::{ACTIVATIONS_FORMAT, HarvestManifest},
    manifest_file::FORMAT_VERSION,
};

/// Rows a row group at most: about 19 MB of f16 at 576 values a row.
pub(super) const ROW_GROUP_ROWS: usize = 16_384;

/// The columns that say what token a row is, in order.
pub(super) const TOKEN_COLUMNS: [(&str, DataType); 4] = [
    ("document", DataType::UInt64),
    ("context", DataType::UInt64),
    ("position", DataType::UInt32),
    ("token", DataType::UInt32),
];

/// How activation values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageDtype {
    /// 4 bytes a value, as computed.
    F32,
    /// 2 bytes a value: 11 significant bits, at most 65,504. A value beyond is an error, never stored.
    F16,
    /// 1 byte a value and 4 a row: whole steps of the row's largest absolute value over 127.
    #[serde(rename = "int8")]
    I8,
}

impl StorageDtype {
    /// Bytes a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::I8 => 1,
        }
    }

    /// Bytes a row of `width` values, its scale included where there is one.
    pub fn row_bytes(self, width: usize) -> usize {
        self.bytes() * width + if self.has_scale() { 4 } else { 0 }
    }

    /// Whether each row has a scale, in a column of its own.
    pub fn has_scale(self) -> bool {
        self == Self::I8
    }

    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::F32 => DataType::Float32,
            Self::F16 => DataType::Float16,
            Self::I8 => DataType::Int8,
        }
    }
}

impl fmt::Display for StorageDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I8 => "int8",
        })
    }
}

impl FromStr for StorageDtype {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "int8" => Ok(Self::I8),
            _ => Err(Error::invalid("dtype", "f16, f32 or int8", format!("`{text}`"))),
        }
    }
}

/// Which kind of column the values of a hook point are in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// A fixed-size list of numbers a row: any reader opens them as numbers.
    #[default]
    List,
    /// The row's bytes: readers that take lists apart value by value are many times faster, and must know the dtype.
    Binary,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "list",
            Self::Binary => "binary",
        })
    }
}

impl FromStr for Layout {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "list" => Ok(Self::List),
            "binary" => Ok(Self::Binary),
            _ => Err(Error::invalid("layout", "list or binary", format!("`{text}`"))),
        }
    }
}

/// The schema of one folder's parts.
#[derive(Debug, Clone)]
pub(crate) struct ShardSchema {
    pub(super) dtype: StorageDtype,
    pub(super) layout: Layout,
    /// Each hook point and how many values a row has there.
    pub(crate) hook_points: Vec<(HookPoint, usize)>,
    pub(super) model_sha256: String,
}

impl ShardSchema {
    /// The schema of the parts of `manifest`.
    pub(crate) fn of(manifest: &HarvestManifest) -> Self {
        Self {
            dtype: manifest.config.dtype,
            layout: manifest.config.layout,
            hook_points: manifest.hook_points.iter().map(|summary| (summary.name, summary.d_model)).collect(),
            model_sha256: manifest.model.sha256.clone(),
        }
    }

    /// Flat columns of a hook point: its values, their scale where there is one, their norm.
    pub(super) fn leaves_per_point(&self) -> usize {
        2 + usize::from(self.dtype.has_scale())
    }

    /// Place of the flat column with the values of hook point number `point`.
    pub(super) fn first_leaf(&self, point: usize) -> usize {
        TOKEN_COLUMNS.len() + self.leaves_per_point() * point
    }

    /// Type of a column of values. Neither lists nor values are ever null.
    fn values_type(&self, width: usize) -> DataType {
        match self.layout {
            Layout::List => {
                DataType::FixedSizeList(Arc::new(Field::new("item", self.dtype.data_type(), false)), width as i32)
            }
            Layout::Binary => DataType::FixedSizeBinary((width * self.dtype.bytes()) as i32),
        }
    }

    /// The columns: four for the token, then per hook point the values, their scale and their norm.
    pub(super) fn arrow(&self) -> SchemaRef {
        let token = TOKEN_COLUMNS.into_iter().map(|(name, kind)| Field::new(name, kind, false));
        let points = self.hook_points.iter().flat_map(|(point, width)| {
            let beside = |name: &str| Field::new(format!("{point}.{name}"), DataType::Float32, false);
            let scale = self.dtype.has_scale().then(|| beside("scale"));
            [Field::new(point.to_string(), self.values_type(*width), false)]
                .into_iter()
                .chain(scale)
                .chain([beside("norm")])
        });
        Arc::new(Schema::new(token.chain(points).collect::<Vec<_>>()))
    }

    /// Plain, uncompressed, without statistics, except for the token columns, which are small and shrink to little.
    /// Byte-stream-split and general compression gain an eighth on activations and are read by fewer tools.
    pub(super) fn properties(&self) -> WriterProperties {
        let mut builder = WriterProperties::builder()
            .set_created_by(concat!("refract ", env!("CARGO_PKG_VERSION")).into())
            .set_compression(Compression::UNCOMPRESSED)
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_key_value_metadata(Some(self.key_values()));
        for (name, _) in TOKEN_COLUMNS {
            let column = ColumnPath::from(name);
            builder = builder
                .set_column_dictionary_enabled(column.clone(), true)
                .set_column_statistics_enabled(column, EnabledStatistics::Chunk);
        }
        let mut properties = builder.build();
        // Arrow's own schema, by which its readers tell a fixed-size list from a list.
        add_encoded_arrow_schema_to_metadata(&self.arrow(), &mut properties);
        properties
    }

    /// What a file says about itself, should it lose its manifest.
    fn key_values(&self) -> Vec<KeyValue> {
        let names: Vec<_> = self.hook_points.iter().map(|(point, _)| point.to_string()).collect();
        vec![
            KeyValue::new("refract.format".into(), ACTIVATIONS_FORMAT.to_string()),
            KeyValue::new("refract.version".into(), FORMAT_VERSION.to_string()),
            KeyValue::new("refract.hook_points".into(), names.join(",")),
            KeyValue::new("refract.dtype".into(), self.dtype.to_string()),
            KeyValue::new("refract.model_sha256".into(), self.model_sha256.clone()),
        ]
    }
}
