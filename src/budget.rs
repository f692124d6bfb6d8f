//! The memory of a run, in bytes: whatever holds many of them for it charges them here, and gives
//! them back when it is dropped.
//!
//! Charged is what grows with the rows: once a batch, a record or a buffer, never once a row of many.
//! A run that would hold more than its budget fails, and no other does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};
use crate::units::Size;

/// What bytes are held for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Use {
    /// What is read and not yet a batch: a record, a block of a file, a page.
    #[default]
    Reading,
    /// Batches on their way.
    Rows,
    /// The references, whole.
    References,
    /// What a format holds back, and what it has written that nobody has taken yet.
    Encoding,
    /// Pieces of uploads.
    Uploading,
    /// Refused rows on their way to quarantine.
    Quarantine,
    /// Lists of files or tables.
    Listing,
}

impl Use {
    /// What is to be known about it where there is not enough.
    fn takes(self) -> &'static str {
        match self {
            Use::Quarantine => "Refused rows take 10 MiB of it on their way to quarantine.",
            Use::Uploading => "An upload to an object store takes 10 MiB of it at the least.",
            Use::References => "References may take half of it: read fewer rows and columns.",
            Use::Listing => "Each file or table of a list takes some of it: list fewer.",
            Use::Reading | Use::Rows | Use::Encoding => {
                "A row may take about an eighth of it: leave wide columns out, or cut them in the \
                 query."
            }
        }
    }
}

const USES: [(Use, &str); 7] = [
    (Use::Reading, "being read"),
    (Use::Rows, "rows on their way"),
    (Use::References, "references"),
    (Use::Encoding, "being encoded"),
    (Use::Uploading, "being uploaded"),
    (Use::Quarantine, "on the way to quarantine"),
    (Use::Listing, "lists"),
];

/// How many bytes a run may hold, and how many it does. Clones are the same budget; the default one
/// has no bound.
#[derive(Debug, Clone, Default)]
pub struct Budget(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    held: AtomicUsize,
    by: [AtomicUsize; USES.len()],
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit: Size) -> Budget {
        let limit = usize::try_from(limit.0).unwrap_or(usize::MAX);
        Budget(Some(Arc::new(Inner { limit, held: AtomicUsize::new(0), by: Default::default() })))
    }

    /// One part of `parts` of it, and `most` bytes at the most: how much a buffer is to hold.
    pub fn share(&self, parts: usize, most: usize) -> usize {
        self.0.as_ref().map_or(most, |inner| most.min(inner.limit / parts)).max(1)
    }

    /// How many bytes are not charged.
    pub fn left(&self) -> usize {
        self.0.as_ref().map_or(usize::MAX, |inner| {
            inner.limit.saturating_sub(inner.held.load(Ordering::Relaxed))
        })
    }

    /// How many bytes are charged.
    pub fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| inner.held.load(Ordering::Relaxed))
    }

    /// A charge of no bytes yet.
    pub fn open(&self, of: Use) -> Charge {
        Charge { budget: self.clone(), of, bytes: 0 }
    }

    /// Charges bytes, until the charge is dropped.
    ///
    /// # Errors
    /// `permanent` where there are not so many left: with the budget and where its bytes are.
    pub fn charge(&self, of: Use, bytes: usize) -> Result<Charge> {
        let mut charge = self.open(of);
        charge.set(bytes)?;
        Ok(charge)
    }
}

impl Inner {
    fn exceeded(&self, of: Use, more: usize) -> Error {
        let named = |of: Use| USES.iter().find(|(one, _)| *one == of).map_or("", |(_, name)| name);
        let size = |bytes: usize| Size(bytes as u64).human();
        let mut held: Vec<(usize, &str)> = USES
            .iter()
            .zip(&self.by)
            .map(|((_, name), bytes)| (bytes.load(Ordering::Relaxed), *name))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        held.sort_unstable_by(|one, other| other.cmp(one));
        let held: Vec<String> =
            held.into_iter().map(|(bytes, name)| format!("{} {name}", size(bytes))).collect();
        let held = if held.is_empty() { "nothing".to_owned() } else { held.join(", ") };
        Error::permanent(
            "stay within its memory",
            format!("the run outgrew its budget of {}", size(self.limit)),
        )
        .with("wanted", format!("{} more {}", size(more), named(of)))
        .with("held", held)
        .help(format!(
            "Raise `memory` under [limits] of the export, and under [worker] where that is less. {}",
            of.takes()
        ))
    }
}

/// Bytes that are held; dropping it gives them back. The default one is of a budget without bound.
#[derive(Debug, Default)]
pub struct Charge {
    budget: Budget,
    of: Use,
    bytes: usize,
}

impl Charge {
    /// Charges so many bytes in all, from now on.
    ///
    /// # Errors
    /// As [`Budget::charge`]; then it stays as it was.
    pub fn set(&mut self, bytes: usize) -> Result<()> {
        let before = std::mem::replace(&mut self.bytes, bytes);
        let Some(inner) = &self.budget.0 else { return Ok(()) };
        let by = &inner.by[self.of as usize];
        if bytes <= before {
            inner.held.fetch_sub(before - bytes, Ordering::Relaxed);
            by.fetch_sub(before - bytes, Ordering::Relaxed);
            return Ok(());
        }
        let more = bytes - before;
        if inner.held.fetch_add(more, Ordering::Relaxed).saturating_add(more) > inner.limit {
            inner.held.fetch_sub(more, Ordering::Relaxed);
            self.bytes = before;
            return Err(inner.exceeded(self.of, more));
        }
        by.fetch_add(more, Ordering::Relaxed);
        Ok(())
    }

    /// How many bytes it may have in all, as things stand.
    pub fn room(&self) -> usize {
        self.budget.left().saturating_add(self.bytes)
    }

    /// The error that holding so many bytes would be.
    pub fn beyond(&self, bytes: usize) -> Error {
        let more = bytes.saturating_sub(self.bytes);
        match &self.budget.0 {
            Some(inner) => inner.exceeded(self.of, more),
            None => Error::permanent("stay within its memory", "there is no more"),
        }
    }

    /// Charges so many bytes at least.
    ///
    /// # Errors
    /// As [`Budget::charge`].
    pub fn cover(&mut self, bytes: usize) -> Result<()> {
        if bytes > self.bytes { self.set(bytes) } else { Ok(()) }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // Giving back never fails.
        let _ = self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn what_is_charged_is_held_until_it_is_dropped() {
        let budget = Budget::new(Size(100));
        let rows = budget.charge(Use::Rows, 60).unwrap();
        let mut encoding = budget.charge(Use::Encoding, 10).unwrap();
        encoding.set(40).unwrap();
        encoding.cover(30).unwrap();
        assert_eq!((budget.held(), budget.left()), (100, 0));
        encoding.set(5).unwrap();
        assert_eq!(budget.left(), 35);
        drop(rows);
        drop(encoding);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn beyond_the_budget_is_an_error_that_tells_where_the_bytes_are() {
        let budget = Budget::new(Size(64 << 20));
        let _rows = budget.charge(Use::Rows, 12 << 20).unwrap();
        let mut encoding = budget.charge(Use::Encoding, 40 << 20).unwrap();
        let error = encoding.set(60 << 20).unwrap_err();
        assert_eq!(error.class(), Class::Permanent);
        let told = error.to_string();
        for part in [
            "its budget of 64.0 MiB",
            "wanted 20.0 MiB more being encoded",
            "held 40.0 MiB being encoded, 12.0 MiB rows on their way",
        ] {
            assert!(told.contains(part), "{told}");
        }
        assert!(
            error.advice().is_some_and(|help| help.contains("[limits]") && help.contains("row"))
        );
        // The advice is for what had no room.
        let error = budget.charge(Use::Quarantine, 13 << 20).unwrap_err();
        assert!(error.advice().is_some_and(|help| help.contains("Refused rows take 10 MiB")));
        // What failed is not charged, and what was held before still is.
        assert_eq!(budget.held(), 52 << 20);
        // Another run has a budget of its own.
        Budget::new(Size(64 << 20)).charge(Use::Rows, 64 << 20).unwrap();
    }

    #[test]
    fn a_share_has_two_bounds() {
        let budget = Budget::new(Size(64));
        assert_eq!((budget.share(4, 100), budget.share(4, 10), budget.share(100, 10)), (16, 10, 1));
        assert_eq!(Budget::default().share(4, 100), 100);
        Budget::default().charge(Use::Rows, usize::MAX).unwrap();
    }
}
