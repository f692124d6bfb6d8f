//! Which tables of a database an export names by patterns: `["public.*", "!public.audit_*"]`.
//!
//! `*` stands for any characters of a name and `?` for one; what begins with `!` is taken out,
//! wherever in the list it stands. A pattern without either names one table, whatever its kind.

use crate::error::{Error, Result};

const DOING: &str = "list the tables";
/// How many tables one run is spread over at the most.
const MOST: usize = 10_000;
/// How many are named where something is wrong with them.
const NAMED: usize = 10;

/// The patterns of a definition, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    taken: Vec<Pattern>,
    left_out: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    schema: Option<String>,
    name: String,
}

/// A table as its database lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its schema, where the database has such.
    pub schema: Option<String>,
    /// Its name.
    pub name: String,
    /// Whether a pattern may find it; else it must be named.
    pub plain: bool,
    /// Whether it is the system's own.
    pub system: bool,
    /// Whether this user may read it.
    pub readable: bool,
}

impl Listed {
    /// `schema.table`, or `table`.
    pub fn full(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{schema}.{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// The parts of `schema.table`, or of `table`.
pub fn parts(table: &str) -> (Option<&str>, &str) {
    match table.split_once('.') {
        Some((schema, name)) => (Some(schema), name),
        None => (None, table),
    }
}

impl Tables {
    /// Understands patterns.
    ///
    /// # Errors
    /// `config`, naming the pattern: one that is empty or has more than one dot, or none that takes
    /// anything.
    pub fn parse(patterns: &[String]) -> Result<Tables> {
        let mut tables = Tables { taken: Vec::new(), left_out: Vec::new() };
        for text in patterns {
            let (list, plain) = match text.strip_prefix('!') {
                Some(rest) => (&mut tables.left_out, rest),
                None => (&mut tables.taken, text.as_str()),
            };
            let (schema, name) = parts(plain);
            if name.is_empty() || schema.is_some_and(str::is_empty) || name.contains('.') {
                return Err(Error::config(DOING, format!("`{text}` is no pattern of tables"))
                    .help("Write \"schema.table\" or \"table\", with `*` for any characters."));
            }
            list.push(Pattern { schema: schema.map(str::to_owned), name: name.to_owned() });
        }
        if tables.taken.is_empty() {
            return Err(Error::config(DOING, "no pattern takes any table")
                .help("Name the tables, or take all with \"public.*\" (in SQLite \"*\")."));
        }
        Ok(tables)
    }

    /// Whether the patterns name schemas.
    pub fn have_schemas(&self) -> bool {
        self.taken.iter().any(|pattern| pattern.schema.is_some())
    }

    /// Whether all tables are of one schema, or there are no schemas.
    pub fn are_of_one_schema(&self) -> bool {
        let schemas = || self.taken.iter().map(|pattern| pattern.schema.as_deref());
        let first = schemas().next().flatten();
        !first.is_some_and(is_wild) && schemas().all(|schema| schema == first)
    }

    /// Whether a table of this name is among those that the patterns take.
    pub fn cover(&self, table: &str) -> bool {
        let (schema, name) = parts(table);
        !name.is_empty()
            && !name.contains('.')
            && self.taken.iter().any(|pattern| pattern.fits(schema, name))
            && !self.left_out.iter().any(|pattern| pattern.fits(schema, name))
    }

    /// Those that the patterns take of what a database has, by their full names, in order.
    ///
    /// # Errors
    /// `permanent`: none; one that is named and not there; one that may not be read, or whose name
    /// cannot be told from another's; or too many.
    pub fn pick(&self, listed: &[Listed]) -> Result<Vec<String>> {
        let left_out = |one: &Listed| {
            self.left_out.iter().any(|pattern| pattern.fits(one.schema.as_deref(), &one.name))
        };
        for pattern in self.taken.iter().filter(|pattern| !pattern.is_wild()) {
            if !listed.iter().any(|one| pattern.finds(one)) {
                return Err(Error::permanent(DOING, "a table that is named is not there")
                    .with("table", pattern.text())
                    .help("Correct its name in `tables`, or take it out."));
            }
        }
        let mut found: Vec<&Listed> = listed
            .iter()
            .filter(|one| self.taken.iter().any(|pattern| pattern.finds(one)) && !left_out(one))
            .collect();
        found.sort_by_key(|one| one.full());
        found.dedup();
        if found.is_empty() {
            return Err(Error::permanent(DOING, "no table is as the patterns say")
                .with("tables", self.text())
                .help("Correct `tables`; an export of nothing is never done in silence."));
        }
        let dotted = |one: &&Listed| {
            one.name.contains('.') || one.schema.as_deref().is_some_and(|name| name.contains('.'))
        };
        for (wrong, what, help) in [
            (
                named(found.iter().copied().filter(|one| !one.readable)),
                "this user may not read what the patterns take",
                "Grant it SELECT on them (and USAGE on their schema), or take them out by `!`.",
            ),
            (
                named(found.iter().copied().filter(dotted)),
                "a name with a dot in it cannot be told from a schema's",
                "Take it out by `!`, and read it by a `query` in an export of its own.",
            ),
        ] {
            if let Some(names) = wrong {
                return Err(Error::permanent(DOING, what).with("tables", names).help(help));
            }
        }
        if found.len() > MOST {
            return Err(Error::permanent(DOING, format!("these are {} tables", found.len()))
                .help(format!("At most {MOST} are possible; make several exports of them.")));
        }
        Ok(found.into_iter().map(Listed::full).collect())
    }

    /// The patterns, as they are told.
    fn text(&self) -> String {
        let taken = self.taken.iter().map(Pattern::text);
        let left_out = self.left_out.iter().map(|pattern| format!("!{}", pattern.text()));
        taken.chain(left_out).collect::<Vec<_>>().join(", ")
    }
}

/// The first of them by name, if there are any, and how many there are more.
fn named<'a>(tables: impl Iterator<Item = &'a Listed>) -> Option<String> {
    let names: Vec<String> = tables.map(Listed::full).collect();
    if names.is_empty() {
        return None;
    }
    let shown: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(shown.join(", ") + &more)
}

impl Pattern {
    fn is_wild(&self) -> bool {
        is_wild(&self.name) || self.schema.as_deref().is_some_and(is_wild)
    }

    fn text(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{schema}.{}", self.name),
            None => self.name.clone(),
        }
    }

    /// Whether a name is as the pattern says.
    fn fits(&self, schema: Option<&str>, name: &str) -> bool {
        let schema_fits = match (&self.schema, schema) {
            (None, None) => true,
            (Some(pattern), Some(schema)) => glob(pattern, schema),
            _ => false,
        };
        schema_fits && glob(&self.name, name)
    }

    /// Whether the pattern takes a table: one of another kind than usual, and what is the system's
    /// own, only where it says so.
    fn finds(&self, one: &Listed) -> bool {
        let of_system = one.system && self.schema.as_deref().is_none_or(is_wild);
        self.fits(one.schema.as_deref(), &one.name) && (one.plain || !self.is_wild()) && !of_system
    }
}

fn is_wild(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// Whether `name` is as `pattern` says.
fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut place) = (0, 0);
    // Where the last `*` stands, and what of the name it has taken up to.
    let mut star: Option<(usize, usize)> = None;
    while place < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, place));
                at += 1;
            }
            Some('?') => (at, place) = (at + 1, place + 1),
            Some(one) if name.get(place) == Some(one) => (at, place) = (at + 1, place + 1),
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    (at, place) = (star_at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;
    use proptest::prelude::*;

    fn tables(patterns: &[&str]) -> Tables {
        let patterns: Vec<String> = patterns.iter().map(|one| (*one).to_owned()).collect();
        Tables::parse(&patterns).unwrap()
    }

    fn listed(name: &str) -> Listed {
        let (schema, name) = parts(name);
        Listed {
            schema: schema.map(str::to_owned),
            name: name.to_owned(),
            plain: true,
            system: schema.is_some_and(|schema| schema.starts_with("pg_")),
            readable: true,
        }
    }

    fn shop() -> Vec<Listed> {
        let names = [
            "public.orders",
            "public.items",
            "public.audit_1",
            "sales.orders",
            "pg_catalog.pg_class",
        ];
        names.into_iter().map(listed).collect()
    }

    #[test]
    fn patterns_take_and_leave_out_in_any_order() {
        for (patterns, expected) in [
            (&["public.*"][..], &["public.audit_1", "public.items", "public.orders"][..]),
            (&["public.*", "!public.audit_*"], &["public.items", "public.orders"]),
            (&["!public.audit_*", "public.*"], &["public.items", "public.orders"]),
            (&["*.orders"], &["public.orders", "sales.orders"]),
            (&["public.order?", "public.orders"], &["public.orders"]),
            (&["*.*", "!public.*"], &["sales.orders"]),
            (&["pg_catalog.pg_c*"], &["pg_catalog.pg_class"]),
        ] {
            assert_eq!(tables(patterns).pick(&shop()).unwrap(), expected, "{patterns:?}");
        }
        let plain: Vec<Listed> = ["orders", "items"].into_iter().map(listed).collect();
        assert_eq!(tables(&["*"]).pick(&plain).unwrap(), ["items", "orders"]);
    }

    #[test]
    fn nothing_is_left_out_in_silence() {
        let refused = |patterns: &[&str], listed: &[Listed]| {
            let error = tables(patterns).pick(listed).unwrap_err();
            assert_eq!(error.class(), Class::Permanent);
            error.to_string()
        };
        let none = refused(&["public.x*", "!public.xa"], &shop());
        assert!(none.contains("public.x*, !public.xa"), "{none}");
        let missing = refused(&["public.*", "public.order"], &shop());
        assert!(missing.contains("public.order)"), "{missing}");
        let mut locked = shop();
        locked[2].readable = false;
        let told = refused(&["public.*"], &locked);
        assert!(told.contains("may not read") && told.contains("public.audit_1"), "{told}");
        tables(&["public.*", "!public.audit_*"]).pick(&locked).unwrap();
        let mut dotted = shop();
        dotted[1].name = "a.b".to_owned();
        assert!(refused(&["public.*"], &dotted).contains("public.a.b"));
        let many: Vec<Listed> = (0..=MOST).map(|n| listed(&format!("public.t{n}"))).collect();
        assert!(refused(&["public.*"], &many).contains("10001 tables"));
    }

    #[test]
    fn what_is_unusual_is_taken_where_it_is_named() {
        let mut part = listed("public.orders_2026");
        part.plain = false;
        let all = [listed("public.orders"), part];
        assert_eq!(tables(&["public.*"]).pick(&all).unwrap(), ["public.orders"]);
        let named = tables(&["public.orders_2026"]).pick(&all).unwrap();
        assert_eq!(named, ["public.orders_2026"]);
    }

    #[test]
    fn a_job_names_a_table_that_is_covered() {
        let tables = tables(&["public.*", "!public.audit_*", "sales.orders"]);
        for fine in ["public.orders", "sales.orders"] {
            assert!(tables.cover(fine), "{fine}");
        }
        for other in ["orders", "public.audit_1", "sales.items", "public.", "public.a.b", ""] {
            assert!(!tables.cover(other), "{other}");
        }
        assert!(!tables.are_of_one_schema() && tables.have_schemas());
    }

    #[test]
    fn schemas_are_told() {
        assert!(tables(&["public.*", "public.x"]).are_of_one_schema());
        assert!(!tables(&["*.orders"]).are_of_one_schema());
        assert!(tables(&["*"]).are_of_one_schema() && !tables(&["*"]).have_schemas());
    }

    #[test]
    fn patterns_that_mean_nothing_are_refused() {
        for bad in [&["public."][..], &[".x"], &["a.b.c"], &[""], &["!a"], &[], &["!"]] {
            let patterns: Vec<String> = bad.iter().map(|one| (*one).to_owned()).collect();
            assert_eq!(Tables::parse(&patterns).unwrap_err().class(), Class::Config, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_found_by_a_pattern_of_its_own_pieces(
            pieces in prop::collection::vec("[ab]{0,3}", 1..5),
            between in "[ab]{0,4}",
        ) {
            prop_assert!(glob(&pieces.join("*"), &pieces.join(&between)));
            let name = pieces.concat();
            prop_assert!(glob(&"?".repeat(name.len()), &name));
            prop_assert!(!glob(&"?".repeat(name.len() + 1), &name));
        }
    }
}
