//! The target: what the sinks write, one step that others can see at a time.

use crate::world::{Decided, Seen, Target, Write};

/// What a sink answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Fine,
    /// A higher fence is there.
    Fenced,
    /// It has to be tried again.
    Transient,
    /// Somebody else's delivery is there, or a part is lost.
    Refused,
}

/// The final names of a decision's parts, and where each is staged.
fn parts(decided: &Decided) -> impl Iterator<Item = (&String, (u8, i64))> {
    decided.0.parts.iter().map(|part| {
        let (run, fence) = part.staged.split_once('/').unwrap();
        (&part.name, (run.parse::<u8>().unwrap(), fence.parse::<i64>().unwrap()))
    })
}

impl Target {
    /// `sink::files::commit::next`: whether something is to be written, by the manifest that stands.
    pub fn next(&self, decided: &Decided) -> Result<bool, Answer> {
        let replaces = &decided.0.replaces;
        match &self.standing {
            Some(standing) if *standing == decided.0.manifest => Ok(false),
            Some(standing) if replaces.as_ref() == Some(standing) => Ok(true),
            None if replaces.is_none() => Ok(true),
            _ => Err(Answer::Refused),
        }
    }

    /// Does one write, for whoever does it.
    pub fn write(&mut self, run: u8, fence: i64, write: Write, decided: &Decided) -> Answer {
        match write {
            Write::Part => self.bring(decided),
            Write::Manifest => self.put(run, decided),
            Write::Merge => self.merge(run, fence, decided),
        }
    }

    /// `sink::files::commit::bring`.
    fn bring(&mut self, decided: &Decided) -> Answer {
        for (name, staged) in parts(decided) {
            if !self.staged.remove(&staged) && !self.parts.contains(name) {
                return Answer::Refused;
            }
            self.parts.insert(name.clone());
        }
        Answer::Fine
    }

    /// `sink::files::commit::replace`, or a link where nothing is replaced: looking and putting are
    /// one step.
    fn put(&mut self, run: u8, decided: &Decided) -> Answer {
        match self.next(decided) {
            Ok(true) => {
                self.standing = Some(decided.0.manifest.clone());
                self.seen.push(Seen { run, decided: decided.clone() });
                Answer::Fine
            }
            Ok(false) => Answer::Fine,
            Err(answer) => answer,
        }
    }

    /// Raises the fence in a run's marker row: `sink::sqlite::raise`.
    pub fn raise(&mut self, run: u8, fence: i64) -> (i64, Option<Decided>) {
        let marker = self.markers.entry(run).or_insert((fence, None));
        marker.0 = marker.0.max(fence);
        marker.clone()
    }

    /// `sink::table::marker::held`.
    pub fn held(&self, run: u8, fence: i64) -> Result<bool, Answer> {
        match self.markers.get(&run) {
            Some((there, _)) if *there > fence => Err(Answer::Fenced),
            Some((_, Some(_))) => Ok(true),
            Some((there, None)) if *there == fence => Ok(false),
            _ => Err(Answer::Transient),
        }
    }

    /// `sink::sqlite::commit`: one transaction of the target.
    fn merge(&mut self, run: u8, fence: i64, decided: &Decided) -> Answer {
        match self.held(run, fence) {
            Err(answer) => return answer,
            Ok(true) => return Answer::Fine,
            Ok(false) => {}
        }
        if !self.staged.contains(&(run, fence)) {
            return Answer::Transient;
        }
        self.markers.insert(run, (fence, Some(decided.clone())));
        self.seen.push(Seen { run, decided: decided.clone() });
        Answer::Fine
    }

    /// `Sink::clean`.
    pub fn clean(&mut self, run: u8, fence: i64) {
        self.staged.retain(|(whose, under)| *whose != run || *under > fence);
    }

    /// Whether what stands there is whole.
    pub fn is_whole(&self) -> bool {
        let Some(standing) = &self.standing else { return true };
        let seen = self.seen.iter().rfind(|seen| seen.decided.0.manifest == *standing);
        seen.is_some_and(|seen| parts(&seen.decided).all(|(name, _)| self.parts.contains(name)))
    }
}
