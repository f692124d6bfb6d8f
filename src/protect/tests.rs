use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::DataType;
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use secrecy::SecretString;
use sha2::Sha256;

use super::{Keys, Method, PSEUDONYMS, Protect, ProtectConfig, Protection, Step, Tokens};
use crate::error::{Class, Result};
use crate::format::FieldType;
use crate::format::types::page;
use crate::rows::Batch;

const KEY: &str = "a key of some length";

fn rows() -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(vec![i64::MIN, 2])) as ArrayRef, false),
        ("email", Arc::new(StringArray::from(vec![Some("åse@x.no!"), None])) as ArrayRef, true),
        (
            "amount",
            Arc::new(Decimal128Array::from(vec![1230, -5]).with_precision_and_scale(9, 2).unwrap())
                as ArrayRef,
            false,
        ),
    ])
    .unwrap()
}

fn config<P: Clone + Into<Protection>>(columns: &[(&str, P)]) -> ProtectConfig {
    columns.iter().map(|(name, how)| ((*name).to_owned(), how.clone().into())).collect()
}

fn keys() -> Keys {
    Keys::from([
        (PSEUDONYMS.to_owned(), SecretString::from(KEY)),
        ("acme".to_owned(), SecretString::from("0f".repeat(64))),
    ])
}

fn protect<P: Clone + Into<Protection>>(
    columns: &[(&str, P)],
    rows: RecordBatch,
) -> Result<RecordBatch> {
    let protect = Protect::plan(&config(columns), rows.schema(), &keys())?;
    let batch = Batch { read: 9, filtered: 7, ..Batch::whole(rows) };
    let count = batch.rows.num_rows();
    let (before, done) = protect.apply(batch)?;
    assert_eq!(before.num_rows(), count);
    assert_eq!(done.rows.schema(), protect.schema());
    assert_eq!((done.read, done.filtered, done.rows.num_rows()), (9, 7, count));
    Ok(done.rows)
}

fn pseudonym(value: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(value);
    hex::encode(mac.finalize().into_bytes())
}

#[test]
fn dropped_columns_are_gone() {
    let done = protect(&[("email", Method::Drop)], rows()).unwrap();
    assert!(done.column_by_name("email").is_none());
    assert_eq!(done.num_columns(), 2);
}

#[test]
fn masks_go_by_characters() {
    let texts = ["", "short", "åtteåtte", "niniåninå", "0123456789", "👩‍🚀👩‍🚀👩‍🚀x"];
    let column = StringArray::from_iter(texts.iter().map(Some).chain([None]));
    let rows =
        RecordBatch::try_from_iter_with_nullable([("t", Arc::new(column) as ArrayRef, true)]);
    let done = protect(&[("t", Method::Mask)], rows.unwrap()).unwrap();
    let masked: Vec<_> = done.column(0).as_string::<i32>().iter().collect();
    assert_eq!(
        masked[..5],
        [Some(""), Some("*****"), Some("********"), Some("*****ninå"), Some("******6789")]
    );
    assert_eq!(masked[5].unwrap().chars().count(), texts[5].chars().count());
    assert_eq!(masked[6], None);
}

#[test]
fn redaction_shows_nothing() {
    let columns = [("email", Method::Redact), ("amount", Method::Redact)];
    let done = protect(&columns, rows()).unwrap();
    let texts: Vec<_> = done.column(1).as_string::<i32>().iter().collect();
    assert_eq!(texts, [Some("[redacted]"); 2]);
    assert_eq!(done.column(2).null_count(), 2);
    assert!(done.schema().field(2).is_nullable());
    assert_eq!(*done.column(2).data_type(), DataType::Decimal128(9, 2));
}

#[test]
fn hashes_are_hmacs_of_the_canonical_text() {
    let all = RecordBatch::try_from_iter_with_nullable([
        ("i", Arc::new(Int64Array::from(vec![i64::MIN])) as ArrayRef, true),
        ("s", Arc::new(StringArray::from(vec!["åse"])) as ArrayRef, true),
        ("b", Arc::new(BinaryArray::from(vec![&b"\xff\x00"[..]])) as ArrayRef, true),
        ("t", Arc::new(BooleanArray::from(vec![true])) as ArrayRef, true),
        (
            "d",
            Arc::new(Decimal128Array::from(vec![1230]).with_precision_and_scale(9, 2).unwrap())
                as ArrayRef,
            true,
        ),
        ("f", Arc::new(Float64Array::from(vec![0.1])) as ArrayRef, true),
        ("day", Arc::new(Date32Array::from(vec![0])) as ArrayRef, true),
        ("c", Arc::new(TimestampMicrosecondArray::from(vec![1_500_000])) as ArrayRef, true),
        (
            "u",
            Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC")) as ArrayRef,
            true,
        ),
        ("clock", Arc::new(arrow::array::Time64MicrosecondArray::from(vec![1])) as ArrayRef, true),
        ("n", new_null_array(&DataType::Date32, 1), true),
    ])
    .unwrap();
    let names: Vec<String> =
        all.schema().fields().iter().map(|field| field.name().clone()).collect();
    let by = |method| names.iter().map(|name| (name.as_str(), method)).collect::<Vec<_>>();
    let done = protect(&by(Method::Hash), all.clone()).unwrap();
    let made = protect(&by(Method::Tokenize), all.clone()).unwrap();
    let page = page::rows("Canonical text");
    let tokens = Tokens::new(&SecretString::from(KEY)).unwrap();
    for (index, text) in [
        &b"-9223372036854775808"[..],
        "åse".as_bytes(),
        b"\xff\x00",
        b"true",
        b"12.30",
        b"0.1",
        b"1970-01-01",
        b"1970-01-01T00:00:01.500",
        b"1970-01-01T00:00:00.000001Z",
        b"00:00:00.000001",
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(done.column(index).as_string::<i32>().value(0), pseudonym(text), "{index}");
        let token = made.column(index).as_string::<i32>().value(0);
        assert_eq!(tokens.open(token).as_deref(), Some(*text), "{index}");
        let kind = FieldType::of_arrow(all.column(index).data_type()).unwrap().to_string();
        let told = page.iter().find(|row| row[0].contains(&kind.as_str())).unwrap();
        assert!(
            kind == "bytes" || told[2][0].as_bytes() == *text,
            "the page says of {kind}: {told:?}"
        );
    }
    assert!(done.column(10).is_null(0) && made.column(10).is_null(0));
}

/// RFC 4231, test case 2.
#[test]
fn a_hash_is_the_published_one() {
    let rows = RecordBatch::try_from_iter([(
        "t",
        Arc::new(StringArray::from(vec!["what do ya want for nothing?"])) as ArrayRef,
    )])
    .unwrap();
    let keys = Keys::from([(PSEUDONYMS.to_owned(), SecretString::from("Jefe"))]);
    let protect = Protect::plan(&config(&[("t", Method::Hash)]), rows.schema(), &keys).unwrap();
    let (_, done) = protect.apply(Batch::whole(rows)).unwrap();
    assert_eq!(
        done.rows.column(0).as_string::<i32>().value(0),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
}

#[test]
fn what_cannot_be_protected_is_refused_when_planning() {
    let said = |columns: &[(&str, Protection)], keys: &Keys| {
        let error = Protect::plan(&config(columns), rows().schema(), keys).map(|_| ()).unwrap_err();
        assert_eq!(error.class(), Class::Config);
        format!("{error} {}", error.advice().unwrap_or_default())
    };
    let none = Keys::new();
    assert!(said(&[("emial", Method::Drop.into())], &none).contains("`email`?"));
    assert!(said(&[("amount", Method::Mask.into())], &none).contains("`amount`"));
    for keys in [none, Keys::from([(PSEUDONYMS.to_owned(), SecretString::from(""))])] {
        for method in [Method::Hash, Method::Tokenize] {
            let said = said(&[("email", method.into())], &keys);
            assert!(said.contains("[keys]") && said.contains("longshore.toml"), "{said}");
        }
    }
    let all = ["id", "email", "amount"].map(|name| (name, Method::Drop.into()));
    assert!(said(&all, &keys()).contains("every column"));
    let under = |key: &str| {
        let encrypt = Protection { key: Some(key.to_owned()), ..Protection::from(Method::Encrypt) };
        said(&[("email", encrypt)], &keys())
    };
    assert!(under("acmee").contains("there is no key `acmee`"), "{}", under("acmee"));
    assert!(under(PSEUDONYMS).contains("is the key of `hash`"), "{}", under(PSEUDONYMS));
    let generalize = said(&[("email", Method::Generalize.into())], &keys());
    assert!(generalize.contains("has to know"), "{generalize}");
}

/// A token of this form is in recipients' hands: it must always be turned back.
#[test]
fn the_form_of_a_token_never_changes() {
    let token = "tok_hOLyQawZntqwqTCfxmmMrfEU_Qp908VqlXdQzXNEjvbBh5zbkfOATLcLawQ";
    let rows = RecordBatch::try_from_iter([(
        "t",
        Arc::new(StringArray::from(vec!["what do ya want for nothing?"])) as ArrayRef,
    )])
    .unwrap();
    let keys = Keys::from([(PSEUDONYMS.to_owned(), SecretString::from("Jefe"))]);
    let protect = Protect::plan(&config(&[("t", Method::Tokenize)]), rows.schema(), &keys).unwrap();
    let (_, done) = protect.apply(Batch::whole(rows)).unwrap();
    assert_eq!(done.rows.column(0).as_string::<i32>().value(0), token);
    let tokens = Tokens::new(&keys[PSEUDONYMS]).unwrap();
    assert_eq!(tokens.open(token).unwrap(), b"what do ya want for nothing?");
    let cut = &token[..token.len() - 2];
    let changed = token.replace('A', "B");
    for other in ["", "tok_", "tok_AAAA", &token[4..], cut, &changed, &format!("{token}=")] {
        assert_eq!(tokens.open(other), None, "{other}");
    }
    let others = Tokens::new(&SecretString::from("Geoff")).unwrap();
    assert_eq!(others.open(token), None);
}

#[test]
fn a_mask_leaves_as_many_characters_as_it_says() {
    for (keep, text, shown) in [
        (0, "0123456789", "**********"),
        (2, "0123", "****"),
        (2, "01234", "***34"),
        (6, "0123456789ab", "************"),
        (6, "0123456789abc", "*******789abc"),
        (u32::MAX, "0123456789abc", "*************"),
    ] {
        let column = Arc::new(StringArray::from(vec![text])) as ArrayRef;
        let rows = RecordBatch::try_from_iter([("t", column)]).unwrap();
        let mask = Protection { keep: Some(keep), ..Protection::from(Method::Mask) };
        let done = protect(&[("t", mask)], rows).unwrap();
        assert_eq!(done.column(0).as_string::<i32>().value(0), shown);
    }
}

#[test]
fn a_row_whose_class_would_leave_the_type_is_refused_as_it_was() {
    let step = Protection { step: Step::parse("10"), ..Protection::from(Method::Generalize) };
    let columns = [("id", step), ("email", Protection::from(Method::Hash))];
    let protect = Protect::plan(&config(&columns), rows().schema(), &keys()).unwrap();
    let (before, batch) = protect.apply(Batch::whole(rows())).unwrap();
    assert_eq!((batch.read, batch.rows.num_rows(), before.num_rows()), (2, 1, 1));
    assert_eq!(before, rows().slice(1, 1));
    let [refused] = &batch.refused[..] else { panic!("{:?}", batch.refused) };
    assert_eq!(refused.rule, "generalize, step = 10");
    assert_eq!(refused.column.as_deref(), Some("id"));
    assert_eq!(refused.row["email"], "åse@x.no!");
    assert_eq!(refused.schema, Some(rows().schema()));
}

#[test]
fn what_is_written_in_two_ways_has_one_content() {
    let content = |toml: &str| {
        let read: ProtectConfig = toml::from_str(toml).unwrap();
        serde_json::to_string(&read).unwrap()
    };
    for (toml, json) in [
        ("a = \"hash\"\nb = \"drop\"", r#"{"a":"hash","b":"drop"}"#),
        ("a = { method = \"hash\" }", r#"{"a":"hash"}"#),
        ("a = { method = \"mask\", keep = 4 }", r#"{"a":"mask"}"#),
        ("a = { keep = 2, method = \"mask\" }", r#"{"a":{"method":"mask","keep":2}}"#),
        (
            "a = { method = \"generalize\", step = 0.50 }",
            r#"{"a":{"method":"generalize","step":"0.5"}}"#,
        ),
        (
            "a = { method = \"generalize\", to = \"day\" }",
            r#"{"a":{"method":"generalize","to":"day"}}"#,
        ),
        (
            "a = { method = \"encrypt\", key = \"acme\" }",
            r#"{"a":{"method":"encrypt","key":"acme"}}"#,
        ),
    ] {
        assert_eq!(content(toml), json);
        let again: ProtectConfig = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), json);
    }
}

#[test]
fn what_tells_more_is_known() {
    let of = |toml: &str| {
        let read: ProtectConfig = toml::from_str(&format!("a = {toml}")).unwrap();
        read["a"].clone()
    };
    let generalize = |option: &str| format!("{{ method = \"generalize\", {option} }}");
    let mask = |keep: u32| format!("{{ method = \"mask\", keep = {keep} }}");
    for (less, more) in [
        ("\"hash\"".to_owned(), "\"mask\"".to_owned()),
        ("\"mask\"".to_owned(), mask(5)),
        (mask(3), "\"mask\"".to_owned()),
        (generalize("step = 10"), generalize("step = 9.5")),
        (generalize("to = \"year\""), generalize("to = \"month\"")),
        (generalize("to = \"day\""), generalize("to = \"hour\"")),
        (generalize("keep = 2"), generalize("keep = 3")),
        ("\"drop\"".to_owned(), generalize("keep = 3")),
    ] {
        assert!(of(&more).tells_more_than(&of(&less)), "{less} {more}");
        assert!(!of(&less).tells_more_than(&of(&more)), "{less} {more}");
        assert!(!of(&less).tells_more_than(&of(&less)), "{less}");
    }
}

#[test]
fn a_date_that_cannot_be_written_is_not_quoted() {
    let rows = RecordBatch::try_from_iter([(
        "d",
        Arc::new(Date32Array::from(vec![i32::MAX])) as ArrayRef,
    )])
    .unwrap();
    let error = protect(&[("d", Method::Hash)], rows).unwrap_err();
    assert!(!error.chain().contains(&i32::MAX.to_string()), "{}", error.chain());
}

proptest! {
    #[test]
    fn every_row_goes_on_and_no_value_shows(
        texts in prop::collection::vec(prop::option::of(".{9,20}"), 0..20),
    ) {
        let column = StringArray::from(texts.clone());
        let rows = RecordBatch::try_from_iter_with_nullable([
            ("m", Arc::new(column.clone()) as ArrayRef, true),
            ("h", Arc::new(column.clone()) as ArrayRef, true),
            ("t", Arc::new(column.clone()) as ArrayRef, true),
        ]).unwrap();
        let columns = [("m", Method::Mask), ("h", Method::Hash), ("t", Method::Tokenize)];
        let done = protect(&columns, rows).unwrap();
        let tokens = Tokens::new(&SecretString::from(KEY)).unwrap();
        let masked = done.column(0).as_string::<i32>();
        let hashed = done.column(1).as_string::<i32>();
        for (row, text) in texts.iter().enumerate() {
            prop_assert_eq!(masked.is_null(row), text.is_none());
            let Some(text) = text else { continue };
            prop_assert_eq!(masked.value(row).chars().count(), text.chars().count());
            let tail: String = text.chars().skip(text.chars().count() - 4).collect();
            prop_assert!(masked.value(row).trim_start_matches('*').len() <= tail.len());
            prop_assert!(masked.value(row).ends_with(&tail));
            prop_assert_eq!(hashed.value(row), pseudonym(text.as_bytes()));
            let token = done.column(2).as_string::<i32>().value(row);
            prop_assert_eq!(tokens.open(token), Some(text.clone().into_bytes()));
        }
    }
}
