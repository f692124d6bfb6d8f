//! What every sink that writes to a table must do, run against each of them.

mod modes;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use async_trait::async_trait;
use futures::StreamExt;
use longshore::error::{Class, Error};
use longshore::job::RunId;
use longshore::job::decision::Decision;
use longshore::rows::{Batch, Counts, Rows};
use longshore::sink::{Begun, Holder, Merge, Mode, Sink, Way};

pub use modes::*;

/// A target with a table `t (id, name)`, id being its primary key, all its own.
#[async_trait]
pub trait Target: Sync {
    /// A sink that writes to `t`.
    fn sink(&self, mode: Mode) -> Box<dyn Sink> {
        self.sink_to("t", mode, &["id"])
    }

    /// A sink that writes to `table`.
    fn sink_to(&self, table: &str, mode: Mode, key: &[&str]) -> Box<dyn Sink> {
        self.sink_with(table, merge(mode, key))
    }

    /// A sink that writes to `table`.
    fn sink_with(&self, table: &str, how: Merge) -> Box<dyn Sink>;

    /// Runs SQL; `{}` stands for what goes before the name of a table.
    async fn execute(&self, sql: &str);

    /// The first column of what a query gives, which are texts; `{}` is as for `execute`.
    async fn lines(&self, sql: &str) -> Vec<String>;

    /// What is in `t`, by id.
    async fn rows(&self) -> Vec<(i64, Option<String>)>;

    /// The names of the staging tables that are there, qualified for SQL.
    async fn stages(&self) -> Vec<String>;
}

/// Stamps a test for each of the cases onto a kind of target.
macro_rules! cases {
    ($with:path) => {
        crate::sink_table::cases! {
            $with: append upsert replace repeats later_attempt race emptied close upsert_keys
                cut_off missing_table wrong_columns no_index
                replace_window windows_of_other_types outside_of_the_window deleted
                deleted_is_a_condition new_columns new_columns_come_with_the_rows
                new_table many_columns names
        }
    };
    ($with:path: $($case:ident)*) => {
        $(#[tokio::test]
        async fn $case() {
            $with(async |target| crate::sink_table::$case(target).await).await;
        })*
    };
}
pub(crate) use cases;

pub fn merge(mode: Mode, key: &[&str]) -> Merge {
    Merge { mode, key: key.iter().map(|name| (*name).to_owned()).collect(), ..Merge::default() }
}

pub fn batch(rows: &[(i64, Option<&str>)]) -> RecordBatch {
    let ids: Int64Array = rows.iter().map(|(id, _)| Some(*id)).collect();
    let names: StringArray = rows.iter().map(|(_, name)| *name).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(ids) as ArrayRef, true),
        ("name", Arc::new(names) as ArrayRef, true),
    ])
    .unwrap()
}

pub fn stream(batches: Vec<RecordBatch>) -> Rows {
    Rows {
        schema: batches[0].schema(),
        stream: futures::stream::iter(batches.into_iter().map(|rows| Ok(Batch::whole(rows))))
            .boxed(),
        snapshot: None,
    }
}

pub fn decision(rows: u64) -> Decision {
    let counts = Counts { read: rows + 1, written: rows, filtered: 1, ..Counts::default() };
    Decision {
        manifest: "{\"exact\": \"bytes \\u0000 'æ'\"}\n".to_owned(),
        parts: Vec::new(),
        counts,
        cursor: None,
        replaces: None,
        quarantine: None,
    }
}

pub fn first() -> Holder {
    Holder { run: RunId::new(), fence: 1 }
}

pub fn next(holder: &Holder) -> Holder {
    Holder { run: holder.run, fence: holder.fence + 1 }
}

/// A whole attempt.
pub async fn deliver(
    sink: &dyn Sink,
    holder: &Holder,
    batches: Vec<RecordBatch>,
) -> Result<(), Error> {
    assert_eq!(sink.begin(holder).await?, Begun::Open);
    let staged = sink.stage(holder, stream(batches)).await?;
    sink.commit(holder, &decision(staged.counts.written)).await?;
    sink.clean(holder).await
}

fn owned(rows: &[(i64, Option<&str>)]) -> Vec<(i64, Option<String>)> {
    rows.iter().map(|(id, name)| (*id, name.map(str::to_owned))).collect()
}

const OLD: &str = "INSERT INTO {}t VALUES (1, 'old'), (2, 'kept')";

pub async fn append(target: &dyn Target) {
    target.execute(OLD).await;
    let sink = target.sink(Mode::Append);
    assert_eq!(sink.way(), Way::Marker);
    let batches =
        vec![batch(&[(3, Some(""))]), batch(&[]), batch(&[(4, None), (5, Some("å'\"\\\t\n"))])];
    deliver(&*sink, &first(), batches).await.unwrap();
    let all =
        [(1, Some("old")), (2, Some("kept")), (3, Some("")), (4, None), (5, Some("å'\"\\\t\n"))];
    assert_eq!(target.rows().await, owned(&all));
    assert!(target.stages().await.is_empty());
    // The table's own key refuses what is there; nothing of the delivery stays.
    let holder = first();
    let error = deliver(&*sink, &holder, vec![batch(&[(6, None), (1, Some("secret"))])]).await;
    let error = error.unwrap_err();
    assert_eq!(error.class(), Class::Contract, "{error}");
    assert!(!format!("{error} {:?}", error.advice()).contains("secret"));
    assert_eq!(target.rows().await, owned(&all));
    assert_eq!(sink.close(&next(&holder)).await.unwrap(), None);
    sink.clean(&next(&holder)).await.unwrap();
    assert!(target.stages().await.is_empty());
}

pub async fn upsert(target: &dyn Target) {
    target.execute(OLD).await;
    let rows = [(1, Some("new")), (3, None)];
    deliver(&*target.sink(Mode::Upsert), &first(), vec![batch(&rows)]).await.unwrap();
    assert_eq!(target.rows().await, owned(&[(1, Some("new")), (2, Some("kept")), (3, None)]));
    // Rows that are only a key are added where they are missing.
    let keys = batch(&[(3, None), (4, None)]).project(&[0]).unwrap();
    deliver(&*target.sink(Mode::Upsert), &first(), vec![keys]).await.unwrap();
    assert_eq!(target.rows().await.len(), 4);
}

pub async fn replace(target: &dyn Target) {
    target.execute(OLD).await;
    let sink = target.sink(Mode::Replace);
    deliver(&*sink, &first(), vec![batch(&[(1, Some("new"))])]).await.unwrap();
    assert_eq!(target.rows().await, owned(&[(1, Some("new"))]));
    deliver(&*sink, &first(), vec![batch(&[])]).await.unwrap();
    assert_eq!(target.rows().await, []);
}

pub async fn repeats(target: &dyn Target) {
    let (sink, holder) = (target.sink(Mode::Append), first());
    let rows = [(1, Some("a")), (2, None)];
    for _ in 0..2 {
        assert_eq!(sink.begin(&holder).await.unwrap(), Begun::Open);
    }
    for _ in 0..2 {
        let staged = sink.stage(&holder, stream(vec![batch(&rows)])).await.unwrap();
        assert_eq!(staged.counts, Counts { written: 2, ..Counts::default() });
        assert_eq!(target.rows().await, []);
    }
    for _ in 0..2 {
        sink.commit(&holder, &decision(2)).await.unwrap();
        assert_eq!(target.rows().await, owned(&rows));
    }
    for _ in 0..2 {
        sink.clean(&holder).await.unwrap();
        assert!(target.stages().await.is_empty());
    }
    sink.commit(&holder, &decision(2)).await.unwrap();
    assert_eq!(target.rows().await, owned(&rows));
}

pub async fn later_attempt(target: &dyn Target) {
    let (sink, holder) = (target.sink(Mode::Append), first());
    deliver(&*sink, &holder, vec![batch(&[(1, None)])]).await.unwrap();
    let found = sink.begin(&next(&holder)).await.unwrap();
    assert_eq!(found, Begun::Committed(Box::new(decision(1))));
    let closed = sink.close(&next(&next(&holder))).await.unwrap();
    assert_eq!(closed, Some(Box::new(decision(1))));
    // Another run is not concerned.
    assert_eq!(sink.begin(&first()).await.unwrap(), Begun::Open);
}

pub async fn race(target: &dyn Target) {
    let (sink, stalled) = (target.sink(Mode::Append), first());
    sink.begin(&stalled).await.unwrap();
    sink.stage(&stalled, stream(vec![batch(&[(1, Some("stalled"))])])).await.unwrap();
    let winner = next(&stalled);
    assert_eq!(sink.begin(&winner).await.unwrap(), Begun::Open);
    let too_late = async || sink.commit(&stalled, &decision(1)).await.unwrap_err().class();
    assert_eq!(too_late().await, Class::Fenced);
    sink.stage(&winner, stream(vec![batch(&[(2, Some("winner"))])])).await.unwrap();
    assert_eq!(target.stages().await.len(), 2);
    sink.commit(&winner, &decision(1)).await.unwrap();
    assert_eq!(too_late().await, Class::Fenced);
    assert_eq!(sink.begin(&stalled).await.unwrap_err().class(), Class::Fenced);
    // The stalled one goes on staging after the winner has cleaned, and leaves nothing.
    sink.clean(&winner).await.unwrap();
    let late = sink.stage(&stalled, stream(vec![batch(&[(1, Some("stalled"))])])).await;
    assert_eq!(late.unwrap_err().class(), Class::Fenced);
    assert!(target.stages().await.is_empty());
    assert_eq!(target.rows().await, owned(&[(2, Some("winner"))]));
}

pub async fn emptied(target: &dyn Target) {
    for sql in ["DELETE FROM", "DROP TABLE"] {
        let (sink, holder) = (target.sink(Mode::Replace), first());
        target.execute("DELETE FROM {}t").await;
        target.execute(OLD).await;
        sink.begin(&holder).await.unwrap();
        sink.stage(&holder, stream(vec![batch(&[(1, None)])])).await.unwrap();
        let stage = target.stages().await.remove(0);
        target.execute(&format!("{sql} {stage}")).await;
        let error = sink.commit(&holder, &decision(1)).await.unwrap_err();
        assert_eq!(error.class(), Class::Transient, "{error}");
        assert_eq!(target.rows().await.len(), 2);
        deliver(&*sink, &next(&holder), vec![batch(&[(1, None)])]).await.unwrap();
        assert_eq!(target.rows().await, owned(&[(1, None)]));
        assert!(target.stages().await.is_empty());
    }
}

pub async fn close(target: &dyn Target) {
    let (sink, holder) = (target.sink(Mode::Append), first());
    sink.begin(&holder).await.unwrap();
    sink.stage(&holder, stream(vec![batch(&[(1, None)])])).await.unwrap();
    let closer = next(&holder);
    for _ in 0..2 {
        assert_eq!(sink.close(&closer).await.unwrap(), None);
        assert_eq!(sink.commit(&holder, &decision(1)).await.unwrap_err().class(), Class::Fenced);
    }
    assert_eq!(sink.close(&holder).await.unwrap_err().class(), Class::Fenced);
    sink.clean(&closer).await.unwrap();
    assert!(target.stages().await.is_empty());
    assert_eq!(target.rows().await, []);
    // Closing blocks even a run that never began.
    let never = first();
    assert_eq!(sink.close(&next(&never)).await.unwrap(), None);
    assert_eq!(sink.begin(&never).await.unwrap_err().class(), Class::Fenced);
}

pub async fn upsert_keys(target: &dyn Target) {
    let sink = target.sink(Mode::Upsert);
    let twice = batch(&[(4_242_424_242, Some("a")), (4_242_424_242, Some("b")), (3, None)]);
    let error = deliver(&*sink, &first(), vec![twice]).await.unwrap_err();
    assert_eq!(error.class(), Class::Contract);
    assert!(error.to_string().contains("1 values of the primary key (id)"), "{error}");
    assert!(!error.to_string().contains("4242424242"), "{error}");
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let null = RecordBatch::try_from_iter_with_nullable([("id", ids, true)]).unwrap();
    let error = deliver(&*sink, &first(), vec![null]).await.unwrap_err();
    assert_eq!(error.class(), Class::Contract);
    assert!(error.to_string().contains("1 rows lack a value"), "{error}");
    assert_eq!(target.rows().await, []);
}

pub async fn cut_off(target: &dyn Target) {
    let (sink, holder) = (target.sink(Mode::Append), first());
    sink.begin(&holder).await.unwrap();
    let mut rows = stream(vec![batch(&[(1, None)])]);
    rows.stream = rows
        .stream
        .chain(futures::stream::iter([Err(Error::transient("read", "the source went away"))]))
        .boxed();
    let error = sink.stage(&holder, rows).await.unwrap_err();
    assert_eq!(error.message(), "the source went away");
    let mut rows = stream(vec![batch(&[(1, None)])]);
    rows.stream = rows.stream.chain(futures::stream::pending()).boxed();
    let wait = std::time::Duration::from_millis(300);
    assert!(tokio::time::timeout(wait, sink.stage(&holder, rows)).await.is_err());
    assert_eq!(target.rows().await, []);
    deliver(&*sink, &next(&holder), vec![batch(&[(2, None)])]).await.unwrap();
    assert_eq!(target.rows().await, owned(&[(2, None)]));
    assert!(target.stages().await.is_empty());
}

pub async fn missing_table(target: &dyn Target) {
    let (sink, holder) = (target.sink_to("gone", Mode::Upsert, &["id"]), first());
    assert_eq!(sink.begin(&holder).await.unwrap(), Begun::Open);
    let error = sink.stage(&holder, stream(vec![batch(&[(1, None)])])).await.unwrap_err();
    assert_eq!(error.class(), Class::Permanent);
    let schema = batch(&[]).schema();
    let asked = sink.fits(&schema).await.unwrap_err();
    assert_eq!((asked.class(), asked.advice()), (error.class(), error.advice()));
    // The advice works as it is written.
    let help = error.advice().unwrap();
    let (_, create) = help.split_once(" so: ").unwrap();
    target.execute(create.split_once(';').unwrap().0).await;
    sink.fits(&schema).await.unwrap();
    deliver(&*sink, &next(&holder), vec![batch(&[(1, None)])]).await.unwrap();
}

pub async fn wrong_columns(target: &dyn Target) {
    let sink = target.sink(Mode::Append);
    target.execute("ALTER TABLE {}t ADD COLUMN must text NOT NULL DEFAULT 'x'").await;
    deliver(&*sink, &first(), vec![batch(&[(1, None)])]).await.unwrap();
    let named = |names: [&str; 2]| {
        let rows = batch(&[]);
        let fields = names.iter().zip(rows.schema_ref().fields());
        let fields: Vec<Field> =
            fields.map(|(name, field)| field.as_ref().clone().with_name(*name)).collect();
        Schema::new(fields)
    };
    let unkeyed = batch(&[]).schema().project(&[1]).unwrap();
    for (schema, column) in
        [(named(["id", "nmae"]), "nmae"), (named(["id", "id"]), "id"), (unkeyed, "id")]
    {
        let (sink, holder) = (target.sink(Mode::Upsert), first());
        sink.begin(&holder).await.unwrap();
        let schema = Arc::new(schema);
        let asked = sink.fits(&schema).await.unwrap_err();
        assert_eq!(asked.class(), Class::Contract, "{asked}");
        // Nothing is read before the columns are known to fit.
        let rows = Rows {
            schema,
            stream: futures::stream::poll_fn(|_| panic!("it was read")).boxed(),
            snapshot: None,
        };
        let error = sink.stage(&holder, rows).await.unwrap_err();
        assert_eq!(error.class(), Class::Contract, "{error}");
        assert!(error.context().contains(&("column", column.to_owned())), "{error}");
        assert!(error.advice().is_some());
    }
}

pub async fn no_index(target: &dyn Target) {
    let sink = target.sink_to("t", Mode::Upsert, &["name"]);
    let begun = sink.begin(&first()).await.map(drop);
    for answer in [begun, sink.fits(&batch(&[]).schema()).await] {
        let error = answer.unwrap_err();
        assert_eq!(error.class(), Class::Permanent);
        assert!(error.advice().unwrap().contains("CREATE UNIQUE INDEX"), "{error}");
    }
}
