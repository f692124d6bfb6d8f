//! What a filter of runs becomes in a statement, in either ledger. Only what is asked for stands in
//! it: a plan for whatever may be asked could use no index.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::RunFilter;
use crate::job::RunId;
use crate::job::run::State;

/// Where what is asked for goes in the ledgers' statements.
const PLACE: &str = "/* what is asked for */";

/// A value that a statement takes.
#[derive(Debug, PartialEq)]
pub enum Value<'a> {
    Text(&'a str),
    Time(Timestamp),
    Run(RunId),
}

/// A statement that finds runs, and its values in their order.
pub struct Find<'a> {
    pub sql: String,
    pub values: Vec<Value<'a>>,
}

impl<'a> Find<'a> {
    /// Of a ledger's own `statement`, which numbers its values with `mark`.
    pub fn new(statement: &str, mark: char, filter: &'a RunFilter) -> Find<'a> {
        let mut find = Asked { mark, text: String::new(), values: Vec::new() };
        let RunFilter { export, states, since, ending, key, window, quarantined, parent, limit } =
            filter;
        find.value("r.key = ", key.as_deref().map(Value::Text));
        find.value("r.parent = ", parent.map(Value::Run));
        find.value("r.accepted_at >= ", since.map(Value::Time));
        find.value("r.window_start >= ", window.map(|span| Value::Time(span.start)));
        find.value("r.window_start < ", window.map(|span| Value::Time(span.end)));
        match ending.as_deref().map(|ending| (ending, ending.parse())) {
            Some((_, Ok(run))) => find.value("r.id = ", Some(Value::Run(run))),
            // No index has what names end with: all are looked at.
            Some((ending, Err(_))) => find.value(
                "replace(CAST(r.id AS text), '-', '') LIKE '%' || ",
                Some(Value::Text(ending)),
            ),
            None => {}
        }
        if *quarantined {
            find.condition("r.quarantine IS NOT NULL");
        }
        // So says the index of those that are not done.
        if !states.is_empty() && !states.contains(&State::Done) {
            find.condition("r.state <> 'done'");
        }
        let order = match export.as_deref() {
            // Editions of a key follow one upon the other, and so stand in its index.
            _ if key.is_some() => "r.edition DESC",
            // Where nothing narrows what is looked at, by the export's own index, however long ago its
            // last run was: that one alone has the order of both columns.
            Some(_) if find.text.is_empty() => "r.export, r.accepted_at DESC, r.id DESC",
            _ => "r.accepted_at DESC, r.id DESC",
        };
        match export.as_deref().map(Value::Text) {
            Some(value) if find.text.is_empty() => {
                find.values.push(value);
                find.condition(&format!("r.export BETWEEN {mark}1 AND {mark}1"));
            }
            value => find.value("r.export = ", value),
        }
        if !states.is_empty() {
            // Written out, so that it is known how many there are of each.
            let words: Vec<String> =
                states.iter().map(|state| format!("'{}'", state.as_str())).collect();
            find.condition(&format!("r.state IN ({})", words.join(", ")));
        }
        let _ = write!(find.text, " ORDER BY {order}");
        if *limit < u32::MAX {
            let _ = write!(find.text, " LIMIT {limit}");
        }
        Find { sql: statement.replace(PLACE, &find.text), values: find.values }
    }
}

/// What is asked for, as far as it is written.
struct Asked<'a> {
    mark: char,
    text: String,
    values: Vec<Value<'a>>,
}

impl<'a> Asked<'a> {
    fn condition(&mut self, condition: &str) {
        self.text.push_str(if self.text.is_empty() { "WHERE " } else { " AND " });
        self.text.push_str(condition);
    }

    /// A condition that ends with a value, where there is one.
    fn value(&mut self, condition: &str, value: Option<Value<'a>>) {
        if let Some(value) = value {
            self.values.push(value);
            self.condition(&format!("{condition}{}{}", self.mark, self.values.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(filter: &RunFilter) -> (String, usize) {
        let find = Find::new(PLACE, '$', filter);
        (find.sql, find.values.len())
    }

    #[test]
    fn only_what_is_asked_for_stands_in_the_statement() {
        let all = RunFilter { limit: 20, ..RunFilter::default() };
        let newest = "ORDER BY r.accepted_at DESC, r.id DESC";
        assert_eq!(asked(&all), (format!(" {newest} LIMIT 20"), 0));
        let key = RunFilter { key: Some("k".to_owned()), limit: 1, ..RunFilter::default() };
        let expected = "WHERE r.key = $1 ORDER BY r.edition DESC LIMIT 1";
        assert_eq!(asked(&key), (expected.to_owned(), 1));
        let states = vec![State::Committing, State::Closing];
        let open = RunFilter { states, limit: u32::MAX, ..RunFilter::default() };
        let expected = "WHERE r.state <> 'done' AND r.state IN ('committing', 'closing')";
        assert_eq!(asked(&open), (format!("{expected} {newest}"), 0));
        let done = RunFilter { states: vec![State::Done, State::Dead], ..all.clone() };
        let expected = "WHERE r.state IN ('done', 'dead')";
        assert_eq!(asked(&done), (format!("{expected} {newest} LIMIT 20"), 0));
        let export = Some("orders".to_owned());
        let expected = "WHERE r.export BETWEEN $1 AND $1 ORDER BY r.export, r.accepted_at DESC";
        let of_export = RunFilter { export: export.clone(), ..all };
        assert_eq!(asked(&of_export), (format!("{expected}, r.id DESC LIMIT 20"), 1));
        let open = RunFilter { export, ..open };
        let expected = "WHERE r.state <> 'done' AND r.export = $1 AND r.state IN";
        assert_eq!(asked(&open), (format!("{expected} ('committing', 'closing') {newest}"), 1));
    }

    #[test]
    fn a_whole_name_is_looked_up_and_an_ending_is_looked_for() {
        let run = RunId::new();
        let of =
            |ending: String| RunFilter { ending: Some(ending), limit: 2, ..Default::default() };
        let whole = of(run.0.simple().to_string());
        let find = Find::new(PLACE, '?', &whole);
        assert!(find.sql.starts_with("WHERE r.id = ?1 "), "{}", find.sql);
        assert_eq!(find.values, [Value::Run(run)]);
        let end = of(run.short());
        let find = Find::new(PLACE, '?', &end);
        assert!(find.sql.contains("LIKE '%' || ?1 "), "{}", find.sql);
    }
}
