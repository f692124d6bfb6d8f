//! What the table refuses fails the run whole, by the names of constraint and column.

use super::*;
use crate::sink_table::merge;
use longshore::sink::NewColumns;

/// Delivers rows of which the last is refused: nothing of them stays, and no value is told.
async fn refused(target: &Postgres, table: &str, how: Merge, rows: RecordBatch) -> Error {
    let count = format!("SELECT count(*)::text FROM {{}}{table}");
    let before = target.value(&count).await;
    let (sink, holder) = (target.sink_with(table, how), first());
    let error = deliver(&*sink, &holder, vec![rows]).await.unwrap_err();
    assert_eq!(error.class(), Class::Contract, "{error}");
    let shown = format!("{error} {:?} {}", error.advice(), error.chain());
    assert!(!shown.contains("SECRET") && !shown.contains("4242424242"), "{shown}");
    assert!(error.context().iter().any(|(name, _)| *name == "table"), "{error}");
    assert!(error.advice().is_some(), "{error}");
    assert_eq!(target.value(&count).await, before);
    assert_eq!(sink.close(&next(&holder)).await.unwrap(), None);
    sink.clean(&next(&holder)).await.unwrap();
    assert!(target.stages().await.is_empty());
    error
}

#[tokio::test]
async fn constraints_are_told_by_their_names() {
    with(async |target| {
        target
            .execute(
                "CREATE TABLE {}p (id bigint PRIMARY KEY);
                 CREATE DOMAIN {}short AS text CONSTRAINT is_short CHECK (length(VALUE) < 4);
                 CREATE DOMAIN {}must AS text NOT NULL;
                 CREATE FUNCTION {}no() RETURNS trigger LANGUAGE plpgsql
                     AS 'BEGIN RAISE EXCEPTION ''SECRET %'', NEW.id; END'",
            )
            .await;
        target.execute("INSERT INTO {}p VALUES (1)").await;
        for (columns, told) in [
            ("id bigint CONSTRAINT small CHECK (id < 10), name text", "constraint small refuses"),
            ("id bigint, name text, CHECK (id < 10 AND name <> 'x')", "column id, name"),
            ("id bigint CONSTRAINT known REFERENCES {}p, name text", "constraint known refuses"),
            ("id bigint REFERENCES {}p DEFERRABLE INITIALLY DEFERRED, name text", "c_id_fkey"),
            ("id bigint, name text, CONSTRAINT n UNIQUE (name)", "constraint n refuses"),
            ("id bigint, name text UNIQUE DEFERRABLE INITIALLY DEFERRED", "column name"),
            ("id bigint, name text, EXCLUDE (name WITH =)", "column name"),
            ("id bigint, name text NOT NULL", "SQLSTATE 23502"),
        ] {
            target
                .execute(&format!("DROP TABLE IF EXISTS {{}}c; CREATE TABLE {{}}c ({columns})"))
                .await;
            let name = (!columns.ends_with("NOT NULL")).then_some("a");
            let rows = batch(&[(1, Some("a")), (4_242_424_242, name)]);
            let error = refused(target, "c", merge(Mode::Append, &[]), rows).await;
            assert!(error.to_string().contains(told), "{columns}: {error}");
            assert!(error.context().iter().any(|(name, _)| *name == "column"), "{error}");
        }
        for (kind, told) in [("{}short", "is_short"), ("{}must", "requires a value")] {
            target
                .execute(&format!("DROP TABLE {{}}c; CREATE TABLE {{}}c (id bigint, name {kind})"))
                .await;
            let value = (kind == "{}short").then_some("SECRET");
            let rows = batch(&[(1, Some("a")), (2, value)]);
            let error = refused(target, "c", merge(Mode::Append, &[]), rows).await;
            assert!(error.to_string().contains(told), "{error}");
            assert!(error.context().contains(&("column", "name".to_owned())), "{error}");
        }
        target
            .execute(
                "DROP TABLE {}c; CREATE TABLE {}c (id bigint, name text);
                 CREATE TRIGGER no BEFORE INSERT ON {}c FOR EACH ROW EXECUTE FUNCTION {}no()",
            )
            .await;
        let error =
            refused(target, "c", merge(Mode::Append, &[]), batch(&[(4_242_424_242, None)])).await;
        assert!(error.to_string().contains("a trigger of the table refuses a row"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn rows_that_others_refer_to_are_not_replaced() {
    with(async |target| {
        target
            .execute(
                "INSERT INTO {}t VALUES (1, 'a'), (4242424242, 'b');
                 CREATE TABLE {}child (t bigint CONSTRAINT of_t REFERENCES {}t);
                 INSERT INTO {}child VALUES (4242424242)",
            )
            .await;
        let rows = || batch(&[(1, Some("new"))]);
        let error = refused(target, "t", merge(Mode::Replace, &[]), rows()).await;
        assert!(error.to_string().contains("constraint of_t refuses a row"), "{error}");
        let deleted = Some("id = 4242424242".to_owned());
        let how = Merge { deleted, ..merge(Mode::Upsert, &["id"]) };
        refused(target, "t", how, batch(&[(1, Some("new")), (4_242_424_242, None)])).await;
        assert_eq!(target.rows().await[0], (1, Some("a".to_owned())));
        deliver(&*target.sink(Mode::Upsert), &first(), vec![rows()]).await.unwrap();
        assert_eq!(target.rows().await[0], (1, Some("new".to_owned())));
    })
    .await;
}

#[tokio::test]
async fn a_trigger_that_keeps_rows_is_told() {
    with(async |target| {
        target
            .execute(
                "INSERT INTO {}t VALUES (1, 'a');
                 CREATE FUNCTION {}keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
                 CREATE TRIGGER keeps BEFORE DELETE ON {}t
                     FOR EACH ROW EXECUTE FUNCTION {}keep()",
            )
            .await;
        let deleted = Some("name IS NULL".to_owned());
        for how in [merge(Mode::Replace, &[]), Merge { deleted, ..merge(Mode::Upsert, &["id"]) }] {
            let sink = target.sink_with("t", how);
            let error = deliver(&*sink, &first(), vec![batch(&[(1, None)])]).await.unwrap_err();
            assert_eq!(error.class(), Class::Permanent);
            assert!(error.to_string().contains("still there"), "{error}");
            assert_eq!(target.rows().await, [(1, Some("a".to_owned()))]);
        }
    })
    .await;
}

#[tokio::test]
async fn partitions_need_a_place_for_each_row_and_their_column_in_the_key() {
    with(async |target| {
        target
            .execute(
                "CREATE TABLE {}p (id bigint, name text) PARTITION BY LIST (name);
                 CREATE TABLE {}p1 PARTITION OF {}p FOR VALUES IN ('a');
                 CREATE TABLE {}p2 PARTITION OF {}p FOR VALUES IN ('b')",
            )
            .await;
        let append = || merge(Mode::Append, &[]);
        let rows = batch(&[(1, Some("a")), (2, Some("b"))]);
        deliver(&*target.sink_with("p", append()), &first(), vec![rows]).await.unwrap();
        assert_eq!(target.value("SELECT id::text FROM {}p2").await, "2");
        let error =
            refused(target, "p", append(), batch(&[(3, Some("a")), (4, Some("SECRET"))])).await;
        assert!(error.to_string().contains("no partition of the table takes a row"), "{error}");
        refused(target, "p1", append(), batch(&[(3, Some("b"))])).await;
        let sink = target.sink_to("p", Mode::Upsert, &["id"]);
        let error = sink.begin(&first()).await.unwrap_err();
        assert!(error.to_string().contains("partitioned by LIST (name)"), "{error}");
        assert!(error.advice().unwrap().contains("Add name to primary-key"), "{error}");
        target.execute("CREATE UNIQUE INDEX ON {}p (name, id)").await;
        let sink = target.sink_to("p", Mode::Upsert, &["id", "name"]);
        deliver(&*sink, &first(), vec![batch(&[(1, Some("a")), (5, Some("b"))])]).await.unwrap();
        assert_eq!(target.value("SELECT count(*)::text FROM {}p").await, "3");
        let how = Merge { new_columns: NewColumns::Add, ..merge(Mode::Replace, &[]) };
        let rows = RecordBatch::try_from_iter([("name", text("b")), ("extra", text("x"))]).unwrap();
        deliver(&*target.sink_with("p", how), &first(), vec![rows]).await.unwrap();
        assert_eq!(target.lines("SELECT extra FROM {}p2").await, ["x"]);
        assert!(target.lines("SELECT extra FROM {}p1").await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_the_table_gives_by_itself_is_left_to_it() {
    with(async |target| {
        target
            .execute(
                "CREATE EXTENSION IF NOT EXISTS citext;
                 CREATE TABLE {}d (id bigint GENERATED BY DEFAULT AS IDENTITY, name citext UNIQUE,
                                   made timestamptz NOT NULL DEFAULT now(),
                                   twice text GENERATED ALWAYS AS (name || name) STORED)",
            )
            .await;
        let names = || one("name", Arc::new(StringArray::from(vec!["Aa", "b"])));
        deliver(&*target.sink_to("d", Mode::Append, &[]), &first(), vec![names()]).await.unwrap();
        let upsert = target.sink_to("d", Mode::Upsert, &["name"]);
        deliver(&*upsert, &first(), vec![batch(&[(9, Some("aA")), (8, Some("c"))])]).await.unwrap();
        let found = "SELECT id || name || twice FROM {}d WHERE made IS NOT NULL ORDER BY id";
        assert_eq!(target.lines(found).await, ["2bbb", "8ccc", "9AaAaAa"]);
        // As the column compares them, these are one key.
        let twice = batch(&[(1, Some("SECRET")), (2, Some("secret"))]);
        let error = refused(target, "d", merge(Mode::Upsert, &["name"]), twice).await;
        assert!(error.to_string().contains("come more than once"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_schema_is_never_made() {
    with(async |_| {
        let how = Merge { new_columns: NewColumns::Add, ..merge(Mode::Append, &[]) };
        let sink = PostgresSink::new(&connection(), "no_such_schema.t", how).unwrap();
        let asked = sink.fits(&batch(&[]).schema()).await.unwrap_err();
        let error = sink.begin(&first()).await.unwrap_err();
        assert!(error.advice().unwrap().contains("CREATE SCHEMA \"no_such_schema\""), "{error}");
        assert_eq!(asked.to_string(), error.to_string());
        assert_eq!(sink.close(&first()).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn names_that_the_server_would_cut_are_refused() {
    with(async |target| {
        let long = "å".repeat(32);
        let how = Merge { new_columns: NewColumns::Add, ..merge(Mode::Append, &[]) };
        let sink = target.sink_with("t", how);
        let error = deliver(&*sink, &first(), vec![one(&long, text("x"))]).await.unwrap_err();
        assert_eq!(error.class(), Class::Contract);
        assert!(error.to_string().contains("more than 63 bytes"), "{error}");
        for table in [long.clone(), format!("{long}.t"), format!("{}.{long}", target.schema)] {
            let made = PostgresSink::new(&connection(), &table, Merge::default());
            assert_eq!(made.map(drop).unwrap_err().class(), Class::Config, "{table}");
        }
    })
    .await;
}
