//! Checks the steps of the rows against each other, as far as the definition itself tells their
//! columns: the transform against the source's, the contract against what comes of that, and the
//! protection against what the contract promises.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use indexmap::IndexMap;
use secrecy::SecretString;

use crate::config::problem::{Code, Problem, Problems};
use crate::config::tree::{Node, Place};
use crate::connect::System;
use crate::contract::{self, Contract, ContractConfig, ExtraColumns};
use crate::error::{Class, Error};
use crate::export::Export;
use crate::format::decode::batcher::schema;
use crate::protect::{Keys, Protect, Protection};
use crate::source::{self, SourceConfig};
use crate::transform::{CHARACTER, LINE, Table, Tables, Transform};

/// Checks transform, contract and protection.
pub fn rows(export: &Export, kind: System, tree: &Node, problems: &mut Problems) {
    let types = export.contract.as_ref().map(ContractConfig::types);
    let read = match kind {
        System::Files => source::declared(&export.source, types.as_ref()),
        System::Postgres | System::Sqlite | System::Discard => None,
    };
    let made = transformed(export, read, tree, problems);
    if let (Some(config), Some(made)) = (&export.contract, made.clone()) {
        promised(config, made, tree, problems);
    }
    if let Some(kept) = types.map(|types| schema(&types)).or(made) {
        protected(export, &kept, tree, problems);
    }
}

/// What the transform makes of the rows. `None` where that is not known.
fn transformed(
    export: &Export,
    read: Option<SchemaRef>,
    tree: &Node,
    problems: &mut Problems,
) -> Option<SchemaRef> {
    let Some(config) = &export.transform else { return read };
    let planned = match (read, references(export)) {
        (Some(read), Some(tables)) => {
            Transform::plan(config, read, &tables).map(|transform| Some(transform.schema()))
        }
        _ => {
            let names = export.reference.keys().map(String::as_str).collect();
            Transform::parse(config, &names).map(|_| None)
        }
    };
    planned.unwrap_or_else(|error| {
        let whole = tree.at(&["transform", "sql"]);
        let number = |name: &str| {
            let (_, text) = error.context().iter().find(|(one, _)| *one == name)?;
            text.parse::<usize>().ok()
        };
        let place = match (number(LINE), number(CHARACTER)) {
            (Some(line), Some(character)) => whole.inside_at(&config.sql, line, character),
            _ => whole.clone(),
        };
        tell(Code::Transform, &place, &error, problems);
        None
    })
}

/// The references without rows, where the definition itself tells the columns of all of them.
fn references(export: &Export) -> Option<Tables> {
    let table = |(name, config): (&String, &SourceConfig)| {
        let key = config.key.as_deref().unwrap_or_default();
        // What is wrong with a key is told there.
        let table = Table::new(name, &source::declared(config, None)?, key, &[]).ok()?;
        Some((name.clone(), Arc::new(table)))
    };
    export.reference.iter().map(table).collect()
}

/// Every field is planned alone, so that all that do not fit are told.
fn promised(config: &ContractConfig, made: SchemaRef, tree: &Node, problems: &mut Problems) {
    let mut fit = true;
    for (name, field) in &config.fields {
        if !contract::mistakes(name, field).is_empty() {
            fit = false;
            continue;
        }
        let alone = ContractConfig {
            fields: IndexMap::from([(name.clone(), field.clone())]),
            primary_key: Vec::new(),
            extra_columns: ExtraColumns::Drop,
            ..config.clone()
        };
        if let Err(error) = Contract::plan(&alone, made.clone()) {
            fit = false;
            tell(Code::Promise, tree.key_at(&["contract", "fields", name]), &error, problems);
        }
    }
    if fit && let Err(error) = Contract::plan(config, made) {
        // Anything else is told already.
        if error.class() == Class::Contract {
            tell(Code::Promise, tree.key_at(&["contract", "fields"]), &error, problems);
        }
    }
}

fn protected(export: &Export, kept: &SchemaRef, tree: &Node, problems: &mut Problems) {
    // Whether there are keys is another question: any that are fit will do.
    let names = export.protect.values().filter_map(Protection::key);
    let keys: Keys =
        names.map(|name| (name.to_owned(), SecretString::from("0".repeat(128)))).collect();
    let mut fit = true;
    for (name, how) in &export.protect {
        // Told with the other mistakes in options.
        if !how.mistakes().is_empty() {
            fit = false;
            continue;
        }
        let known = kept.column_with_name(name).is_some();
        let with_contract = export.contract.is_some();
        if !known && with_contract {
            // Told with the contract's other names.
            fit = false;
            continue;
        }
        // Beside another column, so that something is left where this one is dropped.
        let mut columns = kept.fields().to_vec();
        columns
            .push(arrow::datatypes::Field::new("", arrow::datatypes::DataType::Null, true).into());
        let wider = SchemaRef::new(arrow::datatypes::Schema::new(columns));
        let alone = [(name.clone(), how.clone())].into_iter().collect();
        if let Err(error) = Protect::plan(&alone, wider, &keys) {
            fit = false;
            let code = if known { Code::Protection } else { Code::NoSuchField };
            tell(code, tree.key_at(&["protect", name]), &error, problems);
        }
    }
    if fit
        && !export.protect.is_empty()
        && let Err(error) = Protect::plan(&export.protect, kept.clone(), &keys)
    {
        tell(Code::Protection, tree.key_at(&["protect"]), &error, problems);
    }
}

fn tell<'a>(
    code: Code,
    place: &Place,
    error: &Error,
    problems: &'a mut Problems,
) -> &'a mut Problem {
    let problem = problems.add(code, place, error.message(), "");
    problem.help = error.advice().map(str::to_owned);
    problem
}
