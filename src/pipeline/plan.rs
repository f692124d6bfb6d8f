//! The plan of a run: what its definition and the ledger's record of it mean for the systems at
//! hand. Made without touching any of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Progress;
use super::quarantine::{Quarantine, Vault};
use super::reference::Reference;
use crate::budget::Budget;
use crate::connect::{Connection, System};
use crate::contract::ExtraColumns;
use crate::error::{Class, Error, Result};
use crate::export::{Export, TABLE};
use crate::intake::Bound;
use crate::job::key::Content;
use crate::job::param::{self, Bindings, Value};
use crate::job::run::Run;
use crate::job::supplement::{Beside, Supplement};
use crate::job::template::{self, Pattern, Template};
use crate::job::waiting::Need;
use crate::job::window;
use crate::protect::{self, Keys, Method, ProtectConfig};
use crate::secret::Secret;
use crate::sink::discard::DiscardSink;
use crate::sink::{self, Holder, IfExists, Occasion, Sink};
use crate::source::{self, Promised, Since, Source};
use crate::units::Rate;

/// What an installation has that runs need.
#[derive(Debug, Clone, Default)]
pub struct House {
    /// The connections by name.
    pub connections: BTreeMap<String, Arc<Connection>>,
    /// The keys of protections, by their names under `[keys]`.
    pub keys: BTreeMap<String, Secret>,
    /// Where refused rows are kept, if anywhere.
    pub quarantine: Option<Vault>,
}

impl House {
    /// Whether a secret is in a vault.
    pub fn needs_vault(&self) -> bool {
        self.secrets().any(|(_, secret)| matches!(secret, Secret::Vault(_)))
    }

    /// Every reference to a secret, and what needs it.
    fn secrets(&self) -> impl Iterator<Item = (String, &Secret)> {
        let of_connections = self.connections.iter().flat_map(|(name, connection)| {
            connection.secrets().map(move |secret| (name.as_str(), secret))
        });
        let of_connections = of_connections.map(|(name, secret)| (name.to_owned(), secret));
        let of_keys = self.keys.iter().map(|(name, secret)| (format!("[keys] {name}"), secret));
        let quarantine =
            self.quarantine.iter().map(|vault| ("[quarantine] key".to_owned(), &vault.key));
        of_connections.chain(of_keys).chain(quarantine)
    }

    /// Follows every reference to a secret, as connecting would.
    ///
    /// # Errors
    /// `unavailable`, with whatever lacks its secret and the references that lead nowhere.
    pub async fn references(&self) -> Result<()> {
        // All at once, so that a vault is asked once for each path.
        let read = futures::future::join_all(self.secrets().map(async |(name, secret)| {
            let error = secret.read().await.err()?;
            Some(match secret {
                Secret::Vault(_) => format!("{name} lacks {secret}: {}", error.message()),
                _ => format!("{name} lacks {secret}"),
            })
        }));
        let missing: Vec<String> = read.await.into_iter().flatten().collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::unavailable("resolve the references", missing.join(", ")).help(
            "Set the variable, put the file there, or look at the vault; runs that need it wait until \
             then.",
        ))
    }

    pub(super) fn connection(&self, name: &str) -> Result<&Arc<Connection>> {
        self.connections.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.connections.keys().map(String::as_str).collect();
            // `check` and `apply` ask for it, so that another worker has it, or will.
            Error::unavailable("plan the run", "this process does not have the connection")
                .with("connection", name)
                .help(format!(
                    "Add it to connections.toml, which had, as this process read it when it started: {}. \
                     If it is there now, restart the process; until then the run waits for a worker \
                     that has it.",
                    known.join(", ")
                ))
        })
    }
}

/// What is to be done for a run, ready to be begun.
pub struct Plan {
    pub(super) export: Arc<Export>,
    pub(super) bindings: Bindings,
    pub(super) source: Box<dyn Source>,
    pub(super) references: Vec<Reference>,
    pub(super) sink: Box<dyn Sink>,
    pub(super) progress: Arc<Progress>,
    pub(super) budget: Budget,
    pub(super) cursor: Option<Cursor>,
    /// What is read instead of the source, where the run delivers refused rows.
    pub(super) supplement: Option<Box<Supplement>>,
    /// Whether the target carries the run's own name, so that no other run can have the same.
    is_own: bool,
    if_exists: IfExists,
    keys: BTreeMap<String, Secret>,
    quarantine: Option<Vault>,
    uses: Vec<Arc<Connection>>,
    spreads: Option<Bound>,
}

/// The cursor that a run reads by.
pub(super) struct Cursor {
    /// Its name in the ledger.
    pub name: String,
    /// Its column.
    pub column: String,
    /// Whether it goes over files.
    pub files: bool,
    /// Whether the run moves it; a rerun reads again what was read before.
    pub moves: bool,
}

impl Plan {
    /// Plans a run of a definition.
    ///
    /// # Errors
    /// `unavailable` where this process lacks a connection, `config` or `permanent` where the
    /// definition does not fit this installation, `malformed` where the params do not fit the
    /// definition.
    pub fn new(export: Arc<Export>, run: &Run, house: &House) -> Result<Plan> {
        let mut bindings = export.bindings(&run.order.params)?;
        let zone = window::zone(&export.timezone)?;
        let supplement = run.order.supplements.clone();
        let from = house.connection(&export.source.connection)?;
        let to = house.connection(&export.sink.connection)?;
        if export.spreads(&run.order.params) {
            return Plan::to_spread(export, run, house, bindings);
        }
        let whole = export;
        let (params, values) = (whole.param_names(), whole.values(&bindings));
        // As this run has them: with its one table, and beside what it supplements.
        let export = match bindings.get(TABLE).filter(|_| whole.source.tables.is_some()) {
            Some(table) => Arc::new(whole.of_table(&table.to_string())),
            None => Arc::clone(&whole),
        };
        let sink = match &supplement {
            None => export.sink.clone(),
            Some(supplement) => export.sink.supplement(supplement.number),
        };
        // A supplement lies beside the delivery that was made without it.
        let named = supplement.as_ref().map_or(run.id, |supplement| supplement.first);
        let place = sink.place(&format!("part{}", run.id.0.simple()), |text| {
            Template::parse(text, &params)?.render(&template::Context {
                export: &run.order.export,
                run: named,
                window: run.order.window,
                zone: &zone,
                values: &values,
            })
        })?;
        let cursor = match supplement {
            None => cursor(&export, run, &bindings, from.kind),
            Some(_) => None,
        };
        if let Some(window) = run.order.window {
            for (name, at) in param::WINDOW.into_iter().zip([window.start, window.end]) {
                bindings.insert(name.to_owned(), Value::Timestamp(at));
            }
        }
        let filled = |path: &str| {
            let (pattern, mistakes) = Pattern::read(path, &params);
            match mistakes.into_iter().next() {
                Some(mistake) => Err(mistake.error),
                None => pattern.render(run.order.window, &zone, &values),
            }
        };
        let contract = export.contract.as_ref();
        let promised = contract.map(|contract| Promised {
            types: contract.types(),
            drop: contract.extra_columns == ExtraColumns::Drop,
            transformed: export.transform.is_some(),
        });
        let budget = Budget::new(export.limits.memory);
        let source = source::build(&export.source.at(filled)?, from, promised.as_ref(), &budget)?;
        // A new edition takes the place of the one before, whatever the definition says, and so does
        // the supplement of a new edition.
        let if_exists = match run.order.edition {
            1 if supplement.is_none() => export.sink.if_exists(run.order.window.is_some()),
            _ => IfExists::Replace,
        };
        let key = contract.map(|contract| contract.primary_key.clone()).unwrap_or_default();
        let occasion = Occasion {
            place,
            if_exists,
            key,
            window: run.order.window,
            zone: &zone,
            params: &bindings,
            budget: &budget,
        };
        let sink = sink::build(&sink, to, occasion)?;
        let is_own = supplement.is_none() && sink.target().contains(&run.id.to_string());
        // Refused rows have come through the transform.
        let references = match supplement {
            None => Reference::of(&export, house, &budget, filled)?,
            Some(_) => Vec::new(),
        };
        let read = supplement.is_none().then_some(from).into_iter();
        let read = read.chain(references.iter().map(|one| &one.connection));
        let mut uses: Vec<Arc<Connection>> = Vec::new();
        for one in read.chain([to]) {
            if uses.iter().all(|other| other.name != one.name) {
                uses.push(Arc::clone(one));
            }
        }
        Ok(Plan {
            bindings,
            source,
            references,
            sink,
            progress: Arc::default(),
            budget,
            cursor,
            supplement,
            is_own,
            if_exists,
            keys: house.keys.clone(),
            quarantine: house.quarantine.clone(),
            uses,
            export,
            spreads: None,
        })
    }

    /// Plans a run that stands for many tables: it lists them, and delivers nothing itself.
    fn to_spread(
        export: Arc<Export>,
        run: &Run,
        house: &House,
        bindings: Bindings,
    ) -> Result<Plan> {
        let from = house.connection(&export.source.connection)?;
        let order = &run.order;
        let bound = Bound {
            name: order.export.clone(),
            revision: order.revision,
            hash: order.definition.clone(),
            applied_at: run.accepted_at,
            export: Arc::clone(&export),
        };
        let budget = Budget::new(export.limits.memory);
        Ok(Plan {
            bindings,
            source: source::build(&export.source, from, None, &budget)?,
            references: Vec::new(),
            // Nothing is ever staged in it, so that it is closed and cleaned as any other.
            sink: Box::new(DiscardSink::new(from, Some(&format!("tables/{}", run.id)))),
            progress: Arc::default(),
            budget,
            cursor: None,
            supplement: None,
            is_own: false,
            if_exists: IfExists::Fail,
            keys: BTreeMap::new(),
            quarantine: None,
            uses: vec![Arc::clone(from)],
            export,
            spreads: Some(bound),
        })
    }

    /// The definition, where the run stands for many tables and is to be spread.
    pub fn spreads(&self) -> Option<&Bound> {
        self.spreads.as_ref()
    }

    /// The tables that the export takes, by their full names.
    ///
    /// # Errors
    /// The source's: none is as the patterns say, or one may not be read.
    pub async fn tables(&self) -> Result<Vec<String>> {
        self.source.tables().await
    }

    /// What the run must hold before it starts, all or none: a slot of each connection that has a
    /// limit, the target, and the cursor that it moves.
    pub fn needs(&self) -> Vec<Need> {
        self.uses
            .iter()
            .filter_map(|connection| Some(Need::slot(&connection.name, connection.max_runs?)))
            .chain(self.spreads.is_none().then(|| self.need_of_target()))
            // What it lies beside stays as it is until it is there.
            .chain(self.beside().map(|beside| Need::target(&beside.target)))
            .chain(self.cursor().map(Need::cursor))
            .collect()
    }

    fn need_of_target(&self) -> Need {
        match self.is_own {
            true => Need::own_target(self.sink.target()),
            false => Need::target(self.sink.target()),
        }
    }

    fn beside(&self) -> Option<&Beside> {
        self.supplement.as_ref()?.beside.as_ref()
    }

    /// The name of the cursor that the run moves, if it does.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_ref().filter(|cursor| cursor.moves).map(|cursor| cursor.name.as_str())
    }

    /// A value of the cursor as its source writes it. No row is read.
    ///
    /// # Errors
    /// The source's, where it is no value of the column.
    pub async fn cursor_value(&self, value: &str) -> Result<String> {
        let since = Since { to: Some(value.to_owned()), ..Since::default() };
        let fresh = self.source.read_since(&self.bindings, &since).await?;
        Ok(fresh.to.unwrap_or_else(|| value.to_owned()))
    }

    /// Whether it goes by a cursor over files, which stands at no value.
    pub fn goes_by_files(&self) -> bool {
        self.cursor.as_ref().is_some_and(|cursor| cursor.files)
    }

    /// Whether the run reads again the range of a cursor that an earlier edition of it has read.
    pub fn reads_again(&self) -> bool {
        self.cursor.as_ref().is_some_and(|cursor| !cursor.moves)
    }

    /// The names of the connections that it uses.
    pub fn uses(&self) -> impl Iterator<Item = &str> {
        self.uses.iter().map(|connection| connection.name.as_str())
    }

    /// The connections that one attempt makes a request to, with their limits.
    pub fn rates(&self) -> impl Iterator<Item = (&str, Option<Rate>)> {
        self.uses.iter().map(|connection| (connection.name.as_str(), connection.max_requests))
    }

    /// The name of what is written to.
    pub fn target(&self) -> &str {
        self.sink.target()
    }

    /// The sink, for closing and cleaning up.
    pub fn sink(&self) -> &dyn Sink {
        &*self.sink
    }

    /// How long one attempt may take up to its decision.
    pub fn timeout(&self) -> Duration {
        self.export.limits.timeout
    }

    /// The definition that it follows.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// The memory that it may take.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// How far the attempt is.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    pub(super) fn replaces(&self) -> bool {
        self.if_exists == IfExists::Replace
    }

    /// The keys that the definition's protections need.
    ///
    /// # Errors
    /// `unavailable` where one is not to be had, or unfit: the run waits until somebody puts it there.
    pub(super) async fn keys(&self) -> Result<Keys> {
        keys(&self.export.protect, &self.keys).await
    }

    /// Where refused rows are read from.
    pub(super) fn vault(&self) -> Result<&Vault> {
        self.quarantine.as_ref().ok_or_else(|| {
            Error::config("read the refused rows again", "there is no quarantine here")
                .help("Name it by [quarantine] in this worker's longshore.toml.")
        })
    }

    pub(super) async fn quarantine(&self, holder: &Holder) -> Result<Option<Quarantine>> {
        match &self.quarantine {
            Some(vault) => {
                let quarantine = Quarantine::new(vault, holder).await?;
                Ok(Some(quarantine.within(&self.budget)))
            }
            None => Ok(None),
        }
    }
}

async fn keys(config: &ProtectConfig, known: &BTreeMap<String, Secret>) -> Result<Keys> {
    let mut keys = Keys::new();
    for how in config.values() {
        let Some(name) = how.key().filter(|name| !keys.contains_key(*name)) else { continue };
        let secret = known.get(name).ok_or_else(|| {
            Error::unavailable("read the keys", "longshore.toml has no such key here")
                .with("key", name)
                .help("Add it under [keys]; runs that need it wait until then.")
        })?;
        let key = secret.read_for_job().await?;
        if how.method == Method::Encrypt {
            let fit = protect::check_key(&key);
            fit.map_err(|error| error.with("key", name).reclass(Class::Unavailable))?;
        }
        keys.insert(name.to_owned(), key);
    }
    Ok(keys)
}

/// The cursor that a run reads by, if its export has one. A run with a window reads by its window
/// alone.
fn cursor(export: &Export, run: &Run, params: &Bindings, from: System) -> Option<Cursor> {
    if run.order.window.is_some() {
        return None;
    }
    let of = export.source.cursor_of()?;
    let content = Content {
        export: &run.order.export,
        recipient: run.order.recipient.as_deref(),
        declared: &export.params,
        params,
        window: None,
        definition: None,
    };
    let column = export.source.cursor.as_ref()?.column.clone();
    let (name, moves) = (content.cursor(&of), run.order.edition == 1);
    Some(Cursor { name, column, files: from == System::Files, moves })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[tokio::test]
    async fn references_that_lead_nowhere_are_named_and_nothing_is_told_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("there");
        std::fs::write(&path, "hunter2").unwrap();
        let connection = |settings: serde_json::Value| {
            Arc::new(serde_json::from_value::<Connection>(settings).unwrap())
        };
        let there = format!("${{file:{}}}", path.display());
        let mut house = House::default();
        for (name, settings) in [
            ("crm", serde_json::json!({"type": "postgres", "url": "u", "password": there})),
            ("files", serde_json::json!({"type": "files", "url": "file:x"})),
            (
                "lake",
                serde_json::json!({
                    "type": "files", "url": "s3://b", "access-key": there,
                    "secret-key": "${file:/nowhere/key}",
                }),
            ),
            (
                "shop",
                serde_json::json!({
                    "type": "postgres", "url": "u", "password": "${env:LONGSHORE_TEST_NOT_SET}",
                }),
            ),
        ] {
            house.connections.insert(name.to_owned(), connection(settings));
        }
        house.keys = BTreeMap::from([
            ("acme".to_owned(), Secret::File("/nowhere/acme".to_owned())),
            ("pseudonyms".to_owned(), Secret::Env("LONGSHORE_TEST_NOT_SET_EITHER".to_owned())),
            ("there".to_owned(), Secret::parse(&there).unwrap()),
        ]);
        let error = house.references().await.unwrap_err();
        assert_eq!(error.class(), Class::Unavailable);
        assert_eq!(
            crate::scrub::scrub(&error.chain()),
            "cannot resolve the references: lake lacks ${file:/nowhere/key}, shop lacks \
             ${env:LONGSHORE_TEST_NOT_SET}, [keys] acme lacks ${file:/nowhere/acme}, \
             [keys] pseudonyms lacks \
             ${env:LONGSHORE_TEST_NOT_SET_EITHER}"
        );
        house.keys.clear();
        house.connections.retain(|name, _| name == "crm" || name == "files");
        house.references().await.unwrap();
    }

    #[tokio::test]
    async fn a_key_that_is_missing_or_unfit_is_waited_for_and_never_told() {
        let config: ProtectConfig = serde_json::from_value(serde_json::json!({
            "a": "tokenize", "b": {"method": "encrypt", "key": "acme"}, "c": "hash", "d": "drop",
        }))
        .unwrap();
        let literal = |text: &str| Secret::Literal(text.to_owned());
        let known = |acme: Option<Secret>| {
            let acme = acme.map(|acme| ("acme".to_owned(), acme));
            let others =
                ["pseudonyms", "borealis"].map(|name| (name.to_owned(), literal("pepper")));
            others.into_iter().chain(acme).collect::<BTreeMap<_, _>>()
        };
        for (acme, said) in [
            (None, "no such key here (key acme)"),
            (Some(Secret::File("/nowhere/acme".to_owned())), "/nowhere/acme"),
            (Some(literal("hunter2")), "128 hex digits (key acme)"),
        ] {
            let error = keys(&config, &known(acme)).await.unwrap_err();
            assert_eq!(error.class(), Class::Unavailable);
            let told = error.chain();
            assert!(told.contains(said) && !told.contains("hunter2"), "{told}");
        }
        let found = keys(&config, &known(Some(literal(&"0f".repeat(64))))).await.unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["acme", "pseudonyms"]);
        assert!(keys(&ProtectConfig::new(), &BTreeMap::new()).await.unwrap().is_empty());
    }
}
