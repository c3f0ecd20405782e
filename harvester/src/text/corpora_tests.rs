//! Corpora as other tools write them: parquet with several codecs and text types, conversations, compressed files. A
//! resumed run reads no document to find its position.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader,
    ParquetMetaDataWriter,
};

use crate::{
    Context, ContextCursor, Corpus, CorpusOptions,
    text::{ContextOptions, Contexts, Document, Encoded},
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/corpora").join(name)
}

fn open(name: &str, options: &CorpusOptions) -> crate::Result<Corpus> {
    Corpus::open(&[fixture(name)], options)
}

fn documents(corpus: &Corpus) -> Vec<Document> {
    (0..corpus.n_documents()).map(|index| corpus.document(index).unwrap()).collect()
}

fn chat(field: &str) -> CorpusOptions {
    CorpusOptions { chat_field: Some(field.into()), ..CorpusOptions::default() }
}

fn message(result: crate::Result<Corpus>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn every_way_of_storing_a_text_gives_the_same_documents() {
    let plain = documents(&open("lines.jsonl", &CorpusOptions::default()).unwrap());
    assert_eq!(plain.len(), 40);
    let files = [
        "lines.jsonl.gz",
        "lines.jsonl.zst",
        "snappy.parquet",
        "zstd_large.parquet",
        "gzip_dictionary.parquet",
        "binary.parquet",
    ];
    for name in files {
        let corpus = open(name, &CorpusOptions::default()).unwrap();
        assert_eq!(documents(&corpus), plain, "{name}");
        let source = &corpus.sources()[0];
        assert_eq!(source.name, name.split_once('.').unwrap().0);
        assert_eq!(source.sha256, crate::sha256_file(&fixture(name)).unwrap(), "{name}");
    }
}

#[test]
fn a_row_without_a_text_is_an_empty_document() {
    let corpus = open("with_nulls.parquet", &CorpusOptions::default()).unwrap();
    let empty = Document::Text(String::new());
    assert_eq!(documents(&corpus)[4..], [empty.clone(), empty]);
}

#[test]
fn conversations_are_the_same_however_they_are_written() {
    let lines = documents(&open("messages.jsonl", &chat("messages")).unwrap());
    assert!(matches!(&lines[3], Document::Chat(turns) if turns[1].role == "assistant" && turns[1].content == "6."));
    assert_eq!(documents(&open("messages.parquet", &chat("messages")).unwrap()), lines);
    assert_eq!(documents(&open("sharegpt.parquet", &chat("conversations")).unwrap()), lines);
}

#[test]
fn documents_of_tables_and_of_files_share_one_numbering_and_one_order() {
    let paths = ["messages.jsonl", "snappy.parquet", "lines.jsonl", "binary.parquet"].map(fixture);
    let options = CorpusOptions { text_field: "text".into(), ..CorpusOptions::default() };
    let corpus = Corpus::open(&paths[1..], &options).unwrap();
    let texts = documents(&corpus);
    assert_eq!(texts.len(), 120);
    assert!(texts[..40] == texts[40..80] && texts[..40] == texts[80..]);
    let firsts: Vec<_> = corpus.sources().iter().map(|source| (source.first_document, source.documents)).collect();
    assert_eq!(firsts, [(0, 40), (40, 40), (80, 40)]);
    let order = corpus.order(Some(1));
    let mut places: Vec<_> = (0..).map_while(|place| order.get(place)).collect();
    places.sort_unstable();
    assert_eq!(places, (0..120).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_read_is_named() {
    let wrong = CorpusOptions { text_field: "body".into(), ..CorpusOptions::default() };
    let columns = message(open("snappy.parquet", &wrong));
    assert!(
        columns.contains("`body`") && columns.contains("id (Int64), text (Utf8)") && columns.contains("`text_field`"),
        "{columns}"
    );
    let number = CorpusOptions { text_field: "id".into(), ..CorpusOptions::default() };
    assert!(message(open("snappy.parquet", &number)).contains("`id` of type Int64"));
    assert!(message(open("snappy.parquet", &chat("text"))).contains("lists of turns"));
    let turns = message(open("messages.parquet", &CorpusOptions::default()));
    assert!(turns.contains("`chat_field` messages") && !turns.contains("`text_field`"), "{turns}");
    let fields = message(open("lines.jsonl", &wrong));
    assert!(fields.contains("lines.jsonl:1") && fields.contains("[text]"), "{fields}");
    let bytes = open("not_utf8.parquet", &CorpusOptions::default()).unwrap().document(1).unwrap_err().to_string();
    assert!(bytes.contains("not_utf8.parquet") && bytes.contains("not UTF-8"), "{bytes}");

    let folder = tempfile::tempdir().unwrap();
    let damaged = |from: &str, name: &str| {
        let bytes = fs::read(fixture(from)).unwrap();
        let path = folder.path().join(name);
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        message(Corpus::open(&[path], &CorpusOptions::default()))
    };
    for (from, name) in
        [("lines.jsonl.gz", "cut.jsonl.gz"), ("lines.jsonl.zst", "cut.jsonl.zst"), ("snappy.parquet", "cut.parquet")]
    {
        let message = damaged(from, name);
        assert!(message.contains(name) && message.contains("Download it again"), "{message}");
    }
    let short = CorpusOptions { max_document_bytes: 100, ..CorpusOptions::default() };
    let long = message(open("lines.jsonl", &short));
    assert!(long.contains("lines.jsonl:3") && long.contains("`max_document_bytes`"), "{long}");
    assert!(open("snappy.parquet", &short).unwrap().document(3).unwrap_err().to_string().contains("snappy.parquet"));
}

#[test]
fn a_saved_corpus_is_taken_as_long_as_no_file_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, saved) = (folder.path().join("lines.jsonl"), folder.path().join("saved.parquet"));
    fs::write(&path, "{\"text\":\"one\"}\n{\"text\":\"two\"}\n{\"text\":\"one\"}\n").unwrap();
    let paths = [path.clone(), fixture("snappy.parquet")];
    let options = CorpusOptions::default();
    let corpus = Corpus::open(&paths, &options).unwrap();
    corpus.save(&saved).unwrap();

    // Same size and time, other content: only a reader that does not open the file takes it as unchanged.
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "{\"text\":\"ONE\"}\n{\"text\":\"TWO\"}\n{\"text\":\"ONE\"}\n").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let again = Corpus::open_saved(&paths, &options, &saved, &[], None).unwrap();
    assert_eq!(again.sources(), corpus.sources());
    assert_eq!(again.n_documents(), 42);
    assert_eq!(again.document(1).unwrap(), Document::Text("TWO".into()));
    assert_eq!(again.document(2).unwrap(), corpus.document(2).unwrap());

    let other = CorpusOptions { drop_duplicates: false, ..options.clone() };
    assert_eq!(Corpus::open_saved(&paths, &other, &saved, &[], None).unwrap().n_documents(), 43);
    fs::File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now()).unwrap();
    assert_ne!(Corpus::open_saved(&paths, &options, &saved, &[], None).unwrap().sources(), corpus.sources());
    fs::write(&saved, "damaged").unwrap();
    Corpus::open_saved(&paths, &options, &saved, &[], None).unwrap();
}

#[test]
fn a_row_that_comes_again_is_left_out_also_by_a_run_that_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    // Every text is in both files; the texts within one file differ.
    let paths = ["snappy.parquet", "zstd_large.parquet"].map(fixture);
    let corpus = Corpus::open(&paths, &CorpusOptions::default()).unwrap();
    let order = corpus.order(Some(2));
    let encode = |document: &Document| match document {
        Document::Text(text) => Ok(Encoded::of_text(text.bytes().map(u32::from).collect())),
        Document::Chat(_) | Document::IncompleteChat(_) => Ok(Encoded::default()),
    };
    let options = ContextOptions { ctx_len: 64, ..ContextOptions::default() };
    let pack = |cursor: ContextCursor, seen: Option<&Path>| -> Vec<Context> {
        Contexts::new(&corpus, &order, options, cursor, seen, encode).unwrap().map(Result::unwrap).collect()
    };
    let log = folder.path().join("seen");
    let all = pack(ContextCursor::default(), Some(&log));
    let mut documents: Vec<u64> = all.iter().flat_map(|context| context.documents.clone()).collect();
    documents.dedup();
    let texts: std::collections::HashSet<_> =
        documents.iter().map(|index| format!("{:?}", corpus.document(*index).unwrap())).collect();
    assert_eq!(texts.len(), documents.len(), "a text came twice");
    assert!(all.last().unwrap().next.left_out.repeated_documents > 30);
    for (done, context) in all.iter().enumerate() {
        assert!(pack(context.next, Some(&log)) == all[done + 1..], "with the log, after context {done}");
        assert!(pack(context.next, None) == all[done + 1..], "without a log, after context {done}");
        fs::File::options().write(true).open(&log).unwrap().set_len(39).unwrap();
        assert!(pack(context.next, Some(&log)) == all[done + 1..], "with a torn log, after context {done}");
        fs::write(&log, vec![0; 16 * corpus.n_documents() as usize]).unwrap();
        assert!(pack(context.next, Some(&log)) == all[done + 1..], "with a log of zeros, after context {done}");
    }
}

#[test]
fn rows_without_a_text_are_empty_and_no_repetitions() {
    // Two of its six rows are null.
    let corpus = open("with_nulls.parquet", &CorpusOptions::default()).unwrap();
    let order = corpus.order(None);
    let encode = |document: &Document| match document {
        Document::Text(text) => Ok(Encoded::of_text(text.bytes().map(u32::from).collect())),
        Document::Chat(_) | Document::IncompleteChat(_) => Ok(Encoded::default()),
    };
    let options = ContextOptions { ctx_len: 4, ..ContextOptions::default() };
    let mut contexts = Contexts::new(&corpus, &order, options, ContextCursor::default(), None, encode).unwrap();
    contexts.by_ref().for_each(|context| drop(context.unwrap()));
    let left_out = contexts.cursor().left_out;
    assert_eq!((left_out.empty_documents, left_out.repeated_documents), (2, 0));
}

/// A copy of a parquet file with another footer.
fn refooted(name: &str, change: impl Fn(ParquetMetaData) -> ParquetMetaData) -> tempfile::NamedTempFile {
    let bytes = bytes::Bytes::from(fs::read(fixture(name)).unwrap());
    let metadata = change(ParquetMetaDataReader::new().parse_and_finish(&bytes).unwrap());
    let footer = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap()) as usize;
    let file = tempfile::Builder::new().suffix(".parquet").tempfile().unwrap();
    let mut damaged = bytes[..bytes.len() - 8 - footer].to_vec();
    ParquetMetaDataWriter::new(&mut damaged, &metadata).finish().unwrap();
    fs::write(file.path(), damaged).unwrap();
    file
}

#[test]
fn a_footer_that_names_bytes_outside_of_the_file_is_an_error_and_no_panic() {
    type Change = fn(ColumnChunkMetaData) -> ColumnChunkMetaData;
    let changes: [Change; 4] = [
        |column| column.into_builder().set_data_page_offset(-4).set_dictionary_page_offset(None).build().unwrap(),
        |column| column.into_builder().set_total_compressed_size(-1).build().unwrap(),
        |column| column.into_builder().set_total_compressed_size(1 << 40).build().unwrap(),
        |column| column.into_builder().set_total_compressed_size(i64::MAX).build().unwrap(),
    ];
    for change in changes {
        let file = refooted("snappy.parquet", |metadata| {
            let mut builder = metadata.into_builder();
            let groups = builder.take_row_groups().into_iter().map(|group| {
                let columns = group.columns().iter().cloned().map(change).collect();
                group.into_builder().set_column_metadata(columns).build().unwrap()
            });
            let groups = groups.collect();
            builder.set_row_groups(groups).build()
        });
        let corpus = Corpus::open(&[file.path().to_path_buf()], &CorpusOptions::default());
        let message = corpus.and_then(|corpus| corpus.document(0)).unwrap_err().to_string();
        let name = file.path().file_name().unwrap().to_str().unwrap();
        assert!(message.contains(name) && message.contains("Download it again"), "{message}");
    }
}

#[test]
fn what_arrow_wrote_into_a_footer_is_left_alone() {
    let plain = documents(&open("snappy.parquet", &CorpusOptions::default()).unwrap());
    let schema = |metadata: &ParquetMetaData| {
        let entries = metadata.file_metadata().key_value_metadata().unwrap().iter();
        entries.filter(|entry| entry.key == "ARROW:schema").find_map(|entry| entry.value.clone()).unwrap()
    };
    // Offsets outside the metadata.
    for at in (8..200).step_by(4) {
        let file = refooted("snappy.parquet", |metadata| {
            let mut damaged = schema(&metadata);
            damaged.replace_range(at..at + 4, "////");
            let of_file = metadata.file_metadata();
            let entries = Some(vec![KeyValue::new("ARROW:schema".into(), damaged)]);
            let (schema, orders) = (of_file.schema_descr_ptr(), of_file.column_orders().cloned());
            let of_file = FileMetaData::new(of_file.version(), of_file.num_rows(), None, entries, schema, orders);
            ParquetMetaDataBuilder::new(of_file).set_row_groups(metadata.row_groups().to_vec()).build()
        });
        let corpus = Corpus::open(&[file.path().to_path_buf()], &CorpusOptions::default()).unwrap();
        assert!(documents(&corpus) == plain, "at {at}");
    }
}
