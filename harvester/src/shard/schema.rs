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
}

impl StorageDtype {
    /// Bytes a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::F32 => DataType::Float32,
            Self::F16 => DataType::Float16,
        }
    }
}

impl fmt::Display for StorageDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        })
    }
}

impl FromStr for StorageDtype {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            _ => Err(Error::invalid("dtype", "f16 or f32", format!("`{text}`"))),
        }
    }
}

/// The schema of one folder's parts.
#[derive(Debug, Clone)]
pub(super) struct ShardSchema {
    pub(super) dtype: StorageDtype,
    /// Each hook point and how many values a row has there.
    pub(super) hook_points: Vec<(HookPoint, usize)>,
    pub(super) model_sha256: String,
}

impl ShardSchema {
    /// The schema of the parts of `manifest`.
    pub(super) fn of(manifest: &HarvestManifest) -> Self {
        Self {
            dtype: manifest.config.dtype,
            hook_points: manifest.hook_points.iter().map(|summary| (summary.name, summary.d_model)).collect(),
            model_sha256: manifest.model.sha256.clone(),
        }
    }

    /// Name of the column of row norms beside a hook point's column.
    pub(super) fn norm_column(point: HookPoint) -> String {
        format!("{point}.norm")
    }

    /// The item of a row's list of values. Neither lists nor values are ever null.
    pub(super) fn item(&self) -> Arc<Field> {
        Arc::new(Field::new("item", self.dtype.data_type(), false))
    }

    /// The columns: four for the token, then per hook point the values and their norm.
    pub(super) fn arrow(&self) -> SchemaRef {
        let token = TOKEN_COLUMNS.into_iter().map(|(name, kind)| Field::new(name, kind, false));
        let points = self.hook_points.iter().flat_map(|(point, width)| {
            let list = DataType::FixedSizeList(self.item(), *width as i32);
            [
                Field::new(point.to_string(), list, false),
                Field::new(Self::norm_column(*point), DataType::Float32, false),
            ]
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
            KeyValue::new("refract.model_sha256".into(), self.model_sha256.clone()),
        ]
    }
}
