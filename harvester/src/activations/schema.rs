//! The columns of a shard. `data/README.md` documents them for readers in any language.

use std::sync::Arc;

use super::{layout::Layout, manifest::HarvestManifest};
use crate::{model::HookPoint, numbers::StorageDtype, store::Manifest};
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

/// Most rows of a row group: about 19 MB of f16 at 576 values per row.
pub(super) const ROW_GROUP_ROWS: usize = 16_384;

/// A column: its name (for a column of a hook point, the part after the hook point's name), its type as in the
/// documentation, its unit, and its meaning.
type About = (&'static str, &'static str, &'static str, &'static str);

/// The columns that identify the token of a row, in order.
pub(super) const TOKEN_COLUMNS: [(About, DataType); 4] = [
    (
        (
            "document",
            "uint64",
            "number from 0",
            "the document in the corpus; [documents.parquet](#documentsparquet) says which file and line it is, and the \
             manifest's `corpus` which source. This is not a line number: blank lines and repeated documents are not \
             counted",
        ),
        DataType::UInt64,
    ),
    (
        (
            "context",
            "uint64",
            "number from 0",
            "the context, in the order of harvesting. If the corpus was split into `n` parts, context `i` of part `p` \
             has the number `i n + p`, so that no two parts share one",
        ),
        DataType::UInt64,
    ),
    (("position", "uint32", "number from 0", "position in the context"), DataType::UInt32),
    (("token", "uint32", "token id", "the token, as the model's tokenizer numbers it"), DataType::UInt32),
];

/// The columns of a hook point, in order.
const VALUES: About = ("", "by dtype and layout, see below", "units of the model", "the activation, `d_model` values");
const SCALE: About = (".scale", "float32", "units of the model", "int8 only: value = int8 x scale");
const NORM: About = (".norm", "float32", "units of the model", "Euclidean norm of the row as stored");

/// The last column, in a harvest of conversations.
const ROLE: About = (
    "role",
    "string",
    "",
    "who said the token: `system`, `user`, `assistant`, `tool`, `other`, or `template`, which is also what cannot be \
     told; null in plain text. Only with `--chat-field`, see [Roles](#roles)",
);

/// The schema of one folder's parts.
#[derive(Debug, Clone)]
pub(crate) struct ShardSchema {
    pub(super) dtype: StorageDtype,
    pub(super) layout: Layout,
    /// Each hook point and its number of values per row.
    pub(crate) hook_points: Vec<(HookPoint, usize)>,
    pub(super) model_sha256: String,
    /// True if there is a column of roles.
    pub(super) roles: bool,
}

/// The arrow type of a stored value.
fn data_type(dtype: StorageDtype) -> DataType {
    match dtype {
        StorageDtype::F32 => DataType::Float32,
        StorageDtype::F16 => DataType::Float16,
        StorageDtype::I8 => DataType::Int8,
    }
}

impl ShardSchema {
    /// The schema of the parts of `manifest`.
    pub(crate) fn of(manifest: &HarvestManifest) -> Self {
        Self {
            dtype: manifest.config.dtype,
            layout: manifest.config.layout,
            hook_points: manifest.hook_points.iter().map(|summary| (summary.name, summary.d_model)).collect(),
            model_sha256: manifest.model.sha256.clone(),
            roles: manifest.roles,
        }
    }

    /// Flat columns of a hook point: its values, their scale if there is one, their norm.
    pub(super) fn leaves_per_point(&self) -> usize {
        2 + usize::from(self.dtype.has_scale())
    }

    /// Index of the flat column with the values of hook point number `point`.
    pub(super) fn first_leaf(&self, point: usize) -> usize {
        TOKEN_COLUMNS.len() + self.leaves_per_point() * point
    }

    /// Index of the flat column of roles, if there is one.
    pub(super) fn role_leaf(&self) -> Option<usize> {
        self.roles.then(|| self.first_leaf(self.hook_points.len()))
    }

    /// Type of a column of values. Neither lists nor values are ever null.
    fn values_type(&self, width: usize) -> DataType {
        match self.layout {
            Layout::List => {
                DataType::FixedSizeList(Arc::new(Field::new("item", data_type(self.dtype), false)), width as i32)
            }
            Layout::Binary => DataType::FixedSizeBinary((width * self.dtype.bytes()) as i32),
        }
    }

    /// The columns: four for the token, then per hook point the values, their scale and their norm, then the roles.
    pub(super) fn arrow(&self) -> SchemaRef {
        let token = TOKEN_COLUMNS.into_iter().map(|((name, ..), kind)| Field::new(name, kind, false));
        let points = self.hook_points.iter().flat_map(|(point, width)| {
            let column = |about: About, kind| Field::new(format!("{point}{}", about.0), kind, false);
            let scale = self.dtype.has_scale().then(|| column(SCALE, DataType::Float32));
            [column(VALUES, self.values_type(*width))].into_iter().chain(scale).chain([column(NORM, DataType::Float32)])
        });
        let role = self.roles.then(|| Field::new(ROLE.0, DataType::Utf8, true));
        Arc::new(Schema::new(token.chain(points).chain(role).collect::<Vec<_>>()))
    }

    /// Plain, uncompressed, without statistics, except for the token columns, which are small and compress well.
    /// Byte-stream-split and general compression save an eighth on activations, but fewer tools can read them.
    pub(super) fn properties(&self) -> WriterProperties {
        let mut builder = WriterProperties::builder()
            .set_created_by(concat!("refract ", env!("CARGO_PKG_VERSION")).into())
            .set_compression(Compression::UNCOMPRESSED)
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_key_value_metadata(Some(self.key_values()));
        for name in TOKEN_COLUMNS.iter().map(|((name, ..), _)| *name).chain([ROLE.0]) {
            let column = ColumnPath::from(name);
            builder = builder
                .set_column_dictionary_enabled(column.clone(), true)
                .set_column_statistics_enabled(column, EnabledStatistics::Chunk);
        }
        let mut properties = builder.build();
        // Arrow's own schema, which tells its readers that a list has a fixed size.
        add_encoded_arrow_schema_to_metadata(&self.arrow(), &mut properties);
        properties
    }

    /// Description inside the file, in case it loses its manifest.
    fn key_values(&self) -> Vec<KeyValue> {
        let names: Vec<_> = self.hook_points.iter().map(|(point, _)| point.to_string()).collect();
        vec![
            KeyValue::new("refract.format".into(), HarvestManifest::FORMAT.to_string()),
            KeyValue::new("refract.version".into(), HarvestManifest::VERSION.to_string()),
            KeyValue::new("refract.hook_points".into(), names.join(",")),
            KeyValue::new("refract.dtype".into(), self.dtype.to_string()),
            KeyValue::new("refract.model_sha256".into(), self.model_sha256.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::markdown_line;

    #[test]
    fn the_documentation_has_these_columns() {
        let line = |point: &str, (name, kind, unit, meaning): About| {
            markdown_line(&format!("`{point}{name}`"), kind, unit, meaning)
        };
        let token = TOKEN_COLUMNS.into_iter().map(|(about, _)| line("", about));
        let point = [VALUES, SCALE, NORM].map(|about| line("blocks.14.hook_resid_post", about));
        let columns: String = token.chain(point).chain([line("", ROLE)]).collect();
        let documented = include_str!("../../../data/README.md");
        assert!(documented.contains(&columns), "data/README.md should have:\n{columns}");
    }
}
