//! What every backend of the ledger must do.

mod after;
mod bed;
mod files;
mod history;
mod operating;
mod outbox;
mod paths;
mod quarantine;
mod runs;
mod splits;
mod spread;
mod turns;
mod waiting;

use bed::{on_embedded, on_postgres};

macro_rules! suite {
    ($($module:ident: $($name:ident),+;)+) => {
        mod postgres {
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::on_postgres(super::$module::$name).await;
            })+)+
        }
        mod embedded {
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::on_embedded(super::$module::$name).await;
            })+)+
        }
    };
}

suite! {
    runs:
        a_key_is_accepted_once,
        of_many_that_accept_one_key_at_once_one_makes_the_run,
        a_run_is_kept_as_it_was_accepted,
        what_stands_in_the_way_of_opening_is_told,
        an_old_fence_is_refused_everywhere,
        a_run_whose_heartbeat_expired_is_taken_over_and_the_crash_counted,
        three_crashes_are_poison,
        a_decided_run_is_recorded_and_only_so,
        what_the_target_has_is_recorded,
        a_retry_comes_back_at_its_time,
        a_failed_run_is_closed_and_its_letter_written,
        a_cancel_ends_at_once_or_through_closing,
        a_deadline_ends_a_run,
        a_replay_opens_a_new_epoch,
        a_superseded_run_is_cancelled,
        a_rerun_is_the_next_edition_of_its_key,
        a_cursor_moves_with_its_delivery_or_not_at_all,
        a_batch_of_many_kinds_answers_in_order;
    quarantine:
        released_rows_are_delivered_by_one_run,
        a_release_that_failed_is_followed_by_another_and_never_joins_it,
        rows_are_not_delivered_beside_what_has_taken_the_place_of_their_delivery,
        rows_that_have_no_place_any_more_are_not_released,
        what_became_of_refused_rows_is_kept;
    files:
        what_a_cursor_has_delivered_is_known_in_its_state,
        as_many_files_as_a_run_takes_are_known_at_once,
        what_was_replaced_at_a_target_is_told;
    waiting:
        a_parked_run_is_woken_by_whoever_frees_its_place,
        reservations_are_kept_and_slots_given_back,
        a_cancelled_run_passes_its_turn_on,
        of_each_list_the_sweeper_finds_as_many_as_there_are_places,
        so_many_runs_of_a_backfill_go_on_at_once,
        twenty_runs_get_through_three_slots;
    after:
        a_run_waits_until_all_of_a_window_are_done,
        many_wait_for_one_and_a_failure_skips_them,
        the_sweeper_finds_who_waits_for_what_has_ended,
        none_is_forgotten_that_looks_while_others_end;
    outbox:
        what_was_replaced_meanwhile_stays_to_be_sent,
        what_is_taken_is_left_alone_for_its_lease,
        what_no_queue_takes_is_put_off_for_longer_each_time,
        two_dispatchers_never_get_the_same,
        a_letter_carries_the_job_and_what_went_wrong,
        a_letter_tells_why_the_run_ended_not_why_it_could_not_end_sooner,
        a_run_that_has_ended_is_woken_once_more_a_day_later,
        a_replay_takes_back_a_letter_that_was_not_sent,
        a_silent_run_is_adrift_and_a_woken_one_is_not,
        a_run_that_is_overdue_free_or_stuck_is_adrift;
    turns:
        of_each_export_so_many_are_on_their_way,
        whom_a_slot_is_free_for_goes_however_many_are_parked,
        wake_ups_that_are_lost_do_not_hold_up_the_others_for_long,
        what_is_put_off_keeps_its_place,
        a_weight_is_a_share_of_the_turns,
        few_at_a_time_are_of_all_exports,
        only_the_wake_ups_of_queued_runs_are_held_back,
        what_a_dispatcher_has_taken_has_its_place,
        a_message_that_nobody_could_read_comes_again_as_it_was;
    operating:
        a_run_that_dies_is_told_of_with_its_letter,
        a_scheduled_run_that_takes_too_long_is_told_of_once_in_each_epoch,
        a_stuck_run_is_told_of_once,
        a_paused_run_waits_until_it_is_resumed,
        a_pause_tells_what_it_took_the_place_of,
        a_pause_ends_at_its_time_and_the_sweeper_finds_who_waits,
        none_is_forgotten_who_is_parked_while_a_pause_is_lifted,
        a_stuck_run_is_resolved;
    spread:
        a_run_is_spread_once_and_its_parts_are_found,
        what_was_spread_goes_before_its_parts_and_is_not_remembered_as_done,
        a_run_whose_newer_edition_is_done_is_not_spread,
        a_conflict_spreads_nothing;
    splits:
        they_are_refused_and_nothing_is_forgotten;
    history:
        definitions_are_numbered_by_content,
        runs_are_found_by_what_is_asked,
        deliveries_tell_what_took_their_place,
        old_runs_go_with_all_that_is_theirs,
        windows_ticks_and_what_is_skipped_are_remembered,
        the_audit_trail_tells_who_and_why,
        the_audit_trail_is_looked_through,
        the_clock_is_told;
}

/// The schema of PostgreSQL: brought up to date once, and guarded.
#[tokio::test]
async fn a_schema_that_is_not_this_binarys_is_refused() {
    use longshore::error::Class;
    use longshore::ledger::postgres::{PostgresLedger, migrate, status};

    bed::in_schema(|url| async move {
        let open = || PostgresLedger::open(&url, None, 1).unwrap();
        assert!(status(&url, None).await.unwrap().iter().all(|migration| !migration.applied));
        let missing = open().guard().await.unwrap_err();
        assert_eq!(missing.class(), Class::Refused, "{missing}");
        assert!(missing.advice().unwrap().contains("longshore migrate"));

        let done = migrate(&url, None).await.unwrap();
        assert!(!done.is_empty() && done.iter().all(|migration| migration.applied));
        assert_eq!(migrate(&url, None).await.unwrap(), done);
        assert_eq!(status(&url, None).await.unwrap(), done);
        open().guard().await.unwrap();

        let client = bed::client(&url).await;
        let newer = "INSERT INTO refinery_schema_history \
                     SELECT 9999, name, applied_on, checksum FROM refinery_schema_history LIMIT 1";
        client.execute(newer, &[]).await.unwrap();
        let guarded = open().guard().await.unwrap_err();
        assert_eq!(guarded.class(), Class::Refused, "{guarded}");
        assert!(guarded.to_string().contains("newer"), "{guarded}");
        assert_eq!(migrate(&url, None).await.unwrap_err().class(), Class::Refused);
    })
    .await;
}

/// What many callers ask of the ledger in PostgreSQL at once becomes few transactions; and what is
/// wrong with one caller's commands is told to that one alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_share_transactions_and_keep_their_faults_to_themselves() {
    use longshore::error::Class;
    use longshore::job::command::Outcome;
    use longshore::ledger::Ledger;
    use longshore::ledger::postgres::{PostgresLedger, migrate};

    bed::in_schema(|url| async move {
        migrate(&url, None).await.unwrap();
        let ledger = PostgresLedger::open(&url, None, 4).unwrap();
        ledger
            .activate(&[bed::definition("orders", "d1")], false, "test", "", false)
            .await
            .unwrap();
        let ask = async |number: usize| {
            let mut order = bed::order(&format!("key-{number}"));
            // No text of PostgreSQL's can hold it.
            order.correlation_id = (number == 250).then(|| "\0".to_owned());
            ledger.apply(vec![bed::accept(order)]).await
        };
        for (number, told) in futures::future::join_all((0..200).map(ask)).await.iter().enumerate()
        {
            let Ok([Outcome::Accepted(run)]) = told.as_deref() else { panic!("{told:?}") };
            assert_eq!(run.order.key, format!("key-{number}"));
        }
        let client = bed::client(&url).await;
        let counted = "SELECT count(*), count(DISTINCT xmin::text) FROM runs";
        let row = client.query_one(counted, &[]).await.unwrap();
        let (runs, transactions): (i64, i64) = (row.get(0), row.get(1));
        assert_eq!(runs, 200);
        assert!(transactions < runs, "{transactions} transactions for {runs} callers");

        let told = futures::future::join_all((200..300).map(ask)).await;
        for (number, told) in (200..300).zip(told) {
            match told {
                Ok(_) => assert_ne!(number, 250),
                Err(error) => assert_eq!((number, error.class()), (250, Class::Permanent)),
            }
        }
        assert_eq!(client.query_one(counted, &[]).await.unwrap().get::<_, i64>(0), 299);
    })
    .await;
}

/// Workers share no list of commands: between them only the ledger's own key stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_workers_that_accept_one_key_at_once_one_makes_the_run() {
    use longshore::job::command::Outcome;
    use longshore::ledger::Ledger;
    use longshore::ledger::postgres::{PostgresLedger, migrate};

    const KEYS: i64 = 20;
    bed::in_schema(|url| async move {
        migrate(&url, None).await.unwrap();
        let ledgers: Vec<_> =
            (0..6).map(|_| PostgresLedger::open(&url, None, 1).unwrap()).collect();
        let definition = [bed::definition("orders", "d1")];
        ledgers[0].activate(&definition, false, "test", "", false).await.unwrap();
        for number in 0..KEYS {
            let key = format!("key-{number}");
            let ask =
                ledgers.iter().map(|ledger| ledger.apply(vec![bed::accept(bed::order(&key))]));
            let told = futures::future::try_join_all(ask).await.unwrap().concat();
            let accepted = told.iter().filter(|one| matches!(one, Outcome::Accepted(_))).count();
            let found = told.iter().filter(|one| matches!(one, Outcome::Duplicate(_))).count();
            assert_eq!((accepted, found), (1, ledgers.len() - 1), "{key}: {told:?}");
        }
        let counted = "SELECT count(*) FROM runs";
        let runs: i64 = bed::client(&url).await.query_one(counted, &[]).await.unwrap().get(0);
        assert_eq!(runs, KEYS);
    })
    .await;
}

/// What a process remembers of a run that it works on is not believed where somebody else has changed the
/// run: another worker that took it over, or an operator.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remembered_run_that_somebody_has_changed_is_read_again() {
    use bed::{accept, cancel, decision, opened, order, record};
    use longshore::job::command::{Command, Outcome};
    use longshore::job::machine::{Proof, Refusal};
    use longshore::job::run::State;
    use longshore::ledger::Ledger;
    use longshore::ledger::postgres::{PostgresLedger, migrate};

    bed::in_schema(|url| async move {
        migrate(&url, None).await.unwrap();
        let [ours, theirs] = [4, 4].map(|most| PostgresLedger::open(&url, None, most).unwrap());
        let definition = [bed::definition("orders", "d1")];
        ours.activate(&definition, false, "test", "", false).await.unwrap();
        // As workers do: accepted and opened in one transaction.
        let begin = async |key: &str| {
            let accept = accept(order(key));
            let Command::Accept { id, .. } = &accept else { panic!("{accept:?}") };
            let open = bed::open(*id, &[]);
            opened(ours.apply(vec![accept, open]).await.unwrap().pop().unwrap()).run.id
        };
        let decide =
            |run, fence, manifest| Command::Decide { run, fence, decision: decision(manifest) };
        let client = bed::client(&url).await;

        let cancelled = begin("cancelled").await;
        let taken = begin("taken").await;
        let untouched = begin("untouched").await;
        assert!(matches!(
            theirs.apply(vec![cancel(cancelled)]).await.unwrap()[0],
            Outcome::Done(_)
        ));
        let expire = "UPDATE runs SET heartbeat = now() - interval '1 s' WHERE key = 'taken'";
        client.execute(expire, &[]).await.unwrap();
        let mut open = bed::open(taken, &[]);
        if let Command::Open(open) = &mut open {
            open.worker = "other".to_owned();
        }
        let other = opened(theirs.apply(vec![open]).await.unwrap().remove(0)).run;
        assert_eq!(other.fence, 2);

        // One of a batch that is not as it was remembered keeps no other from its answer.
        let late = [cancelled, taken, untouched].map(|run| decide(run, 1, "ours"));
        let told = ours.apply(late.to_vec()).await.unwrap();
        let [first, second, third] = told.as_slice() else { panic!("{told:?}") };
        assert!(matches!(first, Outcome::Refused(Refusal::Stands(State::Closing))), "{first:?}");
        assert!(matches!(second, Outcome::Refused(_)), "{second:?}");
        assert!(matches!(third, Outcome::Done(_)), "{third:?}");

        let decided = theirs.apply(vec![decide(taken, 2, "theirs")]).await.unwrap();
        assert!(matches!(decided[0], Outcome::Done(_)), "{decided:?}");
        let stale = ours.apply(vec![record(taken, "ours", Proof::Decision)]).await.unwrap();
        assert!(matches!(stale[0], Outcome::Refused(Refusal::OtherDecision)), "{stale:?}");
        let recorded = [
            ours.apply(vec![record(untouched, "ours", Proof::Decision)]).await.unwrap().remove(0),
            theirs.apply(vec![record(taken, "theirs", Proof::Decision)]).await.unwrap().remove(0),
        ];
        for outcome in recorded {
            let run = bed::done(outcome);
            let stored = ours.run(run.id).await.unwrap().unwrap();
            assert_eq!((run.state, &stored), (State::Done, &run));
        }
        assert_eq!(ours.run(cancelled).await.unwrap().unwrap().state, State::Closing);
    })
    .await;
}

/// Those whose runs somebody else has locked wait for that together, and not one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_are_locked_out_none_waits_for_all_the_others() {
    use std::time::{Duration, Instant};

    use longshore::error::Class;
    use longshore::job::RunId;
    use longshore::job::command::Command;
    use longshore::ledger::Ledger;
    use longshore::ledger::postgres::{PostgresLedger, migrate};

    const CALLERS: usize = 40;
    bed::in_schema(|url| async move {
        migrate(&url, None).await.unwrap();
        let ledger = PostgresLedger::open(&url, None, 4).unwrap();
        let definition = bed::definition("orders", "d1");
        ledger.activate(&[definition], false, "test", "", false).await.unwrap();
        let accept = |number| bed::accept(bed::order(&format!("key-{number}")));
        let outcomes = ledger.apply((0..CALLERS).map(accept).collect()).await.unwrap();
        let runs: Vec<_> = outcomes.into_iter().map(|outcome| bed::done(outcome).id).collect();
        let other = bed::client(&url).await;
        let lock = "BEGIN; SELECT FROM runs WHERE key <> 'key-39' FOR UPDATE";
        other.batch_execute(lock).await.unwrap();
        let started = Instant::now();
        let wake = |run: &RunId| {
            let command = Command::Wake { run: *run, delay: Duration::ZERO };
            ledger.apply(vec![command])
        };
        let told = futures::future::join_all(runs.iter().map(wake)).await;
        let waited = started.elapsed();
        for (number, told) in told.iter().enumerate() {
            match told {
                Ok(_) => assert_eq!(number, 39),
                Err(error) => assert_eq!(error.class(), Class::Transient, "{error}"),
            }
        }
        assert!(told[39].is_ok(), "{told:?}");
        assert!(waited < Duration::from_secs(30), "{waited:?}");
    })
    .await;
}

#[tokio::test]
async fn few_rows_are_read_however_long_the_history_is() {
    paths::few_rows_are_read_however_long_the_history_is().await;
}

#[tokio::test]
async fn plans_that_were_made_early_stay_good() {
    paths::plans_that_were_made_early_stay_good().await;
}

/// Whoever comes while another migrates waits, and finds it done.
#[tokio::test]
async fn migrations_of_a_schema_at_the_same_moment_wait_for_each_other() {
    use longshore::ledger::postgres::migrate;

    bed::in_schema(|url| async move {
        let all = futures::future::join_all((0..8).map(|_| migrate(&url, None))).await;
        for done in all {
            let done = done.unwrap_or_else(|error| panic!("{}", error.chain()));
            assert!(!done.is_empty() && done.iter().all(|migration| migration.applied));
        }
        let twice = "SELECT count(*) - count(DISTINCT version) FROM refinery_schema_history";
        let twice: i64 = bed::client(&url).await.query_one(twice, &[]).await.unwrap().get(0);
        assert_eq!(twice, 0);
    })
    .await;
}

/// SQLite's own lock does the same for a file.
#[test]
fn migrations_of_a_file_at_the_same_moment_wait_for_each_other() {
    use longshore::ledger::embedded::{EmbeddedLedger, status};

    const AT_ONCE: usize = 8;
    let folder = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let path = folder.path().join(format!("{round}.db"));
        let ready = std::sync::Barrier::new(AT_ONCE);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    ready.wait();
                    EmbeddedLedger::open(&path)
                        .unwrap_or_else(|error| panic!("round {round}: {}", error.chain()));
                    let status = status(&path)
                        .unwrap_or_else(|error| panic!("round {round}: {}", error.chain()));
                    assert!(status.iter().all(|migration| migration.applied));
                });
            }
        });
    }
}

/// The embedded ledger's file: made, found again, and refused when a newer one wrote it.
#[test]
fn a_file_that_is_not_this_binarys_is_refused() {
    use longshore::error::Class;
    use longshore::ledger::embedded::{EmbeddedLedger, status};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    assert!(status(&path).unwrap().iter().all(|migration| !migration.applied));
    assert!(!path.exists());
    for _ in 0..2 {
        EmbeddedLedger::open(&path).unwrap();
    }
    assert!(status(&path).unwrap().iter().all(|migration| migration.applied));
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 9_999).unwrap();
    let newer = EmbeddedLedger::open(&path).err().expect("a newer file was opened");
    assert_eq!(newer.class(), Class::Refused, "{newer}");
}
