use std::io::Read;
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int16Array, Int32Array, Int64Array, RecordBatch, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::error::Class;
use crate::format::decode::avro::AvroFile;
use crate::format::decode::csv::CsvReader;
use crate::format::decode::ipc::IpcFile;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
        .collect::<Vec<_>>();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// Every type: an ordinary value, an extreme one, and NULL.
fn every_type() -> RecordBatch {
    batch(vec![
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
        ("i16", Arc::new(Int16Array::from(vec![Some(7), Some(i16::MIN), None]))),
        ("i32", Arc::new(Int32Array::from(vec![Some(-7), Some(i32::MAX), None]))),
        ("i64", Arc::new(Int64Array::from(vec![Some(9007199254740993), Some(i64::MIN), None]))),
        ("f32", Arc::new(Float32Array::from(vec![Some(0.1), Some(f32::MAX), None]))),
        ("f64", Arc::new(Float64Array::from(vec![Some(0.1), Some(-5e-324), None]))),
        (
            "money",
            Arc::new(
                Decimal128Array::from(vec![Some(1230), Some(-(10i128.pow(38) - 1)), None])
                    .with_precision_and_scale(38, 2)
                    .unwrap(),
            ),
        ),
        ("text", Arc::new(StringArray::from(vec![Some("a,\"b\"\r\nø\u{1}"), Some(""), None]))),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), Some(b""), None]))),
        ("day", Arc::new(Date32Array::from(vec![Some(20776), Some(-1), None]))),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![Some(1), Some(86_399_000_000), None]))),
        (
            "civil",
            Arc::new(TimestampMicrosecondArray::from(vec![
                Some(1_795_046_400_000_000),
                Some(-1),
                None,
            ])),
        ),
        (
            "at",
            Arc::new(
                TimestampMicrosecondArray::from(vec![Some(1_795_046_400_000_000), Some(-1), None])
                    .with_timezone("UTC"),
            ),
        ),
    ])
}

const CSV: &str = "flag,i16,i32,i64,f32,f64,money,text,bytes,day,time,civil,at
true,7,-7,9007199254740993,0.1,0.1,12.30,\"a,\"\"b\"\"\r\nø\u{1}\",\\x00ff,2026-11-19,00:00:00.000001,2026-11-19T00:00:00,2026-11-19T00:00:00Z
false,-32768,2147483647,-9223372036854775808,3.4028235e38,-5e-324,-999999999999999999999999999999999999.99,\"\",\\x,1969-12-31,23:59:59,1969-12-31T23:59:59.999999,1969-12-31T23:59:59.999999Z
,,,,,,,,,,,,
";

const JSONL: &str = r#"{"flag":true,"i16":7,"i32":-7,"i64":9007199254740993,"f32":0.1,"f64":0.1,"money":12.30,"text":"a,\"b\"\r\nø\u0001","bytes":"AP8=","day":"2026-11-19","time":"00:00:00.000001","civil":"2026-11-19T00:00:00","at":"2026-11-19T00:00:00Z"}
{"flag":false,"i16":-32768,"i32":2147483647,"i64":-9223372036854775808,"f32":3.4028235e38,"f64":-5e-324,"money":-999999999999999999999999999999999999.99,"text":"","bytes":"","day":"1969-12-31","time":"23:59:59","civil":"1969-12-31T23:59:59.999999","at":"1969-12-31T23:59:59.999999Z"}
{"flag":null,"i16":null,"i32":null,"i64":null,"f32":null,"f64":null,"money":null,"text":null,"bytes":null,"day":null,"time":null,"civil":null,"at":null}
"#;

const FORMATS: [Format; 5] =
    [Format::Parquet, Format::Csv, Format::Jsonl, Format::Arrow, Format::Avro];

fn encoded(
    format: Format,
    compression: Compression,
    csv: &CsvOptions,
    batches: &[RecordBatch],
) -> Result<Vec<u8>> {
    let mut encoder = Encoder::new(format, compression, csv, &batches[0].schema())?;
    let mut out = Vec::new();
    for rows in batches {
        encoder.write(rows, &mut out)?;
    }
    encoder.finish(&mut out)?;
    Ok(out)
}

fn unpacked(compression: Compression, bytes: &[u8]) -> String {
    let mut text = String::new();
    match compression {
        Compression::None => text.push_str(std::str::from_utf8(bytes).unwrap()),
        Compression::Gzip => {
            flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
        }
        Compression::Zstd => {
            ::zstd::Decoder::new(bytes).unwrap().read_to_string(&mut text).unwrap();
        }
    }
    text
}

#[test]
fn every_type_arrives_in_every_format_and_compression() {
    let rows = every_type();
    let batches = [rows.slice(0, 2), rows.slice(2, 1)];
    let csv = CsvOptions::default();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        for (format, text) in [(Format::Csv, CSV), (Format::Jsonl, JSONL)] {
            let bytes = encoded(format, compression, &csv, &batches).unwrap();
            assert_eq!(unpacked(compression, &bytes), text, "{format:?} {compression:?}");
            assert_eq!(bytes, encoded(format, compression, &csv, &batches).unwrap());
        }
        let bytes = encoded(Format::Parquet, compression, &csv, &batches).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
        let group = reader.metadata().row_group(0);
        assert!(group.columns().iter().all(|column| column.statistics().is_some()));
        let schema = reader.schema().clone();
        let back: Vec<_> = reader.build().unwrap().map(|batch| batch.unwrap()).collect();
        assert_eq!(concat_batches(&schema, &back).unwrap(), rows);
    }
}

/// A batch that was read back, and the schema that the file told.
fn back(
    schema: &SchemaRef,
    mut next: impl FnMut() -> Result<Option<crate::rows::Batch>>,
) -> RecordBatch {
    let mut batches = Vec::new();
    while let Some(batch) = next().unwrap() {
        assert!(batch.refused.is_empty());
        batches.push(batch.rows);
    }
    concat_batches(schema, &batches).unwrap()
}

/// Avro has no integer of 16 bits.
fn widened(rows: &RecordBatch) -> RecordBatch {
    let wide = |field: &Field| match field.data_type() {
        DataType::Int16 => DataType::Int32,
        other => other.clone(),
    };
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, array)| {
        (field.name().as_str(), arrow::compute::cast(array, &wide(field)).unwrap())
    });
    batch(columns.collect())
}

#[test]
fn arrow_and_avro_are_read_back_exactly() {
    let rows = every_type();
    let batches = [rows.slice(0, 2), rows.slice(2, 1)];
    let csv = CsvOptions::default();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let bytes = encoded(Format::Avro, compression, &csv, &batches).unwrap();
        assert_eq!(bytes, encoded(Format::Avro, compression, &csv, &batches).unwrap());
        let mut file = AvroFile::open(bytes.as_slice()).unwrap();
        let schema = file.schema.clone();
        assert_eq!(back(&schema, || file.next_batch()), widened(&rows), "{compression:?}");
        // Cut off anywhere, it is never taken for a shorter file, unless a block ends there.
        let mut whole = 0;
        for end in 0..bytes.len() {
            let read = AvroFile::open(&bytes[..end]).and_then(|mut file| {
                while file.next_batch()?.is_some() {}
                Ok(())
            });
            whole += usize::from(read.is_ok());
        }
        assert_eq!(whole, 2, "after the header, and after the first block");
        if compression == Compression::Gzip {
            continue;
        }
        let bytes = encoded(Format::Arrow, compression, &csv, &batches).unwrap();
        assert_eq!(bytes, encoded(Format::Arrow, compression, &csv, &batches).unwrap());
        let mut file = IpcFile::open(bytes.as_slice()).unwrap();
        let schema = file.schema.clone();
        assert_eq!(back(&schema, || file.next_batch()), rows, "{compression:?}");
        for end in (0..bytes.len()).step_by(7) {
            let read = IpcFile::open(&bytes[..end]).and_then(|mut file| {
                while file.next_batch()?.is_some() {}
                Ok(())
            });
            assert!(read.is_err(), "{end} of {} bytes", bytes.len());
        }
    }
    let mut stream = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &rows.schema()).unwrap();
    stream.write(&rows).unwrap();
    let bytes = stream.into_inner().unwrap();
    let mut file = IpcFile::open(bytes.as_slice()).unwrap();
    let schema = file.schema.clone();
    assert_eq!(back(&schema, || file.next_batch()), rows);
    assert!(IpcFile::open(&b"id,name\n"[..]).is_err());
    assert!(IpcFile::open(&b"ARROW2\0\0"[..]).is_err());
}

#[test]
fn what_is_written_in_a_dialect_reads_back_in_it() {
    let rows = every_type();
    let types: indexmap::IndexMap<String, FieldType> = rows
        .schema()
        .fields()
        .iter()
        .map(|field| (field.name().clone(), FieldType::of_arrow(field.data_type()).unwrap()))
        .collect();
    let dialect = |more: serde_json::Value| -> CsvOptions { serde_json::from_value(more).unwrap() };
    for options in [
        dialect(serde_json::json!({})),
        dialect(serde_json::json!({
            "delimiter": ";", "decimal": ",", "encoding": "windows-1252", "newline": "\r\n",
            "timestamp": "%d.%m.%Y %H:%M:%S%.f", "date": "%d.%m.%Y", "time": "%H:%M:%S%.f",
        })),
        dialect(serde_json::json!({
            "quote": "always", "encoding": "utf-16be", "bom": true, "null": "NULL",
            "formulas": "escape", "timestamp": "%Y%m%d%H%M%S%6f",
        })),
        dialect(serde_json::json!({"delimiter": "\t", "header": false, "bom": true})),
        dialect(serde_json::json!({"delimiter": "-", "null": "true", "encoding": "gb18030"})),
    ] {
        let fit = Fit::new(Format::Csv, &options, &rows.schema()).unwrap();
        let checked = fit.check(&rows, crate::rows::Batch::whole(rows.clone())).unwrap();
        assert_eq!(checked.refused, [], "{options:?}");
        let bytes =
            encoded(Format::Csv, Compression::None, &options, std::slice::from_ref(&rows)).unwrap();
        let mut reader = CsvReader::new(bytes.as_slice(), &options, &types, false).unwrap();
        let read = reader.next_batch().unwrap().unwrap();
        assert_eq!(read.refused, [], "{options:?}");
        assert_eq!(read.rows, rows, "{options:?}");
    }
}

#[test]
fn rows_that_a_format_cannot_hold_are_told_from_the_others() {
    let rows = batch(vec![
        ("id", Arc::new(Int32Array::from(vec![1, 2, 3, 4]))),
        ("s", Arc::new(StringArray::from(vec![Some("é"), Some("Ω"), None, Some("=x")]))),
        ("f", Arc::new(Float64Array::from(vec![1.0, 2.0, f64::NAN, 4.0]))),
        ("t", Arc::new(TimestampMicrosecondArray::from(vec![Some(0), Some(0), None, Some(1)]))),
    ]);
    let options = CsvOptions {
        encoding: "windows-1252".to_owned(),
        timestamp: Some("%d.%m.%Y %H:%M:%S".to_owned()),
        formulas: crate::format::Formulas::Escape,
        ..CsvOptions::default()
    };
    let rules = |format, options: &CsvOptions| {
        let fit = Fit::new(format, options, &rows.schema()).unwrap();
        let checked = fit.check(&rows, crate::rows::Batch::whole(rows.clone())).unwrap();
        assert_eq!(checked.rows.num_rows() + checked.refused.len(), 4);
        let refused = checked.refused.into_iter();
        let refused: Vec<_> = refused
            .map(|one| format!("{} {} {}", one.row["id"], one.column.unwrap(), one.rule))
            .collect();
        (refused, checked.rows)
    };
    let (refused, kept) = rules(Format::Csv, &options);
    assert_eq!(refused, ["2 s encoding windows-1252", "4 t format of timestamp"]);
    let bytes = encoded(Format::Csv, Compression::None, &options, &[kept]).unwrap();
    assert_eq!(bytes, b"id,s,f,t\n1,\xe9,1.0,01.01.1970 00:00:00\n3,,NaN,\n");
    let cut = CsvOptions { truncate: true, ..options };
    let (refused, kept) = rules(Format::Csv, &cut);
    assert_eq!(refused, ["2 s encoding windows-1252"]);
    let bytes = encoded(Format::Csv, Compression::None, &cut, &[kept]).unwrap();
    assert!(bytes.ends_with(b"4,'=x,4.0,01.01.1970 00:00:00\n"));
    assert_eq!(rules(Format::Jsonl, &cut).0, ["3 f JSON number"]);
    assert_eq!(rules(Format::Parquet, &cut).0, Vec::<String>::new());
    // What no row could be written with is refused when planning.
    for (options, words) in [
        (
            CsvOptions { timestamp: Some("%F %T %z".to_owned()), ..CsvOptions::default() },
            "column t",
        ),
        (CsvOptions { date: Some("%Q!".to_owned()), ..CsvOptions::default() }, "no format"),
    ] {
        let error = Fit::new(Format::Csv, &options, &rows.schema()).err().unwrap();
        assert!(error.to_string().contains(words), "{error}");
    }
    let named = batch(vec![("Ω", Arc::new(Int32Array::from(vec![1])))]);
    let error = Fit::new(Format::Csv, &cut, &named.schema()).err().unwrap();
    assert!(error.to_string().contains("column Ω"), "{error}");
}

#[test]
fn no_rows_still_carry_the_schema() {
    let none = [every_type().slice(0, 0)];
    let csv = CsvOptions::default();
    let bytes = encoded(Format::Csv, Compression::Zstd, &csv, &none).unwrap();
    assert_eq!(unpacked(Compression::Zstd, &bytes), CSV.split_inclusive('\n').next().unwrap());
    let bytes = encoded(Format::Parquet, Compression::Zstd, &csv, &none).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
    assert_eq!(reader.schema().fields(), none[0].schema().fields());
    assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
}

#[test]
fn null_and_text_that_looks_like_it_stay_apart_in_csv() {
    let rows = batch(vec![
        ("n", Arc::new(Int32Array::from(vec![Some(0), None, Some(10)]))),
        ("s", Arc::new(StringArray::from(vec![Some("0"), None, Some("")]))),
    ]);
    let csv = |null: &str, delimiter| CsvOptions {
        header: false,
        delimiter,
        null: null.to_owned(),
        ..CsvOptions::default()
    };
    for (options, text) in [
        (csv("0", ','), "\"0\",\"0\"\n0,0\n10,\"\"\n"),
        (csv("\\N", ';'), "0;0\n\\N;\\N\n10;\"\"\n"),
        (csv("", '1'), "010\n1\n\"10\"1\"\"\n"),
        (csv("", '|'), "0|0\n|\n10|\"\"\n"),
    ] {
        let bytes =
            encoded(Format::Csv, Compression::None, &options, std::slice::from_ref(&rows)).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }
    for bad in [csv("a,b", ','), csv("\"", ','), csv("", '"'), csv("", '\n')] {
        let error =
            encoded(Format::Csv, Compression::None, &bad, std::slice::from_ref(&rows)).unwrap_err();
        assert_eq!(error.class(), Class::Config);
    }
    let alone = rows.project(&[0]).unwrap();
    let error = encoded(Format::Csv, Compression::None, &csv("", ','), &[alone]).unwrap_err();
    assert_eq!(error.class(), Class::Contract);
}

#[test]
fn csv_says_nan_and_json_refuses_it() {
    let rows = batch(vec![(
        "f",
        Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY])),
    )]);
    let csv = CsvOptions::default();
    let bytes = encoded(Format::Csv, Compression::None, &csv, std::slice::from_ref(&rows)).unwrap();
    assert_eq!(bytes, b"f\nNaN\nInfinity\n-Infinity\n");
    for row in 0..3 {
        let one = [rows.slice(row, 1)];
        let error = encoded(Format::Jsonl, Compression::None, &csv, &one).unwrap_err();
        assert_eq!(error.class(), Class::Contract);
        assert!(error.to_string().contains("column f"), "{error}");
    }
}

#[test]
fn what_cannot_be_written_is_refused_by_name() {
    let csv = CsvOptions::default();
    let odd = Arc::new(Schema::new(vec![Field::new("u", DataType::UInt64, true)]));
    for format in FORMATS {
        let error = Encoder::new(format, Compression::None, &csv, &odd).err().unwrap();
        assert!(error.to_string().contains("column u"), "{error}");
    }
    let twice = Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int32, true),
        Field::new("a", DataType::Int32, true),
    ]));
    assert!(Encoder::new(Format::Jsonl, Compression::None, &csv, &twice).is_err());
    let spaced = Arc::new(Schema::new(vec![Field::new("a b", DataType::Int32, true)]));
    let error = Encoder::new(Format::Avro, Compression::None, &csv, &spaced).err().unwrap();
    assert!(error.to_string().contains("column a b"), "{error}");
    let error = Encoder::new(Format::Arrow, Compression::Gzip, &csv, &spaced).err().unwrap();
    assert_eq!(error.class(), Class::Config);
    let rows = every_type();
    for format in FORMATS {
        let mut encoder =
            Encoder::new(format, Compression::None, &csv, &rows.project(&[0, 1]).unwrap().schema())
                .unwrap();
        let other = rows.project(&[1, 0]).unwrap();
        let error = encoder.write(&other, &mut Vec::new()).unwrap_err();
        assert_eq!(error.class(), Class::Contract, "{format:?}");
    }
}

#[test]
fn a_row_group_ends_before_memory_grows() {
    let wide = batch(vec![(
        "s",
        Arc::new(StringArray::from_iter_values((0..64).map(|n| format!("{n}").repeat(64 << 10)))),
    )]);
    let csv = CsvOptions::default();
    let mut encoder =
        Encoder::new(Format::Parquet, Compression::None, &csv, &wide.schema()).unwrap();
    let mut out = Vec::new();
    let mut largest = 0;
    for _ in 0..20 {
        let before = out.len();
        encoder.write(&wide, &mut out).unwrap();
        largest = largest.max(out.len() - before);
    }
    encoder.finish(&mut out).unwrap();
    assert!(out.len() > 100 << 20, "{}", out.len());
    assert!(largest < 64 << 20, "{largest}");
}
