//! `longshore dev --demo`: what is made, and what was made, in words that a newcomer understands.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::output::{counted, thousands, took};
use super::progress::Progress;
use super::{Context, Ended, Verdict, runs, told};
use crate::demo::{Demo, Step};
use crate::job::run::State;
use crate::units::Size;

pub async fn run(context: &Context) -> Ended {
    context.log_from("off")?;
    let say = |text: &str| told(&format!("demo: {text}\n"));
    let demo = Demo::prepare(&say)?;
    say(
        "starting a scheduler and a worker in this process; queue, ledger and claims are out/longshore.db",
    );
    say("running four exports, and one that must fail");
    let mut progress = Progress::new(Some(5), "runs");
    let steps = demo
        .run(&mut |steps| {
            let ended = steps.iter().filter(|step| step.run.state.ended()).count();
            let now: Vec<&str> = steps
                .iter()
                .filter(|step| !step.run.state.ended())
                .map(|step| step.export)
                .collect();
            progress.at(ended as u64, &now.join(", "));
        })
        .await?;
    drop(progress);
    if context.out.json {
        for step in &steps {
            let mut object = runs::object(&step.run)?;
            if let Some(fields) = object.as_object_mut() {
                fields.insert("place".to_owned(), json!(step.place));
            }
            context.out.object(&object)?;
        }
    } else {
        tell(context, &steps)?;
    }
    let as_meant =
        steps.iter().all(|step| (step.run.state == State::Done) == (step.export != "complaints"));
    Ok(if as_meant { Verdict::Done } else { Verdict::Found })
}

fn tell(context: &Context, steps: &[Step]) -> Result<(), super::Failure> {
    let out = &context.out;
    out.line("\nWhat was delivered\n")?;
    for step in steps.iter().filter(|step| step.run.state == State::Done) {
        let counts = step.run.counts.unwrap_or_default();
        let bytes = match counts.bytes {
            0 => "in a table".to_owned(),
            bytes => Size(bytes).human(),
        };
        out.line(format!(
            "  {:<10} {:>8} rows  {:>10}  {:>6}  {}\n             {}",
            step.export,
            thousands(counts.written),
            bytes,
            took(duration(step)),
            place(step),
            step.about,
        ))?;
    }
    for step in steps.iter().filter(|step| step.run.state != State::Done) {
        let reason = step.run.failure.as_ref().map_or("", |failure| failure.message.as_str());
        out.line(format!("\nWhat was set aside as a dead letter\n\n  {}: {reason}", step.export))?;
    }
    let files: u64 = steps
        .iter()
        .filter_map(|step| step.run.decision.as_ref())
        .map(|decision| decision.parts.len() as u64)
        .sum();
    let program = std::env::current_exe();
    let program = program.as_deref().map_or("longshore".into(), |path| path.to_string_lossy());
    out.line(format!(
        "
The deliveries have {} and a manifest each, written last: no manifest, no delivery.

Look further (longshore is {program})
  longshore --config out/config runs                      what ran
  longshore verify out/deliveries/customers               a delivery against its manifest
  longshore --config out/config dead list                 the dead letter, and why it is there
  edit out/config/exports/complaints.toml                 take the line of c_email out, then
  longshore --config out/config apply
  longshore --config out/config dead replay --export complaints --reason \"mended\"
  longshore --config out/config dev                       works on it, and on what you enqueue; Ctrl-C ends it

An export of your own: `longshore init mine` makes a configuration that works at once; say in its
connections.toml where your data is (config/exports/orders.toml is the smallest export there is).",
        counted(files, "file"),
    ))
}

fn duration(step: &Step) -> SignedDuration {
    let ended = step.run.ended_at.unwrap_or_else(Timestamp::now);
    ended.duration_since(step.run.opened_at.unwrap_or(ended))
}

/// Where a person finds it.
fn place(step: &Step) -> String {
    match step.place.as_deref().and_then(|place| place.split_once('/')) {
        Some(("out", folder)) => format!("out/deliveries/{folder}"),
        Some(("warehouse", table)) => format!("table {table} in out/warehouse.db"),
        _ => step.place.clone().unwrap_or_default(),
    }
}
