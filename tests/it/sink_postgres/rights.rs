//! What the user may do is found out before anything is read.

use super::*;
use crate::sink_table::merge;
use longshore::job::Window;
use longshore::sink::{NewColumns, Span};

/// Runs a test with a user who may do nothing yet.
async fn with_user(test: impl AsyncFnOnce(&Postgres, &str)) {
    with(async |target| {
        let user = format!("{}_user", target.schema);
        target.execute(&format!("CREATE ROLE {user} LOGIN")).await;
        let outcome = AssertUnwindSafe(test(target, &user)).catch_unwind().await;
        target.execute(&format!("DROP OWNED BY {user} CASCADE; DROP ROLE {user}")).await;
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    })
    .await;
}

/// The error of an attempt that reads nothing, which `check` tells too.
async fn told(sink: &PostgresSink, rows: &RecordBatch) -> Error {
    let asked = sink.fits(&rows.schema()).await.unwrap_err();
    let mut unread = stream(vec![rows.clone()]);
    unread.stream = Box::pin(futures::stream::poll_fn(|_| panic!("it was read")));
    let holder = first();
    let error = match sink.begin(&holder).await {
        Err(error) => error,
        Ok(_) => sink.stage(&holder, unread).await.map(drop).unwrap_err(),
    };
    assert_eq!(error.class(), Class::Permanent, "{error}");
    assert_eq!(asked.to_string(), error.to_string());
    assert_eq!(asked.advice(), error.advice());
    assert_eq!(sink.close(&next(&holder)).await.ok().flatten(), None);
    error
}

/// Does what the advice says, which works as it is written.
async fn grant(target: &Postgres, error: &Error) -> String {
    let help = error.advice().unwrap();
    let (_, grant) = help.split_once("GRANT").unwrap_or_else(|| panic!("{help}"));
    let grant = grant.split_once(';').unwrap().0.trim();
    target.execute(&format!("GRANT {grant}")).await;
    format!("GRANT {grant}").replace(&format!("\"{}\"", target.schema), "s")
}

#[tokio::test]
async fn a_missing_right_is_told_with_its_remedy() {
    with_user(async |target, user| {
        let rows = batch(&[(1, None)]);
        let name = format!("\"{user}\"");
        let span = Span {
            column: "at".to_owned(),
            window: Window {
                start: "2026-11-19T00:00Z".parse().unwrap(),
                end: "2026-11-20T00:00Z".parse().unwrap(),
            },
            zone: jiff::tz::TimeZone::UTC,
            scope: Vec::new(),
        };
        let timed = RecordBatch::try_from_iter([(
            "at",
            Arc::new(TimestampMicrosecondArray::from(vec![0_i64; 0]).with_timezone("UTC"))
                as ArrayRef,
        )])
        .unwrap();
        target.execute("CREATE TABLE {}w (at timestamptz)").await;
        let window = Merge { span: Some(span), ..merge(Mode::ReplaceWindow, &[]) };
        let deleting =
            Merge { deleted: Some("name IS NULL".to_owned()), ..merge(Mode::Upsert, &["id"]) };
        for (table, how, rows, steps) in [
            (
                "t",
                deleting,
                &rows,
                vec![
                    format!("GRANT INSERT, UPDATE, SELECT, DELETE ON s.\"t\" TO {name}"),
                    format!("GRANT USAGE, CREATE ON SCHEMA s TO {name}"),
                ],
            ),
            ("t", merge(Mode::Upsert, &["id"]), &rows, vec![]),
            (
                "w",
                window,
                &timed,
                vec![format!("GRANT INSERT, DELETE, SELECT ON s.\"w\" TO {name}")],
            ),
            ("w", merge(Mode::Replace, &[]), &timed, vec![]),
            ("w", merge(Mode::Append, &[]), &timed, vec![]),
        ] {
            let sink = target.sink_as(user, table, how);
            for step in steps {
                let error = told(&sink, rows).await;
                assert_eq!(grant(target, &error).await, step);
            }
            sink.fits(&rows.schema()).await.unwrap();
            deliver(&sink, &first(), vec![rows.clone()]).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn only_the_owner_adds_columns() {
    with_user(async |target, user| {
        target
            .execute(&format!(
                "GRANT USAGE, CREATE ON SCHEMA {} TO {user};
                 GRANT INSERT ON {{}}t TO {user}",
                target.schema
            ))
            .await;
        let how = Merge { new_columns: NewColumns::Add, ..merge(Mode::Append, &[]) };
        let sink = target.sink_as(user, "t", how);
        deliver(&sink, &first(), vec![batch(&[(1, None)])]).await.unwrap();
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![2]));
        let rows = RecordBatch::try_from_iter([("id", ids), ("Extra", text("x"))]).unwrap();
        let error = told(&sink, &rows).await;
        assert!(error.to_string().contains("it lacks Extra"), "{error}");
        let help = error.advice().unwrap();
        assert!(help.contains("ADD COLUMN \"Extra\" text"), "{help}");
        target.execute("CREATE TABLE {}free (id bigint)").await;
        target.execute(&format!("ALTER TABLE {{}}free OWNER TO {user}")).await;
        let how = Merge { new_columns: NewColumns::Add, ..merge(Mode::Append, &[]) };
        deliver(&target.sink_as(user, "free", how), &first(), vec![rows]).await.unwrap();
        assert_eq!(target.value("SELECT \"Extra\" FROM {}free").await, "x");
    })
    .await;
}

#[tokio::test]
async fn numbers_of_a_sequence_may_be_taken() {
    with_user(async |target, user| {
        target
            .execute(&format!(
                "CREATE TABLE {{}}s (nr serial, id bigint, name text);
                 GRANT USAGE, CREATE ON SCHEMA {} TO {user}; GRANT INSERT ON {{}}s TO {user}",
                target.schema
            ))
            .await;
        let rows = batch(&[(1, None)]);
        let sink = target.sink_as(user, "s", merge(Mode::Append, &[]));
        let error = told(&sink, &rows).await;
        assert!(error.to_string().contains("s_nr_seq"), "{error}");
        grant(target, &error).await;
        deliver(&sink, &first(), vec![rows]).await.unwrap();
        // Rows that bring the number need none.
        target.execute(&format!("REVOKE ALL ON SEQUENCE {{}}s_nr_seq FROM {user}")).await;
        let numbered = one("nr", Arc::new(Int32Array::from(vec![7])));
        deliver(&sink, &first(), vec![numbered]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn row_security_is_noticed() {
    with_user(async |target, user| {
        target
            .execute(&format!(
                "GRANT USAGE, CREATE ON SCHEMA {} TO {user}; GRANT ALL ON {{}}t TO {user};
                 ALTER TABLE {{}}t ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY few ON {{}}t USING (id < 10)",
                target.schema
            ))
            .await;
        let sink = target.sink_as(user, "t", merge(Mode::Append, &[]));
        deliver(&sink, &first(), vec![batch(&[(1, None)])]).await.unwrap();
        let error = deliver(&sink, &first(), vec![batch(&[(2, None), (11, Some("SECRET"))])]).await;
        let error = error.unwrap_err();
        assert_eq!(error.class(), Class::Contract, "{error}");
        assert!(error.to_string().contains("row security"), "{error}");
        assert!(!error.to_string().contains("SECRET"), "{error}");
        let deleted = Some("name IS NULL".to_owned());
        for how in [merge(Mode::Replace, &[]), Merge { deleted, ..merge(Mode::Upsert, &["id"]) }] {
            let error = told(&target.sink_as(user, "t", how), &batch(&[(1, None)])).await;
            assert!(error.to_string().contains("row security may hide rows"), "{error}");
        }
        assert_eq!(target.rows().await, [(1, None)]);
    })
    .await;
}
