use super::*;
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

fn types(fields: &[(&str, FieldType)]) -> IndexMap<String, FieldType> {
    fields.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())).collect()
}

/// Reads through buffers of every small size, so that each border is crossed.
fn read(bytes: &[u8], options: &CsvOptions, fields: &[(&str, FieldType)]) -> Batch {
    let results = [1, 2, 3, 7, 1000].map(|size| {
        let input = std::io::BufReader::with_capacity(size, bytes);
        let mut reader = CsvReader::new(input, options, &types(fields), false).unwrap();
        let batch = reader.next_batch().unwrap().unwrap();
        assert!(reader.next_batch().unwrap().is_none());
        batch
    });
    assert!(results.iter().all(|one| one.rows == results[0].rows
        && one.refused == results[0].refused
        && one.read == results[0].read));
    results[0].clone()
}

fn column(batch: &Batch, index: usize) -> Vec<Option<&str>> {
    batch.rows.column(index).as_string::<i32>().iter().collect()
}

#[test]
fn null_and_the_empty_string_are_told_apart() {
    let text = "\u{feff}b,a\r\n,\"\"\r\n\"x, \"\"y\"\"\r\n\",é\r\n\r\n\"z\r\",\"w\"";
    let fields = [("a", FieldType::String), ("b", FieldType::String)];
    let batch = read(text.as_bytes(), &CsvOptions::default(), &fields);
    assert_eq!(column(&batch, 0), [Some(""), Some("é"), Some("w")]);
    assert_eq!(column(&batch, 1), [None, Some("x, \"y\"\r\n"), Some("z\r")]);
    assert!(batch.refused.is_empty());
}

#[test]
fn another_dialect_without_header() {
    let options = CsvOptions {
        header: false,
        delimiter: '|',
        null: "\\N".to_owned(),
        ..CsvOptions::default()
    };
    let fields = [("a", FieldType::String), ("b", FieldType::Int64)];
    let batch = read("\\N|1\n|\\N\n\"\\N\"|\"3\"\nx|\n".as_bytes(), &options, &fields);
    assert_eq!(column(&batch, 0), [None, Some(""), Some("\\N")]);
    let numbers: Vec<_> = batch.rows.column(1).as_primitive::<Int64Type>().iter().collect();
    assert_eq!(numbers, [Some(1), None, Some(3)]);
    assert_eq!(batch.refused[0].row["b"], "");
}

#[test]
fn broken_rows_are_refused_with_their_rule() {
    let text = b"a,b\n1,x\n2\nxx,y\n\"3\"q,z\n4,\xff\n";
    let fields = [("a", FieldType::Int64), ("b", FieldType::String)];
    let batch = read(text, &CsvOptions::default(), &fields);
    assert_eq!((batch.read, batch.rows.num_rows()), (5, 1));
    let mut rules: Vec<_> = batch.refused.iter().map(|one| one.rule.as_str()).collect();
    rules.sort_unstable();
    assert_eq!(rules, ["columns", "encoding UTF-8", "quotes", "type int64"]);
    let columns = batch.refused.iter().find(|one| one.rule == "columns").unwrap();
    assert_eq!(columns.row["line"], 3);
    let text = batch.refused.iter().find(|one| one.rule == "encoding UTF-8").unwrap();
    assert_eq!(text.row["b"], "\\xff");
}

#[test]
fn values_are_read_in_their_dialect() {
    let options: CsvOptions = serde_json::from_value(serde_json::json!({
        "delimiter": ";", "decimal": ",", "encoding": "utf-16le", "formulas": "escape",
        "timestamp": "%d.%m.%Y %H:%M:%S", "date": "%d.%m.%Y", "time": "%H.%M",
    }))
    .unwrap();
    let fields = [
        ("d", FieldType::Decimal(10, 2)),
        ("f", FieldType::Float64),
        ("s", FieldType::String),
        ("at", FieldType::Instant),
        ("day", FieldType::Date),
        ("t", FieldType::Time),
    ];
    let text = "\u{feff}d;f;s;at;day;t\r\n-1,50;1,5e3;'=1\u{1f600};19.11.2026 01:02:03;19.11.2026;23.59\r\n\
                1.5;1;x;;;\r\n;;'x;19.11.2026;;\r\n;;;;;24.00\r\n";
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut bytes = bytes;
    bytes.extend(b";\0;\0\0\xd8;\0;\0;\0");
    let batch = read(&bytes, &options, &fields);
    assert_eq!((batch.read, batch.rows.num_rows()), (5, 1));
    assert_eq!(column(&batch, 2), [Some("=1\u{1f600}")]);
    let shown = crate::format::row_json(&batch.rows, 0);
    assert_eq!(shown["d"], "-1.50");
    assert_eq!(shown["f"], 1500.0);
    assert_eq!(shown["at"], "2026-11-19T01:02:03Z");
    assert_eq!((&shown["day"], &shown["t"]), (&"2026-11-19".into(), &"23:59:00".into()));
    let mut rules: Vec<_> = batch.refused.iter().map(|one| one.rule.as_str()).collect();
    rules.sort_unstable();
    assert_eq!(
        rules,
        ["encoding UTF-16LE", "type decimal(10,2)", "type time(us)", "type timestamp(us, UTC)"]
    );
}

#[test]
fn an_empty_line_is_a_null_of_the_only_column() {
    let batch = read(b"a\nx\n\n\"\"\n", &CsvOptions::default(), &[("a", FieldType::String)]);
    assert_eq!(column(&batch, 0), [Some("x"), None, Some("")]);
}

#[test]
fn a_header_that_drifted_is_an_error_of_the_contract() {
    let fields = types(&[("a", FieldType::Int64), ("b", FieldType::String)]);
    for (text, name) in [("a\n", "b"), ("a,b,c\n", "c"), ("a,a,b\n", "a")] {
        let mut reader =
            CsvReader::new(text.as_bytes(), &CsvOptions::default(), &fields, false).unwrap();
        let error = reader.next_batch().unwrap_err();
        assert_eq!(error.class(), crate::error::Class::Contract);
        assert!(error.to_string().contains(&format!("column `{name}`")), "{error}");
    }
}

#[test]
fn a_header_that_is_not_there_or_of_another_delimiter_is_told() {
    let fields = types(&[("a", FieldType::Int64), ("b", FieldType::String)]);
    let fails = |text: &str| {
        let mut reader =
            CsvReader::new(text.as_bytes(), &CsvOptions::default(), &fields, false).unwrap();
        let error = reader.next_batch().unwrap_err();
        assert_eq!(error.class(), crate::error::Class::Contract);
        format!("{error}. {}", error.advice().unwrap_or_default())
    };
    for empty in ["", "\n", "\u{feff}"] {
        assert!(fails(empty).contains("it has no header"), "{empty:?}");
    }
    assert!(fails("a;b\n1;x\n").contains("write delimiter = ';' under csv"));
    assert!(fails("a\tb\n").contains("write delimiter = '\\t' under csv"));
}

#[test]
fn no_rows_are_no_batch() {
    for text in ["a\n", "a"] {
        let mut reader = CsvReader::new(
            text.as_bytes(),
            &CsvOptions::default(),
            &types(&[("a", FieldType::Int64)]),
            false,
        )
        .unwrap();
        assert!(reader.next_batch().unwrap().is_none());
    }
}

fn fails(text: &str, fields: &IndexMap<String, FieldType>, drop: bool) -> String {
    let errors = [1, 3, 1000].map(|size| {
        let input = std::io::BufReader::with_capacity(size, text.as_bytes());
        let mut reader = CsvReader::new(input, &CsvOptions::default(), fields, drop).unwrap();
        let error = loop {
            match reader.next_batch() {
                Ok(batch) => assert!(batch.is_some(), "{text:?} is read"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.class(), crate::error::Class::Contract, "{error}");
        format!("{error}. {}", error.advice().unwrap_or_default())
    });
    assert!(errors.iter().all(|one| *one == errors[0]));
    errors[0].clone()
}

#[test]
fn no_row_hides_behind_a_quote() {
    let fields = types(&[("id", FieldType::Int64), ("name", FieldType::String)]);
    let rows =
        |from: u32, to: u32| -> String { (from..to).map(|id| format!("{id},n{id}\n")).collect() };
    // Open to the end of the file; the header is the first line.
    let open = format!("id,name\n{}5,\"n5\n{}", rows(1, 5), rows(6, 20));
    let told = fails(&open, &fields, false);
    assert!(told.contains("never closed") && told.contains("quote 6"), "{told}");
    // Closed by the quote of another row.
    let closed = format!("id,name\n{}5,\"n5\n{}9,\"n9\"\n", rows(1, 5), rows(6, 9));
    let told = fails(&closed, &fields, false);
    assert!(told.contains("first line 6, last line 10"), "{told}");
    // Closed at an end, so that only the number of fields tells.
    let ended = format!("id,name\n5,\"n5\n{}9,\",x\n", rows(6, 9));
    assert!(fails(&ended, &fields, false).contains("first line 2, last line 6"));
    // In a value that has no lines.
    let number = format!("id,name\n\"5,n5\n{}\",n9\n", rows(6, 9));
    assert!(fails(&number, &fields, false).contains("a value goes over several lines"));
    assert!(fails("id,\"na\nme\"x\n1,2\n", &fields, false).contains("the header goes over"));
    // A text of several lines is one, and a bad number beside it hides nothing.
    let sound = "id,name\n1,\"a\nb\"\nx,\"a\nb\"\n3,\"a\"b\n";
    let batch = read(
        sound.as_bytes(),
        &CsvOptions::default(),
        &[("id", FieldType::Int64), ("name", FieldType::String)],
    );
    assert_eq!((batch.read, batch.rows.num_rows(), batch.refused.len()), (3, 1, 2));
}

#[test]
fn refused_rows_and_those_that_are_kept_know_their_lines() {
    let text = "id,d\n\n1,\"1\"\n\nx,1.234\n2,0\n3\n";
    let fields = [("id", FieldType::Int64), ("d", FieldType::Decimal(5, 2))];
    let batch = read(text.as_bytes(), &CsvOptions::default(), &fields);
    let batch = batch.of_file(&"in/a.csv".into());
    let kept = (0..2).map(|row| batch.origin(row).unwrap().to_string());
    assert_eq!(kept.collect::<Vec<_>>(), ["in/a.csv line 3", "in/a.csv line 6"]);
    let [first, second] = batch.refused.as_slice() else { panic!("{:?}", batch.refused) };
    assert_eq!(first.place().unwrap(), "in/a.csv line 5 (id: not a number)");
    let [also] = first.also.as_slice() else { panic!("{first:?}") };
    assert_eq!((also.rule.as_str(), also.column.as_deref()), ("type decimal(5,2)", Some("d")));
    assert_eq!(also.why.as_deref(), Some("3 digits after the point, 2 allowed"));
    assert_eq!(second.place().unwrap(), "in/a.csv line 7 (values 1, columns 2)");
}

#[test]
fn columns_that_are_not_declared_are_left_out_where_that_is_said() {
    let fields = types(&[("id", FieldType::Int64)]);
    let text = "foo,id,\n\"x\ny\",1,\n,z,\n";
    let mut reader =
        CsvReader::new(text.as_bytes(), &CsvOptions::default(), &fields, true).unwrap();
    let batch = reader.next_batch().unwrap().unwrap();
    assert_eq!(batch.rows.num_columns(), 1);
    assert_eq!(batch.rows.column(0).as_primitive::<Int64Type>().values()[..], [1]);
    assert_eq!(batch.refused[0].row, serde_json::json!({"id": "z"}).as_object().unwrap().clone());
    assert!(fails("foo\n1\n", &fields, true).contains("none of the names"));
    assert!(fails("id,id\n1,1\n", &fields, true).contains("a name twice"));
    assert!(fails("id;foo\n1;1\n", &fields, true).contains("delimiter = ';'"));
}

#[test]
fn what_a_header_lacks_is_told_with_what_is_there() {
    let fields = types(&[("id", FieldType::Int64), ("amount", FieldType::String)]);
    let told = fails("ID,amount\n", &fields, false);
    assert!(told.contains("column `ID`") && told.contains("Did you mean `id`? "), "{told}");
    assert!(told.contains("Expected are `id`, `amount`"), "{told}");
    assert!(told.contains("found are `ID`, `amount`"), "{told}");
    let told = fails("id, amount \n", &fields, false);
    assert!(told.contains("column ` amount `"), "{told}");
    assert!(told.contains("Did you mean `amount`, without the spaces around it?"), "{told}");
    let told = fails("ID,amount\n", &fields, true);
    assert!(told.contains("column `id`") && told.contains("Is it `ID` in the file?"), "{told}");
    assert!(fails("id,amount\r1,2\r", &fields, false).contains("carriage return alone"));
    let told = fails("id,a\u{1b}[31m\n", &fields, false);
    assert!(!told.contains('\u{1b}'), "{told}");
}

/// What stands there is a row, and no row is told.
#[test]
fn a_first_line_that_is_no_header_is_not_shown() {
    let fields = types(&[("id", FieldType::Int64), ("email", FieldType::String)]);
    for drop in [false, true] {
        let told = fails("1,kari@private.no\n2,x\n", &fields, drop);
        assert!(told.contains("header = false") && told.contains("`email`"), "{told}");
        assert!(!told.contains("kari"), "{told}");
    }
}

#[test]
fn a_file_in_another_encoding_is_told() {
    let fields = types(&[("id", FieldType::Int64), ("å", FieldType::String)]);
    let wide = |swap: bool| -> Vec<u8> {
        let bytes = |unit: u16| if swap { unit.to_be_bytes() } else { unit.to_le_bytes() };
        "id,å\n1,x\n".encode_utf16().flat_map(bytes).collect()
    };
    let marked = [&b"\xff\xfe"[..], &wide(false)].concat();
    for (bytes, help) in [
        (wide(false), "encoding = \"utf-16le\""),
        (marked, "encoding = \"utf-16le\""),
        (wide(true), "encoding = \"utf-16be\""),
        (b"id,\xe5\n".to_vec(), "windows-1252"),
    ] {
        let mut reader =
            CsvReader::new(bytes.as_slice(), &CsvOptions::default(), &fields, false).unwrap();
        let error = reader.next_batch().unwrap_err();
        assert!(error.advice().unwrap().contains(help), "{error}");
        assert!(error.to_string().is_ascii(), "{error}");
    }
}
